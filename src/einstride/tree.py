"""Trees: in which order, and in which groups, the operands of an expression are multiplied and summed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .expression import Label
from .problem import Problem, terms

Group = tuple[int, ...]
Nested: TypeAlias = "int | tuple[Nested, ...]"


@dataclass(frozen=True, slots=True)
class Tree:
    """A contraction tree: the operands are nodes ``0..operands-1``, ``groups[k]`` makes node ``operands + k``.

    How many operands there are follows from the groups, for each group turns its nodes into one. A group of one node
    sums labels out of it, a group of two contracts a pair, a larger one multiplies all of its nodes in a single pass.
    Every node but the last is used exactly once and the last one is the output.

    Raises:
        ValueError: when a group is empty, uses a node twice or before it is made, or leaves a node unused.

    >>> Tree(((0, 1), (2, 3))).operands
    3
    """

    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if not self.groups or not all(self.groups):
            raise ValueError(f"a tree has at least one group and no empty one, unlike {self.groups}")
        live = set(range(self.operands))
        for node, group in enumerate(self.groups, self.operands):
            if not live.issuperset(group) or len(set(group)) != len(group):
                raise ValueError(f"node {node} is made of {group}, of which only {sorted(live)} can be used, once each")
            live.difference_update(group)
            live.add(node)

    @property
    def operands(self) -> int:
        """The number of operands."""
        return 1 + sum(len(group) - 1 for group in self.groups)


def node_labels(problem: Problem, tree: Tree) -> tuple[tuple[Label, ...], ...]:
    """The distinct labels of every node: of the operands first, then of the groups' results.

    A result keeps a label that is in the output or in an operand outside of it. Its labels ascend, but those of the
    last node follow the output.

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> problem = bind(parse("ij,jk,kl->li", (2, 2, 2)), ((2, 3), (3, 4), (4, 5)))
    >>> node_labels(problem, Tree(((0, 1), (2, 3))))
    ((0, 1), (1, 2), (2, 3), (0, 2), (3, 0))
    """
    labels = list(terms(problem))
    output = tuple(dict.fromkeys(problem.expression.output))
    # How many live nodes, the output among them, have each label: a group's result drops what nobody else has.
    holders = dict.fromkeys(range(len(problem.extents)), 0)
    for term in (*labels, output):
        for label in term:
            holders[label] += 1
    for group in tree.groups[:-1]:
        inside: set[Label] = set()
        for node in group:
            inside.update(labels[node])
            for label in labels[node]:
                holders[label] -= 1
        kept = tuple(sorted(label for label in inside if holders[label]))
        for label in kept:
            holders[label] += 1
        labels.append(kept)
    labels.append(output)
    return tuple(labels)


def from_path(path: Iterable[Sequence[int]], operands: int) -> Tree:
    """The tree of a path in NumPy's form: positions in a list from which a contraction takes its operands and to
    which it appends its result.

    Raises:
        ValueError: when a position is out of range or repeated, or when the path does not end in one array.

    >>> from_path([(0, 1), (0, 1)], 3)
    Tree(groups=((0, 1), (2, 3)))
    """
    live = list(range(operands))
    groups: list[Group] = []
    for positions in path:
        chosen = sorted(set(positions))
        if not chosen or len(chosen) != len(positions) or chosen[0] < 0 or chosen[-1] >= len(live):
            wrong = (
                "nothing" if not chosen else "an array twice" if len(chosen) != len(positions) else "what is not there"
            )
            arrays = "array, at position 0" if len(live) == 1 else f"arrays, at positions 0 to {len(live) - 1}"
            step = f"contraction {len(groups)} of the path, {tuple(positions)}, picks {wrong}"
            raise ValueError(f"{step}; there {'is' if len(live) == 1 else 'are'} {len(live)} {arrays}")
        groups.append(tuple(live[position] for position in chosen))
        for position in reversed(chosen):
            del live[position]
        live.append(operands + len(groups) - 1)
    if len(live) > 1:
        raise ValueError(f"the path leaves {len(live)} arrays, of which its last contraction should make one")
    return Tree(tuple(groups))


def to_path(tree: Tree) -> list[tuple[int, ...]]:
    """The path of a tree in NumPy's form; see `from_path`.

    >>> to_path(Tree(((1, 2), (0, 3))))
    [(1, 2), (0, 1)]
    """
    live = list(range(tree.operands))
    path: list[tuple[int, ...]] = []
    for node, group in enumerate(tree.groups, tree.operands):
        path.append(tuple(sorted(live.index(part) for part in group)))
        live = [part for part in live if part not in group]
        live.append(node)
    return path


def from_nested(nested: Nested) -> Tree:
    """The tree of nested tuples of operand numbers.

    >>> from_nested(((0, 1), 2))
    Tree(groups=((0, 1), (2, 3)))
    """
    # Parents are met before their parts, so that the reverse of this order makes every node before its use.
    met: list[tuple[Nested, ...]] = []
    waiting = [nested]
    operands = 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, int):
            operands += 1
        else:
            met.append(part)
            waiting.extend(part)
    made: dict[int, int] = {}
    groups: list[Group] = []
    for parts in reversed(met):
        groups.append(tuple(sorted(part if isinstance(part, int) else made[id(part)] for part in parts)))
        made[id(parts)] = operands + len(groups) - 1
    return Tree(tuple(groups))
