"""The tour's last chapter: attention within chunks, by hand and by `attend`, and the mask that both mean."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from .. import _core
from ..api import einsum
from ..attention import Chunks, attend, chunked, unchunked
from ..attention.local import limits
from .show import duration
from .stops import Array
from .visit import timed

SUBSCRIPTS = "bqd,bkd,bke->bqe"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """Attention of queries to their own chunk and the one before, both ways.

    Times are seconds a call; bytes are the most held at once beyond the operands; differences are absolute.
    """

    shape: tuple[int, ...]
    local: Chunks
    difference: float
    allowed: float
    by_hand_seconds: float
    our_seconds: float
    by_hand_bytes: int
    our_bytes: int

    @property
    def agrees(self) -> bool:
        return self.difference <= self.allowed


def by_hand(q: Array, k: Array, v: Array, size: int) -> Array:
    """Each chunk of queries against its own keys and those of the chunk before, by einsums over chunks as an axis.

    >>> x = np.ones((1, 6, 2))
    >>> bool(np.allclose(by_hand(x, x, x, 2), 1))
    True
    """
    cut_q, cut_k, cut_v = [chunked(x, 1, size) for x in (q, k, v)]
    with_previous = [np.concatenate([np.roll(x, 1, axis=1), x], axis=2) for x in (cut_k, cut_v)]
    scores = einsum("bcid,bcjd->bcij", cut_q, with_previous[0]) / np.sqrt(q.shape[-1])
    scores[:, 0, :, :size] = -np.inf  # the first chunk has none before it
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return unchunked(einsum("bcij,bcje->bcie", weights, with_previous[1]), 1)


def compare(
    shape: tuple[int, int, int] = (8, 2048, 64),
    size: int = 64,
    seconds: float = 0.3,
    attention: Callable[..., Any] = attend,
    seed: int = 0,
) -> Comparison:
    """Compute both, compare, and measure time and memory. ``shape`` is (batch, positions, entries).

    Two right results may differ by the rounding of scores (Higham, section 3.1), of exponentials and of sums, of which
    weights sum to one and so scale the largest value.
    """
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, *shape))
    local = Chunks(size, back=1)

    def hand() -> Array:
        return by_hand(q, k, v, size)

    def ours() -> Array:
        return np.asarray(attention(SUBSCRIPTS, q, k, v, over="k", local=local))

    difference = float(abs(hand() - ours()).max())
    width = shape[-1]
    scores = float(einsum("bqd,bkd->bqk", abs(q), abs(k)).max() / np.sqrt(width))
    allowed = 16 * np.finfo(q.dtype).eps * ((width + 4) * scores + 2 * size) * float(abs(v).max())
    times = timed(hand, ours, seconds)
    return Comparison(shape, local, difference, float(allowed), *times, held(hand), held(ours))


def held(call: Callable[[], object]) -> int:
    """The most bytes held during a call: in arrays, and in the engine's buffers."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    _core.reset_memory_peak()
    call()
    arrays = tracemalloc.get_traced_memory()[1] - before
    if not tracing:
        tracemalloc.stop()
    return arrays + _core.memory_peak()


def seen(queries: int, keys: int, local: Chunks, causal: str | None, block: int) -> Array:
    """For each block of queries by a block of keys, the part of its pairs that see each other.

    >>> seen(4, 4, Chunks(2), None, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    first, end = limits(queries, keys, causal, local)
    key = np.arange(keys)
    pairs = (key >= first[:, None]) & (key < end[:, None])
    return np.asarray(chunked(chunked(pairs, 0, block), 2, block).mean(axis=(1, 3)))


def mask_blocks(parts: Array) -> list[str]:
    """The parts as a picture in a terminal's characters: a row of queries a line.

    >>> mask_blocks(np.array([[1, 0.5], [0, 1]]))
    ['██▒▒', '··██']
    """
    return ["".join("██" if part == 1 else "▒▒" if part else "··" for part in row) for row in parts]


def mask_image(parts: Array, side: int = 12) -> str:
    """The parts as an image in SVG: the darker, the more of a block is seen."""
    rows, columns = parts.shape
    squares = [
        f'<rect x="{column * side}" y="{row * side}" width="{side - 1}" height="{side - 1}" '
        f'fill="#1f4e79" fill-opacity="{0.08 + 0.92 * float(parts[row, column]):.2f}"/>'
        for row in range(rows)
        for column in range(columns)
    ]
    size = f'width="{columns * side}" height="{rows * side}"'
    title = "<title>queries (rows) and the keys they see (columns)</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{title}{"".join(squares)}</svg>'


def show_chunks(stream: TextIO, found: Comparison | None = None) -> bool:
    """Write the chapter; return whether both ways agree."""
    found = compare() if found is None else found
    local = found.local
    length = 16 * local.size
    whole = mask_blocks(seen(length, length, local, None, local.size))
    causal = mask_blocks(seen(length, length, local, "lower-right", local.size))
    lines = [
        "",
        "Attention within chunks: weights and all",
        f'   attend("{SUBSCRIPTS}", Q, K, V, over="k", local={local})',
        "   The weights are a softmax over k; a query sees the keys of its own chunk and of the one before.",
        f"   Q, K, V {found.shape}, float64; by hand it is two einsums over chunks, and a softmax between them",
        "",
        f"   what each chunk of queries sees      the same with causal=True   ({local.size} x {local.size} a block)",
        *[f"   {left}     {right}" for left, right in zip(whole, causal, strict=True)],
        "",
        f"   by hand   {duration(found.by_hand_seconds)}, {found.by_hand_bytes / MIB:.1f} MiB held",
        f"   attend    {duration(found.our_seconds)}, {found.our_bytes / MIB:.1f} MiB held, the result among them",
        f"   agrees: at most {found.difference:.1e} apart, where {found.allowed:.1e} is rounding"
        if found.agrees
        else f"   DISAGREES: apart by {found.difference:.3g}, where {found.allowed:.3g} is rounding",
    ]
    stream.write("\n".join(lines) + "\n")
    return found.agrees
