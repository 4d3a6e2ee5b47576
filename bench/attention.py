"""`python -m bench.attention`: attention against the libraries that have it, in the same run on the same threads.

Each contender has a process of its own and is asked in turn; a result is checked, row by row, before it is timed. Peak
memory is the rise of the resident high-water mark during one call, beyond inputs and a result that exist beforehand.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Array
from .race import SETTLE_SECONDS, confine

OURS = "ours"
MIB = 1 << 20
ROWS_CHECKED = 4
SLOWEST = 20.0  # seconds a first call may take before the contender is left out of a case


@dataclass(frozen=True, slots=True)
class Case:
    """One workload: queries, keys and values of `batch` x `heads` x `length` x `width`, drawn from a seed.

    `layout` is "bhqd" or "bqhd", the order of the axes in memory. `groups` query heads share a key head. `chunk` is the
    size of chunks of which a query sees its own and the one before. Our time may be `most` times the best of `rivals`
    (of all contenders if empty), our memory `memory` bytes.
    """

    name: str
    layout: str = "bhqd"
    dtype: str = "float32"
    batch: int = 2
    heads: int = 8
    groups: int = 1
    length: int = 1024
    width: int = 64
    causal: bool = False
    chunk: int = 0
    backward: bool = False
    most: float = math.inf
    rivals: tuple[str, ...] = ()
    memory: float = math.inf

    @property
    def bound(self) -> str:
        """What is promised, in words."""
        said = [] if math.isinf(self.most) else [f"time {self.most:g}x {' or '.join(self.rivals) or 'the best'}"]
        return ", ".join(said + ([] if math.isinf(self.memory) else [f"memory {self.memory / MIB:g} MiB"]))

    def arrays(self, seed: int) -> tuple[Array, ...]:
        """q, k, v and a gradient of the output, with the axes batch, head, position, entry, in this layout."""
        rng = np.random.default_rng(seed)

        def draw(heads: int) -> Array:
            sizes = {"b": self.batch, "h": heads, "q": self.length, "d": self.width}
            drawn = rng.standard_normal([sizes[label] for label in self.layout], np.float32).astype(self.dtype)
            return drawn.transpose([self.layout.index(label) for label in "bhqd"])

        return draw(self.heads), draw(self.heads // self.groups), draw(self.heads // self.groups), draw(self.heads)

    def visible(self, query: int) -> slice:
        """The keys that a query sees."""
        first = max(0, query // self.chunk - 1) * self.chunk if self.chunk else 0
        end = (query // self.chunk + 1) * self.chunk if self.chunk else self.length
        return slice(first, query + 1 if self.causal else end)

    def mask(self) -> Array:
        """The keys that each query sees, as a matrix: True where it does."""
        mask = np.zeros((self.length, self.length), bool)
        for query in range(self.length):
            mask[query, self.visible(query)] = True
        return mask


CASES = (
    *[
        Case(f"{kind} {layout} {dtype}", layout, dtype, causal=kind == "causal", most=1.0, rivals=rivals)
        for dtype, rivals in (("float32", ("torch",)), ("float64", ()))
        for layout in ("bhqd", "bqhd")
        for kind in ("full", "causal")
    ],
    Case(
        "chunks of 64, one back, T=8192", batch=1, length=8192, causal=True, chunk=64, most=0.1,
        rivals=("torch mask",), memory=32 * MIB,
    ),
    Case("causal T=32768", batch=1, heads=1, length=32768, causal=True, memory=32 * MIB),
    Case("backward full", backward=True, most=1.0, rivals=("torch",)),
    Case("backward causal", backward=True, causal=True, most=1.0, rivals=("torch",)),
    Case("32 query heads on 4", batch=1, heads=32, groups=8, most=1.0),
    Case("32 query heads on 4, causal", batch=1, heads=32, groups=8, causal=True, most=1.0),
)  # fmt: skip

# A contender prepares a case from its arrays and returns what to time: () -> the output, or (dq, dk, dv).
Run = Callable[[], Any]


class Unable(Exception):
    """A contender has no way to do a case; the text says why."""


def _numpy(case: Case, arrays: Sequence[Array]) -> Run:
    if case.backward or case.groups > 1 or case.length > 8192:
        raise Unable("not written by hand")
    q, k, v, _ = arrays
    scale = 1 / math.sqrt(case.width)
    if case.chunk:
        # The notebook's way: chunks as an axis, and beside each the one before.
        shape = (case.batch, case.heads, case.length // case.chunk, case.chunk, case.width)
        cut_q, cut_k, cut_v = [np.reshape(x, shape) for x in (q, k, v)]
        place = np.arange(case.chunk)
        hidden = np.concatenate([np.zeros((case.chunk, case.chunk), bool), place[:, None] < place], axis=1)

        def with_previous(x: Array) -> Array:
            before = np.concatenate([np.zeros_like(x[:, :, :1]), x[:, :, :-1]], axis=2)
            return np.concatenate([before, x], axis=3)

        def chunks() -> Array:
            scores = np.matmul(cut_q, with_previous(cut_k).swapaxes(-1, -2)) * scale
            scores[..., hidden] = -np.inf
            scores[:, :, 0, :, : case.chunk] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            return np.asarray(np.matmul(weights, with_previous(cut_v)).reshape(q.shape))

        return chunks
    unseen = ~case.mask()

    def whole() -> Array:
        scores = np.matmul(q, k.swapaxes(-1, -2)) * scale
        if case.causal:
            scores[..., unseen] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray(np.matmul(weights, v))

    return whole


def _torch(case: Case, arrays: Sequence[Array], masked: bool = False) -> Run:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if case.chunk and not masked:
        raise Unable("needs a mask")
    if masked and (case.length > 8192 or not (case.causal or case.chunk)):
        raise Unable("a mask too large" if case.causal else "no mask needed")
    q, k, v, dout = [torch.from_numpy(array).requires_grad_(case.backward) for array in arrays]
    named: dict[str, Any] = {"attn_mask": torch.from_numpy(case.mask())} if masked else {"is_causal": case.causal}
    if case.groups > 1:
        named["enable_gqa"] = True
    if case.backward:
        out = sdpa(q, k, v, **named)
        return lambda: [g.numpy() for g in torch.autograd.grad(out, (q, k, v), dout.detach(), retain_graph=True)]
    return lambda: sdpa(q, k, v, **named).numpy()


def _flex(case: Case, arrays: Sequence[Array]) -> Run:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if case.backward:
        raise Unable("no backward on a CPU")
    if case.length > 1024:
        raise Unable("eager: a matrix of scores")
    q, k, v, _ = [torch.from_numpy(array) for array in arrays]
    mask = None
    if case.causal:
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, case.length, case.length, device="cpu")
    return lambda: flex_attention(q, k, v, block_mask=mask, enable_gqa=case.groups > 1).numpy()


def _jax(case: Case, arrays: Sequence[Array]) -> Run:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    if case.length > 8192:
        raise Unable("a matrix of scores")
    # Its layout is batch, position, head, entry.
    q, k, v, dout = [jax.numpy.asarray(array.transpose(0, 2, 1, 3)) for array in arrays]
    named: dict[str, Any] = {"is_causal": case.causal}
    if case.chunk:
        named["mask"] = jax.numpy.asarray(case.mask())[None, None]
    call = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, **named))

    def turned(array: Any) -> Array:
        return np.asarray(array).transpose(0, 2, 1, 3)

    if case.backward:
        back = jax.jit(lambda q, k, v, dout: jax.vjp(call, q, k, v)[1](dout))
        return lambda: [turned(g) for g in jax.block_until_ready(back(q, k, v, dout))]
    return lambda: turned(call(q, k, v).block_until_ready())


def _ours(case: Case, arrays: Sequence[Array]) -> Run:
    import einstride

    q, k, v, dout = arrays
    subscripts = "bhqd,bhkd,bhke->bhqe"
    named: dict[str, Any] = {"over": "k", "causal": case.causal}
    if case.chunk:
        named["local"] = einstride.Chunks(case.chunk, back=1)
    if case.groups > 1:
        q = q.reshape(case.batch, case.heads // case.groups, case.groups, case.length, case.width)
        dout = dout.reshape(q.shape)
        subscripts, named["along"] = "bhgqd,bhkd,bhke->bhgqe", "q"
    if case.backward:
        result = einstride.attend(subscripts, q, k, v, return_lse=True, **named)

        def back() -> list[Array]:
            dq, dk, dv = einstride.attend_vjp(subscripts, q, k, v, dout, result=result, **named)
            return [dq.reshape(arrays[0].shape), dk, dv]

        return back
    out = np.empty_like(q)
    return lambda: einstride.attend(subscripts, q, k, v, out=out, **named).reshape(arrays[0].shape)


CONTENDERS: dict[str, tuple[str, Callable[[Case, Sequence[Array]], Run]]] = {
    "numpy": ("numpy", _numpy),
    "torch": ("torch", _torch),
    "torch mask": ("torch", partial(_torch, masked=True)),
    "torch flex": ("torch", _flex),
    "jax": ("jax", _jax),
    OURS: ("einstride", _ours),
}


def wanted_rows(case: Case, arrays: Sequence[Array], seed: int) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Some rows of the result (of dq, in a backward case) in float64, by the definition: where, and what."""
    q, k, v, dout = arrays
    rng = np.random.default_rng(seed)
    for _ in range(ROWS_CHECKED):
        b, h, i = (int(rng.integers(extent)) for extent in q.shape[:3])
        seen = case.visible(i)
        near_k, near_v = [x[b, h // case.groups, seen].astype(np.float64) for x in (k, v)]
        scores = near_k @ q[b, h, i].astype(np.float64) / math.sqrt(case.width)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        if case.backward:
            slopes = near_v @ dout[b, h, i].astype(np.float64)
            weights *= (slopes - weights @ slopes) / math.sqrt(case.width)
            yield (b, h, i), weights @ near_k
        else:
            yield (b, h, i), weights @ near_v


_run: Run | None = None  # of the case that this process was last asked to prepare


def prepare(name: str, case: Case, seed: int) -> float:
    """Make a contender's process ready for a case; the error of its result, in units of the largest entry."""
    global _run
    arrays = case.arrays(seed)
    with contextlib.redirect_stderr(io.StringIO()):
        _run = CONTENDERS[name][1](case, arrays)
        result = _run()
    result = np.asarray(result[0] if case.backward else result)
    rows = list(wanted_rows(case, arrays, seed))
    largest = max(float(abs(row).max()) for _, row in rows)
    return max(float(abs(result[at] - row).max()) for at, row in rows) / largest


def timed(seconds: float) -> list[float]:
    """The seconds of each call, for about that long."""
    assert _run is not None
    taken: list[float] = []
    time.sleep(SETTLE_SECONDS)
    while sum(taken) < seconds:
        start = time.perf_counter()
        _run()
        taken.append(time.perf_counter() - start)
    return taken


def extra_bytes(name: str, case: Case, seed: int) -> int:
    """How far one call raises the high-water mark of a process, after one on a short case has loaded everything."""
    short = replace(case, length=4 * case.chunk or 64)
    CONTENDERS[name][1](short, short.arrays(seed))()
    run = CONTENDERS[name][1](case, case.arrays(seed))
    for cell in getattr(run, "__closure__", None) or ():
        if isinstance(cell.cell_contents, np.ndarray):
            cell.cell_contents[...] += 0  # so that its pages exist
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts from what is resident now
    before = _high_water()
    run()
    return _high_water() - before


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def race(
    case: Case,
    names: Sequence[str],
    threads: int,
    seconds: float,
    rounds: int,
    seed: int,
    middle: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, float | str]:
    """The median seconds of each contender, or why it has none."""
    found: dict[str, float | str] = {}
    taken: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        pools = {}
        for name in names:
            pools[name] = stack.enter_context(_process(threads))
            try:
                start = time.perf_counter()
                error = pools[name].submit(prepare, name, case, seed).result()
                limit = 1e-4 if case.dtype == "float32" else 1e-12
                if not error <= limit:
                    raise Unable(f"wrong by {error:.1e}")
                if time.perf_counter() - start > SLOWEST + 10:
                    raise Unable("too slow")
                taken[name] = []
            except Exception as reason:
                found[name] = str(reason).splitlines()[0][:60] if str(reason) else type(reason).__name__
        for _ in range(rounds):
            for name, times in taken.items():
                times += pools[name].submit(timed, seconds).result()
    return {name: middle(taken[name]) if name in taken else found[name] for name in names}


def _process(threads: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=confine, initargs=(threads,))


def main() -> int:
    """Run the cases that the command line asks for; the exit status is 1 if a bar was missed."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m bench.attention", description=__doc__)
    parser.add_argument("--only", action="append", metavar="TEXT", help="cases whose name has it; repeatable")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", action="store_true", help="least times, not medians: on a machine that others use")
    options = parser.parse_args()
    confine(options.threads)
    middle = min if options.least else statistics.median
    names = [name for name in options.contenders if importlib.util.find_spec(CONTENDERS[name][0])]
    table = Table(title=f"Attention, ms, {options.threads} threads")
    for heading in ("case", *names, "ours / best", "MiB", "bar", "kept"):
        table.add_column(heading, justify="left" if heading in ("case", "bar") else "right")
    console = Console() if Console().is_terminal else Console(width=200)
    missed = 0
    for case in CASES:
        if options.only and not any(text in case.name for text in options.only):
            continue
        times = race(case, names, options.threads, options.seconds, options.rounds, options.seed, middle)
        rivals = [t for name, t in times.items() if name != OURS and isinstance(t, float)]
        named = [t for name, t in times.items() if name in case.rivals and isinstance(t, float)]
        ours = times.get(OURS)
        best = ours / min(rivals) if isinstance(ours, float) and rivals else None
        ratio = ours / min(named or rivals) if isinstance(ours, float) and (named or rivals) else None
        memory = None
        if OURS in names and sys.platform == "linux":  # the mark is read from /proc
            with _process(options.threads) as fresh:
                memory = fresh.submit(extra_bytes, OURS, case, options.seed).result()
        kept = (ratio is None or ratio <= case.most) and (memory is None or memory <= case.memory)
        missed += not kept
        cells = [f"{t * 1e3:.1f}" if isinstance(t, float) else t for t in times.values()]
        shown = "" if memory is None else f"{memory / MIB:.1f}"
        table.add_row(case.name, *cells, f"{best:.2f}" if best else "", shown, case.bound, "yes" if kept else "NO")
        console.print(
            case.name, *[f"{n} {c}" for n, c in zip(times, cells, strict=True)], shown, "MiB", highlight=False
        )
    console.print(table)
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
