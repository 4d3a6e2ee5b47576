"""Hypothesis strategies: random einsum calls over every syntax, dtype and memory layout."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from oracle import Array

NUMPY_2 = not np.__version__.startswith("1.")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (*map(np.dtype, "?bhilBHILefdFD"), BFLOAT16)
MAX_VOLUME = 1500  # indices the oracle visits; keeps one example within some milliseconds

Symbols = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One einsum call, and what it means: a symbol for each axis of each operand and of the output.

    A symbol is a letter, or ('...', k) for the k-th axis from the right of an ellipsis.
    """

    subscripts: str | None  # None: the interleaved form
    sublists: tuple[tuple[Hashable, ...], ...]
    output_sublist: tuple[Hashable, ...] | None
    terms: tuple[Symbols, ...]
    output: Symbols
    shapes: tuple[tuple[int, ...], ...]

    def arguments(self, arrays: tuple[Array, ...]) -> list[Any]:
        """What the call passes to einsum."""
        if self.subscripts is not None:
            return [self.subscripts, *arrays]
        pairs = zip(arrays, self.sublists, strict=True)
        flat = [argument for array, labels in pairs for argument in (array, list(labels))]
        return flat if self.output_sublist is None else [*flat, list(self.output_sublist)]


@st.composite
def calls(
    draw: st.DrawFn,
    *,
    beyond_numpy: bool = True,
    explicit: bool = False,
    interleaved: bool = True,
    min_operands: int = 1,
) -> Call:
    """A random call.

    ``beyond_numpy`` allows what NumPy refuses (labels repeated in the output, summing over an ellipsis, letters
    outside a-z); ``explicit`` forces an explicit output; ``interleaved`` allows the interleaved form.
    """
    alphabet = draw(st.sampled_from(["ijklmn", "zYxBaA"] + (["ijklßλ"] if beyond_numpy else [])))
    alphabet = "".join(draw(st.permutations(alphabet)))
    extents: dict[Hashable, int] = {letter: draw(st.sampled_from([2, 3, 4, 1, 5, 6, 2, 3, 0])) for letter in alphabet}
    batch_rank = draw(st.sampled_from([0, 0, 1, 2]))
    batch = tuple(("...", axis) for axis in reversed(range(batch_rank)))
    extents |= {symbol: draw(st.integers(1, 3)) for symbol in batch}

    operands = draw(st.integers(min_operands, 5))
    terms: list[Symbols] = []
    texts: list[str] = []
    volume_labels: set[Hashable] = set()
    for _ in range(operands):
        own = draw(st.lists(st.sampled_from(alphabet), max_size=4))
        # The oracle's loop is over all labels together: a term that makes it too long loses labels.
        while own and math.prod(max(extents[s], 1) for s in volume_labels | set(own) | set(batch)) > MAX_VOLUME:
            own.pop()
        volume_labels |= set(own)
        text = "".join(own)
        term: Symbols = tuple(own)
        if draw(st.booleans()):
            here = batch[batch_rank - draw(st.integers(0, batch_rank)) :] if batch_rank else ()
            at = draw(st.integers(0, len(own)))
            term = (*own[:at], *here, *own[at:])
            text = "".join(own[:at]) + "..." + "".join(own[at:])
        terms.append(term)
        texts.append(text)

    shapes = []
    for term in terms:
        ones = {symbol for symbol in dict.fromkeys(term) if draw(st.sampled_from([False] * 5 + [True]))}
        shapes.append(tuple(1 if symbol in ones else extents[symbol] for symbol in term))

    used = list(dict.fromkeys(symbol for term in terms for symbol in term if isinstance(symbol, str)))
    here = tuple(symbol for symbol in batch if any(symbol in term for term in terms))
    ellipsis = any("..." in text for text in texts)
    if explicit or draw(st.booleans()):
        kept = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
        if beyond_numpy and kept and len(kept) < 4 and draw(st.sampled_from([False] * 6 + [True])):
            kept.append(draw(st.sampled_from(kept)))
        at = draw(st.integers(0, len(kept)))
        keep_batch = ellipsis and not (beyond_numpy and draw(st.sampled_from([False] * 5 + [True])))
        output: Symbols = (*kept[:at], *here, *kept[at:]) if keep_batch else tuple(kept)
        tail = "".join(kept[:at]) + ("..." if keep_batch else "") + "".join(kept[at:])
        subscripts = ",".join(texts) + "->" + tail
    else:
        counts = [symbol for term in terms for symbol in term]
        output = (*here, *sorted(symbol for symbol in used if counts.count(symbol) == 1))
        tail, subscripts = "", ",".join(texts)

    if interleaved and draw(st.sampled_from([False, False, True])):
        # NumPy sorts the implicit output by number: numbers in the letters' order keep the meaning.
        numbers = {letter: number for number, letter in enumerate(sorted(alphabet))}
        sublists = tuple(sublist(text, numbers) for text in texts)
        last = sublist(tail, numbers) if "->" in subscripts else None
        return Call(None, sublists, last, tuple(terms), output, tuple(shapes))
    if draw(st.booleans()):
        subscripts = draw(st.sampled_from([" ", "  "])).join(re.findall(r"\.{3}|->|.", subscripts))
    return Call(subscripts, (), None, tuple(terms), output, tuple(shapes))


def sublist(text: str, numbers: dict[str, int]) -> tuple[Hashable, ...]:
    """A term of letters as the interleaved form writes it."""
    return tuple(Ellipsis if letter == "." else numbers[letter] for letter in text.replace("...", "."))


def random_values(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Integers over the whole range of the type, floats of both signs around 1."""
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), dtype)
    if dtype.kind in "iu":
        facts = np.iinfo(dtype)
        return np.asarray(rng.integers(facts.min, facts.max, shape, dtype=dtype, endpoint=True))
    values = rng.standard_normal(shape)
    if dtype.kind == "c":
        return np.asarray(values + 1j * rng.standard_normal(shape), dtype)
    return np.asarray(values, dtype)


LAYOUTS = ("C", "F", "permuted", "reversed", "stepped", "unaligned", "swapped", "readonly", "stride 0", "inside")


Index = Any  # what subscripts an array; NumPy's stubs take no tuple with an ellipsis and unpacked slices


def with_layout(values: Array, layout: str, rng: np.random.Generator) -> Array:
    """An array equal to ``values`` (for "stride 0": of its shape) in another place and order in memory."""
    rank, shape, dtype = values.ndim, values.shape, values.dtype
    if layout == "F":
        return values.copy(order="F")
    if layout == "permuted":
        order = tuple(int(axis) for axis in rng.permutation(rank))
        return values.transpose(order).copy().transpose(np.argsort(order).astype(int))
    if layout == "reversed":
        flip: Index = (..., *(slice(None, None, -1 if rng.integers(2) else 1) for _ in range(rank)))
        return values[flip].copy()[flip]
    if layout == "stepped":
        steps = [int(rng.choice([1, 2, -2, 3])) for _ in range(rank)]
        big = np.zeros([extent * abs(step) for extent, step in zip(shape, steps, strict=True)], dtype)
        index: Index = (..., *(slice(None, None, step) for step in steps))
        view = big[index]
        view[...] = values
        return view
    if layout == "unaligned":
        raw = np.zeros(values.nbytes + 1, np.uint8)[1:].view(dtype).reshape(shape)
        raw[...] = values
        return raw
    if layout == "swapped" and dtype != BFLOAT16:
        return values.astype(dtype.newbyteorder())
    if layout == "readonly":
        fixed = values.copy()
        fixed.flags.writeable = False
        return fixed
    if layout == "stride 0" and 0 not in shape:
        keep: Index = (..., *(slice(0, 1 if rng.integers(2) else None) for _ in range(rank)))
        return np.broadcast_to(values[keep], shape)
    if layout == "inside":
        big = np.zeros([extent + 2 for extent in shape], dtype)
        middle: Index = (..., *(slice(1, 1 + extent) for extent in shape))
        view = big[middle]
        view[...] = values
        return view
    return values.copy()


def promotable(dtypes: tuple[np.dtype[Any], ...]) -> bool:
    """Whether NumPy promotes the dtypes together, in whatever order.

    bfloat16 joins no integer and no float16; NumPy 1 takes a float32 scalar for a float16, so there it joins nothing.
    """
    partners = "?fdFD" if NUMPY_2 else ""
    return BFLOAT16 not in dtypes or all(dtype == BFLOAT16 or dtype.char in partners for dtype in dtypes)


@st.composite
def dtypes_for(draw: st.DrawFn, operands: int) -> tuple[np.dtype[Any], ...]:
    """One dtype for all operands, or a mixture that NumPy can promote."""
    if draw(st.sampled_from([True, True, False])):
        return (draw(st.sampled_from(DTYPES)),) * operands
    return draw(st.tuples(*[st.sampled_from(DTYPES)] * operands).filter(promotable))


@st.composite
def arrays_for(draw: st.DrawFn, shapes: tuple[tuple[int, ...], ...]) -> tuple[Array, ...]:
    """Operands of these shapes in random dtypes and layouts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtypes = draw(dtypes_for(len(shapes)))
    layouts = draw(st.tuples(*[st.sampled_from(LAYOUTS)] * len(shapes)))
    made = [random_values(shape, dtype, rng) for shape, dtype in zip(shapes, dtypes, strict=True)]
    return tuple(with_layout(values, layout, rng) for values, layout in zip(made, layouts, strict=True))


# Extents on both sides of the vector lengths, register tiles and cache blocks of the kernels.
EDGES = (1, 2, 3, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 127, 129, 191, 193, 255, 257, 383, 512, 1025)

LARGE_SUBSCRIPTS = (
    "ij,jk->ik",
    "kij,il->jkl",
    "ji,kj->ki",
    "bij,bjk->bik",
    "ijb,jkb->ikb",
    "bij,bkj->kbi",
    "ijk,ilk->ijl",
    "ij,ij->ij",
    "ij,ij->",
    "ij,ij->i",
    "ij,ij->j",
    "ij->ji",
    "ij->j",
    "ij->i",
    "ijk->k",
    "ijk->j",
    "ijk->kij",
    "ij,j->i",
    "ij,i->j",
    "i,j->ij",
    "ij,kj->ikj",
    "i,i,ij->j",
    "ij,ik,il->jkl",
    "ij,jk,kl->il",
    "ii,i->i",
)


@st.composite
def large_shapes(draw: st.DrawFn, subscripts: str, volume: int = 2_000_000) -> tuple[tuple[int, ...], ...]:
    """Shapes for explicit subscripts: extents from EDGES, whose product over all labels is at most ``volume``."""
    inputs = subscripts.partition("->")[0]
    extents: dict[str, int] = {}
    for letter in draw(st.permutations(sorted(set(inputs) - {","}))):
        room = volume // math.prod(extents.values())
        extents[letter] = draw(st.sampled_from([edge for edge in EDGES if edge <= max(room, 1)]))
    return tuple(tuple(extents[letter] for letter in term) for term in inputs.split(","))
