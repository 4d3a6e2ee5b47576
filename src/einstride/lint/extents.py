"""What subscripts cost when no shape is known: the extents are taken to be equal, and so large that powers decide."""

from __future__ import annotations

from ..cost import tree_cost
from ..expression import Expression
from ..problem import Problem, bind
from ..search import search

_EXTENT = 1000


def at_equal_extents(expression: Expression) -> Problem:
    """The expression with every label of one large extent."""
    return bind(expression, [(_EXTENT,) * len(term) for term in expression.inputs])


def least_flops(problem: Problem) -> int:
    """The flops of the tree that the search finds.

    >>> from einstride.expression import parse_unranked
    >>> f"{least_flops(at_equal_extents(parse_unranked('ij,jk,k->i'))):.0e}"
    '4e+06'
    """
    return tree_cost(problem, search(problem), 8).flops
