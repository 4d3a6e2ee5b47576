"""Lowering: a tree over tensors of known strides and types becomes a program of loops and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from .arrange import arranged, copy_step, elements
from .expression import Label
from .machine import Machine
from .problem import Problem, axis_strides, dense_strides, output_strides
from .program import ITEMSIZES, Program, Step, intermediate_type
from .step import Tensor, step_of
from .tree import Tree, node_labels

ALIGNMENT = 64


def lower(
    problem: Problem,
    tree: Tree,
    strides: Sequence[Sequence[int]],
    types: Sequence[int],
    result_type: int,
    result_strides: Sequence[int],
    machine: Machine,
    arranges: bool = True,
) -> Program:
    """The program that runs ``tree`` on operands with these byte strides and dtype codes.

    The output's memory has the byte strides ``result_strides``, one per axis of the output. Unless it ``arranges``
    them, every tensor is walked as it lies.
    """
    operands = len(types)
    output = Tensor(operands, result_type, output_strides(problem, result_strides))
    repeated = len(output.strides) < len(problem.expression.output)
    if 0 in problem.extents:
        # Nothing to multiply: an output of no elements, or a sum of no terms.
        return Program(operands, (), (), 0, result_type, True, 0.0)

    tensors = [Tensor(slot, types[slot], axis_strides(problem, slot, strides[slot])) for slot in range(operands)]
    labels = node_labels(problem, tree)
    writer = _Writer(problem, operands, machine)
    for node, group in enumerate(tree.groups, operands):
        inputs = [tensors[part] for part in group]
        last = node == len(labels) - 1
        if last:
            made = output
        else:
            order = _intermediate_order(problem, inputs, labels[node])
            kept_type = intermediate_type(result_type)
            dense = dense_strides(problem.extents, order, ITEMSIZES[kept_type])
            made = writer.place(Tensor(-1, kept_type, {label: dense[label] for label in order}))
        # The order of an intermediate is chosen in any case.
        writer.make([*inputs, made], range(len(inputs) + last) if arranges else ())
        for tensor in inputs:
            writer.drop(tensor)
        tensors.append(made)
    allocation = writer.allocation
    return Program(
        operands,
        tuple(writer.steps),
        tuple(allocation.offsets),
        allocation.end,
        result_type,
        repeated,
        writer.seconds,
    )


class _Writer:
    """Writes a program step by step."""

    def __init__(self, problem: Problem, operands: int, machine: Machine) -> None:
        self.steps: list[Step] = []
        self.seconds = 0.0
        self.allocation = _Allocation()
        self._problem, self._machine = problem, machine
        self._first_slot = operands + 1

    def place(self, tensor: Tensor) -> Tensor:
        """The tensor in a new slot of the workspace."""
        size = ITEMSIZES[tensor.type] * elements(self._problem, tensor)
        return replace(tensor, slot=self._first_slot + self.allocation.take(size))

    def drop(self, tensor: Tensor) -> None:
        """Give the tensor's place back, if it has one in the workspace."""
        if tensor.slot >= self._first_slot:
            self.allocation.give(tensor.slot - self._first_slot)

    def make(self, tensors: Sequence[Tensor], fixed: Sequence[int]) -> None:
        """Write the step that makes the last tensor of the others, and copies of those that had better be arranged,
        of the ones at the positions ``fixed``."""
        step = step_of(self._problem, tensors, self._machine)
        copies = arranged(self._problem, tensors, fixed, step, self._machine)
        placed = {position: self.place(copy) for position, copy in copies.items()}
        if placed:
            arranged_tensors = [placed.get(position, tensor) for position, tensor in enumerate(tensors)]
            step = step_of(self._problem, arranged_tensors, self._machine)
        output = len(tensors) - 1
        for position, copy in placed.items():
            if position < output:
                self._write(copy_step(self._problem, tensors[position], copy, self._machine))
        self._write(step)
        if output in placed:
            self._write(copy_step(self._problem, placed[output], tensors[output], self._machine))
        for copy in placed.values():
            self.drop(copy)

    def _write(self, estimated: tuple[Step, float]) -> None:
        step, seconds = estimated
        self.steps.append(step)
        self.seconds += seconds


def _intermediate_order(problem: Problem, inputs: Sequence[Tensor], labels: Sequence[Label]) -> list[Label]:
    """The order of an intermediate's axes, outermost first: the labels that all inputs share, then the free labels of
    one input after the other, each in the order in which its input has them in memory.

    Of a pair, the side with fewer free elements comes last, for its panel then stays in cache while the other streams.
    """
    owners = {label: [index for index, tensor in enumerate(inputs) if label in tensor.strides] for label in labels}
    free = [
        prod([problem.extents[label] for label in labels if owners[label] == [index]]) for index in range(len(inputs))
    ]

    def place(label: Label) -> tuple[bool, int, int, int]:
        first = owners[label][0]
        return (len(owners[label]) == 1, -free[first], first, -abs(inputs[first].strides[label]))

    return sorted(labels, key=place)


class _Allocation:
    """Places in one workspace for intermediates, first fit over what is free when each is made."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.end = 0
        self._sizes: list[int] = []
        self._live: list[int] = []

    def take(self, size: int) -> int:
        offset = 0
        for index in self._live:
            if self.offsets[index] - offset >= size:
                break
            offset = max(offset, -(-(self.offsets[index] + self._sizes[index]) // ALIGNMENT) * ALIGNMENT)
        self.offsets.append(offset)
        self._sizes.append(size)
        self.end = max(self.end, offset + size)
        self._live.append(len(self.offsets) - 1)
        self._live.sort(key=self.offsets.__getitem__)
        return len(self.offsets) - 1

    def give(self, index: int) -> None:
        self._live.remove(index)
