"""Every error einstride raises, and the caret that points into the subscripts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches

__all__ = [
    "BroadcastWarning",
    "EinsumError",
    "OperandTypeError",
    "OptionError",
    "OutputError",
    "PathError",
    "PlanMemoryError",
    "ShapeError",
    "SizeError",
    "SubscriptsError",
    "nearest",
    "pointed",
    "warn_caller",
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
    """``out=`` cannot take the result: wrong shape, read-only, or elements that share memory."""


class OptionError(EinsumError):
    """A keyword has a value that means nothing."""


class PathError(EinsumError, RuntimeError):
    """A contraction path that does not lead from the operands to one output."""


class OperandTypeError(EinsumError, TypeError):
    """An argument of a type, or an element type, that cannot take part."""


class PlanMemoryError(EinsumError, MemoryError):
    """No plan fits the memory that was allowed."""


class BroadcastWarning(UserWarning):
    """A summed label has extent 1 in one operand and a larger extent in another, which is rarely meant.

    The operand's only value is then counted once per value of the label. It is given when a call is first planned;
    ``warnings.simplefilter("error", BroadcastWarning)`` before then makes it an error.
    """


class Pointed(str):
    """A message of several lines that points into a text: it remembers what it says and where it points."""

    said: str
    spans: tuple[tuple[int, int], ...]


def pointed(message: str, text: str, *spans: tuple[int, int]) -> Pointed:
    """Return ``message`` followed by ``text`` with carets under the half-open ``spans``.

    >>> print(pointed("axis 'j' is missing", "ij->i", (1, 2)))
    axis 'j' is missing
      ij->i
       ^
    """
    # Only an error needs it, and loading it takes longer than NumPy's import should grow by.
    from unicodedata import combining, east_asian_width

    # Control characters would break the alignment of the caret line.
    shown = "".join(char if char.isprintable() else " " for char in text)
    widths = [0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in shown]
    marked = {at for start, stop in spans for at in range(start, max(stop, start + 1))}
    widths += [1] * (max(marked, default=0) + 1 - len(shown))
    marks = "".join(("^" if at in marked else " ") * width for at, width in enumerate(widths))
    made = Pointed(f"{message}\n  {shown}\n  {marks.rstrip()}")
    made.said, made.spans = message, spans
    return made


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that was likely meant: the same but for case and blanks, or close by difflib's measure.

    >>> nearest("Optimal ", ["greedy", "optimal"]), nearest("x", ["greedy"])
    ('optimal', None)
    """
    plain = name.strip().casefold()
    same = [other for other in known if other.casefold() == plain]
    near = same or get_close_matches(name, known, 1)
    return near[0] if len(near) == 1 else None


def warn_caller(warning: Warning) -> None:
    """Give a warning at the line of the first caller outside of this package, however many frames lie between.

    A program whose calls are recorded called another library's einsum, and hears that library's warnings only.
    """
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and (name := frame.f_globals.get("__name__", "")).partition(".")[0] == package:
        if name == f"{package}.record":
            return
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)
