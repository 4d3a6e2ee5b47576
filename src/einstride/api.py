"""einsum, einsum_path, plan: argument forms in, arrays, paths and Plans out. The only caches are here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _core
from .array import (
    Array,
    DType,
    Strides,
    as_operand,
    as_shape,
    check_arithmetic,
    check_cast,
    check_options,
    check_out,
    is_direct,
    layout,
    load,
    native,
    object_message,
    result_type,
    type_code,
    view,
)
from .cost import Cost, roofline, tree_cost
from .errors import (
    BroadcastWarning,
    OperandTypeError,
    OptionError,
    PlanMemoryError,
    ShapeError,
    SubscriptsError,
    pointed,
    warn_caller,
)
from .expression import Shape, ordered_labels, parse, parse_interleaved
from .lower import lower
from .machine import detect
from .predict import step_seconds
from .problem import Problem, bind, checked_size, dense_strides, summed_broadcasts
from .program import ITEMSIZES, Program, intermediate_type
from .run import load_program, run_namespace
from .search import Budget, Optimize, search
from .tree import Tree, node_labels, to_path

if TYPE_CHECKING:
    from .explanation import Explanation

_MOST_PLANS = 1024
_MOST_PROGRAMS = 2048

# NumPy's own, for operands whose type takes np.einsum over; np.einsum itself may be ours by the time of a call.
_numpy_einsum: Callable[..., Any] = np.einsum

# NumPy 1 looks at the values of 0-d operands to promote dtypes, so there a dtype alone does not tell the result's.
_PROMOTES_BY_VALUE = int(np.__version__.split(".")[0]) < 2
_MOST_AXES = 32 if _PROMOTES_BY_VALUE else 64

# The terms as the caller wrote them: a subscripts string, or label lists of which the last is the output's or None.
Form: TypeAlias = str | tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """An einsum worked out for given shapes and dtypes: call it with arrays, any number of times, from any thread.

    Attributes:
        problem: the expression with its extents.
        tree: the contraction tree.
        dtypes: what each operand must be.
        dtype: what the result is.
        strides: the byte strides per operand that `program` is for; a call with others runs a program of its own.
        memory: the bytes that intermediates and packing buffers may take at one time, in any such program; None for
            any number.

    >>> p = plan("ij,jk->ik", (3, 4), (4, 5))
    >>> p(np.ones((3, 4)), np.ones((4, 5))).shape
    (3, 5)
    >>> p.cost
    Cost(flops=120, bytes=376, peak=120)
    >>> p.path
    ['einsum_path', (0, 1)]
    """

    problem: Problem
    tree: Tree
    dtypes: tuple[DType, ...]
    dtype: DType
    strides: Strides
    memory: int | None = None

    def __call__(self, *operands: object, out: Array | None = None) -> Any:
        """The result for arrays of the planned shapes and dtypes, or ``out`` filled with it.

        Raises:
            ShapeError: there are more or fewer operands, or one has another shape.
            OperandTypeError: an operand has another dtype.
            OutputError: ``out`` has the wrong shape or is read-only.
            PlanMemoryError: arrays that lie otherwise than planned need more than ``memory``.
        """
        return einsum(self, *operands, out=out)

    @property
    def cost(self) -> Cost:
        """Flops, bytes moved and peak memory in bytes."""
        return tree_cost(self.problem, self.tree, self.dtype.itemsize)

    @property
    def path(self) -> list[Any]:
        """The tree as NumPy writes one, good for ``optimize=``."""
        return ["einsum_path", *to_path(self.tree)]

    @property
    def program(self) -> Program | None:
        """The steps and their kernels for the planned strides; None for dtypes that the engine leaves to NumPy."""
        loaded = self._load()
        return loaded and loaded[0]

    def _load(self) -> tuple[Program, _core.Program] | None:
        if type_code(self.dtype) is None:
            return None
        _, strides = layout(self.problem, self.strides, self.dtypes, "K", self.dtype.itemsize)
        return _program(self.problem, self.tree, (self.strides, self.dtypes), (self.dtype, strides), self.memory)

    def explain(self) -> str:
        """In plain text, per step: labels by role, extents, kernel and why, flops, bytes, predicted time."""
        from .explanation.facts import describe
        from .explanation.text import explain_text

        return explain_text(describe(self))


def plan(
    subscripts: object = "",
    /,
    *operands: object,
    dtype: object = None,
    optimize: Optimize = "auto",
    memory: int | None = None,
) -> Plan:
    """Work out an einsum without running it. An operand is an array or, as a tuple of int, a shape.

    Operands given as shapes have dtype ``dtype``, or float64. The other arguments are those of `einsum`.

    Raises:
        EinsumError: as `einsum` does.

    >>> plan("ij,jk,kl->il", (2, 100), (100, 100), (100, 90)).path
    ['einsum_path', (0, 1), (0, 1)]
    """
    form, values = _split((subscripts, *operands))
    assumed = result_type((), None, np.float64 if dtype is None else dtype)
    given: list[Array | DType] = []
    shapes: list[Shape] = []
    strides: list[tuple[int, ...]] = []
    for number, value in enumerate(values):
        if isinstance(value, tuple):
            shape = as_shape(value, number, assumed.itemsize)
            given.append(assumed)
            shapes.append(shape)
            strides.append(dense_strides(shape, range(len(shape)), assumed.itemsize))
        else:
            array = as_operand(value, number)
            given.append(array)
            shapes.append(array.shape)
            strides.append(array.strides)
    dtypes = tuple([native(item if isinstance(item, np.dtype) else item.dtype) for item in given])
    wanted = result_type(given, None, dtype)
    check_arithmetic(wanted, () if dtype is not None else dtypes)
    for number, item in enumerate(given):
        check_cast(item, number, wanted, "safe")
    allowed = _memory_key(memory)
    problem, tree = _planned(form, tuple(shapes), wanted, _optimize_key(optimize), allowed)
    planned = Plan(problem, tree, dtypes, wanted, tuple(strides), allowed)
    planned._load()
    return planned


def explain(
    subscripts: object,
    /,
    *operands: object,
    dtype: object = None,
    optimize: Optimize = "auto",
    memory: int | None = None,
) -> Explanation:
    """Explain an einsum without running it: what it means, what einstride does for it, and what that costs.

    The arguments are those of `plan`, shapes among them. The explanation is for `print`, for a Jupyter cell, or for
    its ``save("page.html")``; its parts are attributes.

    Raises:
        EinsumError: as `einsum` does.

    >>> scores = explain("bqm,bkm->bqk", (32, 64, 512), (32, 128, 512))
    >>> print(scores.words)
    for each b: rows of A against rows of B, summed over m
    >>> print(scores.formula)
    out[b,q,k] = Σ_m A[b,q,m] * B[b,k,m]
    """
    from .explanation import Explanation

    return Explanation(plan(subscripts, *operands, dtype=dtype, optimize=optimize, memory=memory))


def einsum_path(subscripts: object = "", /, *operands: object, optimize: Optimize = "auto") -> tuple[list[Any], str]:
    """The order in which `einsum` would contract these operands, in NumPy's form, and NumPy's table about it.

    The path can be given to ``optimize=`` of either library. With ``optimize="auto"`` it is einstride's own, of least
    predicted time; the named planners give NumPy's.

    Raises:
        EinsumError: as `einsum` does.

    >>> a, b, c = np.ones((2, 100)), np.ones((100, 100)), np.ones((100, 90))
    >>> einsum_path("ij,jk,kl->il", a, b, c)[0]
    ['einsum_path', (0, 1), (0, 1)]
    """
    from .explanation.numpy_table import numpy_table

    form, values = _split((subscripts, *operands))
    arrays = [as_operand(value, number) for number, value in enumerate(values)]
    wanted = result_type(arrays, None, None)
    shapes = tuple([array.shape for array in arrays])
    problem, tree = _planned(form, shapes, wanted, _optimize_key(optimize), None)
    return ["einsum_path", *to_path(tree)], numpy_table(problem, tree)


def _einsum(
    *arguments: object,
    out: Any = None,
    dtype: object = None,
    order: object = "K",
    casting: object = "safe",
    optimize: Any = "auto",
    memory: int | None = None,
) -> Any:
    """What `einsum` calls for a call it has no answer to yet; it leaves the answer for the next such call."""
    first = arguments[0] if arguments else ""
    form, values = (first, arguments[1:]) if isinstance(first, Plan) else _split(arguments)
    if any(map(_takes_over, values)):
        named = {"out": out, "dtype": dtype, "order": order, "casting": casting, "optimize": optimize}
        return _numpy_einsum(
            *arguments, **{name: value for name, value in named.items() if value is not _DEFAULTS[name]}
        )

    order, casting = check_options(order, casting)
    arrays = tuple([as_operand(value, number) for number, value in enumerate(values)])
    if out is not None and not isinstance(out, np.ndarray):
        raise OperandTypeError(f"out= must be an array, not {type(out).__name__}")
    allowed = _memory_key(memory)
    usual = (order, casting, allowed) == ("K", "safe", None)
    if isinstance(form, Plan):
        _check_planned(form, arrays, dtype, optimize)
        problem, tree, wanted = form.problem, form.tree, form.dtype
        allowed = form.memory if allowed is None else allowed
    else:
        wanted = result_type(arrays, out, dtype)
        shapes = tuple([array.shape for array in arrays])
        asked = _optimize_key(optimize)
        if usual and not _recognised(form, values, arrays, out, dtype, optimize):
            # Other sequences, labels or dtypes, a path: a plan is what the compiled path can know such a call by.
            return einsum(_kept_plan(form, shapes, _layouts(arrays), wanted, asked), *arrays, out=out)
        problem, tree = _planned(form, shapes, wanted, asked, allowed)

    result, answer = _evaluate(problem, tree, arrays, out, wanted, order, casting, allowed)
    if usual and answer is not None:
        _core.remember(form, arrays, out, optimize, *answer)
    return result[()] if out is None and result.ndim == 0 else result


def _recognised(
    form: Form, values: Sequence[object], arrays: Sequence[Array], out: Array | None, dtype: object, optimize: object
) -> bool:
    """Whether the compiled path can tell this call by its own arguments when it comes again."""
    if dtype is not None or not isinstance(optimize, str | bool | None):
        return False
    if not isinstance(form, str) and not all(
        type(label) is int or label is Ellipsis for term in form if isinstance(term, tuple) for label in term
    ):
        return False
    if _PROMOTES_BY_VALUE and any(array.ndim == 0 for array in (*arrays, *(() if out is None else (out,)))):
        return False
    return all(
        array is value or type(value) in (list, tuple, float, int) for array, value in zip(arrays, values, strict=True)
    )


# How `_core.remember` is told to repeat a call: a program, the result's shape, byte strides and dtype, or the operand
# that the result is a view of, and whether the result must be cleared before the program runs.
_Answer: TypeAlias = tuple[_core.Program | None, Shape, tuple[int, ...], DType, int | None, bool]


def _evaluate(
    problem: Problem,
    tree: Tree,
    arrays: tuple[Array, ...],
    out: Array | None,
    dtype: DType,
    order: str,
    casting: str,
    memory: int | None,
) -> tuple[Array, _Answer | None]:
    """The result, in ``out`` if given, and how to get it again from other arrays of the same layouts, if that is how
    it was made."""
    if out is None and len(arrays) == 1 and native(arrays[0].dtype) == dtype:
        shown = view(problem, arrays[0])
        if shown is not None:
            known = type_code(arrays[0].dtype) is not None and arrays[0].dtype.isnative
            return shown, ((None, shown.shape, shown.strides, dtype, 0, False) if known else None)

    check_arithmetic(dtype, [array.dtype for array in arrays], out)
    shape, result_strides = layout(problem, *_layouts(arrays), order, dtype.itemsize)
    if out is not None:
        check_out(out, shape, dtype, casting)
    loaded = load(arrays, dtype, casting)
    if type_code(dtype) is None:
        try:
            made = run_namespace(problem, tree, [array.astype(dtype, copy=False) for array in loaded])
        except TypeError as error:
            raise OperandTypeError(object_message(arrays, error)) from error
        result = np.ndarray(shape, dtype, strides=result_strides) if out is None else out
        np.copyto(result, made, casting="unsafe")
        return result, None

    direct = out is not None and is_direct(out, dtype, loaded)
    result = out if out is not None and direct else _core.empty(shape, result_strides, dtype)
    program, compiled = _program(problem, tree, _layouts(loaded), (dtype, result.strides), memory)
    if program.cleared:
        result.fill(0)
    compiled.run(loaded, result)
    if out is not None and not direct:
        np.copyto(out, result, casting="unsafe")  # check_out has asked the casting rule
        return out, None
    same = all(array is given for array, given in zip(loaded, arrays, strict=True))
    return result, ((compiled, shape, result.strides, dtype, None, program.cleared) if same else None)


_DEFAULTS = {"out": None, "dtype": None, "order": "K", "casting": "safe", "optimize": "auto"}


def _takes_over(value: object) -> bool:
    """Whether the value's type has np.einsum done its own way (NEP 18)."""
    if type(value) is np.ndarray:
        return False
    method = getattr(type(value), "__array_function__", None)
    return method is not None and method is not np.ndarray.__array_function__


def _split(arguments: Sequence[object]) -> tuple[Form, tuple[object, ...]]:
    """Tell ``(subscripts, a, b)`` from ``(a, labels, b, labels, labels)``: the terms, and the operands."""
    first = arguments[0] if arguments else ""
    if isinstance(first, bytes):
        first = _decoded(first)
    if isinstance(first, str):
        if not first and len(arguments) <= 1:
            raise SubscriptsError('einsum needs subscripts and operands, as in einsum("ij,jk->ik", a, b)')
        return str(first), tuple(arguments[1:])
    if isinstance(first, Plan):
        raise OperandTypeError(f"the plan {first.problem.expression} is made already; call it with its operands")
    if len(arguments) == 1:
        raise OperandTypeError(
            f"the subscripts must be a string, not {type(first).__name__}, "
            "or operands and their labels must alternate: einsum(a, [0, 1], b, [1, 2], [0, 2])"
        )
    paired = len(arguments) // 2 * 2
    labels = [_term(given, f"operand {number}") for number, given in enumerate(arguments[1:paired:2])]
    output = _term(arguments[-1], "the output") if len(arguments) > paired else None
    form: Form = (*labels, output)
    try:
        hash(form)  # calls are compared by it
    except TypeError:
        parse_interleaved(labels, output, ())  # says which label
        raise
    return form, tuple(arguments[:paired:2])


def _term(labels: object, where: str) -> tuple[Hashable, ...]:
    # The usual kinds have nothing to be checked, and are taken at once.
    return tuple(labels) if type(labels) is list or type(labels) is tuple else ordered_labels(labels, where)


def _decoded(subscripts: bytes) -> str:
    try:
        return subscripts.decode()
    except UnicodeDecodeError as error:
        shown = subscripts.decode(errors="backslashreplace")
        at = len(subscripts[: error.start].decode())
        message = f"byte {error.start} of the subscripts, {subscripts[error.start]:#04x}, is no text in UTF-8"
        raise SubscriptsError(pointed(message, shown, (at, at + 4))) from None


def _optimize_key(optimize: object) -> Hashable:
    """``optimize`` as a value that can be compared: lists as tuples, NumPy's None as False."""
    if optimize is None or isinstance(optimize, bool | np.bool_):
        return bool(optimize)
    if isinstance(optimize, list | tuple):
        key = tuple([tuple(step) if isinstance(step, list) else step for step in optimize])
        try:
            hash(key)
        except TypeError:
            raise OperandTypeError(f"a path is made of tuples of positions, not {optimize!r}") from None
        return key
    if isinstance(optimize, str):
        return optimize
    raise OperandTypeError(
        f"optimize={optimize!r} is not a planner; there are 'auto', 'greedy', 'optimal', True, False, "
        "(name, most elements) and ['einsum_path', (0, 1), ...]"
    )


def _memory_key(memory: object) -> int | None:
    if memory is None or (isinstance(memory, int | np.integer) and not isinstance(memory, bool) and memory >= 0):
        return None if memory is None else int(memory)
    raise OptionError(f"memory={memory!r} is not a number of bytes, 0 or more")


@lru_cache(_MOST_PLANS)
def _planned(
    form: Form, shapes: tuple[Shape, ...], dtype: DType, optimize: Any, memory: int | None
) -> tuple[Problem, Tree]:
    """The tree for operands of these shapes and products of this dtype."""
    ranks = tuple(map(len, shapes))
    if isinstance(form, str):
        expression = parse(form, ranks, shapes)
    else:
        expression = parse_interleaved(form[:-1], form[-1], ranks, shapes)  # type: ignore[arg-type]
    problem = bind(expression, shapes)
    for message in summed_broadcasts(problem):
        warn_caller(BroadcastWarning(message))
    if len(expression.output) > _MOST_AXES:
        axes = len(expression.output)
        raise ShapeError(f"the output has {axes} axes; a NumPy array has at most {_MOST_AXES}\n  {expression}")
    checked_size(problem, expression.output, dtype.itemsize)
    code = type_code(dtype)
    if code is None:
        budget = Budget(memory, dtype.itemsize, roofline(dtype.itemsize))
    else:
        kept = intermediate_type(code)
        budget = Budget(memory, ITEMSIZES[kept], step_seconds(kept, detect()))
    tree = search(problem, optimize, budget)
    if len(tree.groups) > 1:
        for intermediate in node_labels(problem, tree)[len(shapes) : -1]:
            checked_size(problem, intermediate, budget.itemsize)
    return problem, tree


@lru_cache(_MOST_PLANS)
def _kept_plan(
    form: Form,
    shapes: tuple[Shape, ...],
    layouts: tuple[Strides, tuple[DType, ...]],
    dtype: DType,
    optimize: Hashable,
) -> Plan:
    """One Plan for equal calls: the compiled path knows it by identity."""
    strides, dtypes = layouts
    return Plan(*_planned(form, shapes, dtype, optimize, None), tuple(map(native, dtypes)), dtype, strides)


@lru_cache(_MOST_PROGRAMS)
def _lowered(
    problem: Problem,
    tree: Tree,
    read: tuple[Strides, tuple[DType, ...]],
    written: tuple[DType, tuple[int, ...]],
    arranges: bool = True,
) -> tuple[Program, _core.Program]:
    """The program for operands, and a result, of these dtypes and byte strides."""
    *codes, code = [type_code(dtype) for dtype in (*read[1], written[0])]
    program = lower(problem, tree, read[0], codes, code, written[1], detect(), arranges)  # type: ignore[arg-type]
    return program, load_program(program)


def _layouts(arrays: Sequence[Array]) -> tuple[Strides, tuple[DType, ...]]:
    return tuple([array.strides for array in arrays]), tuple([array.dtype for array in arrays])


def _program(
    problem: Problem,
    tree: Tree,
    read: tuple[Strides, tuple[DType, ...]],
    written: tuple[DType, tuple[int, ...]],
    memory: int | None,
) -> tuple[Program, _core.Program]:
    """The same within so many bytes: without copies in another order, if they are what is too much."""
    lowered = _lowered(problem, tree, read, written)
    if memory is None or lowered[1].memory() <= memory:
        return lowered
    plain = _lowered(problem, tree, read, written, arranges=False)
    if plain[1].memory() <= memory:
        return plain
    program, compiled = min(lowered, plain, key=lambda loaded: loaded[1].memory())
    needed = compiled.memory()
    buffers = needed - program.workspace
    raise PlanMemoryError(
        f"{needed} bytes are needed at one time, {program.workspace} for intermediates and copies and "
        f"{buffers} for packing buffers, but memory={memory} was allowed\n  {problem.expression}"
    )


def _check_planned(planned: Plan, arrays: Sequence[Array], dtype: object, optimize: object) -> None:
    for name, value in (("dtype", dtype), ("optimize", optimize)):
        if value is not _DEFAULTS[name]:
            raise OptionError(f"the plan {planned.problem.expression} has its {name}; give {name}= to plan()")
    shapes = planned.problem.shapes
    if len(arrays) != len(shapes):
        takes = "1 operand" if len(shapes) == 1 else f"{len(shapes)} operands"
        raise ShapeError(
            f"the plan {planned.problem.expression} takes {takes}, of shapes {', '.join(map(str, shapes))}; "
            f"it was called with {len(arrays)}"
        )
    for number, (array, shape, dtype) in enumerate(zip(arrays, shapes, planned.dtypes, strict=True)):
        if array.shape != shape:
            raise ShapeError(
                f"operand {number} has shape {array.shape}, the plan {planned.problem.expression} is for {shape}; "
                "another shape needs a plan of its own"
            )
        if native(array.dtype) != dtype:
            raise OperandTypeError(
                f"operand {number} is {array.dtype}, the plan {planned.problem.expression} is for {dtype}; "
                f"convert it by .astype({str(dtype)!r}), or plan for it"
            )


# Python's own message about a keyword that does not exist should name the function that was called.
_einsum.__qualname__ = "einsum"
_core.set_miss(_einsum)
einsum = _core.einsum
