"""The geometry of the pictures."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Call, calls

from einstride import explain
from einstride.explanation.facts import Facts
from einstride.explanation.network import network
from einstride.explanation.roofline import roofline
from einstride.explanation.svg import COLOURS, label_class
from einstride.kernels import peak_flops
from einstride.machine import detect

Segment = tuple[float, float, float, float]  # x and y, from and to


@dataclass(frozen=True)
class Drawn:
    """The network as it is drawn: per label the straight parts of its wires, and its pills."""

    wires: dict[int, list[Segment]]
    pills: dict[int, list[Segment]]
    frame: Segment


def read(svg: str) -> Drawn:
    wires: dict[int, list[Segment]] = {}
    for label, content in re.findall(r'<g class="c[^>]* data-key="l(\d+)">(.*?)</g>', svg):
        for outline in re.findall(r'<path class="wire[^"]*" d="([^"]*)"', content):
            wires.setdefault(int(label), []).extend(straight(outline))
    pills: dict[int, list[Segment]] = {}
    rect = r'<g class="pill [^>]* data-key="l(\d+)">.*?<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"'
    for label, *numbers in re.findall(rect, svg):
        x, y, width, height = map(float, numbers)
        pills.setdefault(int(label), []).append((x, y, x + width, y + height))
    found = re.search(r'viewBox="(.*?) (.*?) (.*?) (.*?)"', svg)
    assert found is not None
    left, top, width, height = map(float, found.groups())
    return Drawn(wires, pills, (left, top, left + width, top + height))


def straight(outline: str) -> list[Segment]:
    """The lines of a path that has moves, horizontal and vertical lines, and bends."""
    segments: list[Segment] = []
    x = y = 0.0
    for command, text in re.findall(r"([MHVQ])([^MHVQ]*)", outline):
        numbers = [float(number) for number in text.split()]
        to = (numbers[0], y) if command == "H" else (x, numbers[0]) if command == "V" else (numbers[-2], numbers[-1])
        if command in "HV":
            segments.append((x, y, *to))
        x, y = to
    return segments


def meet(first: Segment, second: Segment) -> bool:
    """Whether two lines run along each other, or as good as."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = first, second
    if ax == bx and cx == dx and ay != by and cy != dy:
        return abs(ax - cx) < 5 and min(max(ay, by), max(cy, dy)) > max(min(ay, by), min(cy, dy))
    if ay == by and cy == dy:
        return abs(ay - cy) < 5 and min(max(ax, bx), max(cx, dx)) > max(min(ax, bx), min(cx, dx))
    return False


def check(facts: Facts, beneath: bool) -> None:
    drawn = read(network(facts, beneath=beneath))
    left, top, right, bottom = drawn.frame
    for label, own in enumerate(facts.labels):
        assert len(drawn.pills[label]) == len(own.axes)
        # A wire leaves every pill at half of its height.
        starts = {(y, round(x)) for ax, ay, bx, by in drawn.wires[label] for x, y in ((ax, ay), (bx, by))}
        for x, y, to_x, to_y in drawn.pills[label]:
            assert {((y + to_y) / 2, round(x)), ((y + to_y) / 2, round(to_x))} <= starts
            assert left <= x < to_x <= right and top <= y < to_y <= bottom
    for first, second in itertools.combinations(drawn.wires, 2):
        for a, b in itertools.product(drawn.wires[first], drawn.wires[second]):
            assert not meet(a, b), (facts.subscripts, first, a, second, b)
    every = [pill for pills in drawn.pills.values() for pill in pills]
    for a, b in itertools.combinations(every, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


@given(calls(), st.booleans())
def test_wires_join_the_axes_of_a_label_and_never_run_along_each_other(call: Call, beneath: bool) -> None:
    check(explain(*call.arguments(tuple(np.ones(shape) for shape in call.shapes))).facts, beneath)


@pytest.mark.parametrize("beneath", [False, True])
def test_ten_operands_and_twenty_labels(beneath: bool) -> None:
    check(
        explain(",".join(a + b for a, b in itertools.pairwise("abcdefghija")) + "->ceg", *[(4, 4)] * 10).facts, beneath
    )
    check(explain("abcde,efghi,ijklm,mnopq,qrst->abdfhkt", *[(2,) * 5] * 4, (2,) * 4).facts, beneath)


def test_wires_along_each_other_are_seen() -> None:
    assert meet((10, 0, 10, 50), (12, 40, 12, 90))
    assert not meet((10, 0, 10, 50), (12, 60, 12, 90))
    assert not meet((10, 0, 10, 50), (0, 20, 30, 20))
    assert meet((0, 20, 30, 20), (20, 22, 90, 22))


def test_summed_labels_are_filled_and_broadcast_axes_dotted() -> None:
    svg = network(explain("ij,jk->ik", (3, 4), (4, 1)).facts, beneath=True)
    assert re.findall(r'class="pill c\d summed" data-key="l(\d)"', svg) == ["1", "1"]
    assert "stretched" not in svg
    assert "stretched" in network(explain("ij,jk->i", (3, 4), (1, 5)).facts, beneath=True)


def test_colours_are_used_again_with_a_pattern() -> None:
    assert len({label_class(label) for label in range(3 * COLOURS)}) == 3 * COLOURS
    assert label_class(0) == "c0"
    assert label_class(COLOURS + 3).split()[0] == label_class(3)


def test_every_step_that_computes_has_its_point() -> None:
    machine = detect()
    peak = peak_flops(12, machine)
    facts = explain("ij,jk,kl,lm->im", (200, 300), (300, 400), (400, 5), (5, 600)).facts
    svg = roofline(facts, machine, peak)
    assert svg is not None
    points = [tuple(map(float, point)) for point in re.findall(r'class="predicted" cx="(.*?)" cy="(.*?)"', svg)]
    assert len(points) == len(facts.steps) == 3
    by_intensity = sorted(zip((s.cost.flops / s.cost.bytes for s in facts.steps), points, strict=True))
    assert [x for _, (x, _) in by_intensity] == sorted(x for x, _ in points)
    assert roofline(explain("ij->ji", (3, 4)).facts, machine, peak) is None
    assert roofline(explain("ij,jk->ik", (3, 0), (0, 4)).facts, machine, peak) is None
