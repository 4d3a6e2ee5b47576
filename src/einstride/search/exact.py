"""The fastest tree by predicted time: dynamic programming over the subsets of at most some ten operands."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from ..cost import Labels, Seconds
from ..tree import Nested

# A single pass over more inputs than this is not considered, unless it is over all operands.
MOST_FUSED = 6
# Absorbing a step that sums labels repeats the other inputs' multiplications; in a loop nest of up to this many
# points the step that is saved can still be worth it.
SMALL = 4096
# Up to this many operands every split is tried; beyond, a split into parts that share no label only where the
# expression itself falls apart.
OUTER_PRODUCTS = 4


class _Way(NamedTuple):
    """What a subset of the operands brings into a step: its result, or the inputs of the step that would make it."""

    cost: float  # seconds, of all that comes before the step
    parts: tuple[Nested, ...]
    masks: tuple[int, ...]  # the labels of each part, a bit each
    nest: int  # the labels of all parts


def exact(
    inputs: Sequence[Labels],
    output: Labels,
    extents: tuple[int, ...],
    seconds: Seconds,
    largest: int | None = None,
    bound: float = inf,
) -> Nested | None:
    """The tree of least predicted time whose intermediates have at most ``largest`` elements each; None when every
    tree takes ``bound`` seconds or more. The labels of an input are distinct, and so are the output's.

    Each subset of the operands keeps its fastest tree, made from every split in two. The step that joins two parts
    may absorb the last step of either where that repeats no work, which is how steps over three and more arise. This
    is DPsub of Moerkotte and Neumann, "Analysis of two existing and one new dynamic programming algorithm for the
    generation of optimal bushy join trees", VLDB 2006, with the time bounded from above.

    >>> from einstride.cost import roofline
    >>> exact([(0, 1), (1, 2), (2, 3)], (0, 3), (9, 900, 900, 9), roofline(8))
    ((0, 1), 2)
    >>> exact([(0, 1), (0, 1), (0, 1)], (0, 1), (900, 900), roofline(8))
    (0, 1, 2)
    """
    count = len(inputs)
    full = (1 << count) - 1
    names = sorted(set(output).union(*inputs))
    bits_of = {label: 1 << bit for bit, label in enumerate(names)}
    tuples: dict[int, Labels] = {}
    volumes: dict[int, int] = {}
    known: dict[tuple[int, ...], float] = {}

    def volume(bits: int) -> int:
        size = volumes.get(bits)
        if size is None:
            size = 1
            for label in labels_of(bits):
                size *= extents[label]
            volumes[bits] = size
        return size

    def labels_of(bits: int) -> Labels:
        labels = tuples.get(bits)
        if labels is None:
            labels = tuples[bits] = tuple([label for bit, label in enumerate(names) if bits >> bit & 1])
        return labels

    def step(result: int, nest: int, masks: tuple[int, ...]) -> float:
        key = (result, *masks)
        time = known.get(key)
        if time is None:
            time = inf  # of a nest of more points than 64 bits can count
            if not volume(nest) >> 63:
                time = seconds(tuple([labels_of(mask) for mask in masks]), labels_of(result), extents)
            known[key] = time
        return time

    out = sum([bits_of[label] for label in output])
    tuples[out] = output  # the one result whose labels need not ascend
    operands = tuple([sum([bits_of[label] for label in term]) for term in inputs])
    union = [0] * (full + 1)
    for subset in range(1, full + 1):
        union[subset] = union[subset & (subset - 1)] | operands[(subset & -subset).bit_length() - 1]
    keep = [union[subset] & (out | union[full ^ subset]) for subset in range(full + 1)]

    fastest: Nested | None = None
    once = step(out, union[full], operands)
    if once < bound:
        bound, fastest = once, tuple(range(count))
    if count == 1:
        return fastest

    ways: dict[int, tuple[_Way, ...]] = {}
    for index, term in enumerate(operands):
        kept = keep[1 << index]
        given = _Way(0.0, (index,), (term,), term)
        # An operand with labels of its own may sum them before it meets another.
        summed = () if kept == term else (_Way(step(kept, term, (term,)), ((index,),), (kept,), kept),)
        ways[1 << index] = (*summed, given)

    for subset in range(3, full + 1):
        result = keep[subset]
        if not subset & (subset - 1) or (largest is not None and subset != full and volume(result) > largest):
            continue
        found: _Way | None = None
        limit = bound
        rest = subset & (subset - 1)
        right = rest & -rest
        while right:  # every part of `subset` without its lowest operand, in ascending order
            left = subset ^ right
            if (
                left in ways
                and right in ways
                and (
                    keep[left] & keep[right]
                    or count <= OUTER_PRODUCTS
                    or not (union[left] & union[full ^ left] or union[right] & union[full ^ right])
                )
            ):
                plain = keep[left] | keep[right]
                for left_cost, left_parts, left_masks, left_nest in ways[left]:
                    for right_cost, right_parts, right_masks, right_nest in ways[right]:
                        below = left_cost + right_cost
                        if below >= limit:
                            continue
                        nest = left_nest | right_nest
                        masks = left_masks + right_masks
                        if len(masks) > 2 and (
                            len(masks) > MOST_FUSED
                            or (nest not in (plain, left_nest, right_nest) and volume(nest) > SMALL)
                        ):
                            continue
                        cost = below + step(result, nest, masks)
                        if cost < limit:
                            limit = cost
                            found = _Way(below, left_parts + right_parts, masks, nest)
            right = (right - rest) & rest
        if found is not None:
            ways[subset] = (_Way(limit, (found.parts,), (result,), result), found)
    return ways[full][0].parts[0] if full in ways else fastest
