"""A visit of one stop: both results, whether they agree, both times, and the kernel that ran."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..api import Plan, einsum, plan
from ..explanation.words import reading
from .stops import Array, Stop


@dataclass(frozen=True, slots=True)
class Visit:
    """What was found at a stop. Times are seconds a call, differences absolute."""

    stop: Stop
    reading: str
    kernel: str
    numpy: Array
    ours: Array
    difference: float
    allowed: float
    agrees: bool
    numpy_seconds: float
    our_seconds: float


def visit(stop: Stop, einsum: Callable[..., Any] = einsum, seconds: float = 0.3) -> Visit:
    """Compute a stop with NumPy and with ``einsum``, compare, and time both for about ``seconds`` each.

    The results agree when shape and dtype are equal and every entry of ours is within rounding of
    numpy.einsum's and of the plain NumPy spelling's: equal for integers; for floats two sums of K products
    may differ by 2 gamma(K + n) times the sum of the products' sizes (Higham, Accuracy and Stability, 3.1).
    """
    made = plan(stop.subscripts, *stop.arrays)
    numpy = np.asarray(np.einsum(stop.subscripts, *stop.arrays))
    plain = np.asarray(stop.plain(*stop.arrays))
    ours = np.asarray(einsum(stop.subscripts, *stop.arrays))
    allowed = rounding(stop, made)
    alike = all((ours.shape, ours.dtype) == (other.shape, other.dtype) for other in (numpy, plain))
    differences = [np.abs(ours - other) for other in (numpy, plain)] if alike else []
    numpy_seconds, our_seconds = timed(
        lambda: np.einsum(stop.subscripts, *stop.arrays), lambda: einsum(stop.subscripts, *stop.arrays), seconds
    )
    return Visit(
        stop,
        reading(made.problem.expression, stop.names),
        kernel_of(made, ours, stop),
        numpy,
        ours,
        float(np.max(differences, initial=0)) if alike else math.inf,
        float(np.max(allowed, initial=0)),
        alike and all(bool(np.all(difference <= allowed)) for difference in differences),
        numpy_seconds,
        our_seconds,
    )


def rounding(stop: Stop, made: Plan) -> Array:
    """How far two right results may be apart, entry by entry."""
    dtype = np.result_type(*stop.arrays)
    expression, extents = made.problem.expression, made.problem.extents
    summed = math.prod(extent for label, extent in enumerate(extents) if label not in expression.output)
    if dtype.kind not in "fc" or (summed == 1 and len(stop.arrays) == 1):
        return np.zeros(())
    sizes = np.einsum(stop.subscripts, *map(np.abs, stop.arrays), optimize=True)
    return np.asarray(2 * (summed + len(stop.arrays)) * np.finfo(dtype).eps * sizes)


def kernel_of(made: Plan, ours: Array, stop: Stop) -> str:
    """The kernels that ran, in order; a result that lies in an operand's memory needed none."""
    if any(np.shares_memory(ours, array) for array in stop.arrays):
        return "view"
    return ", ".join(made.program.kernels) if made.program else "numpy"


def timed(first: Callable[[], Any], second: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """The median seconds a call of two functions, measured in turns so that noise meets both."""
    calls = (first, second)
    repeats = [max(1, int(seconds / 10 / max(once(call, 1), 1e-7))) for call in calls]
    rounds: tuple[list[float], list[float]] = ([], [])
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        while len(rounds[0]) < 3 or time.perf_counter() - start < seconds:
            for call, count, times in zip(calls, repeats, rounds, strict=True):
                times.append(once(call, count))
    finally:
        if collecting:
            gc.enable()
    return statistics.median(rounds[0]), statistics.median(rounds[1])


def once(call: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
