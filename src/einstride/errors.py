"""Every error einstride raises, and the caret that points into the subscripts."""

from __future__ import annotations

__all__ = [
    "EinsumError",
    "OperandTypeError",
    "OptionError",
    "OutputError",
    "PathError",
    "PlanMemoryError",
    "ShapeError",
    "SizeError",
    "SubscriptsError",
    "pointed",
]


class EinsumError(ValueError):
    """A call that cannot be an einsum; the base of every error raised here."""


class SubscriptsError(EinsumError):
    """The subscripts themselves are wrong, whatever the operands."""


class ShapeError(EinsumError):
    """The operands' shapes do not fit the subscripts, or each other."""


class SizeError(ShapeError):
    """A tensor that would have to be allocated holds more bytes than 64 bits can count."""


class OutputError(EinsumError):
    """``out=`` cannot take the result: wrong shape, or read-only."""


class OptionError(EinsumError):
    """A keyword has a value that means nothing."""


class PathError(EinsumError, RuntimeError):
    """A contraction path that does not lead from the operands to one output."""


class OperandTypeError(EinsumError, TypeError):
    """An argument of a type, or an element type, that cannot take part."""


class PlanMemoryError(EinsumError, MemoryError):
    """No plan fits the memory that was allowed."""


def pointed(message: str, text: str, *spans: tuple[int, int]) -> str:
    """Return ``message`` followed by ``text`` with carets under the half-open ``spans``.

    >>> print(pointed("axis 'j' is missing", "ij->i", (1, 2)))
    axis 'j' is missing
      ij->i
       ^
    """
    # Control characters would break the alignment of the caret line.
    shown = "".join(char if char.isprintable() else " " for char in text)
    marks = [" "] * max([len(shown), *(stop for _, stop in spans)])
    for start, stop in spans:
        marks[start : max(stop, start + 1)] = "^" * max(stop - start, 1)
    return f"{message}\n  {shown}\n  {''.join(marks).rstrip()}"
