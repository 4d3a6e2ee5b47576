"""Loops: the one form every tensor of a step is addressed in, and the algebra on tuples of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


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
