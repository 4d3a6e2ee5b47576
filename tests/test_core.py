"""The extension module: programs, the repeated call, recycled outputs, and the stub that describes it."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import einstride
from einstride import _core

FUSED = 1
CONTRACT = 0
LANES = 2
INT64, FLOAT64 = 4, 12
BATCH, FREE_LEFT, FREE_RIGHT, CONTRACTED = range(4)

Arrays = tuple[NDArray[Any], ...]


def product(rows: int, inner: int, columns: int, kernel: int = FUSED) -> _core.Program:
    """A product of two C-ordered matrices of float64."""
    loops = [
        (FREE_LEFT, rows, (8 * inner, 0, 8 * columns)),
        (FREE_RIGHT, columns, (0, 8, 8)),
        (CONTRACTED, inner, (8, 8 * columns, 0)),
    ]
    return _core.Program(2, [(kernel, (0, 1, 2), (FLOAT64,) * 3, loops)], (), 0)


@pytest.fixture
def fresh() -> Iterator[None]:
    """No call is remembered before or after."""
    _core.forget()
    yield
    _core.forget()


@pytest.fixture
def misses(fresh: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """The calls that the compiled path passes on."""
    from einstride import api

    seen: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **named: Any) -> Any:
        seen.append(arguments)
        return api._einsum(*arguments, **named)

    _core.set_miss(record)
    yield seen
    _core.set_miss(api._einsum)


class TestProgram:
    @pytest.mark.parametrize("kernel", [CONTRACT, FUSED])
    def test_runs(self, kernel: int) -> None:
        left, right, out = np.arange(12.0).reshape(3, 4), np.arange(20.0).reshape(4, 5), np.empty((3, 5))
        product(3, 4, 5, kernel).run((left, right), out)
        assert np.array_equal(out, left @ right)

    def test_intermediates_lie_in_the_workspace(self) -> None:
        x = np.arange(6.0)
        copy = [(BATCH, 6, (8, 8))]
        program = _core.Program(
            1, [(FUSED, (0, 2), (FLOAT64,) * 2, copy), (FUSED, (2, 1), (FLOAT64,) * 2, copy)], (64,), 64 + 48
        )
        out = np.zeros(6)
        program.run((x,), out)
        assert np.array_equal(out, x)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([(9, (0, 1, 2), (FLOAT64,) * 3, [])], "unknown kernel"),
            ([(FUSED, (0, 1, 7), (FLOAT64,) * 3, [])], "slot that does not exist"),
            ([(FUSED, (0, 1, 2), (FLOAT64, FLOAT64, 99), [])], "unknown dtype code"),
            ([(FUSED, (0, 1, 2), (FLOAT64,) * 3, [(BATCH, 2, (8, 8))])], "one stride a slot"),
            ([(FUSED, (0, 1, 2), (FLOAT64,) * 3, [(BATCH, -2, (8, 8, 8))])], "negative"),
            ([(FUSED, (0, 1, 2), (FLOAT64,) * 3, [(7, 2, (8, 8, 8))])], "unknown role"),
            ([(CONTRACT, (0, 2), (FLOAT64,) * 2, [])], "two inputs"),
            ([(LANES, (0, 2), (FLOAT64,) * 2, [(BATCH, 8, (8, 8))])], "two inputs"),
            ([(CONTRACT, (0, 1, 2), (FLOAT64,) * 3, [(FREE_LEFT, 0, (8, 0, 8))])], "no empty loop"),
            ([(LANES, (0, 1, 2), (FLOAT64,) * 3, [])], "need a batch"),
        ],
    )
    def test_refuses_what_is_not_a_program(self, steps: list[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            _core.Program(2, steps, (), 0)

    def test_refuses_other_arguments(self) -> None:
        program, a = product(2, 2, 2), np.ones((2, 2))
        with pytest.raises(ValueError, match="takes 2 operands"):
            program.run((a,), a)
        with pytest.raises(TypeError, match="tuple of arrays"):
            program.run((a, None), a)  # type: ignore[arg-type]


class TestRepeatedCall:
    def test_is_answered_without_python(self, misses: list[tuple[Any, ...]]) -> None:
        a, b = np.arange(12).reshape(3, 4), np.arange(20).reshape(4, 5)
        for _ in range(3):
            assert np.array_equal(einstride.einsum("ij, jk -> ik", a, b), a @ b)
        assert len(misses) == 1

    def test_knows_calls_by_their_values(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.arange(12).reshape(3, 4)
        subscripts = "ij->i"
        einstride.einsum(subscripts, a)
        einstride.einsum("".join(["ij", "->i"]), a + 1)
        einstride.einsum("ij->i", a, optimize="auto")
        einstride.einsum("ij->i", a, out=None)
        assert len(misses) == 1

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(("ij->j", np.arange(12).reshape(3, 4)), id="subscripts"),
            pytest.param(("ij->i", np.arange(12.0).reshape(3, 4)), id="dtype"),
            pytest.param(("ij->i", np.arange(12).reshape(4, 3)), id="shape"),
            pytest.param(("ij->i", np.asfortranarray(np.arange(12).reshape(3, 4))), id="strides"),
            pytest.param(("ij->i", np.arange(12).reshape(3, 4).astype(">i8")), id="byte order"),
            pytest.param(("ij->i", np.arange(12.0).reshape(3, 4).tolist()), id="list of another dtype"),
            pytest.param((np.arange(12).reshape(3, 4), [0, 1], [0]), id="interleaved"),
            pytest.param(("ij->i", np.arange(12).reshape(3, 4).view(np.matrix)), id="subclass"),
        ],
    )
    def test_takes_no_call_for_another(self, other: tuple[Any, ...], misses: list[tuple[Any, ...]]) -> None:
        for _ in range(2):
            einstride.einsum("ij->i", np.arange(12).reshape(3, 4))
        assert len(misses) == 1
        assert np.array_equal(einstride.einsum(*other), np.einsum(*other))
        assert len(misses) > 1

    def test_makes_arrays_of_lists_and_numbers(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.arange(12).reshape(3, 4)
        for rows in (a, a.tolist(), tuple(map(tuple, a.tolist()))):
            assert np.array_equal(einstride.einsum("ij->i", rows), a.sum(1))
        assert len(misses) == 1
        for number in (3, 2.5, 3):
            assert np.array_equal(einstride.einsum(",ij->i", number, a.tolist()), number * a.sum(1))

    def test_knows_interleaved_calls_by_their_labels(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.arange(12).reshape(3, 4)
        for first, second in ([0, 1], [1, 2]), ((0, 1), (1, 2)), ([0, 1], (1, 2)):
            assert np.array_equal(einstride.einsum(a, first, a.T, second, [0, 2]), a @ a.T)
        for _ in range(2):
            assert np.array_equal(einstride.einsum(a, [..., 1], [...]), a.sum(1))
        assert len(misses) == 2

    def test_takes_no_labels_for_others(self, misses: list[tuple[Any, ...]]) -> None:
        square = np.arange(9).reshape(3, 3)
        calls: list[tuple[Any, ...]] = [
            ([0, 1], [1, 2], [0, 2]),
            ([0, 1], [2, 1], [0, 2]),
            ([0, 1], [1, 2], [2, 0]),
            ([0, 1], [1, 2], []),
            ([0, 1], [1, 0]),
            ([0, 1], [1, 2]),
            ([..., 1], [1, 2], [..., 2]),
            ([0, 2**70], [2**70, 2], [0, 2]),
            (["i", "j"], ["j", "k"], ["i", "k"]),
        ]
        for number, (first, second, *output) in enumerate(calls):
            for _ in range(2):
                got = einstride.einsum(square, first, square, second, *output)
            names: dict[Any, int] = {}
            for label in (*first, *second):
                if label is not ...:
                    names.setdefault(label, len(names))
            terms = [[names.get(label, label) for label in term] for term in (first, second, *output)]
            assert np.array_equal(got, np.einsum(square, terms[0], square, *terms[1:]))
            assert len(misses) > number

    def test_takes_no_option_for_another(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.arange(12).reshape(3, 4)
        for options in ({}, {"optimize": True}, {"optimize": False}, {"optimize": "greedy"}, {"dtype": float}):
            before = len(misses)
            einstride.einsum("ij->i", a, **options)
            assert len(misses) > before

    def test_fills_and_returns_out(self, misses: list[tuple[Any, ...]]) -> None:
        a, out = np.arange(12).reshape(3, 4), np.empty(3, int)
        for _ in range(2):
            out[:] = -1
            assert einstride.einsum("ij->i", a, out=out) is out
            assert np.array_equal(out, a.sum(1))
        assert len(misses) == 1

    def test_passes_on_an_out_that_overlaps_or_is_read_only(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.arange(16).reshape(4, 4)
        einstride.einsum("ij->ji", a, out=np.empty_like(a))
        want = a.T.copy()
        assert np.array_equal(einstride.einsum("ij->ji", a, out=a), want)
        assert len(misses) == 2
        fixed = np.empty_like(a)
        fixed.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            einstride.einsum("ij->ji", a, out=fixed)

    def test_views_what_numpy_views(self, misses: list[tuple[Any, ...]]) -> None:
        for _ in range(2):
            a = np.zeros((3, 4))
            view = einstride.einsum("ij->ji", a)
            assert view.base is a
            assert view.flags.writeable
            view[0, 0] = 99
            assert a[0, 0] == 99
        assert len(misses) == 1
        a.flags.writeable = False
        assert not einstride.einsum("ij->ji", a).flags.writeable

    def test_clears_what_the_program_does_not_write(self, misses: list[tuple[Any, ...]]) -> None:
        x = np.arange(1, 5)
        for _ in range(3):
            assert np.array_equal(einstride.einsum("i->ii", x), np.diag(x))
        assert len(misses) == 1

    def test_makes_scalars(self) -> None:
        for _ in range(2):
            assert type(einstride.einsum("i->", np.ones(3))) is np.float64

    def test_keeps_the_order_of_the_axes_in_memory(self, misses: list[tuple[Any, ...]]) -> None:
        a = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        for _ in range(2):
            got = einstride.einsum("ij,ij->ij", a, a)
            assert got.strides == np.einsum("ij,ij->ij", a, a).strides
        assert len(misses) == 1

    def test_forgets_the_oldest_not_the_answers(self, misses: list[tuple[Any, ...]]) -> None:
        for _ in range(2):
            for extent in range(1, 5000, 7):
                assert einstride.einsum("i->", np.ones(extent)) == extent

    def test_bounded(self, fresh: None) -> None:
        program = product(1, 1, 1)
        count = sys.getrefcount(program)
        for number in range(10_000):
            name = f"call {number}"
            _core.remember(
                name, (np.ones(1), np.ones(1)), None, "auto", program, (1,), (8,), np.dtype(float), None, False
            )
        assert sys.getrefcount(program) <= count + 2048
        _core.forget()
        assert sys.getrefcount(program) == count

    def test_remembers_only_what_can_be_answered(self) -> None:
        a = np.ones(3)
        for program, view_of in ((None, None), (None, 1), (product(1, 1, 1), 0), (product(1, 1, 1), None)):
            with pytest.raises(ValueError, match="an answer is"):
                _core.remember("i", (a,), None, "auto", program, (3,), (8,), a.dtype, view_of, False)

    def test_signature(self) -> None:
        named = dict(inspect.signature(einstride.einsum).parameters)
        assert [name for name, it in named.items() if it.kind is it.KEYWORD_ONLY] == [
            *("out", "dtype", "order", "casting", "optimize", "memory")
        ]
        assert einstride.einsum.__module__ == "einstride"


class TestOutputs:
    SHAPE, STRIDES = (512, 1024), (8192, 8)

    def test_freed_memory_is_taken_again(self) -> None:
        first = _core.empty(self.SHAPE, self.STRIDES, np.dtype(float))
        place = first.ctypes.data
        assert place % 64 == 0
        del first
        cached = _core.memory_cached()
        assert cached >= 512 * 1024 * 8
        second = _core.empty(self.SHAPE, self.STRIDES, np.dtype(float))
        assert second.ctypes.data == place
        assert _core.memory_cached() < cached

    def test_an_output_is_an_array_like_any_other(self) -> None:
        array = _core.empty(self.SHAPE, self.STRIDES, np.dtype(float))
        assert array.flags.owndata
        assert array.base is None
        array[:] = 1
        array.resize((700, 1024), refcheck=False)
        assert array[:512].sum() == 512 * 1024
        assert not array[512:].any()
        array.resize((3,), refcheck=False)
        assert np.array_equal(array, [1, 1, 1])

    def test_arrays_made_afterwards_are_numpys_own(self) -> None:
        from numpy._core.multiarray import get_handler_name

        ours = _core.empty(self.SHAPE, self.STRIDES, np.dtype(float))
        assert get_handler_name(ours) == "einstride"
        assert get_handler_name(np.empty(self.SHAPE)) == "default_allocator"

    def test_strides_in_any_order(self) -> None:
        array = _core.empty((512, 1024), (8, 4096), np.dtype(float))
        assert array.flags.f_contiguous

    def test_impossible_size(self) -> None:
        with pytest.raises((MemoryError, ValueError)):
            _core.empty((1 << 40, 1 << 10), (8 << 10, 8), np.dtype(float))

    def test_what_is_kept_is_bounded(self) -> None:
        arrays = [_core.empty((4 << 20,), (8,), np.dtype(float)) for _ in range(12)]
        del arrays
        assert _core.memory_cached() <= 256 << 20


def test_levels() -> None:
    assert _core.level_name() in _core.levels()
    command = [sys.executable, "-c", "from einstride import _core; print(_core.level_name())"]
    for level in _core.levels():
        environment = {**os.environ, "EINSTRIDE_LEVEL": level}
        assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == level


def test_measured_rates_are_rates() -> None:
    flops = [_core.measure_flops(acc) for acc in range(7)]
    assert min(flops) > 1e7
    assert _core.measure_bandwidth(1 << 20) > 1e7
    with pytest.raises(ValueError, match="compute type"):
        _core.measure_flops(7)


def test_the_stub_is_the_generated_one(tmp_path: Path) -> None:
    pytest.importorskip("nanobind")
    patterns = Path(__file__).parent.parent / "src" / "core" / "_core.pat"
    stub = Path(einstride.__file__).parent / "_core.pyi"
    command = [
        "-m",
        "nanobind.stubgen",
        "-q",
        "-m",
        "einstride._core",
        "-p",
        str(patterns),
        "-o",
        str(tmp_path / "_core.pyi"),
    ]
    subprocess.run([sys.executable, *command], check=True)
    assert (tmp_path / "_core.pyi").read_text() == stub.read_text(), "run `make stubs`"


def test_every_public_function_of_the_engine_says_what_it_does() -> None:
    for name, value in vars(_core).items():
        if not name.startswith("_"):
            assert re.search(r"\w+", value.__doc__ or ""), name


@pytest.mark.parametrize(("dtype", "batch"), [("float32", 8), ("int32", 8), ("float64", 8)])
def test_a_short_adjacent_batch_is_what_vectors_run_along(dtype: str, batch: int) -> None:
    random = np.random.default_rng(batch)
    left, right = (random.integers(-9, 10, shape).astype(dtype) for shape in ((61, 70, batch), (70, 59, batch)))
    made = einstride.plan("ijb,jkb->ikb", left, right)
    assert made.program is not None
    assert [step.kernel for step in made.program.steps] == ["lanes"]
    want = np.stack(
        [left[:, :, b] @ right[:, :, b] for b in range(batch)], axis=2
    )  # small integers: exact in any order
    assert (made(left, right) == want).all()
