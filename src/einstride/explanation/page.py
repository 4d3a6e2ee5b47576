"""An explanation in HTML: a fragment for Jupyter, and a page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..array import type_code
from ..cost import intensity
from ..expression import Label
from ..kernels import peak_flops
from ..machine import detect
from .facts import ROLES, Facts, LabelFacts, StepFacts, is_lettered, pieces
from .network import network
from .roofline import roofline
from .svg import label_class
from .text import copied, duration, naive, peak, places, scaled, total_time, work

if TYPE_CHECKING:
    from . import Explanation


def page(explanation: Explanation) -> str:
    """A whole page.

    >>> from einstride import explain
    >>> page(explain("ij->ji", (2, 3))).splitlines()[0]
    '<!doctype html>'
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(explanation.facts.subscripts)}</title>
<style>body {{ margin: 0; background: light-dark(#ffffff, #14171d); }}</style>
</head>
<body>
<main>{fragment(explanation)}</main>
</body>
</html>
"""


def fragment(explanation: Explanation) -> str:
    """What a notebook shows: style, content and script, which keep to the fragment."""
    facts = explanation.facts
    sections = "\n".join(_sections(explanation, facts))
    here = Path(__file__).parent
    style, script = (here / name for name in ("style.css", "light.js"))
    return (
        f'<div class="einstride"><style>{style.read_text("utf-8")}</style>\n'
        f"{_head(explanation, facts)}\n{sections}\n<script>{script.read_text('utf-8')}</script></div>"
    )


def _head(explanation: Explanation, facts: Facts) -> str:
    shapes = ", ".join(f"{escape(tensor.name)} {tensor.shape}" for tensor in facts.operands)
    result, summed, rest = explanation.formula.partition(" = Σ_")
    formula = _with_labels(result, facts)
    if summed:
        under, _, rest = rest.partition(" ")
        formula += f" = Σ<sub>{_with_labels(under.strip('()'), facts)}</sub> {_with_labels(rest, facts)}"
    example = f"<small>{escape(explanation.example)}</small>" if explanation.example else ""
    return (
        f'<h2 class="subscripts">{_subscripts(facts)}</h2>\n<p class="words">{escape(explanation.words)}</p>\n'
        f'<p class="shapes">{shapes} → {facts.output.name} {facts.output.shape}, {escape(facts.dtype)}</p>\n'
        f'<p class="formula">{formula}{example}</p>'
    )


def _sections(explanation: Explanation, facts: Facts) -> Iterator[str]:
    guide = "".join(f"<li>{escape(sentence)}</li>" for sentence in explanation.guide)
    yield _section("How to read it", f'<ul class="guide">{guide}</ul>')
    pictures = network(facts, beneath=False) + network(facts, beneath=True)
    dotted = " A dotted leg is an axis of extent 1 that serves every value of its label." * ("stretched" in pictures)
    yield _section(
        "Tensor network and labels",
        f'<div class="beside"><figure>{pictures}</figure><div class="wide">{_label_table(facts)}</div></div>'
        '<p class="note">A box is an operand or the result, a leg an axis with its extent. Legs of one label are '
        f"joined: those that are filled are summed over, the others lead to the result.{dotted}</p>",
    )
    yield _section("As code", _code(explanation, facts))
    tree, roof = _section("Contraction tree", _tree(facts)), _section("Roofline", _roofline(explanation, facts))
    yield f'<div class="beside">{tree}{roof}</div>'
    yield _section("Steps", _step_table(facts) + _totals(facts))


def _section(title: str, body: str) -> str:
    return f"<section><h3>{title}</h3>\n{body}</section>"


def _subscripts(facts: Facts) -> str:
    terms = [_term(facts, tensor.labels) for tensor in facts.operands]
    return _arrow(terms, _term(facts, facts.output.labels))


def _arrow(inputs: Iterable[str], output: str) -> str:
    """Terms that may be broken between lines after a comma and around the arrow, but not within it."""
    return f'{",<wbr>".join(inputs)}<wbr><span class="arrow">-&gt;</span><wbr>{output}'


def _term(facts: Facts, term: Iterable[Label]) -> str:
    """A term with its labels marked."""
    parts = [_label(labels, text) for text, labels in pieces(facts.expression, term)]
    return "".join(parts) if is_lettered(facts.expression.names) else f"[{', '.join(parts)}]"


def _label(labels: tuple[Label, ...], text: str) -> str:
    keys = " ".join(f"l{label}" for label in labels)
    return f'<span class="label {label_class(labels[0])}" data-key="{keys}">{escape(text)}</span>'


def _with_labels(code: str, facts: Facts) -> str:
    """Code with the labels in it marked."""
    labels = {facts.identifier: label for label, facts in enumerate(facts.labels)}
    parts = re.split(r"((?<![.\w])[^\W\d]\w*)", code)
    return "".join(_label((labels[part],), part) if part in labels else escape(part) for part in parts)


def _label_table(facts: Facts) -> str:
    rows = "".join(
        f'<tr><td><button type="button" class="label {label_class(number)}" data-key="l{number}" aria-pressed="false">'
        f'{escape(label.name)}</button>{_in_code(label)}</td><td class="number">{label.extent}</td>'
        f'<td title="{escape(ROLES[label.role])}">{label.role}</td><td>{escape(places(label))}</td></tr>'
        for number, label in enumerate(facts.labels)
    )
    if not rows:
        return "<p>There are no labels: every operand is a number.</p>"
    present = {label.role for label in facts.labels}
    meanings = "; ".join(f"<b>{role}</b>: {meaning}" for role, meaning in ROLES.items() if role in present)
    return (
        '<table class="labels"><thead><tr><th>label</th><th class="number">extent</th><th>role</th>'
        f'<th>axis of</th></tr></thead><tbody>{rows}</tbody></table><p class="note">{meanings}.</p>'
    )


def _in_code(label: LabelFacts) -> str:
    return "" if label.identifier == label.name else f"<small><code>{label.identifier}</code> in code</small>"


def _tree(facts: Facts) -> str:
    made = {step.nodes[-1]: step for step in facts.steps}
    last = facts.steps[-1]

    def item(node: int, name: str, labels: Iterable[Label]) -> str:
        shown = f'<b>{escape(name)}</b> <code class="term">{_term(facts, labels)}</code>'
        step = made.get(node)
        if step is None:
            return f'<li><span class="node">{shown}</span></li>'
        by = step.kernel or "no kernel"
        number = f"step {last.number}, " if step is last else ""
        told = f"<small>{number}{by}, {scaled(step.cost.flops)}flops</small>"
        parts = zip(step.nodes[:-1], step.names, step.labels, strict=False)
        return f'<li><span class="node">{shown} {told}</span><ul>{"".join(item(*part) for part in parts)}</ul></li>'

    return f'<ul class="tree">{item(last.nodes[-1], last.names[-1], last.labels[-1])}</ul>'


def _step_table(facts: Facts) -> str:
    headings = ["step", "computes", "kernel", "flops", "bytes", "flops a byte", "predicted"]
    headings += ["measured"] if facts.measured else []
    rows = "".join(f"<tr>{''.join(_cells(headings, _step_cells(facts, step)))}</tr>" for step in facts.steps)
    heads = "".join(f"<th{' class=number' if n > 2 else ''}>{heading}</th>" for n, heading in enumerate(headings))
    return f'<table class="steps"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _step_cells(facts: Facts, step: StepFacts) -> Iterator[str]:
    yield str(step.number)
    terms = [_term(facts, labels) for labels in step.labels]
    flow = f"{escape(', '.join(step.names[:-1]))} → {escape(step.names[-1])}"
    yield f'<div><code class="term">{_arrow(terms[:-1], terms[-1])}</code><small>{flow}</small></div>'
    if step.kernel is None:
        yield f"<div><small>{escape(step.about)}</small></div>"
    else:
        others = [f"{name} would take {duration(seconds)}" for name, seconds in step.others]
        reason = ", ".join(others) or "no other kernel takes such a step"
        told = [step.about, reason, *(f"copied: {line}" for line in copied(step))]
        yield f"<div><b>{step.kernel}</b>{''.join(f'<small>{escape(line)}</small>' for line in told)}</div>"
    yield scaled(step.cost.flops)
    yield scaled(step.cost.bytes, "B")
    yield f"{intensity(step.cost):.3g}"
    yield "" if step.seconds is None else duration(step.seconds)
    if facts.measured:
        yield "" if step.measured is None else duration(step.measured)


def _cells(headings: Iterable[str], cells: Iterable[str]) -> Iterator[str]:
    for number, (heading, cell) in enumerate(zip(headings, cells, strict=True)):
        kind = ' class="number"' if number > 2 else ""
        yield f'<td{kind} data-heading="{heading}">{cell}</td>'


def _totals(facts: Facts) -> str:
    rows = {"cost": work(facts.cost), "naive": naive(facts), "peak": peak(facts), "time": total_time(facts)}
    listed = "".join(f"<dt>{name}</dt><dd>{escape(told)}</dd>" for name, told in rows.items() if told)
    return f'<p class="note">In all:</p><dl class="totals">{listed}</dl>'


def _roofline(explanation: Explanation, facts: Facts) -> str:
    machine, code = detect(), type_code(explanation.plan.dtype)
    top = 0.0 if code is None else peak_flops(code, machine)
    picture = roofline(facts, machine, top) if top else None
    if picture is None:
        return '<p class="note">No step is predicted to compute anything: there is nothing to place under the roof.</p>'
    measured = "; a square as it was measured" if facts.measured else ""
    return (
        f'<figure>{picture}</figure><p class="note">A dot is a step as predicted for one core'
        f"{measured}. Under the slope it waits for memory, at {scaled(machine.bytes_per_second, 'B')} a second; "
        f"under the level part for arithmetic, at {scaled(top)}flops a second. The broken line is the second-level "
        "cache, four times as fast as memory. These are the rates that predictions are made with.</p>"
    )


def _code(explanation: Explanation, facts: Facts) -> str:
    blocks = [
        ("As loops", "all", _with_labels(explanation.loops, facts)),
        ("In NumPy", "", escape(explanation.numpy)),
        ("In PyTorch", "", escape(explanation.torch)),
    ]
    figures = "".join(
        f'<figure class="{kind}"><figcaption>{title}</figcaption><pre tabindex="0" role="region" aria-label="{title}">'
        f"<code>{code}</code></pre></figure>"
        for title, kind, code in blocks
    )
    return f'<div class="code">{figures}</div>'
