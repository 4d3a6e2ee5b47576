"""Loops: the one form every tensor of a step is addressed in, and the algebra on tuples of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod


class Role(IntEnum):
    """What a loop does in a two-operand step; the numbering is the one of the C++ ``Role``.

    In a step that has not exactly two inputs only the difference between CONTRACTED (no stride in
    the output) and the rest matters.
    """

    BATCH = 0
    FREE_LEFT = 1
    FREE_RIGHT = 2
    CONTRACTED = 3


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop: its role, its extent and one stride in bytes per tensor, inputs first, output last.

    A diagonal is a loop whose stride is the sum of two axes' strides, a broadcast has stride 0, a
    reduction has stride 0 in the output.
    """

    role: Role
    extent: int
    strides: tuple[int, ...]


def fold(loops: Iterable[Loop]) -> tuple[Loop, ...]:
    """Drop loops of extent 1 and merge neighbours that every tensor walks as one.

    The outer of two loops merges into the inner when, for every tensor, its stride is the inner
    stride times the inner extent.

    >>> fold([Loop(Role.BATCH, 3, (32, 32)), Loop(Role.BATCH, 4, (8, 8))])
    (Loop(role=<Role.BATCH: 0>, extent=12, strides=(8, 8)),)
    """
    folded: list[Loop] = []
    for inner in loops:
        if inner.extent == 1:
            continue
        if folded and folded[-1].role == inner.role:
            outer = folded[-1]
            if all(so == si * inner.extent for so, si in zip(outer.strides, inner.strides, strict=True)):
                folded[-1] = Loop(inner.role, outer.extent * inner.extent, inner.strides)
                continue
        folded.append(inner)
    return tuple(folded)


def volume(loops: Iterable[Loop]) -> int:
    """The product of the extents.

    >>> volume([Loop(Role.BATCH, 3, (32,)), Loop(Role.BATCH, 4, (8,))])
    12
    """
    return prod([loop.extent for loop in loops])


def nest(loops: Iterable[Loop], tensor: int) -> list[Loop]:
    """Order loops for one tensor: what lies farthest apart outermost; a loop it does not have, outside of all.

    >>> [loop.extent for loop in nest([Loop(Role.BATCH, 3, (8,)), Loop(Role.BATCH, 4, (-24,))], 0)]
    [4, 3]
    """
    return sorted(loops, key=lambda loop: -abs(loop.strides[tensor]) if loop.strides[tensor] else -(2**63))


def walked_as_one(loops: Sequence[Loop], tensor: int) -> int:
    """How many of the innermost loops one tensor walks as a single one.

    >>> walked_as_one([Loop(Role.BATCH, 2, (8,)), Loop(Role.BATCH, 4, (96,)), Loop(Role.BATCH, 3, (32,))], 0)
    2
    """
    count = 1
    for outer, inner in zip(reversed(loops[:-1]), reversed(loops), strict=False):
        if outer.strides[tensor] != inner.strides[tensor] * inner.extent:
            break
        count += 1
    return min(count, len(loops))


def next_to_innermost(loops: Sequence[Loop], tensor: int, itemsize: int) -> list[Loop]:
    """Move the loop along a tensor's adjacent elements to just outside of the innermost loop.

    >>> loops = [Loop(Role.BATCH, 2, (8, 64)), Loop(Role.BATCH, 4, (64, 16)), Loop(Role.BATCH, 3, (16, 8))]
    >>> [loop.extent for loop in next_to_innermost(loops, 0, 8)]
    [4, 2, 3]
    """
    for index, loop in enumerate(loops[:-1]):
        if abs(loop.strides[tensor]) == itemsize:
            return [*loops[:index], *loops[index + 1 : -1], loop, loops[-1]]
    return list(loops)
