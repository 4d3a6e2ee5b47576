"""Extra memory of two-operand contractions: the packing buffers and nothing else, whatever the layouts.

The bound: 4 MiB of packing buffers a thread (contract.cpp: at most 1.5 MiB of panels of the left side, 1 MiB of
the right, 1 MiB of sums the output's type cannot hold, the rest offsets), and 2 MiB of partial sums in all where a
long contracted label is cut. It does not grow with the operands.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

MIB = 1 << 20
THREADS = 2
BOUND = 4 * MIB * THREADS + 2 * MIB

# Each case runs where no other test has left buffers behind, and watches two allocators: the engine's own counter, and
# tracemalloc, to which NumPy reports every array (so a converted or transposed copy made in Python would show).
PROGRAM = """
import json, sys, tracemalloc
import numpy as np
import einstride
from einstride import _core, einsum

subscripts, shapes, dtypes, orders = json.loads(sys.argv[1])
einstride.set_num_threads(int(sys.argv[2]))
arrays = []
for shape, dtype, order in zip(shapes, dtypes, orders):
    rank = len(shape)
    axes = {"C": range(rank), "F": range(rank)[::-1], "rolled": [*range(1, rank), 0], "reversed": range(rank)}[order]
    made = np.ones([shape[axis] for axis in axes], dtype).transpose(np.argsort(list(axes)))
    arrays.append(made[::-1] if order == "reversed" else made)
out = einsum(subscripts, *arrays)
_core.reset_memory_peak()
tracemalloc.start()
einsum(subscripts, *arrays, out=out)
python = tracemalloc.get_traced_memory()[1]
print(json.dumps({"engine": _core.memory_peak(), "python": python, "operands": sum(a.nbytes for a in arrays)}))
"""


def measured(subscripts: str, shapes: list[list[int]], dtypes: list[str], orders: list[str]) -> dict[str, int]:
    case = json.dumps([subscripts, shapes, dtypes, orders])
    command = [sys.executable, "-c", PROGRAM, case, str(THREADS)]
    result: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def cases() -> Iterator[Any]:
    square = [[1200, 1200], [1200, 1200]]
    for left in ("C", "F", "reversed"):
        for right in ("C", "F", "reversed"):
            yield pytest.param("ij,jk->ik", square, ["float64"] * 2, [left, right], id=f"product {left} {right}")
    for dtype in ("int8", "int64", "float16", "float32", "complex128"):
        yield pytest.param("ij,jk->ki", square, [dtype] * 2, ["F", "C"], id=f"product {dtype}")
    yield pytest.param("ij,jk->ik", square, ["float32", "float64"], ["C", "F"], id="mixed")
    yield pytest.param("ij,jk->ik", square, ["int16", "complex128"], ["F", "C"], id="converted to four times the size")
    for order in ("C", "F", "rolled", "reversed"):
        yield pytest.param(
            "bqm,bkm->bqk", [[16, 300, 400], [16, 300, 400]], ["float32"] * 2, [order] * 2, id=f"heads {order}"
        )
        yield pytest.param(
            "abcd,cebf->adef", [[24, 20, 30, 40], [30, 20, 20, 40]], ["float64"] * 2, [order, "C"], id=f"4-D {order}"
        )
    yield pytest.param("ij,jk->ik", [[10, 300000], [300000, 12]], ["float64"] * 2, ["C", "C"], id="long sum")
    yield pytest.param("ij,jk->ik", [[1, 3000], [3000, 2000]], ["float64"] * 2, ["C", "F"], id="vector by matrix")
    yield pytest.param(
        "ijb,jkb->ikb", [[30, 40, 4000], [40, 20, 4000]], ["float32"] * 2, ["C", "C"], id="trailing batch"
    )
    yield pytest.param("ij,ij->j", [[3000, 1500]] * 2, ["float64"] * 2, ["C", "F"], id="disagreeing strides")


@pytest.mark.parametrize(("subscripts", "shapes", "dtypes", "orders"), cases())
def test_extra_memory_is_the_packing_buffers(
    subscripts: str, shapes: list[list[int]], dtypes: list[str], orders: list[str]
) -> None:
    peak = measured(subscripts, shapes, dtypes, orders)
    assert 0 < peak["engine"] <= BOUND
    assert peak["python"] <= 64 << 10, "an array was allocated outside the engine"


def test_extra_memory_does_not_grow_with_the_operands() -> None:
    small = measured("ij,jk->ik", [[1000, 1000]] * 2, ["float32"] * 2, ["F", "F"])
    large = measured("ij,jk->ik", [[2500, 2500]] * 2, ["float32"] * 2, ["F", "F"])
    assert large["operands"] > 6 * small["operands"]
    assert large["engine"] <= 1.5 * small["engine"]


def test_the_counters_see_an_intermediate_and_a_copy() -> None:
    """The same measurement where memory is needed: a three-operand chain, and an operand in the wrong byte order."""
    chain = measured("ij,jk,kl->il", [[1500, 1500]] * 3, ["float64"] * 3, ["C"] * 3)
    assert chain["engine"] >= np.dtype(np.float64).itemsize * 1500 * 1500
    swapped = measured("ij,jk->ik", [[500, 500]] * 2, [">f8", "<f8"], ["C", "C"])
    assert swapped["python"] >= 8 * 500 * 500
