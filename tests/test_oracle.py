"""The oracle itself, against answers worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from oracle import Array, Exact, assert_equals_oracle, exact, oracle, summed_count, tolerance, wrap


def test_matrix_product() -> None:
    result = oracle(["ij", "jk"], "ik", [np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]])])
    assert result.tolist() == [[19, 22], [43, 50]]


def test_diagonal_trace_and_written_diagonal() -> None:
    square = np.array([[1, 2], [3, 4]])
    assert oracle(["ii"], "i", [square]).tolist() == [1, 4]
    assert oracle(["ii"], "", [square]).item() == 5
    assert oracle(["i"], "ii", [np.array([7, 9])]).tolist() == [[7, 0], [0, 9]]


def test_extent_one_is_broadcast_and_extent_zero_sums_to_zero() -> None:
    assert oracle(["i", "i"], "i", [np.array([2]), np.array([3, 5])]).tolist() == [6, 10]
    assert oracle(["ij"], "i", [np.zeros((2, 0), int)]).tolist() == [0, 0]
    assert oracle(["i", "i"], "i", [np.zeros(0, int), np.array([4])]).shape == (0,)


def test_scalars_and_private_labels() -> None:
    assert oracle(["", "ij"], "j", [np.array(10), np.array([[1, 2], [3, 4]])]).tolist() == [40, 60]
    assert oracle(["i", "j"], "", [np.array([1, 2]), np.array([3, 4, 5])]).item() == 36


def test_fractions_stay_exact() -> None:
    thirds = np.array([Fraction(1, 3)] * 3, dtype=object)
    assert oracle(["i"], "", [thirds]).item() == Fraction(1)


def test_exact_numbers() -> None:
    two_i = Exact(Fraction(0), Fraction(2))
    assert two_i * two_i == Exact(Fraction(-4))
    assert abs(Exact(Fraction(-3), Fraction(4))) == Exact(Fraction(7))
    assert exact(np.array([0.5 - 1j]))[0] == Exact(Fraction(1, 2), Fraction(-1))
    assert exact(np.array([0.1], np.float32))[0].real != Fraction(1, 10)


def test_wrap() -> None:
    values = np.array([127, 128, 255, 256, -129], dtype=object)
    assert wrap(values, np.dtype(np.int8)).tolist() == [127, -128, -1, 0, 127]
    assert wrap(values, np.dtype(np.uint8)).tolist() == [127, 128, 255, 0, 127]
    assert wrap(values, np.dtype(bool)).tolist() == [True] * 5


def test_summed_count() -> None:
    assert summed_count(["ij", "jk"], "ik", [(3, 4), (4, 5)]) == 4
    assert summed_count(["ij", "ij"], "ij", [(3, 4), (1, 4)]) == 1


def test_tolerance_grows_with_the_sum_and_shrinks_with_the_type() -> None:
    single, double, half = (np.dtype(t) for t in (np.float32, np.float64, np.float16))
    assert tolerance(single, 100, 2, 1.0, 1.0) > tolerance(single, 10, 2, 1.0, 1.0)
    assert tolerance(double, 10, 2, 1.0, 1.0) < 1e-13
    assert tolerance(half, 10, 2, 1.0, 1.0) < 2e-3, "float16 is summed in float32 and rounded once"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.int8, bool])
def test_the_assertion_accepts_the_right_and_refuses_the_wrong(dtype: type) -> None:
    left: Array = np.array([[1, 0, 1], [1, 1, 1]]).astype(dtype)
    right: Array = np.array([1, 0, 0]).astype(dtype)
    assert_equals_oracle(np.array([1, 1]).astype(dtype), ["ij", "j"], "i", [left, right])
    with pytest.raises(AssertionError):
        assert_equals_oracle(np.array([1, 0]).astype(dtype), ["ij", "j"], "i", [left, right])
    with pytest.raises(AssertionError):
        assert_equals_oracle(np.array([[1], [1]]).astype(dtype), ["ij", "j"], "i", [left, right])


def test_the_assertion_refuses_an_error_above_the_bound() -> None:
    ones = np.ones(10, np.float32)
    assert_equals_oracle(np.float32(10.00001) * np.ones((), np.float32), ["i"], "", [ones])
    with pytest.raises(AssertionError):
        assert_equals_oracle(np.asarray(10.001, np.float32), ["i"], "", [ones])


def test_the_assertion_lets_infinity_stand_only_for_overflow() -> None:
    big = np.array([60000.0, 60000.0], np.float16)
    assert_equals_oracle(np.asarray(np.inf, np.float16), ["i"], "", [big])
    with pytest.raises(AssertionError):
        assert_equals_oracle(np.asarray(np.inf, np.float16), ["i"], "", [big / 4])
