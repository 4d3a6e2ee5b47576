"""attend and attend_vjp: arguments in, arrays and a program of the engine out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import _core
from ..api import einsum
from ..array import (
    Array,
    DType,
    as_operand,
    check_out,
    is_direct,
    load,
    native,
    result_type,
    type_code,
)
from ..errors import OperandTypeError, OptionError, ShapeError, SubscriptsError
from ..expression import Label, Shape
from ..problem import axis_strides, checked_size, dense_strides, terms
from .local import LOWER_RIGHT, UPPER_LEFT, Chunks, Window, limits
from .roles import Attention, Role, bind_attention

Causal: TypeAlias = 'bool | Literal["lower-right", "upper-left"]'
Labelled: TypeAlias = "tuple[str, Any]"

_INT64 = np.dtype(np.int64)


class Tensor(IntEnum):
    """The tensors of an attention; the numbering is the one of the C++ ``AttendTensor``."""

    Q = 0
    K = 1
    V = 2
    BIAS = 3
    MASK = 4
    FIRST = 5
    END = 6
    LENGTHS = 7
    LSE = 8
    OUT = 9
    DOUT = 10
    DBIAS = 11
    DQ = 12
    DK = 13
    DV = 14


def attend(
    subscripts: str,
    q: Any,
    k: Any,
    v: Any,
    *,
    over: str,
    scale: float | None = None,
    bias: Labelled | None = None,
    mask: Labelled | None = None,
    causal: Causal = False,
    local: Chunks | Window | None = None,
    lengths: Labelled | None = None,
    along: str | None = None,
    out: Array | None = None,
    return_lse: bool = False,
) -> Any:
    """Softmax attention of queries, keys and values: ``softmax(scale * q k + bias) v``, with the softmax over a label.

    One pass, tile by tile (FlashAttention: arXiv 2205.14135, 2307.08691): no matrix of queries by keys exists, and
    extra memory does not depend on their number. Sums are formed in float32 for float16, bfloat16 and float32, in
    float64 for float64; the bits do not depend on the number of threads.

    Args:
        subscripts: the terms of queries, keys, values and output, in any order of labels: ``"bqhd,bkhd,bkhe->bqhe"``.
            Labels of queries and keys that neither values nor output have are contracted into the score. Several
            labels may be the queries' alone, as in grouped-query attention, ``"bqghd,bkhd,bkhe->bqghe"``.
        q, k, v: arrays of any strides.
        over: the label of keys and values that the softmax normalises; or several, as in ``over="xy"``.
        scale: what scores are multiplied by; 1 / sqrt(the product of the contracted extents) if None.
        bias: a term and an array that is added to the scores, ``("hqk", b)``; it broadcasts over the labels it lacks.
        mask: a term and an array, ``("qk", m)``: a boolean one keeps a key where it is True, a floating one is added.
        causal: a query sees no key behind its own position. True or "lower-right": the last query stands at the last
            key (torch's ``causal_lower_right``); "upper-left": the first at the first (torch's ``is_causal=True``).
        local: `Chunks` or `Window`, by the same positions ("lower-right" unless ``causal`` says otherwise).
        lengths: a term and an array of integers, ``("b", n)``: only the first n keys exist. Positions stay as they are.
        along: the label that positions are counted along. Where the queries have several of their own it is, if None,
            the only one that is as long as ``over``.
        out: where the result goes.
        return_lse: return (result, lse), the log of the sum of the exponentials of the scores, with the output's labels
            less those of the values, in the type of the sums.

    A query that sees no key gets zeros, and an lse of -inf. A bias or a mask of a wider type than the sums is copied.

    Raises:
        SubscriptsError: the subscripts are malformed or a label has no meaning in an attention.
        ShapeError: a term does not fit its array, or extents clash.
        OperandTypeError: an array is not of floating point, a mask neither boolean nor floating, lengths not integers.
        OptionError: a keyword has a value that means nothing.
        OutputError: ``out`` has the wrong shape or is read-only.

    >>> q, k, v = np.zeros((3, 2)), np.zeros((4, 2)), np.arange(8.0).reshape(4, 2)
    >>> attend("qd,kd,ke->qe", q, k, v, over="k").tolist()
    [[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]]
    >>> attend("qd,kd,ke->qe", q, k, v, over="k", causal=True).tolist()
    [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    """
    call = _read(subscripts, (q, k, v), over, scale, bias, mask, causal, local, lengths, along)
    bound, dtype = call.attention, call.dtype
    output = bound.problem.expression.output
    shape = _shape(bound, output)
    checked_size(bound.problem, output, dtype.itemsize)
    if out is not None:
        check_out(out, shape, dtype, "same_kind")
    direct = out is not None and is_direct(out, dtype, list(call.arrays.values()))
    made = dict(call.arrays)
    made[Tensor.OUT] = result = out if out is not None and direct else _new(shape, dtype)
    if return_lse:
        made[Tensor.LSE] = _new(_shape(bound, bound.lse_labels), call.sum_dtype)
    _run(call, made)
    if out is not None and not direct:
        np.copyto(out, result, casting="same_kind")
        result = out
    return (result, made[Tensor.LSE]) if return_lse else result


def attend_vjp(
    subscripts: str,
    q: Any,
    k: Any,
    v: Any,
    dout: Any,
    *,
    over: str,
    scale: float | None = None,
    bias: Labelled | None = None,
    mask: Labelled | None = None,
    causal: Causal = False,
    local: Chunks | Window | None = None,
    lengths: Labelled | None = None,
    along: str | None = None,
    result: tuple[Any, Any] | None = None,
) -> tuple[Array, ...]:
    """The gradients ``(dq, dk, dv)`` of ``sum(dout * attend(...))``, or ``(dq, dk, dv, dbias)`` if there is a bias.

    Weights are computed again, tile by tile, so that extra memory grows with the number of queries and keys, not with
    their product (but for ``dbias``, which has the shape of the bias). ``result`` is what ``attend(...,
    return_lse=True)`` has returned for the same arguments; without it that is computed first. The other arguments are
    those of `attend`. A gradient has the shape of its array, and its dtype if that is a floating one; the gradient of a
    bias, and of an array that broadcasts, is summed over the labels it lacks.

    Raises:
        EinsumError: as `attend` does.

    >>> q, k, v = np.zeros((1, 2)), np.array([[1.0, 0], [0, 1]]), np.array([[1.0], [3.0]])
    >>> dq, dk, dv = attend_vjp("qd,kd,ke->qe", q, k, v, np.ones((1, 1)), over="k", scale=1)
    >>> dq.tolist(), dv.tolist()
    ([[-0.5, 0.5]], [[0.5], [0.5]])
    """
    call = _read(subscripts, (q, k, v), over, scale, bias, mask, causal, local, lengths, along)
    bound = call.attention
    shape = _shape(bound, bound.problem.expression.output)
    if result is None:
        made = dict(call.arrays)
        made[Tensor.LSE] = _new(_shape(bound, bound.lse_labels), call.sum_dtype)
        made[Tensor.OUT] = _new(shape, call.dtype)
        _run(call, made)
        lse, out = made[Tensor.LSE], made[Tensor.OUT]
    else:
        out, lse = (as_operand(value, number) for number, value in enumerate(result))
    given = as_operand(dout, 3)
    for name, array, wanted in (
        ("dout", given, shape),
        ("the result", out, shape),
        ("its lse", lse, _shape(bound, bound.lse_labels)),
    ):
        if array.shape != wanted:
            raise ShapeError(f"{name} has shape {array.shape}, not {wanted}\n  {bound.problem.expression}")
    arrays = dict(call.arrays)
    arrays[Tensor.LSE] = lse.astype(call.sum_dtype, copy=False)
    arrays[Tensor.OUT], arrays[Tensor.DOUT] = [array.astype(call.dtype, copy=False) for array in (out, given)]

    gradients = [_gradient(call, tensor) for tensor in (Tensor.Q, Tensor.K, Tensor.V, Tensor.BIAS) if tensor in arrays]
    arrays |= {gradient.tensor: gradient.array for gradient in gradients}
    _run(call, arrays, {gradient.tensor: gradient.place for gradient in gradients})
    own = [as_operand(value, 0).dtype for value in (q, k, v, *(() if bias is None else (bias[1],)))]
    return tuple(
        [
            _reduced(call, gradient, native(dtype) if _is_float(dtype) else call.dtype)
            for gradient, dtype in zip(gradients, own, strict=True)
        ]
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """An attention with the arrays of one call.

    Attributes:
        attention: labels, extents and roles.
        arrays: the inputs, in types the engine can convert while it reads.
        numbers: of each input that has a term of its own, its operand in the problem.
        dtype: of the result.
        scale: of the scores.
    """

    attention: Attention
    arrays: dict[Tensor, Array]
    numbers: dict[Tensor, int]
    dtype: DType
    scale: float

    @property
    def sum_dtype(self) -> DType:
        """What sums are formed in."""
        return np.dtype(np.float64 if self.dtype.itemsize == 8 else np.float32)


def _read(
    subscripts: object,
    operands: Sequence[object],
    over: object,
    scale: object,
    bias: object,
    mask: object,
    causal: object,
    local: object,
    lengths: object,
    along: object,
) -> _Call:
    given = [as_operand(value, number) for number, value in enumerate(operands)]
    dtype = result_type(given, None, None)
    if (dtype.kind != "f" and dtype.name != "bfloat16") or type_code(dtype) is None:
        types = ", ".join(str(array.dtype) for array in given)
        raise OperandTypeError(
            f"queries, keys and values are {types}; an attention is computed in float16, bfloat16, float32 or float64"
        )
    sums = np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    tensors = (Tensor.Q, Tensor.K, Tensor.V)
    arrays = dict(zip(tensors, load(given, dtype, "safe"), strict=True))
    numbers = {tensor: int(tensor) for tensor in tensors}
    further: list[tuple[str, str, Shape]] = []
    for tensor, keyword, value in (
        (Tensor.BIAS, "bias", bias),
        (Tensor.MASK, "mask", mask),
        (Tensor.LENGTHS, "lengths", lengths),
    ):
        if value is None:
            continue
        term, array = _labelled(keyword, value, sums)
        numbers[tensor] = 3 + len(further)
        further.append((keyword, term, array.shape))
        arrays[tensor] = array
    which = _causal(causal)
    if not (local is None or isinstance(local, Chunks | Window)):
        raise OptionError(f"local={local!r} is neither Chunks(...) nor Window(...)")
    positional = which is not None or local is not None
    shapes = tuple([array.shape for array in given])
    for keyword, name in (("subscripts", subscripts), ("over", over), ("along", along)):
        if not (isinstance(name, str) or (name is None and keyword == "along")):
            raise SubscriptsError(f"{keyword}={name!r} is not a string of labels")
    bound = _bound(subscripts, shapes, tuple(further), over, positional, along)
    if positional:
        assert bound.along is not None
        queries = bound.problem.extents[bound.along]
        arrays[Tensor.FIRST], arrays[Tensor.END] = limits(queries, bound.extent(Role.KEY), which, local)
    return _Call(bound, arrays, numbers, dtype, _scale(scale, bound))


_bound = lru_cache(1024)(bind_attention)


def _is_float(dtype: DType) -> bool:
    """Whether it is one of the floating-point types that the engine has."""
    return (dtype.kind == "f" or dtype.name == "bfloat16") and type_code(dtype) is not None


def _labelled(keyword: str, value: object, sums: DType) -> tuple[str, Array]:
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)):
        raise OptionError(
            f'{keyword}= takes a term and an array, as in {keyword}=("qk", x); got {type(value).__name__}'
        )
    term, array = value[0], as_operand(value[1], 3)
    if keyword == "lengths":
        if array.dtype.kind not in "iu":
            raise OperandTypeError(f"lengths= are integers, not {array.dtype}")
        return term, array.astype(_INT64, copy=False)
    if keyword == "mask" and array.dtype.kind == "b":
        return term, array
    if not _is_float(array.dtype):
        kinds = "True where a key is kept, or floating point, which is added" if keyword == "mask" else "floating point"
        raise OperandTypeError(f"{keyword}= is {array.dtype}; it must be {kinds}")
    safe = array.dtype.isnative and np.can_cast(array.dtype, sums, "safe")
    return term, array if safe else array.astype(sums)


def _causal(causal: object) -> str | None:
    if causal is True or causal == LOWER_RIGHT:
        return LOWER_RIGHT
    if causal is False or causal is None:
        return None
    if causal == UPPER_LEFT:
        return UPPER_LEFT
    raise OptionError(f"causal={causal!r} is none of True, False, {LOWER_RIGHT!r} and {UPPER_LEFT!r}")


def _scale(scale: object, bound: Attention) -> float:
    if scale is None:
        return 1 / math.sqrt(bound.extent(Role.DEPTH) or 1)
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise OptionError(f"scale={scale!r} is not a finite number")
    return float(scale)


def _shape(bound: Attention, labels: Sequence[Label]) -> Shape:
    return tuple([bound.problem.extents[label] for label in labels])


def _new(shape: Shape, dtype: DType) -> Array:
    return _core.empty(shape, dense_strides(shape, range(len(shape)), dtype.itemsize), dtype)


# How the labels of a tensor follow from its axes: the operand of the problem whose term it has, or the labels.
Place: TypeAlias = "int | tuple[Label, ...]"


def _run(call: _Call, arrays: Mapping[Tensor, Array], places: Mapping[Tensor, Place] | None = None) -> None:
    """Run on these arrays; ``places`` are those of gradients."""
    bound = call.attention
    known: dict[Tensor, Place] = {
        Tensor.FIRST: (bound.along or 0,),
        Tensor.END: (bound.along or 0,),
        Tensor.LSE: bound.lse_labels,
        Tensor.OUT: bound.problem.expression.output,
        Tensor.DOUT: bound.problem.expression.output,
        **call.numbers,
        **(places or {}),
    }
    present = sorted(arrays)
    program = _lowered(
        bound,
        tuple([(tensor, known[tensor], arrays[tensor].strides, type_code(arrays[tensor].dtype)) for tensor in present]),
        call.scale,
    )
    *operands, last = [arrays[tensor] for tensor in present]
    program.run(tuple(operands), last)


@lru_cache(1024)
def _lowered(
    bound: Attention, tensors: tuple[tuple[Tensor, Place, tuple[int, ...], int], ...], scale: float
) -> _core.Program:
    """The engine's program for tensors of these byte strides and type codes."""
    tables = {
        tensor: axis_strides(bound.problem, place, strides)
        if isinstance(place, int)
        else dict(zip(place, strides, strict=True))
        for tensor, place, strides, _ in tensors
    }
    loops = []
    for role, leader in (
        (Role.BATCH, Tensor.OUT),
        (Role.QUERY, Tensor.Q),
        (Role.KEY, Tensor.K),
        (Role.DEPTH, Tensor.K),
        (Role.VALUE, Tensor.V),
    ):
        table = tables[leader]
        # What lies farthest apart is outermost, and positions most of all: queries of one position see the same keys.
        for label in sorted(bound.labels(role), key=lambda label: (label != bound.along, -abs(table.get(label, 0)))):
            loops.append((int(role), bound.problem.extents[label], [own.get(label, 0) for own in tables.values()]))
    return _core.attend_program(loops, [int(tensor) for tensor in tables], [code for *_, code in tensors], scale)


@dataclass(frozen=True, slots=True)
class _Gradient:
    """A gradient as the engine fills it in, with an axis for each label it varies along: its operand may broadcast."""

    tensor: Tensor
    operand: int
    array: Array
    place: Place


# The gradient of a tensor, and the roles of the labels that the engine does not sum over.
_VARIES = {
    Tensor.Q: (Tensor.DQ, (Role.BATCH, Role.QUERY, Role.DEPTH)),
    Tensor.K: (Tensor.DK, (Role.BATCH, Role.KEY, Role.DEPTH)),
    Tensor.V: (Tensor.DV, (Role.BATCH, Role.KEY, Role.VALUE)),
    Tensor.BIAS: (Tensor.DBIAS, ()),
}


def _gradient(call: _Call, of: Tensor) -> _Gradient:
    bound, number = call.attention, call.numbers[of]
    tensor, roles = _VARIES[of]
    varies = terms(bound.problem)[number]
    missing = [label for label in bound.labels(*roles) if label not in varies]
    if missing:
        labels = (*missing, *varies)
        return _Gradient(tensor, number, _new(_shape(bound, labels), call.dtype), labels)
    # The engine adds to the gradient of a bias, and leaves out what lies off a diagonal.
    dtype = call.sum_dtype if of == Tensor.BIAS else call.dtype
    return _Gradient(tensor, number, np.zeros_like(call.arrays[of], dtype=dtype, subok=False), number)


def _reduced(call: _Call, gradient: _Gradient, dtype: DType) -> Array:
    """The gradient with the shape and dtype of its operand."""
    array = gradient.array
    if not isinstance(gradient.place, int):
        problem = call.attention.problem
        term, shape = problem.expression.inputs[gradient.operand], problem.shapes[gradient.operand]
        kept = [label for label, extent in zip(term, shape, strict=True) if extent == problem.extents[label]]
        array = np.asarray(einsum(array, gradient.place, kept)).reshape(shape)
    return array.astype(dtype, copy=False)
