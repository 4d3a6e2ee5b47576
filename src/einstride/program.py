"""Programs: the steps the engine runs, as data, and what makes them legal."""

from __future__ import annotations

from dataclasses import dataclass

from .loop import Loop, Role

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
"""The element types the engine has, by code: the order of ``DType`` in ``src/core/types.hpp``."""

ITEMSIZES = (1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 8, 16)
"""Bytes of an element, by code."""

_FLOAT16, _BFLOAT16, _FLOAT32 = (DTYPES.index(name) for name in ("float16", "bfloat16", "float32"))


def intermediate_type(code: int) -> int:
    """The code of the type intermediates of a program with results of type ``code`` are kept in.

    Two-byte floats are computed in float32 and rounded once, at the end.

    >>> DTYPES[intermediate_type(DTYPES.index("float16"))]
    'float32'
    """
    return _FLOAT32 if code in (_FLOAT16, _BFLOAT16) else code


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel run over loops.

    Attributes:
        kernel: the id of a kernel in `einstride.kernels.KERNELS`.
        slots: where the inputs and, last, the output lie: operands first, then the program's output, then
            intermediates.
        types: the dtype code of each slot.
        loops: every loop with one byte stride per slot.
        arranges: it only copies a tensor of the next step, or the result of the last one, into another order.
    """

    kernel: str
    slots: tuple[int, ...]
    types: tuple[int, ...]
    loops: tuple[Loop, ...]
    arranges: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """Steps that turn operands of known strides and types into the output.

    Attributes:
        operands: the number of operands.
        steps: in the order they run.
        offsets: the byte offset of each intermediate in the workspace.
        workspace: bytes of workspace.
        type: the dtype code of the result.
        cleared: the output must be all zeros before the program runs (no step writes every element).
        seconds: the predicted time of one run.
    """

    operands: int
    steps: tuple[Step, ...]
    offsets: tuple[int, ...]
    workspace: int
    type: int
    cleared: bool
    seconds: float

    @property
    def kernels(self) -> list[str]:
        """The kernels that make the nodes of the tree, in order."""
        return [step.kernel for step in self.steps if not step.arranges]


def verify(program: Program) -> None:
    """Check that a program can be run without touching memory that is not its own.

    Raises:
        ValueError: naming the step and what is wrong with it.
    """
    ready = set(range(program.operands))
    slots = program.operands + 1 + len(program.offsets)
    for number, step in enumerate(program.steps):
        *inputs, output = step.slots
        if not inputs or len(step.types) != len(step.slots):
            raise ValueError(f"step {number} has {len(step.slots)} slots and {len(step.types)} types")
        if not ready.issuperset(inputs) or not program.operands <= output < slots or output in inputs:
            raise ValueError(f"step {number} reads {inputs} and writes {output}; ready are {sorted(ready)}")
        for loop in step.loops:
            if len(loop.strides) != len(step.slots) or loop.extent < 1:
                raise ValueError(f"step {number}: {loop} does not fit {len(step.slots)} tensors")
            if (loop.role == Role.CONTRACTED) != (loop.strides[-1] == 0):
                raise ValueError(
                    f"step {number}: {loop} must have a stride in the output exactly when it is not summed"
                )
        for slot, code in zip(step.slots, step.types, strict=True):
            if slot > program.operands:
                reach = ITEMSIZES[code] + sum(
                    (loop.extent - 1) * loop.strides[step.slots.index(slot)] for loop in step.loops
                )
                if program.offsets[slot - program.operands - 1] + reach > program.workspace:
                    raise ValueError(f"step {number}: slot {slot} reaches beyond the workspace")
        ready.add(output)
