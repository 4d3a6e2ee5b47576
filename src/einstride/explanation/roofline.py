"""The roofline of a plan's steps, in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..machine import Machine
from .facts import Facts
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
    predicted = [
        (step.number, step.cost.flops / step.cost.bytes, step.cost.flops / step.seconds)
        for step in facts.steps
        if step.seconds and step.cost.flops
    ]
    measured = [
        (step.number, step.cost.flops / step.cost.bytes, step.cost.flops / step.measured)
        for step in facts.steps
        if step.measured and step.cost.flops
    ]
    if not predicted:
        return None
    memory, cache = machine.bytes_per_second, 4 * machine.bytes_per_second
    ridge = peak / memory
    intensities = [point[1] for point in predicted] + [ridge]
    rates = [point[2] for point in predicted + measured] + [peak]
    x = _Scale(*_decades(intensities), _PLOT_LEFT, _PLOT_RIGHT)
    y = _Scale(*_decades(rates), _PLOT_BOTTOM, _PLOT_TOP)
    parts = [*_grid(x, y)]
    for rate, kind in ((cache, "cache"), (memory, "roof")):
        # The line of a bandwidth enters at the left or at the bottom.
        enters = max(10.0**x.low, 10.0**y.low / rate)
        meets = peak / rate
        outline = f"M{x(max(enters, 10.0**x.low)):.1f} {y(enters * rate):.1f}" if enters < meets else ""
        joined = max(meets, 10.0**x.low)
        outline += f"{'L' if outline else 'M'}{x(joined):.1f} {y(peak):.1f}"
        parts.append(f'<path class="{kind}" d="{outline}{f"H{_PLOT_RIGHT}" if kind == "roof" else ""}"/>')
    marks = [(number, x(at), y(rate)) for number, at, rate in predicted]
    for number, at, rate in measured:
        parts.append(
            f'<rect class="measured" x="{x(at) - 4.5:.1f}" y="{y(rate) - 4.5:.1f}" width="9" height="9">'
            f"<title>step {number}, measured: {scaled(rate)}flops a second</title></rect>"
        )
    for (number, px, py), (_, at, rate) in zip(marks, predicted, strict=True):
        parts.append(
            f'<circle class="predicted" cx="{px:.1f}" cy="{py:.1f}" r="5">'
            f"<title>step {number}, predicted: {scaled(rate)}flops a second at {at:.3g} flops a byte</title></circle>"
        )
    taken = [(x(at), y(rate)) for _, at, rate in measured] + [(px, py) for _, px, py in marks]
    parts += _step_names(marks, taken)
    return svg(_WIDTH, _HEIGHT, "roofline", "Roofline: flops a second over flops a byte", parts)


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
