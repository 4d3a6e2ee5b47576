from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from einstride import plan

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
