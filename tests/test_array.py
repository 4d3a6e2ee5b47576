"""Operand intake, dtypes, result layouts and views."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from einstride.array import (
    Array,
    as_operand,
    axis_order,
    is_contiguous,
    is_direct,
    load,
    result_type,
    type_code,
    view,
)
from einstride.errors import OperandTypeError
from einstride.expression import parse
from einstride.problem import Problem, bind, dense_strides
from einstride.program import DTYPES

FLOAT = np.dtype(float)


def problem(subscripts: str, *shapes: tuple[int, ...]) -> Problem:
    return bind(parse(subscripts, [len(shape) for shape in shapes]), shapes)


def test_type_codes_are_the_engines() -> None:
    for code, name in enumerate(DTYPES):
        dtype = np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
        assert type_code(dtype) == code


@pytest.mark.parametrize("dtype", [object, "V2", "U1", "S2", "m8[s]", "M8[s]", "i4,i4", ml_dtypes.float8_e5m2])
def test_other_types_have_no_code(dtype: Any) -> None:
    assert type_code(np.dtype(dtype)) is None


def test_intake_copies_no_array_and_sheds_subclasses() -> None:
    array = np.ones((2, 2))
    assert as_operand(array, 0) is array
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(array, copy=False)
    taken = as_operand(matrix, 0)
    assert type(taken) is np.ndarray
    assert np.shares_memory(taken, array)


@pytest.mark.parametrize("value", [3, 2.5, True, [1, 2], ((1, 2), (3, 4)), np.float32(1), [np.ones(2), np.ones(2)]])
def test_intake_reads_what_numpy_reads(value: object) -> None:
    taken = as_operand(value, 0)
    assert taken.dtype == np.asarray(value).dtype
    assert np.array_equal(taken, np.asarray(value))


def test_a_result_has_numpys_promoted_dtype_and_out_takes_part() -> None:
    small, wide = np.ones(2, "int8"), np.ones(2, "float32")
    assert result_type((small, wide), None, None) == "float32"
    assert result_type((small,), np.ones(2), None) == FLOAT
    assert result_type((small,), np.ones(2), "int16") == "int16"
    assert result_type((np.ones(2, ">f8"),), None, None).isnative
    assert result_type((small,), None, ">f8").isnative


def test_loading_copies_only_what_the_engine_cannot_convert() -> None:
    narrow, swapped, wide = np.ones(2, "int8"), np.ones(2, ">f4"), np.array([1.5, -1.5])
    loaded = load((narrow, swapped), FLOAT, "safe")
    assert loaded[0] is narrow
    assert loaded[1].dtype == "float32" and loaded[1].dtype.isnative
    (truncated,) = load((wide,), np.dtype("int32"), "unsafe")
    assert truncated.dtype == "int32" and truncated.tolist() == [1, -1]
    with pytest.raises(OperandTypeError, match="same_kind"):
        load((wide,), np.dtype("int32"), "same_kind")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 3, 4), (2, 1, 4), (0, 3)])
def test_contiguity_is_numpys(shape: tuple[int, ...], order: Any) -> None:
    for array in (np.ones(shape, order=order), np.ones((*shape, 2))[..., 0], np.ones((*shape, 2), order="F")[..., 0]):
        assert is_contiguous(array.shape, array.strides, array.itemsize) == array.flags.c_contiguous
        assert is_contiguous(array.shape, array.strides, array.itemsize, fortran=True) == array.flags.f_contiguous


def shuffled(shape: tuple[int, ...], rng: random.Random) -> Array:
    """An array of this shape with its axes in any order in memory, some reversed."""
    order = list(range(len(shape)))
    rng.shuffle(order)
    array: Array = np.ones([shape[axis] for axis in order]).transpose(np.argsort(order)) if order else np.ones(())
    return array[tuple([slice(None, None, rng.choice((1, 1, -1))) for _ in shape])]


@pytest.mark.parametrize("order", ["K", "A", "F", "C"])
def test_results_are_laid_out_as_numpy_lays_them_out(order: Any) -> None:
    rng = random.Random(3)
    compared = 0
    for _ in range(600):
        extents = {letter: rng.choice((1, 2, 3, 4)) for letter in "abcd"}
        terms = ["".join(rng.choices("abcd", k=rng.randint(1, 3))) for _ in range(rng.randint(1, 3))]
        arrays = [shuffled(tuple([extents[letter] for letter in term]), rng) for term in terms]
        output = rng.sample(sorted(set("".join(terms))), rng.randint(1, len(set("".join(terms)))))
        subscripts = ",".join(terms) + "->" + "".join(output)
        # A contraction of C-contiguous operands is where einstride keeps C order and NumPy does not.
        contracts = len(terms) > 1 and len(output) < len(set("".join(terms)))
        keeps = order == "K" and contracts and all(array.flags.c_contiguous for array in arrays)
        expected = np.einsum(subscripts, *arrays, order="C" if keeps else order)
        if expected.base is not None:
            continue
        compared += 1
        bound = problem(subscripts, *[array.shape for array in arrays])
        axes = axis_order(bound, tuple([a.strides for a in arrays]), [FLOAT] * len(arrays), order)
        strides = dense_strides(expected.shape, axes, 8)
        matter = [axis for axis, extent in enumerate(expected.shape) if extent > 1]
        assert [strides[axis] for axis in matter] == [expected.strides[axis] for axis in matter], subscripts
    assert compared > 100


@pytest.mark.parametrize(
    ("subscripts", "shape"),
    [
        ("ij->ji", (2, 3)),
        ("ii->i", (3, 3)),
        ("iij->ji", (3, 3, 2)),
        ("ijij->ij", (2, 3, 2, 3)),
        ("iii->i", (3, 3, 3)),
        ("ijkij->kji", (2, 3, 4, 2, 3)),
        ("->", ()),
        ("ij->ji", (0, 3)),
    ],
)
def test_views_are_numpys(subscripts: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    shown = view(problem(subscripts, shape), array)
    expected = np.asarray(np.einsum(subscripts, array))
    assert shown is not None
    assert np.array_equal(shown, expected)
    assert shown.flags.writeable
    assert shown.size == 0 or np.shares_memory(shown, array)
    if shown.ndim:
        assert shown.strides == expected.strides
        assert shown.base is (array if array.base is None else array.base)


def test_a_view_of_a_read_only_array_is_read_only() -> None:
    array = np.ones((3, 3))
    array.flags.writeable = False
    for subscripts in ("ij->ji", "ii->i"):
        shown = view(problem(subscripts, (3, 3)), array)
        assert shown is not None and not shown.flags.writeable


@pytest.mark.parametrize("subscripts", ["ij->i", "ij->", "ij->iij", "ii->"])
def test_no_view_where_elements_are_summed_or_repeated(subscripts: str) -> None:
    assert view(problem(subscripts, (3, 3)), np.ones((3, 3))) is None


def test_a_program_writes_into_out_only_where_it_is_safe() -> None:
    base = np.zeros(10)
    operand = base[:4]
    assert is_direct(np.zeros(4), FLOAT, (operand,))
    assert is_direct(base[6:], FLOAT, (operand,))
    assert not is_direct(base[2:6], FLOAT, (operand,))
    assert not is_direct(np.zeros(4, ">f8"), FLOAT, (operand,))
    assert not is_direct(np.zeros(4, "float32"), FLOAT, (operand,))
