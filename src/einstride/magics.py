"""IPython's ``%explain`` and ``%%einstride``, which ``%load_ext einstride`` gives."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import Any

import numpy as np

from .api import explain
from .bar import progress
from .cli.explain import shape
from .cli.report import Account, show
from .record import Recorder


def load(shell: Any) -> None:
    """Add both magics to an IPython shell."""
    shell.register_magic_function(lambda line: _explain(shell, line), "line", "explain")
    shell.register_magic_function(lambda line, cell: _run(shell, line, cell), "cell", "einstride")


def _explain(shell: Any, line: str) -> object:
    """%explain "ij,jk->ik" a 4x5: what an einsum does; an operand is a shape or an expression without spaces."""
    from IPython.core.error import UsageError

    subscripts, *operands = shlex.split(line) or [""]
    if not subscripts:
        raise UsageError('write %explain "ij,jk->ik" a b, with arrays or shapes such as 3x4')
    return explain(subscripts, *[_operand(shell, text) for text in operands])


def _operand(shell: Any, text: str) -> Any:
    """The shape that the text is, or the array that it evaluates to."""
    try:
        return shape(text)
    except argparse.ArgumentTypeError:
        return np.asarray(shell.ev(text))


def _run(shell: Any, line: str, cell: str) -> None:
    """%%einstride [--check] [--quiet]: run the cell as `einstride run` runs a program."""
    from IPython.core.error import UsageError

    words = set(shlex.split(line))
    if not words <= {"--check", "--quiet"}:
        raise UsageError("%%einstride takes --check and --quiet")
    recorder = Recorder(check="--check" in words)
    numpys, started = np.einsum, time.perf_counter()
    with recorder.serving(), progress():
        # `from numpy import einsum` in an earlier cell has left NumPy's own in the user's namespace.
        kept = [name for name, value in shell.user_ns.items() if value is numpys]
        shell.user_ns.update(dict.fromkeys(kept, np.einsum))
        ours = np.einsum
        try:
            shell.run_cell(cell)
        finally:
            shell.user_ns.update({name: numpys for name, value in [*shell.user_ns.items()] if value is ours})
    if "--quiet" not in words:
        show(Account(["%%einstride"], recorder, time.perf_counter() - started), sys.stdout)
