"""``einstride lint``: read files and notebooks without running them, and report what is wrong with their einsums."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import dedent, fill
from typing import TextIO

from ..errors import pointed
from ..lint import RULES, Finding, findings, read

_SUFFIXES = (".py", ".pyi", ".ipynb")
_STYLES = {"error": "bold red", "warning": "bold yellow"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    codes = "\n".join(
        fill(summary, 79, initial_indent=f"  {code}  ", subsequent_indent=" " * 6) for code, summary in RULES.items()
    )
    examples = dedent("""\
        examples:
          einstride lint src tests            Python files and notebooks, in folders too
          einstride lint --strict analysis.ipynb
          einstride lint --format github .    annotations on a pull request

        A comment on a call's line silences it: # einstride: ignore, or
        # einstride: ignore[W1, W5]. The exit status is 1 if there are errors (with
        --strict, also warnings), 2 if a path cannot be read, else 0.""")
    parser = commands.add_parser(
        "lint",
        help="find mistakes in the einsums of Python files and notebooks, without running them",
        description=dedent("""\
            Read Python files and notebooks, without running them, and report what is
            wrong with their einsum calls: those of NumPy, JAX, PyTorch, TensorFlow,
            opt_einsum, CuPy, Dask and einstride, found by following imports.
            """)
        + f"\ncodes (E: the call raises; W: it runs, and may not do what was meant):\n{codes}",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a .py file, an .ipynb notebook or a folder"
    )
    parser.add_argument("--format", choices=("text", "json", "github"), default="text", help="of the report (text)")
    parser.add_argument("--strict", action="store_true", help="let warnings fail as errors do")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Lint the paths: 2 if one cannot be read, else 1 if there are errors (warnings, too, if strict), else 0."""
    found: list[Finding] = []
    unread = False
    for path in options.paths:
        for file in files(path):
            try:
                found += findings(read(file))
            except (OSError, RecursionError, SyntaxError, ValueError) as error:
                print(f"einstride lint: {file} cannot be read: {error}", file=sys.stderr)
                unread = True
    {"text": write_text, "json": write_json, "github": write_github}[options.format](found, sys.stdout)
    failed = any(options.strict or finding.severity == "error" for finding in found)
    return 2 if unread else int(failed)


def files(path: Path) -> Iterator[Path]:
    """The path itself, or the Python files and notebooks of a folder, sorted; hidden folders are left out."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(_SUFFIXES))


def write_text(found: Sequence[Finding], stream: TextIO) -> None:
    """``path:line:column: code message``, and the line with carets; in colour on a terminal."""
    console = None
    if stream.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            console = Console(file=stream, highlight=False, soft_wrap=True)
    for finding in found:
        span = (finding.column - 1, finding.end_column - 1)
        head, *shown = pointed(f"{finding.code} {finding.message}", finding.text, span).split("\n")
        if console is None:
            stream.write("\n".join([f"{finding.place}: {head}", *shown]) + "\n")
            continue
        from rich.text import Text

        style = _STYLES[finding.severity]
        line = Text.assemble((finding.place, "bold"), ": ", (finding.code, style), f" {finding.message}\n{shown[0]}\n")
        console.print(line.append(shown[1], style))
    errors = sum(finding.severity == "error" for finding in found)
    if found:
        stream.write(f"{_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}\n")


def write_json(found: Sequence[Finding], stream: TextIO) -> None:
    """A list of objects, one for each finding."""
    json.dump([asdict(finding) | {"severity": finding.severity} for finding in found], stream, indent=2)
    stream.write("\n")


def write_github(found: Sequence[Finding], stream: TextIO) -> None:
    """Workflow commands that annotate a pull request; notebooks, whose lines are not the file's, at their top."""
    for finding in found:
        where = f"file={_property(finding.path)},"
        message = finding.message
        if finding.cell is None:
            where += f"line={finding.line},col={finding.column},endColumn={finding.end_column},"
        else:
            where += "line=1,"
            message = f"cell {finding.cell}, line {finding.line}: {message}"
        stream.write(f"::{finding.severity} {where}title=einstride {finding.code}::{_data(message)}\n")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
