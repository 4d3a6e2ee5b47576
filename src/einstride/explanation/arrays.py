"""An expression in the operations that array libraries have: transposes, products of matrices, sums. In NumPy and in
PyTorch, as functions that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING

from ..expression import Label
from .facts import Facts, Tensor
from .loops import function, statement

if TYPE_CHECKING:
    from ..api import Plan

Labels = tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Library:
    """How a library spells what is needed of it; a dtype is spelled from its name."""

    module: str
    imported: str
    transpose: str
    axes: str
    tensordot: str
    einsum_options: str
    dtype: Callable[[str], str]
    cast: str


NUMPY = Library(
    "np", "import numpy as np", "transpose", "axis", "axes", ", optimize=True", lambda name: f'"{name}"', "astype"
)
TORCH = Library("torch", "import torch", "permute", "dim", "dims", "", lambda name: f"torch.{name}", "to")


@dataclass(frozen=True, slots=True)
class _Value:
    """An array as code: its labels, each once, in the order of its axes. What is not simple needs parentheses before
    anything can be appended to it."""

    text: str
    labels: Labels
    simple: bool = True

    def then(self, suffix: str, labels: Labels) -> _Value:
        return _Value((self.text if self.simple else f"({self.text})") + suffix, labels)


def by_library(plan: Plan, facts: Facts, library: Library) -> str:
    """A function of the operands that gives the result step by step, as ``plan`` orders them. Each step is a product
    of matrices, an entry-by-entry product or a sum; one that takes many operands at once is left to the library's
    own einsum.

    >>> from einstride import plan
    >>> from einstride.explanation.facts import describe
    >>> batched = plan("bcik,bcij->bckj", (2, 3, 4, 5), (2, 3, 4, 6))
    >>> print(by_library(batched, describe(batched), NUMPY))
    import numpy as np
    <BLANKLINE>
    <BLANKLINE>
    def by_numpy(A, B):
        return A.transpose(0, 1, 3, 2) @ B
    """
    return _Writer(plan, facts, library).written()


def conversions(plan: Plan, facts: Facts, library: Library) -> tuple[list[str], str | None]:
    """Lines that convert the operands to the type that sums are formed in, and that type, where it is another than the
    result's: sixteen-bit floats are summed in float32."""
    compute = "float32" if facts.dtype in ("float16", "bfloat16") else facts.dtype
    lines = [
        f"{tensor.name} = {tensor.name}.{library.cast}({library.dtype(compute)})"
        for tensor, dtype in zip(facts.operands, plan.dtypes, strict=True)
        if dtype.name != compute
    ]
    return lines, compute if compute != facts.dtype else None


class _Writer:
    """Writes one function: values are code that has been put together so far, `lines` what comes before."""

    def __init__(self, plan: Plan, facts: Facts, library: Library) -> None:
        self.plan, self.facts, self.target = plan, facts, library
        self.extents = plan.problem.extents
        self.lines, self.compute = conversions(plan, facts, library)

    def written(self) -> str:
        values = [self._operand(tensor) for tensor in self.facts.operands]
        for step in self.facts.steps:
            *group, _ = step.nodes
            last = step is self.facts.steps[-1]
            kept = tuple(dict.fromkeys(step.labels[-1]))
            value = self._ordered(self._step([values[node] for node in group], kept), kept)
            if last:
                self._return(value)
            else:
                name = f"step_{step.number}"
                self.lines += statement(f"{name} = ", value.text)
                values.append(_Value(name, kept))
        name = "by_numpy" if self.target is NUMPY else "by_torch"
        return function(name, self.facts, [self.target.imported], self.lines)

    def _return(self, value: _Value) -> None:
        output = self.facts.output
        back = f".{self.target.cast}({self.target.dtype(self.facts.dtype)})" if self.compute else ""
        if len(value.labels) == len(output.labels):
            self.lines += statement("return ", value.then(back, value.labels).text if back else value.text)
            return
        # A label repeated in the output: zeros but for a diagonal.
        module = self.target.module
        self.lines.append(f"out = {module}.zeros({output.shape}, dtype={self.target.dtype(self.facts.dtype)})")
        names = [self.facts.labels[label].identifier for label in value.labels]
        ranges = [f"{module}.arange({self.extents[label]})" for label in value.labels]
        if len(names) == 1:
            self.lines.append(f"{names[0]} = {ranges[0]}")
        else:
            self.lines += statement(f"{', '.join(names)} = ", f'{module}.meshgrid({", ".join(ranges)}, indexing="ij")')
        index = ", ".join(self.facts.labels[label].identifier for label in output.labels)
        self.lines += statement(f"out[{index}] = ", (value.then(back, value.labels) if back else value).text)
        self.lines.append("return out")

    def _operand(self, tensor: Tensor) -> _Value:
        """An operand with one axis a label: what is broadcast taken out, diagonals taken."""
        broadcast = [extent != self.extents[label] for label, extent in zip(tensor.labels, tensor.shape, strict=True)]
        labels = tuple(label for label, out in zip(tensor.labels, broadcast, strict=True) if not out)
        value = _Value(tensor.name, tensor.labels)
        if any(broadcast):
            index = ", ".join("0" if out else ":" for out in broadcast[: len(broadcast) - broadcast[::-1].index(True)])
            value = value.then(f"[{index}]", labels)
        while len(set(value.labels)) < len(value.labels):
            label = next(label for label in value.labels if value.labels.count(label) > 1)
            first = value.labels.index(label)
            second = value.labels.index(label, first + 1)
            others = tuple(own for axis, own in enumerate(value.labels) if axis not in (first, second))
            value = value.then(f".diagonal(0, {first}, {second})", (*others, label))
        return value

    def _step(self, values: Sequence[_Value], kept: Labels) -> _Value:
        """The product of values, summed over all that is not kept; its axes come in any order."""
        labels = tuple(dict.fromkeys(label for value in values for label in value.labels))
        if len(values) > 2 and len(labels) <= len(ascii_letters) and not set(labels) <= set(kept):
            return self._einsum(values, labels, kept)
        result = values[0]
        for number, value in enumerate(values[1:], 2):
            after = (*kept, *(label for other in values[number:] for label in other.labels))
            left, right = self._summed(result, (*after, *value.labels)), self._summed(value, (*after, *result.labels))
            result = self._pair(left, right, after)
        return self._summed(result, kept)

    def _einsum(self, values: Sequence[_Value], labels: Labels, kept: Labels) -> _Value:
        names = [self.facts.labels[label].name for label in labels]
        own = {name for name in names if name in ascii_letters and len(name) == 1}
        free = iter([letter for letter in ascii_letters if letter not in own])
        letters = {label: name if name in own else next(free) for label, name in zip(labels, names, strict=True)}
        kept = tuple(label for label in kept if label in letters)
        spelled = ",".join("".join(letters[label] for label in value.labels) for value in values)
        spelled += "->" + "".join(letters[label] for label in kept)
        arguments = ", ".join(value.text for value in values)
        return _Value(f'{self.target.module}.einsum("{spelled}", {arguments}{self.target.einsum_options})', kept)

    def _pair(self, left: _Value, right: _Value, kept: Iterable[Label]) -> _Value:
        """The product of two values, summed over what both have and is not kept."""
        order = {label: place for place, label in enumerate(dict.fromkeys(kept))}
        shared = [label for label in left.labels if label in right.labels]
        summed = tuple(label for label in shared if label not in order)
        if not summed:
            return self._multiplied(left, right, tuple(sorted({*left.labels, *right.labels}, key=order.__getitem__)))
        batch = tuple(sorted((label for label in shared if label in order), key=order.__getitem__))
        rows = tuple(label for label in left.labels if label not in shared)
        columns = tuple(label for label in right.labels if label not in shared)
        if rows and columns and order[rows[0]] > order[columns[0]]:
            left, right, rows, columns = right, left, columns, rows
        if not rows and not columns and (batch or len(summed) > 1):
            return self._summed(self._multiplied(left, right, batch + summed), batch)
        if len(summed) == 1 and max(len(rows), len(columns)) <= 1 and (not batch or (rows and columns)):
            left, right = self._ordered(left, batch + rows + summed), self._ordered(right, batch + summed + columns)
            return _Value(f"{self._factor(left)} @ {self._factor(right)}", batch + rows + columns, False)
        if not batch:
            axes = tuple(tuple(value.labels.index(label) for label in summed) for value in (left, right))
            text = f"{self.target.module}.tensordot({left.text}, {right.text}, {self.target.tensordot}={axes})"
            return _Value(text, rows + columns)
        # Groups of labels become the rows and the columns of matrices.
        outer = self._shape(batch)
        sides = (
            (left, batch + rows + summed, (*outer, self._volume(rows), self._volume(summed))),
            (right, batch + summed + columns, (*outer, self._volume(summed), self._volume(columns))),
        )
        for name, (value, labels, shape) in zip(("left", "right"), sides, strict=True):
            self.lines += statement(f"{name} = ", self._reshaped(self._ordered(value, labels), shape, labels).text)
        made = batch + rows + columns
        return self._reshaped(_Value("left @ right", (), False), self._shape(made), made)

    def _multiplied(self, left: _Value, right: _Value, labels: Labels) -> _Value:
        """The product entry by entry, with these labels."""
        factors = []
        for value in (left, right):
            ordered = self._ordered(value, tuple(label for label in labels if label in value.labels))
            start = next((place for place, label in enumerate(labels) if label in value.labels), len(labels))
            index = [":" if label in value.labels else "None" for label in labels[start:]]
            if "None" in index:
                ordered = ordered.then(f"[{', '.join(index)}]", labels)
            factors.append(ordered.text if value is left and "@" not in ordered.text else self._factor(ordered))
        return _Value(" * ".join(factors), labels, False)

    def _summed(self, value: _Value, kept: Iterable[Label]) -> _Value:
        left = tuple(label for label in value.labels if label in set(kept))
        axes = tuple(axis for axis, label in enumerate(value.labels) if label not in left)
        if not axes:
            return value
        options = [f"{self.target.axes}={axes[0] if len(axes) == 1 else axes}"] if left else []
        if self.facts.dtype[:4] in ("bool", "int8", "uint") or self.facts.dtype in ("int16", "int32"):
            # Both libraries sum narrow integers in a wider type.
            options.append(f"dtype={self.target.dtype(self.facts.dtype)}")
        return value.then(f".sum({', '.join(options)})", left)

    def _ordered(self, value: _Value, labels: Labels) -> _Value:
        if value.labels == labels:
            return value
        axes = ", ".join(str(value.labels.index(label)) for label in labels)
        return value.then(".T" if axes == "1, 0" else f".{self.target.transpose}({axes})", labels)

    def _reshaped(self, value: _Value, shape: tuple[int, ...], labels: Labels) -> _Value:
        if shape == self._shape(value.labels) and value.labels:
            return value
        return value.then(f".reshape({', '.join(map(str, shape))})", labels)

    def _shape(self, labels: Labels) -> tuple[int, ...]:
        return tuple(self.extents[label] for label in labels)

    def _volume(self, labels: Labels) -> int:
        return prod(self._shape(labels))

    @staticmethod
    def _factor(value: _Value) -> str:
        return value.text if value.simple else f"({value.text})"
