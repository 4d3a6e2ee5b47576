"""The symbolic part of an einsum: the only file that knows letters, ``->`` and ``...``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral
from typing import TypeAlias

from .errors import OperandTypeError, ShapeError, SubscriptsError, nearest, pointed

Label: TypeAlias = int
Shape: TypeAlias = tuple[int, ...]

_ELLIPSIS = "..."
_ALTERNATE = "without a subscripts string, operands and labels alternate: einsum(a, [0, 1], b, [1, 2], [0, 2])"


@dataclass(frozen=True, slots=True)
class Expression:
    """What is multiplied and summed, without extents.

    Labels are dense integers in order of first appearance, so expressions that differ only in
    spelling are equal. ``names[label]`` is how the caller wrote the label; it serves messages and is
    not compared. An ellipsis becomes the labels named ``...0``, ``...1`` and so on, left to right.
    """

    inputs: tuple[tuple[Label, ...], ...]
    output: tuple[Label, ...]
    names: tuple[str, ...] = field(compare=False)

    def __str__(self) -> str:
        return spell(self)[0]


@dataclass(frozen=True, slots=True)
class _Mark:
    """One symbol of a term, ``...`` included, and where it stands in the text."""

    symbol: Hashable
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Spelling:
    """Terms as marks with the text they are spans of, before ellipses have a rank."""

    text: str
    inputs: tuple[tuple[_Mark, ...], ...]
    output: tuple[_Mark, ...] | None
    input_spans: tuple[tuple[int, int], ...]
    letters: bool


def parse(subscripts: str, ranks: Sequence[int], shapes: Sequence[Shape] | None = None) -> Expression:
    """Read subscripts such as ``"ij, jk -> ik"`` for operands of the given ranks.

    Any Unicode letter is a label, whitespace means nothing anywhere. Without ``->`` the output is the
    ellipsis followed by the labels that appear once, sorted. A label may repeat in the output, and an
    ellipsis that the output lacks is summed over. ``shapes`` only makes the messages say more.

    Raises:
        SubscriptsError: the subscripts are malformed.
        ShapeError: a term does not have as many labels as its operand has axes.

    >>> parse("ij,jk->ik", (2, 2))
    Expression(inputs=((0, 1), (1, 2)), output=(0, 2), names=('i', 'j', 'k'))
    >>> parse("...i", (3,)).names
    ('...0', '...1', 'i')
    """
    return _resolve(_scan(subscripts), ranks, shapes)


def parse_unranked(subscripts: str) -> Expression:
    """Read subscripts whose operands are not there: each has the axes its term names, and an ellipsis stands for none.

    Raises:
        SubscriptsError: the subscripts are malformed; the error's first argument is a `Pointed`.

    >>> parse_unranked("...ij->ji").output
    (1, 0)
    """
    spelling = _scan(subscripts)
    ranks = [sum(mark.symbol is not Ellipsis for mark in term) for term in spelling.inputs]
    return _resolve(spelling, ranks, None)


def parse_interleaved(
    operand_labels: Sequence[Iterable[Hashable]],
    output_labels: Iterable[Hashable] | None,
    ranks: Sequence[int],
    shapes: Sequence[Shape] | None = None,
) -> Expression:
    """Read the form ``einsum(a, [0, 1], b, [1, 2], [0, 2])``: labels are any hashable, or ``Ellipsis``.

    Raises:
        SubscriptsError: the labels are malformed, or the output is left out and they cannot be sorted.
        ShapeError: a list does not have as many labels as its operand has axes.
        OperandTypeError: a label is not hashable, or the labels are not a sequence.

    >>> parse_interleaved([["row", "sum"], ["sum", "col"]], ["row", "col"], (2, 2))
    Expression(inputs=((0, 1), (1, 2)), output=(0, 2), names=('row', 'sum', 'col'))
    """
    text = ""
    terms: list[tuple[_Mark, ...]] = []
    spans: list[tuple[int, int]] = []
    for number, labels in enumerate([*operand_labels, *([] if output_labels is None else [output_labels])]):
        is_output = number == len(operand_labels)
        text += "" if number == 0 and not is_output else " -> " if is_output else ", "
        start = len(text)
        text += "["
        marks: list[_Mark] = []
        where = "the output" if is_output else f"operand {number}"
        listed = ordered_labels(labels, where)
        for position, label in enumerate(listed):
            text += ", " if position else ""
            name = _name(label)
            try:
                hash(label)
            except TypeError:
                raise OperandTypeError(
                    f"label {position} of {where} is {label!r}; a label must be hashable or Ellipsis; {_ALTERNATE}"
                ) from None
            marks.append(_Mark(label, (len(text), len(text) + len(name))))
            text += name
        text += "]"
        terms.append(tuple(marks))
        spans.append((start, len(text)))
    output = None if output_labels is None else terms.pop()
    return _resolve(_Spelling(text, tuple(terms), output, tuple(spans[: len(terms)]), False), ranks, shapes)


def spell(expression: Expression) -> tuple[str, tuple[tuple[tuple[int, int], ...], ...]]:
    """Return the expression as text and, per input term, the span of each of its axes.

    >>> spell(parse(" ij , jk -> ik", (2, 2)))
    ('ij,jk->ik', (((0, 1), (1, 2)), ((3, 4), (4, 5))))
    """
    letters = all((len(name) == 1 and name.isalpha()) or name.startswith(_ELLIPSIS) for name in expression.names)
    comma, arrow, opening, between, closing = (",", "->", "", "", "") if letters else (", ", " -> ", "[", ", ", "]")
    text = ""
    spans: list[tuple[tuple[int, int], ...]] = []
    for number, term in enumerate((*expression.inputs, expression.output)):
        text += arrow if number == len(expression.inputs) else comma if number else ""
        text += opening
        axes: list[tuple[int, int]] = []
        in_ellipsis = False
        for position, label in enumerate(term):
            name = expression.names[label]
            if name.startswith(_ELLIPSIS):
                if in_ellipsis:
                    axes.append(axes[-1])
                    continue
                name, in_ellipsis = _ELLIPSIS, True
            text += between if position else ""
            axes.append((len(text), len(text) + len(name)))
            text += name
        text += closing
        spans.append(tuple(axes))
    return text, tuple(spans[:-1])


def _name(label: Hashable) -> str:
    if label is Ellipsis:
        return _ELLIPSIS
    return label if isinstance(label, str) else str(int(label)) if isinstance(label, Integral) else repr(label)


def ordered_labels(labels: object, where: str) -> tuple[Hashable, ...]:
    """The labels of one term of the interleaved form; ``where`` names the term.

    Raises:
        OperandTypeError: they have no order, or are what an operand or a subscripts string is.

    >>> ordered_labels(range(2), "operand 0"), ordered_labels("ij", "the output")
    ((0, 1), ('i', 'j'))
    """
    if isinstance(labels, str) and ("->" in labels or "," in labels):
        raise OperandTypeError(f"the subscripts {labels!r} come first, before the operands: einsum({labels!r}, ...)")
    shape, dtype = getattr(labels, "shape", (0,)), getattr(labels, "dtype", None)
    if isinstance(labels, Set | Mapping):
        problem = f"a {type(labels).__name__}, which has no order"
    elif len(shape) != 1 or getattr(dtype, "kind", "i") in "fc":
        problem = f"an array of {dtype}, shape {tuple(shape)}, as an operand is"
    elif not isinstance(labels, Iterable):
        problem = f"{labels!r}"
    else:
        return tuple(labels)
    raise OperandTypeError(f"the labels of {where} must be a sequence of hashables, not {problem}; {_ALTERNATE}")


def _scan(text: str) -> _Spelling:
    terms: list[list[_Mark]] = [[]]
    starts = [0]
    ends: list[int] = []
    arrow: tuple[int, int] | None = None
    at = 0

    def place() -> str:
        return "the output" if arrow else f"the term of operand {len(terms) - 1}"

    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
        elif char.isalpha():
            terms[-1].append(_Mark(char, (at, at + 1)))
            at += 1
        elif char == ",":
            if arrow:
                raise SubscriptsError(pointed("the output is one term, it cannot have a ','", text, (at, at + 1)))
            ends.append(at)
            terms.append([])
            starts.append(at + 1)
            at += 1
        elif char == ".":
            stop = _skip(text, at, _ELLIPSIS)
            if stop is None:
                message = f"the '.' at position {at}, in {place()}, is not part of an ellipsis '...'"
                raise SubscriptsError(pointed(message, text, (at, at + 1)))
            terms[-1].append(_Mark(Ellipsis, (at, stop)))
            at = stop
        elif char in "->":
            stop = _skip(text, at, "->")
            if stop is None:
                message = (
                    f"the {char!r} at position {at}, in {place()}, is not part of '->', which stands before the output"
                )
                raise SubscriptsError(pointed(message, text, (at, at + 1)))
            if arrow:
                message = "'->' appears twice; it stands once, before the output"
                raise SubscriptsError(pointed(message, text, arrow, (at, stop)))
            arrow = (at, stop)
            ends.append(at)
            terms.append([])
            starts.append(stop)
            at = stop
        else:
            shown = repr(char) if char.isascii() else f"{char!r} (U+{ord(char):04X})"
            message = f"{shown} at position {at}, in {place()}, is not a label; labels are letters"
            if char.isdigit():
                message += " (numbers are labels in the form einsum(a, [0, 1], b, [1, 2], [0, 2]))"
            elif char in "<=":
                message += "; did you mean '->'?"
            raise SubscriptsError(pointed(message, text, (at, at + 1)))
    ends.append(len(text))
    output = tuple(terms.pop()) if arrow else None
    spans = tuple(_stripped(text, start, end) for start, end in zip(starts, ends, strict=True))
    return _Spelling(text, tuple(map(tuple, terms)), output, spans[: len(terms)], True)


def _skip(text: str, at: int, token: str) -> int | None:
    """Where ``token``, with whitespace allowed inside it, ends if it starts at ``at``."""
    for char in token:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text) or text[at] != char:
            return None
        at += 1
    return at


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    begin = start + len(piece) - len(piece.lstrip())
    return begin, max(begin, start + len(piece.rstrip()))


def _resolve(spelling: _Spelling, ranks: Sequence[int], shapes: Sequence[Shape] | None) -> Expression:
    """Turn symbols into dense labels, give the ellipsis its labels, and work out the output."""
    if len(spelling.inputs) != len(ranks):
        raise SubscriptsError(_operand_count_message(spelling, len(ranks)))
    for number, term in enumerate((*spelling.inputs, spelling.output or ())):
        ellipses = [mark.span for mark in term if mark.symbol is Ellipsis]
        if len(ellipses) > 1:
            where = f"the term of operand {number}" if number < len(ranks) else "the output"
            raise SubscriptsError(pointed(f"{where} has two ellipses; it can have one", spelling.text, *ellipses))
    widths: list[int] = []  # axes that the ellipsis of each term stands for
    for number, (term, rank) in enumerate(zip(spelling.inputs, ranks, strict=True)):
        has_ellipsis = any(mark.symbol is Ellipsis for mark in term)
        named = len(term) - has_ellipsis
        if named > rank or (named < rank and not has_ellipsis):
            raise ShapeError(_rank_message(spelling, number, named, rank, None if shapes is None else shapes[number]))
        widths.append(rank - named if has_ellipsis else 0)
    width = max(widths, default=0)

    names: list[str] = []
    labels: dict[Hashable, Label] = {}

    def label_of(symbol: Hashable, name: str) -> Label:
        if symbol not in labels:
            labels[symbol] = len(names)
            names.append(name)
        return labels[symbol]

    def ellipsis_labels(count: int) -> list[Label]:
        # Broadcasting aligns the ellipses at their right ends.
        return [label_of(_EllipsisAxis(k), f"{_ELLIPSIS}{k}") for k in range(width - count, width)]

    inputs: list[tuple[Label, ...]] = []
    for term, count in zip(spelling.inputs, widths, strict=True):
        term_labels: list[Label] = []
        for mark in term:
            if mark.symbol is Ellipsis:
                term_labels += ellipsis_labels(count)
            else:
                term_labels.append(label_of(mark.symbol, _name(mark.symbol)))
        inputs.append(tuple(term_labels))

    output: list[Label] = []
    if spelling.output is None:
        output += ellipsis_labels(width)
        output += [labels[symbol] for symbol in _implicit_output(spelling)]
    else:
        for mark in spelling.output:
            if mark.symbol is Ellipsis:
                output += ellipsis_labels(width)
            elif mark.symbol not in labels:
                raise SubscriptsError(_unknown_message(spelling, mark))
            else:
                output.append(labels[mark.symbol])
    return Expression(tuple(inputs), tuple(output), tuple(names))


@dataclass(frozen=True, slots=True)
class _EllipsisAxis:
    """The key of an ellipsis label: equal to no label a caller can write."""

    position: int


def _implicit_output(spelling: _Spelling) -> list[Hashable]:
    counts = Counter(mark.symbol for term in spelling.inputs for mark in term if mark.symbol is not Ellipsis)
    once = [symbol for symbol, count in counts.items() if count == 1]
    try:
        return sorted(once)  # type: ignore[type-var]
    except TypeError:
        raise SubscriptsError(
            f"the labels of {spelling.text} cannot be sorted, so the output has no order: "
            "give the output's labels as the last argument"
        ) from None


def _operand_count_message(spelling: _Spelling, operands: int) -> str:
    named = len(spelling.inputs)
    said = f"the subscripts have {named} {'term' if named == 1 else 'terms'} for {operands} " + (
        "operand" if operands == 1 else "operands"
    )
    if named > operands:
        missing = named - operands
        said += f": {'the last one lacks its' if missing == 1 else f'the last {missing} lack their'} operand"
        return pointed(said, spelling.text, *spelling.input_spans[operands:])
    end = spelling.input_spans[-1][1] if spelling.input_spans else 0
    first, last = named, operands - 1
    said += f": operand {first} has" if first == last else f": operands {first} to {last} have"
    return pointed(said + " no term", spelling.text, (end, end + 1))


def _rank_message(spelling: _Spelling, number: int, named: int, rank: int, shape: Shape | None) -> str:
    start, stop = spelling.input_spans[number]
    term = spelling.text[start:stop]
    axes = "1 axis" if rank == 1 else f"{rank} axes"
    shown = "" if shape is None else f", shape {shape}"
    ellipsis = any(mark.symbol is Ellipsis for mark in spelling.inputs[number])
    names = f"`{term}` names at least {named}" if ellipsis else f"`{term}` names {named}" if term else "is empty"
    message = f"operand {number} has {axes}{shown}; its term {names}"
    words = term.split()
    if spelling.letters and len(words) > 1 and max(map(len, words)) > 1:
        message += f" (each letter is a label; words are labels in the form einsum(a, {words}, ...))"
    elif not ellipsis and rank > named:
        hint = f"`...{term}`" if spelling.letters else "Ellipsis among the labels"
        message += f" (to broadcast over the other axes, write {hint})"
    return pointed(message, spelling.text, (start, stop))


def _unknown_message(spelling: _Spelling, mark: _Mark) -> str:
    known = sorted({_name(m.symbol) for term in spelling.inputs for m in term if m.symbol is not Ellipsis})
    name = _name(mark.symbol)
    message = f"output label `{name}` is in no operand"
    near = nearest(name, known)
    if near is None:
        # The label that would otherwise be summed away alone is likely the one that was meant.
        written = Counter(_name(m.symbol) for term in (*spelling.inputs, spelling.output or ()) for m in term)
        alone = [other for other in known if written[other] == 1]
        near = alone[0] if len(alone) == 1 else None
    if near is not None and near != name:
        message += f"; did you mean `{near}`?"
    return pointed(message, spelling.text, mark.span)
