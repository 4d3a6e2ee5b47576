"""einstride: a compiled einsum that takes numpy.einsum's place."""

from ._core import num_threads, set_num_threads
from .api import Plan, einsum, einsum_path, explain, plan
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
    "einsum",
    "einsum_path",
    "explain",
    "num_threads",
    "plan",
    "set_num_threads",
]
