from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import einstride
from einstride import einsum, explain, plan
from einstride.explanation import Explanation
from einstride.explanation.facts import ROLES
from einstride.explanation.text import branches

CASES: list[tuple[Any, ...]] = [
    ("ij,jk,kl->il", (10, 100), (100, 100), (100, 10)),
    ("bqm,bkm->bqk", (32, 64, 512), (32, 128, 512)),
    ("ij,k->k", (300, 400), (500,)),
    ("ij,jk->ik", (3, 0), (0, 4)),
    ("...i,ij->...j", (2, 3, 4), (4, 5)),
    ("i->ii", (3,)),
    ("ij->ji", (3, 4)),
    ("ij,jk->ik", np.ones((2, 3), object), np.ones((3, 2), object)),
    (",".join(["ij"] * 30), *[(3, 3)] * 30),
]


def role(text: str, name: str) -> list[str]:
    """The labels said to have a role, with their extents, per step that has any."""
    return re.findall(rf"^  {name} +(.*)$", text, re.MULTILINE)


def test_every_label_is_told_by_its_role() -> None:
    text = plan("bij,bjk,c->bik", (8, 300, 400), (8, 400, 500), (70,)).explain()
    assert text.startswith("bij,bjk,c->bik  (8, 300, 400), (8, 400, 500), (70,) -> (8, 300, 500)  float64\n")
    assert "c 70" in role(text, "reduced")
    assert "j 400" in role(text, "contracted")
    assert "b 8" in role(text, "batch")
    assert any({"i 300", "k 500"} <= set(labels.split(", ")) for labels in role(text, "free"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0])[:16])
def test_each_step_is_told_once_and_the_columns_line_up(case: tuple[Any, ...]) -> None:
    made = plan(*case)
    text = made.explain()
    steps = len(made.tree.groups)
    assert [int(number) for number in re.findall(r"^step (\d+) of", text, re.MULTILINE)] == [*range(1, steps + 1)]
    assert len(role(text, "kernel")) == steps
    assert len(role(text, "cost")) == steps + 1
    for line in text.splitlines():
        assert line == line.rstrip()
        if line.startswith("  "):
            assert line[12:14] == "  " != line[13:15], line


def test_the_kernel_that_runs_is_named_with_what_the_others_would_take() -> None:
    made = plan("ij,jk->ik", (500, 500), (500, 500))
    assert made.program is not None
    (step,) = made.program.steps
    (told,) = role(made.explain(), "kernel")
    assert told.startswith(f"{step.kernel}: ")
    assert re.search(r"predicted; \w+ would take [\d.]+ (ns|us|ms|s)$", made.explain(), re.MULTILINE)


def test_the_totals_are_the_plans_cost() -> None:
    made = plan("ij,jk,kl->il", (10, 100), (100, 100), (100, 10))
    assert made.cost.flops == 220_000
    total = made.explain().split("in all\n")[1]
    assert "220 kflops" in total
    assert "3 Mflops as a single loop nest, 13.6 times as many" in total
    assert "8.8 kB, of which 8 kB in intermediates" in total


def test_what_the_engine_does_not_run_is_said() -> None:
    numbers = np.ones((2, 2), object)
    assert role(plan("ij,jk->ik", numbers, numbers).explain(), "kernel") == ["NumPy's own products and sums"]
    assert "a view" in role(plan("iij->ji", (3, 3, 4)).explain(), "kernel")[0]
    assert "a view" not in plan("ij->i", (3, 4)).explain()
    assert "an extent is 0" in role(plan("ij,jk->ik", (3, 0), (0, 4)).explain(), "kernel")[0]


def everything(case: tuple[Any, ...]) -> str:
    return str(explain(*case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0])[:16])
def test_everything_is_told_within_a_hundred_columns(case: tuple[Any, ...]) -> None:
    explanation = explain(*case)
    text = str(explanation)
    headings = re.findall(r"^(?! )(?!step )(.+)$", text, re.MULTILINE)[1:]
    assert headings == [
        "in words",
        "as a formula",
        "how to read it",
        "labels",
        "as loops",
        "in NumPy",
        "in PyTorch",
        "contraction tree",
        "in all",
    ]
    assert plan(*case).explain().split("\n\n", 1)[1] in text
    unbroken = plan(*case).explain().splitlines()  # subscripts are not broken between lines
    assert all(len(line) <= 100 or line in unbroken for line in text.splitlines())
    for code in (explanation.loops, explanation.numpy, explanation.torch):
        assert "\n".join(f"  {line}".rstrip() for line in code.splitlines()) in text


def test_someone_new_can_read_it() -> None:
    text = everything(("bcik,bcij->bckj", (2, 3, 4, 5), (2, 3, 4, 6)))
    flat = " ".join(text.split())
    assert "The axes of A are called b, c, i, k; those of B: b, c, i, j; those of the result: b, c, k, j." in flat
    assert "2 x 3 x 5 x 6 = 180 entries" in flat
    assert "a sum over i, of 4 products" in flat
    assert "out[b,c,k,j] = Σ_i A[b,c,i,k] * B[b,c,i,j]" in text
    assert "out[0,1,2,3] = A[0,1,0,2] * B[0,1,0,3] + A[0,1,1,2] * B[0,1,1,3] + ..." in text


GUIDES = [
    (
        (",ij,->ji", (), (3, 4), ()),
        "The axes of B are called i, j; those of the result: j, i. A, C are numbers, without",
    ),
    (("i,->", (3,), ()), "The axes of A are called i. B is a number, without axes. The result is a single number."),
    (
        ("->", ()),
        "A is a number, without axes. The result is a single number. Nothing is summed: each entry is an entry of A.",
    ),
    (("...i->i", (2, 3, 4)), "The dots stand for the axes that have no letter, here called ...0, ...1."),
    (("ii->i", (3, 3)), "i names several axes of A: only that diagonal is read."),
    (("i->ii", (3,)), "i names several axes of the result: it is zero off that diagonal."),
    (("ij,jk->ik", (3, 1), (4, 5)), "Axis 1 of A, of extent 1, serves every value of its label: broadcasting."),
    (("ij->i", (3, 4)), "The result has no axis j: each of its entries is a sum over j, of 4 entries of A."),
    (("ij,jk,kl->il", *[(3, 3)] * 3), "read at the same value of it: here j, k."),
    (("ij,jk->", (3, 2), (2, 1)), "a sum over i, j, k, of 6 products."),
    (("i,j->ij", (3,), (2,)), "Nothing is summed: each entry is one product."),
]


@pytest.mark.parametrize(("case", "sentence"), GUIDES, ids=lambda value: str(value)[:20])
def test_what_is_peculiar_is_said(case: tuple[Any, ...], sentence: str) -> None:
    assert sentence in " ".join(explain(*case).guide)


EXAMPLES = [
    (("ij,jk->ik", (3, 1), (4, 5)), "out[0,1] = A[0,0] * B[0,1] + A[0,0] * B[1,1] + ..."),
    (("ij,jk->ik", (3, 2), (2, 5)), "out[0,1] = A[0,0] * B[0,1] + A[0,1] * B[1,1]"),
    (("i->ii", (3,)), "out[0,0] = A[0]"),
    (("ijk->", (2, 3, 1)), "out = A[0,0,0] + A[0,1,0] + ..."),
    ((",->", (), ()), "out = A * B"),
    (("ij,jk->ik", (3, 0), (0, 4)), None),
]


@pytest.mark.parametrize(("case", "entry"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_an_entry_written_out(case: tuple[Any, ...], entry: str | None) -> None:
    assert explain(*case).example == entry


def test_the_tree_is_drawn_from_the_result_to_the_operands() -> None:
    chain = explain("ij,jk,kl->il", (2, 100), (100, 100), (100, 3), optimize=["einsum_path", (1, 2), (0, 1)])
    drawn = [re.sub(r"  by .*", "", line) for line in branches(chain.facts)]
    odd = explain(np.ones((2, 3)), [(0, 1), "a,b"], np.ones(3), ["a,b"], [(0, 1)])
    assert [re.sub(r"  by .*", "", line) for line in branches(odd.facts)] == [
        "output  [(0, 1)]",
        "├── A  [(0, 1) a,b]",
        "└── B  [a,b]",
    ]
    assert drawn == ["output  il", "├── A  ij", "└── step 1  jl", "    ├── B  jk", "    └── C  kl"]


def test_an_ellipsis_is_written_as_dots() -> None:
    steps = explain("...ij,...jk->...ik", (7, 5, 3, 4), (7, 5, 4, 6)).facts.steps
    assert [step.subscripts for step in steps] == ["...ij,...jk->...ik"]


def test_labels_are_told_with_their_places_and_roles() -> None:
    labels = {label.name: label for label in explain("bij,bjk,cc->bki", (2, 3, 4), (2, 4, 5), (6, 6)).facts.labels}
    assert {name: label.role for name, label in labels.items()} == {
        "b": "batch",
        "i": "free",
        "j": "contracted",
        "k": "free",
        "c": "reduced",
    }
    assert labels["b"].axes == (("A", 0), ("B", 0), ("out", 0))
    assert labels["c"].axes == (("C", 0), ("C", 1))
    assert {label.role for label in labels.values()} == set(ROLES)


def test_explain_takes_what_plan_takes() -> None:
    explanation = explain("ij,jk,kl->il", (2, 100), (100, 100), (100, 90), dtype="float32", optimize="greedy")
    assert explanation.plan == plan("ij,jk,kl->il", (2, 100), (100, 100), (100, 90), dtype="float32", optimize="greedy")
    assert explanation.facts.dtype == "float32"
    with pytest.raises(einstride.SubscriptsError):
        explain("ij,jk->iq", (2, 3), (3, 4))
    with pytest.raises(einstride.PlanMemoryError):
        explain("ij,jk,kl->il", (2, 100), (100, 100), (100, 90), memory=8)


MEASURED: list[tuple[Any, ...]] = [
    ("ij,jk,kl->il", np.ones((20, 30)), np.ones((30, 40)).T.copy().T, np.ones((40, 5), np.float32)),
    ("ij,jk,kl->il", *[np.ones((4, 4), np.float16)] * 3),
    ("ij,jk,kl->il", *[np.ones((6, 6), ">f8")[::-1, ::2][:3, :3]] * 3),
    ("i,j->jii", np.ones(3), np.ones(4)),
    ("ij->ji", np.ones((3, 4))),
    ("ij,jk->ik", np.ones((2, 2), object), np.ones((2, 2), object)),
    ("ij,jk->ik", np.ones((2, 0)), np.ones((0, 2))),
    ("i,i->", np.ones(9), np.ones(9)),
]


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: str(case[0]))
def test_measuring_fills_in_every_step_that_has_a_kernel(case: tuple[Any, ...]) -> None:
    explanation = explain(*case)
    before = einsum(*case)
    seen = explanation.measure(*case[1:])
    assert np.array_equal(einsum(*case), before)
    assert isinstance(seen, Explanation) and explanation.measured is None
    assert seen.measured is not None and seen.measured.total > 0
    for step in seen.facts.steps:
        assert (step.measured is None) == (step.kernel is None)
        assert step.measured is None or step.measured > 0
    assert role(str(seen), "time")[0].count("measured on") == 1
    assert len(role(str(seen), "measured")) == len(seen.measured.steps)


def test_steps_that_are_measured_compute_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    # A result that starts as zeros is what it should be only if the steps, run one by one, have made it.
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 10, shape).astype(float) for shape in ((20, 30), (30, 40), (40, 5), (5, 6))]
    result = np.zeros((20, 6))
    explanation = explain("ij,jk,kl,lm->im", *arrays)
    monkeypatch.setattr(einstride.Plan, "__call__", lambda *_: result)
    explanation.measure(*arrays)
    assert np.array_equal(result, arrays[0] @ arrays[1] @ arrays[2] @ arrays[3])


def test_measuring_refuses_what_the_plan_is_not_for() -> None:
    explanation = explain("ij,jk->ik", (2, 3), (3, 4))
    with pytest.raises(einstride.ShapeError):
        explanation.measure(np.ones((2, 3)), np.ones((4, 4)))
    with pytest.raises(einstride.OperandTypeError):
        explanation.measure(np.ones((2, 3)), np.ones((3, 4), np.float32))
