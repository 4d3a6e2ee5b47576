"""A plan in plain text: what each step does, which kernel runs it and why, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..cost import Cost, intensity, naive_flops, step_elements, step_flops, workspace
from ..expression import Expression, Label, spell
from ..kernels import KERNELS
from ..machine import detect
from ..problem import Problem, output_shape
from ..program import Step
from ..tree import node_labels

if TYPE_CHECKING:
    from ..api import Plan

ROLES = ("batch", "free", "contracted", "reduced")


def explain_text(plan: Plan) -> str:
    """Each step's labels by role with their extents, kernel, flops, bytes and predicted time; then the totals.

    A label is *batch* where several inputs and the output of a step have it, *free* where one input and the output,
    *contracted* where several inputs and *reduced* where one input has it and the output does not. Times are
    predicted for one core of this machine.

    >>> from einstride import plan
    >>> print(explain_text(plan("bij,bjk->bik", (8, 3, 4), (8, 4, 5))).split("  kernel")[0])
    bij,bjk->bik  (8, 3, 4), (8, 4, 5) -> (8, 3, 5)  float64
    <BLANKLINE>
    step 1 of 1: A, B -> output  bij,bjk->bik
      batch       b 8
      free        i 3, k 5
      contracted  j 4
    <BLANKLINE>
    """
    problem, tree, program = plan.problem, plan.tree, plan.program
    shapes = ", ".join(str(shape) for shape in problem.shapes)
    lines = [f"{spell(problem.expression)[0]}  {shapes} -> {output_shape(problem)}  {plan.dtype.name}"]
    labels = node_labels(problem, tree)
    instead = _instead_of_kernels(plan)
    steps: Sequence[Step | None] = program.steps if program and not instead else [None] * len(tree.groups)
    for number, (group, step) in enumerate(zip(tree.groups, steps, strict=True)):
        node = tree.operands + number
        inputs = [labels[part] for part in group]
        nodes = [_node_name(part, tree.operands, len(labels)) for part in (*group, node)]
        terms = ",".join(_term(problem.expression, term) for term in inputs)
        result = problem.expression.output if node == len(labels) - 1 else labels[node]
        flow = f"{', '.join(nodes[:-1])} -> {nodes[-1]}  {terms}->{_term(problem.expression, result)}"
        lines += ["", f"step {number + 1} of {len(tree.groups)}: {flow}"]
        flops = step_flops(inputs, labels[node], problem.extents)
        moved = step_elements(inputs, labels[node], problem.extents) * plan.dtype.itemsize
        cost = Cost(flops, moved, 0)
        rows = [
            *_roles(problem, inputs, labels[node]),
            ("kernel", *([instead] if step is None else _kernel(step))),
            ("cost", _work(cost)),
        ]
        lines += _columns(rows)

    total = plan.cost
    naive = naive_flops(problem)
    fewer = f", {naive / total.flops:.3g} times as many" if total.flops and naive != total.flops else ""
    held = workspace(problem, tree) * plan.dtype.itemsize
    rows = [
        ("cost", _work(total)),
        ("naive", f"{_scaled(naive, '')}flops as a single loop nest{fewer}"),
        ("peak", f"{_scaled(total.peak, 'B')}, of which {_scaled(held, 'B')} in intermediates"),
    ]
    if program and not instead:
        rows.append(("time", f"{_time(program.seconds)} predicted on one core"))
    return "\n".join([*lines, "", "in all", *_columns(rows)])


def _node_name(node: int, operands: int, nodes: int) -> str:
    """Operands are letters as long as those last, intermediates are numbered by the step that makes them."""
    if node == nodes - 1:
        return "output"
    if node >= operands:
        return f"step {node - operands + 1}"
    return chr(ord("A") + node) if operands <= 26 else f"operand {node}"


def _term(expression: Expression, term: Iterable[Label]) -> str:
    names = [expression.names[label] for label in term]
    return "".join(names) if all(len(name) == 1 for name in expression.names) else f"[{' '.join(names)}]"


def _roles(
    problem: Problem, inputs: Sequence[tuple[Label, ...]], output: tuple[Label, ...]
) -> Iterator[tuple[str, str]]:
    found: dict[str, list[str]] = {role: [] for role in ROLES}
    for label in dict.fromkeys(label for term in inputs for label in term):
        several = sum(label in term for term in inputs) > 1
        role = ("batch" if several else "free") if label in output else ("contracted" if several else "reduced")
        found[role].append(f"{problem.expression.names[label]} {problem.extents[label]}")
    return ((role, ", ".join(labels)) for role, labels in found.items() if labels)


def _instead_of_kernels(plan: Plan) -> str:
    """What takes the kernels' place, where they have nothing to do."""
    problem = plan.problem
    if len(problem.shapes) == 1 and plan.dtypes[0] == plan.dtype:
        output = problem.expression.output
        if len(set(output)) == len(output) == len(set(problem.expression.inputs[0])):
            return "none: the result is a view of the operand"
    if plan.program is None:
        return "NumPy's own products and sums"
    return "none: an extent is 0, there is nothing to multiply" if 0 in problem.extents else ""


def _kernel(step: Step) -> Iterator[str]:
    """The kernel with what it does, and its time against those of the others that could run the step."""
    machine = detect()
    about = {kernel.id: kernel.about for kernel in KERNELS}
    seconds = {
        kernel.id: kernel.estimate(step.loops, step.types, machine)
        for kernel in KERNELS
        if kernel.accepts(step.loops, step.types, machine)
    }
    yield f"{step.kernel}: {about[step.kernel]}"
    others = [f"{name} would take {_time(time)}" for name, time in seconds.items() if name != step.kernel]
    yield f"{_time(seconds[step.kernel])} predicted; {', '.join(others) or 'no other kernel takes such a step'}"


def _work(cost: Cost) -> str:
    return f"{_scaled(cost.flops, '')}flops, {_scaled(cost.bytes, 'B')} moved, {intensity(cost):.3g} flops a byte"


def _columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A name and its lines, the lines in a column of their own."""
    for name, *lines in rows:
        for number, line in enumerate(lines):
            yield f"  {'' if number else name:<10}  {line}"


def _scaled(amount: int, unit: str) -> str:
    """A whole number to three digits with a decimal prefix: 1234567 is '1.23 M'."""
    prefixes = iter(("", "k", "M", "G", "T", "P", "E"))
    value, prefix = float(amount), next(prefixes)
    while value >= 999.5 and (larger := next(prefixes, None)) is not None:
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}{unit}"


def _time(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
