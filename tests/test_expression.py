"""Parsing: terms become labels, the implicit output, ellipses, and the interleaved form."""

from __future__ import annotations

import random

import pytest

from einstride.errors import EinsumError, OperandTypeError, SubscriptsError
from einstride.expression import Expression, parse, parse_interleaved, spell


def named(expression: Expression) -> str:
    """The expression with one name per label, ellipsis axes included, for reading in a test."""
    names = [f"<{name}>" if len(name) > 1 else name for name in expression.names]
    terms = ["".join(names[label] for label in term) for term in (*expression.inputs, expression.output)]
    return ",".join(terms[:-1]) + "->" + terms[-1]


@pytest.mark.parametrize(
    ("subscripts", "ranks", "expected"),
    [
        ("ij,jk->ik", (2, 2), "ij,jk->ik"),
        ("ij,jk", (2, 2), "ij,jk->ik"),
        ("ba", (2,), "ba->ab"),
        ("ii", (2,), "ii->"),
        ("bA", (2,), "bA->Ab"),
        ("", (0,), "->"),
        (",", (0, 0), ",->"),
        ("i->ii", (1,), "i->ii"),
        ("ж,δж", (1, 2), "ж,δж->δ"),
        (" i j ,\tj k\n- > i k ", (2, 2), "ij,jk->ik"),
        ("...", (2,), "<...0><...1>-><...0><...1>"),
        (". . .i", (2,), "<...0>i-><...0>i"),
        ("...i,...", (3, 1), "<...0><...1>i,<...1>-><...0><...1>i"),
        ("i...j->...", (3,), "i<...0>j-><...0>"),
        ("...i->i", (3,), "<...0><...1>i->i"),
        ("ji...", (2,), "ji->ij"),
        ("i,i->...i", (1, 1), "i,i->i"),
    ],
)
def test_subscripts_are_read(subscripts: str, ranks: tuple[int, ...], expected: str) -> None:
    assert named(parse(subscripts, ranks)) == expected


def test_labels_are_dense_in_order_of_first_appearance() -> None:
    expression = parse("zx,xa->az", (2, 2))
    assert expression.inputs == ((0, 1), (1, 2))
    assert expression.output == (2, 0)
    assert expression.names == ("z", "x", "a")


def test_an_ellipsis_label_is_no_letter() -> None:
    expression = parse("...i,i", (2, 1))
    assert len(set(expression.inputs[0])) == 2


def test_names_are_not_compared() -> None:
    assert parse("ij,jk->ik", (2, 2)) == parse("ab, bc -> ac", (2, 2))
    assert hash(parse("ij,jk->ik", (2, 2))) == hash(parse("ab,bc->ac", (2, 2)))
    assert parse("ij,jk->ik", (2, 2)) != parse("ij,jk->ki", (2, 2))


@pytest.mark.parametrize(
    ("labels", "output", "ranks", "expected"),
    [
        ([[0, 1], [1, 2]], [0, 2], (2, 2), "01,12->02"),
        ([[1, 0]], None, (2,), "10->01"),
        ([["b", "a"]], None, (2,), "ba->ab"),
        ([[Ellipsis, 3], [3]], None, (2, 1), "<...0>3,3-><...0>"),
        ([[Ellipsis, 0, 0]], [Ellipsis, 0], (3,), "<...0>00-><...0>0"),
        ([[None, ("x", 1)]], [("x", 1), None], (2,), "<None><('x', 1)>-><('x', 1)><None>"),
        ([[-1, 99]], [99], (2,), "<-1><99>-><99>"),
        ([[0, 0]], [], (2,), "00->"),
    ],
)
def test_interleaved_labels_are_read(
    labels: list[list[object]], output: list[object] | None, ranks: tuple[int, ...], expected: str
) -> None:
    assert named(parse_interleaved(labels, output, ranks)) == expected


def test_labels_that_equal_no_letter_do_not_meet_the_ellipsis() -> None:
    expression = parse_interleaved([[Ellipsis, "...0"]], [Ellipsis, "...0"], (2,))
    assert expression.output == (0, 1)


def test_more_labels_than_an_alphabet_has() -> None:
    count = 300
    expression = parse_interleaved([[k, k + 1] for k in range(count)], [0, count], (2,) * count)
    assert len(expression.names) == count + 1
    letters = [chr(0x4E00 + k) for k in range(count)]
    assert len(parse(",".join(letters), (1,) * count).names) == count


def test_implicit_output_of_labels_that_cannot_be_sorted_is_asked_for() -> None:
    with pytest.raises(SubscriptsError, match="give the output's labels"):
        parse_interleaved([[0, "x"]], None, (2,))


@pytest.mark.parametrize("labels", [[0], [[[1]]]])
def test_labels_must_be_sequences_of_hashables(labels: list[object]) -> None:
    with pytest.raises(OperandTypeError, match="hashable"):
        parse_interleaved(labels, None, (1,))  # type: ignore[arg-type]


def test_spans_point_at_each_axis() -> None:
    text, spans = spell(parse("b...i , ij -> b...j", (4, 2)))
    assert text == "b...i,ij->b...j"
    assert [text[slice(*span)] for span in spans[0]] == ["b", "...", "...", "i"]
    assert [text[slice(*span)] for span in spans[1]] == ["i", "j"]


def test_spelling_is_read_back_as_the_same_expression() -> None:
    rng = random.Random(1)
    for _ in range(200):
        terms = ["".join(rng.choices("abcde", k=rng.randint(0, 4))) for _ in range(rng.randint(1, 4))]
        output = "".join(sorted({letter for term in terms for letter in term if rng.random() < 0.5}))
        ranks = tuple(map(len, terms))
        expression = parse(",".join(terms) + "->" + output, ranks)
        assert parse(str(expression), ranks) == expression
        assert parse(str(expression), ranks).names == expression.names


def test_arbitrary_text_is_read_or_refused_with_a_caret_in_it() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        text = "".join(rng.choices("ij.,->. 1%…\té", k=rng.randint(0, 8)))
        try:
            parse(text, (1,) * (text.split("->")[0].count(",") + 1))
        except EinsumError as error:
            message, shown, carets = str(error).rsplit("\n", 2)
            assert message
            assert len(shown) == len(text) + 2
            assert 2 <= carets.index("^") < len(carets) <= len(shown) + 1
