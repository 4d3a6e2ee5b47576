"""Binding: extents, stretching, diagonals, and where labels lie in operands."""

from __future__ import annotations

import pytest

from einstride.errors import ShapeError, SizeError
from einstride.expression import parse
from einstride.problem import Problem, axis_strides, bind, checked_size, output_shape, output_strides, terms


def problem(subscripts: str, *shapes: tuple[int, ...]) -> Problem:
    return bind(parse(subscripts, [len(shape) for shape in shapes]), shapes)


@pytest.mark.parametrize(
    ("subscripts", "shapes", "extents", "output"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4)), (2, 3, 4), (2, 4)),
        ("ij,jk->ik", ((2, 1), (3, 4)), (2, 3, 4), (2, 4)),
        ("i,i->i", ((1,), (5,)), (5,), (5,)),
        ("i,i->i", ((5,), (1,)), (5,), (5,)),
        ("i,i->i", ((0,), (1,)), (0,), (0,)),
        ("i->ii", ((3,),), (3,), (3, 3)),
        ("...,...", ((2, 1), (3,)), (2, 3), (2, 3)),
        ("ii,i->i", ((1, 1), (4,)), (4,), (4,)),
        ("->", ((),), (), ()),
    ],
)
def test_extents(
    subscripts: str, shapes: tuple[tuple[int, ...], ...], extents: tuple[int, ...], output: tuple[int, ...]
) -> None:
    bound = problem(subscripts, *shapes)
    assert bound.extents == extents
    assert output_shape(bound) == output


@pytest.mark.parametrize(
    ("subscripts", "shapes", "name"),
    [
        ("ij,jk->ik", ((2, 3), (4, 5)), "'j'"),
        ("ij,jk->ik", ((2, 3), (0, 5)), "'j'"),
        ("ii->i", ((2, 3),), "'i'"),
        ("ii->i", ((1, 3),), "'i'"),
        ("ii,i->i", ((1, 3), (3,)), "'i'"),
        ("...i,...i", ((2, 3), (4, 3)), "the ellipsis"),
        ("i,i,i", ((1,), (2,), (3,)), "'i'"),
    ],
)
def test_clashing_extents_are_named(subscripts: str, shapes: tuple[tuple[int, ...], ...], name: str) -> None:
    with pytest.raises(ShapeError, match=name):
        problem(subscripts, *shapes)


def test_equal_problems_compare_equal_whatever_they_are_called() -> None:
    assert problem("ij,jk->ik", (2, 3), (3, 4)) == problem("xy, yz -> xz", (2, 3), (3, 4))
    assert problem("ij,jk->ik", (2, 3), (3, 4)) != problem("ij,jk->ik", (2, 3), (3, 5))


def test_terms_leave_out_broadcast_axes_and_repeats() -> None:
    assert terms(problem("kii,kj->kij", (1, 2, 2), (3, 4))) == ((1,), (0, 2))


def test_strides_of_a_repeated_label_add_up_and_a_broadcast_has_none() -> None:
    assert axis_strides(problem("kii,kj->kij", (1, 2, 2), (3, 4)), 0, (32, 16, -8)) == {1: 8}
    assert axis_strides(problem("ij->j", (1, 2)), 0, (16, 8)) == {0: 16, 1: 8}
    assert output_strides(problem("i,j->jii", (2,), (3,)), (32, 16, 8)) == {1: 32, 0: 24}


def test_sizes_beyond_63_bits_are_refused() -> None:
    large = problem("i,j->ij", (2**31,), (2**31,))
    assert checked_size(large, (0, 1), 1) == 2**62
    with pytest.raises(SizeError, match="`ij`"):
        checked_size(large, (0, 1), 2)
    empty = problem("i,j,k->ijk", (2**40,), (2**40,), (0,))
    assert checked_size(empty, (0, 2), 8) == 0
    with pytest.raises(SizeError, match="`ijk`"):
        checked_size(empty, (0, 1, 2), 8)  # NumPy makes no such array, empty as it is
