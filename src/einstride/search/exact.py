"""The fastest tree by predicted time: dynamic programming over the subsets of at most some ten operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from ..cost import Labels, Seconds
from ..tree import Nested

# A single pass over more inputs than this is not considered, unless it is over all of them.
MOST_FUSED = 6
# Fusing a step that sums labels repeats the other inputs' multiplications; below this many points of the loop nest
# the call that is saved can still be worth it.
SMALL = 4096
# Up to this many operands every split is tried; beyond, a split into parts that share no label only where the
# expression itself falls apart.
OUTER_PRODUCTS = 4


class _Node(NamedTuple):
    """One way to make a subset: a step over `parts`, or an operand when there are none. Labels are bit masks."""

    cost: float  # seconds, of everything inside
    labels: int  # of the result
    parts: tuple[_Node, ...]
    below: float  # seconds of the parts
    nest: int  # the labels of the step's loops
    nested: Nested


def exact(
    inputs: Sequence[Labels],
    output: Labels,
    extents: tuple[int, ...],
    seconds: Seconds,
    largest: int | None = None,
    bound: float = inf,
) -> Nested | None:
    """The tree of least predicted time whose intermediates have at most ``largest`` elements each; None when every
    tree takes ``bound`` seconds or more.

    Each subset of the operands keeps its fastest tree, made from every split in two. The step that joins two parts
    also absorbs the last step of one or both where that repeats no work, which is how groups of three and more arise,
    and an operand with labels of its own may sum them first. This is DPsub of Moerkotte and Neumann, "Analysis of two
    existing and one new dynamic programming algorithm", VLDB 2006, with parts bounded from above.

    >>> from einstride.cost import roofline
    >>> exact([(0, 1), (1, 2), (2, 3)], (0, 3), (9, 900, 900, 9), roofline(8))
    ((0, 1), 2)
    >>> exact([(0, 1), (0, 1), (0, 1)], (0, 1), (900, 900), roofline(8))
    (0, 1, 2)
    """
    count = len(inputs)
    full = (1 << count) - 1
    tuples: dict[int, Labels] = {}
    volumes: dict[int, int] = {}
    known: dict[tuple[int, ...], float] = {}

    def mask(labels: Labels) -> int:
        bits = 0
        for label in labels:
            bits |= 1 << label
        return bits

    def labels_of(bits: int) -> Labels:
        labels = tuples.get(bits)
        if labels is None:
            labels = tuples[bits] = tuple([label for label in range(bits.bit_length()) if bits >> label & 1])
        return labels

    def volume(bits: int) -> int:
        size = volumes.get(bits)
        if size is None:
            size = 1
            for label in labels_of(bits):
                size *= extents[label]
            volumes[bits] = size
        return size

    def step(out: int, nest: int, *parts: int) -> float:
        key = (out, *parts)
        time = known.get(key)
        if time is None:
            if volume(nest) >> 63:
                time = inf
            else:
                time = seconds(tuple([labels_of(part) for part in parts]), labels_of(out), extents)
            known[key] = time
        return time

    out = mask(output)
    tuples[out] = output  # the one result whose labels need not ascend
    masks = [mask(term) for term in inputs]
    union = [0] * (full + 1)
    for subset in range(1, full + 1):
        union[subset] = union[subset & (subset - 1)] | masks[(subset & -subset).bit_length() - 1]
    keep = [union[subset] & (out | union[full ^ subset]) for subset in range(full + 1)]

    best: dict[int, tuple[_Node, ...]] = {}
    for index, term in enumerate(masks):
        subset = 1 << index
        leaf = _Node(0.0, term, (), 0.0, term, index)
        kept = keep[subset]
        if kept == term:
            best[subset] = (leaf,)
        else:
            best[subset] = (leaf, _Node(step(kept, term, term), kept, (leaf,), 0.0, term, (index,)))
    if count == 1:
        return (0,)

    once = step(out, union[full], *masks)
    fastest: Nested | None = None
    if once < bound:
        bound, fastest = once, tuple(range(count))
    if any(len(nodes) > 1 for nodes in best.values()):
        reduced = [best[1 << index][-1] for index in range(count)]
        cost = sum(node.cost for node in reduced)
        cost += step(out, union[full], *[node.labels for node in reduced])
        if cost < bound:
            bound, fastest = cost, tuple(node.nested for node in reduced)

    for subset in range(3, full + 1):
        if not subset & (subset - 1):
            continue
        result = keep[subset]
        if largest is not None and subset != full and volume(result) > largest:
            continue
        limit = bound
        top: _Node | None = None
        low = subset & -subset
        rest = subset ^ low
        other = rest & -rest
        while other:  # every part of `subset` without its lowest operand, in ascending order
            lefts, rights = best.get(subset ^ other), best.get(other)
            if lefts and rights and (
                keep[subset ^ other] & keep[other]
                or count <= OUTER_PRODUCTS
                or not (union[other] & union[full ^ other] or union[subset ^ other] & union[full ^ subset ^ other])
            ):
                for left in lefts:
                    for right in rights:
                        if left.cost + right.cost >= limit:
                            continue
                        for below, parts, nest in _joins(left, right, volume):
                            if below >= limit:
                                continue
                            cost = below + step(result, nest, *[part.labels for part in parts])
                            if cost < limit:
                                limit = cost
                                top = _Node(cost, result, parts, below, nest, tuple([part.nested for part in parts]))
            other = (other - rest) & rest
        if top is not None:
            best[subset] = (top,)
    return best[full][0].nested if full in best else fastest


def _joins(left: _Node, right: _Node, volume: Callable[[int], int]) -> list[tuple[float, tuple[_Node, ...], int]]:
    """The steps that join two parts: of the two themselves, then with the last step of one or both absorbed. Each is
    the seconds spent before it, its inputs and the labels of its loops."""
    nest = left.labels | right.labels
    joins: list[tuple[float, tuple[_Node, ...], int]] = [(left.cost + right.cost, (left, right), nest)]
    if right.parts:
        fused = left.labels | right.nest
        if fused == nest or fused == right.nest or volume(fused) <= SMALL:
            joins.append((left.cost + right.below, (left, *right.parts), fused))
    if left.parts:
        fused = left.nest | right.labels
        if fused == nest or fused == left.nest or volume(fused) <= SMALL:
            joins.append((left.below + right.cost, (*left.parts, right), fused))
    if left.parts and right.parts:
        fused = left.nest | right.nest
        if fused == nest or fused == left.nest or fused == right.nest or volume(fused) <= SMALL:
            joins.append((left.below + right.below, (*left.parts, *right.parts), fused))
    return [join for join in joins if len(join[1]) <= MOST_FUSED]
