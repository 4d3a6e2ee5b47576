"""Expressions read aloud."""

from __future__ import annotations

import pytest

from einstride.explanation.words import reading
from einstride.expression import parse, parse_interleaved

READINGS = [
    ("ij,jk->ik", "rows of A against columns of B, summed over j"),
    ("ji,jk->ik", "columns of A against columns of B, summed over j"),
    ("ij,ij->ij", "A and B multiplied entry by entry"),
    ("ij,ji->ij", "A and B multiplied entry by entry"),
    ("ij->ji", "A with its axes in the order j, i"),
    ("ij->ij", "A"),
    ("ii->i", "the diagonal i of A"),
    ("ii->", "the sum of all of the diagonal i of A"),
    ("ij->j", "for each j: the sum of A over i"),
    ("bij->", "the sum of all of A"),
    ("i->ii", "A, written on the diagonal i"),
    ("bij,bjk->bik", "for each b: rows of A against columns of B, summed over j"),
    ("bcik,bcij->bckj", "for each b, c: columns of A against columns of B, summed over i"),
    ("...ij,...jk->...ik", "for each ...: rows of A against columns of B, summed over j"),
    ("i,i->", "the products of A and B, summed over i"),
    ("ij,ij->i", "for each i: the products of A and B, summed over j"),
    ("i,j->ij", "every entry of A times every entry of B"),
    ("ik,jk->ijk", "for each k: A times B"),
    ("ij,j->i", "A and B multiplied, summed over j"),
    ("ij,ik,il->jkl", "A, B and C multiplied, summed over i"),
]


@pytest.mark.parametrize(("subscripts", "words"), READINGS)
def test_reading(subscripts: str, words: str) -> None:
    terms = subscripts.partition("->")[0].split(",")
    ranks = tuple(len(term.replace("...", "xx")) for term in terms)
    assert reading(parse(subscripts, ranks)) == words


def test_operands_by_their_names() -> None:
    expression = parse("bqm,bkm->bqk", (3, 3))
    assert reading(expression, ("Q", "K")) == "for each b: rows of Q against rows of K, summed over m"


def test_labels_of_the_interleaved_form() -> None:
    expression = parse_interleaved([["row", "sum"], ["sum", "col"]], ["row", "col"], (2, 2))
    assert reading(expression) == "rows of A against columns of B, summed over sum"


def test_more_operands_than_letters() -> None:
    expression = parse(",".join(["i"] * 30) + "->", (1,) * 30)
    assert reading(expression).startswith("the products of operand 0, operand 1,")
