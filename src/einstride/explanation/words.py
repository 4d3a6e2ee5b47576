"""An expression read aloud: one line of plain words for what an einsum does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ..expression import Expression, Label


def reading(expression: Expression, operands: Sequence[str] | None = None) -> str:
    """Say in one line of words what an expression computes.

    ``operands`` are the names of the operands; without them they are A, B, C and so on, or operand 0,
    operand 1, ... when there are more than 26.

    >>> from einstride.expression import parse
    >>> reading(parse("bqm,bkm->bqk", (3, 3)), ("Q", "K"))
    'for each b: rows of Q against rows of K, summed over m'
    >>> reading(parse("ij,jk->ik", (2, 2)))
    'rows of A against columns of B, summed over j'
    >>> reading(parse("ij->ji", (2,)))
    'A with its axes in the order j, i'
    >>> reading(parse("bij->", (3,)))
    'the sum of all of A'
    """
    count = len(expression.inputs)
    names = operands or [chr(ord("A") + k) if count <= 26 else f"operand {k}" for k in range(count)]
    said = _one(expression, names[0]) if count == 1 else _several(expression, names)
    repeated = [label for label in dict.fromkeys(expression.output) if expression.output.count(label) > 1]
    return said + (f", written on the diagonal {_spoken(expression, repeated)}" if repeated else "")


def _one(expression: Expression, name: str) -> str:
    """A view or a sum of a single operand."""
    (term,) = expression.inputs
    labels = list(dict.fromkeys(term))
    kept = list(dict.fromkeys(expression.output))
    summed = [label for label in labels if label not in kept]
    diagonal = [label for label in labels if term.count(label) > 1]
    subject = f"the diagonal {_spoken(expression, diagonal)} of {name}" if diagonal else name
    if not summed:
        return subject if kept == labels else f"{subject} with its axes in the order {_spoken(expression, kept)}"
    if not kept:
        return f"the sum of all of {subject}"
    return f"for each {_spoken(expression, kept)}: the sum of {subject} over {_spoken(expression, summed)}"


def _several(expression: Expression, names: Sequence[str]) -> str:
    """A product of two or more operands, summed or not."""
    terms = [list(dict.fromkeys(term)) for term in expression.inputs]
    kept = list(dict.fromkeys(expression.output))
    summed = [label for label in dict.fromkeys(label for term in terms for label in term) if label not in kept]
    everywhere = [label for label in kept if all(label in term for term in terms)]
    if not summed and all(set(term) == set(everywhere) for term in terms):
        return f"{_listed(names)} multiplied entry by entry"
    prefix = f"for each {_spoken(expression, everywhere)}: " if everywhere else ""
    own = [[label for label in term if label not in everywhere] for term in terms]
    if not summed:
        return prefix + " times ".join(names if prefix else [f"every entry of {name}" for name in names])
    over = f", summed over {_spoken(expression, summed)}"
    lines = [_lines_of(term, summed, expression.inputs[k]) for k, term in enumerate(own)]
    if len(names) == 2 and all(lines) and set(own[0]) & set(own[1]) == set(summed):
        return f"{prefix}{lines[0]} of {names[0]} against {lines[1]} of {names[1]}{over}"
    if all(term == summed for term in own):
        return f"{prefix}the products of {_listed(names)}{over}"
    return f"{prefix}{_listed(names)} multiplied{over}"


def _lines_of(own: list[Label], summed: list[Label], term: Sequence[Label]) -> str | None:
    """What runs along the summed label in a matrix: its rows, or its columns; None for what is no matrix."""
    if len(own) != 2 or len(summed) != 1 or summed[0] not in own or len(set(term)) < len(term):
        return None
    return "rows" if own[1] == summed[0] else "columns"


def _spoken(expression: Expression, labels: Sequence[Label]) -> str:
    """Labels by name; the labels of one ellipsis are said once."""
    names = ("..." if expression.names[label].startswith("...") else expression.names[label] for label in labels)
    return ", ".join(name for name, _ in groupby(names))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
