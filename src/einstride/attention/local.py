"""Which keys a query sees by their positions: chunks, windows, the past; and chunks as views."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from ..array import Array
from ..errors import OptionError, ShapeError

Positions: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"

LOWER_RIGHT, UPPER_LEFT = "lower-right", "upper-left"


@dataclass(frozen=True, slots=True)
class Chunks:
    """Sequences cut into chunks of ``size``: a query in chunk c sees the keys of chunks c - back .. c + ahead.

    Raises:
        OptionError: ``size`` is not positive, or ``back`` or ``ahead`` is negative.

    >>> Chunks(4, back=1).keys(np.array([0, 3, 4, 9]))
    (array([-4, -4,  0,  4]), array([ 4,  4,  8, 12]))
    """

    size: int
    back: int = 0
    ahead: int = 0

    def __post_init__(self) -> None:
        _check(self.size, "Chunks(size=", least=1)
        _check(self.back, "Chunks(back=")
        _check(self.ahead, "Chunks(ahead=")

    def keys(self, positions: Positions) -> tuple[Positions, Positions]:
        """The first key, and the one after the last, that a query at each position sees."""
        chunk = positions // self.size
        return (chunk - self.back) * self.size, (chunk + self.ahead + 1) * self.size


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: a query at position p sees the keys p - left .. p + right. None is no limit.

    Raises:
        OptionError: ``left`` or ``right`` is negative.

    >>> Window(2, 0).keys(np.array([0, 5]))
    (array([-2,  3]), array([1, 6]))
    """

    left: int | None
    right: int | None

    def __post_init__(self) -> None:
        _check(0 if self.left is None else self.left, "Window(left=")
        _check(0 if self.right is None else self.right, "Window(right=")

    def keys(self, positions: Positions) -> tuple[Positions, Positions]:
        """The first key, and the one after the last, that a query at each position sees."""
        far = np.iinfo(np.int64).max
        first = np.full_like(positions, 0) if self.left is None else positions - self.left
        end = np.full_like(positions, far) if self.right is None else positions + self.right + 1
        return first, end


@lru_cache(64)
def limits(queries: int, keys: int, causal: str | None, local: Chunks | Window | None) -> tuple[Positions, Positions]:
    """Per query the first key it sees and the one after the last; read-only.

    Query i stands at the position of key i + keys - queries, so that the last query stands at the last key, or, where
    ``causal`` is upper-left, of key i.

    >>> limits(2, 3, "lower-right", None)[1], limits(2, 3, "upper-left", None)[1]
    (array([2, 3]), array([1, 2]))
    """
    positions = np.arange(queries, dtype=np.int64) + (0 if causal == UPPER_LEFT else keys - queries)
    first, end = Window(None, None).keys(positions) if local is None else local.keys(positions)
    if causal is not None:
        end = np.minimum(end, positions + 1)
    first, end = np.clip(first, 0, keys), np.clip(end, 0, keys)
    first.flags.writeable = end.flags.writeable = False
    return first, end


def chunked(x: Array, axis: int, size: int) -> Array:
    """A view of ``x`` in which ``axis`` is two axes, the chunk and the place in it; chunks have ``size`` entries.

    Raises:
        ShapeError: the axis cannot be cut into chunks of that size.

    >>> chunked(np.arange(6), 0, 2).tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    axis = _axis(x, axis)
    _check(size, "size=", least=1)
    extent, stride = x.shape[axis], x.strides[axis]
    if extent % size:
        raise ShapeError(
            f"axis {axis} of extent {extent} is {extent // size} chunks of {size} and a remainder of {extent % size}; "
            f"pad it to {extent + size - extent % size}"
        )
    shape = (*x.shape[:axis], extent // size, size, *x.shape[axis + 1 :])
    strides = (*x.strides[:axis], stride * size, stride, *x.strides[axis + 1 :])
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def unchunked(x: Array, axis: int) -> Array:
    """The inverse of `chunked`: a view in which ``axis`` and the next one are one again.

    Raises:
        ShapeError: there is no next axis, or no single stride walks both (copy ``x``, or reshape it).

    >>> unchunked(chunked(np.arange(6), 0, 2), 0).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    axis = _axis(x, axis)
    if axis + 1 == x.ndim:
        raise ShapeError(f"axis {axis} of an array of shape {x.shape} is the last; there is no axis of places after it")
    (chunks, size), (outer, inner) = x.shape[axis : axis + 2], x.strides[axis : axis + 2]
    if chunks > 1 and size > 1 and outer != inner * size:
        raise ShapeError(
            f"axes {axis} and {axis + 1} of strides {outer} and {inner} are not chunks of one axis; np.reshape copies"
        )
    shape = (*x.shape[:axis], chunks * size, *x.shape[axis + 2 :])
    strides = (*x.strides[:axis], outer if size == 1 else inner, *x.strides[axis + 2 :])
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def _axis(x: Array, axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"axis {axis} is out of range for an array of shape {x.shape}")
    return axis % x.ndim


def _check(value: object, name: str, least: int = 0) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name}{value!r} is not a number of positions, {least} or more")
