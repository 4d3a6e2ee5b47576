"""Running a plan to see how long it takes: each step alone, on real intermediates, and the whole call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from timeit import Timer
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..array import Array
from ..program import ITEMSIZES, Program, Step
from ..run import load_program
from .facts import Measured, instead_of_kernels

if TYPE_CHECKING:
    from ..api import Plan

_LEAST_SECONDS = 5e-3  # of a timing, so that the clock's resolution does not matter
_REPEATS = 5


def measure(plan: Plan, operands: Sequence[Array]) -> Measured:
    """The least time of a few runs, of each step and of all; on as many threads as einstride uses.

    The operands have the strides that the plan is for.
    """
    program = None if instead_of_kernels(plan) else plan.program
    steps = _step_seconds(program, operands, plan(*operands)) if program else ()
    return Measured(steps, _seconds(lambda: plan(*operands)), _core.num_threads())


def _step_seconds(program: Program, operands: Sequence[Array], result: Array) -> tuple[float, ...]:
    """Each step as a program of its own. The engine walks loops over memory, so an intermediate is its bytes."""
    memory: dict[int, Array] = dict(enumerate(operands)) | {program.operands: np.asarray(result)}
    seconds: list[float] = []
    for step in program.steps:
        *inputs, output = step.slots
        if output not in memory:
            memory[output] = np.empty(_bytes(step), np.uint8)
        alone = Step(step.kernel, tuple(range(len(step.slots))), step.types, step.loops)
        compiled = load_program(Program(len(inputs), (alone,), (), 0, step.types[-1], program.cleared, program.seconds))
        seconds.append(_seconds(_run(compiled, tuple([memory[slot] for slot in inputs]), memory[output])))
    return tuple(seconds)


def _run(compiled: _core.Program, inputs: tuple[Array, ...], output: Array) -> Callable[[], Any]:
    return lambda: compiled.run(inputs, output)


def _bytes(step: Step) -> int:
    """How far a step's output reaches."""
    reach = sum((loop.extent - 1) * loop.strides[-1] for loop in step.loops)
    return ITEMSIZES[step.types[-1]] + reach


def _seconds(call: Callable[[], Any]) -> float:
    timer = Timer(call)
    once = timer.timeit(1)
    number = max(1, int(_LEAST_SECONDS / max(once, 1e-8)))
    return min(timer.repeat(_REPEATS, number)) / number
