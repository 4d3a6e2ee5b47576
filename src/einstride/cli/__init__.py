"""The ``einstride`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..tour import show, show_chunks, stops, visit
from . import lint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the value is the exit status."""
    parser = argparse.ArgumentParser(prog="einstride", description="A compiled einsum that replaces NumPy's.")
    commands = parser.add_subparsers(dest="command", required=True)
    walk = commands.add_parser(
        "tour", help="walk through einsum, NumPy's answer and ours side by side; exit 1 if any disagrees"
    )
    walk.set_defaults(run=lambda options: tour())
    lint.add(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def tour() -> int:
    """Visit every stop, then attention within chunks: 0 if every result agrees with NumPy's, 1 if not."""
    agree = [show((visit(stop) for stop in stops()), sys.stdout), show_chunks(sys.stdout)]
    return 0 if all(agree) else 1
