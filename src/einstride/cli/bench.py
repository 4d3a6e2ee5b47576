"""``einstride bench``."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="time einstride against the einsum libraries that are installed",
        description="Time einstride against the einsum libraries that are installed, each in a process of its own, on "
        "the same operands and number of threads; every result is checked before it is timed. Without options, a few "
        "workloads in short turns, in about a minute: a look, not a measurement to publish.",
    )
    parser.add_argument("--all", action="store_true", help="every workload, in turns long enough to publish")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="workloads of such a name")
    parser.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help="numpy, torch, jax, ..., ours")
    parser.add_argument("--threads", metavar="N", help="how many (default: the cores this process may use)")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to a file")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    parser.set_defaults(run=bench)


def bench(options: argparse.Namespace) -> int:
    """Run the benchmark, which wheels and editable installs have as einstride.bench."""
    if find_spec("einstride.bench") is None:
        raise ImportError("this source tree is not installed: run 'python -m bench' at its root")
    if find_spec("rich") is None:
        raise ImportError('the tables need the rich library: pip install "einstride[cli]"')
    arguments = [] if options.all else ["--quick"] if options.only else ["--quick", "--few"]
    arguments += [f"--only={pattern}" for pattern in options.only]
    arguments += ["--contenders", *options.contenders] if options.contenders else []
    arguments += [f"--{name}={value}" for name in ("threads", "json") if (value := getattr(options, name))]
    if options.no_progress:
        arguments.append("--no-progress")
    status: int = import_module("einstride.bench.__main__").main(arguments)
    return status
