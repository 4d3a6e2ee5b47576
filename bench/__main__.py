"""`python -m bench`: race the einsum libraries over the workloads and say who was how fast."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from subprocess import CalledProcessError

from . import report
from .cases import EXTRA, WORKLOADS, load
from .peers import CONTENDERS, OURS
from .race import QUICK, Pace, confine, race
from .roofline import measure, roofline
from .startup import import_seconds

WIDTH = 240
FEW = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race that the command line asks for; the exit status is 1 if ours failed at any case."""
    from rich.console import Console
    from rich.progress import track

    options = _parser().parse_args(arguments)
    confine(options.threads)
    console = Console() if Console().is_terminal else Console(width=WIDTH)
    cases = [
        case
        for path in ((EXTRA,) if options.extra else (WORKLOADS,))
        for case in load(path)
        if not options.only or any(fnmatch(case.name, pattern) or pattern in case.name for pattern in options.only)
    ]
    if options.few:
        places = Counter[str]()
        cases = [case for case in cases if not places.update([case.group]) and places[case.group] <= FEW]
    left_out: dict[str, str] = {}

    def leave_out(name: str, reason: str) -> None:
        left_out[name] = reason
        console.print(f"left out: {name} ({reason})", highlight=False, markup=False)

    seconds = None
    names = []
    for name in options.contenders:
        reason = CONTENDERS[name].absent()
        if name == OURS and not reason:
            try:
                seconds = import_seconds()
            except CalledProcessError as error:
                reason = f"import failed: {error.stderr.strip().splitlines()[-1]}"
        if reason:
            leave_out(name, reason)
        else:
            names.append(name)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        machine = fresh.submit(measure, options.threads).result()
    pace = QUICK if options.quick else Pace(limit=options.limit)
    results = []
    races = race(cases, names, options.threads, pace, options.seed, leave_out)
    # The bar is shown on a terminal only, and erased at the end.
    for case, timings, then in track(
        races, "racing", len(cases), console=console, transient=True, disable=not options.progress
    ):
        result = report.Result(case, timings, roofline(case, then or machine))
        results.append(result)
        line = ", ".join(f"{name} {report.cell(timing)}" for name, timing in timings.items())
        console.print(f"{case.name}: {line}", highlight=False, markup=False)
    versions = {name: CONTENDERS[name].version() for name in names if name not in left_out}
    whole = report.Report(_processor(), machine, versions, left_out, tuple(results), seconds)
    report.show(whole, console)
    if options.json:
        options.json.write_text(report.as_json(whole), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(report.markdown(whole), encoding="utf-8")
    if options.readme:
        report.update_readme(options.readme, report.summary(whole))
    return int(any(result.timings[OURS].note for result in results if OURS in result.timings))


def _parser() -> argparse.ArgumentParser:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="workloads whose name matches; repeatable")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--extra", action="store_true", help="the other table: more shapes, layouts and dtypes")
    parser.add_argument("--few", action="store_true", help=f"the first {FEW} workloads of each group")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    parser.add_argument("--quick", action="store_true", help="short turns: a look, not a measurement to publish")
    parser.add_argument("--limit", type=float, default=Pace().limit, help="seconds a first call may take")
    parser.add_argument("--threads", type=int, default=usable)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of the random operands; new each run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="rewrite the table between the markers")
    return parser


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
