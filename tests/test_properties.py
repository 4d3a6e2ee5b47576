"""What holds for every einsum call, checked on random ones."""

from __future__ import annotations

import pickle
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from oracle import Array, assert_equals_oracle, is_integral, promoted, summed_count, tolerance
from strategies import (
    BFLOAT16,
    DTYPES,
    LARGE_SUBSCRIPTS,
    LAYOUTS,
    Call,
    arrays_for,
    calls,
    dtypes_for,
    large_shapes,
    random_values,
    with_layout,
)

import einstride
from einstride import einsum, plan

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@pytest.fixture
def threads() -> Iterator[None]:
    """Leaves the number of threads as it was."""
    before = einstride.num_threads()
    yield
    einstride.set_num_threads(before)


def bits(array: Array) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


# --- the oracle -------------------------------------------------------------------------------------------------------


@settings(max_examples=500)
@given(st.data())
def test_equals_the_oracle_and_has_numpys_dtype(data: st.DataObject) -> None:
    call = data.draw(calls())
    arrays = data.draw(arrays_for(call.shapes))
    got = np.asarray(einsum(*call.arguments(arrays)))
    # A view of a byte-swapped operand is byte-swapped, as NumPy's is.
    is_view = got.base is not None
    assert got.dtype == (arrays[0].dtype if is_view else promoted(*arrays))
    assert_equals_oracle(got, call.terms, call.output, arrays)


@settings(max_examples=200)
@given(st.data())
def test_agrees_with_numpy_where_numpy_answers(data: st.DataObject) -> None:
    call = data.draw(calls(beyond_numpy=False))
    arrays = data.draw(arrays_for(call.shapes))
    assume(all(array.dtype != BFLOAT16 for array in arrays))
    try:
        want = np.einsum(*call.arguments(arrays))
    except TypeError:  # NumPy 1 refuses uint8(95), uint8, int8, int8, which it promotes to int8 and cannot cast to it
        reject()
    got = einsum(*call.arguments(arrays))
    assert type(got) is type(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if is_integral(want.dtype) and len({array.dtype for array in arrays}) == 1:
        assert np.array_equal(got, want)
    if isinstance(want, np.ndarray):
        assert np.may_share_memory(got, arrays[0]) == np.may_share_memory(want, arrays[0])


def reference(subscripts: str, arrays: tuple[Array, ...]) -> Array:
    """NumPy's einsum: integers in their type, the rest in the widest floating type it has."""
    dtype = promoted(*arrays)
    if is_integral(dtype):
        return np.asarray(np.einsum(subscripts, *[array.astype(dtype) for array in arrays]))
    wide = np.clongdouble if dtype.kind == "c" else np.longdouble
    return np.asarray(np.einsum(subscripts, *[array.astype(dtype).astype(wide) for array in arrays]))


def assert_equals_reference(got: Array, subscripts: str, arrays: tuple[Array, ...]) -> None:
    want = reference(subscripts, arrays)
    assert got.shape == want.shape
    if is_integral(got.dtype):
        assert np.array_equal(got, want)
        return
    inputs, _, output = subscripts.partition("->")
    terms = inputs.split(",")
    count = summed_count(terms, output, [array.shape for array in arrays])
    sizes = tuple(np.abs(array.astype(got.dtype)) for array in arrays)
    allowed = tolerance(got.dtype, count, len(arrays), np.abs(want), 2 * reference(subscripts, sizes))
    wide = got.astype(want.dtype)
    assert np.all((np.abs(wide - want) <= allowed) | (np.isinf(wide) & (np.abs(want) > np.finfo(np.float16).max)))


@pytest.mark.parametrize("subscripts", LARGE_SUBSCRIPTS)
@settings(max_examples=12)
@given(data=st.data())
def test_sizes_around_tiles_and_vectors(subscripts: str, data: st.DataObject) -> None:
    shapes = data.draw(large_shapes(subscripts))
    dtypes = data.draw(dtypes_for(len(shapes)))
    layouts = data.draw(st.tuples(*[st.sampled_from(LAYOUTS)] * len(shapes)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    drawn = zip(shapes, dtypes, layouts, strict=True)
    arrays = tuple(with_layout(small_values(shape, dtype, rng), layout, rng) for shape, dtype, layout in drawn)
    assert_equals_reference(np.asarray(einsum(subscripts, *arrays)), subscripts, arrays)


@pytest.mark.parametrize("shapes", [((5, 7, 20), (7, 9)), ((3, 40, 8), (40, 70)), ((4, 5, 7), (5, 6))])
@pytest.mark.parametrize("reverse", [1, -1])
def test_a_left_side_walked_in_several_strides(shapes: tuple[tuple[int, ...], ...], reverse: int) -> None:
    rng = np.random.default_rng(0)
    arrays = tuple(rng.standard_normal(shape)[::reverse] for shape in shapes)
    assert_equals_reference(einsum("kij,il->jkl", *arrays), "kij,il->jkl", arrays)


def small_values(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Random values that stay finite in float16 when mixed with it."""
    return rng.integers(0, 4, shape).astype(dtype) if is_integral(dtype) else random_values(shape, dtype, rng)


# --- what must not matter ---------------------------------------------------------------------------------------------


def relabelled(subscripts: str, letters: str) -> str:
    used = dict.fromkeys(letter for letter in subscripts if letter.isalpha())
    return "".join(dict(zip(used, letters, strict=False)).get(letter, letter) for letter in subscripts)


@settings(max_examples=100)
@given(st.data())
def test_names_of_labels(data: st.DataObject) -> None:
    call = data.draw(calls(explicit=True, interleaved=False))
    arrays = data.draw(arrays_for(call.shapes))
    assert call.subscripts is not None
    other = relabelled(call.subscripts, "".join(data.draw(st.permutations(string.ascii_letters + "äöüßλπ"))))
    # With order="K" the letters choose the result's layout, as NumPy's do, and so the order of sums.
    got, want = (np.asarray(einsum(subscripts, *arrays, order="C")) for subscripts in (other, call.subscripts))
    assert bits(got) == bits(want)


@settings(max_examples=150)
@given(st.data())
def test_order_of_operands(data: st.DataObject) -> None:
    call = data.draw(calls(explicit=True, interleaved=False, min_operands=2))
    arrays = data.draw(arrays_for(call.shapes))
    assert call.subscripts is not None
    order = data.draw(st.permutations(range(len(arrays))))
    inputs, _, output = call.subscripts.partition("->")
    texts = inputs.split(",")
    subscripts = ",".join(texts[k] for k in order) + "->" + output
    swapped = tuple(arrays[k] for k in order)
    got = np.asarray(einsum(subscripts, *swapped))
    assert_equals_oracle(got, [call.terms[k] for k in order], call.output, swapped)


@st.composite
def paths(draw: st.DrawFn, operands: int) -> list[Any]:
    """An explicit path as NumPy writes it, of groups of one to four operands."""
    path: list[Any] = ["einsum_path"]
    left = operands
    while left > 1 or len(path) == 1:
        group = draw(st.integers(min(2, left), min(4, left)))
        chosen = draw(st.permutations(range(left)))[:group]
        path.append(tuple(sorted(chosen)))
        left -= group - 1
    return path


@settings(max_examples=150)
@given(st.data())
def test_contraction_tree(data: st.DataObject) -> None:
    call = data.draw(calls(min_operands=2))
    arrays = data.draw(arrays_for(call.shapes))
    path = data.draw(paths(len(arrays)))
    got = np.asarray(einsum(*call.arguments(arrays), optimize=path))
    assert_equals_oracle(got, call.terms, call.output, arrays)


@settings(max_examples=150)
@given(st.data(), st.sampled_from([True, False, "greedy", "optimal", ("greedy", 1000), ("optimal", 10), "auto"]))
def test_optimize(data: st.DataObject, optimize: Any) -> None:
    call = data.draw(calls())
    arrays = data.draw(arrays_for(call.shapes))
    got = np.asarray(einsum(*call.arguments(arrays), optimize=optimize))
    assert_equals_oracle(got, call.terms, call.output, arrays)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("subscripts", LARGE_SUBSCRIPTS)
@settings(max_examples=4)
@given(data=st.data())
def test_number_of_threads_to_the_bit(subscripts: str, data: st.DataObject) -> None:
    shapes = data.draw(large_shapes(subscripts, volume=8_000_000))
    dtype = data.draw(st.sampled_from([d for d in DTYPES if not is_integral(d)]))
    layouts = data.draw(st.tuples(*[st.sampled_from(LAYOUTS)] * len(shapes)))
    rng = np.random.default_rng(0)
    arrays = [with_layout(random_values(s, dtype, rng), layout, rng) for s, layout in zip(shapes, layouts, strict=True)]
    results = []
    for count in (1, 2, 3):
        einstride.set_num_threads(count)
        results.append(bits(np.asarray(einsum(subscripts, *arrays))))
    assert results[0] == results[1] == results[2]


# --- out= -------------------------------------------------------------------------------------------------------------


def result_shape(call: Call) -> tuple[int, ...]:
    extents: dict[Any, int] = {}
    for term, shape in zip(call.terms, call.shapes, strict=True):
        for symbol, extent in zip(term, shape, strict=True):
            extents[symbol] = extent if extents.get(symbol, 1) == 1 else extents[symbol]
    return tuple(extents[symbol] for symbol in call.output)


@settings(max_examples=200)
@given(st.data())
def test_out_in_any_layout(data: st.DataObject) -> None:
    call = data.draw(calls())
    arrays = data.draw(arrays_for(call.shapes))
    dtype = promoted(*arrays)
    layout = data.draw(st.sampled_from([one for one in LAYOUTS if one not in ("readonly", "stride 0")]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    out = with_layout(random_values(result_shape(call), dtype, rng), layout, rng)
    # NumPy 1 may promote further with one more array of the type that it promoted to: int16(607), bool, int16 to int32.
    assume(promoted(*arrays, out) == dtype)
    assert einsum(*call.arguments(arrays), out=out) is out
    assert_equals_oracle(out.astype(dtype), call.terms, call.output, arrays)


@settings(max_examples=200)
@given(st.data())
def test_out_that_overlaps_an_operand(data: st.DataObject) -> None:
    call = data.draw(calls())
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = [random_values(shape, dtype, rng) for shape in call.shapes]
    out_bytes = int(np.prod(result_shape(call))) * dtype.itemsize
    which = data.draw(st.integers(0, len(arrays) - 1))
    shift = data.draw(st.integers(0, 3)) * dtype.itemsize
    memory = np.zeros(max(arrays[which].nbytes, out_bytes) + shift, np.uint8)
    shared = memory[: arrays[which].nbytes].view(dtype).reshape(call.shapes[which])
    shared[...] = arrays[which]
    out = memory[shift : shift + out_bytes].view(dtype).reshape(result_shape(call))
    passed = tuple(shared if k == which else array for k, array in enumerate(arrays))
    assert einsum(*call.arguments(passed), out=out) is out
    assert_equals_oracle(out, call.terms, call.output, arrays)


# --- plans ------------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.data())
def test_a_plan_gives_einsums_bits_before_and_after_pickling(data: st.DataObject) -> None:
    call = data.draw(calls(interleaved=False))
    arrays = data.draw(arrays_for(call.shapes))
    made = plan(call.subscripts, *arrays)
    want = bits(np.asarray(einsum(*call.arguments(arrays))))
    assert bits(np.asarray(made(*arrays))) == want
    assert bits(np.asarray(pickle.loads(pickle.dumps(made))(*arrays))) == want


@settings(max_examples=100)
@given(st.data())
def test_a_repeated_call_gives_the_same_bits(data: st.DataObject) -> None:
    call = data.draw(calls())
    arrays = data.draw(arrays_for(call.shapes))
    first, second, third = (bits(np.asarray(einsum(*call.arguments(arrays)))) for _ in range(3))
    assert first == second == third
