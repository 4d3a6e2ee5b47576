"""Operand intake: what callers pass becomes arrays the engine can read, and where a result goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from math import prod
from numbers import Integral, Number
from typing import Any, TypeAlias

import numpy as np

from .errors import OperandTypeError, OptionError, OutputError, ShapeError, SizeError, nearest
from .expression import Label, Shape
from .problem import INT64_MAX, Problem, axis_strides, dense_strides, output_shape
from .program import DTYPES

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
DType: TypeAlias = np.dtype[Any]
Strides: TypeAlias = tuple[tuple[int, ...], ...]

_CODES = {
    (np.dtype(name).kind, np.dtype(name).itemsize): code for code, name in enumerate(DTYPES) if name != "bfloat16"
}
_BFLOAT16 = DTYPES.index("bfloat16")
_CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
_ORDERS = ("C", "F", "A", "K")


def type_code(dtype: DType) -> int | None:
    """The engine's code of an element type in native byte order; None where the engine lacks it.

    >>> type_code(np.dtype("float32")), type_code(np.dtype(object))
    (11, None)
    """
    if dtype.kind == "V":  # bfloat16 is an extension type, not one of NumPy's own
        return _BFLOAT16 if dtype.name == "bfloat16" else None
    return _CODES.get((dtype.kind, dtype.itemsize))


def as_operand(value: object, number: int) -> Array:
    """The value as a plain array, without a copy where it is one; as ``numpy.einsum`` reads it, except masked arrays.

    Raises:
        OperandTypeError: the value is None or a masked array, or cannot be an array.
        ShapeError: nested lists are ragged.
    """
    if type(value) is np.ndarray:
        return value
    if value is None:
        raise OperandTypeError(f"operand {number} is None; an operand is an array, a number or nested lists of numbers")
    if isinstance(value, np.ma.MaskedArray):
        raise OperandTypeError(
            f"operand {number} is a masked array, whose mask a sum of products cannot follow; "
            "pass `.filled(0)` to leave masked elements out of the sum, or `.data` to ignore the mask"
        )
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(value, list | tuple):
            raise ShapeError(_ragged_message(value, number, error)) from None
        raise OperandTypeError(f"operand {number}, of type {type(value).__name__}, is not an array: {error}") from error
    if array.ndim == 0 and array.dtype.kind in "OSU" and not isinstance(value, np.ndarray):
        _check_scalar(value, number)
    return array


def _ragged_message(rows: Sequence[object], number: int, error: Exception) -> str:
    if any(isinstance(row, np.ndarray) for row in rows):
        return (
            f"operand {number} is a {type(rows).__name__} of arrays that make no array; operands are arguments of "
            "their own, as in einsum(subscripts, *operands)"
        )
    lengths = [len(row) if isinstance(row, list | tuple) else None for row in rows]
    for position, length in enumerate(lengths):
        if length != lengths[0]:
            other, own = ("a number" if size is None else f"of length {size}" for size in (lengths[0], length))
            return f"operand {number} is a ragged list: row {position} is {own}, but row 0 is {other}"
    return f"operand {number} is a ragged list: its rows differ in length ({error})"


def _check_scalar(value: object, number: int) -> None:
    """Refuse what NumPy would make an array of one object, though it cannot be multiplied."""
    if isinstance(value, str | bytes):
        raise OperandTypeError(f"operand {number} is the text {value!r}, not an array or a number")
    if not hasattr(type(value), "__mul__"):
        kind = type(value).__name__
        message = f"operand {number} is of type {kind}, not an array or a number"
        if isinstance(value, Set | Mapping):
            message += f"; a {kind} has no order, an array or a list has"
        elif isinstance(value, Iterable):
            message += "; pass list(...) of it"
        raise OperandTypeError(message)


def as_shape(value: tuple[object, ...], number: int, itemsize: int) -> Shape:
    """The shape that stands for an operand in a plan.

    Raises:
        ShapeError: it is not made of integers of 0 or more.
        SizeError: an array of this shape would hold more bytes than 63 bits can count.

    >>> as_shape((2, np.int64(3)), 0, 8)
    (2, 3)
    """
    for axis, extent in enumerate(value):
        if not isinstance(extent, Integral) or isinstance(extent, bool):
            raise ShapeError(
                f"operand {number} is a tuple, which plan() takes for a shape, but its item {axis} is of type "
                f"{type(extent).__name__}, not int; values are passed as a list or an array"
            )
        if extent < 0:
            raise ShapeError(f"operand {number} has the shape {value}, in which the extent of axis {axis} is negative")
    shape = tuple([int(extent) for extent in value])  # type: ignore[call-overload]
    if prod([extent or 1 for extent in shape]) * itemsize > INT64_MAX:
        raise SizeError(f"operand {number} of shape {shape} would hold more bytes than 64-bit sizes can count")
    return shape


def object_message(arrays: Sequence[Array], error: TypeError) -> str:
    """What to say of objects that could not be multiplied and summed: where the first that is no number is."""
    for number, array in enumerate(arrays):
        if array.dtype == object:
            for position, value in np.ndenumerate(array):
                if not isinstance(value, Number):
                    where = f" at {position}" if position else ""
                    return f"operand {number} holds {value!r}{where}, which is no number: {error}"
    return f"the operands' elements cannot be multiplied and summed: {error}"


def native(dtype: DType) -> DType:
    """The dtype in this machine's byte order."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def check_options(order: object, casting: object) -> tuple[str, str]:
    """``order`` and ``casting`` as NumPy spells them.

    Raises:
        OptionError: either is none of NumPy's.
    """
    spelled = "K" if order is None else order.upper() if isinstance(order, str) else order
    if spelled not in _ORDERS:
        raise OptionError(f"order={order!r} is not a memory order; there are 'C', 'F', 'A' and 'K'")
    if casting not in _CASTINGS:
        near = nearest(casting, _CASTINGS) if isinstance(casting, str) else None
        meant = "" if near is None else f"; did you mean {near!r}?"
        known = ", ".join(map(repr, _CASTINGS))
        raise OptionError(f"casting={casting!r} is not a casting rule; there are {known}{meant}")
    return str(spelled), str(casting)


def result_type(operands: Sequence[Array | DType], out: Array | None, dtype: object) -> DType:
    """The type products are formed and summed in: ``dtype`` if given, else what NumPy promotes all operands to.

    As in NumPy, ``out`` takes part in the promotion, and an operand is an array where its value may matter (NumPy 1).

    Raises:
        OperandTypeError: ``dtype`` is no dtype, or the operands' types have no common type.

    >>> result_type((np.dtype("int8"), np.dtype("float32")), None, None)
    dtype('float32')
    """
    if dtype is not None:
        try:
            return native(np.dtype(dtype))  # type: ignore[call-overload]
        except TypeError as error:
            raise OperandTypeError(f"dtype={dtype!r} is not a dtype: {error}") from None
    every = operands if out is None else (*operands, out)
    try:
        return native(_promoted(every)) if every else np.dtype(float)
    except TypeError as error:
        types = ", ".join(
            f"operand {number} is {operand if isinstance(operand, np.dtype) else operand.dtype}"
            for number, operand in enumerate(operands)
        )
        types += "" if out is None else f", out= is {out.dtype}"
        raise OperandTypeError(f"the operands have no common dtype: {types}") from error


def _promoted(items: Sequence[Array | DType]) -> DType:
    # NumPy 1 gives another answer to arrays in another order (of int16 22305 without axes, bool and int8 one is int32,
    # one int16); its einsum asks with the types of what has axes. Where that answer cannot hold an operand (uint8 95
    # without axes, uint8, int8, int8: int8) its einsum refuses, and the arrays themselves have one that can.
    types = [item if isinstance(item, np.dtype) or item.ndim == 0 else item.dtype for item in items]
    dtype = np.result_type(*types)
    return dtype if all(np.can_cast(item, dtype) for item in types) else np.result_type(*items)


def check_arithmetic(dtype: DType, dtypes: Sequence[DType], out: Array | None = None) -> None:
    """Refuse a type to sum in that has no product and sum, naming where of ``dtypes`` and ``out`` it came from.

    Raises:
        OperandTypeError: naming the operand, ``out=`` or ``dtype=``.
    """
    if _is_arithmetic(dtype):
        return
    who = f"dtype={dtype}"
    if out is not None and not _is_arithmetic(out.dtype):
        who = f"out= is {out.dtype}, which"
    for number, own in enumerate(dtypes):
        if not _is_arithmetic(own):
            who = f"operand {number} is {own}, which"
            break
    raise OperandTypeError(f"{who} cannot be multiplied and summed; numbers, bool and object can")


def _is_arithmetic(dtype: DType) -> bool:
    return type_code(dtype) is not None or dtype.kind in "Ofc"


def check_cast(operand: Array | DType, number: int, dtype: DType, casting: str) -> None:
    """Check that ``casting`` allows an operand to become ``dtype``; an array where its value may matter (NumPy 1).

    Raises:
        OperandTypeError: it does not.
    """
    if not np.can_cast(operand, dtype, casting):  # type: ignore[arg-type]
        own = operand if isinstance(operand, np.dtype) else operand.dtype
        message = f"operand {number} is {own}, which casting={casting!r} does not convert to {dtype}"
        raise OperandTypeError(message + _looser(own, dtype, casting))


def load(arrays: Sequence[Array], dtype: DType, casting: str) -> tuple[Array, ...]:
    """The arrays in native byte order and in types that convert to ``dtype`` without loss.

    Most arrays come back as they are: the engine converts while it reads. A copy is made of byte-swapped arrays, and
    where ``casting`` allows a conversion that NumPy does not call safe.

    Raises:
        OperandTypeError: ``casting`` forbids the conversion of an operand to ``dtype``.
    """
    loaded: list[Array] = []
    for number, array in enumerate(arrays):
        own = array.dtype
        if own != dtype:
            check_cast(array, number, dtype, casting)
            if not own.isnative:
                array = array.astype(native(own))
            if not np.can_cast(own, dtype, "safe"):
                array = array.astype(dtype)
        loaded.append(array)
    return tuple(loaded)


def check_out(out: object, shape: Shape, dtype: DType, casting: str) -> None:
    """Check that ``out`` can take a result of this shape and dtype.

    Raises:
        OperandTypeError: it is not an array, or ``casting`` forbids the conversion to its dtype.
        OutputError: its shape is wrong, it is read-only, or its elements share memory.
    """
    if not isinstance(out, np.ndarray):
        raise OperandTypeError(f"out= must be an array, got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise OperandTypeError("out= is a masked array; its mask would not follow the result")
    if out.shape != shape:
        raise OutputError(f"out= has shape {out.shape}, the result has shape {shape}")
    if not out.flags.writeable:
        raise OutputError("out= is read-only; np.array(out) is a copy that can be written")
    if not np.can_cast(dtype, out.dtype, casting):  # type: ignore[arg-type]
        message = f"out= is {out.dtype}, which casting={casting!r} does not convert the result's {dtype} to"
        raise OperandTypeError(message + _looser(dtype, out.dtype, casting))
    repeated = [axis for axis, (n, step) in enumerate(zip(out.shape, out.strides, strict=True)) if n > 1 and not step]
    if repeated and out.size:
        raise OutputError(
            f"out= has all elements along axis {repeated[0]} in one place in memory (its stride is 0), "
            "so it cannot hold the result; np.array(out) can"
        )


def _looser(source: DType, target: DType, casting: str) -> str:
    """Which casting rule allows what ``casting`` does not."""
    rules = _CASTINGS[_CASTINGS.index(casting) + 1 :]
    rule = next((rule for rule in rules if np.can_cast(source, target, rule)), None)  # type: ignore[arg-type]
    return "; nothing does" if rule is None else f"; casting={rule!r} does"


def is_direct(out: Array, dtype: DType, arrays: Sequence[Array]) -> bool:
    """Whether a program may write its result into a checked ``out`` as it goes: the right type, memory of its own."""
    return out.dtype == dtype and not any(np.may_share_memory(out, array) for array in arrays)


def is_contiguous(shape: Shape, strides: Sequence[int], itemsize: int, fortran: bool = False) -> bool:
    """Whether elements lie without gaps in C order, or in Fortran order; strides along extents of 0 and 1 are moot.

    >>> is_contiguous((3, 1), (8, 99), 8), is_contiguous((3, 4), (8, 24), 8, fortran=True)
    (True, True)
    """
    axes = range(len(shape))
    dense = dense_strides(shape, axes[::-1] if fortran else axes, itemsize)
    return (
        strides == dense
        or 0 in shape
        or all(a == b or extent == 1 for a, b, extent in zip(strides, dense, shape, strict=True))
    )


def axis_order(problem: Problem, strides: Strides, dtypes: Sequence[DType], order: str) -> Sequence[int]:
    """The output's axes, outermost first, as ``order`` lays them out in memory.

    ``'K'`` follows the operands' strides by the rule of NumPy's iterator: an insertion sort from C order, the summed
    labels last and by name, in which an axis moves outward past those whose strides are smaller in some operand and
    larger in none. A contraction of C-contiguous operands is in C order, for the rule would have batch labels
    innermost, where no matrix product wants them (`bqhd,bkhd->bhqk` of 4 x 256 x 12 x 64 float32: 2.2 ms, and 7.5 ms
    that way).
    """
    axes = range(len(problem.expression.output))
    itemsizes = [dtype.itemsize for dtype in dtypes]
    if order == "A":
        operands = [
            _diagonal(*operand) for operand in zip(problem.expression.inputs, problem.shapes, strides, strict=True)
        ]
        fortran = [
            is_contiguous(*operand, size, fortran=True) for operand, size in zip(operands, itemsizes, strict=True)
        ]
        order = "F" if all(fortran) else "C"
    if order == "F":
        return axes[::-1]
    contracts = len(strides) > 1 and len(set(problem.expression.output)) < len(problem.extents)
    if order == "C" or (contracts and all(map(is_contiguous, problem.shapes, strides, itemsizes))):
        return axes
    # A broadcast axis and one of extent 1 have no say.
    tables = [axis_strides(problem, number, operand) for number, operand in enumerate(strides)]
    steps = [
        [abs(table.get(label, 0)) if extent > 1 else 0 for table in tables]
        for label, extent in enumerate(problem.extents)
    ]
    placed: list[int] = []  # innermost first
    names = problem.expression.names
    summed = sorted(range(len(names)), key=lambda label: (len(names[label]), names[label]))
    for label in reversed(dict.fromkeys((*problem.expression.output, *summed))):
        at = len(placed)
        for position in range(len(placed) - 1, -1, -1):
            pairs = [(a, b) for a, b in zip(steps[label], steps[placed[position]], strict=True) if a and b]
            if pairs:
                if any(b <= a for a, b in pairs):
                    break
                at = position
        placed.insert(at, label)
    return sorted(axes, key=lambda axis: -placed.index(problem.expression.output[axis]))


def _diagonal(term: Sequence[Label], shape: Shape, strides: Sequence[int]) -> tuple[Shape, tuple[int, ...]]:
    """The shape and strides of an operand with each repeated label's axes made one."""
    first = {label: axis for axis, label in reversed(list(enumerate(term)))}
    axes = sorted(first.values())
    steps = [sum(stride for label, stride in zip(term, strides, strict=True) if label == term[axis]) for axis in axes]
    return tuple([shape[axis] for axis in axes]), tuple(steps)


def layout(
    problem: Problem, strides: Strides, dtypes: Sequence[DType], order: str, itemsize: int
) -> tuple[Shape, tuple[int, ...]]:
    """The shape and the byte strides of a new result."""
    shape = output_shape(problem)
    return shape, dense_strides(shape, axis_order(problem, strides, dtypes, order), itemsize)


def view(problem: Problem, array: Array) -> Array | None:
    """The result as a view of the only operand, writable if that is; None where elements must be summed or repeated.

    >>> square = np.arange(9).reshape(3, 3)
    >>> from .expression import parse
    >>> from .problem import bind
    >>> diagonal = view(bind(parse("ii->i", (2,)), ((3, 3),)), square)
    >>> diagonal[:] = 0
    >>> print(square.trace())
    0
    """
    (term,), output = problem.expression.inputs, problem.expression.output
    if len(set(output)) < len(output) or len(set(term)) > len(output):
        return None
    shown = array
    labels = list(term)
    while len(labels) > len(output):
        label = next(label for label in labels if labels.count(label) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        shown = shown.diagonal(0, first, second)
        labels = [*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], label]
    shown = shown.transpose([labels.index(label) for label in output])
    if array.flags.writeable and not shown.flags.writeable:
        shown.flags.writeable = True  # NumPy's diagonal() is read-only; einsum's is not
    return shown
