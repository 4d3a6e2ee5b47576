"""How fast could it be? The machine's measured rates, and the arithmetic and traffic that a case cannot avoid."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Case

LINE = 64
ARITHMETIC = ("int16", "int32", "int64", "float32", "float64")  # in the order of the extension's codes
ATTEMPTS = 3
SIZES = tuple(1 << power for power in range(18, 29, 2))


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured rates of this machine with `threads` threads.

    flops: dtype name -> multiply-adds at full rate, in flops a second (2 per multiply-add); bandwidth: bytes a second
    read from a working set of each size, caches included; source: what measured them.
    """

    threads: int
    flops: dict[str, float]
    bandwidth: dict[int, float]
    source: str

    def bandwidth_at(self, size: float) -> float:
        """Bytes a second for a working set of `size` bytes, interpolated between the sizes measured."""
        places = np.log2(list(self.bandwidth))
        return float(np.interp(math.log2(max(size, 1)), places, list(self.bandwidth.values())))


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least a case can take: its flops, compulsory bytes, and seconds at the measured rates (0 for a view)."""

    flops: float
    bytes: float
    seconds: float
    bound: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What a case cannot avoid: its flops, the arithmetic that they are, and its compulsory bytes."""

    flops: float
    arithmetic: str
    bytes: float


def measure(threads: int) -> Machine:
    """Measure the FMA peak and read bandwidth with the engine's own loops, else with NumPy's BLAS (which says so)."""
    try:
        _core = importlib.import_module("einstride._core")
    except ImportError:
        return _measure_numpy(threads)
    _core.set_num_threads(threads)
    flops = {name: max(_core.measure_flops(code) for _ in range(ATTEMPTS)) for code, name in enumerate(ARITHMETIC)}
    bandwidth = {size: max(_core.measure_bandwidth(size) for _ in range(ATTEMPTS)) for size in SIZES}
    return Machine(threads, flops, bandwidth, "einstride")


def measure_for(case: Case, threads: int) -> tuple[float, float]:
    """The rates that bound one case, as the machine is just now: flops and bytes a second, with the engine's loops."""
    _core = importlib.import_module("einstride._core")
    _core.set_num_threads(threads)
    needs = demand(case)
    return _core.measure_flops(ARITHMETIC.index(needs.arithmetic)), _core.measure_bandwidth(math.ceil(needs.bytes))


def demand(case: Case) -> Demand:
    """The flops and bytes of one case: the fewest flops of any order, each operand and the output moved once."""
    flops = least_flops(tuple(map(frozenset, case.terms)), frozenset(case.output), case.extents)
    dtype = case.result_dtype
    traffic = float(math.prod(case.extents[label] for label in case.output) * dtype.itemsize)
    for term, operand in zip(case.terms, case.blanks(), strict=True):
        traffic += touched_bytes(term, operand.shape, operand.strides, operand.dtype.itemsize)
    return Demand(flops * 4 if dtype.kind == "c" else flops, _arithmetic(dtype), traffic)


def roofline(case: Case, machine: Machine) -> Roofline:
    """The roofline of one case.

    Arithmetic at the measured peak and compulsory traffic at the bandwidth measured for a working set of that size;
    the larger is the bound. Arithmetic whose peak was not measured counts as free.

    Williams, Waterman & Patterson, "Roofline: an insightful visual performance model", CACM 52 (2009).
    """
    if case.is_view:
        return Roofline(0, 0, 0, "view")
    needs = demand(case)
    computing = needs.flops / machine.flops.get(needs.arithmetic, math.inf)
    moving = needs.bytes / machine.bandwidth_at(needs.bytes)
    bound = "compute" if computing > moving else "bandwidth"
    return Roofline(needs.flops, needs.bytes, max(computing, moving), bound)


def least_flops(terms: tuple[frozenset[str], ...], output: frozenset[str], extents: dict[str, int]) -> float:
    """The fewest flops of any order of pairwise contractions, by trying every subset's every split.

    A pair costs the product of its labels' extents, twice if it sums anything (a multiply and an add); a single
    operand costs one add an element if it sums anything.

    >>> extents = {"i": 2, "j": 3, "k": 4, "l": 5}
    >>> least_flops((frozenset("ij"), frozenset("jk")), frozenset("ik"), extents)
    48.0
    >>> least_flops((frozenset("ij"), frozenset("jk"), frozenset("kl")), frozenset("il"), extents)
    128.0
    """
    everything = (1 << len(terms)) - 1

    def volume(labels: frozenset[str]) -> float:
        return float(math.prod(extents[label] for label in labels))

    def outside(subset: int) -> frozenset[str]:
        return output.union(*(term for place, term in enumerate(terms) if not subset >> place & 1))

    kept: dict[int, frozenset[str]] = {}
    cost: dict[int, float] = {}
    for subset in range(1, everything + 1):
        members = [place for place in range(len(terms)) if subset >> place & 1]
        labels = frozenset().union(*(terms[place] for place in members))
        kept[subset] = labels & outside(subset)
        if len(members) == 1:
            cost[subset] = volume(labels) if kept[subset] != labels else 0.0
            continue
        cost[subset] = math.inf
        for left, right in _splits(subset):
            union = kept[left] | kept[right]
            step = volume(union) * (2 if kept[subset] != union else 1)
            cost[subset] = min(cost[subset], cost[left] + cost[right] + step)
    return cost[everything]


def touched_bytes(term: str, shape: Sequence[int], strides: Sequence[int], itemsize: int) -> float:
    """The bytes of memory that reading an operand once cannot avoid: neighbours in a cache line come along.

    A diagonal strides over whole lines; a broadcast axis is read once.

    >>> touched_bytes("ij", (10, 10), (80, 8), 8)
    800.0
    >>> touched_bytes("ii", (100, 100), (800, 8), 8)
    6400.0
    >>> touched_bytes("bi", (50, 10), (0, 8), 8)
    80.0
    """
    steps: dict[str, int] = {}
    extents: dict[str, int] = {}
    for label, extent, stride in zip(term, shape, strides, strict=True):
        steps[label] = steps.get(label, 0) + stride
        extents[label] = extent
    moving = {label: abs(step) for label, step in steps.items() if step and extents[label] > 1}
    width = min([LINE, *moving.values()])
    return float(math.prod(extents[label] for label in moving) * max(width, itemsize) if moving else itemsize)


def _arithmetic(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu":
        return f"int{8 * max(dtype.itemsize, 2)}"
    return "float64" if dtype.name in ("float64", "complex128") else "float32"


def _splits(subset: int) -> Iterator[tuple[int, int]]:
    left = (subset - 1) & subset
    while left:
        yield left, subset ^ left
        left = (left - 1) & subset


def _measure_numpy(threads: int) -> Machine:
    flops: dict[str, float] = {}
    for name in ("float32", "float64"):
        square = np.ones((2048, 2048), name)
        result = np.empty_like(square)
        flops[name] = 2 * 2048**3 / _fastest(lambda a=square, c=result: np.matmul(a, a, c), 0.5)  # type: ignore[misc]
    bandwidth: dict[int, float] = {}
    for size in SIZES:
        halves = np.ones((2, size // 16))
        bandwidth[size] = size / _fastest(lambda a=halves: np.dot(a[0], a[1]), 0.1)  # type: ignore[misc]
    return Machine(threads, flops, bandwidth, "NumPy's matmul and dot")


def _fastest(call: Callable[[], Any], seconds: float) -> float:
    best = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
