"""What a race says: a table for the terminal, Markdown, JSON, and whether each promise was kept."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import Case
from .peers import OURS
from .race import Timing
from .roofline import Machine, Roofline

if TYPE_CHECKING:
    from rich.console import Console

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"


@dataclass(frozen=True, slots=True)
class Result:
    """One case's timings by contender, and its roofline."""

    case: Case
    timings: dict[str, Timing]
    roofline: Roofline

    def seconds(self, name: str) -> float | None:
        """A contender's seconds, or None if it has none."""
        timing = self.timings.get(name)
        return timing.seconds if timing else None

    @property
    def best_peer(self) -> str:
        """The fastest contender other than ours, "" if none finished."""
        peers = {name: timing.seconds for name, timing in self.timings.items() if name != OURS and timing.seconds}
        return min(peers, key=lambda name: peers[name], default="")

    def against(self, name: str) -> float | None:
        """Our time divided by a contender's."""
        ours, theirs = self.seconds(OURS), self.seconds(name)
        return ours / theirs if ours and theirs else None

    @property
    def ratio(self) -> float | None:
        """Our time divided by the best peer's."""
        return self.against(self.best_peer)

    @property
    def fraction(self) -> float | None:
        """The roofline's time divided by ours."""
        ours = self.seconds(OURS)
        return self.roofline.seconds / ours if ours and self.roofline.seconds else None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole race: the processor, the measured machine, versions, who was left out and why, and the results.

    import_seconds: what importing einstride adds to importing NumPy, None if not measured.
    """

    processor: str
    machine: Machine
    versions: dict[str, str]
    left_out: dict[str, str]
    results: tuple[Result, ...]
    import_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: the measured value of every case it covers, and the limit that each must keep."""

    what: str
    values: dict[str, float]
    limit: float
    at_most: bool
    missing: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """The cases that break it, those without a time of ours included."""
        sign = 1 if self.at_most else -1
        broken = (name for name, value in self.values.items() if sign * value > sign * self.limit)
        return (*broken, *self.missing)


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return statistics.geometric_mean(values)


def bars(report: Report) -> tuple[Bar, ...]:
    """The promises of the project, each with what was measured; none if ours was not in the race."""
    if OURS not in report.versions:
        return ()
    everything = report.results

    def of(kind: str) -> list[Result]:
        return [result for result in everything if result.case.bar == kind]

    def bar(
        what: str,
        results: Sequence[Result],
        value: Callable[[Result], float | None],
        limit: float,
        at_most: bool = True,
    ) -> Bar:
        pairs = [(result.case.name, value(result)) for result in results]
        present = {name: number for name, number in pairs if number is not None}
        return Bar(what, present, limit, at_most, tuple(name for name, number in pairs if number is None))

    ratios = [result.ratio for result in everything if result.ratio is not None]
    found = [
        bar("small cases: ours / numpy", of("small"), lambda result: result.against("numpy"), 0.5),
        bar("every case: ours / best peer", everything, lambda result: result.ratio, 1.0),
        bar("products of other dtypes: ours / best peer", of("product"), lambda result: result.ratio, 1.0),
        bar("compute-bound: fraction of the roofline", of("compute"), lambda result: result.fraction, 0.85, False),
        bar("bandwidth-bound: fraction of the roofline", of("bandwidth"), lambda result: result.fraction, 0.80, False),
    ]
    if ratios:
        found.insert(2, Bar("geometric mean: ours / best peer", {"all": geometric_mean(ratios)}, 0.67, True))
    if report.import_seconds is not None:
        found.append(Bar("import einstride, ms over NumPy", {"import": report.import_seconds * 1e3}, 60.0, True))
    return tuple(bar for bar in found if bar.values or bar.missing)


def show(report: Report, console: Console) -> None:
    """Print the table, who was left out, and the bars."""
    from rich.table import Table

    names = list(report.versions)
    table = Table(title="microseconds a call")
    table.add_column("workload", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for title in ("best peer", "ours/best", "roofline", "bound"):
        table.add_column(title, justify="right" if title != "best peer" else "left", no_wrap=True)
    group = ""
    for result in report.results:
        if group not in ("", result.case.group):
            table.add_section()
        group = result.case.group
        best = result.best_peer
        style = "" if result.ratio is None else "green" if result.ratio <= 1 else "red"
        table.add_row(
            result.case.name,
            *(f"[bold]{cell}[/]" if name == best else cell for name, cell in _cells(result, names)),
            best,
            f"[{style}]{_number(result.ratio)}[/]" if style else _number(result.ratio),
            _percent(result.fraction),
            result.roofline.bound,
        )
    console.print(table)
    for line in _notes(report):
        console.print(line, highlight=False, markup=False)
    for bar in bars(report):
        failures = bar.failures
        state = "[green]pass[/]" if not failures else "[red]fail[/]"
        console.print(f"{state}  {_summary(bar)}", highlight=False)
        if failures and len(bar.values) + len(bar.missing) > 1:
            listed = (f"{name} {bar.values[name]:.2f}" if name in bar.values else f"{name} -" for name in failures)
            console.print("      " + "; ".join(listed), highlight=False, markup=False)


def markdown(report: Report) -> str:
    """The whole table in Markdown: times in microseconds, the best peer's in bold."""
    names = list(report.versions)
    header = ["workload", "subscripts", *names, "ours/best", "roofline"]
    lines = [" | ".join(header), "|".join("---" if column < 2 else "--:" for column in range(len(header)))]
    for result in report.results:
        cells = [f"**{cell}**" if name == result.best_peer else cell for name, cell in _cells(result, names)]
        reach = [_number(result.ratio), _percent(result.fraction)]
        lines.append(" | ".join([result.case.name, f"`{result.case.subscripts}`", *cells, *reach]))
    return "\n".join(
        [
            *(f"| {line} |" if not line.startswith("---") else f"|{line}|" for line in lines),
            "",
            "Microseconds a call; roofline: the measured peak's or bandwidth's time divided by ours.",
            *_notes(report),
            "",
            *(f"- {'pass' if not bar.failures else 'FAIL'}: {_summary(bar)}" for bar in bars(report)),
            "",
        ]
    )


def summary(report: Report) -> str:
    """The short table of the README: ours beside numpy.einsum and the best peer of each workload."""
    lines = [
        "| workload | subscripts | numpy.einsum (us) | best peer (us) | einstride (us) | einstride / best |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for result in report.results:
        best = result.best_peer
        peer = f"{best} {_micro(result.seconds(best))}" if best else "-"
        lines.append(
            f"| {result.case.name} | `{result.case.subscripts}` | {_micro(result.seconds('numpy'))} | {peer} "
            f"| {_micro(result.seconds(OURS))} | {_number(result.ratio)} |"
        )
    ratios = [result.ratio for result in report.results if result.ratio is not None]
    if ratios:
        above = sum(ratio > 1 for ratio in ratios)
        mean = f"{geometric_mean(ratios):.2f}; above 1: {above} of {len(ratios)}"
        lines += ["", f"Geometric mean of the last column: {mean}."]
    return "\n".join([*lines, "", *_notes(report)])


def update_readme(path: Path, text: str) -> None:
    """Put a text between the benchmark's two markers; raises ValueError if the file has no such place."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def as_json(report: Report) -> str:
    """Everything measured, with the derived ratios, as JSON."""
    data = asdict(report)
    for row, result in zip(data["results"], report.results, strict=True):
        row |= {"best_peer": result.best_peer, "ratio": result.ratio, "fraction": result.fraction}
    data["bars"] = [asdict(bar) | {"failures": bar.failures} for bar in bars(report)]
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _notes(report: Report) -> list[str]:
    machine = report.machine
    peaks = ", ".join(f"{name} {rate / 1e9:.0f} Gflop/s" for name, rate in machine.flops.items())
    reads = ", ".join(f"{size >> 10} KiB {rate / 1e9:.0f}" for size, rate in machine.bandwidth.items())
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    missing = [f"Left out: {name} ({reason})." for name, reason in report.left_out.items()]
    refused = sorted(
        f"{result.case.name}: {name} {timing.note}"
        for result in report.results
        for name, timing in result.timings.items()
        if name == OURS and timing.note
    )
    return [
        f"{report.processor}, threads: {machine.threads}. Measured by {machine.source}: {peaks}; read GB/s: {reads}.",
        f"Versions: {versions}.",
        *missing,
        *refused,
    ]


def _summary(bar: Bar) -> str:
    limit = f"{'at most' if bar.at_most else 'at least'} {bar.limit:g}"
    if not bar.values:
        return f"{bar.what}: {limit}; no time of ours"
    values = bar.values.values()
    worst = max(values) if bar.at_most else min(values)
    count = len(bar.values) + len(bar.missing)
    if count == 1:
        return f"{bar.what}: {limit}; measured {worst:.2f}"
    return f"{bar.what}: {limit}; worst {worst:.2f}; {count - len(bar.failures)} of {count} keep it"


def _cells(result: Result, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, cell(result.timings.get(name))) for name in names]


def cell(timing: Timing | None) -> str:
    """A timing as a table shows it: microseconds, or the first word of why there is none."""
    if timing is None:
        return "-"
    return _micro(timing.seconds) if timing.seconds else timing.note.split(":")[0]


def _micro(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 or not math.isfinite(value) else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
