from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import oracle
from test_search import problems
from test_tree import problem_of

from einstride.problem import Problem
from einstride.run import run_namespace
from einstride.search import search

OPTIMIZE = ("auto", True, False)


def fractions_for(shape: tuple[int, ...], seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-9, 10, shape)
    return np.array([Fraction(int(value), 7) for value in values.flat], dtype=object).reshape(shape)


@given(problems(most=4).filter(lambda problem: max(problem.extents, default=0) <= 7), st.sampled_from(OPTIMIZE))
def test_fractions_come_out_exact(problem: Problem, optimize: bool | str) -> None:
    arrays = [fractions_for(shape, seed) for seed, shape in enumerate(problem.shapes)]
    got = run_namespace(problem, search(problem, optimize), arrays)
    want = oracle(problem.expression.inputs, problem.expression.output, arrays)
    assert got.dtype == object
    assert got.shape == want.shape
    assert (got == want).all()
    assert not any(isinstance(value, float) for value in got.flat)
    assert not any(np.may_share_memory(got, array) for array in arrays)


@pytest.mark.parametrize("optimize", OPTIMIZE)
@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", ((3, 0), (0, 4))),
        ("ij,jk->ik", ((0, 3), (3, 4))),
        ("ij,jk->ik", ((3, 1), (5, 4))),
        ("i->ii", ((3,),)),
        ("ij,j->jij", ((2, 3), (3,))),
        ("ij,jk,kl->", ((2, 3), (3, 4), (4, 5))),
        (",,->", ((), (), ())),
        ("iij,kj->ki", ((2, 2, 3), (4, 3))),
        ("bij,bjk,k->bi", ((2, 3, 4), (2, 4, 5), (5,))),
    ],
)
def test_shapes_that_ask_for_care(subscripts: str, shapes: tuple[tuple[int, ...], ...], optimize: bool | str) -> None:
    problem = problem_of(subscripts, *shapes)
    arrays = [fractions_for(shape, seed) for seed, shape in enumerate(shapes)]
    got = run_namespace(problem, search(problem, optimize), arrays)
    want = oracle(problem.expression.inputs, problem.expression.output, arrays)
    assert got.shape == want.shape
    assert (got == want).all()


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_long_doubles_keep_their_precision(dtype: type[np.longdouble | np.clongdouble]) -> None:
    third = np.full((3, 3), 1, dtype) / dtype(3)
    problem = problem_of("ij,jk,kl->il", *[(3, 3)] * 3)
    got = run_namespace(problem, search(problem), [third] * 3)
    assert got.dtype == dtype
    # Each entry is nine products of three thirds: at most 13 roundings apart from 1/3.
    assert (abs(got - third) <= 13 * np.finfo(np.longdouble).eps * abs(third)).all()


def test_operands_convert_before_anything_is_summed() -> None:
    problem = problem_of("i,->", (2,), ())
    got = run_namespace(problem, search(problem), [np.array([200, 100], np.uint8), np.array(1, np.longdouble)])
    assert got == 300


def test_strided_reversed_and_broadcast_operands_are_read_where_they_lie() -> None:
    base = fractions_for((6, 8), 0)
    left, right = base[::2, ::-2], np.broadcast_to(fractions_for((4, 1), 1), (4, 5))
    problem = problem_of("ij,jk->ki", left.shape, right.shape)
    want = oracle(problem.expression.inputs, problem.expression.output, [left, right])
    assert (run_namespace(problem, search(problem), [left, right]) == want).all()
