"""The kernels, in one table: what each accepts and how long it is expected to take. The only dispatch there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod

from .loop import Loop, Role, volume, walked_as_one
from .machine import Machine
from .program import ITEMSIZES

# Bytes of an element of the type the engine computes in, by dtype code (``acc_of`` in src/core/types.hpp), and the
# real multiplications in one of its products.
_COMPUTE_BYTES = (4, 2, 2, 4, 8, 2, 2, 4, 8, 4, 4, 4, 8, 4, 8)
_MULTIPLIES = (1,) * 13 + (4, 4)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to run a step.

    Attributes:
        id: its name in programs and explanations.
        number: its number in the engine.
        accepts: whether it can run loops over tensors of these types (inputs first, output last).
        estimate: the seconds one core is expected to take.
        about: what it does, in a few words.
    """

    id: str
    number: int
    accepts: Callable[[Sequence[Loop], Sequence[int], Machine], bool]
    estimate: Callable[[Sequence[Loop], Sequence[int], Machine], float]
    about: str


def _extent(loops: Sequence[Loop], role: Role) -> int:
    return prod([loop.extent for loop in loops if loop.role is role])


def _accepts_contraction(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> bool:
    # A product that sums nothing is up to 80 times as fast in one pass: a tile would write each output after one
    # multiplication (`ij,j->ij` of 1000 x 1000 float32, one core: 6.7 ms, and 0.16 ms fused). So is a matrix by a
    # vector, whose matrix would be packed to be read once: on 2300 of them, of random shapes and layouts, the pass
    # took 1.02 times as long as the best kernel in the geometric mean, and the contraction 2.3 times.
    return len(types) == 3 and all(
        _extent(loops, role) > 1 for role in (Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED)
    )


def _lanes_of(code: int, machine: Machine) -> int:
    return max(machine.vector_bytes // _COMPUTE_BYTES[code], 1)


def _adjacent(loops: Sequence[Loop], types: Sequence[int], tensor: int, role: Role) -> bool:
    return any(loop.role is role and loop.strides[tensor] == ITEMSIZES[types[tensor]] for loop in loops)


def _fetching(loops: Sequence[Loop], tensor: int, role: Role) -> float:
    """The time that a side of a contraction waits for cache lines that each hold little of it."""
    own = [loop for loop in loops if loop.role is role or loop.role is Role.CONTRACTED]
    nearest = min(own, key=lambda loop: abs(loop.strides[tensor]))
    elements = volume(own) * _extent(loops, Role.BATCH)
    return 8e-10 * elements if abs(nearest.strides[tensor]) >= 64 else 1.1e-9 * elements / nearest.extent


def _evenly(loops: Sequence[Loop], tensor: int, apart: int) -> int:
    """How many numbers of a tensor lie so many bytes from one to the next."""
    count = 1
    for loop in sorted(loops, key=lambda loop: abs(loop.strides[tensor])):
        if abs(loop.strides[tensor]) == count * apart:
            count *= loop.extent
    return count


def _run(loops: Sequence[Loop], tensor: int) -> int:
    """How many steps of some loops, from the innermost on, a tensor walks as one; no limit where it walks all so."""
    count = walked_as_one(loops, tensor)
    return volume(loops[-count:]) if count < len(loops) else sys.maxsize


def _contract_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    # The times are fitted to 3700 products of random shapes, layouts and types, on one Zen 4 core with AVX-512: the
    # median error is a tenth, and the kernel chosen by it takes 1.04 times as long as the best one in the geometric
    # mean.
    batch, m, n, k = (_extent(loops, role) for role in (Role.BATCH, Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    code = types[2]
    lanes = _lanes_of(code, machine)
    parts = 1 if _MULTIPLIES[code] == 1 else 2
    columns = 2 * lanes // parts
    vectors, panels = ceil(n * parts / lanes), ceil(n / columns)
    # A tile of r rows costs r vector multiply-adds a column and k, and at least as long as it takes to load its sides;
    # one of few rows waits for the right side's vectors as long as eight would.
    tiles = ceil(m / 14) * panels
    multiply = batch * k * parts * (max(m, 8) * vectors + 2 * tiles) / machine.vectors_per_second
    writing = batch * (2e-8 * tiles + 1.5e-9 * m * panels)
    columns_of = [loop for loop in loops if loop.role is Role.FREE_RIGHT]
    # Sums of products whose outputs share cache lines are turned into place, if there is work for several tasks.
    interleaved = batch * m * n * k >= 2**20 and any(
        loop.role is Role.BATCH and abs(loop.strides[2]) < 64 for loop in loops
    )
    if interleaved:
        writing += 4e-10 * batch * m * n
    elif abs(columns_of[-1].strides[2]) != ITEMSIZES[code]:
        writing += 1.2e-9 * batch * m * n
    # A side that is read seldom is read where it lies, if it is real and, on the right, adjacent along n.
    packing = 0.0
    if n > 32 * columns or parts > 1 or ITEMSIZES[types[0]] != _COMPUTE_BYTES[code]:
        packing += (1.3e-10 if _adjacent(loops, types, 0, Role.CONTRACTED) else 4.5e-10) * batch * m * k * parts
    if m > 28 or parts > 1 or not _adjacent(loops, types, 1, Role.FREE_RIGHT):
        packing += 4.2e-9 * batch * k * panels
    # Columns in runs shorter than a tile's are copied and stored run by run (`ji,njk->nik` of 1701 x 3 x 3 float32: 45
    # us, which were predicted to be 13; fused 5).
    if (run := _run(columns_of, 1)) < columns:
        packing += batch * k * n * (5e-10 + 3.5e-9 / run)
    if (run := _run(columns_of, 2)) < columns and not interleaved:
        writing += batch * m * n * (5e-10 + 3.5e-9 / run)
    fetching = _fetching(loops, 0, Role.FREE_LEFT) + _fetching(loops, 1, Role.FREE_RIGHT)
    return _overlapped(multiply + writing + packing + fetching, _moving_seconds(loops, types, machine)) + 2e-7


def _along(loops: Sequence[Loop]) -> Loop | None:
    """The innermost batch loop: the one the vectors of the lanes kernel run along."""
    return next((loop for loop in reversed(loops) if loop.role is Role.BATCH), None)


def _accepts_lanes(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> bool:
    along = _along(loops) if len(types) == 3 else None
    size = ITEMSIZES[types[-1]]
    return (
        along is not None
        and size == _COMPUTE_BYTES[types[2]]
        and _MULTIPLIES[types[2]] == 1
        and along.strides[2] == size
        and all(0 < stride <= ITEMSIZES[code] for stride, code in zip(along.strides, types, strict=True))
        and along.extent * size >= min(machine.vector_bytes, 32)  # the engine has narrower vectors for few
        and all(_extent(loops, role) > 1 for role in (Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    )


def _lanes_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    m, n, k = (_extent(loops, role) for role in (Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    along = _along(loops)
    extent = along.extent if along else 1
    whole, rest = divmod(extent, _lanes_of(types[2], machine))
    # What fills half of a last vector is left to the narrower vectors that machines with wide ones have.
    last = 0.5 if machine.vector_bytes > 32 and 2 * rest <= _lanes_of(types[2], machine) else 1.0
    multiplied, handled = (
        _extent(loops, Role.BATCH) / extent * (whole + (part if rest else 0)) for part in (last, 1.0)
    )
    # A tile of r rows and c columns does r c multiply-adds for r + c loads, from panels that are copied vector by
    # vector, each from a cache line of its own.
    step = max(m * n, 0.8 * (m * ceil(n / 5) + n * ceil(m / 5)))
    handling = handled * (2.6e-9 * k * (m + n) + 1.5e-8 * ceil(m / 5) * ceil(n / 5) * ceil(k / 64))
    # A last vector that fills neither the machine's vectors nor half of wide ones is stored by itself.
    filled = rest * ITEMSIZES[types[2]] in (0, 32)
    broken = 0.0 if filled else 8e-9 * m * n * _extent(loops, Role.BATCH) / extent
    multiply = multiplied * k * step / machine.vectors_per_second
    return max(multiply + handling + broken, _moving_seconds(loops, types, machine)) + 3e-7


def _fused_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    compute = min([_fused_compute(loops, vector, types, machine) for vector in loops], default=0.0)
    return _overlapped(compute, _moving_seconds(loops, types, machine)) + 5e-8


def _fused_compute(loops: Sequence[Loop], vector: Loop, types: Sequence[int], machine: Machine) -> float:
    """The time outside of memory when vectors run along one of the loops."""
    code = types[-1]
    points = prod([loop.extent for loop in loops])
    terms = _extent(loops, Role.CONTRACTED)
    # Up to eight terms of a sum are added to a vector of outputs in registers; along a sum, a call is one dot product.
    summed = vector.role is Role.CONTRACTED
    together = 1 if summed else min(terms, 8)
    per_vector = 0.5 * len(types)
    multiplied = len(types) > 2
    if terms > 1:
        per_vector = 1.2 if not multiplied else 2.2 if summed else 2.9
    complex_numbers = _MULTIPLIES[code] > 1
    reals = 1.0
    if complex_numbers:
        # The parts are shuffled, too, or only added where nothing is multiplied.
        reals = (1.3 * 4 if terms > 1 else 4) if multiplied else 2
    calls = points / (min(vector.extent, 2048) * together)
    vectors = points / vector.extent * ceil(vector.extent / _lanes_of(code, machine))
    # Rows and columns of vectors are multiplied by tiles of up to four of each. Fitted to 2300 products of batches of
    # small matrices in 13 layouts, together with what turning takes: the kernel chosen takes 1.04 times as long as the
    # best one in the geometric mean, and took 1.09 times before.
    m, n = _extent(loops, Role.FREE_LEFT), _extent(loops, Role.FREE_RIGHT)
    if vector.role is Role.BATCH and m * n > 1 and all(vector.strides) and not complex_numbers:
        rows, columns = m / ceil(m / 4), n / ceil(n / 4)
        per_vector = 3 * max(1.0, (rows + columns) / (rows * columns)) + 6 / terms
        calls /= rows * columns
    multiply = vectors * per_vector * reals / machine.vectors_per_second
    turning = sum(_turning(loops, vector, tensor, code) for tensor, code in enumerate(types))
    return multiply + 4.5e-9 * calls + turning


def _turning(loops: Sequence[Loop], vector: Loop, tensor: int, code: int) -> float:
    """The time to turn a tensor that is not adjacent along the vectors."""
    size, stride = ITEMSIZES[code], abs(vector.strides[tensor])
    if stride in (0, size):
        return 0.0
    own = [loop for loop in loops if loop.strides[tensor]]
    numbers = prod([loop.extent for loop in own])
    width = numbers // vector.extent
    if width <= 9 and stride == width * size:
        return 1e-11 * size * numbers
    run = _evenly([loop for loop in own if loop is not vector], tensor, size)
    if run < 8:
        return (6e-10 if run < 4 else 3e-10) * numbers
    return ((1.9e-10 if run < 16 else 1.1e-10) + 1.9e-11 * size) * numbers


def _overlapped(computing: float, moving: float) -> float:
    """The time of what computes while it moves: neither hides the other wholly.

    Without that and a price of their own for plain sums, an operand's own labels were summed after it was multiplied:
    1200 random expressions of two to four operands, one core, 0.94 of the time in the geometric mean; 800 pairs with
    such labels 1.16 times the better of both orders, and 1.05 so.
    """
    return max(computing, moving) + 0.2 * min(computing, moving)


def _bytes_moved(loops: Sequence[Loop], types: Sequence[int]) -> int:
    return sum(
        ITEMSIZES[code] * prod([loop.extent for loop in loops if loop.strides[tensor]])
        for tensor, code in enumerate(types)
    )


def _moving_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    """The time that reading the inputs and writing the output once takes: from the second-level cache at four times the
    rate of memory, from the third at twice."""
    moved = _bytes_moved(loops, types)
    faster = 4 if moved <= machine.cache_bytes else 2 if moved <= 32 * machine.cache_bytes else 1
    return moved / (faster * machine.bytes_per_second)


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        "contract",
        0,
        _accepts_contraction,
        _contract_seconds,
        "a matrix product over label groups, packed from the strides",
    ),
    Kernel("lanes", 2, _accepts_lanes, _lanes_seconds, "a batched product with vectors along the batch"),
    Kernel("fused", 1, lambda *_: True, _fused_seconds, "one pass over all inputs, multiplied and summed"),
)
"""Every kernel; of those that accept a step, the one with the least estimate runs it."""


def peak_flops(code: int, machine: Machine) -> float:
    """The flops a second (two per multiply-add) of one core that does nothing but multiply and add numbers of the
    type with this dtype code.

    >>> from .machine import detect
    >>> peak_flops(11, detect()) == 2 * peak_flops(12, detect())  # float32, float64
    True
    """
    return 2 * machine.vectors_per_second * _lanes_of(code, machine) / _MULTIPLIES[code]


def choose(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> tuple[Kernel, float]:
    """The kernel for a step and its estimate in seconds."""
    estimates = [
        (kernel.estimate(loops, types, machine), kernel) for kernel in KERNELS if kernel.accepts(loops, types, machine)
    ]
    seconds, kernel = min(estimates, key=lambda estimate: estimate[0])
    return kernel, seconds
