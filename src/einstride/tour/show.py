"""The tour on a page: with colour in a terminal, as plain text elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING, TextIO

import numpy as np

from .stops import Array
from .visit import Visit

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("", "what", "subscripts", "numpy", "einstride", "speed-up", "kernel", "agrees")
GAP = "    "


def show(visits: Iterable[Visit], stream: TextIO) -> bool:
    """Write each visit as it comes, then the summary; return whether all agree.

    A terminal gets the rich library's tables and colours where that library is installed.
    """
    console = _console(stream)
    seen: list[Visit] = []
    for number, visit in enumerate(visits, 1):
        seen.append(visit)
        if console:
            _show_rich(number, visit, console)
        else:
            stream.write(plain_visit(number, visit) + "\n\n")
            stream.flush()
    if console:
        _summary_rich(seen, console)
    else:
        stream.write(plain_summary(seen) + "\n")
    return all(visit.agrees for visit in seen)


def plain_visit(number: int, visit: Visit) -> str:
    """One stop as plain text."""
    stop = visit.stop
    lines = [f'{number}. {stop.title}: einsum("{stop.subscripts}", {", ".join(stop.names)})']
    lines += [f"   {visit.reading}", f"   {stop.remark}", f"   {shapes_of(visit)}; the same as {stop.spelled}", ""]
    left, right = ["numpy.einsum", *picture(visit.numpy)], ["einstride", *picture(visit.ours)]
    width = max(map(len, left))
    lines += [f"   {a:<{width}}{GAP}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]
    return "\n".join([*lines, "", f"   {verdict(visit)}", f"   {speed(visit)}; kernel: {visit.kernel}"])


def plain_summary(visits: Iterable[Visit]) -> str:
    """The summary as a table of plain text."""
    rows = [HEADINGS, *summary(visits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    aligned = [
        "  ".join(
            cell.rjust(width) if 3 <= column <= 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([aligned[0], "-" * max(map(len, aligned)), *aligned[1:]])


def summary(visits: Iterable[Visit]) -> list[tuple[str, ...]]:
    """The summary's rows, one a visit, with a cell for each heading."""
    return [
        (
            str(number),
            visit.stop.title,
            visit.stop.subscripts,
            duration(visit.numpy_seconds),
            duration(visit.our_seconds),
            f"{visit.numpy_seconds / visit.our_seconds:.1f}x",
            visit.kernel,
            "yes" if visit.agrees else "NO",
        )
        for number, visit in enumerate(visits, 1)
    ]


def shapes_of(visit: Visit) -> str:
    stop = visit.stop
    operands = ", ".join(f"{name} {array.shape}" for name, array in zip(stop.names, stop.arrays, strict=True))
    return f"{operands}, {stop.arrays[0].dtype}"


def picture(array: Array) -> list[str]:
    """The array's text; of a large one its shape and the first corner."""
    if array.size <= 60:
        return np.array2string(array, precision=4, suppress_small=True).splitlines()
    corner = array[(0,) * (array.ndim - 2)][:3, :3]
    text = np.array2string(corner, precision=4, suppress_small=True).splitlines()
    return [*text, f"first corner of {array.shape}"]


def verdict(visit: Visit) -> str:
    if not visit.agrees:
        return f"DISAGREES: apart by {visit.difference:.3g}, where {visit.allowed:.3g} is rounding"
    if visit.difference == 0:
        return "agrees exactly"
    return f"agrees: at most {visit.difference:.1e} apart, where {visit.allowed:.1e} is rounding"


def speed(visit: Visit) -> str:
    ratio = visit.numpy_seconds / visit.our_seconds
    times = f"numpy.einsum {duration(visit.numpy_seconds)}, einstride {duration(visit.our_seconds)}"
    return f"{times}: {ratio:.1f} times as fast"


def duration(seconds: float) -> str:
    """Seconds with a fitting unit.

    >>> duration(1.5e-6), duration(0.02), duration(3.0)
    ('1.50 us', '20.00 ms', '3.00 s')
    """
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds:.2f} s"


def _console(stream: TextIO) -> Console | None:
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def _show_rich(number: int, visit: Visit, console: Console) -> None:
    from rich.columns import Columns
    from rich.markup import escape
    from rich.panel import Panel
    from rich.text import Text

    stop = visit.stop
    console.rule(f"[bold]{number}. {escape(stop.title)}[/]", align="left")
    console.print(Text.assemble('einsum("', (stop.subscripts, "bold cyan"), f'", {", ".join(stop.names)})'))
    console.print(Text(visit.reading, style="italic"))
    console.print(Text(f"{stop.remark}\n{shapes_of(visit)}; the same as {stop.spelled}", style="dim"))
    results = {"numpy.einsum": visit.numpy, "einstride": visit.ours}
    console.print(Columns([Panel.fit(Text("\n".join(picture(a))), title=name) for name, a in results.items()]))
    console.print(Text(verdict(visit), style="green" if visit.agrees else "bold red"))
    console.print(Text(f"{speed(visit)}; kernel: {visit.kernel}\n"))


def _summary_rich(visits: Iterable[Visit], console: Console) -> None:
    from rich.table import Table

    table = Table(title="The tour in one table")
    for column, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if 3 <= column <= 5 else "left")
    for row in summary(visits):
        table.add_row(*row, style=None if row[-1] == "yes" else "bold red")
    console.print(table)
