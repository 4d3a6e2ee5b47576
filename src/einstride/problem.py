"""A Problem: an expression with extents, and where each label lies in each operand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

from .errors import ShapeError, SizeError, pointed
from .expression import Expression, Label, Shape, spell

INT64_MAX = 2**63 - 1
# Of an operand whose extents clash every order of its axes is tried, to say which would fit: 24 at the most.
_MOST_TRIED_AXES = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """An expression bound to shapes: ``extents[label]`` is the number of values the label takes."""

    expression: Expression
    extents: tuple[int, ...]
    shapes: tuple[Shape, ...]


def bind(expression: Expression, shapes: Sequence[Shape]) -> Problem:
    """Give every label its extent. An axis of extent 1 stretches to what the label is elsewhere.

    Raises:
        ShapeError: two axes give a label different extents.

    >>> from .expression import parse
    >>> bind(parse("ij,jk->ik", (2, 2)), ((3, 4), (4, 5))).extents
    (3, 4, 5)
    """
    extents = [1] * len(expression.names)
    for number, (term, shape) in enumerate(zip(expression.inputs, shapes, strict=True)):
        for axis, (label, extent) in enumerate(zip(term, shape, strict=True)):
            if extents[label] == 1:
                extents[label] = extent
            elif extent != 1 and extent != extents[label]:
                raise ShapeError(_clash_message(expression, shapes, number, axis, stretch=True))
        if len(set(term)) < len(term):
            # A diagonal needs equal axes: extent 1 stretches between operands, not within one.
            for axis, label in enumerate(term):
                if shape[axis] != shape[term.index(label)]:
                    raise ShapeError(_clash_message(expression, shapes, number, axis, stretch=False))
    return Problem(expression, tuple(extents), tuple(tuple(shape) for shape in shapes))


def terms(problem: Problem) -> tuple[tuple[Label, ...], ...]:
    """Per operand the distinct labels it varies along, sorted: broadcast axes are left out.

    >>> from .expression import parse
    >>> terms(bind(parse("iij,kj->k", (3, 2)), ((2, 2, 5), (3, 1))))
    ((0, 1), (2,))
    """
    extents = problem.extents
    return tuple(
        tuple(sorted({label for label, extent in zip(term, shape, strict=True) if extent == extents[label]}))
        for term, shape in zip(problem.expression.inputs, problem.shapes, strict=True)
    )


def axis_strides(problem: Problem, operand: int, strides: Sequence[int]) -> dict[Label, int]:
    """The stride of each label in one operand, in the unit of ``strides``.

    The strides of a repeated label add up (a diagonal); an axis of extent 1 whose label is longer
    elsewhere is left out (a broadcast).

    >>> from .expression import parse
    >>> axis_strides(bind(parse("ii->i", (2,)), ((3, 3),)), 0, (24, 8))
    {0: 32}
    """
    found: dict[Label, int] = {}
    term, shape = problem.expression.inputs[operand], problem.shapes[operand]
    for label, extent, stride in zip(term, shape, strides, strict=True):
        if extent == problem.extents[label]:
            found[label] = found.get(label, 0) + stride
    return found


def output_shape(problem: Problem) -> Shape:
    """The output's shape; a label repeated in the output gives several axes.

    >>> from .expression import parse
    >>> output_shape(bind(parse("i,j->jii", (1, 1)), ((2,), (3,))))
    (3, 2, 2)
    """
    return tuple([problem.extents[label] for label in problem.expression.output])


def output_strides(problem: Problem, strides: Sequence[int]) -> dict[Label, int]:
    """The stride of each label in the output; a repeated label walks the diagonal."""
    found: dict[Label, int] = {}
    for label, stride in zip(problem.expression.output, strides, strict=True):
        found[label] = found.get(label, 0) + stride
    return found


def summed_broadcasts(problem: Problem) -> list[str]:
    """A message for each axis of extent 1 that stretches along a summed label: what is there is counted many times.

    >>> from .expression import parse
    >>> print(*summed_broadcasts(bind(parse("ij,ij->i", (2, 2)), ((3, 1), (3, 4)))))
    label 'j' is summed over 4 values, but operand 0 has extent 1 there (axis 1 of shape (3, 1)), so its elements ...
      ij,ij->i
       ^
    """
    expression, extents = problem.expression, problem.extents
    found: list[str] = []
    for number, (term, shape) in enumerate(zip(expression.inputs, problem.shapes, strict=True)):
        for axis, (label, extent) in enumerate(zip(term, shape, strict=True)):
            if extent == 1 != extents[label] and label not in expression.output:
                text, spans = spell(expression)
                message = (
                    f"{_called(expression, label)} is summed over {extents[label]} values, but operand {number} has "
                    f"extent 1 there (axis {axis} of shape {shape}), so its elements are counted {extents[label]} times"
                )
                found.append(pointed(message, text, spans[number][axis]))
    return found


def checked_size(problem: Problem, labels: Sequence[Label], itemsize: int) -> int:
    """The bytes of a dense tensor with these labels.

    Raises:
        SizeError: the size does not fit in 63 bits.

    >>> from .expression import parse
    >>> checked_size(bind(parse("i,j->ij", (1, 1)), ((2,), (3,))), (0, 1), 8)
    48
    """
    extents = [problem.extents[label] for label in labels]
    size = prod([extent or 1 for extent in extents]) * itemsize  # NumPy, too, counts an extent of 0 as 1 here
    if size > INT64_MAX:
        names = "".join(problem.expression.names[label] for label in labels)
        raise SizeError(
            f"a tensor `{names}` of shape {tuple(extents)} would hold {size:.3e} bytes; "
            f"64-bit sizes end at {INT64_MAX:.3e}\n  {problem.expression}"
        )
    return 0 if 0 in extents else size


def _clash_message(expression: Expression, shapes: Sequence[Shape], number: int, axis: int, stretch: bool) -> str:
    """Name the label, both extents and both places. ``stretch``: the other side is a longer axis anywhere before."""
    label = expression.inputs[number][axis]
    extent = shapes[number][axis]
    candidates = range(number + 1) if stretch else (number,)
    other, other_axis = next(
        (o, a)
        for o in candidates
        for a, candidate in enumerate(expression.inputs[o])
        if candidate == label and shapes[o][a] != extent and (not stretch or shapes[o][a] != 1)
    )
    text, spans = spell(expression)
    message = (
        f"{_called(expression, label)} is {shapes[other][other_axis]} in operand {other}, "
        f"axis {other_axis} (shape {tuple(shapes[other])}), "
        f"but {extent} in operand {number}, axis {axis} (shape {tuple(shapes[number])})"
    )
    if other == number and 1 in (extent, shapes[other][other_axis]):
        message += "; extent 1 stretches between operands, not within a diagonal"
    elif other != number:
        message += _transposed_hint(expression, shapes, number, other)
    return pointed(message, text, spans[other][other_axis], spans[number][axis])


def _called(expression: Expression, label: Label) -> str:
    name = expression.names[label]
    return "an axis of the ellipsis" if name.startswith("...") else f"label '{name}'"


def _transposed_hint(expression: Expression, shapes: Sequence[Shape], *suspects: int) -> str:
    """The terms that would fit, each another order of one suspect's labels; nothing where they are many."""
    fitting: list[str] = []
    for number in suspects:
        term = expression.inputs[number]
        if len(term) > _MOST_TRIED_AXES or any(expression.names[label].startswith("...") for label in term):
            continue
        for order in sorted(set(permutations(term)) - {term}):
            if _fits((*expression.inputs[:number], order, *expression.inputs[number + 1 :]), shapes):
                written = str(Expression((order,), (), expression.names)).partition("->")[0].strip()
                fitting.append(f"`{written}` for operand {number}")
    return f"; did you mean {' or '.join(fitting)}?" if 1 <= len(fitting) <= len(suspects) else ""


def _fits(inputs: Sequence[tuple[Label, ...]], shapes: Sequence[Shape]) -> bool:
    """Whether no label has two extents, extent 1 aside."""
    pairs = {pair for term, shape in zip(inputs, shapes, strict=True) for pair in zip(term, shape, strict=True)}
    labels = [label for label, extent in pairs if extent != 1]
    return len(set(labels)) == len(labels)


def dense_strides(extents: Sequence[int], order: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes, per axis or label, of elements that lie without gaps in ``order``, outermost first; 0 for what
    is not in it.

    >>> dense_strides((2, 3, 5), (2, 0, 1), 8), dense_strides((2, 3, 5), (2, 0), 8)
    ((24, 8, 48), (8, 0, 16))
    """
    strides = [0] * len(extents)
    for axis in reversed(order):
        strides[axis] = itemsize
        itemsize *= extents[axis] or 1
    return tuple(strides)
