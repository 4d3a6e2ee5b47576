"""The tour: what einsum is for, in order, with NumPy's answer and ours side by side."""

from __future__ import annotations

from .chunks import Comparison, compare, show_chunks
from .show import show
from .stops import Stop, stops
from .visit import Visit, visit

__all__ = ["Comparison", "Stop", "Visit", "compare", "show", "show_chunks", "stops", "visit"]
