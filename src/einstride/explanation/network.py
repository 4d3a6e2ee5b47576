"""The tensor network of an expression, in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from ..expression import Label
from .facts import Facts, Tensor
from .svg import CHARACTER, cells, label_class, svg
from .text import scaled

# In pixels. Rows of an output on the right lie between those of the operands, so that no two legs are on one line.
_ROW, _GAP, _SHIFT = 24, 12, 6
_MARGIN, _BOX, _STUB, _PILL, _ROOM = 2, 44, 12, 19, 16
_BEND = 7


@dataclass(frozen=True, slots=True)
class _Placed:
    """A box in the network."""

    tensor: Tensor
    top: float
    left: bool

    @property
    def height(self) -> int:
        return max(1, len(self.tensor.labels)) * _ROW


@dataclass(frozen=True, slots=True)
class _Leg:
    """An axis in the network: a line of its own from a box on the left, or on the right, to the lanes."""

    label: Label
    text: str
    y: float
    left: bool
    stretched: bool


@dataclass(frozen=True, slots=True)
class _Frame:
    """The columns of the network: boxes, pills, lanes and, for a result on the right, pills and its box."""

    box: int
    pill: int
    pitch: int
    lanes: int

    @property
    def first_lane(self) -> int:
        return _MARGIN + self.box + _STUB + self.pill + _ROOM

    @property
    def end(self) -> int:
        """Where the lanes end, and what is on the right begins."""
        return self.first_lane + max(self.lanes - 1, 0) * self.pitch + _ROOM

    def pill_at(self, leg: _Leg) -> int:
        return _MARGIN + self.box + _STUB if leg.left else self.end

    def start(self, leg: _Leg) -> int:
        """Where the wire leaves the pill."""
        return self.pill_at(leg) + self.pill * leg.left

    def box_at(self, left: bool) -> int:
        return _MARGIN if left else self.end + self.pill + _STUB


def network(facts: Facts, *, beneath: bool) -> str:
    """The operands as boxes with a leg for each axis, legs of the same label joined; the result beneath the operands
    or to the right of them.

    Every label has a vertical lane for itself as far as its legs reach, so wires cross but never run along each other.
    """
    boxes = _boxes(facts, beneath)
    legs = [leg for box in boxes for leg in _legs(facts, box)]
    lanes = _lanes(facts, legs)
    frame = _Frame(
        max(_BOX, *(math.ceil(cells(box.tensor.name) * 9) + 14 for box in boxes)),
        max((math.ceil(cells(leg.text) * CHARACTER) + 12 for leg in legs), default=0),
        12 if beneath else 16,
        1 + max(lanes.values(), default=-1),
    )
    parts = [
        _wire(frame, label, [leg for leg in legs if leg.label == label], frame.first_lane + lane * frame.pitch)
        for label, lane in lanes.items()
    ]
    parts += [_stub(frame, leg) for leg in legs]
    parts += [_box(frame, box) for box in boxes]
    parts += [_pill(facts, frame, leg) for leg in legs]
    width = frame.end if beneath else frame.box_at(False) + frame.box + _MARGIN
    height = max(box.top + box.height for box in boxes) + _MARGIN
    return svg(width, height, "narrow" if beneath else "roomy", f"Tensor network of {facts.subscripts}", parts)


def _boxes(facts: Facts, beneath: bool) -> list[_Placed]:
    """The operands on the left from top to bottom, then the result."""
    boxes: list[_Placed] = []
    y = _MARGIN
    for tensor in facts.operands:
        boxes.append(_Placed(tensor, y, True))
        y += boxes[-1].height + _GAP
    if beneath:
        return [*boxes, _Placed(facts.output, y + _GAP, True)]
    result = _Placed(facts.output, 0, False)
    spare = max(y - _GAP - _MARGIN - result.height, 0)
    return [*boxes, _Placed(facts.output, _MARGIN + spare // 2 // _GAP * _GAP + _SHIFT, False)]


def _legs(facts: Facts, box: _Placed) -> Iterator[_Leg]:
    for axis, (label, extent) in enumerate(zip(box.tensor.labels, box.tensor.shape, strict=True)):
        own = facts.labels[label]
        text = f"{_shortened(own.name)} {extent if extent < 10**6 else scaled(extent)}".rstrip()
        yield _Leg(label, text, box.top + (axis + 0.5) * _ROW, box.left, extent != own.extent)


def _lanes(facts: Facts, legs: Iterable[_Leg]) -> dict[Label, int]:
    """A lane for each label. Labels whose legs lie apart share one; the summed ones come first, the shortest nearest to
    the operands."""
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
    return chosen


def _wire(frame: _Frame, label: Label, legs: Iterable[_Leg], lane: float) -> str:
    """The legs of a label, joined along its lane; a leg that nothing joins ends in a bar."""
    ordered = sorted(legs, key=lambda leg: leg.y)
    top, bottom = ordered[0], ordered[-1]
    if len(ordered) == 1:
        outline = f"M{frame.start(top)} {top.y}H{lane}M{lane} {top.y - 6}V{top.y + 6}"
    else:
        bend = min(_BEND, (bottom.y - top.y) / 2)
        turns = [bend if leg.left else -bend for leg in (top, bottom)]
        outline = (
            f"M{frame.start(top)} {top.y}H{lane - turns[0]}Q{lane} {top.y} {lane} {top.y + bend}"
            f"V{bottom.y - bend}Q{lane} {bottom.y} {lane - turns[1]} {bottom.y}H{frame.start(bottom)}"
        )
    between = ordered[1:-1]
    outline += "".join(f"M{frame.start(leg)} {leg.y}H{lane}" for leg in between)
    joints = "".join(f'<circle class="joint" cx="{lane}" cy="{leg.y}" r="4"/>' for leg in between)
    return (
        f'<g class="{label_class(label)}" data-key="l{label}"><path class="halo" d="{outline}"/>'
        f'<path class="hit" d="{outline}"/><path class="wire" d="{outline}"/>{joints}</g>'
    )


def _stub(frame: _Frame, leg: _Leg) -> str:
    """The leg from its box to its pill; dotted where the axis is broadcast."""
    start = frame.pill_at(leg) - _STUB if leg.left else frame.pill_at(leg) + frame.pill
    kind = "wire stretched" if leg.stretched else "wire"
    path = f'<path class="{kind}" d="M{start} {leg.y}H{start + _STUB}"/>'
    return f'<g class="{label_class(leg.label)}" data-key="l{leg.label}">{path}</g>'


def _box(frame: _Frame, box: _Placed) -> str:
    x = frame.box_at(box.left)
    return (
        f'<g class="box"><rect x="{x}" y="{box.top + 1}" width="{frame.box}" height="{box.height - 2}" rx="6"/>'
        f'<text x="{x + frame.box / 2}" y="{box.top + box.height / 2 + 5}">{escape(box.tensor.name)}</text></g>'
    )


def _pill(facts: Facts, frame: _Frame, leg: _Leg) -> str:
    summed = "" if leg.label in facts.output.labels else " summed"
    label, x = facts.labels[leg.label], frame.pill_at(leg)
    return (
        f'<g class="pill {label_class(leg.label)}{summed}" data-key="l{leg.label}">'
        f"<title>{escape(label.name)}, extent {label.extent}, {label.role}</title>"
        f'<rect x="{x}" y="{leg.y - _PILL / 2}" width="{frame.pill}" height="{_PILL}" rx="{_PILL / 2}"/>'
        f'<text x="{x + frame.pill / 2}" y="{leg.y + 4.2}">{escape(leg.text)}</text></g>'
    )


def _shortened(name: str, most: int = 10) -> str:
    """The name, or as much of it as fits, in so many places of a monospace face."""
    if cells(name) <= most:
        return name
    kept = ""
    for character in name:
        if cells(kept + character) > most - 1:
            break
        kept += character
    return kept + "…"
