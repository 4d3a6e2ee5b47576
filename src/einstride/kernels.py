"""The kernels, in one table: what each accepts and how long it is expected to take. The only dispatch there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod

from .loop import Loop, Role
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


def _bytes_moved(loops: Sequence[Loop], types: Sequence[int]) -> int:
    return sum(
        ITEMSIZES[code] * prod([loop.extent for loop in loops if loop.strides[tensor]])
        for tensor, code in enumerate(types)
    )


def _extent(loops: Sequence[Loop], role: Role) -> int:
    return prod([loop.extent for loop in loops if loop.role is role])


def _accepts_pair(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> bool:
    return len(types) == 3


def _contract_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    batch, m, n, k = (_extent(loops, role) for role in (Role.BATCH, Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    code = types[2]
    lanes = max(machine.vector_bytes // _COMPUTE_BYTES[code], 1)
    vectors = ceil(n / lanes)
    # A tile of r rows costs r vector multiply-adds a column and k, and at least as long as it takes to load its sides.
    tiles = ceil(m / 14) * ceil(vectors / 2)
    multiply = batch * k * (m * vectors + 2 * tiles) * _MULTIPLIES[code] / machine.vectors_per_second
    # Packing moves about an element a nanosecond where it turns or converts, a vector where it copies.
    packed = batch * k * (n + (m if n > 8 * lanes else 0))
    handling = 3e-10 * packed + 2.5e-8 * batch * (1 + tiles) + 1e-9 * batch * m * (n if n % lanes else 0)
    return max(multiply + handling, _beyond_cache(loops, types, machine)) + 1.5e-7


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
        and along.extent * size >= machine.vector_bytes
    )


def _lanes_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    m, n, k = (_extent(loops, role) for role in (Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    along = _along(loops)
    vectors = _extent(loops, Role.BATCH) * ITEMSIZES[types[2]] / machine.vector_bytes
    # A tile of r rows and c columns loads r + c vectors and does r c multiply-adds a step of k; each vector it loads
    # is a cache line of its own, most of them from the second-level cache.
    tiles = ceil(m / 5) * ceil(n / 5)
    step = max(m * n, 0.8 * (m * ceil(n / 5) + n * ceil(m / 5))) * 1.15
    whole = 1.0 if along is None else ceil(along.extent / (machine.vector_bytes // ITEMSIZES[types[2]])) / (
        along.extent / (machine.vector_bytes // ITEMSIZES[types[2]])
    )
    compute = vectors * whole * k * step / machine.vectors_per_second + 1e-8 * vectors * tiles * ceil(k / 64)
    return max(compute, _beyond_cache(loops, types, machine)) + 3e-7


def _fused_seconds(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    code = types[-1]
    points = prod([loop.extent for loop in loops])
    lanes = max(machine.vector_bytes // _COMPUTE_BYTES[code], 1)
    # The vector loop runs in L1 with a load per input, so at a third of the multiply rate; a short one, or one that
    # jumps in memory, spends its time between chunks.
    along = max((loop.extent for loop in loops if any(loop.strides)), default=1)
    inputs = len(types) - 1
    per_vector = (1 + inputs) * _MULTIPLIES[code] / machine.vectors_per_second
    chunks = points / min(along, 512)
    compute = points / min(along, lanes) * per_vector + chunks * 4e-9
    return max(compute, _beyond_cache(loops, types, machine)) + 5e-8


def _beyond_cache(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> float:
    moved = _bytes_moved(loops, types)
    return moved / machine.bytes_per_second if moved > machine.cache_bytes else moved / (4 * machine.bytes_per_second)


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        "contract", 0, _accepts_pair, _contract_seconds, "a matrix product over label groups, packed from the strides"
    ),
    Kernel("lanes", 2, _accepts_lanes, _lanes_seconds, "a batched product with vectors along the batch, nothing packed"),
    Kernel("fused", 1, lambda *_: True, _fused_seconds, "one pass over all inputs, multiplied and summed"),
)
"""Every kernel; of those that accept a step, the one with the least estimate runs it."""


def choose(loops: Sequence[Loop], types: Sequence[int], machine: Machine) -> tuple[Kernel, float]:
    """The kernel for a step and its estimate in seconds."""
    estimates = [(kernel.estimate(loops, types, machine), kernel) for kernel in KERNELS if kernel.accepts(loops, types, machine)]
    seconds, kernel = min(estimates, key=lambda estimate: estimate[0])
    return kernel, seconds
