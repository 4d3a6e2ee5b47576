"""einstride: a compiled einsum that takes numpy.einsum's place."""

from typing import Any

from ._core import num_threads, set_num_threads
from .api import Plan, einsum, einsum_path, explain, plan
from .attention import Chunks, Window, attend, attend_vjp, chunked, unchunked
from .bar import progress
from .errors import (
    BroadcastWarning,
    EinsumError,
    OperandTypeError,
    OptionError,
    OutputError,
    PathError,
    PlanMemoryError,
    ShapeError,
    SizeError,
    SubscriptsError,
)

__all__ = [
    "BroadcastWarning",
    "Chunks",
    "EinsumError",
    "OperandTypeError",
    "OptionError",
    "OutputError",
    "PathError",
    "Plan",
    "PlanMemoryError",
    "ShapeError",
    "SizeError",
    "SubscriptsError",
    "Window",
    "attend",
    "attend_vjp",
    "chunked",
    "einsum",
    "einsum_path",
    "explain",
    "num_threads",
    "plan",
    "progress",
    "set_num_threads",
    "unchunked",
]


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext einstride`` calls: gives IPython ``%explain`` and ``%%einstride``."""
    from .magics import load

    load(shell)
