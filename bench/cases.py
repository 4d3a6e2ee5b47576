"""The workloads, as data: what is multiplied, in which dtypes, and how the operands lie in memory."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WORKLOADS = Path(__file__).with_name("workloads.toml")
EXTRA = Path(__file__).with_name("extra.toml")


@dataclass(frozen=True, slots=True)
class Case:
    """One workload. `shapes`, `dtypes` and `layouts` have one entry per operand.

    A layout says how an operand lies in memory: "C" and "F" as in NumPy; digits such as "201" give the axes from the
    slowest to the fastest; "reversed" has every stride negative; "sliced" takes every second element of the last axis;
    "padded" is a block of a wider array; "broadcast" has stride 0 in the first axis.
    """

    name: str
    group: str
    subscripts: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]
    bar: str = ""

    @property
    def terms(self) -> tuple[str, ...]:
        """The labels of each operand, one letter an axis."""
        return tuple(self.subscripts.replace(" ", "").split("->")[0].split(","))

    @property
    def output(self) -> str:
        """The labels of the output."""
        return self.subscripts.replace(" ", "").split("->")[1]

    @property
    def extents(self) -> dict[str, int]:
        """The extent of every label.

        >>> Case("", "", "ij,jk->ik", ((2, 3), (3, 4)), ("int64",) * 2, ("C",) * 2).extents
        {'i': 2, 'j': 3, 'k': 4}
        """
        axes = itertools.chain.from_iterable(map(zip, self.terms, self.shapes))
        return dict(axes)

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """The dtype that NumPy promotes the operands to."""
        return np.result_type(*map(as_dtype, self.dtypes))

    @property
    def is_view(self) -> bool:
        """Whether the result needs no arithmetic at all: one operand, every label kept."""
        return len(self.terms) == 1 and set(self.terms[0]) == set(self.output)

    def operands(self, seed: int) -> tuple[Array, ...]:
        """Fresh random operands, a function of `seed` and the name: standard normal, or integers in -4..4 (0..4)."""
        streams = np.random.SeedSequence([seed, zlib.crc32(self.name.encode())]).spawn(len(self.shapes))
        return tuple(
            _lay(shape, layout, partial(_draw, dtype=as_dtype(dtype), random=np.random.default_rng(stream)))
            for shape, layout, dtype, stream in zip(self.shapes, self.layouts, self.dtypes, streams, strict=True)
        )

    def blanks(self) -> tuple[Array, ...]:
        """Arrays of the operands' shapes, dtypes and strides with nothing written in them."""
        return tuple(
            _lay(shape, layout, partial(np.empty, dtype=as_dtype(dtype)))
            for shape, layout, dtype in zip(self.shapes, self.layouts, self.dtypes, strict=True)
        )


def load(path: Path) -> tuple[Case, ...]:
    """The cases of a table such as workloads.toml."""
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tuple(_case(**row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["workload"])


def as_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of that name; bfloat16 comes from ml_dtypes."""
    if name == "bfloat16":
        name = importlib.import_module("ml_dtypes").bfloat16
    return np.dtype(name)


def _case(
    name: str,
    group: str,
    subscripts: str,
    shapes: Sequence[Sequence[int]],
    dtype: str | Sequence[str],
    layouts: str | Sequence[str] = "C",
    bar: str = "",
) -> Case:
    def each(value: str | Sequence[str]) -> tuple[str, ...]:
        return (value,) * len(shapes) if isinstance(value, str) else tuple(value)

    return Case(name, group, subscripts, tuple(map(tuple, shapes)), each(dtype), each(layouts), bar)


def _lay(shape: tuple[int, ...], layout: str, draw: Callable[[tuple[int, ...]], Array]) -> Array:
    if layout == "C":
        return draw(shape)
    if layout == "reversed":
        return draw(shape)[(slice(None, None, -1),) * len(shape)]
    if layout == "sliced":
        return draw((*shape[:-1], 2 * shape[-1]))[..., ::2]
    if layout == "padded":
        return draw((*shape[:-1], shape[-1] + 8))[..., :-8]
    if layout == "broadcast":
        return np.broadcast_to(draw((1, *shape[1:])), shape)
    order = [*range(len(shape))][::-1] if layout == "F" else [int(digit) for digit in layout]
    return draw(tuple(shape[axis] for axis in order)).transpose(np.argsort(order))


def _draw(shape: tuple[int, ...], dtype: np.dtype[Any], random: np.random.Generator) -> Array:
    if dtype.kind == "b":
        return random.integers(0, 2, shape, np.uint8).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(-4 if dtype.kind == "i" else 0, 5, shape, dtype.type)
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        pairs = _draw((math.prod(shape), 2), part, random)
        return pairs.view(dtype).reshape(shape)
    if dtype in (np.float32, np.float64):
        return np.asarray(random.standard_normal(shape, dtype.type))
    return np.asarray(random.standard_normal(shape, np.float32)).astype(dtype)
