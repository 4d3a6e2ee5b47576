"""Running: a program in one call of the engine, or a tree on arrays of a type the engine lacks."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import _core
from .expression import Label
from .kernels import KERNELS
from .problem import Problem, axis_strides, output_shape, output_strides, terms
from .program import Program
from .tree import Tree, node_labels

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Labels: TypeAlias = "tuple[Label, ...]"

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


def run_namespace(problem: Problem, tree: Tree, arrays: Sequence[Array]) -> Array:
    """The result by NumPy's own products and sums, for element types the engine lacks: any Python numbers in object
    arrays, and long doubles.

    Operands convert to their common type before anything is summed. The result is a new array.

    >>> from fractions import Fraction
    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> third = np.full((3,), Fraction(1, 3), dtype=object)
    >>> run_namespace(bind(parse("i,i->", (1, 1)), ((3,), (3,))), Tree(((0, 1),)), (third, third))
    array(Fraction(1, 3), dtype=object)
    """
    dtype = np.result_type(*arrays)
    shape = output_shape(problem)
    if 0 in problem.extents:
        return np.zeros(shape, dtype)  # no elements, or sums of no terms
    extents = problem.extents
    values = []
    for operand, term in enumerate(terms(problem)):
        array = arrays[operand].astype(dtype, copy=False)
        strides = axis_strides(problem, operand, array.strides)
        values.append(as_strided(array, [extents[label] for label in term], [strides[label] for label in term]))
    labels = node_labels(problem, tree)
    for node, group in enumerate(tree.groups, tree.operands):
        # A group's inputs meet one after the other; a label stays until the last input that has it is in.
        value, term = values[group[0]], labels[group[0]]
        for number, part in enumerate(group[1:], 2):
            later = set(labels[node]).union(*[labels[other] for other in group[number:]])
            kept = tuple([label for label in dict.fromkeys(term + labels[part]) if label in later])
            value, term = _product(value, term, values[part], labels[part], kept), kept
        values.append(_sum(value, term, labels[node]))
    value = values[-1]
    if len(labels[-1]) == len(shape):
        return value.copy() if any(np.may_share_memory(value, array) for array in arrays) else value
    result = np.zeros(shape, dtype)
    strides = output_strides(problem, result.strides)
    diagonal = as_strided(result, value.shape, [strides[label] for label in labels[-1]])
    diagonal[...] = value
    return result


def _sum(value: Array, labels: Labels, kept: Labels) -> Array:
    """Sum the labels that are not kept and put the others in the order of ``kept``."""
    summed = tuple([axis for axis, label in enumerate(labels) if label not in kept])
    if summed:
        shape = [extent for axis, extent in enumerate(value.shape) if axis not in summed]
        # Without keepdims, a sum of all would come back as an element and not as an array.
        value = value.sum(axis=summed, dtype=value.dtype, keepdims=True).reshape(shape)
    left = [label for label in labels if label in kept]
    return value.transpose([left.index(label) for label in kept])


def _product(left: Array, left_labels: Labels, right: Array, right_labels: Labels, kept: Labels) -> Array:
    """Multiply two arrays, sum what is not kept; the result's axes are in the order of ``kept``."""
    shared = [label for label in left_labels if label in right_labels]
    batch = tuple([label for label in shared if label in kept])
    summed = tuple([label for label in shared if label not in kept])
    rows = tuple([label for label in left_labels if label in kept and label not in batch])
    columns = tuple([label for label in right_labels if label in kept and label not in batch])
    left = _sum(left, left_labels, batch + rows + summed)
    right = _sum(right, right_labels, batch + summed + columns)
    middle = len(batch)
    shape = left.shape[: middle + len(rows)] + right.shape[middle + len(summed) :]
    batches, k = shape[:middle], prod(right.shape[middle : middle + len(summed)])
    made = np.empty(
        (*batches, prod(left.shape[middle : middle + len(rows)]), prod(shape[middle + len(rows) :])), left.dtype
    )
    left, right = left.reshape(*batches, -1, k), right.reshape(*batches, k, made.shape[-1])
    if summed:
        np.matmul(left, right, out=made)
    else:
        np.multiply(left, right, out=made)  # (m, 1) times (1, n)
    return _sum(made.reshape(shape), batch + rows + columns, kept)
