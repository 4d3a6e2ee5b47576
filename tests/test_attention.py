"""Attention against a two-pass reference in long double, within what rounding explains, and its gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array, compute_eps, parts
from strategies import LAYOUTS, with_layout

import einstride
from einstride import (
    Chunks,
    OperandTypeError,
    OptionError,
    OutputError,
    ShapeError,
    SubscriptsError,
    Window,
    attend,
    attend_vjp,
    chunked,
    unchunked,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), BFLOAT16)
MIB = 1 << 20


# ---- the reference ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A result in long double, and how far from it rounding may lead in a type."""

    out: Array
    lse: Array  # with the output's axes, the values' of extent 1
    sizes: Array  # sum over keys of weight * |value|
    score_sizes: Array  # likewise, per query the largest sum of |products| of a score, and |bias|
    terms: int  # added into a score, and into an entry of the output

    def allowed(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Bounds for out and lse: a score of K products errs by gamma(K + 3) times the sum of their sizes, a weight by
        twice that of any of its row's scores and by an exponential and a sum over keys (Higham, section 3.1)."""
        eps = compute_eps(dtype)
        relative = 4 * eps * ((self.terms + 4) * (self.score_sizes + 1) + self.terms)
        facts = parts(dtype)
        out = 2 * relative * self.sizes + float(facts.eps) * abs(self.out) + float(facts.smallest_subnormal)
        lse = relative + 4 * eps * np.where(np.isfinite(self.lse), abs(self.lse), 0)
        return out, lse


def reference(
    subscripts: str,
    arrays: Sequence[Array],
    over: str,
    scale: float | None = None,
    extra: Sequence[tuple[str, Array]] = (),
    kept: Sequence[tuple[str, Array]] = (),
) -> Answer:
    """Softmax by its definition, a pass for the largest score and one for the sum. ``extra`` is added to the scores,
    and a key stays where every one of ``kept`` is true."""
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    q, k, v = [array.astype(np.longdouble) for array in arrays]
    extents: dict[str, int] = {}
    for term, array in [*zip(terms, (q, k, v), strict=True), *extra, *kept]:
        for label, extent in zip(term, array.shape, strict=True):
            extents[label] = extent if extents.get(label, 1) == 1 else extents[label]

    def whole(term: str, array: Array) -> Array:
        shape = [extents[label] for label in term]
        return np.broadcast_to(array, shape)

    q, k, v = [whole(term, array) for term, array in zip(terms, (q, k, v), strict=True)]
    depth = [label for label in dict.fromkeys(terms[0] + terms[1]) if label not in output + terms[2] + over]
    rows = "".join(label for label in dict.fromkeys(terms[0] + terms[1] + terms[2]) if label in output)
    rows = "".join(label for label in rows if label in terms[0] + terms[1])
    scores_of = rows + over
    if scale is None:
        scale = 1 / float(np.sqrt(np.prod([extents[label] for label in depth]) or 1))

    def placed(term: str, array: Array) -> Array:
        array = whole(term, array).transpose([term.index(label) for label in scores_of if label in term])
        return array.reshape([extents[label] if label in term else 1 for label in scores_of])

    scores = scale * np.einsum(f"{terms[0]},{terms[1]}->{scores_of}", q, k)
    sizes = abs(scale) * np.einsum(f"{terms[0]},{terms[1]}->{scores_of}", abs(q), abs(k))
    for term, added in extra:
        array = added.astype(np.longdouble)
        scores = scores + placed(term, array)
        sizes = sizes + placed(term, np.where(np.isfinite(array), abs(array), 0))
    keep = np.ones(scores.shape, bool)
    for term, array in kept:
        keep = keep & placed(term, array)
    scores = np.where(keep, scores, -np.inf)
    axes = tuple(range(len(rows), len(scores_of)))
    most = scores.max(axis=axes, keepdims=True, initial=-np.inf)
    most = np.where(np.isfinite(most), most, 0)
    weights = np.exp(scores - most)
    total = weights.sum(axis=axes, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + most).reshape([extents[label] for label in rows])
    out_rows = "".join(label for label in output if label in rows)
    widest = np.einsum(f"{rows}->{out_rows}", np.where(keep, sizes, 0).max(axis=axes, initial=0))
    one_value = [extents[label] if label in rows else 1 for label in output]
    count = int(np.prod([extents[label] for label in depth])) + int(np.prod([extents[label] for label in over]))
    return Answer(
        np.einsum(f"{scores_of},{terms[2]}->{output}", weights, v),
        np.einsum(f"{rows}->{out_rows}", lse).reshape(one_value),
        np.einsum(f"{scores_of},{terms[2]}->{output}", weights, abs(v)),
        widest.reshape(one_value),
        count,
    )


def assert_close(got: Array, want: Array, allowed: Array) -> None:
    assert got.shape == want.shape
    values = got.astype(np.longdouble)
    both_infinite = np.isinf(values) & (values == want)
    with np.errstate(invalid="ignore"):
        wrong = ~(both_infinite | (abs(values - want) <= allowed))
    assert not wrong.any(), (np.argwhere(wrong)[:3], values[wrong][:3], want[wrong][:3], allowed[wrong][:3])


def positions_kept(queries: int, keys: int, causal: str | None, local: Chunks | Window | None) -> Array:
    """What is visible by position, from the definitions, one pair at a time."""
    kept = np.ones((queries, keys), bool)
    for i in range(queries):
        at = i if causal == "upper-left" else i + keys - queries
        for j in range(keys):
            if causal and j > at:
                kept[i, j] = False
            if isinstance(local, Chunks) and not -local.back <= j // local.size - at // local.size <= local.ahead:
                kept[i, j] = False
            if isinstance(local, Window):
                if local.left is not None and j < at - local.left:
                    kept[i, j] = False
                if local.right is not None and j > at + local.right:
                    kept[i, j] = False
    return kept


# ---- random calls -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A random attention: its arguments, and the same for the reference."""

    subscripts: str
    arrays: tuple[Array, ...]
    keywords: dict[str, Any]
    extra: list[tuple[str, Array]] = field(default_factory=list)
    kept: list[tuple[str, Array]] = field(default_factory=list)

    def run(self, **more: Any) -> Any:
        q, k, v = self.arrays
        return attend(self.subscripts, q, k, v, over="k", **self.keywords, **more)

    def answer(self) -> Answer:
        return reference(self.subscripts, self.arrays, "k", self.keywords.get("scale"), self.extra, self.kept)


SIZES = (1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 40)


@st.composite
def attentions(draw: st.DrawFn, dtypes: Sequence[np.dtype[Any]] = DTYPES, layouts: Sequence[str] = LAYOUTS) -> Call:
    """Any labels, layouts, masks and types; extents around the widths of panels and tiles."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = st.sampled_from(SIZES)
    extents = {"q": draw(size), "k": draw(st.sampled_from((0, *SIZES, 70, 300))), "d": draw(size), "e": draw(size)}
    extents |= {"b": draw(st.integers(1, 3)), "h": draw(st.integers(1, 3)), "g": draw(st.integers(1, 3))}
    has = {label: draw(st.booleans()) for label in "bhgq"}
    batch = "".join(label for label in "bh" if has[label])
    queries = "".join(label for label in "gq" if has[label])

    def mix(labels: Sequence[str]) -> str:
        return "".join(draw(st.permutations(labels)))

    def some(labels: str) -> str:
        return mix(draw(st.lists(st.sampled_from(labels), unique=True)))

    # A batch label that keys or values lack makes them broadcast.
    of_keys, of_values = ["".join(label for label in batch if draw(st.integers(0, 4))) for _ in range(2)]
    q_term = mix(batch + queries + "d")
    k_term, v_term = mix(of_keys + "kd"), mix(of_values + "ke")
    output = mix(batch + queries + "e")
    dtype = draw(st.sampled_from(dtypes))

    def array(term: str, kind: np.dtype[Any]) -> Array:
        shape = [1 if label in "bh" and not draw(st.integers(0, 7)) else extents[label] for label in term]
        values = np.asarray(rng.standard_normal(shape), kind)
        return with_layout(values, draw(st.sampled_from(layouts)), rng)

    arrays = tuple(array(term, dtype) for term in (q_term, k_term, v_term))
    call = Call(f"{q_term},{k_term},{v_term}->{output}", arrays, {})
    visible = batch + queries + "k"
    sums = np.dtype("f8" if dtype == np.float64 else "f4")
    if draw(st.booleans()):
        term = some(visible)
        bias = array(term, draw(st.sampled_from([dtype, sums])))
        call.keywords["bias"] = (term, bias)
        call.extra.append((term, bias))
    if draw(st.booleans()):
        term = some(visible)
        boolean = np.asarray(array(term, np.dtype("f4")) > draw(st.sampled_from([-1.0, 0.0, 9.0])))
        if draw(st.booleans()):
            call.keywords["mask"] = (term, boolean)
        else:
            call.keywords["mask"] = (term, np.where(boolean, 0, -np.inf).astype("f4"))
        call.kept.append((term, boolean))
    if queries and draw(st.booleans()):
        causal = draw(st.sampled_from([None, True, "upper-left", "lower-right"]))
        local = draw(
            st.one_of(
                st.none(),
                st.builds(Chunks, st.integers(1, 20), st.integers(0, 2), st.integers(0, 2)),
                st.builds(Window, st.none() | st.integers(0, 30), st.none() | st.integers(0, 30)),
            )
        )
        along = draw(st.sampled_from(queries))
        call.keywords.update({"causal": causal or False, "local": local, "along": along})
        kind = "lower-right" if causal is True else causal or None
        call.kept.append((along + "k", positions_kept(extents[along], extents["k"], kind, local)))
    if batch + queries and draw(st.booleans()):
        term = some(batch + queries)
        lengths = rng.integers(-1, extents["k"] + 2, [extents[label] for label in term])
        call.keywords["lengths"] = (term, lengths.astype(draw(st.sampled_from(["i8", "i4", "u1"])), casting="unsafe"))
        limit = call.keywords["lengths"][1].astype(np.int64)
        call.kept.append((term + "k", np.arange(extents["k"]) < limit[..., None]))
    if draw(st.booleans()):
        call.keywords["scale"] = draw(st.sampled_from([0.0, 1.0, -0.3, 2.5]))
    return call


@settings(max_examples=300)
@given(attentions())
def test_random_calls(call: Call) -> None:
    dtype = np.result_type(*call.arrays)
    dtype = dtype if dtype.isnative else dtype.newbyteorder("=")
    out, lse = call.run(return_lse=True)
    answer = call.answer()
    allowed, lse_allowed = answer.allowed(dtype)
    assert out.dtype == dtype
    assert lse.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert_close(out, answer.out, allowed)
    labels = call.subscripts.split("->")[1]
    assert_close(np.expand_dims(lse, labels.index("e")), answer.lse, lse_allowed)
    assert np.array_equal(call.run(), out)


@settings(max_examples=60)
@given(attentions(), st.randoms(use_true_random=False))
def test_out(call: Call, random: Any) -> None:
    want = call.run()
    rng = np.random.default_rng(random.getrandbits(32))
    layout = random.choice([layout for layout in LAYOUTS if layout not in ("readonly", "stride 0")])
    out = with_layout(np.full_like(want, 7), layout, rng)
    assert call.run(out=out) is out
    assert np.array_equal(out, want)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("subscripts", ["bhqd,bhkd,bhke->bhqe", "bqhd,bkhd,bkhe->bqhe", "dhqb,khdb,bhke->hbeq"])
@pytest.mark.parametrize("causal", [False, True])
def test_blocks(subscripts: str, causal: bool, dtype: np.dtype[Any]) -> None:
    """Long enough for several blocks of queries and of keys."""
    extents = {"b": 1, "h": 2, "q": 530, "k": 601, "d": 9, "e": 15}
    rng = np.random.default_rng(0)
    arrays = [
        np.asarray(rng.standard_normal([extents[label] for label in term]), dtype)
        for term in subscripts.split("->")[0].split(",")
    ]
    kept = [("qk", positions_kept(530, 601, "lower-right", None))] if causal else []
    answer = reference(subscripts, arrays, "k", kept=kept)
    assert_close(attend(subscripts, *arrays, over="k", causal=causal), answer.out, answer.allowed(np.dtype(dtype))[0])


# ---- what is special ----------------------------------------------------------------------------


def draw_arrays(*shapes: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_scores_of_ten_thousand(dtype: np.dtype[Any]) -> None:
    """Scores so far apart that one key has all the weight, in whichever order they come."""
    keys = 700
    scores = np.zeros(keys)
    scores[[0, -1]] = -1e4, 1e4
    v = np.arange(keys * 2.0).reshape(keys, 2).astype(dtype)
    for order in (np.arange(keys), np.arange(keys)[::-1], np.random.default_rng(0).permutation(keys)):
        k = scores[order, None].astype(dtype)
        out, lse = attend("qd,kd,ke->qe", np.array([[1], [-1]], dtype), k, v, over="k", return_lse=True)
        assert np.array_equal(out, v[[np.argmax(k), np.argmin(k)]])
        assert (abs(lse - 1e4) <= 4 * np.finfo(dtype).eps * 1e4).all()


def test_queries_that_see_nothing() -> None:
    q, k, v = draw_arrays((5, 3), (7, 3), (7, 4))
    mask = np.ones((5, 7), bool)
    mask[[0, 3]] = False
    for masked in (mask, np.where(mask, 0.0, -np.inf)):
        out, lse = attend("qd,kd,ke->qe", q, k, v, over="k", mask=("qk", masked), return_lse=True)
        assert not out[[0, 3]].any() and np.isfinite(out).all() and out[[1, 2, 4]].all()
        assert np.array_equal(np.isneginf(lse), ~mask.any(axis=1))
    gradients = attend_vjp("qd,kd,ke->qe", q, k, v, np.ones((5, 4)), over="k", mask=("qk", mask))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not gradients[0][[0, 3]].any()


def test_empty() -> None:
    q, k, v = draw_arrays((5, 3), (0, 3), (0, 4))
    out, lse = attend("qd,kd,ke->qe", q, k, v, over="k", return_lse=True)
    assert out.tolist() == np.zeros((5, 4)).tolist() and np.isneginf(lse).all()
    dq, dk, dv = attend_vjp("qd,kd,ke->qe", q, k, v, out, over="k")
    assert not dq.any() and dk.shape == k.shape and dv.shape == v.shape
    q, k, v = draw_arrays((0, 3), (6, 3), (6, 4))
    assert attend("qd,kd,ke->qe", q, k, v, over="k").shape == (0, 4)
    dq, dk, dv = attend_vjp("qd,kd,ke->qe", q, k, v, np.zeros((0, 4)), over="k")
    assert dq.shape == (0, 3) and not dk.any() and not dv.any()
    q, k, v = draw_arrays((2, 0), (6, 0), (6, 4))
    assert np.allclose(attend("qd,kd,ke->qe", q, k, v, over="k"), v.mean(axis=0), rtol=1e-14)


def test_one_query_without_a_label() -> None:
    q, k, v = draw_arrays((3,), (7, 3), (7, 4))
    assert np.array_equal(attend("d,kd,ke->e", q, k, v, over="k"), attend("qd,kd,ke->qe", q[None], k, v, over="k")[0])


def test_nan_goes_where_the_definition_has_it() -> None:
    q, k, v = draw_arrays((40, 3), (300, 3), (300, 4))
    q[7, 1] = np.nan
    assert np.array_equal(np.isnan(attend("qd,kd,ke->qe", q, k, v, over="k")).all(axis=1), np.arange(40) == 7)
    k[299] = np.nan
    assert np.isnan(attend("qd,kd,ke->qe", q, k, v, over="k")).all()
    last = np.isnan(attend("qd,kd,ke->qe", np.ones((300, 3)), k, np.ones((300, 4)), over="k", causal=True)).all(axis=1)
    assert last[299] and not last[:256].any()


def test_what_lies_beyond_the_lengths_is_not_read() -> None:
    q, k, v = draw_arrays((2, 9, 3), (2, 300, 3), (2, 300, 4))
    lengths = np.array([270, 0])
    want = attend("bqd,bkd,bke->bqe", q, k, v, over="k", lengths=("b", lengths))
    for batch, length in enumerate(lengths):
        k[batch, length:] = v[batch, length:] = np.nan
    assert np.array_equal(attend("bqd,bkd,bke->bqe", q, k, v, over="k", lengths=("b", lengths)), want)


def test_blocks_that_nobody_sees_are_skipped() -> None:
    q, k, v = draw_arrays((64, 3), (4096, 3), (4096, 4))
    k[:3900] = v[:3900] = np.nan
    assert np.isfinite(attend("qd,kd,ke->qe", q, k, v, over="k", local=Chunks(64, back=1))).all()
    assert np.isfinite(attend("qd,kd,ke->qe", q, k, v, over="k", local=Window(100, 0))).all()
    mask = np.arange(4096) >= 3900
    k[:3900] = 0
    assert np.isfinite(attend("qd,kd,ke->qe", q, k, v, over="k", mask=("k", np.arange(4096) >= 3904))).sum() == 0
    v[3840:3900] = 0
    assert np.isfinite(attend("qd,kd,ke->qe", q, k, v, over="k", mask=("k", mask))).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grouped_queries_are_repeated_keys(dtype: np.dtype[Any]) -> None:
    q, k, v = draw_arrays((2, 50, 3, 4, 8), (2, 60, 3, 8), (2, 60, 3, 5), dtype=dtype)
    got = attend("bqhgd,bkhd,bkhe->bqhge", q, k, v, over="k", causal=True, along="q")
    repeated = [np.repeat(array, 4, axis=2) for array in (k, v)]
    flat = q.reshape(2, 50, 12, 8)
    want = attend("bqhd,bkhd,bkhe->bqhe", flat, *repeated, over="k", causal=True)
    answer = reference(
        "bqhd,bkhd,bkhe->bqhe", [flat, *repeated], "k", kept=[("qk", positions_kept(50, 60, "lower-right", None))]
    )
    allowed, _ = answer.allowed(np.dtype(dtype))
    assert_close(want, answer.out, allowed)
    assert_close(got.reshape(want.shape), answer.out, allowed)
    one = attend("bqhd,bkhd,bkhe->bqhe", flat, k[:, :, :1], v[:, :, :1], over="k", causal=True)
    assert np.array_equal(
        one, attend("bqhd,bkd,bke->bqhe", flat, k[:, :, 0], v[:, :, 0], over="k", causal=True, along="q")
    )


def test_several_labels_of_keys() -> None:
    q, k, v = draw_arrays((5, 3), (4, 6, 3), (4, 6, 2))
    want = attend("qd,kd,ke->qe", q, k.reshape(24, 3), v.reshape(24, 2), over="k")
    assert np.array_equal(attend("qd,xyd,xye->qe", q, k, v, over="xy"), want)


def test_an_ellipsis() -> None:
    q, k, v = draw_arrays((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2))
    bias = draw_arrays((3, 5, 6))[0]
    want = attend("bhqd,bhkd,bhke->bhqe", q, k, v, over="k", bias=("hqk", bias))
    assert np.array_equal(attend("...qd,...kd,...ke->...qe", q, k, v, over="k", bias=("...qk", bias)), want)


def test_mixed_types_and_numbers() -> None:
    q, k, v = draw_arrays((5, 3), (6, 3), (6, 2))
    single = [array.astype("f4") for array in (q, k, v)]
    got = attend("qd,kd,ke->qe", single[0], k, single[2], over="k")
    assert got.dtype == np.float64
    assert np.array_equal(got, attend("qd,kd,ke->qe", single[0].astype("f8"), k, single[2].astype("f8"), over="k"))
    listed = attend("qd,kd,ke->qe", q.tolist(), k.tolist(), v.tolist(), over="k", bias=("k", [0.0] * 6))
    assert np.array_equal(listed, attend("qd,kd,ke->qe", q, k, v, over="k"))
    whole = attend("qd,kd,ke->qe", *single, over="k", bias=("qk", np.ones((5, 6))))
    assert whole.dtype == np.float32


@pytest.fixture
def threads() -> Iterator[None]:
    before = einstride.num_threads()
    yield
    einstride.set_num_threads(before)


@pytest.mark.parametrize("subscripts", ["bqhd,bkhd,bkhe->bqhe", "qbhd,kbd,kbe->bhqe"])
def test_any_number_of_threads_gives_the_same_bits(subscripts: str, threads: None) -> None:
    extents = {"b": 1, "h": 2, "q": 700, "k": 513, "d": 20, "e": 33}
    terms = subscripts.split("->")[0].split(",")
    q, k, v = draw_arrays(*[tuple(extents[label] for label in term) for term in terms], dtype=np.float32)
    seen = []
    for count in (1, 2, 3):
        einstride.set_num_threads(count)
        named: dict[str, Any] = {"over": "k", "local": Window(300, 20), "along": "q"}
        out = attend(subscripts, q, k, v, **named)
        seen.append([out, *attend_vjp(subscripts, q, k, v, out, **named)])
    for other in seen[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(seen[0], other, strict=True))


# ---- chunks as views ----------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from(LAYOUTS),
    st.randoms(use_true_random=False),
)
def test_chunked_and_back(shape: list[int], size: int, layout: str, random: Any) -> None:
    axis = random.randrange(-len(shape), len(shape))
    shape[axis] *= size
    rng = np.random.default_rng(random.getrandbits(32))
    x = with_layout(np.arange(np.prod(shape), dtype="f8").reshape(shape), layout, rng)
    at = axis % len(shape)
    cut = chunked(x, axis, size)
    assert np.array_equal(cut, np.reshape(x, (*shape[:at], shape[at] // size, size, *shape[at + 1 :])))
    assert x.size == 0 or np.shares_memory(cut, x)
    back = unchunked(cut, axis if axis >= 0 else axis - 1)
    assert np.array_equal(back, x) and (x.size == 0 or np.shares_memory(back, x))


def test_chunks_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"axis 1 of extent 10 is 3 chunks of 3 and a remainder of 1; pad it to 12"):
        chunked(np.zeros((2, 10)), 1, 3)
    with pytest.raises(ShapeError, match="axis 2 is out of range"):
        chunked(np.zeros((2, 10)), 2, 5)
    with pytest.raises(OptionError, match="size=0"):
        chunked(np.zeros((2, 10)), 1, 0)
    with pytest.raises(ShapeError, match="is the last"):
        unchunked(np.zeros((2, 10)), 1)
    with pytest.raises(ShapeError, match="are not chunks of one axis"):
        unchunked(np.zeros((2, 10)).T, 0)


def test_chunks_by_hand_agree() -> None:
    """The notebook's way: queries of a chunk against its keys, and those of the chunk before."""
    size, chunks = 4, 5
    q, k, v = draw_arrays((2, size * chunks, 3), (2, size * chunks, 3), (2, size * chunks, 6))
    by_hand = np.zeros((2, size * chunks, 6))
    cut_q, cut_k, cut_v = [chunked(x, 1, size) for x in (q, k, v)]
    for c in range(chunks):
        near_k, near_v = [np.concatenate([x[:, max(c - 1, 0)], x[:, c]][c == 0 :], axis=1) for x in (cut_k, cut_v)]
        weights = np.exp(np.einsum("bid,bjd->bij", cut_q[:, c], near_k) / np.sqrt(3))
        weights /= weights.sum(axis=-1, keepdims=True)
        by_hand[:, c * size : (c + 1) * size] = np.einsum("bij,bje->bie", weights, near_v)
    got = attend("bqd,bkd,bke->bqe", q, k, v, over="k", local=Chunks(size, back=1))
    answer = reference("bqd,bkd,bke->bqe", [q, k, v], "k", kept=[("qk", positions_kept(20, 20, None, Chunks(size, 1)))])
    allowed, _ = answer.allowed(np.dtype("f8"))
    assert_close(got, answer.out, allowed)
    assert_close(by_hand, answer.out, allowed)


# ---- gradients ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(attentions(dtypes=[np.dtype("f8")], layouts=["C", "F", "permuted", "reversed", "stepped", "inside", "stride 0"]))
def test_gradients_are_differences(call: Call) -> None:
    """Along a random direction, against central differences of the reference in long double."""
    rng = np.random.default_rng(0)
    dout = rng.standard_normal(call.run().shape)
    differentiable = [*call.arrays, *([call.keywords["bias"][1]] if "bias" in call.keywords else [])]
    directions = [rng.standard_normal(array.shape) for array in differentiable]
    q, k, v = call.arrays
    gradients = attend_vjp(call.subscripts, q, k, v, dout, over="k", **call.keywords)
    assert [g.shape for g in gradients] == [array.shape for array in differentiable]
    assert [g.dtype for g in gradients] == [array.dtype for array in differentiable]

    def moved(step: np.longdouble) -> np.longdouble:
        values = [array + step * direction for array, direction in zip(differentiable, directions, strict=True)]
        extra = [
            (term, values[3] if number == 0 and len(values) > 3 else array)
            for number, (term, array) in enumerate(call.extra)
        ]
        scale = call.keywords.get("scale")
        return np.longdouble((reference(call.subscripts, values[:3], "k", scale, extra, call.kept).out * dout).sum())

    slopes = [(moved(step) - moved(-step)) / (2 * step) for step in (np.longdouble(2e-5), np.longdouble(1e-5))]
    got = sum((np.longdouble(1) * g * d).sum() for g, d in zip(gradients, directions, strict=True))
    magnitude = sum(abs(np.longdouble(1) * g * d).sum() for g, d in zip(gradients, directions, strict=True))
    # The error of a central difference falls with the square of the step, its rounding grows; a float32 bias has a
    # float32 gradient.
    single = any(array.dtype == np.float32 for array in differentiable)
    relative = 1e-6 if single else 1e-11 + 100 * float(np.finfo(np.longdouble).eps) / 1e-5
    rounding = relative * (magnitude + abs(dout).sum())
    assert abs(got - slopes[1]) <= abs(slopes[0] - slopes[1]) + rounding


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("given_result", [False, True])
def test_gradients_are_torchs(dtype: str, causal: bool, given_result: bool) -> None:
    torch = pytest.importorskip("torch")
    shape = (2, 3, 300, 16)
    arrays = draw_arrays(shape, shape, shape, shape, dtype=dtype)
    tensors = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in arrays[:3]]
    out = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
    want = torch.autograd.grad(out, tensors, torch.tensor(arrays[3].astype(np.float64)))
    subscripts = "bhqd,bhkd,bhke->bhqe"
    named: dict[str, Any] = {"over": "k", "causal": causal}
    if given_result:
        named["result"] = attend(subscripts, *arrays[:3], return_lse=True, **named)
    got = attend_vjp(subscripts, *arrays, **named)
    # Sums of 300 products of numbers around 1, of weights that err by some 20 eps.
    bound = 300 * 20 * float(np.finfo(dtype).eps)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == dtype
        assert abs(ours - theirs.numpy()).max() <= bound * float(abs(theirs).max())


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_gradients_in_sixteen_bits(dtype: np.dtype[Any]) -> None:
    shape = (2, 100, 8)
    arrays = draw_arrays(shape, shape, shape, shape, dtype=dtype)
    wide = [array.astype(np.float64) for array in arrays]
    got = attend_vjp("bqd,bkd,bke->bqe", *arrays, over="k")
    want = attend_vjp("bqd,bkd,bke->bqe", *wide, over="k")
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == dtype
        # The output, which the gradients read, and each gradient are rounded once.
        assert abs(ours.astype(np.float64) - theirs).max() <= 4 * float(parts(dtype).eps) * abs(theirs).max()


def test_gradient_of_a_diagonal() -> None:
    q, k, v = draw_arrays((5, 3, 3), (6, 3), (6, 2))
    dout = draw_arrays((5, 2), seed=1)[0]
    dq, dk, dv = attend_vjp("qdd,kd,ke->qe", q, k, v, dout, over="k")
    plain = attend_vjp("qd,kd,ke->qe", np.einsum("qdd->qd", q), k, v, dout, over="k")
    assert np.array_equal(np.einsum("qdd->qd", dq), plain[0])
    assert np.count_nonzero(dq) == plain[0].size
    assert np.array_equal(dk, plain[1]) and np.array_equal(dv, plain[2])


# ---- memory, interrupts -------------------------------------------------------------------------

MEMORY = """
import json, sys
import numpy as np, einstride
from einstride import Chunks, attend, attend_vjp

einstride.set_num_threads(2)
case = json.loads(sys.argv[1])

def high_water():
    # In KiB. (ru_maxrss starts with what the process had before it became this program.)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

rng = np.random.default_rng(0)
q, k, v = [rng.standard_normal(case["shape"], np.float32) for _ in range(3)]
out = np.ones_like(q)
named = dict(over="k", causal=True, local=Chunks(*case["chunks"]) if case["chunks"] else None)
subscripts = "bhqd,bhkd,bhke->bhqe"
attend(subscripts, q[:, :, :9], k[:, :, :9], v[:, :, :9], **named)
if case["gradient"]:
    attend_vjp(subscripts, q[:, :, :9], k[:, :, :9], v[:, :, :9], out[:, :, :9], **named)
before = high_water()
if case["gradient"]:
    attend_vjp(subscripts, q, k, v, out, **named)
elif case["by_hand"]:
    weights = np.exp(np.einsum("bhqd,bhkd->bhqk", q, k, optimize=True))
else:
    attend(subscripts, q, k, v, out=out, **named)
after = high_water()
print((after - before) * 1024)
"""


def extra_bytes(
    shape: tuple[int, ...],
    chunks: tuple[int, int] | None = None,
    gradient: bool = False,
    by_hand: bool = False,
) -> int:
    """How far the resident memory's high-water mark rises, in a process of its own."""
    case = json.dumps({"shape": shape, "chunks": chunks, "gradient": gradient, "by_hand": by_hand})
    done = subprocess.run([sys.executable, "-c", MEMORY, case], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_extra_memory_does_not_grow_with_the_square() -> None:
    assert extra_bytes((1, 8, 8192, 64), chunks=(64, 1)) <= 32 * MIB
    assert extra_bytes((1, 1, 16384, 64)) <= 32 * MIB
    # Three gradients, an output and an lse of 4 MiB in all, and sums of their own for each of 8 parts.
    assert extra_bytes((1, 1, 4096, 64), gradient=True) <= 32 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from /proc")
def test_the_high_water_mark_sees_a_matrix_of_scores() -> None:
    assert extra_bytes((1, 1, 4096, 64), by_hand=True) >= 64 * MIB


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("gradient", [False, True])
def test_a_signal_stops_it(gradient: bool) -> None:
    program = f"""
        import signal, threading, os, time
        import numpy as np
        from einstride import attend, attend_vjp
        q = np.ones((1 << 18, 16), np.float32)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            if {gradient}:
                attend_vjp("qd,kd,ke->qe", q, q, q, q, over="k", result=(q, q[:, 0]))
            else:
                attend("qd,kd,ke->qe", q, q, q, over="k")
        except KeyboardInterrupt:
            print("stopped")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "stopped\n", done.stderr


# ---- errors -------------------------------------------------------------------------------------

Q, K, V = np.zeros((2, 3, 4)), np.zeros((2, 5, 4)), np.zeros((2, 5, 6))
USUAL = "bqd,bkd,bke->bqe"


@pytest.mark.parametrize(
    ("subscripts", "named", "kind", "message"),
    [
        ("bqd,bkd,bke", {}, SubscriptsError, "an attention names its output"),
        ("bqd,bkd->bq", {}, SubscriptsError, "2 terms for 3 operands"),
        ("bqd,bkd,bke->bqx", {}, SubscriptsError, "output label `x` is in no operand"),
        ("bqd,bkd,bke->bqk", {}, SubscriptsError, "the softmax over 'k' is summed"),
        ("bkd,bkd,bke->bqe", {}, SubscriptsError, "output label `q`"),
        ("bqd,bkd,bke->bq", {}, SubscriptsError, "label 'e' of the values is neither in the output"),
        ("bqd,bkd,bke->qe", {}, SubscriptsError, "label 'b' of the values is neither in the output"),
        ("bqd,bkd,bke->bqee", {}, SubscriptsError, "label 'e' is repeated in the output"),
        ("bqd,bqd,bke->bqe", {}, ShapeError, "label 'q' is 3 in operand 0"),
        (USUAL, {"over": "x"}, SubscriptsError, "no operand has a label 'x'"),
        (USUAL, {"over": ""}, SubscriptsError, "is not a label"),
        (USUAL, {"over": ["k"]}, SubscriptsError, "over=['k'] is not a string of labels"),
        (USUAL, {"over": "b"}, SubscriptsError, "the softmax over 'b' is summed"),
        (USUAL, {"mask": ("qd", np.ones((3, 4), bool))}, SubscriptsError, "but 'd' is another"),
        (USUAL, {"mask": ("qx", np.ones((3, 4), bool))}, SubscriptsError, "label 'x' is in none of queries"),
        (USUAL, {"mask": ("qk", np.ones((4, 5), bool))}, ShapeError, "mask=, as operand 3: label 'q' is 3"),
        (USUAL, {"mask": ("qk", np.ones((3, 5), int))}, OperandTypeError, "mask= is int64; it must be True where"),
        (USUAL, {"mask": np.ones((3, 5), bool)}, OptionError, "mask= takes a term and an array"),
        (USUAL, {"bias": ("q,k", np.ones((3, 5)))}, SubscriptsError, "is not one term"),
        (USUAL, {"bias": ("qk", np.ones((3, 5), bool))}, OperandTypeError, "it must be floating point"),
        (USUAL, {"bias": ("k", np.ones(4))}, ShapeError, "bias=, as operand 3"),
        (USUAL, {"lengths": ("b", np.ones(2))}, OperandTypeError, "lengths= are integers, not float64"),
        (USUAL, {"lengths": ("k", np.ones(5, int))}, SubscriptsError, "lengths= has batch and query labels only"),
        (USUAL, {"causal": "left"}, OptionError, "causal='left' is none of"),
        (USUAL, {"local": 64}, OptionError, "neither Chunks"),
        (USUAL, {"scale": np.nan}, OptionError, "scale=nan is not a finite number"),
        (USUAL, {"scale": "big"}, OptionError, "scale='big'"),
        (USUAL, {"causal": True, "along": "e"}, SubscriptsError, "along='e' is not a label that queries and output"),
        (USUAL, {"causal": True, "along": "x"}, SubscriptsError, "along='x' is not a label"),
        (USUAL, {"out": np.zeros((2, 3, 5))}, OutputError, "the result has shape"),
    ],
)
def test_errors(subscripts: str, named: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        attend(subscripts, Q, K, V, **{"over": "k", **named})
    assert message in str(caught.value)


def test_carets_point_at_the_label() -> None:
    with pytest.raises(SubscriptsError) as caught:
        attend("bqd,bkd,bke->bqk", Q, K, V, over="k")
    assert str(caught.value).splitlines()[1:] == ["  bqd,bkd,bke->bqk", "       ^   ^     ^"]


def test_positions_go_along_the_label_that_is_as_long_as_the_keys() -> None:
    rng = np.random.default_rng(5)
    q, k, v = rng.standard_normal((2, 5, 3, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 5, 4))
    want = attend("bqgd,bkd,bke->bqge", q, k, v, over="k", causal=True, along="q")
    assert np.array_equal(attend("bqgd,bkd,bke->bqge", q, k, v, over="k", causal=True), want)
    turned = attend("bgqd,bkd,bke->bqge", q.swapaxes(1, 2), k, v, over="k", causal=True)
    assert np.array_equal(turned, want)


def test_positions_need_one_label() -> None:
    for shape in ((2, 3, 7, 4), (2, K.shape[1], K.shape[1], 4)):
        with pytest.raises(SubscriptsError, match="say along='q' or along='g'"):
            attend("bqgd,bkd,bke->bqge", np.zeros(shape), K, V, over="k", causal=True)
    with pytest.raises(SubscriptsError, match="over= names several"):
        attend("bqd,bxyd,bxye->bqe", Q, K[:, None], V[:, None], over="xy", causal=True)


def test_types_that_have_no_attention() -> None:
    for dtype in (np.int64, np.complex128, np.longdouble, object):
        with pytest.raises(OperandTypeError, match="float16, bfloat16, float32 or float64"):
            attend(USUAL, *(array.astype(dtype) for array in (Q, K, V)), over="k")


def test_gradients_check_shapes() -> None:
    out, lse = attend(USUAL, Q, K, V, over="k", return_lse=True)
    with pytest.raises(ShapeError, match=r"dout has shape \(2, 3\), not \(2, 3, 6\)"):
        attend_vjp(USUAL, Q, K, V, lse, over="k")
    with pytest.raises(ShapeError, match="its lse has shape"):
        attend_vjp(USUAL, Q, K, V, out, over="k", result=(out, out))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chunks(0), r"Chunks\(size=0"),
        (lambda: Chunks(4, back=-1), r"Chunks\(back=-1"),
        (lambda: Chunks(4, ahead=True), r"Chunks\(ahead=True"),
        (lambda: Window(-1, 0), r"Window\(left=-1"),
        (lambda: Window(None, -2), r"Window\(right=-2"),
    ],
)
def test_local_checks_its_numbers(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
