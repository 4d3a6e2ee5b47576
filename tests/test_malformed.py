"""Every malformed call is refused by an error of ours: in both forms, by every function, every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from einstride import (
    EinsumError,
    OperandTypeError,
    OptionError,
    OutputError,
    PathError,
    ShapeError,
    SizeError,
    SubscriptsError,
    einsum,
    einsum_path,
    plan,
)

Error = type[EinsumError]


def ones(*shape: int) -> Any:
    return np.ones(shape)


def huge(extent: int) -> Any:
    return np.broadcast_to(1.0, extent)


class Broken:
    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("has no values yet")


# What einsum, einsum_path and plan all refuse: the arguments, the class and what the message names.
CALLS: dict[str, tuple[tuple[Any, ...], Error, str]] = {
    "nothing": ((), SubscriptsError, "needs subscripts"),
    "empty subscripts": (("",), SubscriptsError, "needs subscripts"),
    "no operands": (("ij->i",), SubscriptsError, "1 term for 0 operands"),
    "too few operands": (("ij,jk->ik", ones(2, 3)), SubscriptsError, "2 terms for 1 operand"),
    "too many operands": (("ij->i", ones(2, 3), ones(3)), SubscriptsError, "operand 1 has no term"),
    "a comma too many": (("i,,i->i", ones(2), ones(2)), SubscriptsError, "3 terms for 2 operands"),
    "a comma at the end": (("i,j,->ij", ones(2), ones(2)), SubscriptsError, "3 terms for 2 operands"),
    "one comma": ((",", ones()), SubscriptsError, "2 terms for 1 operand"),
    "an empty term": (("", ones(2)), ShapeError, r"operand 0 has 1 axis, shape \(2,\); its term is empty"),
    "only an arrow": (("->", ones(2)), ShapeError, "operand 0 .* its term is empty"),
    "more axes": (("ij,jk->ik", ones(2, 3), ones(3, 4, 5)), ShapeError, r"operand 1 has 3 axes.*`jk` names 2"),
    "fewer axes": (("ij,jk->ik", ones(2, 3), ones(3)), ShapeError, r"operand 1 has 1 axis.*`jk` names 2"),
    "a number for an array": (("i->i", 3.0), ShapeError, r"operand 0 has 0 axes, shape \(\)"),
    "fewer axes than an ellipsis leaves": (("...ij->i", ones(2)), ShapeError, "operand 0 .* names at least 2"),
    "words": (("row col->row", ones(2, 3)), ShapeError, "operand 0 .*each letter is a label"),
    "clash": (("ij,jk->ik", ones(2, 3), ones(4, 5)), ShapeError, "label 'j' is 3 in operand 0.*4 in operand 1"),
    "clash with the last": (
        ("ij,jk,jl->ikl", ones(2, 3), ones(3, 5), ones(4, 5)),
        ShapeError,
        "label 'j' is 3 in operand 0.*4 in operand 2",
    ),
    "clash after a stretch": (
        ("ij,jk,jl->ikl", ones(2, 1), ones(3, 5), ones(4, 5)),
        ShapeError,
        "label 'j' is 3 in operand 1.*4 in operand 2",
    ),
    "clash with 0": (("i,i->", ones(0), ones(2)), ShapeError, "label 'i' is 0 in operand 0.*2 in operand 1"),
    "clash of a transposed": (
        ("ij,jk->ik", ones(2, 3), ones(4, 3)),
        ShapeError,
        "label 'j' .*did you mean `kj` for operand 1",
    ),
    "clash of either transposed": (
        ("ij,jk->ik", ones(2, 3), ones(2, 3)),
        ShapeError,
        r"did you mean `.+` for operand 1 or `.+` for operand 0",
    ),
    "diagonal": (("ii->i", ones(2, 3)), ShapeError, "label 'i' is 2 in operand 0, axis 0.*3 in operand 0, axis 1"),
    "diagonal of 1": (("ii->i", ones(1, 3)), ShapeError, "label 'i'.*not within a diagonal"),
    "ellipses": (("...i,...i->...i", ones(4, 2, 3), ones(5, 3)), ShapeError, "ellipsis is 2 in operand 0.*5 in op"),
    "ellipses of other ranks": (("...,...->...", ones(2, 3), ones(4)), ShapeError, "ellipsis is 3 in operand 0"),
    "unknown output label": (("ij->k", ones(2, 3)), SubscriptsError, "output label `k`"),
    "the wrong case": (("ij->I", ones(2, 3)), SubscriptsError, "output label `I`.*did you mean `i`"),
    "a likely label": (("ij,jk->iq", ones(2, 3), ones(3, 4)), SubscriptsError, "`q`.*did you mean `k`"),
    "two ellipses": (("...i...->i", ones(2)), SubscriptsError, "the term of operand 0 has two ellipses"),
    "six dots": (("......", ones(2)), SubscriptsError, "the term of operand 0 has two ellipses"),
    "two output ellipses": (("...i->...i...", ones(2)), SubscriptsError, "the output has two ellipses"),
    "four dots": (("i,....", ones(2), ones(2)), SubscriptsError, r"'\.' at position 5, in the term of operand 1"),
    "two dots": (("i..", ones(2, 3)), SubscriptsError, r"'\.' at position 1"),
    "one dot": (("i.j", ones(2, 3)), SubscriptsError, r"'\.' at position 1"),
    "a dot in the output": (("i->.i", ones(2)), SubscriptsError, r"'\.' at position 3, in the output"),
    "a dash": (("-", ones()), SubscriptsError, "'-' at position 0"),
    "an angle": ((">", ones()), SubscriptsError, "'>' at position 0"),
    "a dash for an arrow": (("i-j", ones(2)), SubscriptsError, "'-' at position 1"),
    "an angle for an arrow": (("i>j", ones(2)), SubscriptsError, "'>' at position 1"),
    "an arrow to the left": (("i<-i", ones(2)), SubscriptsError, "'<' at position 1.*did you mean '->'"),
    "a double arrow": (("i=>i", ones(2)), SubscriptsError, "'=' at position 1.*did you mean '->'"),
    "two arrows": (("i->i->i", ones(2)), SubscriptsError, "'->' appears twice"),
    "nothing but arrows": (("->->", ones()), SubscriptsError, "'->' appears twice"),
    "two outputs": (("i->i,i", ones(2)), SubscriptsError, "the output is one term"),
    "a digit": (("i0->i", ones(2, 2)), SubscriptsError, "'0' at position 1"),
    "a percent sign": (("ij,j%->i", ones(2, 3), ones(3, 4)), SubscriptsError, "'%' at position 4.*operand 1"),
    "an underscore": (("i_->i", ones(2, 2)), SubscriptsError, "'_' at position 1"),
    "parentheses": (("(ij)->i", ones(2, 2)), SubscriptsError, r"'\(' at position 0"),
    "a control character": (("i\x07j->i", ones(2, 2)), SubscriptsError, r"'\\x07' at position 1"),
    "a zero": (("i\0j->i", ones(2, 2)), SubscriptsError, r"'\\x00' at position 1"),
    "a bad line": (("i\nj,\n%->i", ones(2, 2), ones()), SubscriptsError, "'%' at position 5"),
    "a lone surrogate": (("\ud800->", ones(2)), SubscriptsError, r"'\\ud800' .* at position 0"),
    "a combining mark": (("ie\u0301->i", ones(2, 2)), SubscriptsError, r"\(U\+0301\) at position 2"),
    "an emoji": (("😀->", ones(2)), SubscriptsError, "at position 0"),
    "bytes that are no text": ((b"i\xff->", ones(2)), SubscriptsError, "byte 1 of the subscripts"),
    "bytes with a clash": ((b"i,i->", ones(2), ones(3)), ShapeError, "label 'i'"),
    "a bytearray": ((bytearray(b"i->"), ones(2)), OperandTypeError, "the labels of operand 0"),
    "None for subscripts": ((None, ones(2)), OperandTypeError, "the labels of operand 0"),
    "nothing but None": ((None,), OperandTypeError, "subscripts must be a string, not NoneType"),
    "nothing but an array": ((ones(2),), OperandTypeError, "subscripts must be a string, not ndarray"),
    "a number for subscripts": ((5, ones(2)), OperandTypeError, "the labels of operand 0"),
    "subscripts in a list": ((["i,i->"], ones(2), ones(2)), OperandTypeError, "the labels of operand 0"),
    "subscripts in an array": ((np.array("ij->i"), ones(2, 2)), OperandTypeError, "the labels of operand 0"),
    "subscripts last": ((ones(2, 2), "ij->i"), OperandTypeError, "the subscripts 'ij->i' come first"),
    "subscripts after two": ((ones(2), ones(2), "i,i->"), OperandTypeError, "the labels of operand 0"),
    "None": (("i,i->", ones(3), None), OperandTypeError, "operand 1 is None"),
    "None, interleaved": ((None, [0], [0]), OperandTypeError, "operand 0 is None"),
    "operands in a list": (("ij,jk->ik", [ones(2, 3), ones(3, 4)]), ShapeError, r"operand 0 .*\*operands"),
    "ragged": (("ij->i", [[1, 2], [3]]), ShapeError, "operand 0 is a ragged list: row 1 is of length 1"),
    "ragged, with a number": (("ij->i", [[1, 2], 3]), ShapeError, "operand 0 .* row 1 is a number, but row 0"),
    "ragged, interleaved": (([[1, 2], [3]], [0, 1], [0]), ShapeError, "operand 0 is a ragged list"),
    "ragged, deeper": (("ijk->", [[[1], [2, 3]]]), ShapeError, "operand 0 is a ragged list: its rows differ"),
    "a set": (("i->", {1, 2}), OperandTypeError, "operand 0 is of type set.*no order"),
    "a dict": (("i->", {"a": 1}), OperandTypeError, "operand 0 is of type dict"),
    "a generator": (("i->", (k for k in range(3))), OperandTypeError, r"operand 0 is of type generator.*list\("),
    "a text": (("i->", "abc"), OperandTypeError, "operand 0 is the text 'abc'"),
    "a later text": (("ij,jk->ik", ones(2, 3), "jk"), OperandTypeError, "operand 1 is the text 'jk'"),
    "bytes": (("i->", b"abc"), OperandTypeError, "operand 0 is the text b'abc'"),
    "an object": (("->", object()), OperandTypeError, "operand 0 is of type object"),
    "a function": (("->", lambda: 3), OperandTypeError, "operand 0 is of type function"),
    "an ellipsis for an operand": (("->", ...), OperandTypeError, "operand 0 is of type ellipsis"),
    "an array that fails": (("i->", Broken()), OperandTypeError, "operand 0, of type Broken.*has no values yet"),
    "masked": (("i->", np.ma.ones(3)), OperandTypeError, "operand 0 is a masked array"),
    "masked, interleaved": ((np.ma.ones(3), [0], [0]), OperandTypeError, "operand 0 is a masked array"),
    "no common dtype": (("i,i->", np.zeros(3, "m8[s]"), ones(3)), OperandTypeError, "operand 0 is timedelta64"),
    "interleaved, rank": (
        (ones(2, 3), [0, 1], ones(3, 4, 5), [1, 2], [0, 2]),
        ShapeError,
        r"operand 1 has 3 axes.*`\[1, 2\]` names 2",
    ),
    "interleaved, no output labels": ((ones(2, 3), [0, 1], None), OperandTypeError, "the labels of the output"),
    "interleaved, labels left out": ((ones(2), [0], ones(2)), OperandTypeError, "the labels of the output"),
    "interleaved, labels late": ((ones(2), ones(2), [0]), OperandTypeError, "the labels of operand 0"),
    "interleaved, a number for labels": ((ones(2), 0, [0]), OperandTypeError, "the labels of operand 0 .* not 0"),
    "interleaved, None for labels": ((ones(2), None, [0]), OperandTypeError, "the labels of operand 0 .* not None"),
    "interleaved, a set of labels": ((ones(2, 3), {0, 1}, [0]), OperandTypeError, "operand 0 .* no order"),
    "interleaved, an array of labels": ((ones(2, 2), np.array([[0, 1]]), [0]), OperandTypeError, "operand 0"),
    "interleaved, an unhashable label": ((ones(2), [[0]], [0]), OperandTypeError, "label 0 of operand 0"),
    "interleaved, an unhashable output": ((ones(2), [0], [{}]), OperandTypeError, "label 0 of the output"),
    "interleaved, not itself": (
        (ones(2), [float("nan")], [float("nan")]),
        SubscriptsError,
        "output label `nan` is in no operand\n",
    ),
    "interleaved, unsortable": ((ones(2, 2), [0, "a"]), SubscriptsError, r"the labels of \[0, a\] cannot be sorted"),
    "too large a result": (("i,j->ij", huge(2**40), huge(2**40)), SizeError, "a tensor `ij`"),
    "too large, though empty": (("i,j,k->ijk", huge(2**40), huge(2**40), ones(0)), SizeError, "a tensor `ijk`"),
    "too many axes": (("i->" + "i" * 65, ones(1)), ShapeError, "the output has 65 axes"),
}


def letters_as_lists(arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The interleaved form of a call whose subscripts can be written so."""
    if len(arguments) < 2 or not isinstance(arguments[0], str) or isinstance(arguments[1], str | bytes):
        return None
    *terms, output = arguments[0].replace("->", ",").split(",")
    symbols = arguments[0].replace("...", "").replace("->", "").replace(",", "")
    if "->" not in arguments[0] or len(terms) != len(arguments) - 1 or not symbols.isalpha():
        return None

    def labels(term: str) -> list[Any]:
        return [... if symbol == "." else symbol for symbol in term.replace("...", ".")]

    pairs = zip(arguments[1:], map(labels, terms), strict=True)
    return (*[item for pair in pairs for item in pair], labels(output))


def forms() -> list[Any]:
    cases = []
    for name, (arguments, error, message) in CALLS.items():
        cases.append(pytest.param(arguments, error, message, id=name))
        lists = letters_as_lists(arguments)
        if lists is not None:
            cases.append(
                pytest.param(lists, error, message.replace("`jk`", r"`(jk|\[j, k\])`"), id=f"{name}, as lists")
            )
    return cases


def refuses(call: Callable[[], Any], error: Error, message: str) -> None:
    """The first call, and the same again: no refused call may be remembered as good."""
    for _ in range(3):
        with pytest.raises(EinsumError, match=message) as caught:
            call()
        assert type(caught.value) is error


@pytest.mark.parametrize("function", [einsum, einsum_path, plan], ids=lambda function: str(function.__name__))
@pytest.mark.parametrize(("arguments", "error", "message"), forms())
def test_a_malformed_call_is_refused(function: Any, arguments: Any, error: Error, message: str) -> None:
    refuses(partial(function, *arguments), error, message)


PATHS: list[tuple[Any, Error, str]] = [
    ("best", OptionError, "optimize='best' names no planner"),
    ("AUTO", OptionError, "did you mean 'auto'"),
    ("", OptionError, "optimize='' names no planner"),
    (3, OperandTypeError, "optimize=3 is not a planner"),
    (1.5, OperandTypeError, "optimize=1.5 is not a planner"),
    (b"greedy", OperandTypeError, "optimize=b'greedy' is not a planner"),
    ({}, OperandTypeError, "optimize={} is not a planner"),
    (np.array([1, 2]), OperandTypeError, "is not a planner"),
    ([], OperandTypeError, r"optimize=\(\) is not a planner"),
    ([(0, 1), (0, 1)], OperandTypeError, r"did you mean \['einsum_path', \(0, 1\), \(0, 1\)\]"),
    (["greedy"], OperandTypeError, "should be a planner's name"),
    (("greedy", 1, 2), OperandTypeError, "should be a planner's name"),
    (("greedy", "x"), OperandTypeError, "should be a planner's name"),
    (("greedy", True), OperandTypeError, "should be a planner's name"),
    (("greedy", float("nan")), OptionError, "nan is not a number of elements"),
    (("greedy", float("inf")), OptionError, "inf is not a number of elements"),
    (("best", 100), OptionError, "optimize='best' names no planner"),
    (["einsum_path"], PathError, "leaves 3 arrays"),
    (["einsum_path", (0, 1)], PathError, "leaves 2 arrays"),
    (["einsum_path", (0, 5)], PathError, r"contraction 0 of the path, \(0, 5\), picks what is not there; there are 3"),
    (["einsum_path", (0, -1)], PathError, "picks what is not there"),
    (["einsum_path", (0, 0)], PathError, "picks an array twice"),
    (["einsum_path", ()], PathError, "picks nothing"),
    (["einsum_path", (0, 1), (0, 1), (0, 1)], PathError, "contraction 2 of the path.*there is 1 array"),
    (["einsum_path", 0], OperandTypeError, "optimize: a path is made of tuples of positions, not of 0"),
    (["einsum_path", "01"], OperandTypeError, "a path is made of tuples of positions"),
    (["einsum_path", (0.0, 1.0)], OperandTypeError, "a path is made of tuples of positions"),
    (["einsum_path", ([0], [1])], OperandTypeError, "a path is made of tuples of positions"),
]


@pytest.mark.parametrize("function", [einsum, einsum_path, plan], ids=lambda function: str(function.__name__))
@pytest.mark.parametrize(("optimize", "error", "message"), PATHS)
def test_a_path_that_is_none_is_refused(function: Any, optimize: Any, error: Error, message: str) -> None:
    refuses(partial(function, "i,i,i->", ones(3), ones(3), ones(3), optimize=optimize), error, message)


@pytest.mark.parametrize("function", [einsum, plan], ids=lambda function: str(function.__name__))
@pytest.mark.parametrize("memory", [-1, 1.5, "1GB", True, float("nan"), [], np.int64(-1), np.array(5)])
def test_a_memory_that_is_no_number_of_bytes_is_refused(function: Any, memory: Any) -> None:
    refuses(partial(function, "i,i->", ones(3), ones(3), memory=memory), OptionError, "memory=.* is not a number of")


@pytest.mark.parametrize("dtype", ["nope", 5, [], "U3", "M8[s]", [("a", int)], object()])
@pytest.mark.parametrize("call", [partial(einsum, "i->", ones(3)), partial(plan, "i->", (3,))], ids=["einsum", "plan"])
def test_a_dtype_that_is_none_is_refused(call: Any, dtype: Any) -> None:
    refuses(partial(call, dtype=dtype), OperandTypeError, "^dtype=")


OPTIONS: list[tuple[dict[str, Any], Error, str]] = [
    ({"casting": "x"}, OptionError, "casting='x' is not a casting rule"),
    ({"casting": "SAFE"}, OptionError, "did you mean 'safe'"),
    ({"casting": None}, OptionError, "casting=None"),
    ({"order": "CF"}, OptionError, "order='CF' is not a memory order"),
    ({"order": 3}, OptionError, "order=3 is not a memory order"),
    ({"order": b"C"}, OptionError, "order=b'C' is not a memory order"),
    ({"dtype": "float32"}, OperandTypeError, "operand 0 is float64, .* casting='same_kind' does"),
    ({"dtype": int, "casting": "same_kind"}, OperandTypeError, "operand 0 is float64, .* casting='unsafe' does"),
    ({"out": ones(4)}, OutputError, r"out= has shape \(4,\), the result has shape \(3,\)"),
    ({"out": ones(3, 1)}, OutputError, r"out= has shape \(3, 1\)"),
    ({"out": ones()}, OutputError, r"out= has shape \(\)"),
    ({"out": np.ones(3, int)}, OperandTypeError, "out= is int64"),
    ({"out": np.ones(3, "float32")}, OperandTypeError, "out= is float32.*casting='same_kind' does"),
    ({"out": np.array(["a"] * 3)}, OperandTypeError, "out= is <U1"),
    ({"out": np.zeros(3, "M8[s]")}, OperandTypeError, "out= is datetime64"),
    ({"out": np.broadcast_to(1.0, 3)}, OutputError, "out= is read-only"),
    ({"out": np.lib.stride_tricks.as_strided(ones(1), (3,), (0,))}, OutputError, "out= has all elements along axis 0"),
    ({"out": np.ma.ones(3)}, OperandTypeError, "out= is a masked array"),
    ({"out": [0, 0, 0]}, OperandTypeError, "out= must be an array, not list"),
    ({"out": (ones(3),)}, OperandTypeError, "out= must be an array, not tuple"),
    ({"out": 3.0}, OperandTypeError, "out= must be an array, not float"),
    ({"out": True}, OperandTypeError, "out= must be an array, not bool"),
]


@pytest.mark.parametrize(
    "arguments",
    [("i->i", ones(3)), ("i,i->i", ones(3), ones(3)), (ones(3), [0], [0])],
    ids=["one operand", "two operands", "interleaved"],
)
@pytest.mark.parametrize(("options", "error", "message"), OPTIONS, ids=[str(case[0]) for case in OPTIONS])
def test_an_option_that_cannot_be_is_refused(arguments: Any, options: Any, error: Error, message: str) -> None:
    refuses(partial(einsum, *arguments, **options), error, message)


def test_a_plan_casts_as_its_calls_do() -> None:
    message = "operand 1 is float64, which casting='safe' does not convert to float32"
    refuses(partial(plan, "i,i->", (3,), ones(3), dtype="float32"), OperandTypeError, message)


def test_a_call_that_was_good_is_refused_once_it_is_not() -> None:
    a, out = ones(3, 4), np.zeros((4, 3))
    for _ in range(2):
        einsum("ij->ji", a, out=out)
    out.flags.writeable = False
    refuses(partial(einsum, "ij->ji", a, out=out), OutputError, "out= is read-only")
    refuses(partial(einsum, "ij->ji", a, out=np.zeros((3, 4))), OutputError, r"out= has shape \(3, 4\)")
    refuses(partial(einsum, "ij->ji", a[0]), ShapeError, "operand 0 has 1 axis")
    refuses(partial(einsum, "ij->ji", a, None), OperandTypeError, "operand 1 is None")


PLANNED = plan("ij,jk->ik", (2, 3), (3, 4))
GOOD = (ones(2, 3), ones(3, 4))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {}, ShapeError, "takes 2 operands.* with 0"),
        (GOOD[:1], {}, ShapeError, "takes 2 operands.* with 1"),
        ((*GOOD, ones(2)), {}, ShapeError, "takes 2 operands.* with 3"),
        (("ij,jk->ik", *GOOD), {}, OperandTypeError, "operand 0 is the text"),
        ((ones(3, 2), GOOD[1]), {}, ShapeError, r"operand 0 has shape \(3, 2\), the plan ij,jk->ik is for \(2, 3\)"),
        ((ones(1, 3), GOOD[1]), {}, ShapeError, r"operand 0 has shape \(1, 3\)"),
        ((GOOD[0], ones(3)), {}, ShapeError, r"operand 1 has shape \(3,\)"),
        ((GOOD[0], None), {}, OperandTypeError, "operand 1 is None"),
        ((GOOD[0].astype("f4"), GOOD[1]), {}, OperandTypeError, "operand 0 is float32.*astype"),
        ((GOOD[0].tolist(), [[1] * 4] * 3), {}, OperandTypeError, "operand 1 is int64"),
        (([[1, 2], [3]], GOOD[1]), {}, ShapeError, "operand 0 is a ragged list"),
        (GOOD, {"out": ones(2)}, OutputError, "out= has shape"),
        (GOOD, {"out": [0]}, OperandTypeError, "out= must be an array"),
        (GOOD, {"out": np.ones((2, 4), int)}, OperandTypeError, "out= is int64"),
    ],
)
def test_a_plan_is_called_with_what_it_is_for(
    arguments: Any, options: dict[str, Any], error: Error, message: str
) -> None:
    PLANNED(*GOOD)
    refuses(partial(PLANNED, *arguments, **options), error, message)
    refuses(partial(einsum, PLANNED, *arguments, **options), error, message)


@pytest.mark.parametrize("function", [einsum_path, plan], ids=lambda function: str(function.__name__))
def test_a_plan_is_no_subscripts(function: Any) -> None:
    refuses(partial(function, PLANNED, *GOOD), OperandTypeError, "the plan ij,jk->ik is made already")


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"optimize": True}, {"optimize": "nonsense"}])
def test_a_plan_has_its_dtype_and_path(options: dict[str, Any]) -> None:
    refuses(partial(einsum, PLANNED, *GOOD, **options), OptionError, f"has its {next(iter(options))}")


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((-1,), ShapeError, "the extent of axis 0 is negative"),
        ((np.int64(-3),), ShapeError, "the extent of axis 0 is negative"),
        ((3.0,), ShapeError, "item 0 is of type float"),
        ((float("nan"),), ShapeError, "item 0 is of type float"),
        ((None,), ShapeError, "item 0 is of type NoneType"),
        (("3",), ShapeError, "item 0 is of type str"),
        ((True,), ShapeError, "item 0 is of type bool"),
        (((3,),), ShapeError, "item 0 is of type tuple"),
        ((2**63,), SizeError, "would hold more bytes"),
        ((2**70,), SizeError, "would hold more bytes"),
        ((2, 3), ShapeError, "has 2 axes"),
    ],
)
def test_a_shape_that_is_none_is_refused(shape: Any, error: Error, message: str) -> None:
    refuses(partial(plan, "i->", shape), error, f"operand 0 .*{message}")
    refuses(partial(plan, shape, [0], []), error, f"operand 0 .*{message}")


@pytest.mark.parametrize("dtype", ["U1", "S2", "V4", "M8[s]", "m8[s]", [("a", int)]])
@pytest.mark.parametrize("function", [einsum, plan], ids=lambda function: str(function.__name__))
def test_an_element_type_without_products_is_refused(function: Any, dtype: Any) -> None:
    array = np.zeros(3, dtype)
    refuses(partial(function, "i->", array), OperandTypeError, "operand 0 is .* cannot be multiplied and summed")
    refuses(partial(function, array, [0], []), OperandTypeError, "operand 0 is .* cannot be multiplied and summed")


@pytest.mark.parametrize(
    "arguments",
    [("i->", [1, None]), ("i,i->", ones(2), np.array([1, None], object)), ([1, None], [0], [])],
    ids=["a list", "an array", "interleaved"],
)
def test_objects_without_products_are_named(arguments: Any) -> None:
    refuses(partial(einsum, *arguments), OperandTypeError, r"operand \d holds None at \(1,\)")
