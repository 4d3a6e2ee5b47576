"""The ``einstride`` command: each command is a module here, with a function ``add`` that describes it to the parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import EinsumError

COMMANDS = ("tour", "explain", "run", "lint", "info", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the value is the exit status: 2 where the command line or an einsum in it is wrong."""
    parser = argparse.ArgumentParser(
        prog="einstride",
        description="A compiled einsum that replaces NumPy's: see what an einsum does, and run programs with it.",
        epilog="'einstride COMMAND --help' explains a command, with examples. Start with 'einstride tour'.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f".{name}", __name__).add(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except (EinsumError, ImportError, OSError) as error:
        print(f"einstride: {error}", file=sys.stderr)
        return 2
    return status


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .info import version

        print(f"einstride {version()}")
        parser.exit()
