"""Python files and notebooks as text that can be parsed, with the way back from its lines to theirs."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Cell magics whose cell is Python; cells of all others are left out.
_PYTHON_MAGICS = ("time", "timeit", "capture", "prun", "einstride", "memit", "mprun", "lprun")
_MAGIC = re.compile(r"^(\s*)(?:%[A-Za-z].*|!(?!=).*|\?.*|.*\?\s*|\w+ = [%!].*)$")
_IGNORE = re.compile(r"#\s*einstride:\s*ignore(?:\[([\w\s,]*)\])?")


@dataclass(frozen=True, slots=True)
class Source:
    """Python source, whole: ``places[k]`` is the cell, or None, and the line where line ``k + 1`` of ``text`` is."""

    path: str
    text: str
    places: tuple[tuple[int | None, int], ...]


def read(path: Path) -> Source:
    """Read a Python file or a notebook.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it is in no known encoding.
        ValueError: it is not text, or not a notebook.
    """
    if path.suffix == ".ipynb":
        return from_notebook(path.read_text(encoding="utf-8"), str(path))
    with tokenize.open(path) as file:  # in the encoding that the file declares
        return from_text(file.read(), str(path))


def from_text(text: str, path: str = "<text>") -> Source:
    """A file's source.

    >>> from_text("import numpy").places
    ((None, 1),)
    """
    return Source(path, text, tuple([(None, line) for line in range(1, len(text.split("\n")) + 1)]))


def from_notebook(text: str, path: str = "<notebook>") -> Source:
    """A notebook's code cells as one source, for they share their names. Cells that are not Python are left out.

    Raises:
        ValueError: the text is not a notebook.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise ValueError("not a notebook of format 4")
    lines: list[str] = []
    places: list[tuple[int | None, int]] = []
    for number, cell in enumerate(content["cells"], 1):
        for line, written in enumerate(_cell_code(cell).split("\n"), 1):
            lines.append(written)
            places.append((number, line))
    return Source(path, "\n".join(lines), tuple(places))


def _cell_code(cell: Any) -> str:
    """A cell's code with its magics as lines that do nothing; nothing, if it is no Python then."""
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return ""
    written = cell.get("source", "")
    code = "".join(written) if isinstance(written, list) else str(written)
    first, newline, rest = code.partition("\n")
    if first.startswith("%%") and first[2:].split(" ")[0] in _PYTHON_MAGICS:
        code = f"{newline}{rest}"
    # A line of Python may look like a magic, so it is one only where it must be.
    for candidate in (code, "\n".join(_MAGIC.sub(r"\1pass", line) for line in code.split("\n"))):
        try:
            syntax_tree(candidate)
        except (SyntaxError, ValueError):
            continue
        return candidate
    return ""


def ignored(text: str) -> dict[int, frozenset[str] | None]:
    """The lines with a comment that silences them: the codes it names, or None for all.

    >>> ignored("x = 1  # einstride: ignore[W1]")
    {1: frozenset({'W1'})}
    """
    found: dict[int, frozenset[str] | None] = {}
    if not _IGNORE.search(text):
        return found
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        comment = _IGNORE.search(token.string) if token.type == tokenize.COMMENT else None
        if comment:
            codes = comment.group(1)
            found[token.start[0]] = None if codes is None else frozenset(re.findall(r"\w+", codes))
    return found


def syntax_tree(text: str) -> ast.Module:
    """The text's syntax tree.

    Raises:
        SyntaxError: the text is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's escapes
        return ast.parse(text)
