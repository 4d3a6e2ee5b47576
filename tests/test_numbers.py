"""Each promise of docs/numbers.md, by name."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from oracle import Array
from strategies import BFLOAT16, DTYPES, promotable, random_values

import einstride
from einstride import EinsumError, attend, einsum

PAGE = Path(__file__).parents[1] / "docs" / "numbers.md"
INTEGERS = [dtype for dtype in DTYPES if dtype.kind in "iu"]
FLOATS = [dtype for dtype in DTYPES if dtype.kind in "fc" and dtype != BFLOAT16]


@pytest.fixture
def threads() -> Iterator[None]:
    """Leaves the number of threads as it was."""
    before = einstride.num_threads()
    yield
    einstride.set_num_threads(before)


@pytest.mark.skipif(not PAGE.exists(), reason="the page is in the source tree only")
def test_every_promise_of_the_page_has_a_test() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        assert f"test_{re.sub(r'[^a-z]+', '_', heading.lower())}" in globals(), heading


@pytest.mark.parametrize(("left", "right"), [pair for pair in itertools.product(DTYPES, repeat=2) if promotable(pair)])
def test_result_dtype(left: np.dtype[Any], right: np.dtype[Any]) -> None:
    operands = np.ones((2, 3), left), np.ones(3, right)
    assert einsum("ij,j->i", *operands).dtype == np.result_type(left, right)
    assert einsum("ij,j->i", *operands, optimize=False).dtype == np.result_type(left, right)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_result_dtype_is_the_one_passed(dtype: type) -> None:
    assert einsum("i,i->", np.ones(2, np.int8), np.ones(2, np.int16), dtype=dtype).dtype == dtype


@pytest.mark.parametrize("optimize", ["auto", True, False, "greedy", "optimal"])
def test_promote_first(optimize: Any) -> None:
    few = np.array([200, 100], np.uint8)
    assert einsum("i,->", few, np.float64(1), optimize=optimize) == 300.0
    assert einsum("i,j,->", few, few, np.float64(0.5), optimize=optimize) == 45000.0
    hundreds = np.full((3, 4), 100, np.int8), np.full(4, 100, np.int8)
    assert einsum("ij,j,k->", *hundreds, np.ones(2), optimize=optimize) == 240_000


@pytest.mark.parametrize("subscripts", ["ij->j", "ij->", "ij,ij->j", "ij,ik->jk", "ij,j->i", "ij,ik,il->jkl"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_floats(subscripts: str, dtype: type) -> None:
    arrays: list[Array] = [np.ones((4096, 3), dtype)] * (subscripts.count(",") + 1)
    if subscripts == "ij,j->i":
        arrays = [np.ones((3, 4096), dtype), np.ones(4096, dtype)]
    result = einsum(subscripts, *arrays)
    assert result.dtype == dtype
    assert np.all(result == (3 * 4096 if subscripts == "ij->" else 4096))


def test_sixteen_bit_floats_round_once() -> None:
    # 1 + 2^-11 + 2^-11 is 1 + 2^-10 in float32 and one float16 step above 1; added one by one in float16 it is 1.
    parts = np.array([1, 2.0**-11, 2.0**-11], np.float16)
    assert einsum("i->", parts) == np.float16(1 + 2.0**-10)
    # 2^-8 * 2^-8 * 2^16: the first product, 2^-16, and the last, 2^16 (above float16's largest), both need float32.
    small, big = np.array([2.0**-8], np.float16), np.array([2.0**8], np.float16)
    assert einsum("i,i,i,i->", small, small, big, big) == 1
    for path in ([(0, 1), (0, 1), (0, 1)], [(2, 3), (0, 1), (0, 1)]):
        assert einsum("i,i,i,i->", small, small, big, big, optimize=["einsum_path", *path]) == 1


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("subscripts", ["ij,jk->ik", "ij,ij->", "ij,ij->j", "ij->i", "ij,ij->ij", "ij,jk,kl->il"])
def test_integers(dtype: np.dtype[Any], subscripts: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [random_values((19, 19), dtype, rng) for _ in range(subscripts.count(",") + 1)]
    assert np.array_equal(einsum(subscripts, *arrays), np.einsum(subscripts, *arrays))


@pytest.mark.parametrize("count", [1, 255, 256, 257, 65536, 2**24 + 1])
def test_booleans(count: int) -> None:
    true = np.ones(count, bool)
    assert einsum("i->", true) is np.True_
    assert einsum("i,i->", true, true) is np.True_
    assert einsum("i,i->", true, ~true) is np.False_


def test_booleans_in_a_product() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((40, 300)) < 0.05, rng.random((300, 30)) < 0.05
    assert np.array_equal(einsum("ij,jk->ik", left, right), (left[:, :, None] & right[None]).any(axis=1))


def test_complex_numbers() -> None:
    left, right = np.array([[1 + 2j, 3j], [2, -1 - 1j]]), np.array([[1j, 1], [2 - 1j, 4]])
    assert einsum("ij,jk->ik", left, right).tolist() == (left @ right).tolist()
    assert einsum("i,i->", left[0], left[0]) == (1 + 2j) ** 2 + (3j) ** 2
    assert einsum("ij,jk->ik", left.real, right).tolist() == (left.real @ right).tolist()


def test_python_objects() -> None:
    fractions = np.array([[Fraction(1, 3), Fraction(1, 7)], [Fraction(2), Fraction(-1, 9)]], dtype=object)
    result = einsum("ij,jk->ik", fractions, fractions)
    assert result.dtype == object
    assert result.tolist() == (fractions @ fractions).tolist()
    assert isinstance(result[0, 0], Fraction)
    huge = np.array([10**40, -(10**40), 7], dtype=object)
    assert einsum("i,i->", huge, huge) == 2 * 10**80 + 49
    assert einsum("i->", huge) == 7
    assert einsum("i,j->ij", huge, huge)[0, 2] == 7 * 10**40


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_long_double(dtype: type) -> None:
    rng = np.random.default_rng(0)
    left: Array = rng.standard_normal((5, 7)).astype(dtype)
    right: Array = rng.standard_normal((7, 3)).astype(dtype)
    left += np.finfo(dtype).eps * rng.integers(1, 9, left.shape)
    result = einsum("ij,jk->ik", left, right)
    assert result.dtype == dtype
    bound = 4 * 9 * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right))
    assert np.all(np.abs(result - (left[:, :, None] * right).sum(axis=1)) <= bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_sums(dtype: np.dtype[Any]) -> None:
    cases: list[tuple[str, list[tuple[int, ...]]]]
    cases = [("ij,jk->ik", [(2, 0), (0, 3)]), ("ij->i", [(2, 0)]), ("i,i->", [(0,), (0,)])]
    for subscripts, shapes in cases:
        result = einsum(subscripts, *[np.ones(shape, dtype) for shape in shapes])
        assert result.dtype == dtype
        assert not np.any(result)
    assert einsum("ij,jk->ik", np.ones((0, 2), dtype), np.ones((2, 3), dtype)).shape == (0, 3)


LENGTH = 1_000_003


def sums(kind: str, rng: np.random.Generator) -> Iterator[tuple[float, Any]]:
    """Long float32 sums: our result, and the float32 products that were summed."""
    if kind == "i->":
        values = rng.random(LENGTH, np.float32)
        yield float(einsum("i->", values)), values
    elif kind == "i,i->":
        left, right = rng.random((2, LENGTH), np.float32)
        yield float(einsum("i,i->", left, right)), left.astype(np.float64) * right
    elif kind in ("ij->j", "ij->i"):
        values = rng.random((LENGTH, 3) if kind == "ij->j" else (3, LENGTH), np.float32)
        result = einsum(kind, values)
        for k in range(3):
            yield float(result[k]), values[:, k] if kind == "ij->j" else values[k]
    elif kind == "strided":
        values = rng.random((LENGTH, 2), np.float32)[::-1, 1]
        yield float(einsum("i->", values)), values
    elif kind == "ij,ij->j":
        left, right = rng.random((2, LENGTH, 2), np.float32)
        result = einsum(kind, left, right)
        for k in range(2):
            yield float(result[k]), left[:, k].astype(np.float64) * right[:, k]
    else:
        left, right = rng.random((3, LENGTH), np.float32), rng.random((LENGTH, 2), np.float32)
        result = einsum("ij,jk->ik", left, right)
        for i, k in itertools.product(range(3), range(2)):
            yield float(result[i, k]), left[i].astype(np.float64) * right[:, k]


@pytest.mark.parametrize("kind", ["i->", "i,i->", "ij->j", "ij->i", "strided", "ij,ij->j", "ij,jk->ik"])
def test_accuracy_of_long_sums(kind: str) -> None:
    rng = np.random.default_rng(1)
    unit = float(np.finfo(np.float32).eps) / 2
    ours, pairwise = [], []
    for _ in range(4):
        for got, products in sums(kind, rng):
            want = math.fsum(products)
            summed = float(np.sum(np.ascontiguousarray(products, np.float32)))
            ours.append(abs(got - want) / want)
            pairwise.append(abs(summed - want) / want)
    # NumPy adds 8 partial sums of 16 in each block of 128, then pairs of blocks: the longest chain of additions.
    chain = 16 + 3 + math.ceil(math.log2(LENGTH / 128))
    assert max(ours) <= chain * unit
    # Rounding of the result alone, at most one unit, is luck: beyond it we are as good as the measured pairwise sum.
    assert float(np.mean(ours)) <= float(np.mean(pairwise)) + unit


def special(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Small integers, with a few NaN, infinities and zeros of both signs among them."""
    values = rng.integers(-3, 4, shape).astype(np.float64)
    where = rng.random(shape)
    for bound, value in ((0.01, np.nan), (0.02, np.inf), (0.03, -np.inf), (0.05, -0.0)):
        values[(where < bound) & (where >= bound - 0.01)] = value
    return values


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "subscripts", ["ij,jk->ik", "ji,kj->ik", "ij,ij->ij", "ij,j->i", "ij,ij->j", "ij->j", "ij->i", "ij->"]
)
@pytest.mark.parametrize("size", [3, 16, 33, 70])
def test_nan_and_infinity(dtype: np.dtype[Any], subscripts: str, size: int) -> None:
    rng = np.random.default_rng(size)
    terms = subscripts.partition("->")[0].split(",")
    arrays = [special((size,) * len(term), rng).astype(dtype) for term in terms]
    got, want = np.asarray(einsum(subscripts, *arrays)), np.asarray(np.einsum(subscripts, *arrays))
    for part in (np.real, np.imag):
        assert np.array_equal(part(got), part(want), equal_nan=True)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.kind in "fcV"])
@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(150, 700), (700, 130)]),
        ("ij,jk->ik", [(3, 20000), (20000, 5)]),
        ("bij,bkj->bik", [(40, 30, 64), (40, 50, 64)]),
        ("i,i->", [(300_000,)] * 2),
        ("ij->j", [(100_000, 7)]),
        ("ij->", [(700, 700)]),
        ("i,i,ij,ik->jk", [(20_000,)] * 2 + [(20_000, 3)] * 2),
    ],
)
def test_same_bits_for_any_number_of_threads(
    dtype: np.dtype[Any], subscripts: str, shapes: list[tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(0)
    arrays = [random_values(shape, dtype, rng) for shape in shapes]
    seen = set()
    for count in (1, 2, 3, 1):
        einstride.set_num_threads(count)
        seen |= {np.asarray(einsum(subscripts, *arrays)).tobytes() for _ in range(3)}
    assert len(seen) == 1


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("width", [1, 5, 33])
def test_every_half_is_converted_as_ieee_754_says(width: int) -> None:
    """A product of two halves is exact in float32, so one rounding is left; rows of `width` reach what is no vector."""
    rng = np.random.default_rng(0)
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for other in (np.ones(1 << 16, np.float16), rng.permutation(halves)):
        rows = (1 << 16) // width
        a, b = (np.asfortranarray(x[: rows * width].reshape(rows, width)) for x in (halves, other))
        want = (a.astype(np.float64) * b.astype(np.float64)).astype(np.float16)
        for left, right in ((a, b), (np.ascontiguousarray(a), np.ascontiguousarray(b))):
            got = np.asarray(einsum("ij,ij->ij", left, right))
            number = ~np.isnan(want)
            assert np.array_equal(np.isnan(got), ~number)
            assert np.array_equal(got[number].view(np.uint16), want[number].view(np.uint16))


def placed(array: Array, offset: int) -> Array:
    """A copy that begins `offset` bytes after a page does."""
    room = np.empty(array.nbytes + 2 * 4096, np.uint8)
    start = -room.ctypes.data % 4096 + offset
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.kind in "fcV"])
@pytest.mark.parametrize("size", [64, 100, 133, 1000, 4140])
@pytest.mark.parametrize(
    "subscripts",
    ["ij->i", "ij->j", "ij,ij->i", "ij,j->i", "ij,kj->ik", "i,ij->i", "ij,ij,ij->i", "i,ij,ij->i", "aib,aib->i"],
)
def test_same_bits_wherever_arrays_begin(dtype: np.dtype[Any], subscripts: str, size: int) -> None:
    extents = {"i": 9, "j": size, "k": 5, "a": 3, "b": size}
    rng = np.random.default_rng(0)
    terms = subscripts.partition("->")[0].split(",")
    arrays = [random_values(tuple(extents[label] for label in term), dtype, rng) for term in terms]
    want = np.asarray(einsum(subscripts, *arrays)).tobytes()
    for offset in sorted({0, dtype.itemsize, 16, 40, 64 - dtype.itemsize, 3}):
        for apart in (0, 8):
            moved = [placed(array, offset + apart * place) for place, array in enumerate(arrays)]
            assert np.asarray(einsum(subscripts, *moved)).tobytes() == want, (offset, apart)


def test_attention() -> None:
    """The rest of the promise is in test_attention.py; here, that two-byte floats are summed in float32."""
    keys = 4096
    k = np.zeros((keys, 1), np.float16)
    out, lse = attend("qd,kd,ke->qe", k[:1], k, k + np.float16(1), over="k", return_lse=True)
    assert out.tolist() == [[1.0]]
    assert lse.dtype == np.float32 and abs(lse[0] - np.log(keys)) <= 4 * np.finfo(np.float32).eps * np.log(keys)
    nothing = attend("qd,kd,ke->qe", k[:1], k, k, over="k", mask=("k", np.zeros(keys, bool)))
    assert nothing.tolist() == [[0.0]]


def test_masked_arrays() -> None:
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    with pytest.raises(EinsumError, match="mask"):
        einsum("i->", masked)
    with pytest.raises(EinsumError, match="mask"):
        einsum("i,i->", np.ones(2), masked)
    with pytest.raises(EinsumError, match="mask"):
        einsum(np.ones(2), [0], masked, [0])
