"""A good tree for any number of operands, in near-linear time."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from math import prod

from ..cost import Labels
from ..tree import Nested

# A label in very many operands would make all pairs of them candidates; each operand meets this many of them.
MOST_NEIGHBOURS = 16


def greedy(inputs: Sequence[Labels], output: Labels, extents: Sequence[int], largest: int | None = None) -> Nested:
    """Joins, again and again, the pair whose result is smallest compared with the two that go.

    Pairs that share a label come first; what is left, of unconnected expressions, is joined from small to large.
    Intermediates have at most ``largest`` elements each: where no pair is left that fits, one step takes all that
    remain. Equal choices fall to the older operands, so that equal problems have equal trees. The rule is the
    size-reducing greedy one of NumPy and opt_einsum (Smith and Gray, JOSS 2018), with a heap over neighbours only.

    >>> greedy([(0, 1), (1, 2), (2, 3)], (0, 3), (2, 9, 9, 2))
    (2, (0, 1))
    """
    live: dict[int, tuple[Nested, frozenset[int], int]] = {}  # node: how it is made, its labels, its elements
    holders: dict[int, dict[int, None]] = {}  # label: the live nodes that have it, oldest first
    kept = frozenset(output)

    def size(labels: frozenset[int]) -> int:
        return prod([extents[label] for label in labels])

    def result(group: Sequence[int]) -> frozenset[int]:
        labels = frozenset().union(*[live[node][1] for node in group])
        return frozenset(
            [
                label
                for label in labels
                if label in kept or len(holders[label]) > sum(label in live[node][1] for node in group)
            ]
        )

    def add(node: int, nested: Nested, labels: frozenset[int]) -> None:
        live[node] = (nested, labels, size(labels))
        for label in labels:
            holders.setdefault(label, {})[node] = None

    def join(node: int, group: Sequence[int], labels: frozenset[int]) -> None:
        nested = tuple([live[part][0] for part in group])
        for part in group:
            for label in live.pop(part)[1]:
                del holders[label][part]
        add(node, nested, labels)

    def neighbours(node: int) -> list[int]:
        near: set[int] = set()
        for label in live[node][1]:
            near.update(islice(holders[label], MOST_NEIGHBOURS))
        near.discard(node)
        return sorted(near)

    def candidate(first: int, second: int) -> tuple[int, int, int]:
        return size(result((first, second))) - live[first][2] - live[second][2], first, second

    for node, term in enumerate(inputs):
        add(node, node, frozenset(term))
    for node in range(len(inputs)):
        labels = result((node,))
        if labels != live[node][1] and len(inputs) > 1:
            join(node, (node,), labels)

    heap = [candidate(node, near) for node in live for near in neighbours(node) if node < near]
    heapify(heap)
    new = len(inputs)
    while heap:
        _, first, second = heappop(heap)
        if first in live and second in live:
            labels = result((first, second))
            if largest is None or len(live) == 2 or size(labels) <= largest:
                join(new, (first, second), labels)
                for near in neighbours(new):
                    heappush(heap, candidate(near, new))
                new += 1

    loose = [(entry[2], node) for node, entry in live.items()]
    heapify(loose)
    while len(loose) > 1:
        first, second = heappop(loose)[1], heappop(loose)[1]
        labels = result((first, second))
        if largest is not None and len(live) > 2 and size(labels) > largest:
            break
        join(new, (first, second), labels)
        heappush(loose, (live[new][2], new))
        new += 1
    made = [entry[0] for entry in live.values()]
    return tuple(made) if len(made) > 1 or isinstance(made[0], int) else made[0]
