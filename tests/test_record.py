"""The recorder: what it serves, what it leaves to NumPy, what it counts, times and checks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einstride import einsum, record
from einstride.record import Recorder, Row

NUMPYS = np.einsum


def recorded(program: Callable[[], object], **options: Any) -> list[Row]:
    """The rows of a program, in the order of its lines."""
    recorder = Recorder(**options)
    with recorder.serving():
        program()
    return sorted(recorder.rows, key=lambda row: row.instruction)


def test_one_row_for_each_place_shape_and_dtype() -> None:
    def program() -> None:
        for n in (2, 2, 3):
            for dtype in ("f4", "f8"):
                np.einsum("i->", np.ones(n, dtype))
        np.einsum("i->", np.ones(2, "f4"))

    rows = recorded(program)
    found = [(row.shapes, row.dtypes, row.count) for row in rows]
    assert sorted(found[:-1]) == [
        (((2,),), ("float32",), 2),
        (((2,),), ("float64",), 2),
        (((3,),), ("float32",), 1),
        (((3,),), ("float64",), 1),
    ]
    assert found[-1] == (((2,),), ("float32",), 1)
    assert rows[-1].line - rows[0].line == 1
    assert rows[0].file == __file__


def test_threads_share_an_account() -> None:
    def program() -> None:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work() -> None:
        for _ in range(50):
            assert np.einsum("ij->", np.ones((3, 4))) == 12

    (row,) = recorded(program)
    assert 100 <= row.count <= 200  # two threads may count one for two
    assert not row.refused


def test_what_numpy_refuses_is_refused() -> None:
    def program() -> None:
        with pytest.raises(ValueError, match="multiple times"):
            np.einsum("i->ii", np.ones(3))
        with pytest.raises(TypeError):
            np.einsum("i->", np.ones(3), memory=8)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="subscripts"):
            np.einsum("ijk->i", np.ones((3, 4)))

    rows = recorded(program)
    assert [row.kernel for row in rows] == ["numpy"] * 3
    assert all(row.refused for row in rows)


def test_a_refused_call_works_where_it_does_in_numpy() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[False, True])

    def program() -> None:
        assert np.array_equal(np.einsum("i->i", masked), NUMPYS("i->i", masked))
        assert np.einsum("i->", np.array([2, 3], object)) == 5

    assert [row.kernel for row in recorded(program)] == ["numpy", "numpy"]


def test_results_have_the_types_of_the_programs_own_einsum() -> None:
    a = np.ones((3, 4), np.float32)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("ij,ij->", a, a), {}),
        (("ij,ij->", a, a), {"optimize": True}),
        (("ij,jk,ki->", a, a.T, np.ones((3, 3))), {"optimize": True}),
        (("ij->ij", a), {}),
        (("i->", [1, 2]), {}),
    ]

    def program() -> None:
        for arguments, options in calls:
            ours, numpys = np.einsum(*arguments, **options), NUMPYS(*arguments, **options)
            assert type(ours) is type(numpys)
            assert ours.dtype == numpys.dtype

    assert all(not row.refused for row in recorded(program))


def test_out_is_filled_once_and_sampling_spares_it() -> None:
    out = np.arange(9.0).reshape(3, 3)

    def program() -> None:
        np.einsum("ij,jk->ik", out, np.full((3, 3), 2.0), out=out)

    (row,) = recorded(program, check=True)
    assert np.array_equal(out, np.arange(9.0).reshape(3, 3).sum(axis=1, keepdims=True) * np.full((1, 3), 2.0))
    assert len(row.sampled) == 1
    assert row.checked == ""


def test_sampling_is_rare_and_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.ones((40, 40))

    def program() -> None:
        for _ in range(20):
            np.einsum("ij,jk->ik", a, a)
        np.einsum("ij,jk,kl,lm,mn,no->io", *[a] * 6)  # 164 thousand million terms as NumPy does it

    often, absurd = recorded(program)
    assert len(often.sampled) == 5  # of the calls 1, 2, 4, 8, 16
    assert often.own_seconds == pytest.approx(20 * sorted(often.sampled)[2])
    assert absurd.sampled == []
    assert absurd.own_seconds is None
    monkeypatch.setattr(record, "SAMPLED_PART", 0.0)
    monkeypatch.setattr(record, "SAMPLED_SECONDS", 0.0)
    assert [row.sampled for row in recorded(program)] == [[], []]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", "i1", "i8", "u4", "?"])
def test_a_check_passes_what_is_right_and_finds_what_is_not(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 3, shape).astype(dtype) for shape in ((5, 3000), (3000, 4)))

    def program() -> None:
        np.einsum("ij,jk->ik", a, b)
        np.einsum(a, [0, 1], [1, 0])

    assert [row.checked for row in recorded(program, check=True)] == ["", ""]
    ours = einsum

    def wrong(*operands: Any, **options: Any) -> Any:
        result = np.array(ours(*operands, **options))
        entry = result[-1:, -1:]
        entry[...] = ~entry if result.dtype == bool else entry + entry.dtype.type(1) * np.asarray(100).astype(dtype)
        return result

    monkeypatch.setattr(record, "einsum", wrong)
    assert [bool(row.checked) for row in recorded(program, check=True)] == [True, True]


def test_nothing_is_said_of_sums_that_overflow() -> None:
    huge = np.full((3, 3), 1e200)

    def program() -> None:
        np.einsum("ij,jk->ik", huge, -huge)
        np.einsum("ij,jk->ik", np.full((3, 3), np.nan), huge)

    assert [row.checked for row in recorded(program, check=True)] == ["", ""]
