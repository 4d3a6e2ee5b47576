"""NumPy's named planners, rule by rule, so that ``optimize="greedy"`` and ``"optimal"`` mean what they mean there.

Both join pairs whose result has at most ``largest`` elements and, where no such pair is left, take all that remains in
one step. A pair is an ascending pair of nodes; among equals the first wins, in the order of NumPy's lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations

from ..cost import Labels, step_flops, volume
from ..tree import Group, Tree

# The exhaustive search visits every partition of the operands: 4140 of 8, 21147 of 9.
MOST_OPTIMAL = 8


def numpy_greedy(inputs: Sequence[Labels], output: Labels, extents: Sequence[int], largest: int) -> Tree:
    """Joins the pair that removes most elements, then the one of fewest flops; pairs that share no label only when
    there are no others. A pair is given up if the flops so far would exceed those of a single step.

    >>> numpy_greedy([(0, 1), (1, 2), (2, 3)], (0, 3), (2, 9, 9, 2), largest=81)
    Tree(groups=((0, 1), (2, 3)))
    """
    live = dict(enumerate(frozenset(term) for term in inputs))
    groups: list[Group] = []
    scores: dict[tuple[int, int], tuple[int, int]] = {}
    naive = step_flops(inputs, output, extents)
    spent = 0

    def result(pair: tuple[int, int]) -> Labels:
        outside = set(output).union(*[labels for node, labels in live.items() if node not in pair])
        return tuple((live[pair[0]] | live[pair[1]]) & outside)

    def consider(pair: tuple[int, int]) -> None:
        kept = result(pair)
        size = volume(kept, extents)
        flops = step_flops([tuple(live[node]) for node in pair], kept, extents)
        if size <= largest and spent + flops <= naive:
            scores[pair] = (size - sum(volume(tuple(live[node]), extents) for node in pair), flops)

    new = len(inputs)
    fresh = list(combinations(live, 2))
    while len(live) > 1:
        for pair in fresh:
            if not live[pair[0]].isdisjoint(live[pair[1]]):
                consider(pair)
        if not scores:
            for pair in combinations(live, 2):
                consider(pair)
        if not scores:
            groups.append(tuple(live))
            break
        best = min(scores, key=scores.__getitem__)
        spent += scores[best][1]
        kept = frozenset(result(best))
        for node in best:
            del live[node]
        scores = {pair: score for pair, score in scores.items() if pair[0] in live and pair[1] in live}
        fresh = [(node, new) for node in live]
        live[new] = kept
        groups.append(best)
        new += 1
    return Tree(tuple(groups))


def numpy_optimal(inputs: Sequence[Labels], output: Labels, extents: Sequence[int], largest: int) -> Tree:
    """The pairs of fewest flops in total, by trying them all; meant for at most `MOST_OPTIMAL` operands.

    >>> numpy_optimal([(0, 1), (1, 2), (2, 3)], (0, 3), (2, 9, 9, 2), largest=81)
    Tree(groups=((0, 1), (2, 3)))
    """
    everything = (1 << len(inputs)) - 1

    @cache
    def labels_of(subset: int) -> Labels:
        inside = [term for operand, term in enumerate(inputs) if subset >> operand & 1]
        if len(inside) == 1:
            return inside[0]
        outside = [term for operand, term in enumerate(inputs) if not subset >> operand & 1]
        return tuple(set().union(*inside) & set(output).union(*outside))

    @cache
    def flops(first: int, second: int) -> int:
        return step_flops([labels_of(first), labels_of(second)], labels_of(first | second), extents)

    def joins(live: Sequence[int]) -> Iterator[tuple[int, int]]:
        return (
            (first, second)
            for first, second in combinations(live, 2)
            if volume(labels_of(first | second), extents) <= largest
        )

    # What is left in the end when these subsets are joined as far as can be, and the flops of getting there.
    @cache
    def finish(live: frozenset[int]) -> tuple[int, int]:
        return min((after(live, *pair) for pair in joins(sorted(live))), default=(len(live), 0))

    def after(live: frozenset[int], first: int, second: int) -> tuple[int, int]:
        left, more = finish(live - {first, second} | {first | second})
        return left, more + flops(first, second)

    nodes = {1 << operand: operand for operand in range(len(inputs))}  # in NumPy's order: results come last
    groups: list[Group] = []
    while everything not in nodes:
        live = frozenset(nodes)
        goal = finish(live)
        for pair in joins(tuple(nodes)):
            if after(live, *pair) == goal:
                groups.append((nodes.pop(pair[0]), nodes.pop(pair[1])))
                nodes[pair[0] | pair[1]] = len(inputs) + len(groups) - 1
                break
        else:
            groups.append(tuple(nodes.values()))
            break
    return Tree(tuple(groups))
