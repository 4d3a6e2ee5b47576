"""What a tree costs: the one definition of a flop, of the bytes a step moves and of the peak of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .expression import Label
from .problem import Problem, terms
from .tree import Tree, node_labels

Labels = tuple[Label, ...]

Seconds = Callable[[tuple[Labels, ...], Labels, tuple[int, ...]], float]
"""An estimate of one step's time from its inputs' labels, its output's labels and the extent of every label."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a tree, in plain numbers.

    ``flops`` counts operations, ``bytes`` what the steps read and write when each reads its inputs once, ``peak`` the
    largest sum of the output and the intermediates that exist at one time, in bytes.
    """

    flops: int
    bytes: int
    peak: int


def volume(labels: Sequence[Label], extents: Sequence[int]) -> int:
    """The product of the labels' extents."""
    return prod([extents[label] for label in labels])


def step_flops(inputs: Sequence[Labels], output: Labels, extents: Sequence[int]) -> int:
    """The operations of one step: per point of its loop nest, one multiply for every input after the first and, when
    a label is summed, one add. A multiply-add is 2; copying is none.

    A matrix product, a Hadamard product, a sum and a transposition of 10 by 10 matrices:

    >>> [step_flops(inputs, output, (10, 10, 10)) for inputs, output in [
    ...     (((0, 1), (1, 2)), (0, 2)), (((0, 1), (0, 1)), (0, 1)), (((0, 1),), ()), (((0, 1),), (1, 0))]]
    [2000, 100, 100, 0]
    """
    labels = set().union(*inputs)
    return volume(tuple(labels), extents) * (len(inputs) - 1 + (len(labels) > len(output)))


def step_elements(inputs: Sequence[Labels], output: Labels, extents: Sequence[int]) -> int:
    """How many elements one step must read and write: each input once, and the output."""
    return sum(volume(labels, extents) for labels in inputs) + volume(output, extents)


def naive_flops(problem: Problem) -> int:
    """The operations of the expression as one loop nest over all of its labels.

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> naive_flops(bind(parse("ij,jk,kl->il", (2, 2, 2)), ((10, 10),) * 3))
    30000
    """
    return step_flops(terms(problem), tuple(dict.fromkeys(problem.expression.output)), problem.extents)


def workspace(problem: Problem, tree: Tree) -> int:
    """The largest number of elements of intermediates that exist at one time: a step's inputs live until its result
    is complete."""
    labels = node_labels(problem, tree)
    live = most = 0
    for node, group in enumerate(tree.groups, tree.operands):
        last = node == len(labels) - 1
        live += 0 if last else volume(labels[node], problem.extents)
        most = max(most, live)
        live -= sum(volume(labels[part], problem.extents) for part in group if part >= tree.operands)
    return most


def tree_cost(problem: Problem, tree: Tree, itemsize: int) -> Cost:
    """The cost of a tree whose tensors all have elements of ``itemsize`` bytes.

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> problem = bind(parse("ij,jk,kl->il", (2, 2, 2)), ((10, 10),) * 3)
    >>> tree_cost(problem, Tree(((0, 1), (2, 3))), itemsize=8)
    Cost(flops=4000, bytes=4800, peak=1600)
    """
    labels = node_labels(problem, tree)
    flops = elements = 0
    for node, group in enumerate(tree.groups, tree.operands):
        inputs = [labels[part] for part in group]
        flops += step_flops(inputs, labels[node], problem.extents)
        elements += step_elements(inputs, labels[node], problem.extents)
    output = volume(problem.expression.output, problem.extents)
    return Cost(flops, elements * itemsize, (workspace(problem, tree) + output) * itemsize)


def intensity(cost: Cost) -> float:
    """The arithmetic intensity in flops per byte; 0 when nothing is moved."""
    return cost.flops / cost.bytes if cost.bytes else 0.0


def tree_seconds(problem: Problem, tree: Tree, seconds: Seconds) -> float:
    """The sum of a tree's estimated steps."""
    labels = node_labels(problem, tree)
    return sum(
        seconds(tuple(labels[part] for part in group), labels[node], problem.extents)
        for node, group in enumerate(tree.groups, tree.operands)
    )


def roofline(
    itemsize: int, flops: float = 3e10, fused: float = 1e10, bandwidth: float = 3e10, overhead: float = 2e-7
) -> Seconds:
    """An estimate for a machine of which nothing is known: the longer of computing and moving, after Williams,
    Waterman and Patterson, "Roofline", 2009, and a fixed cost a step.

    Rates are per second; pairs compute at ``flops``, other steps, which reuse less of what they load, at ``fused``.

    >>> roofline(8, flops=1e10, overhead=0.0)(((0, 1), (1, 2)), (0, 2), (1000, 1000, 1000))
    0.2
    """

    def seconds(inputs: tuple[Labels, ...], output: Labels, extents: tuple[int, ...]) -> float:
        compute = step_flops(inputs, output, extents) / (flops if len(inputs) == 2 else fused)
        move = step_elements(inputs, output, extents) * itemsize / bandwidth
        return overhead + max(compute, move)

    return seconds
