"""Improves a tree of many operands: the exact search, on one small piece of the tree after another."""

from __future__ import annotations

from collections.abc import Sequence

from ..cost import Labels, Seconds, volume
from ..problem import Problem
from ..tree import Nested, Tree, from_nested, node_labels
from .exact import exact

# How many nodes a piece joins: six take the exact search about a millisecond.
PIECE = 6


def refine(problem: Problem, tree: Tree, seconds: Seconds, largest: int | None = None) -> Tree:
    """Cuts the tree, from the output down, into pieces that join at most `PIECE` nodes, and makes each of them the
    fastest it can be. The cut goes where the intermediates are large.

    >>> from einstride.cost import roofline
    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> problem = bind(parse("i,i,i->i", (1, 1, 1)), ((10**6,),) * 3)
    >>> refine(problem, Tree(((0, 1), (2, 3))), roofline(8))
    Tree(groups=((0, 1, 2),))
    """
    labels = node_labels(problem, tree)
    operands = tree.operands
    pieces: list[tuple[int, list[int], Nested | None]] = []  # a root, the nodes it is made of, and how, if anew
    roots = [len(labels) - 1]
    while roots:
        root = roots.pop()
        joined, spent = _piece(problem, tree, labels, root, seconds)
        inputs = [labels[node] for node in joined]
        found = exact(inputs, labels[root], problem.extents, seconds, largest, spent) if len(joined) <= PIECE else None
        if found is None:
            joined = list(tree.groups[root - operands])
        pieces.append((root, joined, found))
        roots.extend(node for node in joined if node >= operands)

    made: dict[int, Nested] = {node: node for node in range(operands)}
    for root, joined, shape in reversed(pieces):
        parts = tuple([made[node] for node in joined])
        made[root] = parts if shape is None else _replace(shape, parts)
    return from_nested(made[len(labels) - 1])


def _piece(
    problem: Problem, tree: Tree, labels: Sequence[Labels], root: int, seconds: Seconds
) -> tuple[list[int], float]:
    """The nodes that a piece joins and the seconds its steps take now."""
    operands = tree.operands
    joined, opened, spent = [root], root, 0.0
    while True:
        group = tree.groups[opened - operands]
        spent += seconds(tuple([labels[part] for part in group]), labels[opened], problem.extents)
        joined.remove(opened)
        joined.extend(group)
        fitting = [
            node for node in joined if node >= operands and len(joined) - 1 + len(tree.groups[node - operands]) <= PIECE
        ]
        if not fitting:
            return sorted(joined), spent
        opened = max(fitting, key=lambda node: (volume(labels[node], problem.extents), -node))


def _replace(nested: Nested, by: Sequence[Nested]) -> Nested:
    return by[nested] if isinstance(nested, int) else tuple([_replace(part, by) for part in nested])
