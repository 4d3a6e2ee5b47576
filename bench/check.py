"""Is a contender's result right? Judged on a sample of the output against NumPy in double precision."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Array, Case

MOST_OUTPUTS = 1 << 16
MOST_ELEMENTS = 1 << 24


@dataclass(frozen=True, slots=True)
class Sample:
    """Chosen positions of an output: `positions[a]` along its axis a, with the `wanted` values and their `slack`."""

    shape: tuple[int, ...]
    dtype: str
    positions: tuple[Array, ...]
    wanted: Array
    slack: Array

    def complaint(self, shape: Sequence[int], dtype: str, values: Array) -> str:
        """What is wrong with a result of this shape and dtype whose sampled values are these; "" if nothing is."""
        if tuple(shape) != self.shape:
            return f"wrong: shape {tuple(shape)}, not {self.shape}"
        if dtype != self.dtype:
            return f"other dtype: {dtype}, not {self.dtype}"
        wrong = ~(np.abs(values - self.wanted) <= self.slack)
        return f"wrong: {int(wrong.sum())} of {wrong.size} sampled values" if wrong.any() else ""


def pick(values: Array, positions: Sequence[Array]) -> Array:
    """The sampled values of an output, in a dtype that NumPy itself knows."""
    chosen = values[np.ix_(*positions)] if positions else values
    return np.asarray(chosen, dtype=_wide(values.dtype))


def sample(case: Case, operands: Sequence[Array], seed: int) -> Sample:
    """Choose positions of the output, first and last of every axis among them, and compute their values.

    Small outputs are taken whole. Integers and booleans must agree exactly: their sums are exact in float64 and wrap
    afterwards. A float may be off by 6 u sqrt(K) times the root of the sum of the squared products, K being the number
    of products added plus their factors: independent operands of mean zero make partial sums and their rounding errors
    random walks, so that this is some ten standard deviations of any order of summation.

    Higham & Mary, "Sharper probabilistic backward error analysis for basic linear algebra kernels with random data",
    SIAM J. Sci. Comput. 42 (2020).
    """
    extents = case.extents
    counts = {label: extents[label] for label in case.output}

    def elements(term: str) -> int:
        return math.prod(counts.get(label, extents[label]) for label in set(term))

    while counts and (elements(case.output) > MOST_OUTPUTS or sum(map(elements, case.terms)) > MOST_ELEMENTS):
        largest = max(counts, key=lambda label: counts[label])
        if counts[largest] <= 2:
            break
        counts[largest] = (counts[largest] + 1) // 2

    random = np.random.default_rng(seed)
    chosen = {label: _choose(extents[label], count, random) for label, count in counts.items()}
    dtype = case.result_dtype
    work = np.complex128 if dtype.kind == "c" else np.float64
    parts = [
        operand[np.ix_(*(chosen.get(label, np.arange(extents[label])) for label in term))].astype(work)
        for term, operand in zip(case.terms, operands, strict=True)
    ]
    exact = np.asarray(np.einsum(case.subscripts, *parts, optimize=True))
    slack = np.zeros(())
    if dtype.kind == "b":
        exact = exact != 0
    elif dtype.kind in "iu":
        exact = exact.astype(np.int64).astype(dtype)
    else:
        summed = math.prod(extents[label] for label in extents if label not in counts) + len(parts)
        squares = np.einsum(case.subscripts, *(np.abs(part) ** 2 for part in parts), optimize=True)
        slack = 6 * _unit_roundoff(dtype) * np.sqrt(summed * np.asarray(squares))
    shape = tuple(extents[label] for label in case.output)
    return Sample(shape, dtype.name, tuple(chosen[label] for label in case.output), pick(exact, ()), slack)


def _choose(extent: int, count: int, random: np.random.Generator) -> Array:
    if count == extent:
        return np.arange(extent)
    inner = random.choice(np.arange(1, extent - 1), count - 2, replace=False)
    return np.sort(np.concatenate(([0], inner, [extent - 1])))


def _wide(dtype: np.dtype[Any]) -> type:
    if dtype.kind in "biu":
        return np.int64
    return np.complex128 if dtype.kind == "c" else np.float64


def _unit_roundoff(dtype: np.dtype[Any]) -> float:
    finfo = np.finfo if dtype.kind in "fc" else importlib.import_module("ml_dtypes").finfo
    return float(finfo(dtype).eps) / 2
