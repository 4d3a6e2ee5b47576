"""``einstride tour``."""

from __future__ import annotations

import argparse
import sys

from ..tour import show, show_chunks, stops, visit


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tour",
        help="walk through einsum, NumPy's answer and ours side by side",
        description="What einsum is for, in order: thirteen einsums from a matrix product to attention, each read in "
        "words, with NumPy's answer and ours side by side, both times and the kernel; then attention within chunks, by "
        "hand and whole. Exit status 1 if any disagrees.",
    )
    parser.set_defaults(run=tour)


def tour(options: argparse.Namespace) -> int:
    """Visit every stop, then attention within chunks: 0 if every result agrees with NumPy's, 1 if not."""
    agree = [show((visit(stop) for stop in stops()), sys.stdout), show_chunks(sys.stdout)]
    return 0 if all(agree) else 1
