"""Predicting the time of a step before it has strides, for the search."""

from __future__ import annotations

from .cost import Labels, Seconds
from .kernels import choose
from .loop import Loop, Role
from .machine import Machine
from .program import ITEMSIZES


def step_seconds(code: int, machine: Machine) -> Seconds:
    """The time the best kernel is expected to take for a step, as if all of its tensors were dense and of the type
    with this dtype code.

    Labels that the same tensors have are taken for one loop, as folding will make of many of them.

    >>> from einstride.machine import detect
    >>> product = step_seconds(12, detect())(((0, 1), (1, 2)), (0, 2), (1000, 1000, 1000))
    >>> 1e-3 < product < 10
    True
    """
    size = ITEMSIZES[code]

    def seconds(inputs: tuple[Labels, ...], output: Labels, extents: tuple[int, ...]) -> float:
        tensors = (*inputs, output)
        merged: dict[tuple[bool, ...], int] = {}
        for label in dict.fromkeys([label for labels in tensors for label in labels]):
            holders = tuple([label in labels for labels in tensors])
            merged[holders] = merged.get(holders, 1) * extents[label]
        strides = [size] * len(tensors)
        loops: list[Loop] = []
        for holders, extent in reversed(merged.items()):
            if extent == 0:
                return 0.0
            if extent > 1:
                loops.append(
                    Loop(_role(holders), extent, tuple([s * h for s, h in zip(strides, holders, strict=True)]))
                )
                strides = [s * extent if h else s for s, h in zip(strides, holders, strict=True)]
        return choose(loops[::-1], (code,) * len(tensors), machine)[1]

    return seconds


def _role(holders: tuple[bool, ...]) -> Role:
    *inputs, output = holders
    if not output:
        return Role.CONTRACTED
    if len(inputs) != 2 or all(inputs):
        return Role.BATCH
    return Role.FREE_LEFT if inputs[0] else Role.FREE_RIGHT
