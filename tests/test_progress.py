"""How far a long einsum is: what the engine says of it, and the bar."""

from __future__ import annotations

import io
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import einstride
from einstride import _core, bar, einsum, progress


@pytest.fixture(scope="module")
def call() -> tuple[Any, ...]:
    """An einsum of three steps that takes a second, more or less."""
    extent, seconds = 500, 0.0
    while seconds < 0.6:
        extent *= 2
        operands = [np.ones((extent, extent))] * 4
        start = time.perf_counter()
        einsum("ij,jk,kl,lm->im", *operands)
        seconds = time.perf_counter() - start
    return ("ij,jk,kl,lm->im", *operands)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    assert _core.set_progress(None) is None
    yield
    _core.set_progress(None)


@pytest.mark.parametrize("threads", [1, 2])
def test_fractions_rise_to_one(threads: int, call: tuple[Any, ...]) -> None:
    before = einstride.num_threads()
    einstride.set_num_threads(threads)
    heard: list[float | None] = []
    _core.set_progress(heard.append)
    try:
        einsum(*call)
    finally:
        einstride.set_num_threads(before)
    fractions = [fraction for fraction in heard if fraction is not None]
    assert len(fractions) == len(heard) >= 4
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] == 1
    assert 0.05 < fractions[len(fractions) // 2] < 0.95
    assert max(b - a for a, b in itertools.pairwise(fractions)) < 0.5


def test_an_exception_stops_the_work(call: tuple[Any, ...]) -> None:
    heard: list[float | None] = []

    def stop(done: float | None) -> None:
        heard.append(done)
        if done is not None:
            raise RuntimeError("enough")

    _core.set_progress(stop)
    with pytest.raises(RuntimeError, match="enough"):
        einsum(*call)
    assert len(heard) == 2
    assert heard[0] is not None and heard[0] < 1
    assert heard[1] is None
    assert _core.set_progress(None) is stop
    assert einsum("ij->", np.ones((3, 4))) == 12


def test_short_work_is_not_spoken_of() -> None:
    heard: list[float | None] = []
    _core.set_progress(heard.append)
    einsum("ij,jk->ik", np.ones((300, 300)), np.ones((300, 300)))
    assert heard == []


def test_nothing_is_shown_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar.bar("work") as tell:
        tell(0.5)
        tell(1)
    assert stream.getvalue() == ""


def test_nothing_is_shown_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bar, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("EINSTRIDE_PROGRESS", "0")
    with bar.bar("work") as tell:
        tell(0.25)
        tell(0.5)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("end", [1.0, None])
def test_the_bar_is_drawn_and_erased(end: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(bar, "PATIENCE_SECONDS", 0.0)
    with bar.bar("work") as tell:
        tell(0.0)
        assert "work" in stream.getvalue()
        tell(0.5)
        assert "50%" in stream.getvalue()
        tell(end)
        erased = stream.getvalue()
    assert stream.getvalue() == erased
    assert erased.endswith(("\x1b[2K", "\x1b[1A\x1b[2K", "\x1b[?25h", "\r"))
    assert "\x1b[2K" in erased.rpartition("50%")[2]


def test_nothing_is_drawn_before_a_second_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar.bar("work") as tell:
        for done in (0.1, 0.5, 1.0):
            tell(done)
    assert stream.getvalue() == ""


def test_progress_listens_to_the_engine_for_a_while(monkeypatch: pytest.MonkeyPatch, call: tuple[Any, ...]) -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(bar, "PATIENCE_SECONDS", 0.0)
    with progress():
        einsum(*call)
    assert "einsum" in stream.getvalue()
    assert _core.set_progress(None) is None
