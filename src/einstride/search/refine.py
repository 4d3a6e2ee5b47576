"""Improves a tree of many operands: the exact search, on one small piece of the tree after another."""

from __future__ import annotations

from ..cost import Seconds, volume
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
    pieces: list[tuple[int, list[int], Nested]] = []
    roots = [len(labels) - 1]
    while roots:
        root = roots.pop()
        joined = list(tree.groups[root - operands])
        while True:
            open_nodes = [
                node
                for node in joined
                if node >= operands and len(joined) - 1 + len(tree.groups[node - operands]) <= PIECE
            ]
            if not open_nodes:
                break
            opened = max(open_nodes, key=lambda node: (volume(labels[node], problem.extents), -node))
            joined.remove(opened)
            joined.extend(tree.groups[opened - operands])
        joined.sort()
        found: Nested | None = None
        if len(joined) <= PIECE:
            inputs = [labels[node] for node in joined]
            found = exact(inputs, labels[root], problem.extents, seconds, largest)
        pieces.append((root, joined, tuple(range(len(joined))) if found is None else found))
        roots.extend(node for node in joined if node >= operands)

    made: dict[int, Nested] = {node: node for node in range(operands)}
    for root, joined, shape in reversed(pieces):
        made[root] = _replace(shape, [made[node] for node in joined])
    return from_nested(made[len(labels) - 1])


def _replace(nested: Nested, by: list[Nested]) -> Nested:
    return by[nested] if isinstance(nested, int) else tuple([_replace(part, by) for part in nested])
