"""The wording of every error a malformed call gets: its class, what it names, and the caret."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import einstride
from einstride import (
    EinsumError,
    OperandTypeError,
    OptionError,
    OutputError,
    PathError,
    PlanMemoryError,
    ShapeError,
    SizeError,
    SubscriptsError,
    einsum,
    einsum_path,
    plan,
)

Call = Callable[[], Any]


def ones(*shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.ones(shape)


POINTED: list[tuple[str, Call, type[EinsumError], str]] = [
    (
        "too few operands",
        lambda: einsum("ij,jk->ik", ones(2, 3)),
        SubscriptsError,
        """\
        the subscripts have 2 terms for 1 operand: the last one lacks its operand
          ij,jk->ik
             ^^""",
    ),
    (
        "too many operands",
        lambda: einsum("ij->i", ones(2, 3), ones(3), ones(4)),
        SubscriptsError,
        """\
        the subscripts have 1 term for 3 operands: operands 1 to 2 have no term
          ij->i
            ^""",
    ),
    (
        "rank",
        lambda: einsum("ij,jk->ik", ones(2, 3), ones(3, 4, 5)),
        ShapeError,
        """\
        operand 1 has 3 axes, shape (3, 4, 5); its term `jk` names 2 (to broadcast over the other axes, write `...jk`)
          ij,jk->ik
             ^^""",
    ),
    (
        "rank, where a word was taken for one label",
        lambda: einsum("row col->row", ones(2, 3)),
        ShapeError,
        """\
        operand 0 has 2 axes, shape (2, 3); its term `row col` names 6 \
(each letter is a label; words are labels in the form einsum(a, ['row', 'col'], ...))
          row col->row
          ^^^^^^^""",
    ),
    (
        "rank, where the term is empty",
        lambda: einsum("->", ones(2)),
        ShapeError,
        """\
        operand 0 has 1 axis, shape (2,); its term is empty (to broadcast over the other axes, write `...`)
          ->
          ^""",
    ),
    (
        "rank with an ellipsis",
        lambda: einsum("ij...->i", ones(2)),
        ShapeError,
        """\
        operand 0 has 1 axis, shape (2,); its term `ij...` names at least 2
          ij...->i
          ^^^^^""",
    ),
    (
        "clashing extents",
        lambda: einsum("ij, jk -> ik", ones(2, 3), ones(4, 5)),
        ShapeError,
        """\
        label 'j' is 3 in operand 0, axis 1 (shape (2, 3)), but 4 in operand 1, axis 0 (shape (4, 5))
          ij,jk->ik
           ^ ^""",
    ),
    (
        "extents that clash because an operand is transposed",
        lambda: einsum("ij,jk->ik", ones(2, 3), ones(4, 3)),
        ShapeError,
        """\
        label 'j' is 3 in operand 0, axis 1 (shape (2, 3)), but 4 in operand 1, axis 0 (shape (4, 3)); \
did you mean `kj` for operand 1?
          ij,jk->ik
           ^ ^""",
    ),
    (
        "clashing extents in a diagonal",
        lambda: einsum("ii->i", ones(1, 3)),
        ShapeError,
        """\
        label 'i' is 1 in operand 0, axis 0 (shape (1, 3)), but 3 in operand 0, axis 1 (shape (1, 3)); \
extent 1 stretches between operands, not within a diagonal
          ii->i
          ^^""",
    ),
    (
        "clashing extents of an ellipsis",
        lambda: einsum("...i,...i->...", ones(2, 5), ones(3, 5)),
        ShapeError,
        """\
        an axis of the ellipsis is 2 in operand 0, axis 0 (shape (2, 5)), but 3 in operand 1, axis 0 (shape (3, 5))
          ...i,...i->...
          ^^^  ^^^""",
    ),
    (
        "clashing extents of interleaved labels",
        lambda: einsum(ones(2, 3), ["row", "sum"], ones(4, 5), ["sum", "col"]),
        ShapeError,
        """\
        label 'sum' is 3 in operand 0, axis 1 (shape (2, 3)), but 4 in operand 1, axis 0 (shape (4, 5))
          [row, sum], [sum, col] -> [col, row]
                ^^^    ^^^""",
    ),
    (
        "unknown output label",
        lambda: einsum("ij,jk->iq", ones(2, 3), ones(3, 4)),
        SubscriptsError,
        """\
        output label `q` is in no operand; did you mean `k`?
          ij,jk->iq
                  ^""",
    ),
    (
        "output label in the wrong case",
        lambda: einsum("ij->J", ones(2, 3)),
        SubscriptsError,
        """\
        output label `J` is in no operand; did you mean `j`?
          ij->J
              ^""",
    ),
    (
        "two ellipses",
        lambda: einsum("...i...->i", ones(2)),
        SubscriptsError,
        """\
        the term of operand 0 has two ellipses; it can have one
          ...i...->i
          ^^^ ^^^""",
    ),
    (
        "two ellipses in the output",
        lambda: einsum("i...->...i...", ones(2)),
        SubscriptsError,
        """\
        the output has two ellipses; it can have one
          i...->...i...
                ^^^ ^^^""",
    ),
    (
        "half an ellipsis",
        lambda: einsum("i..->i", ones(2)),
        SubscriptsError,
        """\
        the '.' at position 1, in the term of operand 0, is not part of an ellipsis '...'
          i..->i
           ^""",
    ),
    (
        "bad character",
        lambda: einsum("ij,j%->i", ones(2, 3), ones(3, 4)),
        SubscriptsError,
        """\
        '%' at position 4, in the term of operand 1, is not a label; labels are letters
          ij,j%->i
              ^""",
    ),
    (
        "a bad character after a wide one",
        lambda: einsum("界%->界", ones(2, 3)),
        SubscriptsError,
        """\
        '%' at position 1, in the term of operand 0, is not a label; labels are letters
          界%->界
            ^""",
    ),
    (
        "another arrow",
        lambda: einsum("i=>i", ones(2)),
        SubscriptsError,
        """\
        '=' at position 1, in the term of operand 0, is not a label; labels are letters; did you mean '->'?
          i=>i
           ^""",
    ),
    (
        "bytes that are no text",
        lambda: einsum(b"ij\xff->i", ones(2, 3)),
        SubscriptsError,
        """\
        byte 2 of the subscripts, 0xff, is no text in UTF-8
          ij\\xff->i
            ^^^^""",
    ),
    (
        "a number",
        lambda: einsum("i1->i", ones(2, 3)),
        SubscriptsError,
        """\
        '1' at position 1, in the term of operand 0, is not a label; labels are letters \
(numbers are labels in the form einsum(a, [0, 1], b, [1, 2], [0, 2]))
          i1->i
           ^""",
    ),
    (
        "two arrows",
        lambda: einsum("i->i->", ones(2)),
        SubscriptsError,
        """\
        '->' appears twice; it stands once, before the output
          i->i->
           ^^ ^^""",
    ),
    (
        "half an arrow",
        lambda: einsum("i-j", ones(2)),
        SubscriptsError,
        """\
        the '-' at position 1, in the term of operand 0, is not part of '->', which stands before the output
          i-j
           ^""",
    ),
    (
        "a comma in the output",
        lambda: einsum("i->i,i", ones(2)),
        SubscriptsError,
        """\
        the output is one term, it cannot have a ','
          i->i,i
              ^""",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), [case[1:] for case in POINTED], ids=[case[0] for case in POINTED]
)
def test_a_message_points_into_the_subscripts(call: Call, error: type[EinsumError], message: str) -> None:
    with pytest.raises(EinsumError) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == dedent(message)


no_array: Any = [0, 0, 0]


def long_path() -> Any:
    return einsum("i,i,i->", ones(3), ones(3), ones(3), optimize=["einsum_path", (0, 1)])


def chain(memory: int) -> Any:
    a = ones(100, 100)
    return einsum("ij,jk,kl->il", a, a, a, optimize=["einsum_path", (0, 1), (0, 1)], memory=memory)


PLAIN: list[tuple[str, Call, type[EinsumError], str]] = [
    ("no arguments", lambda: einsum(), SubscriptsError, "einsum needs subscripts and operands"),
    ("no subscripts", lambda: einsum(ones(3)), OperandTypeError, "the subscripts must be a string, not ndarray"),
    ("labels that are none", lambda: einsum(ones(3), 0), OperandTypeError, "operands and labels alternate"),
    ("labels left out", lambda: einsum(ones(3), [0], ones(3, 3)), OperandTypeError, "operands and labels alternate"),
    ("None", lambda: einsum("i,i->", ones(3), None), OperandTypeError, "operand 1 is None"),
    (
        "ragged",
        lambda: einsum("ij->i", [[1, 2], [3]]),
        ShapeError,
        "operand 0 is a ragged list: row 1 is of length 1, but row 0 is of length 2",
    ),
    (
        "masked",
        lambda: einsum("i->", np.ma.MaskedArray([1, 2], mask=[True, False])),
        OperandTypeError,
        "operand 0 is a masked array.*`.filled\\(0\\)`",
    ),
    ("text", lambda: einsum("i->", np.array(["a"])), OperandTypeError, "operand 0 is <U1, which cannot be multiplied"),
    (
        "no common dtype",
        lambda: einsum("i,i->", np.zeros(3, "m8[s]"), ones(3)),
        OperandTypeError,
        "no common dtype: operand 0 is timedelta64\\[s\\], operand 1 is float64",
    ),
    ("dtype", lambda: einsum("i->", ones(3), dtype="nope"), OperandTypeError, "dtype='nope' is not a dtype"),
    (
        "unsafe cast",
        lambda: einsum("i->", ones(3), dtype="float32"),
        OperandTypeError,
        "operand 0 is float64, which casting='safe' does not convert to float32; casting='same_kind' does",
    ),
    ("casting", lambda: einsum("i->", ones(3), casting="x"), OptionError, "casting='x' is not a casting rule"),
    ("order", lambda: einsum("i->", ones(3), order="W"), OptionError, "order='W' is not a memory order"),
    ("optimize", lambda: einsum("i->", ones(3), optimize="best"), OptionError, "optimize='best' names no planner"),
    ("optimize, a number", lambda: einsum("i->", ones(3), optimize=3), OperandTypeError, "optimize=3 is not a planner"),
    ("a path without its head", lambda: einsum("i->", ones(3), optimize=[(0,)]), OperandTypeError, "is not a planner"),
    (
        "a path of lists of lists",
        lambda: einsum("i->", ones(3), optimize=["einsum_path", ([0],)]),
        OperandTypeError,
        "a path is made of tuples of positions",
    ),
    ("a path that ends early", long_path, PathError, "leaves 2 arrays"),
    ("memory", lambda: einsum("i->", ones(3), memory=-1), OptionError, "memory=-1 is not a number of bytes"),
    ("too little memory", lambda: chain(79999), PlanMemoryError, "need 80000 bytes.*memory=79999"),
    (
        "too little memory for buffers",
        lambda: chain(80000),
        PlanMemoryError,
        "[0-9]+ bytes are needed .*, 80000 for intermediates and copies and [0-9]+ for packing buffers, .*memory=80000",
    ),
    ("read-only out", lambda: einsum("i->i", ones(3), out=np.broadcast_to(1.0, 3)), OutputError, "out= is read-only"),
    (
        "out of another shape",
        lambda: einsum("i->i", ones(3), out=ones(4)),
        OutputError,
        "out= has shape \\(4,\\), the result has shape \\(3,\\)",
    ),
    (
        "out of another dtype",
        lambda: einsum("i->i", ones(3), out=np.ones(3, int)),
        OperandTypeError,
        "out= is int64, which casting='safe' does not convert the result's float64 to",
    ),
    ("out that is no array", lambda: einsum("i->i", ones(3), out=no_array), OperandTypeError, "not list"),
    ("a masked out", lambda: einsum("i->i", ones(3), out=np.ma.ones(3)), OperandTypeError, "out= is a masked array"),
    ("overflow", lambda: plan("i,j->ij", (2**40,), (2**40,)), SizeError, "`ij` of shape .* 64-bit sizes"),
    ("too many axes", lambda: einsum("i->" + "i" * 65, ones(1)), ShapeError, "the output has 65 axes"),
    (
        "a negative extent",
        lambda: plan("i->", (-1,)),
        ShapeError,
        "operand 0 has the shape \\(-1,\\), in which the extent of axis 0 is negative",
    ),
    (
        "a plan and another shape",
        lambda: plan("ij->j", (2, 3))(ones(3, 2)),
        ShapeError,
        "operand 0 has shape \\(3, 2\\), the plan ij->j is for \\(2, 3\\)",
    ),
    (
        "a plan and another dtype",
        lambda: plan("i->", (3,))(np.ones(3, "float32")),
        OperandTypeError,
        "operand 0 is float32, the plan i-> is for float64",
    ),
    (
        "a plan and too few",
        lambda: plan("i,i->", (3,), (3,))(ones(3)),
        ShapeError,
        "takes 2 operands, of .*; it was called with 1",
    ),
    ("the path of nothing", lambda: einsum_path(), SubscriptsError, "einsum needs subscripts and operands"),
    ("the plan of nothing", lambda: plan(), SubscriptsError, "einsum needs subscripts and operands"),
]


@pytest.mark.parametrize(("call", "error", "message"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_a_message_says_what_is_wrong(call: Call, error: type[EinsumError], message: str) -> None:
    with pytest.raises(EinsumError, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_every_error_class_has_its_wording_pinned() -> None:
    pinned = {case[2] for case in (*POINTED, *PLAIN)} | {EinsumError}
    public = {value for value in vars(einstride).values() if isinstance(value, type) and issubclass(value, EinsumError)}
    assert pinned == public


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (OperandTypeError, TypeError),
        (PathError, RuntimeError),
        (PlanMemoryError, MemoryError),
        (ShapeError, ValueError),
    ],
)
def test_errors_are_what_numpy_raises(error: type[EinsumError], base: type[Exception]) -> None:
    assert issubclass(error, base)
    assert issubclass(error, ValueError)


def test_an_unknown_keyword_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"^einsum\(\) got an unexpected keyword argument 'bad'"):
        einsum("i->", ones(3), bad=1)  # type: ignore[call-arg]
