"""The compiled engine: programs, the repeated call, threads and memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import numpy.typing


def einsum(
    subscripts: object = ...,
    /,
    *operands: object,
    out: numpy.typing.NDArray[Any] | None = None,
    dtype: numpy.typing.DTypeLike | None = None,
    order: object = "K",
    casting: object = "safe",
    optimize: object = "auto",
    memory: int | None = None,
) -> Any:
    """
    The sum of products of the operands' elements that the subscripts describe, as numpy.einsum computes it.
    """

class Program:
    """Steps that turn operands into an output, ready to run from any thread."""

    def __init__(self, operands: int, steps: Sequence[tuple[int, Sequence[int], Sequence[int], Sequence[tuple[int, int, Sequence[int]]]]], offsets: Sequence[int], workspace: int, long_running: bool = True) -> None:
        """
        A step is (kernel, slots, dtype codes, loops), a loop (role, extent, byte strides). Slots 0 .. operands - 1
        are the operands, the next is the output, later ones are intermediates at offsets into the workspace.
        """

    def run(self, operands: tuple[numpy.typing.NDArray[Any], ...], out: numpy.typing.NDArray[Any]) -> None:
        """
        Fill `out`. The arrays must have the shapes, strides and dtypes the program was lowered for.
        Raises MemoryError and KeyboardInterrupt.
        """

    def memory(self) -> int:
        """
        Bytes that running takes with so many threads as are set now: intermediates, packing buffers, partial
        sums and offsets.
        """

    @property
    def long_running(self) -> bool: ...

    @property
    def workspace(self) -> int: ...

def attend_program(loops: Sequence[tuple[int, int, Sequence[int]]], tensors: Sequence[int], types: Sequence[int], scale: float) -> Program:
    """
    A program of one attention. A loop is (role, extent, byte strides), a stride for each of the tensors that
    are present; all but the last of them are the program's operands, the last is its output.
    """

def set_miss(function: Callable[..., object]) -> None:
    """
    Name the function einsum calls, with its own arguments, where it has no answer yet.
    """

def remember(subscripts: object, operands: tuple[numpy.typing.NDArray[Any], ...], out: numpy.typing.NDArray[Any] | None, optimize: object, program: Program | None, shape: tuple[int, ...], strides: tuple[int, ...], dtype: numpy.dtype[Any], view_of: int | None, zeroed: bool) -> None:
    """
    Answer such a call from now on without Python: by running `program` on a new array of this shape, strides and
    dtype (cleared first if `zeroed`), or on `out`; or, without a program, by a view of operand `view_of`.
    """

def forget() -> None:
    """Forget every remembered call."""

def empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: numpy.dtype[Any]) -> numpy.typing.NDArray[Any]:
    """
    A new array, its contents undefined; a large one lies in recycled memory. The strides are dense, in any order.
    """

def num_threads() -> int:
    """
    The number of threads that long work runs on: OMP_NUM_THREADS, or the cores this process may use.

    >>> num_threads() >= 1
    True
    """

def set_num_threads(count: int) -> None:
    """
    Set the number of threads for the whole process. Results do not depend on it, bit for bit.

    Raises ValueError where `count` is less than 1.

    >>> set_num_threads(2)
    >>> num_threads()
    2
    """

def set_progress(function: Callable[[float | None], object] | None) -> Callable[[float | None], object] | None:
    """
    Name the function that hears, about ten times a second, what fraction of an einsum that takes long is done:
    0 to 1, never less than before, 1 at the end, or None where the work ended early. It is called by the thread
    that called einsum; an exception it raises stops the work. None names no function. Returns the one before.
    """

def level_name() -> str:
    """The instruction-set level in use; EINSTRIDE_LEVEL names a lower one."""

def levels() -> list[str]:
    """The levels this processor runs, the best first."""

def memory_held() -> int:
    """Bytes of packing buffers and workspace held now."""

def memory_peak() -> int:
    """The most held since reset_memory_peak()."""

def reset_memory_peak() -> None:
    """Start memory_peak() from what is held now."""

def memory_cached() -> int:
    """Bytes of freed outputs kept for later ones."""

def measure_flops(acc: int) -> float:
    """
    The flops per second all threads reach on registers: 0 int16, 1 int32, 2 int64, 3 float32, 4 float64,
    5 complex64, 6 complex128 (a complex multiply-add is 2 flops here, as everywhere).
    """

def measure_bandwidth(bytes: int = 268435456) -> float:
    """The bytes per second all threads read from a working set of this size."""
