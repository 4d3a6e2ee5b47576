"""The code that explanations show runs, and gives what einsum gives."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, assert_equals_oracle
from strategies import Call, calls, random_values

from einstride import einsum, explain
from einstride.explanation import Explanation
from einstride.explanation.loops import WIDTH

TYPES = ("float64", "int64", "int8", "bool", "complex64", "float16", "float32")


def run(source: str, *arrays: Any) -> Any:
    """The result of the one function that the source defines."""
    names: dict[str, Any] = {}
    exec(compile(source, "shown", "exec"), names)
    return names[re.findall(r"^def (\w+)", source, re.MULTILINE)[0]](*arrays)


def run_torch(source: str, *arrays: Array) -> Array:
    torch = pytest.importorskip("torch")
    return np.asarray(run(source, *(torch.tensor(array) for array in arrays)).numpy())


def arguments(subscripts: str, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [subscripts, *(rng.integers(-9, 10, shape).astype(float) for shape in shapes)]


# What is spelled in a way of its own, from `ij,jk->ik` to what no library spells.
CASES: list[list[Any]] = [
    arguments("ij,jk->ik", (3, 4), (4, 5)),
    arguments("ij,jk->ki", (3, 4), (4, 5)),
    arguments("ji,kj", (4, 3), (5, 4)),
    arguments("bcik,bcij->bckj", (2, 3, 4, 5), (2, 3, 4, 6)),
    arguments("bqhd,bkhd->bhqk", (2, 3, 4, 5), (2, 6, 4, 5)),
    arguments("abcd,cdij->abij", (2, 3, 4, 5), (4, 5, 3, 2)),
    arguments("aebf,dfcea->abcd", (2, 3, 4, 2), (5, 2, 3, 3, 2)),
    arguments("bij,bj->bi", (2, 3, 4), (2, 4)),
    arguments("ij,j->i", (3, 4), (4,)),
    arguments("i,i->", (3,), (3,)),
    arguments("ij,ij->i", (3, 4), (3, 4)),
    arguments("ij,ij->", (3, 4), (3, 4)),
    arguments("i,j->ji", (3,), (4,)),
    arguments("ij->ji", (3, 4)),
    arguments("ij->ij", (3, 4)),
    arguments("ii->", (3, 3)),
    arguments("iii,j->ij", (3, 3, 3), (2,)),
    arguments("iij,jj->i", (3, 3, 2), (2, 2)),
    arguments("i->ii", (3,)),
    arguments("ij->jiij", (3, 2)),
    arguments("ij,jk,kl->il", (3, 4), (4, 5), (5, 6)),
    arguments("pi,qj,ijkl,rk,sl->pqrs", *[(3, 2)] * 2, (2, 2, 2, 2), *[(3, 2)] * 2),
    arguments("ijk,jr,kr->ir", (3, 4, 5), (4, 2), (5, 2)),
    arguments("i,i,ij->j", (3,), (3,), (3, 4)),
    arguments("ij,ij,ij->ij", (3, 4), (3, 4), (3, 4)),
    arguments("ij,jk->ik", (3, 1), (4, 5)),
    arguments("ij,ij->ij", (1, 4), (3, 1)),
    arguments("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 5)),
    arguments("...i->i", (2, 3, 4)),
    arguments(",i,->i", (), (3,), ()),
    arguments(",->", (), ()),
    arguments("->", ()),
    arguments("ij,jk->ik", (3, 0), (0, 4)),
    arguments("ij,jk->ik", (0, 3), (3, 4)),
    arguments("AB,BC->AC", (3, 4), (4, 5)),
    arguments("λß,ßж->λж", (3, 4), (4, 2)),
    arguments("s{0},{0}k->sk".format("\N{LATIN SMALL LETTER LONG S}"), (3, 4), (4, 2)),  # which Python reads as an s
    arguments("abcdefghijklmno,op->a", (2,) * 15, (2, 2)),
    arguments(",".join(["ij"] * 30) + "->i", *[(2, 2)] * 30),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0])[:24])
def test_shown_code_gives_what_loops_over_every_index_give(case: list[Any]) -> None:
    arrays = case[1:]
    explanation = explain(*case)
    terms, output = meaning(explanation)
    for source in (explanation.loops, explanation.numpy):
        assert_equals_oracle(np.asarray(run(source, *arrays)), terms, output, arrays)
        assert max(map(len, source.splitlines())) <= WIDTH + 4, source


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0])[:24])
def test_torch_code_too(case: list[Any]) -> None:
    arrays = case[1:]
    explanation = explain(*case)
    assert_equals_oracle(run_torch(explanation.torch, *arrays), *meaning(explanation), arrays)


def meaning(explanation: Explanation) -> tuple[list[tuple[Hashable, ...]], tuple[Hashable, ...]]:
    expression = explanation.plan.problem.expression
    return list(expression.inputs), expression.output


@settings(max_examples=40)
@given(calls(), st.sampled_from(TYPES), st.integers(0, 2**32 - 1))
def test_code_of_random_calls(call: Call, name: str, seed: int) -> None:
    dtype = np.dtype(name)
    rng = np.random.default_rng(seed)
    arrays = tuple(random_values(shape, dtype, rng) for shape in call.shapes)
    explanation = explain(*call.arguments(arrays))
    with np.errstate(all="ignore"):
        for source in (explanation.loops, explanation.numpy):
            assert_equals_oracle(np.asarray(run(source, *arrays)), call.terms, call.output, arrays)


@settings(max_examples=40)
@given(calls(), st.sampled_from(["float64", "int64", "complex64"]), st.integers(0, 2**32 - 1))
def test_torch_code_of_random_calls(call: Call, name: str, seed: int) -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    arrays = tuple(random_values(shape, np.dtype(name), rng) for shape in call.shapes)
    source = explain(*call.arguments(arrays)).torch
    assert_equals_oracle(run_torch(source, *arrays), call.terms, call.output, arrays)


def test_any_hashable_is_a_label() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(-9, 10, (3, 4)), rng.integers(-9, 10, (4, 5))
    for row, inner, column in [("for", "a b", "a_b"), (0, 1, 2), ("np", "out", "range"), (None, "...0", "A")]:
        call: list[Any] = [left, [row, inner], right, [inner, column], [row, column]]
        explanation = explain(*call)
        for source in (explanation.loops, explanation.numpy):
            assert np.array_equal(run(source, left, right), left @ right), source


def test_labels_that_are_called_as_the_code_calls_its_own() -> None:
    arrays = [np.arange(4.0).reshape(2, 2) + number for number in range(3)]
    labels: list[Any] = [["step_1", "left"], ["left", "right"], ["right", "product"]]
    pairs = [part for pair in zip(arrays, labels, strict=True) for part in pair]
    explanation = explain(*pairs, ["step_1", "product", "step_1"])
    want = einsum(*pairs, ["step_1", "product", "step_1"])
    assert np.array_equal(run(explanation.loops, *arrays), want)
    assert np.array_equal(run(explanation.numpy, *arrays), want)


def test_more_labels_than_letters_and_than_blocks_that_python_nests() -> None:
    shape = (1,) * 13 + (2,)
    arrays = [np.arange(2.0).reshape(shape) + number for number in range(4)]
    labels = [[14 * number + axis for axis in range(14)] for number in range(4)]
    pairs: list[Any] = [part for pair in zip(arrays, labels, strict=True) for part in pair]
    explanation = explain(*pairs, [13, 27])
    want = np.multiply.outer(arrays[0].ravel(), arrays[1].ravel()) * arrays[2].sum() * arrays[3].sum()
    for source in (explanation.loops, explanation.numpy):
        assert np.array_equal(run(source, *arrays), want), source


def test_operands_of_other_types_are_converted_first() -> None:
    mixed = np.array([100, 100], np.int8), np.array([100.5, 1])
    explanation = explain("i,i->", *mixed)
    assert run(explanation.loops, *mixed) == run(explanation.numpy, *mixed) == einsum("i,i->", *mixed) == 10150.0
    narrow = np.full((5000,), 1, np.float16)
    explanation = explain("i->", narrow)
    assert run(explanation.loops, narrow) == run(explanation.numpy, narrow) == 5000


def test_torch_sums_sixteen_bit_floats_in_float32() -> None:
    narrow = np.full((5000,), 1, np.float16)
    assert run_torch(explain("i->", narrow).torch, narrow) == 5000
