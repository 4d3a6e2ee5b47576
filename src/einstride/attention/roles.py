"""What each label of an attention does, and all its tensors as loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod

from ..errors import EinsumError, SubscriptsError, pointed
from ..expression import Expression, Label, Shape, parse, spell
from ..problem import Problem, bind, terms

QUERIES, KEYS, VALUES = range(3)


class Role(IntEnum):
    """What a loop does; the numbering is the one of the C++ ``AttendRole``."""

    BATCH = 0
    QUERY = 1
    KEY = 2
    DEPTH = 3
    VALUE = 4


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention bound to shapes.

    Attributes:
        problem: the terms of queries, keys and values, then those of the further tensors, and the output's.
        roles: per label.
        along: the query label that positions are counted along; None where nothing depends on positions.
    """

    problem: Problem
    roles: tuple[Role, ...]
    along: Label | None

    def labels(self, *roles: Role) -> tuple[Label, ...]:
        """The labels of these roles, in order of first appearance."""
        return tuple([label for label, role in enumerate(self.roles) if role in roles])

    def extent(self, role: Role) -> int:
        """The product of the extents of a role's labels."""
        return prod([self.problem.extents[label] for label in self.labels(role)])

    @property
    def lse_labels(self) -> tuple[Label, ...]:
        """The labels of the log of the sum of exponentials: the output's without those of the values."""
        return tuple([label for label in self.problem.expression.output if self.roles[label] != Role.VALUE])


def bind_attention(
    subscripts: str,
    shapes: Sequence[Shape],
    further: Sequence[tuple[str, str, Shape]],
    over: str,
    positional: bool,
    along: str | None,
) -> Attention:
    """Read the subscripts of an attention and tell what each label does.

    ``further`` lists the tensors that have terms of their own: the keyword, the term and the shape. ``positional`` says
    that some query sees other keys than another because of where it stands.

    A label of the output is a query label if only the queries vary along it, a value label if only the values have it,
    and a batch label else. A label that is neither in the output nor in the values is contracted into the score. A
    tensor does not vary along an axis of extent 1 whose label is longer elsewhere.

    Raises:
        SubscriptsError: the subscripts are malformed, or a label has no meaning in an attention.
        ShapeError: a term does not fit its tensor, or extents clash.

    >>> bound = bind_attention("qhd,kd,ke->qhe", ((5, 2, 4), (7, 4), (7, 3)), (), "k", False, None)
    >>> [role.name for role in bound.roles]
    ['QUERY', 'QUERY', 'DEPTH', 'KEY', 'VALUE']
    """
    inputs, arrow, output = subscripts.partition("->")
    if not arrow:
        raise SubscriptsError(
            pointed("an attention names its output: add '->' and the output's term", subscripts, (len(subscripts),) * 2)
        )
    expression = parse(subscripts, tuple(map(len, shapes)), shapes)
    problem = bind(expression, shapes)
    for number, (keyword, term, shape) in enumerate(further, len(shapes)):
        inputs, shapes = f"{inputs},{term}", (*shapes, shape)
        try:
            if any(mark in term for mark in ",>"):
                raise SubscriptsError(f"{term!r} is not one term")
            expression = parse(f"{inputs}->{output}", tuple(map(len, shapes)), shapes)
            problem = bind(expression, shapes)
        except EinsumError as error:
            raise type(error)(f"{keyword}=, as operand {number}: {error}") from None

    over_labels = _over(expression, over)
    vary = [set(term) for term in terms(problem)]
    roles = tuple([_role(problem, label, over_labels, vary) for label in range(len(expression.names))])
    for (keyword, _, _), labels in zip(further, expression.inputs[3:], strict=True):
        for label in labels:
            if roles[label] in (Role.DEPTH, Role.VALUE) or (keyword == "lengths" and roles[label] == Role.KEY):
                allowed = "batch and query labels" if keyword == "lengths" else "batch, query and key labels"
                raise _misplaced(expression, label, f"{keyword}= has {allowed} only, but '{{}}' is another")
    return Attention(problem, roles, _along(problem, over_labels, along) if positional else None)


def _over(expression: Expression, over: str) -> tuple[Label, ...]:
    if not over or len(set(over)) < len(over):
        raise SubscriptsError(f"over={over!r} is not a label, such as 'k', that the softmax normalises")
    for name in over:
        if name not in expression.names:
            raise SubscriptsError(f"over={over!r}: no operand has a label '{name}'\n  {expression}")
    return tuple([expression.names.index(name) for name in over])


def _role(problem: Problem, label: Label, over: Sequence[Label], vary: Sequence[set[Label]]) -> Role:
    expression = problem.expression
    queries, keys, values = [label in term for term in vary[:3]]
    if not any(label in term for term in expression.inputs[:3]):
        raise _misplaced(expression, label, "label '{}' is in none of queries, keys and values")
    if label in over:
        if label in expression.output:
            raise _misplaced(expression, label, "the softmax over '{}' is summed, so the output cannot have it")
        if label in expression.inputs[QUERIES]:
            raise _misplaced(expression, label, "the softmax over '{}' runs along keys, so the queries cannot have it")
        return Role.KEY
    if label in expression.output:
        if expression.output.count(label) > 1:
            raise _misplaced(expression, label, "label '{}' is repeated in the output, which an attention's cannot be")
        if queries and not keys and not values:
            return Role.QUERY
        alone = not any(label in expression.inputs[other] for other in (QUERIES, KEYS))
        return Role.VALUE if values and alone else Role.BATCH
    if label in expression.inputs[VALUES]:
        raise _misplaced(
            expression,
            label,
            "label '{}' of the values is neither in the output nor what the softmax runs over: sum it beforehand",
        )
    return Role.DEPTH


def _along(problem: Problem, over: Sequence[Label], along: str | None) -> Label:
    """The label that positions of queries are counted along. An axis of extent 1 in the keys makes no query label."""
    expression = problem.expression
    if len(over) > 1:
        raise SubscriptsError("causal= and local= count positions along one key label, and over= names several")
    names = expression.names
    queries = [
        label
        for label in expression.inputs[QUERIES]
        if label in expression.output and not any(label in expression.inputs[other] for other in (KEYS, VALUES))
    ]
    if along is None:
        aligned = [label for label in queries if problem.extents[label] == problem.extents[over[0]]]
        for found in (queries, aligned):
            if len(found) == 1:
                return found[0]
    if along is None or along not in names:
        wrong = "" if along is None else f"along={along!r} is not a label; "
        shown = " or ".join(f"along='{names[label]}'" for label in queries) or "there is none"
        raise SubscriptsError(
            f"{wrong}causal= and local= count positions along one label that the queries have alone: say {shown}"
            f"\n  {expression}"
        )
    label = names.index(along)
    if label not in queries:
        raise _misplaced(expression, label, "along='{}' is not a label that queries and output have alone")
    return label


def _misplaced(expression: Expression, label: Label, message: str) -> SubscriptsError:
    """An error about a label, with carets wherever it stands."""
    text, spans = spell(expression)
    name = expression.names[label]
    places = [
        span
        for term, axes in zip(expression.inputs, spans, strict=True)
        for own, span in zip(term, axes, strict=True)
        if own == label
    ]
    at = text.find(name, text.index("->") + 2)
    return SubscriptsError(pointed(message.format(name), text, *places, *([(at, at + len(name))] if at >= 0 else [])))
