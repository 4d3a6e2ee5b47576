from __future__ import annotations

import pytest
from hypothesis import given
from test_tree import problem_of, trees

from einstride.cost import Cost, intensity, naive_flops, roofline, step_flops, tree_cost, tree_seconds, workspace
from einstride.tree import Tree

MATRIX = ("ij,jk->ik", (30, 40), (40, 50))


@pytest.mark.parametrize(
    ("subscripts", "shapes", "flops"),
    [
        ("ij,jk->ik", ((30, 40), (40, 50)), 2 * 30 * 40 * 50),
        ("ij,ij->ij", ((30, 40), (30, 40)), 30 * 40),
        ("ij,ij,ij->ij", ((30, 40),) * 3, 2 * 30 * 40),
        ("ij,ij->", ((30, 40), (30, 40)), 2 * 30 * 40),
        ("ij->j", ((30, 40),), 30 * 40),
        ("ij->ji", ((30, 40),), 0),
        ("ii->", ((30, 30),), 30),
        ("ij,jk->ik", ((30, 1), (40, 50)), 2 * 30 * 40 * 50),
        ("->", ((),), 0),
        ("ij,jk->ik", ((0, 40), (40, 50)), 0),
    ],
)
def test_flops_are_two_a_multiply_add(subscripts: str, shapes: tuple[tuple[int, ...], ...], flops: int) -> None:
    problem = problem_of(subscripts, *shapes)
    assert naive_flops(problem) == flops
    assert tree_cost(problem, Tree((tuple(range(len(shapes))),)), 8).flops == flops


def test_a_matrix_product_reads_its_operands_once_and_writes_once() -> None:
    cost = tree_cost(problem_of(*MATRIX), Tree(((0, 1),)), 4)
    assert cost == Cost(flops=120_000, bytes=4 * (1200 + 2000 + 1500), peak=4 * 1500)
    assert intensity(cost) == pytest.approx(120_000 / 18_800)
    assert intensity(Cost(0, 0, 0)) == 0


def test_a_diagonal_reads_only_itself() -> None:
    assert tree_cost(problem_of("ii->", (30, 30)), Tree(((0,),)), 8).bytes == 8 * 31


def test_the_peak_is_the_largest_sum_of_what_exists_at_one_time() -> None:
    problem = problem_of("ab,bc,cd,de->ae", (2, 3), (3, 5), (5, 7), (7, 11))
    in_turn = Tree(((0, 1), (2, 4), (3, 5)))  # ac of 10, then ad of 14 beside it
    assert workspace(problem, in_turn) == 10 + 14
    both = Tree(((0, 1), (2, 3), (4, 5)))  # ac of 10 and ce of 55
    assert workspace(problem, both) == 10 + 55
    assert tree_cost(problem, both, 8).peak == 8 * (10 + 55 + 2 * 11)


@given(trees())
def test_any_tree_of_products_of_one_label_does_the_same_work(tree: Tree) -> None:
    problem = problem_of(",".join("i" * tree.operands) + "->i", *[(7,)] * tree.operands)
    assert tree_cost(problem, tree, 8).flops == 7 * (tree.operands - 1)


def test_the_roofline_is_the_longer_of_computing_and_moving() -> None:
    seconds = roofline(8, flops=1e9, bandwidth=1e9, overhead=0.5)
    product = seconds(((0, 1), (1, 2)), (0, 2), (100, 100, 100))
    assert product == 0.5 + 2e6 / 1e9
    hadamard = seconds(((0, 1), (0, 1)), (0, 1), (100, 100))
    assert hadamard == 0.5 + 3 * 8e4 / 1e9
    problem = problem_of("ij,jk->ik", (100, 100), (100, 100))
    assert tree_seconds(problem, Tree(((0, 1),)), seconds) == product
    assert step_flops(((0, 1), (1, 2)), (0, 2), (100, 100, 100)) == 2_000_000
