"""The account of a program's einsum calls: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from .. import _core
from ..record import Recorder, Row
from .info import version

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 20


@dataclass(slots=True)
class Account:
    """A program that ran: its command line, its calls, how long it took in seconds, and its exit status."""

    program: Sequence[str]
    recorder: Recorder
    seconds: float = 0.0
    status: int = 0


def show(account: Account, stream: TextIO) -> None:
    """Print the table, those calls first that took longest, and a line about all of them."""
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    rows = account.recorder.rows
    if not rows:
        console.print("einstride: the program called no einsum", style="dim")
        return
    console.print(table(rows[:MOST_ROWS]))
    console.print(summary(account), style="dim", markup=False)
    for row in rows:
        if row.checked:
            console.print(f"WRONG {row.subscripts} at {place(row)}: {row.checked}", style="bold red", markup=False)


def table(rows: Sequence[Row]) -> Table:
    """A call is three lines: its subscripts, its operands, where it is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    found.add_column("einsum", overflow="fold", ratio=1)
    for heading in ("calls", "time\nNumPy's", "times\nas fast", "flops a call\nkernel"):
        found.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        call = Text.assemble((row.subscripts, "bold"), "\n", operands(row), "\n", (place(row), "dim"))
        own = row.own_seconds
        speed = own / row.seconds if own is not None and row.seconds and not row.refused else None
        style = "" if speed is None else "green" if speed >= 1 else "yellow"
        found.add_row(
            call,
            f"{row.count:,}",
            f"{duration(row.seconds)}\n{'-' if own is None or row.refused else duration(own)}",
            Text("-" if speed is None else ratio(speed), style),
            Text(f"{scaled(row.plan.cost.flops) if row.plan else '-'}\n{row.kernel}", "red" if row.checked else ""),
        )
    return found


def summary(account: Account) -> str:
    """A line about all calls together."""
    recorder = account.recorder
    rows = recorder.rows
    calls, seconds = sum(row.count for row in rows), sum(row.seconds for row in rows)
    timed = [row for row in rows if row.own_seconds is not None]
    own = sum(row.own_seconds or 0 for row in timed)
    lines = [
        f"{number(calls, 'call')} of {number(len(rows), 'kind')}: {duration(seconds)} of the program's "
        f"{duration(account.seconds)}, planning, once a kind, included ({duration(sum(row.planning for row in rows))})."
    ]
    if timed:
        untimed = len(rows) - len(timed)
        which = f"; not timed: {number(untimed, 'kind')}" if untimed else ""
        lines.append(
            f"NumPy would have taken about {duration(own)} "
            f"(timing it took {duration(recorder.sampling_seconds)}{which})."
        )
    refused = [row for row in rows if row.refused]
    if refused:
        why = "; ".join(dict.fromkeys(row.refused.splitlines()[0] for row in refused))
        lines.append(f"{number(len(refused), 'kind')} went to NumPy: {why}.")
    if len(rows) > MOST_ROWS:
        lines.append(f"{number(len(rows) - MOST_ROWS, 'more kind')}: --json lists all.")
    if recorder.check:
        checked = [row for row in rows if row.checked is not None]
        wrong = sum(bool(row.checked) for row in checked)
        found = f"{wrong} WRONG" if wrong else "all agree"
        lines.append(f"{number(len(checked), 'kind')} checked against NumPy: {found}.")
    return "\n".join(lines)


def ratio(value: float) -> str:
    """How many times, to two digits.

    >>> ratio(0.0001), ratio(0.345), ratio(3.45), ratio(345.6)
    ('<0.01', '0.34', '3.5', '346')
    """
    return "<0.01" if value < 0.01 else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def number(count: int, noun: str) -> str:
    """A count and its noun.

    >>> number(1, "call"), number(1200, "call")
    ('1 call', '1,200 calls')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def operands(row: Row) -> str:
    """Shapes, and the dtype once where all have the same."""
    shapes = ["x".join(map(str, shape)) or "0d" for shape in row.shapes]
    if len(set(row.dtypes)) == 1:
        return f"{', '.join(shapes)} {row.dtypes[0]}"
    return ", ".join(f"{shape} {dtype}" for shape, dtype in zip(shapes, row.dtypes, strict=True))


def place(row: Row) -> str:
    """File and line; of a path only the last folder, for narrow terminals: JSON has all of it."""
    file = Path(row.file)
    if not file.is_absolute():
        return f"{file}:{row.line}"  # "<string>", or the cell of a notebook
    if not file.exists():
        return f"cell:{row.line}"  # what a notebook's kernel compiles
    return f"{Path(*file.parts[-2:])}:{row.line}"


def duration(seconds: float) -> str:
    """Seconds to three digits.

    >>> duration(1.5e-6), duration(0.0204), duration(345.0)
    ('1.50 us', '20.4 ms', '345 s')
    """
    for unit, size in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 999.5 * size or unit == "s":
            break
    value = seconds / size
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"


def scaled(amount: int) -> str:
    """A whole number to three digits: 1234567 is '1.23 M'."""
    value, prefixes = float(amount), iter(("", " k", " M", " G", " T", " P", " E"))
    prefix = next(prefixes)
    while value >= 999.5 and (larger := next(prefixes, None)) is not None:
        value, prefix = value / 1000, larger
    return f"{value:.3g}{prefix}"


def as_dict(account: Account) -> dict[str, Any]:
    """Everything in the account. A call's seconds are of all its calls together; null where NumPy was not timed."""
    recorder = account.recorder
    return {
        "program": list(account.program),
        "exit_status": account.status,
        "seconds": account.seconds,
        "sampling_seconds": recorder.sampling_seconds,
        "versions": {"einstride": version(), "numpy": np.__version__, "python": platform.python_version()},
        "threads": _core.num_threads(),
        "calls": [
            {
                "file": row.file,
                "line": row.line,
                "function": row.code.co_name,
                "subscripts": row.subscripts,
                "shapes": row.shapes,
                "dtypes": row.dtypes,
                "count": row.count,
                "seconds": row.seconds,
                "planning_seconds": row.planning,
                "numpy_seconds": row.own_seconds,
                "numpy_samples": row.sampled,
                "flops": row.plan.cost.flops if row.plan else None,
                "bytes": row.plan.cost.bytes if row.plan else None,
                "kernel": row.kernel,
                "refused": row.refused,
                "check": row.checked,
            }
            for row in recorder.rows
        ],
    }


def write_json(account: Account, path: Path) -> None:
    """Write `as_dict` so that the file is there whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(as_dict(account), indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
