"""An explanation in plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..cost import Cost, intensity
from .facts import ROLES, Facts, LabelFacts, StepFacts

if TYPE_CHECKING:
    from . import Explanation

WIDTH = 88


def explain_text(facts: Facts) -> str:
    """Each step's labels by role with their extents, kernel, flops, bytes and predicted time; then the totals.

    A label is *batch* where several inputs and the output of a step have it, *free* where one input and the output,
    *contracted* where several inputs and *reduced* where one input has it and the output does not. Times are
    predicted for one core of this machine.

    >>> from einstride import plan
    >>> from einstride.explanation.facts import describe
    >>> print(explain_text(describe(plan("bij,bjk->bik", (8, 3, 4), (8, 4, 5)))).split("  kernel")[0])
    bij,bjk->bik  (8, 3, 4), (8, 4, 5) -> (8, 3, 5)  float64
    <BLANKLINE>
    step 1 of 1: A, B -> output  bij,bjk->bik
      batch       b 8
      free        i 3, k 5
      contracted  j 4
    <BLANKLINE>
    """
    return "\n".join([signature(facts), *_steps(facts), *_totals(facts)])


def whole_text(explanation: Explanation) -> str:
    """Everything, for a terminal."""
    facts = explanation.facts
    sections: list[tuple[str, Iterable[str]]] = [
        ("in words", _prose(explanation.words)),
        ("as a formula", [*_prose(explanation.formula), *_prose(explanation.example or "")]),
        ("how to read it", [line for sentence in explanation.guide for line in _prose(sentence)]),
        ("labels", [*_label_table(facts), "", *_role_meanings(facts)]),
        ("as loops", explanation.loops.splitlines()),
        ("in NumPy", explanation.numpy.splitlines()),
        ("in PyTorch", explanation.torch.splitlines()),
        ("contraction tree", branches(facts)),
    ]
    lines = [signature(facts)]
    for heading, body in sections:
        lines += ["", heading, *(f"  {line}".rstrip() for line in body)]
    return "\n".join([*lines, *_steps(facts), *_totals(facts)])


def signature(facts: Facts) -> str:
    """The subscripts with all shapes, and the result's dtype."""
    shapes = ", ".join(str(tensor.shape) for tensor in facts.operands)
    return f"{facts.subscripts}  {shapes} -> {facts.output.shape}  {facts.dtype}"


def branches(facts: Facts) -> list[str]:
    """The contraction tree, drawn with box characters from the result down to the operands."""
    made = {step.nodes[-1]: step for step in facts.steps}
    lines: list[str] = []

    def draw(node: int, name: str, terms: str, first: str, rest: str) -> None:
        step = made.get(node)
        if step is None:
            lines.append(f"{first}{name}  {terms}".rstrip())
            return
        told = f"{step.kernel or 'no kernel'}, {scaled(step.cost.flops)}flops"
        lines.append(f"{first}{name}  {terms}".rstrip() + f"  by {told}")
        *parts, _ = zip(step.nodes, step.names, step.terms, strict=True)
        for position, part in enumerate(parts):
            end = position == len(parts) - 1
            draw(*part, rest + ("└── " if end else "├── "), rest + ("    " if end else "│   "))

    last = facts.steps[-1]
    draw(last.nodes[-1], last.names[-1], last.terms[-1], "", "")
    return lines


def why(step: StepFacts) -> str:
    """Why the step's kernel was chosen, in times."""
    if step.seconds is None:
        return ""
    others = [f"{name} would take {duration(seconds)}" for name, seconds in step.others]
    return f"{duration(step.seconds)} predicted; {', '.join(others) or 'no other kernel takes such a step'}"


def copied(step: StepFacts) -> list[str]:
    """What is copied besides, because it is small and walked faster so."""
    *inputs, output = step.names
    names = [inputs[place] for place in step.copied if place < len(inputs)]
    said = [f"{', '.join(names)}, first, into the order that the largest tensor lies in"] if names else []
    if len(inputs) in step.copied:
        said.append(f"{output}, last, from the order that it is made in")
    return said


def work(cost: Cost) -> str:
    """Flops, bytes and the ratio of the two."""
    return f"{scaled(cost.flops)}flops, {scaled(cost.bytes, 'B')} moved, {intensity(cost):.3g} flops a byte"


def naive(facts: Facts) -> str:
    """The cost of a single loop nest beside the planned one."""
    planned = facts.cost.flops
    ratio = facts.naive / planned if planned else 1.0
    fewer = f", {f'{ratio:.3g}' if ratio < 999.5 else f'{ratio:,.0f}'} times as many" if ratio != 1 else ""
    return f"{scaled(facts.naive)}flops as a single loop nest{fewer}"


def peak(facts: Facts) -> str:
    """Peak memory, and the part of it that intermediates have."""
    return f"{scaled(facts.cost.peak, 'B')}, of which {scaled(facts.held, 'B')} in intermediates"


def total_time(facts: Facts) -> str:
    """The predicted time of all, and the measured one; empty if there is neither."""
    told = f"{duration(facts.seconds)} predicted on one core" if facts.seconds is not None else ""
    if facts.measured is None:
        return told
    threads = "one thread" if facts.measured.threads == 1 else f"{facts.measured.threads} threads"
    measured = f"{duration(facts.measured.total)} measured on {threads}"
    return f"{told}, {measured}" if told else measured


def places(label: LabelFacts) -> str:
    """The axes a label is, by tensor."""
    axes: dict[str, list[int]] = {}
    for name, axis in label.axes:
        axes.setdefault(name, []).append(axis)
    return ", ".join(f"{name} {' and '.join(map(str, own))}" for name, own in axes.items())


def called(label: LabelFacts) -> str:
    """A label's name, and its name in code where that is another."""
    return label.name if label.identifier == label.name else f"{label.name} = {label.identifier}"


def scaled(amount: float, unit: str = "") -> str:
    """A number to three digits with a decimal prefix.

    >>> scaled(1234567, "B"), scaled(12)
    ('1.23 MB', '12 ')
    """
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    value, prefix = float(amount), next(prefixes)
    while value >= 999.5 and (larger := next(prefixes, None)) is not None:
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}{unit}"


def duration(seconds: float) -> str:
    """Seconds to three digits with a fitting unit."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _steps(facts: Facts) -> Iterator[str]:
    for step in facts.steps:
        flow = f"{', '.join(step.names[:-1])} -> {step.names[-1]}  {step.subscripts}"
        yield from ("", f"step {step.number} of {len(facts.steps)}: {flow}")
        rows: list[tuple[str, ...]] = [
            (role, ", ".join(f"{facts.labels[label].name} {facts.labels[label].extent}" for label in labels))
            for role, labels in step.roles
        ]
        rows.append(
            ("kernel", step.about) if step.kernel is None else ("kernel", f"{step.kernel}: {step.about}", why(step))
        )
        if told := copied(step):
            rows.append(("copied", *told))
        rows.append(("cost", work(step.cost)))
        if step.measured is not None:
            rows.append(("measured", duration(step.measured)))
        yield from _columns(rows)


def _totals(facts: Facts) -> Iterator[str]:
    rows = [("cost", work(facts.cost)), ("naive", naive(facts)), ("peak", peak(facts))]
    if time := total_time(facts):
        rows.append(("time", time))
    yield from ("", "in all", *_columns(rows))


def _columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A name and its lines, the lines in a column of their own."""
    for name, *lines in rows:
        for number, line in enumerate(lines):
            yield f"  {'' if number else name:<10}  {line}"


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _label_table(facts: Facts) -> Iterator[str]:
    rows = [
        ("label", "extent", "role", "axis of"),
        *((called(x), str(x.extent), x.role, places(x)) for x in facts.labels),
    ]
    name, extent, role = (max(len(row[column]) for row in rows) for column in range(3))
    for row in rows:
        head = f"{row[0]:<{name}}  {row[1]:>{extent}}  {row[2]:<{role}}  "
        yield from textwrap.wrap(row[3], WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _role_meanings(facts: Facts) -> Iterator[str]:
    present = {label.role for label in facts.labels}
    for role, meaning in ROLES.items():
        if role in present:
            yield f"{role:<10}  {meaning}"
