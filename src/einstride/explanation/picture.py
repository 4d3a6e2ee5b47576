"""Pictures of a plan in SVG: the tensor network and the roofline."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ..expression import Label
from ..machine import Machine
from .facts import Facts, Tensor
from .text import scaled

COLOURS = 12
"""Labels with a colour of their own; later ones take the same again with a broken line."""

# The network, in pixels. Rows of the output lie between those of the operands, so that no two legs are on one line.
_ROW, _GAP, _SHIFT = 24, 12, 6
_BOX, _STUB, _PILL = 44, 12, 19
_CHARACTER = 7.4  # wider than any monospace face of 12 px
_ROUND = 7


def label_class(label: Label) -> str:
    """The CSS classes of a label: its colour, and a pattern where colours are used again."""
    again = label // COLOURS
    return f"c{label % COLOURS}" + (f" again{min(again, 2)}" if again else "")


@dataclass(frozen=True, slots=True)
class _Leg:
    """An axis in the network: where its pill is, and where its wire starts."""

    label: Label
    extent: int
    y: float
    pill: float  # the left end
    start: float
    stretched: bool


def network(facts: Facts, *, beneath: bool) -> str:
    """The operands as boxes with a leg for each axis, legs of the same label joined; the result beneath the operands
    or to the right of them.

    Every label has a vertical lane for itself as far as its legs reach, so wires cross but never run along each other.
    """
    texts = {
        (label, extent): f"{_shortened(facts.labels[label].name)} {extent if extent < 10**6 else scaled(extent)}"
        for tensor in (*facts.operands, facts.output)
        for label, extent in zip(tensor.labels, tensor.shape, strict=True)
    }
    pill = max((math.ceil(_width(text) * _CHARACTER) + 12 for text in texts.values()), default=0)
    box = max(_BOX, *(math.ceil(_width(tensor.name) * 9) + 14 for tensor in (*facts.operands, facts.output)))
    left = [*facts.operands, *([facts.output] if beneath else [])]
    tops, bottom = _stacked(left, beneath)
    x = box + _STUB
    legs = [leg for tensor, top in zip(left, tops, strict=True) for leg in _legs(facts, tensor, top, x, x + pill)]
    right_top = 0.0
    if not beneath:
        right_top = max(0, (bottom - _height(facts.output)) // 2 // _GAP * _GAP) + _SHIFT
        legs += _legs(facts, facts.output, right_top, 0, 0)
        bottom = max(bottom, right_top + _height(facts.output))
    pitch = 12 if beneath else 16
    lanes, count = _lanes(facts, legs)
    first = x + pill + 16
    right = first + count * pitch + (0 if beneath else 8)
    if not beneath:
        own = len(facts.output.labels)
        moved = [_Leg(leg.label, leg.extent, leg.y, right, right, leg.stretched) for leg in legs[len(legs) - own :]]
        legs = [*legs[: len(legs) - own], *moved]
    width = right + (8 if beneath else pill + _STUB + box)
    parts = [
        _wire(
            facts,
            label,
            [leg for leg in legs if leg.label == label],
            first + lanes[label] * pitch,
        )
        for label in lanes
    ]
    for tensor, top in zip(left, tops, strict=True):
        parts += _box(tensor, 0, top, box)
        parts += [
            _line(leg.label, box, x, leg.y) for leg in legs if leg.start == x + pill and _within(leg, top, tensor)
        ]
    if not beneath:
        at = right + pill + _STUB
        parts += _box(facts.output, at, right_top, box)
        parts += [_line(leg.label, right + pill, at, leg.y) for leg in legs if leg.start == right]
    parts += [_pill(facts, leg, texts[leg.label, leg.extent], pill) for leg in legs]
    return _svg(width + 4, bottom + 4, "narrow" if beneath else "roomy", f"Tensor network of {facts.subscripts}", parts)


def _stacked(tensors: Sequence[Tensor], beneath: bool) -> tuple[list[float], float]:
    """The top of each box, and the bottom of all; the result apart from the operands."""
    tops: list[float] = []
    y = 0.0
    for tensor in tensors:
        if beneath and tensor is tensors[-1]:
            y += _GAP
        tops.append(y)
        y += _height(tensor) + _GAP
    return tops, y - _GAP


def _height(tensor: Tensor) -> int:
    return max(1, len(tensor.labels)) * _ROW


def _within(leg: _Leg, top: float, tensor: Tensor) -> bool:
    return top < leg.y < top + _height(tensor)


def _legs(facts: Facts, tensor: Tensor, top: float, pill: float, start: float) -> Iterator[_Leg]:
    for axis, (label, extent) in enumerate(zip(tensor.labels, tensor.shape, strict=True)):
        stretched = extent != facts.labels[label].extent
        yield _Leg(label, extent, top + axis * _ROW + _ROW / 2, pill, start, stretched)


def _lanes(facts: Facts, legs: Sequence[_Leg]) -> tuple[dict[Label, int], int]:
    """A lane for each label that has legs, and how many lanes there are. Labels whose legs lie apart share a lane; the
    summed ones come first, the shortest nearest to the operands."""
    reach: dict[Label, tuple[float, float]] = {}
    for leg in legs:
        low, high = reach.get(leg.label, (leg.y, leg.y))
        reach[leg.label] = min(low, leg.y), max(high, leg.y)
    lanes: list[list[tuple[float, float]]] = []
    chosen: dict[Label, int] = {}

    def order(label: Label) -> tuple[bool, float, float]:
        low, high = reach[label]
        return label in facts.output.labels, high - low, low

    for label in sorted(reach, key=order):
        low, high = reach[label]
        lane = next(
            (
                lane
                for lane, taken in enumerate(lanes)
                if all(high + _ROW / 2 < other_low or other_high + _ROW / 2 < low for other_low, other_high in taken)
            ),
            len(lanes),
        )
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((low, high))
        chosen[label] = lane
    return chosen, len(lanes)


def _wire(facts: Facts, label: Label, legs: Sequence[_Leg], lane: float) -> str:
    """The legs of a label, joined along its lane; a leg that nothing joins ends in a bar."""
    ordered = sorted(legs, key=lambda leg: leg.y)
    top, bottom = ordered[0], ordered[-1]
    if len(ordered) == 1:
        outline = f"M{top.start} {top.y}H{lane}M{lane} {top.y - 6}V{top.y + 6}"
    else:
        bend = min(_ROUND, (bottom.y - top.y) / 2)
        turns = [bend if leg.start < lane else -bend for leg in (top, bottom)]
        outline = (
            f"M{top.start} {top.y}H{lane - turns[0]}Q{lane} {top.y} {lane} {top.y + bend}"
            f"V{bottom.y - bend}Q{lane} {bottom.y} {lane - turns[1]} {bottom.y}H{bottom.start}"
        )
    between = ordered[1:-1]
    outline += "".join(f"M{leg.start} {leg.y}H{lane}" for leg in between)
    joints = "".join(f'<circle class="joint" cx="{lane}" cy="{leg.y}" r="4"/>' for leg in between)
    stretched = " stretched" if all(leg.stretched for leg in ordered) else ""
    return (
        f'<g class="{label_class(label)}" data-key="l{label}"><path class="halo" d="{outline}"/>'
        f'<path class="hit" d="{outline}"/><path class="wire{stretched}" d="{outline}"/>{joints}</g>'
    )


def _line(label: Label, start: float, end: float, y: float) -> str:
    return f'<g class="{label_class(label)}" data-key="l{label}"><path class="wire" d="M{start} {y}H{end}"/></g>'


def _box(tensor: Tensor, x: float, top: float, width: float) -> Iterator[str]:
    height = _height(tensor)
    yield (
        f'<g class="box"><rect x="{x + 1}" y="{top + 1}" width="{width - 2}" height="{height - 2}" rx="6"/>'
        f'<text x="{x + width / 2}" y="{top + height / 2 + 5}">{escape(tensor.name)}</text></g>'
    )


def _pill(facts: Facts, leg: _Leg, text: str, width: float) -> str:
    summed = "" if leg.label in facts.output.labels else " summed"
    label = facts.labels[leg.label]
    return (
        f'<g class="pill {label_class(leg.label)}{summed}" data-key="l{leg.label}">'
        f"<title>{escape(label.name)}, extent {leg.extent}, {label.role}</title>"
        f'<rect x="{leg.pill}" y="{leg.y - _PILL / 2}" width="{width}" height="{_PILL}" rx="{_PILL / 2}"/>'
        f'<text x="{leg.pill + width / 2}" y="{leg.y + 4.2}">{escape(text)}</text></g>'
    )


def _shortened(name: str, cells: int = 10) -> str:
    """The name, or as much of it as fits, in so many cells of a monospace face."""
    if _width(name) <= cells:
        return name
    kept = ""
    for character in name:
        if _width(kept + character) > cells - 1:
            break
        kept += character
    return kept + "…"


def _width(text: str) -> int:
    """Cells of a monospace face."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _svg(width: float, height: float, kind: str, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg class="{kind}" viewBox="-2 -2 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


# The roofline, in pixels.
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
    return _svg(_WIDTH, _HEIGHT, "roofline", "Roofline: flops a second over flops a byte", parts)


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
        width = len(text) * _CHARACTER
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
