"""What all pictures share: their frame, the colours of labels, and how wide text is."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

from ..expression import Label

COLOURS = 12
"""Labels with a colour of their own; later ones take the same again with a broken line."""

CHARACTER = 7.4
"""Pixels of a character at 12 pixels; no monospace face is wider."""


def label_class(label: Label) -> str:
    """The CSS classes of a label: its colour, and a pattern where colours are used again.

    >>> label_class(1), label_class(13)
    ('c1', 'c1 again1')
    """
    again = label // COLOURS
    return f"c{label % COLOURS}" + (f" again{min(again, 2)}" if again else "")


def cells(text: str) -> int:
    """The characters' places in a monospace face, where some take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def svg(width: float, height: float, kind: str, title: str, parts: Iterable[str]) -> str:
    """A picture of this size in pixels."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
