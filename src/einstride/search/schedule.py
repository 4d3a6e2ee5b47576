"""In which order the steps of a tree run: it changes nothing but the peak of memory."""

from __future__ import annotations

from ..cost import volume
from ..problem import Problem
from ..tree import Group, Tree, node_labels


def schedule(problem: Problem, tree: Tree) -> Tree:
    """The same steps, depth first, in the order of least peak memory.

    Of the subtrees that feed a step, the one that needs most beyond what it leaves behind runs first (Liu, "On the
    storage requirement in the out-of-core multifrontal method", 1986).

    >>> from einstride.expression import parse
    >>> from einstride.problem import bind
    >>> problem = bind(parse("i,i,ij,j->", (1, 1, 2, 1)), ((9,), (9,), (9, 9), (9,)))
    >>> schedule(problem, Tree(((0, 1), (2, 3), (4, 5))))
    Tree(groups=((0, 1), (2, 3), (4, 5)))
    """
    operands = tree.operands
    sizes = [volume(labels, problem.extents) for labels in node_labels(problem, tree)]
    needs = [0] * operands  # the most elements that exist while the node is made
    order: list[list[int]] = []
    for node, group in enumerate(tree.groups, operands):
        parts = sorted((part for part in group if part >= operands), key=lambda part: sizes[part] - needs[part])
        held = most = 0
        for part in parts:
            most = max(most, held + needs[part])
            held += sizes[part]
        needs.append(max(most, held + sizes[node]))
        order.append(parts)

    # Reading this order backwards runs every part before the step that uses it, the parts in their order.
    backwards: list[int] = []
    waiting = [operands + len(tree.groups) - 1]
    while waiting:
        node = waiting.pop()
        backwards.append(node)
        waiting.extend(order[node - operands])
    renamed = {node: node for node in range(operands)}
    groups: list[Group] = []
    for node in reversed(backwards):
        groups.append(tuple(sorted(renamed[part] for part in tree.groups[node - operands])))
        renamed[node] = operands + len(groups) - 1
    return Tree(tuple(groups))
