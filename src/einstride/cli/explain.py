"""``einstride explain``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..api import explain as explained
from .help import Help

EXAMPLES = """\
examples:
  einstride explain "bqm,bkm->bqk" 32x64x512 32x128x512      attention scores
  einstride explain "ij,jk,kl->il" 9x900 900x900 900x5       in which order?
  einstride explain "ij,->ij" 3x4 0d --dtype float32         a matrix, a scalar
  einstride explain "bqm,bkm->bqk" 32x64x512 32x128x512 --html scores.html
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "explain",
        help="say what an einsum does, how it will be done and what it costs",
        description="Say what an einsum of operands of these shapes does: its labels by role, the steps it is done in, "
        "the kernel of each and why, flops, bytes and predicted time; the same as loops and in NumPy and PyTorch. "
        "Nothing is computed.",
        epilog=EXAMPLES,
        formatter_class=Help,
    )
    parser.add_argument("subscripts", metavar="SUBSCRIPTS", help='as for einsum: "ij,jk->ik"')
    parser.add_argument(
        "shapes", metavar="SHAPE", nargs="*", type=shape, help="of each operand: 32x64x512, 0d a scalar"
    )
    parser.add_argument("--dtype", default="float64", help="of the operands (default: %(default)s)")
    parser.add_argument("--optimize", default="auto", help="auto (least predicted time), greedy, optimal")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page, with pictures, instead")
    parser.set_defaults(run=explain)


def explain(options: argparse.Namespace) -> int:
    found = explained(options.subscripts, *options.shapes, dtype=options.dtype, optimize=options.optimize)
    if options.html:
        found.save(options.html)
    else:
        print(found)
    return 0


def shape(text: str) -> tuple[int, ...]:
    """A shape as the command line writes it.

    >>> shape("32x64x512"), shape("7"), shape("0d"), shape("()")
    ((32, 64, 512), (7,), (), ())
    """
    if text in ("0d", "()"):
        return ()
    extents = text.split("x")
    if not all(extent.isdecimal() for extent in extents):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: write 32x64x512, 7 for a vector, 0d for a scalar")
    return tuple(map(int, extents))
