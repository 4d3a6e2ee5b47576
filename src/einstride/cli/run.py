"""``einstride run``."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from .help import Help

EXAMPLES = """\
examples:
  einstride run train.py --epochs 3             a script with its arguments
  einstride run -m pytest tests                 a module
  einstride run analysis.ipynb                  a notebook's code, in its folder
  einstride run --check --json calls.json sim.py
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="run a program as it is, with its einsum calls served by einstride",
        usage="einstride run [options] (SCRIPT | NOTEBOOK | -m MODULE) [argument ...]",
        description="Run a Python program unchanged, with numpy.einsum (and opt_einsum.contract) served by einstride. "
        "When it ends, a table on stderr says where einsum was called, with what, how often, how long that took, and "
        "how long it would have taken otherwise (timed now and then, for at most about a tenth of the program's time). "
        "Everything else is as without: arguments, output, exit status, tracebacks. A call that einstride refuses, or "
        "that NumPy would refuse, goes to NumPy.",
        epilog=EXAMPLES,
        formatter_class=Help,
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compute every distinct call with NumPy too, and compare; "
        "exit status 1 if any result differs by more than rounding explains",
    )
    parser.add_argument("--json", metavar="FILE", help="write everything the table says, and more, to a file")
    parser.add_argument("--quiet", action="store_true", help="print no table")
    parser.add_argument("--no-progress", action="store_true", help="show no bar while a long einsum runs")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module, as python -m does"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run the program that the command line names; its exit status, or 1 where a check failed."""
    from ..bar import progress
    from ..record import Recorder
    from . import program
    from .report import Account, show, write_json

    if not (options.module or options.program):
        options.parser.error("name a script, a notebook or -m MODULE")
    if not options.quiet and find_spec("rich") is None:
        raise ImportError('the table needs the rich library: pip install "einstride[cli]", or say --quiet')
    start = program.module(*options.module) if options.module else program.file(options.program[0], options.program[1:])
    path = Path(options.json).absolute() if options.json else None
    if path and not path.parent.is_dir():
        raise NotADirectoryError(f"--json: there is no folder {path.parent}")
    recorder = Recorder(check=options.check)
    serving = ExitStack()
    account = Account(options.module or options.program, recorder)
    stderr, process, started = sys.stderr, os.getpid(), time.perf_counter()

    def close() -> None:
        # Registered first, so run last: after the program's threads and its own exit handlers.
        if os.getpid() != process:
            return
        serving.close()
        account.seconds = time.perf_counter() - started
        if path:
            write_json(account, path)
        if not options.quiet:
            show(account, stderr)

    atexit.register(close)
    serving.enter_context(recorder.serving())
    if not options.no_progress:
        serving.enter_context(progress())
    account.status = program.outcome(start)
    failed = any(row.checked for row in recorder.rows)
    return account.status or int(failed)
