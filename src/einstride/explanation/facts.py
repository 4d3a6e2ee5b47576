"""What there is to tell about a plan, worked out once: text and page only render it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ..cost import Cost, naive_flops, step_elements, step_flops, workspace
from ..expression import Expression, Label, Shape, spell
from ..kernels import KERNELS
from ..machine import detect
from ..problem import output_shape, terms
from ..program import Step
from ..tree import node_labels
from .names import RESULT, identifiers, operand_names

if TYPE_CHECKING:
    from ..api import Plan

ROLES = {
    "batch": "in several operands and in the result, which are walked along it together",
    "free": "in one operand, and an axis of the result",
    "contracted": "in several operands and not in the result: products are summed over it",
    "reduced": "in one operand and not in the result: that operand is summed over it",
}
"""The roles a label can have, and what they mean."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand or the result: its name, and per axis a label and an extent."""

    name: str
    labels: tuple[Label, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """A label.

    Attributes:
        name: as the caller wrote it.
        identifier: what it is called in code.
        extent: the number of values it takes.
        role: one of `ROLES`, in the whole expression.
        axes: where it is, as names of tensors and axes; the result's come last.
    """

    name: str
    identifier: str
    extent: int
    role: str
    axes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step of a plan.

    Attributes:
        number: its place, from 1.
        nodes: the nodes of the tree that it reads, and the one that it makes.
        labels: of these nodes; the output's as the caller wants them.
        names: of these nodes.
        terms: of these nodes, as they are written.
        roles: the labels that have each role in this step.
        cost: its flops and bytes.
        kernel: the kernel's id; None where the engine has nothing to run.
        about: what the kernel, or what stands in for it, does.
        copied: the tensors, by place in ``names``, that are copied in another order: inputs before the kernel runs, the
            output from what it made.
        seconds: predicted for one core, with the copies; None without a kernel.
        others: the other kernels that could run the step, with their predictions, the best first.
        measured: seconds, if it was run.
    """

    number: int
    nodes: tuple[int, ...]
    labels: tuple[tuple[Label, ...], ...]
    names: tuple[str, ...]
    terms: tuple[str, ...]
    roles: tuple[tuple[str, tuple[Label, ...]], ...]
    cost: Cost
    kernel: str | None
    about: str
    copied: tuple[int, ...]
    seconds: float | None
    others: tuple[tuple[str, float], ...]
    measured: float | None

    @property
    def subscripts(self) -> str:
        """The step as an expression."""
        return f"{','.join(self.terms[:-1])}->{self.terms[-1]}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds as measured: of each step, where steps were run, and of the whole call, on so many threads."""

    steps: tuple[float, ...]
    total: float
    threads: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All there is to tell about a plan.

    Attributes:
        subscripts: the expression, as `einstride.expression.spell` writes it.
        expression: the same as data.
        operands: the operands.
        output: the result.
        dtype: the result's.
        labels: by label.
        steps: in the order they run.
        cost: of all steps.
        naive: flops of one loop nest over all labels.
        held: bytes of intermediates at one time.
        seconds: predicted for one core, if the engine runs it.
        measured: if it was run.
    """

    subscripts: str
    expression: Expression
    operands: tuple[Tensor, ...]
    output: Tensor
    dtype: str
    labels: tuple[LabelFacts, ...]
    steps: tuple[StepFacts, ...]
    cost: Cost
    naive: int
    held: int
    seconds: float | None
    measured: Measured | None


def describe(plan: Plan, measured: Measured | None = None) -> Facts:
    """The facts about a plan.

    >>> from einstride import plan
    >>> facts = describe(plan("ij,jk,kl->il", (2, 100), (100, 100), (100, 90)))
    >>> [step.subscripts for step in facts.steps], facts.cost.flops, facts.naive
    (['ij,jk->ik', 'kl,ik->il'], 76000, 5400000)
    """
    problem = plan.problem
    expression = problem.expression
    names = operand_names(expression)
    operands = tuple(map(Tensor, names, expression.inputs, problem.shapes))
    output = Tensor(RESULT, expression.output, output_shape(problem))
    instead = instead_of_kernels(plan)
    program = None if instead else plan.program
    return Facts(
        spell(expression)[0],
        expression,
        operands,
        output,
        plan.dtype.name,
        _labels(plan, operands, output),
        _steps(plan, names, program.steps if program else (), instead, measured),
        plan.cost,
        naive_flops(problem),
        workspace(problem, plan.tree) * plan.dtype.itemsize,
        program.seconds if program else None,
        measured,
    )


def role_of(label: Label, inputs: Sequence[Sequence[Label]], output: Sequence[Label]) -> str:
    """The role of a label in a product of tensors with these labels."""
    several = sum(label in term for term in inputs) > 1
    if label in output:
        return "batch" if several else "free"
    return "contracted" if several else "reduced"


def pieces(expression: Expression, term: Iterable[Label]) -> list[tuple[str, tuple[Label, ...]]]:
    """A term as it is written, piece by piece: a name with its label, or the ellipsis with all of its labels."""
    found: list[tuple[str, tuple[Label, ...]]] = []
    for unnamed, labels in groupby(term, lambda label: expression.names[label].startswith("...")):
        own = tuple(labels)
        found += [("...", own)] if unnamed else [(expression.names[label], (label,)) for label in own]
    return found


def term_text(expression: Expression, term: Iterable[Label]) -> str:
    """A term as it is written in a step."""
    texts = [text for text, _ in pieces(expression, term)]
    return "".join(texts) if is_lettered(expression.names) else f"[{' '.join(texts)}]"


def is_lettered(names: Iterable[str]) -> bool:
    """Whether labels of these names can be written one after the other."""
    return all(len(name) == 1 or name.startswith("...") for name in names)


def instead_of_kernels(plan: Plan) -> str:
    """What takes the kernels' place, where they have nothing to do; else an empty string."""
    problem = plan.problem
    if len(problem.shapes) == 1 and plan.dtypes[0] == plan.dtype:
        output = problem.expression.output
        if len(set(output)) == len(output) == len(set(problem.expression.inputs[0])):
            return "none: the result is a view of the operand"
    if plan.program is None:
        return "NumPy's own products and sums"
    return "none: an extent is 0, there is nothing to multiply" if 0 in problem.extents else ""


def _labels(plan: Plan, operands: Sequence[Tensor], output: Tensor) -> tuple[LabelFacts, ...]:
    expression, inputs = plan.problem.expression, terms(plan.problem)
    written = identifiers(expression, [tensor.name for tensor in operands])
    return tuple(
        LabelFacts(
            name,
            written[label],
            plan.problem.extents[label],
            role_of(label, inputs, expression.output),
            tuple(
                (tensor.name, axis)
                for tensor in (*operands, output)
                for axis, own in enumerate(tensor.labels)
                if own == label
            ),
        )
        for label, name in enumerate(expression.names)
    )


def _steps(
    plan: Plan, names: Sequence[str], lowered: Sequence[Step], instead: str, measured: Measured | None
) -> tuple[StepFacts, ...]:
    problem, tree = plan.problem, plan.tree
    labels = node_labels(problem, tree)
    last = len(labels) - 1
    runs = _runs(lowered, tree.operands)
    node_names = [*names, *(f"step {number}" for number in range(1, len(tree.groups))), "output"]
    steps: list[StepFacts] = []
    for number, group in enumerate(tree.groups):
        node = tree.operands + number
        inputs = [labels[part] for part in group]
        result = problem.expression.output if node == last else labels[node]
        roles: dict[str, list[Label]] = {role: [] for role in ROLES}
        for label in dict.fromkeys(label for term in inputs for label in term):
            roles[role_of(label, inputs, labels[node])].append(label)
        flops = step_flops(inputs, labels[node], problem.extents)
        moved = step_elements(inputs, labels[node], problem.extents) * plan.dtype.itemsize
        ran = runs[number] if runs else None
        kernel, about, seconds, others = _kernel(ran) if ran else (None, instead, None, ())
        steps.append(
            StepFacts(
                number + 1,
                (*group, node),
                (*inputs, result),
                tuple(node_names[part] for part in (*group, node)),
                tuple(term_text(problem.expression, term) for term in (*inputs, result)),
                tuple((role, tuple(found)) for role, found in roles.items() if found),
                Cost(flops, moved, 0),
                kernel,
                about,
                tuple(place for place, part in enumerate((*group, node)) if ran and part in ran.copied),
                seconds,
                others,
                sum(measured.steps[index] for index in ran.indices) if ran and measured else None,
            )
        )
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class _Run:
    """What makes a node: a step, and those that copy tensors for it; the nodes copied, and all steps' indices."""

    step: Step
    copies: tuple[Step, ...]
    copied: tuple[int, ...]
    indices: tuple[int, ...]


def _runs(steps: Sequence[Step], operands: int) -> list[_Run]:
    """A program's steps by the node that they make, of nodes that follow the operands."""
    runs: list[_Run] = []
    nodes = {operand: operand for operand in range(operands)}
    started = 0
    last = max((index for index, step in enumerate(steps) if not step.arranges), default=0)
    for index, step in enumerate(steps):
        if step.arranges:
            continue
        node = operands + len(runs)
        end = len(steps) if index == last else index + 1
        nodes[step.slots[-1]] = node
        copies = (*steps[started:index], *steps[index + 1 : end])
        copied = tuple(nodes[copy.slots[0]] for copy in copies)
        runs.append(_Run(step, copies, copied, tuple(range(started, end))))
        started = end
    return runs


def _kernel(run: _Run) -> tuple[str, str, float, tuple[tuple[str, float], ...]]:
    """The kernel of a step, what it does and its time, and those of the others that could run the step."""
    machine = detect()
    table = {kernel.id: kernel for kernel in KERNELS}
    step = run.step
    copying = sum(table[copy.kernel].estimate(copy.loops, copy.types, machine) for copy in run.copies)
    seconds = {
        kernel.id: kernel.estimate(step.loops, step.types, machine) + copying
        for kernel in KERNELS
        if kernel.accepts(step.loops, step.types, machine)
    }
    others = sorted((pair for pair in seconds.items() if pair[0] != step.kernel), key=lambda pair: pair[1])
    return step.kernel, table[step.kernel].about, seconds[step.kernel], tuple(others)
