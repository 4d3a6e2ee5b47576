"""Running: a program in one call of the engine, or a tree on arrays of a type the engine lacks."""

from __future__ import annotations

from . import _core
from .kernels import KERNELS
from .program import Program

# Work expected to take longer than this lets other Python threads run meanwhile; letting go of the interpreter and
# taking it back costs some 0.1 microseconds.
LONG_RUNNING_SECONDS = 2e-5

_NUMBERS = {kernel.id: kernel.number for kernel in KERNELS}


def load_program(program: Program) -> _core.Program:
    """The engine's form of a program: prepared once, run any number of times from any thread."""
    steps = [
        (
            _NUMBERS[step.kernel],
            step.slots,
            step.types,
            [(loop.role, loop.extent, loop.strides) for loop in step.loops],
        )
        for step in program.steps
    ]
    return _core.Program(
        program.operands,
        steps,
        program.offsets,
        program.workspace,
        long_running=program.seconds > LONG_RUNNING_SECONDS,
    )
