"""Extent 1 under a summed label: a warning at the caller's line when the call is planned, an error if asked."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from einstride import BroadcastWarning, einsum, einsum_path, plan

# A call is planned once, so every test has extents of its own.
EXTENTS = itertools.count(101)


def ones(*shape: int) -> Any:
    return np.ones(shape)


CALLS: list[Callable[[int], Any]] = [
    lambda n: einsum("ij,ij->", ones(3, 1), ones(3, n)),
    lambda n: einsum(ones(3, n), [0, 1], ones(1), [1], [0]),
    lambda n: einsum("i...,i...->i", ones(3, n), ones(3, 1)),
    lambda n: einsum("ij,ij->", [[1.0]] * 3, ones(3, n), optimize=True),
    lambda n: einsum_path("ij,jk->ik", ones(3, n), ones(1, 2)),
    lambda n: plan("ij,jk->ik", (3, n), (1, 2)),
]


@pytest.mark.parametrize("call", CALLS)
def test_the_warning_is_at_the_callers_line_and_given_once(call: Callable[[int], Any]) -> None:
    n = next(EXTENTS)
    with pytest.warns(BroadcastWarning) as caught:
        call(n)
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, call.__code__.co_firstlineno)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(n)


def test_the_wording() -> None:
    with pytest.warns(BroadcastWarning) as caught:
        einsum("ij,jk->ik", ones(2, 1), ones(5, 3))
    assert str(caught[0].message) == dedent(
        """\
        label 'j' is summed over 5 values, but operand 0 has extent 1 there (axis 1 of shape (2, 1)), \
so its elements are counted 5 times
          ij,jk->ik
           ^"""
    )


def test_every_summed_label_has_its_warning() -> None:
    with pytest.warns(BroadcastWarning) as caught:
        einsum("ijk,ijk,i->i", ones(2, 1, 4), ones(2, 3, 1), ones(2))
    messages = [str(each.message) for each in caught]
    assert ["label 'j'" in messages[0], "operand 0" in messages[0]] == [True, True]
    assert ["label 'k'" in messages[1], "operand 1" in messages[1]] == [True, True]


@pytest.mark.parametrize("call", CALLS)
def test_as_an_error_it_is_raised_by_the_first_call_and_by_every_later_one(call: Callable[[int], Any]) -> None:
    n = next(EXTENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BroadcastWarning)
        for _ in range(3):
            with pytest.raises(BroadcastWarning, match="is summed over"):
                call(n)
    with pytest.warns(BroadcastWarning):
        call(n)


def test_a_plan_made_is_not_warned_of_again() -> None:
    with pytest.warns(BroadcastWarning):
        planned = plan("ij,j->i", (2, 3), (1,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert planned(ones(2, 3), ones(1)).tolist() == [3.0, 3.0]
        assert planned(ones(2, 3), ones(1)).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,ij->ij", [(3, 1), (3, 4)]),  # stretched, and not summed
        ("ij,ij->", [(3, 4), (3, 4)]),
        ("ij,ij->", [(3, 1), (3, 1)]),  # nothing to stretch to
        ("...i,...i->...", [(1, 4), (3, 4)]),
        ("ij->i", [(3, 1)]),
    ],
)
def test_other_calls_are_not_warned_of(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(subscripts, *shapes)
