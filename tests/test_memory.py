"""Extra memory of two-operand contractions: the packing buffers and nothing else, whatever the layouts.

The bound: 4 MiB of packing buffers a thread, for two threads at least (contract_blocking.cpp: at most 1.6 MiB of panels
of the left side, 1 MiB of the right, 1 MiB of sums that the output cannot hold yet, the rest offsets; or 3 MiB of
panels that all share), and 2 MiB of partial sums in all where a long contracted label is cut. It does not grow with the
operands. A copy of an input or of the output that is small beside the other tensors has 1 MiB at the most, and only two
can be small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pytest

MIB = 1 << 20
THREADS = 2


def bound(threads: int) -> int:
    return 4 * MIB * max(threads, 2) + 2 * MIB + 2 * MIB


@dataclass(frozen=True)
class Case:
    subscripts: str
    shapes: Sequence[tuple[int, ...]]
    dtypes: Sequence[str]
    orders: Sequence[str]


@dataclass(frozen=True)
class Peak:
    """The most bytes held during a call: by the engine, and in NumPy arrays and other Python objects."""

    engine: int
    python: int


# Runs in a process of its own, where no other test has left buffers behind, and watches two allocators: the engine's
# counter, and tracemalloc, to which NumPy reports every array (so a converted or transposed copy made in Python would
# show). The output exists beforehand; the first call plans.
PROGRAM = """
import json, sys, tracemalloc
import numpy as np
import pytest
import einstride
from einstride import _core, einsum

einstride.set_num_threads(int(sys.argv[1]))
peaks = []
for case in json.load(sys.stdin):
    arrays = []
    for shape, dtype, order in zip(case["shapes"], case["dtypes"], case["orders"]):
        rank = len(shape)
        axes = {"F": [*range(rank)][::-1], "rolled": [*range(1, rank), 0]}.get(order, [*range(rank)])
        made = np.ones([shape[axis] for axis in axes], dtype).transpose(np.argsort(axes))
        arrays.append(made[::-1] if order == "reversed" else made)
    out = einsum(case["subscripts"], *arrays)
    einsum(case["subscripts"], *arrays, out=out)
    _core.reset_memory_peak()
    tracemalloc.start()
    einsum(case["subscripts"], *arrays, out=out)
    peaks.append({"engine": _core.memory_peak(), "python": tracemalloc.get_traced_memory()[1]})
    tracemalloc.stop()
json.dump(peaks, sys.stdout)
"""


def peaks(cases: Sequence[Case], threads: int = THREADS) -> list[Peak]:
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    given = json.dumps([asdict(case) for case in cases])
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, input=given, text=True).stdout
    return [Peak(**peak) for peak in json.loads(answer)]


def two_operands() -> Iterator[Case]:
    square = [(900, 1000), (1000, 800)]
    for left in ("C", "F", "reversed"):
        for right in ("C", "F", "reversed"):
            yield Case("ij,jk->ik", square, ["float64"] * 2, [left, right])
    for dtype in ("bool", "int8", "int64", "float16", "float32", "complex128"):
        yield Case("ij,jk->ki", square, [dtype] * 2, ["F", "C"])
    yield Case("ij,jk->ik", square, ["float32", "float64"], ["C", "F"])
    yield Case("ij,jk->ik", square, ["int16", "complex128"], ["F", "C"])
    for order in ("C", "F", "rolled", "reversed"):
        yield Case("bqm,bkm->bqk", [(16, 200, 400), (16, 300, 400)], ["float32"] * 2, [order] * 2)
        yield Case("abcd,cebf->adef", [(24, 20, 30, 40), (30, 20, 20, 40)], ["float64"] * 2, [order, "C"])
    yield Case("ij,jk->ik", [(10, 300_000), (300_000, 12)], ["float64"] * 2, ["C", "C"])
    yield Case("ij,jk->ik", [(1, 3000), (3000, 2000)], ["float64"] * 2, ["C", "F"])
    yield Case("ijb,jkb->ikb", [(30, 40, 2000), (40, 20, 2000)], ["float32"] * 2, ["C", "C"])
    yield Case("aij,jka->ika", [(5, 300, 400), (400, 300, 5)], ["float64"] * 2, ["C", "C"])
    yield Case("ij,ij->j", [(3000, 1500)] * 2, ["float64"] * 2, ["C", "F"])
    yield Case("cad,abdc->ba", [(64, 80, 25), (80, 90, 25, 64)], ["float64"] * 2, ["C", "C"])
    yield Case("dab,cd->cba", [(70, 300, 400), (3, 70)], ["float32"] * 2, ["C", "C"])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_extra_memory_is_the_packing_buffers(threads: int) -> None:
    cases = list(two_operands())
    for case, peak in zip(cases, peaks(cases, threads), strict=True):
        assert 0 < peak.engine <= bound(threads), case
        assert peak.python <= 64 << 10, f"an array was allocated outside the engine: {case}"


NEEDED = """
import json, os, re, sys
os.environ["EINSTRIDE_CACHE_BYTES"] = "0"  # a recycled block may be larger than what is asked for
import numpy as np
import einstride
from einstride import _core

einstride.set_num_threads(int(sys.argv[1]))
subscripts, shapes, dtype, allowed, first_byte = json.load(sys.stdin)
arrays = []
for shape in shapes:
    buffer = np.empty(first_byte + np.dtype(dtype).itemsize * int(np.prod(shape)), np.uint8)
    arrays.append(np.ndarray(shape, dtype, buffer, first_byte))
    arrays[-1][...] = 1
try:
    einstride.plan(subscripts, *arrays, memory=allowed)
    needed = allowed
except einstride.PlanMemoryError as error:
    needed = int(re.match("([0-9]+) bytes are needed", str(error))[1])
ready = einstride.plan(subscripts, *arrays, memory=needed)
_core.reset_memory_peak()
before = _core.memory_held()
ready(*arrays)
json.dump([needed, _core.memory_peak() - before], sys.stdout)
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("subscripts", "shapes", "dtype", "intermediates"),
    [
        ("ij,jk->ik", [(900, 1000), (1000, 800)], "float64", 0),
        ("ij,jk->ki", [(900, 1000), (1000, 800)], "float16", 0),
        ("ij,jk->ik", [(10, 300_000), (300_000, 12)], "float32", 0),
        ("ijb,jkb->ikb", [(64, 64, 100), (64, 64, 100)], "float32", 0),
        ("aij,jka->ika", [(5, 300, 400), (400, 300, 5)], "float32", 0),
        ("i,i,ijk,ilk->ijl", [(50_000,), (50_000,), (50_000, 3, 3), (50_000, 3, 3)], "float64", 0),
        ("ij,ij->", [(2000, 2000)] * 2, "float32", 0),
        ("ij,jk,kl->il", [(300, 400), (400, 300), (300, 200)], "float32", 400 * 200 * 4),
        ("ij,jk->ik", [(12, 3000), (3000, 400)], "float64", 0),
    ],
)
@pytest.mark.parametrize("first_byte", [0, 3], ids=["aligned", "unaligned"])
def test_what_memory_bounds_is_what_a_call_takes(
    subscripts: str, shapes: list[tuple[int, ...]], dtype: str, intermediates: int, threads: int, first_byte: int
) -> None:
    given = json.dumps([subscripts, shapes, dtype, intermediates, first_byte])
    command = [sys.executable, "-c", NEEDED, str(threads)]
    needed, taken = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, input=given, text=True).stdout
    )
    pages = 4096 * (threads + 3)  # memory is taken by pages
    assert intermediates < needed
    # A thread that finds no task left takes nothing.
    assert (needed - intermediates) / threads - pages <= taken - intermediates <= needed - intermediates + pages


def test_extra_memory_does_not_grow_with_the_operands() -> None:
    # Both wide enough that both sides are packed in several full spans, of which the large one has more.
    small, large = (Case("ij,jk->ik", [(size, size)] * 2, ["float32"] * 2, ["F", "F"]) for size in (3300, 5000))
    assert peaks([large])[0].engine <= 1.2 * peaks([small])[0].engine


def test_the_counters_see_an_intermediate_and_a_copy() -> None:
    """The same measurement where memory is needed: a three-operand chain, and an operand in the wrong byte order."""
    chain = Case("ij,jk,kl->il", [(700, 700)] * 3, ["float64"] * 3, ["C"] * 3)
    swapped = Case("ij,jk->ik", [(500, 500)] * 2, [">f8", "<f8"], ["C", "C"])
    needed = np.dtype(np.float64).itemsize
    of_chain, of_swapped = peaks([chain, swapped])
    assert of_chain.engine >= needed * 700 * 700
    assert of_swapped.python >= needed * 500 * 500
