"""What lint reports: one Finding for each place, under one of the codes in RULES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]

# Errors are calls that raise; warnings are calls that run, and may not do what was meant or not as fast as they could.
RULES = {
    "E1": "the subscripts are malformed",
    "E2": "there are more or fewer operands than terms",
    "E3": "an output label is in no operand",
    "E4": "the subscripts are right in einstride, but not in the library that is called",
    "W1": "a label of one operand among several is summed away, for the output lacks it",
    "W2": "the output is left out, and its alphabetical order is not the order of first appearance",
    "W3": "numpy.einsum sums in float16",
    "W4": "two calls in a row would be cheaper as one",
    "W5": "numpy.einsum has three or more operands, no optimize=, and more to compute than in pairs",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One report. Lines, columns and cells count from 1, columns in characters; ``end_column`` is the one after.

    ``line`` is a line of the file or, in a notebook, of cell number ``cell``; ``text`` is that line.
    """

    path: str
    cell: int | None
    line: int
    column: int
    end_column: int
    code: str
    message: str
    text: str

    @property
    def severity(self) -> Severity:
        """Errors have a code in E, warnings one in W."""
        return "error" if self.code.startswith("E") else "warning"

    @property
    def place(self) -> str:
        """``path:line:column``, or ``path:cell 2:line:column``."""
        cell = "" if self.cell is None else f"cell {self.cell}:"
        return f"{self.path}:{cell}{self.line}:{self.column}"
