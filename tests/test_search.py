from __future__ import annotations

import string
from collections.abc import Iterator
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tree import problem_of

from einstride.cost import roofline, step_flops, tree_cost, tree_seconds, workspace
from einstride.errors import OperandTypeError, OptionError, PathError, PlanMemoryError
from einstride.problem import Problem, terms
from einstride.search import MOST_EXACT, Budget, search
from einstride.search.exact import exact
from einstride.search.greedy import greedy
from einstride.search.schedule import schedule
from einstride.tree import Nested, Tree, from_nested, node_labels, to_path

SECONDS = roofline(8)


@st.composite
def problems(draw: st.DrawFn, least: int = 1, most: int = 6) -> Problem:
    letters = string.ascii_letters[: draw(st.integers(1, 8))]
    extents = {letter: draw(st.sampled_from([0, 1, 2, 3, 7, 40, 300])) for letter in letters}
    inputs = draw(st.lists(st.text(letters, max_size=4), min_size=least, max_size=most))
    shapes = [tuple(extents[letter] for letter in term) for term in inputs]
    output = draw(st.lists(st.sampled_from(sorted(set("".join(inputs))) or [""]), unique=True, max_size=4))
    return problem_of(",".join(inputs) + "->" + "".join(output), *shapes)


def subscripts_of(problem: Problem) -> str:
    spelled = ["".join(problem.expression.names[label] for label in term) for term in problem.expression.inputs]
    return ",".join(spelled) + "->" + "".join(problem.expression.names[label] for label in problem.expression.output)


def pairings(nodes: tuple[Nested, ...]) -> Iterator[Nested]:
    """Every tree of pairs over the nodes."""
    if len(nodes) == 1:
        yield nodes[0]
    for bits in range(1, 2 ** len(nodes) - 1, 2):  # the first node is always on the left
        left = tuple(node for index, node in enumerate(nodes) if bits >> index & 1)
        right = tuple(node for index, node in enumerate(nodes) if not bits >> index & 1)
        for first in pairings(left):
            for second in pairings(right):
                yield (first, second)


def has_outer_product(problem: Problem, tree: Tree) -> bool:
    labels = node_labels(problem, tree)
    return any(set(labels[group[0]]).isdisjoint(labels[group[1]]) for group in tree.groups if len(group) == 2)


@given(problems(least=2, most=4))
def test_no_tree_of_pairs_and_no_single_step_is_predicted_to_be_faster(problem: Problem) -> None:
    found = tree_seconds(problem, search(problem), SECONDS)
    count = len(problem.shapes)
    others = [from_nested(nested) for nested in pairings(tuple(range(count)))] + [Tree((tuple(range(count)),))]
    assert found <= min(tree_seconds(problem, tree, SECONDS) for tree in others) * (1 + 1e-12)


@settings(max_examples=40)
@given(problems(least=5, most=5))
def test_of_five_operands_no_tree_of_pairs_that_share_labels_is_predicted_to_be_faster(problem: Problem) -> None:
    found = tree_seconds(problem, search(problem), SECONDS)
    for nested in pairings(tuple(range(5))):
        tree = from_nested(nested)
        if not has_outer_product(problem, tree):
            assert found <= tree_seconds(problem, tree, SECONDS) * (1 + 1e-12), tree


@given(problems(most=14))
def test_the_same_problem_has_the_same_tree(problem: Problem) -> None:
    assert search(problem) == search(problem)
    assert search(problem).operands == len(problem.shapes)


@settings(max_examples=200)
@given(problems(most=6), st.sampled_from(["greedy", "optimal"]), st.sampled_from([None, 0, 5, 100]))
def test_numpys_planners_choose_numpys_paths(problem: Problem, name: str, largest: int | None) -> None:
    optimize = name if largest is None else (name, largest)
    arrays = [np.broadcast_to(0, shape) for shape in problem.shapes]
    path, _ = np.einsum_path(subscripts_of(problem), *arrays, optimize=optimize)
    assert to_path(search(problem, optimize)) == [tuple(sorted(group)) for group in path[1:]]


@pytest.mark.parametrize(
    ("subscripts", "shapes", "groups"),
    [
        # One pass: what a split would write and read again is as large as an operand.
        ("ij,ij,ij->ij", ((1000, 1000),) * 3, ((0, 1, 2),)),
        # The same, but for the product of the weights, which is a ninth of an operand and saves a multiplication.
        ("i,i,ijk,ilk->ijl", ((150000,), (150000,), (150000, 3, 3), (150000, 3, 3)), ((0, 1), (2, 3, 4))),
        # Two products of matrices: in one pass every element would be multiplied extent times over.
        ("ij,jk,kl->il", ((500, 500),) * 3, ((0, 1), (2, 3))),
        ("ij,jk,k->i", ((500, 500), (500, 500), (500,)), ((1, 2), (0, 3))),
        ("ijk,jr,kr->ir", ((120, 120, 120), (120, 32), (120, 32)), ((0, 2), (1, 3))),
        # A label that only one operand has goes first.
        ("ij,k->k", ((300, 400), (500,)), ((0,), (1, 2))),
        ("ij,jk->k", ((900, 900), (900, 900)), ((0,), (1, 2))),
        # Small enough that one step fewer is worth more than the sums it repeats.
        ("ij,k->k", ((3, 4), (5,)), ((0, 1),)),
        ("ij,jk,kl->il", ((2, 2),) * 3, ((0, 1, 2),)),
        # Two steps, the second over the first one's result and two more.
        ("i,i,ij,jk->ik", ((9000,), (9000,), (9000, 500), (500, 50)), ((2, 3), (0, 1, 4))),
    ],
)
def test_well_known_cases(subscripts: str, shapes: tuple[tuple[int, ...], ...], groups: object) -> None:
    assert search(problem_of(subscripts, *shapes)).groups == groups


@pytest.mark.parametrize("count", [1, 2, 3, MOST_EXACT, MOST_EXACT + 1, 40])
def test_parts_that_share_no_label_and_operands_without_labels_are_joined(count: int) -> None:
    letters = string.ascii_letters
    for inputs in (letters[:count], [""] * count, [letters[i // 2] for i in range(count)]):
        problem = problem_of(",".join(inputs) + "->", *[(3,) * len(term) for term in inputs])
        assert search(problem).operands == count


def test_hundreds_of_operands_take_the_greedy_way() -> None:
    names = [chr(0x4E00 + number) for number in range(301)]
    chain = problem_of(",".join(names[i] + names[i + 1] for i in range(300)) + f"->{names[0]}", *[(30, 30)] * 300)
    tree = search(chain)
    # No step is larger than the product of two of the matrices.
    assert tree_cost(chain, tree, 8).flops <= 300 * 2 * 30**3
    hub = problem_of(",".join("z" + name for name in names[:300]) + "->z", *[(50, 60)] * 300)
    assert tree_cost(hub, search(hub), 8).flops <= 300 * 2 * 50 * 60


@given(problems(least=11, most=14))
def test_greedy_trees_of_many_operands_get_faster_by_refining(problem: Problem) -> None:
    inputs = terms(problem)
    first = from_nested(greedy(inputs, problem.expression.output, problem.extents))
    assert tree_seconds(problem, search(problem), SECONDS) <= tree_seconds(problem, first, SECONDS) * (1 + 1e-12)


@given(problems(least=2, most=8), st.integers(0, 10**6))
def test_memory_is_kept_or_refused_with_what_it_takes(problem: Problem, memory: int) -> None:
    needed = 8 * workspace(problem, search(problem))
    try:
        tree = search(problem, "auto", Budget(memory=memory))
    except PlanMemoryError as error:
        assert memory < needed
        assert f"{needed} bytes" in str(error)
    else:
        assert 8 * workspace(problem, tree) <= memory
    assert search(problem, "auto", Budget(memory=needed)) == search(problem)


def test_a_tree_of_smaller_intermediates_is_found_where_one_is_not_far_slower() -> None:
    problem = problem_of("ab,bc,cd->ad", (20, 1000), (1000, 21), (21, 4000))
    assert search(problem).groups == ((0, 1), (2, 3))
    with pytest.raises(PlanMemoryError, match="3360 bytes"):
        search(problem, budget=Budget(memory=3359))
    small = problem_of("ab,bc,cd->ad", (8, 8), (8, 9), (9, 8))
    assert len(search(small).groups) == 2
    assert search(small, budget=Budget(memory=0)).groups == ((0, 1, 2),)


@pytest.mark.parametrize("optimize", [True, "greedy", "optimal", ["einsum_path", (0, 1), (0, 1)]])
def test_a_tree_that_was_asked_for_is_refused_and_not_replaced(optimize: object) -> None:
    problem = problem_of("ab,bc,cd->ad", (20, 30), (30, 21), (21, 40))
    with pytest.raises(PlanMemoryError):
        search(problem, optimize, Budget(memory=100))  # type: ignore[arg-type]
    assert search(problem, False, Budget(memory=0)).groups == ((0, 1, 2),)


def test_a_given_path_is_followed() -> None:
    problem = problem_of("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5))
    assert search(problem, ["einsum_path", (1, 2), (0, 1)]).groups == ((1, 2), (0, 3))
    assert search(problem, ("einsum_path", (0, 1, 2))).groups == ((0, 1, 2),)
    assert search(problem, None).groups == ((0, 1, 2),)


@pytest.mark.parametrize(
    ("optimize", "error", "message"),
    [
        ("best", OptionError, "'best' names no planner"),
        (("best", 10), OptionError, "'best' names no planner"),
        (3, OperandTypeError, "3 is not a planner"),
        ([], OperandTypeError, "is not a planner"),
        ([(0, 1), (0, 1)], OperandTypeError, "einsum_path"),
        (("greedy", "10"), OperandTypeError, "most elements"),
        (["einsum_path", (0, 1)], PathError, "leaves 2 arrays"),
        (["einsum_path", (0, 7)], PathError, "picks what is not there; there are 3 arrays"),
        (["einsum_path", "ab"], OperandTypeError, "tuples of positions"),
        (["einsum_path", 3], OperandTypeError, "tuples of positions"),
    ],
)
def test_nonsense_is_refused(optimize: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        search(problem_of("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)), optimize)  # type: ignore[arg-type]


def test_extents_beyond_any_count_leave_a_tree() -> None:
    letters = string.ascii_letters[:50]
    problem = problem_of(",".join(letters) + "->", *[(10**7,)] * 50)
    assert search(problem).operands == 50
    assert prod(problem.extents) > 10**308  # more than a float holds
    assert search(problem_of("abcdefghij,a,j->", (10**40,) * 10, (10**40,), (10**40,))).operands == 3


@given(problems(least=2, most=7))
def test_the_schedule_changes_the_order_of_steps_only_and_never_raises_the_peak(problem: Problem) -> None:
    found = exact(terms(problem), problem.expression.output, problem.extents, step_flops)
    tree = from_nested(found if isinstance(found, tuple) else ())
    scheduled = schedule(problem, tree)
    assert workspace(problem, scheduled) <= workspace(problem, tree)
    assert tree_cost(problem, scheduled, 1).flops == tree_cost(problem, tree, 1).flops


def test_the_schedule_makes_the_larger_need_first() -> None:
    # ab,bc leaves 1 element after needing none; de,ef,fg needs 10000 and leaves 1: it goes first.
    problem = problem_of("a,a,bc,bd,cd->", (50,), (50,), (100, 100), (100, 2), (100, 2))
    late = Tree(((0, 1), (2, 3), (4, 6), (5, 7)))
    assert workspace(problem, late) == 1 + 200 + 1
    assert workspace(problem, schedule(problem, late)) == 200 + 1
