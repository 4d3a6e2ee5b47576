"""Search: which tree to contract a problem by.

Every planner is a pure function from labels and extents to a tree, in a file of its own; `search` picks one by name.
A stronger planner for many operands takes the place of `greedy` in `_auto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from numbers import Integral, Real

from ..cost import Seconds, roofline, step_flops, tree_seconds, volume, workspace
from ..errors import OperandTypeError, OptionError, PathError, PlanMemoryError, nearest
from ..problem import Problem, terms
from ..tree import Nested, Tree, from_nested, from_path
from .exact import exact
from .greedy import greedy
from .numpy_paths import MOST_OPTIMAL, numpy_greedy, numpy_optimal
from .refine import refine
from .schedule import schedule

# The most operands the exact search is given: ten take it up to 0.1 s.
MOST_EXACT = 10
# A greedy tree first, to bound the exact search, pays from here.
MOST_UNBOUNDED = 4
# A tree that fits the memory but is predicted to take this many times the fastest is no answer.
MOST_SLOWDOWN = 10.0

_PLANNERS = "there are 'auto', 'greedy', 'optimal', True, False"

Optimize = bool | str | Sequence[object] | None


@dataclass(frozen=True, slots=True)
class Budget:
    """What a tree may use and how its time is predicted.

    ``memory`` bounds the intermediates that exist at one time, in bytes, at ``itemsize`` bytes an element;
    ``seconds`` estimates one step.
    """

    memory: int | None = None
    itemsize: int = 8
    seconds: Seconds = field(default_factory=lambda: roofline(8))


def search(problem: Problem, optimize: Optimize = "auto", budget: Budget | None = None) -> Tree:
    """The tree to contract ``problem`` by. Equal problems have equal trees.

    ``optimize`` is ``"auto"`` (the least predicted time, exactly so for up to `MOST_EXACT` operands), ``False`` or
    ``None`` (one step over all operands), ``True`` or ``"greedy"``, ``"optimal"`` (NumPy's planners), a pair of a name
    and the most elements an intermediate may have, or a path such as ``["einsum_path", (0, 1), (0, 1)]``.

    Raises:
        OptionError: ``optimize`` names no planner.
        OperandTypeError: ``optimize`` is of a type that cannot say one.
        PathError: the path does not contract these operands to one array.
        PlanMemoryError: no tree keeps its intermediates within ``budget.memory``.

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> search(bind(parse("ij,jk,kl->il", (2, 2, 2)), ((10, 100), (100, 100), (100, 10)))).groups
    ((0, 1), (2, 3))
    """
    budget = budget or Budget()
    tree = _named(problem, optimize, budget)
    if budget.memory is None or workspace(problem, tree) * budget.itemsize <= budget.memory:
        return tree
    if optimize == "auto":
        # Bounding each intermediate does not bound their sum, so the bound shrinks until the sum fits.
        slowest = tree_seconds(problem, tree, budget.seconds) * MOST_SLOWDOWN
        largest = budget.memory // budget.itemsize
        while True:
            smaller = _auto(problem, budget.seconds, largest)
            if workspace(problem, smaller) * budget.itemsize <= budget.memory:
                if tree_seconds(problem, smaller, budget.seconds) <= slowest:
                    return smaller
                break
            if not largest:
                break
            largest //= 2
    needed = workspace(problem, tree) * budget.itemsize
    raise PlanMemoryError(
        f"the intermediates alone need {needed} bytes at one time, but memory={budget.memory} was allowed\n"
        f"  {problem.expression}"
    )


def _named(problem: Problem, optimize: Optimize, budget: Budget) -> Tree:
    count = len(problem.shapes)
    largest: int | None = None
    if optimize is None or isinstance(optimize, bool):
        optimize = "greedy" if optimize else "none"
    if not isinstance(optimize, str):
        if not isinstance(optimize, Sequence) or not optimize or not isinstance(optimize[0], str):
            message = f"optimize={optimize!r} is not a planner; {_PLANNERS}, (name, most elements) "
            message += "and ['einsum_path', (0, 1), ...]"
            if isinstance(optimize, Sequence) and optimize and all(map(_is_step, optimize)):
                message += f"; did you mean {['einsum_path', *optimize]}?"
            raise OperandTypeError(message)
        if optimize[0] == "einsum_path":
            return _given(optimize[1:], count)
        if len(optimize) != 2 or isinstance(optimize[1], bool) or not isinstance(optimize[1], Real):
            raise OperandTypeError(
                f"optimize={optimize!r} should be a planner's name and the most elements of an intermediate, "
                "as in ('greedy', 10**6), or a planner's name alone"
            )
        if not isfinite(optimize[1]):
            raise OptionError(f"optimize={optimize!r}: {optimize[1]} is not a number of elements")
        optimize, largest = optimize[0], int(optimize[1])

    if optimize == "auto":
        return _auto(problem, budget.seconds, largest)
    if optimize not in ("none", "greedy", "optimal"):
        near = nearest(optimize, ("auto", "greedy", "optimal"))
        meant = "" if near is None else f"; did you mean {near!r}?"
        raise OptionError(f"optimize={optimize!r} names no planner; {_PLANNERS}{meant}")
    # NumPy counts a broadcast axis at its label's extent.
    inputs = [tuple(dict.fromkeys(term)) for term in problem.expression.inputs]
    output = problem.expression.output
    if optimize == "none" or count <= 2 or set().union(*inputs) <= set(output):
        return Tree((tuple(range(count)),))
    if largest is None:
        largest = max(volume(term, problem.extents) for term in (*problem.expression.inputs, output))
    if optimize == "greedy":
        return numpy_greedy(inputs, output, problem.extents, largest)
    if count <= MOST_OPTIMAL:
        return numpy_optimal(inputs, output, problem.extents, largest)
    return _auto(problem, step_flops, largest)


def _auto(problem: Problem, seconds: Seconds, largest: int | None) -> Tree:
    inputs, output = terms(problem), tuple(dict.fromkeys(problem.expression.output))
    if len(inputs) == 1 or (len(inputs) == 2 and set(inputs[0]) ^ set(inputs[1]) <= set(output)):
        return Tree((tuple(range(len(inputs))),))
    if len(inputs) > MOST_EXACT:
        tree = from_nested(greedy(inputs, output, problem.extents, largest))
        return schedule(problem, refine(problem, tree, seconds, largest))
    found: Nested | None = None
    bound = inf
    if len(inputs) > MOST_UNBOUNDED:
        found = greedy(inputs, output, problem.extents, largest)
        bound = tree_seconds(problem, from_nested(found), seconds)
    found = exact(inputs, output, problem.extents, seconds, largest, bound) or found
    if found is None:
        found = tuple(range(len(inputs)))
    return schedule(problem, from_nested(found))


def _given(path: Sequence[object], operands: int) -> Tree:
    for positions in path:
        if not _is_step(positions):
            raise OperandTypeError(f"optimize: a path is made of tuples of positions, not of {positions!r}")
    try:
        return from_path(path, operands)  # type: ignore[arg-type]
    except ValueError as error:
        raise PathError(f"optimize: {error}") from None


def _is_step(positions: object) -> bool:
    return isinstance(positions, Sequence) and all(isinstance(position, Integral) for position in positions)
