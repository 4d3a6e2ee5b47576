"""The tour: what it visits, what it says, and that it fails when a result is wrong."""

from __future__ import annotations

import io
import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from einstride import Chunks, attend, cli, tour
from einstride.tour.chunks import mask_image, seen
from einstride.tour.show import plain_visit, summary

IDEAS = [
    "ij, jk -> ik",
    "ij, ij -> ij",
    "ij -> ji",
    "ij -> j",
    "ij -> i",
    "bij, bjk -> bik",
    "bij ->",
    "bkm -> bmk",
    "bqm, bmk -> bqk",
    "bqm, bkm -> bqk",
    "bcik -> bcki",
    "bcik, bcij -> bckj",
    "bcki, bcij -> bckj",
]


def small(stop: tour.Stop) -> tour.Stop:
    """The stop on arrays cut to at most 6 along each axis, so that a visit takes no time."""
    arrays = tuple(array[tuple(slice(6) for _ in array.shape)] for array in stop.arrays)
    return tour.Stop(stop.title, stop.subscripts, stop.names, arrays, stop.plain, stop.spelled, stop.remark)


def off_by_little(*operands: Any) -> Any:
    """An einsum whose result is a hair off, a thousand times what rounding explains."""
    return np.einsum(*operands) * (1 + 1e-10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_ideas_in_order() -> None:
    assert [stop.subscripts for stop in tour.stops()] == IDEAS
    queries, keys = next(stop.arrays for stop in tour.stops() if stop.subscripts == "bqm, bkm -> bqk")
    assert (queries.shape, keys.shape) == ((32, 64, 512), (32, 128, 512))


@pytest.mark.parametrize("stop", tour.stops(), ids=lambda stop: str(stop.subscripts))
def test_every_stop_agrees(stop: tour.Stop) -> None:
    visit = tour.visit(stop, seconds=0)
    assert visit.agrees
    assert np.allclose(visit.ours, visit.numpy)
    assert 0 < visit.our_seconds < math.inf
    assert visit.kernel


def test_views_and_kernels_are_named() -> None:
    kernels = {stop.subscripts: tour.visit(small(stop), seconds=0).kernel for stop in tour.stops()}
    assert kernels["ij -> ji"] == kernels["bkm -> bmk"] == "view"
    assert "view" not in (kernels["ij, jk -> ik"], kernels["bij ->"])


def test_a_wrong_result_is_seen() -> None:
    floats = [small(stop) for stop in tour.stops() if stop.arrays[0].dtype == np.float64]
    for stop in floats:
        assert tour.visit(stop, seconds=0).agrees
        assert not tour.visit(stop, off_by_little, seconds=0).agrees
    integers = small(tour.stops()[0])
    assert not tour.visit(integers, lambda *operands: np.einsum(*operands) + 1, seconds=0).agrees
    assert not tour.visit(integers, lambda *operands: np.einsum(*operands).astype(float), seconds=0).agrees
    assert not tour.visit(integers, lambda *operands: np.einsum(*operands)[:1], seconds=0).agrees


def test_plain_text() -> None:
    stream = io.StringIO()
    assert tour.show((tour.visit(small(stop), seconds=0) for stop in tour.stops()), stream)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "for each b: rows of Q against rows of K, summed over m" in text
    assert all(f'einsum("{idea}"' in text for idea in IDEAS)
    lines = text.splitlines()
    assert lines[-len(IDEAS) - 2].split() == [
        "what",
        "subscripts",
        "numpy",
        "einstride",
        "speed-up",
        "kernel",
        "agrees",
    ]
    assert all(line.endswith("yes") for line in lines[-len(IDEAS) :])


def test_results_stand_side_by_side() -> None:
    stop = tour.stops()[0]
    visit = tour.visit(stop, seconds=0)
    first_row = str(np.einsum(stop.subscripts, *stop.arrays)).splitlines()[0]
    assert any(line.count(first_row) == 2 for line in plain_visit(1, visit).splitlines())


def test_terminal_text() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    visits = [tour.visit(small(stop), seconds=0) for stop in tour.stops()]
    assert tour.show(visits, stream)
    assert "The tour in one table" in stream.getvalue()
    assert "rows of A against columns of B" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["piped", "terminal"])
def test_a_disagreement_is_said(stream: io.StringIO) -> None:
    visits = [tour.visit(small(tour.stops()[k]), off_by_little, seconds=0) for k in (0, 9)]
    assert not tour.show(visits, stream)
    assert "DISAGREES" in stream.getvalue()
    assert [row[-1] for row in summary(visits)] == ["NO", "NO"]


def test_the_commands_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("einstride.cli.tour.stops", lambda: [small(tour.stops()[9])])
    monkeypatch.setattr("einstride.cli.tour.show_chunks", lambda stream: tour.show_chunks(stream, small_chunks()))
    assert cli.main(["tour"]) == 0
    assert "bqm, bkm -> bqk" in capsys.readouterr().out
    monkeypatch.setattr("einstride.cli.tour.visit", lambda stop: tour.visit(stop, off_by_little, seconds=0))
    assert cli.main(["tour"]) == 1
    assert "DISAGREES" in capsys.readouterr().out


def small_chunks(attention: Any = attend) -> tour.Comparison:
    return tour.compare((2, 48, 5), 8, 0, attention)


def test_attention_within_chunks() -> None:
    found = small_chunks()
    assert found.agrees and found.difference < 1e-14
    assert found.by_hand_bytes > 2 * 48 * 16 * 8, "two matrices of scores and weights are held"
    stream = io.StringIO()
    assert tour.show_chunks(stream, found)
    lines = stream.getvalue().splitlines()
    first = next(number for number, line in enumerate(lines) if "██" in line)
    assert lines[first].split() == ["██" + "··" * 15, "▒▒" + "··" * 15]
    assert lines[first + 15].split() == ["··" * 14 + "████", "··" * 14 + "██▒▒"]
    assert "agrees: at most" in lines[-1]


def test_a_wrong_attention_within_chunks_is_seen() -> None:
    found = small_chunks(lambda *arrays, **named: attend(*arrays, **named) * (1 + 1e-10))
    stream = io.StringIO()
    assert not tour.show_chunks(stream, found)
    assert "DISAGREES" in stream.getvalue()


def test_the_image_of_a_mask() -> None:
    parts = seen(4, 6, Chunks(2), "lower-right", 2)
    assert parts.tolist() == [[0, 0.75, 0], [0, 0, 0.75]]
    image = ElementTree.fromstring(mask_image(parts))
    squares = [element for element in image if element.tag.endswith("rect")]
    assert len(squares) == 6
    assert [float(square.get("fill-opacity", "")) > 0.5 for square in squares] == [False, True, False] + [False] * 2 + [
        True
    ]


def test_the_command_needs_a_known_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["sightseeing"])
    assert error.value.code == 2
    assert "tour" in capsys.readouterr().err
