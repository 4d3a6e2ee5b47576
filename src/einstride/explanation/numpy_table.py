"""The table that ``numpy.einsum_path`` gives with a path, line for line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from math import prod
from string import ascii_lowercase, ascii_uppercase

from ..expression import Expression, Label
from ..problem import Problem
from ..tree import Tree

_LETTERS = ascii_uppercase + ascii_lowercase


def numpy_table(problem: Problem, tree: Tree) -> str:
    """What NumPy prints about a path: a contraction's flops are its loops times its operands less one, plus one if
    it sums.

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> problem = bind(parse("ij,jk,kl->il", (2, 2, 2)), ((2, 2), (2, 5), (5, 2)))
    >>> print(numpy_table(problem, Tree(((1, 2), (0, 3)))))
      Complete contraction:  ij,jk,kl->il
             Naive scaling:  4
         Optimized scaling:  3
          Naive FLOP count:  1.200e+02
      Optimized FLOP count:  5.700e+01
       Theoretical speedup:  2.105
      Largest intermediate:  4.000e+00 elements
    --------------------------------------------------------------------------
    scaling                  current                                remaining
    --------------------------------------------------------------------------
       3                   kl,jk->jl                                ij,jl->il
       3                   jl,ij->il                                   il->il
    """
    letters = _letters(problem.expression)
    inputs, output = problem.expression.inputs, problem.expression.output

    def spelled(labels: Iterable[Label]) -> str:
        return "".join([letters[label] for label in labels])

    def volume(labels: Iterable[Label]) -> int:
        return prod([problem.extents[label] for label in labels])

    def flops(loops: set[Label], kept: set[Label], operands: int) -> int:
        return volume(loops) * (max(operands - 1, 1) + (loops != kept))

    nodes: dict[int, tuple[Label, ...]] = dict(enumerate(inputs))
    costs, scalings, sizes, rows = [], [], [], []
    for node, group in enumerate(tree.groups, len(inputs)):
        parts = [nodes.pop(part) for part in sorted(group, reverse=True)]
        loops = set().union(*parts)
        kept = loops & set(output).union(*nodes.values())
        costs.append(flops(loops, kept, len(parts)))
        scalings.append(len(loops))
        sizes.append(volume(kept))
        by_extent = sorted(kept, key=lambda label: (problem.extents[label], letters[label]))
        nodes[node] = tuple(by_extent) if nodes else output
        step = ",".join(map(spelled, parts)) + "->" + spelled(nodes[node])
        left = ",".join(map(spelled, nodes.values())) + "->" + spelled(output)
        rows.append(f"{len(loops):4d}    {step:>24} {left:>40}")

    labels = set().union(*inputs)
    summed = sum(len(set(term)) for term in inputs) > len(labels)
    naive = volume(labels) * (max(len(inputs) - 1, 1) + summed)
    optimized = sum(costs) + 1
    rule = "-" * 74
    return "\n".join(
        [
            f"  Complete contraction:  {','.join(map(spelled, inputs))}->{spelled(output)}",
            f"         Naive scaling:  {len(labels)}",
            f"     Optimized scaling:  {max(scalings)}",
            f"      Naive FLOP count:  {naive:.3e}",
            f"  Optimized FLOP count:  {optimized:.3e}",
            f"   Theoretical speedup:  {naive / optimized:3.3f}",
            f"  Largest intermediate:  {max(sizes):.3e} elements",
            rule,
            f"{'scaling':>6} {'current':>24} {'remaining':>40}",
            rule,
            *rows,
        ]
    )


def _letters(expression: Expression) -> list[str]:
    """A letter per label: the label itself if it is one, NumPy's for the integers 0 to 51, else one not in use."""
    letters: list[str] = []
    for name in expression.names:
        if len(name) == 1 and name.isalpha():
            letters.append(name)
        elif name.isdecimal() and int(name) < len(_LETTERS):
            letters.append(_LETTERS[int(name)])
        else:
            letters.append("")
    # After the alphabet any other letter will do.
    free = (letter for letter in map(_letter, count()) if letter.isalpha() and letter not in letters)
    return [letter or next(free) for letter in letters]


def _letter(number: int) -> str:
    return _LETTERS[-1 - number] if number < len(_LETTERS) else chr(0xC0 + number - len(_LETTERS))
