"""A step: its loops, in the order in which they are nested, and the kernel that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .expression import Label
from .kernels import choose
from .loop import Loop, Role, fold, nest, next_to_innermost, volume, walked_as_one
from .machine import Machine
from .problem import Problem
from .program import ITEMSIZES, Step

PAGE = 4096
# Of a left side that is read where it lies: the fewest rows that repay a product of their own (`bda,dc->abc` with 1000
# of b and 16 x 16 of c and d: 0.6 of the time at 8 rows of float64, 1.3 at 5 of float32), and the most vectors of
# columns, beyond which it is packed in any case.
LEAST_ROWS = 8
MOST_VECTORS = 64
# Of a right side: the fewest vectors of columns, and the size of the left side that its products share, which stays in
# the second-level cache.
LEAST_VECTORS = 2
MOST_SHARED_BYTES = 128 << 10
# Columns are walked as they lie on the right side, and written apart, where k is so many times m: each is then read
# more often than it is written (`eba,ecd->adcb` of 418 x 3 x 20 x 16 x 1447 float64, 2 threads, 40 ms as the output
# lies and 14 so; `dab,cd->cba` of 27 x 615 x 17 x 289 10.9 and 3.4). Where the output's runs are neither whole vectors
# nor three of them, less is enough. Within 0.01 of the best bounds for 1083 products in short runs and 586 in long
# ones, which take 1.09 and 1.05 times the best order's time so.
LEAST_DEPTH = 8
LEAST_DEPTH_SHORT = 2.5


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a step: its slot, its dtype code and the byte stride of each of its labels."""

    slot: int
    type: int
    strides: Mapping[Label, int]


def step_of(problem: Problem, tensors: Sequence[Tensor], machine: Machine) -> tuple[Step, float]:
    """The step that makes the last of some tensors from the others, and the seconds one core is expected to take."""
    *inputs, made = tensors
    if len(inputs) == 2 and _belongs_right(problem, inputs[0], inputs[1], made):
        inputs.reverse()
    tensors = (*inputs, made)
    loops = fold(_loops(problem, tensors, machine))
    types = tuple([tensor.type for tensor in tensors])
    kernel, seconds = choose(loops, types, machine)
    return Step(kernel.id, tuple([tensor.slot for tensor in tensors]), types, loops), seconds


def _loops(problem: Problem, tensors: Sequence[Tensor], machine: Machine) -> list[Loop]:
    """Every label of a step as a loop, grouped by role; within a role outermost first."""
    made = tensors[-1]
    labels = dict.fromkeys(label for tensor in tensors for label in tensor.strides)
    loops: dict[Role, list[Loop]] = {role: [] for role in Role}
    for label in labels:
        strides = tuple([tensor.strides.get(label, 0) for tensor in tensors])
        if label not in made.strides:
            role = Role.CONTRACTED
        elif len(tensors) != 3 or (label in tensors[0].strides and label in tensors[1].strides):
            role = Role.BATCH
        else:
            role = Role.FREE_LEFT if label in tensors[0].strides else Role.FREE_RIGHT
        loops[role].append(Loop(role, problem.extents[label], strides))
    if len(tensors) != 3:
        return [*nest(loops[Role.BATCH], -1), *nest(loops[Role.CONTRACTED], 0)]

    # A group of loops that two tensors walk is nested as the one wants it that is walked more often: m by the output
    # rather than the left side when there is more of n than of k, and so on. The right side's adjacent elements are
    # kept next to the innermost loop of n, where packing turns them, or each cache line is fetched once for every
    # element it holds.
    m, n, k = (volume(loops[role]) for role in (Role.FREE_LEFT, Role.FREE_RIGHT, Role.CONTRACTED))
    lanes = machine.vector_bytes // ITEMSIZES[made.type]
    free_right = _columns(loops[Role.FREE_RIGHT], m, k, ITEMSIZES[tensors[1].type], lanes)
    batch, free_left = nest(loops[Role.BATCH], -1), nest(loops[Role.FREE_LEFT], -1 if n > k else 0)
    apart = _walked_apart(loops, tensors, machine)
    if apart:
        free_left = [loop for loop in free_left if loop not in apart]
        free_right = [loop for loop in free_right if loop not in apart]
        batch = nest([*batch, *(Loop(Role.BATCH, loop.extent, loop.strides) for loop in apart)], -1)
    return [*batch, *free_left, *free_right, *nest(loops[Role.CONTRACTED], 1 if n >= m else 0)]


def _columns(loops: Sequence[Loop], m: int, k: int, size: int, lanes: int) -> list[Loop]:
    """The loops of n in the order in which tiles have their columns; the right side's elements have ``size`` bytes."""
    if not loops:
        return []
    as_written, as_read = nest(loops, -1), nest(loops, 1)
    run = as_written[-1].extent
    short = run % lanes != 0 and run < 3 * lanes
    if as_read[-1].strides[1] == size and k >= (LEAST_DEPTH_SHORT if short else LEAST_DEPTH) * m:
        return as_read
    return next_to_innermost(as_written, 1, size)


def _walked_apart(loops: Mapping[Role, Sequence[Loop]], tensors: Sequence[Tensor], machine: Machine) -> list[Loop]:
    """The loops of m or n that alone keep a pair from being read where it lies, without packing.

    The left side is, where it walks each of m and k with one stride; the right one, where its columns are adjacent and
    its rows share pages. So the outer loops of an m or n that has several strides may join the batch instead, if
    neither side is packed then, or it would be for each product (`bda,dc->abc`, 96 each, float64, one core: 4.1 ms
    packed, 3.3 ms where it lies; `kr,pjks->pjrs` of extents 32, float64, 2 threads: 930 us and 695 us).
    """
    left, right, out = tensors
    size = ITEMSIZES[left.type]
    m, n, k = nest(loops[Role.FREE_LEFT], 0), nest(loops[Role.FREE_RIGHT], 1), nest(loops[Role.CONTRACTED], 0)
    rows, columns = m[len(m) - walked_as_one(m, 0) :], n[len(n) - walked_as_one(n, 1) :]
    width = volume(columns) * size
    if (
        not left.type == right.type == out.type
        or not n
        or n[-1].strides[1] != size
        or not 0 < len(k) == walked_as_one(k, 0) == walked_as_one(k, 1)
        or abs(k[-1].strides[1]) > min(PAGE, 2 * width)
        or width > MOST_VECTORS * machine.vector_bytes
    ):
        return []
    if len(columns) == len(n):
        return m[: -len(rows)] if volume(rows) >= LEAST_ROWS else []
    shared = volume(m) * volume(k) * size
    if len(rows) == len(m) and width >= LEAST_VECTORS * machine.vector_bytes and shared <= MOST_SHARED_BYTES:
        return n[: -len(columns)] if n[-1].strides[2] == size else []
    return []


def _belongs_right(problem: Problem, left: Tensor, right: Tensor, made: Tensor) -> bool:
    """Whether the left tensor of a pair should be the right one: the right side's free labels are the ones a tile's
    vectors run along, so the output's adjacent elements should belong to it."""
    free_left = [label for label in made.strides if label in left.strides and label not in right.strides]
    free_right = [label for label in made.strides if label in right.strides and label not in left.strides]
    size = ITEMSIZES[made.type]

    def adjacent(free: Sequence[Label]) -> bool:
        return any(abs(made.strides[label]) == size and problem.extents[label] > 1 for label in free)

    return adjacent(free_left) and not adjacent(free_right)
