"""The benchmark harness itself: its tables, its judgement of results, its arithmetic, and one tiny race."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import attention, cases, race, report, roofline, startup
from bench.cases import EXTRA, WORKLOADS, Case, load
from bench.check import MOST_OUTPUTS, pick, sample
from bench.peers import CONTENDERS, OURS
from bench.roofline import SIZES, Machine, Roofline

MACHINE = Machine(2, {"float32": 200e9, "float64": 100e9}, dict.fromkeys(SIZES, 10e9), "a test")
ALL_CASES = load(WORKLOADS) + load(EXTRA)


def make(subscripts: str, *shapes: tuple[int, ...], dtype: str = "float64", layout: str = "C", bar: str = "") -> Case:
    return Case(subscripts, "test", subscripts, shapes, (dtype,) * len(shapes), (layout,) * len(shapes), bar)


@pytest.mark.parametrize("module", [cases, roofline, report, startup])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_the_tables_are_whole() -> None:
    assert len(load(WORKLOADS)) == 57
    assert len({case.name for case in ALL_CASES}) == len(ALL_CASES)
    assert {case.bar for case in ALL_CASES} == {"", "small", "compute", "bandwidth", "product"}
    for case in ALL_CASES:
        assert len(case.terms) == len(case.shapes) == len(case.dtypes) == len(case.layouts)
        assert set(case.output) <= set(case.extents)
        for term, shape in zip(case.terms, case.shapes, strict=True):
            assert tuple(case.extents[label] for label in term) == shape


@pytest.mark.parametrize(
    ("layout", "strides"),
    [
        ("C", (96, 32, 8)),
        ("F", (8, 16, 48)),
        ("102", (32, 64, 8)),
        ("201", (24, 8, 48)),
        ("reversed", (-96, -32, -8)),
        ("sliced", (192, 64, 16)),
        ("padded", (288, 96, 8)),
        ("broadcast", (0, 32, 8)),
    ],
)
def test_layouts(layout: str, strides: tuple[int, ...]) -> None:
    case = make("abc->abc", (2, 3, 4), layout=layout)
    (operand,), (blank,) = case.operands(0), case.blanks()
    assert operand.shape == blank.shape == (2, 3, 4)
    assert operand.strides == blank.strides == strides


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int8", "uint8", "bool"])
def test_operands_depend_on_the_seed_alone(dtype: str) -> None:
    case = make("ij,ij->ij", (8, 9), (8, 9), dtype=dtype)
    first, again, other = case.operands(1), case.operands(1), case.operands(2)
    assert all(operand.dtype == np.dtype(dtype) for operand in first)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128", "int8", "bool"])
@pytest.mark.parametrize("subscripts", ["ij,jk->ik", "ij,jk->", "ji,kj->ki"])
def test_a_right_result_passes_and_a_wrong_one_does_not(subscripts: str, dtype: str) -> None:
    case = make(subscripts, (30, 30), (30, 30), dtype=dtype)
    operands = case.operands(0)
    wanted = sample(case, operands, 0)
    result = np.asarray(np.einsum(subscripts, *operands))
    assert wanted.complaint(result.shape, result.dtype.name, pick(result, wanted.positions)) == ""
    broken = pick(result, wanted.positions) + (1 if dtype in ("bool", "int8") else 1000)
    assert "sampled values" in wanted.complaint(result.shape, result.dtype.name, broken)
    assert "dtype" in wanted.complaint(result.shape, "uint64", pick(result, wanted.positions))
    assert "shape" in wanted.complaint((1, *result.shape), result.dtype.name, pick(result, wanted.positions))


def test_nan_is_wrong() -> None:
    case = make("i->i", (4,))
    wanted = sample(case, case.operands(0), 0)
    assert wanted.complaint((4,), "float64", np.full(4, np.nan)) == "wrong: 4 of 4 sampled values"


def test_a_large_output_is_sampled_with_its_edges() -> None:
    case = make("i,j->ij", (1000,), (900,))
    operands = case.operands(0)
    wanted = sample(case, operands, 0)
    assert wanted.wanted.size <= MOST_OUTPUTS
    assert [(positions[0], positions[-1]) for positions in wanted.positions] == [(0, 999), (0, 899)]
    result = np.multiply.outer(*operands)
    assert wanted.complaint(result.shape, "float64", pick(result, wanted.positions)) == ""


@pytest.mark.parametrize(
    ("case", "flops", "traffic", "bound"),
    [
        (make("ij,jk->ik", (100, 100), (100, 100)), 2e6, 240e3, "bandwidth"),
        (make("ij,jk->ik", (1000, 1000), (1000, 1000)), 2e9, 24e6, "compute"),
        (make("ij,jk->ik", (1000, 1000), (1000, 1000), dtype="complex128"), 8e9, 48e6, "compute"),
        (make("ij->j", (100, 50)), 5e3, 40400, "bandwidth"),
        (make("ij->j", (100, 50), layout="sliced"), 5e3, 80400, "bandwidth"),
        (make("bii->b", (50, 40, 40)), 2e3, 50 * 40 * 64 + 400, "bandwidth"),
        (make("ijk->kij", (3, 4, 5)), 0, 0, "view"),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_roofline(case: Case, flops: float, traffic: float, bound: str) -> None:
    found = roofline.roofline(case, MACHINE)
    assert (found.flops, found.bytes, found.bound) == (flops, traffic, bound)
    assert found.seconds == pytest.approx(max(flops / 100e9, traffic / 10e9))


def test_bandwidth_between_the_sizes_measured() -> None:
    machine = Machine(1, {}, {1 << 10: 100.0, 1 << 12: 50.0}, "a test")
    assert [machine.bandwidth_at(size) for size in (1, 1 << 10, 1 << 11, 1 << 20)] == [100.0, 100.0, 75.0, 50.0]


def test_least_flops_splits_off_what_only_one_operand_has() -> None:
    extents = dict(zip("pqrsijkl", [10] * 8, strict=True))
    terms = tuple(map(frozenset, ("pi", "qj", "ijkl", "rk", "sl")))
    assert roofline.least_flops(terms, frozenset("pqrs"), extents) == 4 * 2 * 10**5


def test_a_race_of_two() -> None:
    left_out: dict[str, str] = {}
    case = make("ij,jk->ik", (3, 4), (4, 5), dtype="int64")
    pace = race.Pace(turn=0.001, turns=1, limit=30)
    ((raced, timings, machine),) = race.race([case], ["numpy", "numpy opt"], 1, pace, 0, left_out.__setitem__)
    assert raced is case
    assert machine is None
    assert left_out == {}
    assert all(timing.seconds and 0 < timing.seconds < 1 for timing in timings.values())


def test_ours_measures_the_rates_that_bound_a_case() -> None:
    case = make("ij,jk->ik", (3, 4), (4, 5), dtype="float32")
    pace = race.Pace(turn=0.001, turns=2, limit=30)
    left_out: dict[str, str] = {}
    ((_, _, machine),) = race.race([case], [OURS], 1, pace, 0, left_out.__setitem__)
    assert machine is not None
    assert list(machine.flops) == ["float32"]
    assert list(machine.bandwidth) == [4 * (12 + 20 + 15)]
    assert min(*machine.flops.values(), *machine.bandwidth.values()) > 1e6


def test_a_late_or_dead_worker_is_replaced() -> None:
    case = make("ij,jk->ik", (300, 300), (300, 300))
    with race.Worker("numpy", 1) as worker:
        worker.wait()
        worker.ask("load", case, 0)
        with pytest.raises(race.Refusal, match="over 0 s"):
            worker.ask("first", (np.arange(300), np.arange(300)), seconds=0)
        with pytest.raises(race.Refusal, match="refused: AttributeError"):
            worker.ask("time", 0.001)
        worker.ask("load", case, 0)
        shape, dtype, values = worker.ask("first", (np.arange(2), np.arange(3)))
        assert (shape, dtype, values.shape) == ((300, 300), "float64", (2, 3))


def whole(ours: float | None, fraction: float = 0.9) -> report.Report:
    timings = {
        "numpy": race.Timing(4e-6),
        "torch": race.Timing(2e-6),
        "jax": race.Timing(None, "over 2 s"),
        OURS: race.Timing(ours, "" if ours else "wrong: 1 of 1 sampled values"),
    }
    least = Roofline(1, 1, fraction * (ours or 1), "compute")
    result = report.Result(make("ij,jk->ik", (3, 4), (4, 5), bar="compute"), timings, least)
    return report.Report("a processor", MACHINE, dict.fromkeys(timings, "1.0"), {"pytblis": "absent"}, (result,), 0.05)


@pytest.mark.parametrize(("ours", "fraction", "broken"), [(1e-6, 0.9, 0), (3e-6, 0.9, 2), (1e-6, 0.5, 1), (None, 0, 2)])
def test_bars(ours: float | None, fraction: float, broken: int) -> None:
    found = report.bars(whole(ours, fraction))
    assert sum(bool(bar.failures) for bar in found) == broken


def test_what_is_derived_from_timings() -> None:
    (result,) = whole(1e-6).results
    assert result.best_peer == "torch"
    assert result.ratio == pytest.approx(0.5)
    assert result.against("numpy") == pytest.approx(0.25)
    assert result.against("jax") is None
    assert result.fraction == pytest.approx(0.9)


def test_json_and_markdown() -> None:
    data = json.loads(report.as_json(whole(1e-6)))
    assert data["results"][0]["best_peer"] == "torch"
    assert math.isclose(data["results"][0]["ratio"], 0.5)
    text = report.markdown(whole(1e-6))
    assert "| **2.00** |" in text
    assert "Left out: pytblis (absent)." in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_the_readme_table_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.update_readme(readme, report.summary(whole(1e-6)))
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "torch 2.00" in text
    assert "old" not in text
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="has no"):
        report.update_readme(readme, "")


def test_a_missing_library_says_so() -> None:
    missing = type(CONTENDERS["numpy"])("nothing", "no_such_module_here", "nothing", CONTENDERS["numpy"].open)
    assert missing.absent() == "no_such_module_here is not installed"
    assert CONTENDERS["numpy"].absent() == ""


# ---- attention ----------------------------------------------------------------------------------


def test_the_cases_of_attention_are_the_bars() -> None:
    assert len({case.name for case in attention.CASES}) == len(attention.CASES)
    assert {rival for case in attention.CASES for rival in case.rivals} <= set(attention.CONTENDERS)
    layouts = {case.layout: case.arrays(0)[0] for case in attention.CASES if case.name.startswith("full")}
    assert layouts["bhqd"].shape == layouts["bqhd"].shape == (2, 8, 1024, 64)
    assert layouts["bhqd"].strides != layouts["bqhd"].strides


def test_what_a_query_sees() -> None:
    case = attention.Case("", length=12, chunk=4)
    assert [case.visible(i) for i in (0, 5, 11)] == [slice(0, 4), slice(0, 8), slice(4, 12)]
    causal = attention.Case("", length=12, chunk=4, causal=True)
    assert [causal.visible(i) for i in (0, 5, 11)] == [slice(0, 1), slice(0, 6), slice(4, 12)]
    assert np.array_equal(attention.Case("", length=3, causal=True).mask(), np.tri(3, dtype=bool))


@pytest.mark.parametrize("backward", [False, True])
def test_right_rows_pass_and_wrong_rows_do_not(backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = attention.Case("", "bqhd", "float64", 1, 4, 2, 24, 8, causal=True, chunk=8, backward=backward)
    assert attention.prepare(OURS, case, 0) < 1e-13
    module, ours = attention.CONTENDERS[OURS]

    def wrong(case: attention.Case, arrays: Any) -> Any:
        run = ours(case, arrays)
        return lambda: [g * 1.001 for g in run()] if backward else run() * 1.001

    monkeypatch.setitem(attention.CONTENDERS, OURS, (module, wrong))
    assert 1e-4 < attention.prepare(OURS, case, 0) < 1e-2


def test_a_tiny_race_of_attention() -> None:
    case = attention.Case("tiny", batch=1, heads=2, length=32, width=8, causal=True)
    times = attention.race(case, ["numpy", OURS], 1, 0.01, 1, 0)
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in times.values())
    assert attention.race(attention.Case("", length=8, backward=True), ["numpy"], 1, 0.01, 1, 0) == {
        "numpy": "not written by hand"
    }
