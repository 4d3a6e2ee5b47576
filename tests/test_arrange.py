"""Small tensors copied into the order of a step's largest one: where it pays, and that it changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_equals_oracle, promoted
from strategies import arrays_for, calls

from einstride import PlanMemoryError, _core, api, arrange, einsum, plan
from einstride.explanation.facts import describe
from einstride.explanation.text import copied

MIB = 1 << 20


@contextmanager
def forced() -> Iterator[None]:
    """Every tensor that may be copied is, however little there is to gain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrange, "LEAST_SECONDS", 0.0)
        patch.setattr(arrange, "LEAST_RATIO", 1)
        patch.setattr(arrange, "COPY_CHARGE", -1e9)
        forget()
        yield
    forget()


def forget() -> None:
    api._lowered.cache_clear()
    api._kept_plan.cache_clear()
    _core.forget()


def copies(made: api.Plan) -> int:
    assert made.program is not None
    return sum(step.arranges for step in made.program.steps)


PAYS = [
    ("abcd,dc->ab", [(530, 301, 8, 2), (2, 8)], ["B, first, into the order that the largest tensor lies in"]),
    ("cda,abdc->ab", [(4, 300, 6), (6, 360, 300, 4)], ["A, first, into the order that the largest tensor lies in"]),
    ("dab,cd->cba", [(740, 36, 11), (3, 740)], ["output, last, from the order that it is made in"]),
    ("cab,c->ba", [(240, 100, 6), (240,)], ["output, last, from the order that it is made in"]),
]


@pytest.mark.parametrize(("subscripts", "shapes", "told"), PAYS, ids=lambda value: str(value)[:16])
def test_a_small_tensor_that_lies_in_another_order_is_copied(
    subscripts: str, shapes: list[tuple[int, ...]], told: list[str]
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 10, shape).astype(np.float64) for shape in shapes]
    made = plan(subscripts, *arrays)
    (step,) = describe(made).steps
    assert copied(step) == told
    assert "  copied      " + told[0] in made.explain()
    assert copies(made) == len(told)
    np.testing.assert_array_equal(made(*arrays), np.einsum(subscripts, *arrays))


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("abcd,cd->ab", [(530, 301, 8, 2), (8, 2)]),  # in the same order
        ("ab,ba->", [(900, 900), (900, 900)]),  # as large
        ("abcd,dc->ab", [(4, 3, 8, 2), (2, 8)]),  # too little work
        ("ab,c->cab", [(40, 50), (900,)]),  # the output is the largest, and the inputs lie as it does
    ],
)
def test_otherwise_none_is(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    assert copies(plan(subscripts, *shapes)) == 0


def test_a_copy_is_of_a_mebibyte_at_the_most() -> None:
    fits, too_large = ("cab,c->ba", (20, 300, 436), (20,)), ("cab,c->ba", (20, 300, 438), (20,))
    with forced():
        assert copies(plan(*fits)) == 1
        assert copies(plan(*too_large)) == 0
    assert 300 * 436 * 8 <= MIB < 300 * 438 * 8


def test_memory_forbids_a_copy_and_then_none_is_made() -> None:
    subscripts, arrays = "abcd,ba->acd", [np.ones((8, 16, 32, 12)), np.ones((16, 8))]
    with forced():
        free = plan(subscripts, *arrays)
        loaded = free._load()
        assert loaded is not None
        needed = loaded[1].memory()
        bounded = plan(subscripts, *arrays, memory=needed - 1)
        assert copies(free) == copies(plan(subscripts, *arrays, memory=needed)) > copies(bounded) == 0
        np.testing.assert_array_equal(bounded(*arrays), free(*arrays))


def test_a_plans_memory_holds_for_arrays_that_lie_otherwise() -> None:
    made = plan("ij,jk->ik", (64, 64), (64, 64), dtype="float32", memory=13_000)
    a = np.ones((64, 64), np.float32)
    np.testing.assert_array_equal(made(a, a), np.full((64, 64), 64))
    with pytest.raises(PlanMemoryError, match=r"^[0-9]+ bytes are needed .*, 0 for intermediates and copies and"):
        made(a, a.T)


@settings(max_examples=300)
@given(st.data())
def test_copies_change_no_result(data: st.DataObject) -> None:
    call = data.draw(calls())
    arrays = data.draw(arrays_for(call.shapes))
    with forced():
        got = np.asarray(einsum(*call.arguments(arrays)))
    if got.base is None:
        assert got.dtype == promoted(*arrays)
    assert_equals_oracle(got, call.terms, call.output, arrays)
