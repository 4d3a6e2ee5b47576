"""The roofline of a plan's steps, in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..cost import intensity
from ..machine import Machine
from .facts import Facts, StepFacts
from .svg import CHARACTER, svg
from .text import scaled

# In pixels.
_PLOT_LEFT, _PLOT_TOP, _PLOT_RIGHT, _PLOT_BOTTOM = 52, 22, 350, 216
_WIDTH, _HEIGHT = 366, 254


@dataclass(frozen=True, slots=True)
class _Scale:
    """A logarithmic axis: whole decades onto pixels."""

    low: int
    high: int
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)


def roofline(facts: Facts, machine: Machine, peak: float) -> str | None:
    """Flops a second over flops per byte, both logarithmic, with a point for each step under the roof that ``peak``,
    in flops a second, and memory make; None where no step computes anything. After Williams, Waterman and Patterson,
    "Roofline", 2009.
    """
    predicted = [_Point(step, step.seconds) for step in facts.steps if step.seconds and step.cost.flops]
    measured = [_Point(step, step.measured) for step in facts.steps if step.measured and step.cost.flops]
    if not predicted:
        return None
    memory = machine.bytes_per_second
    x = _Scale(*_decades([*(point.intensity for point in predicted), peak / memory]), _PLOT_LEFT, _PLOT_RIGHT)
    y = _Scale(*_decades([*(point.rate for point in predicted + measured), peak]), _PLOT_BOTTOM, _PLOT_TOP)
    parts = [
        *_grid(x, y),
        f'<path class="cache" d="{_slope(x, y, 4 * memory, peak)}"/>',
        f'<path class="roof" d="{_slope(x, y, memory, peak)}H{_PLOT_RIGHT}"/>',
    ]
    for point in measured:
        parts.append(
            f'<rect class="measured" x="{x(point.intensity) - 4.5:.1f}" y="{y(point.rate) - 4.5:.1f}" width="9" '
            f'height="9"><title>{point.told("measured")}</title></rect>'
        )
    for point in predicted:
        parts.append(
            f'<circle class="predicted" cx="{x(point.intensity):.1f}" cy="{y(point.rate):.1f}" r="5">'
            f"<title>{point.told('predicted')}</title></circle>"
        )
    marks = [(point.step.number, x(point.intensity), y(point.rate)) for point in predicted]
    taken = [(x(point.intensity), y(point.rate)) for point in predicted + measured]
    parts += _step_names(marks, taken)
    return svg(_WIDTH, _HEIGHT, "roofline", "Roofline: flops a second over flops a byte", parts)


@dataclass(frozen=True, slots=True)
class _Point:
    """A step that takes so many seconds."""

    step: StepFacts
    seconds: float

    @property
    def intensity(self) -> float:
        return intensity(self.step.cost)

    @property
    def rate(self) -> float:
        return self.step.cost.flops / self.seconds

    def told(self, how: str) -> str:
        rate = f"{scaled(self.rate)}flops a second"
        return f"step {self.step.number}, {how}: {rate} at {self.intensity:.3g} flops a byte"


def _slope(x: _Scale, y: _Scale, bandwidth: float, peak: float) -> str:
    """The path along which a bandwidth is the limit, up to the peak; it enters at the left or the bottom."""
    enters = max(10.0**x.low, 10.0**y.low / bandwidth)
    meets = max(peak / bandwidth, enters)
    return f"M{x(enters):.1f} {y(min(enters * bandwidth, peak)):.1f}L{x(meets):.1f} {y(peak):.1f}"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values)) - 0.1), math.ceil(math.log10(max(values)) + 0.1)
    return min(low, high - 2), high


def _grid(x: _Scale, y: _Scale) -> Iterator[str]:
    yield f'<text class="axis" x="{_PLOT_LEFT}" y="12">flops a second</text>'
    for decade in range(y.low, y.high + 1, 1 + (y.high - y.low) // 9):
        at = y(10.0**decade)
        yield f'<path class="grid" d="M{_PLOT_LEFT} {at:.1f}H{_PLOT_RIGHT}"/>'
        named = scaled(10.0**decade)
        yield f'<text class="axis" x="{_PLOT_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{named}</text>'
    for decade in range(x.low, x.high + 1, 1 + (x.high - x.low) // 7):
        at = x(10.0**decade)
        yield f'<path class="grid" d="M{at:.1f} {_PLOT_TOP}V{_PLOT_BOTTOM}"/>'
        yield f'<text class="axis" x="{at:.1f}" y="{_PLOT_BOTTOM + 16}" text-anchor="middle">{10.0**decade:g}</text>'
    middle = (_PLOT_LEFT + _PLOT_RIGHT) / 2
    yield f'<text class="axis" x="{middle}" y="{_PLOT_BOTTOM + 32}" text-anchor="middle">flops a byte</text>'


def _step_names(marks: Sequence[tuple[int, float, float]], taken: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The steps' numbers beside their points, where they cover no other; points that lie together share one text."""
    clusters: list[list[tuple[int, float, float]]] = []
    for mark in marks:
        near = next((c for c in clusters if abs(c[0][1] - mark[1]) < 16 and abs(c[0][2] - mark[2]) < 16), None)
        if near is None:
            clusters.append([mark])
        else:
            near.append(mark)
    placed: list[tuple[float, float, float]] = []  # left, right, baseline
    for cluster in clusters:
        numbers = [mark[0] for mark in cluster]
        text = ",".join(map(str, numbers)) if len(numbers) < 4 else f"{numbers[0]}…{numbers[-1]}"
        width = len(text) * CHARACTER
        x, y = cluster[0][1], cluster[0][2]
        spots = [(x + dx, y + dy) for dy in (-9, 19, 4, -24, 34) for dx in (-width / 2, 9, -9 - width)]

        def cost(spot: tuple[float, float], width: float = width) -> tuple[int, int]:
            left, base = spot
            texts = sum(
                left < right_ and left_ < left + width and abs(base - base_) < 14 for left_, right_, base_ in placed
            )
            points = sum(left - 6 < px < left + width + 6 and base - 15 < py < base + 6 for px, py in taken)
            outside = left < _PLOT_LEFT + 2 or left + width > _PLOT_RIGHT or not _PLOT_TOP + 10 < base < _PLOT_BOTTOM
            return texts + outside, points

        left, base = min(spots, key=cost)
        placed.append((left, left + width, base))
        yield f'<text class="name" x="{left:.1f}" y="{base:.1f}">{text}</text>'
