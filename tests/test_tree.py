from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einstride.expression import parse
from einstride.problem import Problem, bind
from einstride.tree import Tree, from_nested, from_path, node_labels, to_path


def problem_of(subscripts: str, *shapes: tuple[int, ...]) -> Problem:
    return bind(parse(subscripts, [len(shape) for shape in shapes]), shapes)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    operands = draw(st.integers(1, 8))
    live = list(range(operands))
    groups: list[tuple[int, ...]] = []
    while len(live) > 1 or not groups:
        least = 1 if len(groups) < 3 else 2  # a few groups of one node, but not without end
        group = draw(st.permutations(live))[: draw(st.integers(min(least, len(live)), 4))]
        groups.append(tuple(sorted(group)))
        live = [node for node in live if node not in group] + [operands + len(groups) - 1]
    return Tree(tuple(groups))


@given(trees())
def test_a_path_in_numpys_form_says_the_same_tree(tree: Tree) -> None:
    assert from_path(to_path(tree), tree.operands) == tree


@given(trees())
def test_nested_tuples_say_the_same_tree_up_to_the_order_of_its_steps(tree: Tree) -> None:
    nested: list[object] = list(range(tree.operands))
    for group in tree.groups:
        nested.append(tuple(nested[node] for node in group))
    again = from_nested(nested[-1])  # type: ignore[arg-type]
    members: list[frozenset[object]] = []
    for made in (tree, again):
        inside: list[object] = list(range(made.operands))
        for group in made.groups:
            inside.append(frozenset(inside[node] for node in group))
        members.append(frozenset(inside))
    assert members[0] == members[1]


def test_numpys_paths_count_positions_in_a_list_that_shrinks() -> None:
    assert from_path([(1, 2), (0, 1)], 3).groups == ((1, 2), (0, 3))
    assert from_path([(0, 2), (0, 2), (0, 1)], 4).groups == ((0, 2), (1, 4), (3, 5))
    assert to_path(Tree(((0, 3), (1, 4), (2, 5)))) == [(0, 3), (0, 2), (0, 1)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((), "at least one group"),
        (((0, 1), ()), "no empty one"),
        (((0, 0), (1, 2)), "once each"),
        (((0, 1), (0, 2)), "once each"),
        (((0, 5), (1, 2)), "once each"),
        (((0, 3), (1, 2)), "once each"),
    ],
)
def test_a_tree_that_is_none_is_refused(groups: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tree(groups)


@pytest.mark.parametrize("path", [[(0, 3)], [(0, 0), (0, 1)], [(-1, 0), (0, 1)], [()], [(0, 1)], []])
def test_a_path_that_does_not_lead_to_one_array_is_refused(path: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError):
        from_path(path, 3)


def test_a_node_keeps_what_the_output_or_another_operand_has() -> None:
    problem = problem_of("ab,bc,bd,e->da", (2, 3), (3, 4), (3, 5), (6,))
    a, b, c, d, e = range(5)
    assert node_labels(problem, Tree(((0, 1), (2, 4), (3,), (5, 6)))) == (
        (a, b), (b, c), (b, d), (e,),
        (a, b),  # c is in no other operand
        (a, d),  # nor is b any longer
        (),
        (d, a),
    )  # fmt: skip


def test_a_label_repeated_in_the_output_is_one_label_of_the_last_node() -> None:
    assert node_labels(problem_of("i,j->jii", (2,), (3,)), Tree(((0, 1),)))[-1] == (1, 0)


def test_a_broadcast_axis_is_no_label_of_its_operand() -> None:
    problem = problem_of("ij,ij,jk->ik", (2, 1), (2, 3), (3, 4))
    assert node_labels(problem, Tree(((0, 1), (2, 3)))) == ((0,), (0, 1), (1, 2), (0, 1), (0, 2))
    assert node_labels(problem, Tree(((1, 2), (0, 3))))[3] == (0, 2)
