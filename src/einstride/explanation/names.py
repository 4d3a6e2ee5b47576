"""Names for what an expression leaves nameless or names as no program can: operands, and labels as identifiers."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Sequence
from itertools import count

from ..expression import Expression

RESULT = "out"
_TAKEN = {*keyword.kwlist, RESULT, "np", "torch", "range", "product", "left", "right"}


def operand_names(expression: Expression) -> tuple[str, ...]:
    """A, B, C and so on, unless one of those is a label or there are more than 26: then op0, op1, ...

    >>> from einstride.expression import parse
    >>> operand_names(parse("ij,jk", (2, 2))), operand_names(parse("AB,BC", (2, 2)))
    (('A', 'B'), ('op0', 'op1'))
    """
    operands = len(expression.inputs)
    letters = tuple([chr(ord("A") + number) for number in range(operands)])
    if operands <= 26 and not set(letters) & set(expression.names):
        return letters
    return tuple([f"op{number}" for number in range(operands)])


def identifiers(expression: Expression, operands: Sequence[str]) -> tuple[str, ...]:
    """A Python identifier per label, all different from each other and from the operands' names.

    Python reads identifiers in Unicode's compatible form (NFKC), in which letters that look alike may be one.

    >>> from einstride.expression import parse, parse_interleaved
    >>> identifiers(parse("...i,λ", (2, 1)), ("A", "B"))
    ('e0', 'i', 'λ')
    >>> identifiers(parse_interleaved([[0, "a b"], ["for", "A"]], [0], (2, 2)), ("op0", "op1"))
    ('i0', 'a_b', 'for_', 'A')
    """
    taken = {*_TAKEN, *operands, *(f"step_{number}" for number in range(1, 2 * len(operands)))}
    found: list[str] = []
    for name in expression.names:
        wanted = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name.replace("...", "e")))
        if not wanted.isidentifier():
            wanted = f"i{wanted}" if wanted.isascii() else f"label{len(found)}"
        if wanted in taken:
            wanted = next(other for n in count() if (other := f"{wanted}_{n or ''}") not in taken)
        taken.add(wanted)
        found.append(wanted)
    return tuple(found)
