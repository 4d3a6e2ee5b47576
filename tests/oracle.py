"""The reference einsum: nested loops in exact arithmetic, and the error bound that results are held to.

Nothing here knows how einstride works; it is short enough to be checked by reading (and by test_oracle.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

Symbols = Sequence[Hashable]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Exact:
    """A complex number with rational parts."""

    real: Fraction
    imag: Fraction = Fraction(0)

    def __add__(self, other: Exact) -> Exact:
        return Exact(self.real + other.real, self.imag + other.imag)

    def __mul__(self, other: Exact) -> Exact:
        real = self.real * other.real - self.imag * other.imag
        return Exact(real, self.real * other.imag + self.imag * other.real)

    def __abs__(self) -> Exact:
        """|real| + |imag|, which is at least the modulus and rational."""
        return Exact(abs(self.real) + abs(self.imag))


def extents_of(terms: Sequence[Symbols], shapes: Sequence[tuple[int, ...]]) -> dict[Hashable, int]:
    """The extent of each symbol: the one that is not 1, where there is one."""
    extents: dict[Hashable, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for symbol, extent in zip(term, shape, strict=True):
            extents[symbol] = extent if extents.get(symbol, 1) == 1 else extents[symbol]
    return extents


def promoted(*arrays: Array) -> np.dtype[Any]:
    """The type that numpy.einsum promotes operands to, which is np.result_type's but for the values NumPy 1 looks at.

    Where NumPy 1's einsum finds none that holds all operands, and for types it lacks, it is np.result_type's.
    """
    ones = [np.ones(1, array.dtype) if array.ndim else array for array in arrays]
    try:
        dtype: np.dtype[Any] = np.einsum(",".join("i" * one.ndim for one in ones) + "->", *ones).dtype
    except TypeError:
        dtype = np.result_type(*arrays)
    return dtype


def oracle(terms: Sequence[Symbols], output: Symbols, arrays: Sequence[Array], zero: Any = 0) -> Array:
    """einsum by nested loops over every index, in whatever arithmetic the entries have.

    ``terms`` names each axis of each operand, ``output`` each axis of the result; an axis of extent 1 is
    broadcast, a symbol repeated in the output writes a diagonal. Returns an object array.
    """
    extents = extents_of(terms, [array.shape for array in arrays])
    result = np.full([extents[symbol] for symbol in output], zero, dtype=object)
    for indices in itertools.product(*(range(extent) for extent in extents.values())):
        at = dict(zip(extents, indices, strict=True))
        product = None
        for term, array in zip(terms, arrays, strict=True):
            entry = array[tuple(at[s] if n > 1 else 0 for s, n in zip(term, array.shape, strict=True))]
            product = entry if product is None else product * entry
        where = tuple(at[symbol] for symbol in output)
        result[where] = result[where] + product
    return result


def exact(array: Array) -> Array:
    """The entries as Python ints (bool and integer types) or Exact numbers (floating types)."""
    values = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        entry = array[index]
        if array.dtype.kind in "?biu":
            values[index] = int(entry)
        elif array.dtype.kind == "c":
            values[index] = Exact(Fraction(float(entry.real)), Fraction(float(entry.imag)))
        else:
            values[index] = Exact(Fraction(float(entry)))
    return values


def is_integral(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "?biu"


def wrap(values: Array, dtype: np.dtype[Any]) -> Array:
    """Exact integers reduced to ``dtype`` as NumPy does: modulo 2**bits, and for bool by being nonzero."""
    wrapped = np.empty(values.shape, dtype=dtype)
    bits = 8 * dtype.itemsize
    for index in np.ndindex(values.shape):
        value = int(values[index])
        if dtype.kind == "b":
            wrapped[index] = value != 0
        else:
            value %= 1 << bits
            wrapped[index] = value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value
    return wrapped


def parts(dtype: np.dtype[Any]) -> Any:
    """The floating-point facts (eps, max, smallest_subnormal) of a type's real part."""
    finfo: Any = ml_dtypes.finfo if dtype == ml_dtypes.bfloat16 else np.finfo
    return finfo(dtype)


def compute_eps(dtype: np.dtype[Any]) -> float:
    """The unit roundoff's double of the type that sums are formed in: float32 for the 16-bit floats."""
    return float(np.finfo(np.float32 if dtype.itemsize == 2 else dtype).eps)


def tolerance(dtype: np.dtype[Any], count: int, operands: int, size: Any, magnitude: Any) -> Any:
    """How far a correct result of ``dtype`` may be from the exact one.

    A sum of ``count`` products of ``operands`` factors, in any order, errs by at most
    gamma(count + operands) * sum |product| (Higham, Accuracy and Stability, section 3.1; 2 sqrt(2) times that
    when complex), which gives c = 4; the final rounding adds eps * |want| for types narrower than their sum.
    ``magnitude`` is einsum(|A|, |B|, ...), ``size`` is |want|.
    """
    kind = type(magnitude) if isinstance(magnitude, Fraction) else float
    facts = parts(dtype)
    bound = kind(4 * (count + operands)) * kind(compute_eps(dtype)) * magnitude
    return bound + kind(float(facts.eps)) * size + kind(float(facts.smallest_subnormal))


def summed_count(terms: Sequence[Symbols], output: Symbols, shapes: Sequence[tuple[int, ...]]) -> int:
    """How many products are added into one entry of the output."""
    extents = extents_of(terms, shapes)
    return math.prod(extent for symbol, extent in extents.items() if symbol not in output)


def assert_equals_oracle(got: Array, terms: Sequence[Symbols], output: Symbols, arrays: Sequence[Array]) -> None:
    """``got`` is einsum of ``arrays`` promoted to ``got.dtype``: exactly for integers, else within tolerance."""
    dtype = got.dtype
    operands = [exact(array.astype(dtype)) for array in arrays]
    if is_integral(dtype):
        want = wrap(oracle(terms, output, operands), dtype)
        assert got.shape == want.shape
        assert np.array_equal(got, want), f"got {got!r}, want {want!r}"
        return
    count = summed_count(terms, output, [array.shape for array in arrays])
    want = oracle(terms, output, operands, Exact(Fraction(0)))
    magnitude = oracle(terms, output, [np.asarray(abs(operand), object) for operand in operands], Exact(Fraction(0)))
    assert got.shape == want.shape
    limit = Fraction(float(parts(dtype).max))
    for index in np.ndindex(want.shape):
        size = abs(want[index]).real
        allowed = tolerance(dtype, count, len(arrays), size, magnitude[index].real)
        entry = complex(got[index])
        for result, value in ((entry.real, want[index].real), (entry.imag, want[index].imag)):
            if math.isinf(result):
                assert abs(value) + allowed >= limit and (result > 0) == (value > 0), (index, result, float(value))
            else:
                assert abs(Fraction(result) - value) <= allowed, (index, result, float(value), float(allowed))
