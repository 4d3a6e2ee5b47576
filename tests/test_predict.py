from __future__ import annotations

import pytest

from einstride import plan
from einstride.machine import detect
from einstride.predict import step_seconds
from einstride.problem import terms
from einstride.program import DTYPES


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "complex128"])
@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", ((300, 400), (400, 500))),
        ("bij,bjk->bik", ((20, 30, 40), (20, 40, 50))),
        ("ij,ij,ij->ij", ((300, 400),) * 3),
        ("ij->j", ((300, 400),)),
    ],
)
def test_a_dense_step_is_predicted_as_its_program_will_be(
    subscripts: str, shapes: tuple[tuple[int, ...], ...], dtype: str
) -> None:
    made = plan(subscripts, *shapes, dtype=dtype)
    predict = step_seconds(DTYPES.index(dtype), detect())
    assert made.program is not None
    assert len(made.program.steps) == 1
    predicted = predict(terms(made.problem), made.problem.expression.output, made.problem.extents)
    assert predicted == pytest.approx(made.program.seconds)


def test_labels_of_the_same_tensors_count_as_one() -> None:
    predict = step_seconds(DTYPES.index("float64"), detect())
    split = predict(((0, 1, 2), (2, 3)), (0, 1, 3), (20, 30, 40, 50))
    assert split == predict(((0, 1), (1, 2)), (0, 2), (600, 40, 50))


def test_no_elements_take_no_time() -> None:
    assert step_seconds(12, detect())(((0, 1), (1, 2)), (0, 2), (3, 0, 4)) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "complex128"])
def test_what_one_operand_alone_sums_is_summed_before_it_is_multiplied(dtype: str) -> None:
    made = plan("dcba,bac->abc", (1000, 4, 33, 7), (33, 7, 4), dtype=dtype)
    assert made.tree.groups == ((0,), (1, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("subscripts", ["ijk,ijk->ik", "ijk,ij->ik", "kij,ij->kj"])
def test_a_product_that_reads_a_side_once_is_one_pass(subscripts: str, dtype: str) -> None:
    extents = {"i": 100, "j": 200, "k": 60}
    shapes = [tuple(extents[label] for label in term) for term in subscripts.partition("->")[0].split(",")]
    made = plan(subscripts, *shapes, dtype=dtype)
    assert made.program is not None
    assert [step.kernel for step in made.program.steps] == ["fused"]
