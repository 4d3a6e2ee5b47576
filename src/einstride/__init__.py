"""einstride: a compiled einsum that takes numpy.einsum's place."""

from ._core import num_threads, set_num_threads
from .api import Plan, einsum, einsum_path, plan
from .attention import Chunks, Window, attend, attend_vjp, chunked, unchunked
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
    "num_threads",
    "plan",
    "set_num_threads",
    "unchunked",
]
