"""Arranging: which small tensors of a step are copied into the order in which its largest one lies.

A kernel walks one tensor as it lies. What lies across that walk is turned as it comes, for every tile again, and two
loops that it walks as two are two for all. Of a tensor that is small beside the largest one a copy costs little, and
then both are walked as one (`abcd,dc->ab` of 530 x 301 x 8 x 2 float32, 2 threads: 790 us, and 215 us so).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from .expression import Label
from .machine import Machine
from .problem import Problem, dense_strides
from .program import ITEMSIZES, Step, intermediate_type
from .step import Tensor, step_of

# Steps that take less are left as they are: what a further step costs would be felt.
LEAST_SECONDS = 5e-6
# A copy has a fourth of the largest tensor's elements at the most, and so many bytes: about the second-level cache.
LEAST_RATIO = 4
MOST_BYTES = 1 << 20
# Predictions do not tell by how much it helps to walk fewer loops. So each loop is charged a twentieth of the step, and
# copying twice; and a contraction that stays one, which packs what lies badly in any case, a fifth for being arranged
# (`bda,dc->abc`, 96 each, float64, predicted to take 0.93 of the time, took 1.2). Fitted to 8900 products of random
# shapes and layouts, each in every arrangement, on one Zen 4 core with AVX-512: what is chosen takes 1.09 times as long
# as the best arrangement with the best kernel in the geometric mean, 1.16 without arranging.
LOOP_CHARGE = 0.05
COPY_CHARGE = 2
CONTRACTION_CHARGE = 0.2


def arranged(
    problem: Problem, tensors: Sequence[Tensor], positions: Sequence[int], plain: tuple[Step, float], machine: Machine
) -> dict[int, Tensor]:
    """The tensors of a step, by position, that had better be copied, as they lie then; their slots are to be chosen.

    ``tensors`` are the step's inputs and, last, its output, whose copy is made first and then stored in its place;
    ``plain`` is the step, with its seconds, that walks them as they lie.
    """
    copies: dict[int, Tensor] = {}
    if plain[1] < LEAST_SECONDS:
        return copies
    least, copying = _charged(*plain), 0.0
    now = list(tensors)
    for position in positions:
        kept, spent = now[position], copying
        for copy in _orders(problem, tensors, position):
            pair = (kept, copy) if position < len(tensors) - 1 else (copy, kept)
            cost = spent + COPY_CHARGE * copy_step(problem, *pair, machine)[1]
            tried = [*now[:position], copy, *now[position + 1 :]]
            step, seconds = step_of(problem, tried, machine)
            charge = _charged(step, seconds) + cost
            if step.kernel == plain[0].kernel == "contract":
                charge += CONTRACTION_CHARGE * seconds
            if charge < least:
                least, copying, copies[position] = charge, cost, copy
        now[position] = copies.get(position, kept)
    return copies


def copy_step(problem: Problem, source: Tensor, target: Tensor, machine: Machine) -> tuple[Step, float]:
    """The step that copies a tensor, and the seconds one core is expected to take."""
    labels = _walked(problem, source)
    pair = [replace(tensor, strides={label: tensor.strides[label] for label in labels}) for tensor in (source, target)]
    step, seconds = step_of(problem, pair, machine)
    return replace(step, arranges=True), seconds


def elements(problem: Problem, tensor: Tensor) -> int:
    """How many elements a tensor has in memory: a broadcast one few."""
    return prod([problem.extents[label] for label in _walked(problem, tensor)])


def _charged(step: Step, seconds: float) -> float:
    return seconds * (1 + LOOP_CHARGE * len(step.loops))


def _walked(problem: Problem, tensor: Tensor) -> list[Label]:
    """A tensor's labels as they lie, outermost first."""
    labels = [label for label, stride in tensor.strides.items() if stride and problem.extents[label] > 1]
    return sorted(labels, key=lambda label: -abs(tensor.strides[label]))


def _orders(problem: Problem, tensors: Sequence[Tensor], position: int) -> Iterator[Tensor]:
    """Copies of a small tensor that lie as the largest one; labels it has alone lie outside of them, or inside."""
    own, largest = tensors[position], max(tensors, key=lambda tensor: elements(problem, tensor))
    count = elements(problem, own)
    output = position == len(tensors) - 1
    kind = intermediate_type(own.type) if output else own.type
    if LEAST_RATIO * count > elements(problem, largest) or count * ITEMSIZES[kind] > MOST_BYTES:
        return
    lies = _walked(problem, own)
    shared = [label for label in _walked(problem, largest) if label in lies]
    lacking = [label for label in lies if label not in shared]
    for order in dict.fromkeys([(*lacking, *shared), (*shared, *lacking)]):
        if list(order) != lies:
            # Broadcast labels stay so.
            dense = dense_strides(problem.extents, order, ITEMSIZES[kind])
            yield Tensor(own.slot, kind, {label: dense[label] for label in own.strides})
