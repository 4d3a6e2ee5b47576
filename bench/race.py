"""The race: one process a contender, all alive at once, asked in turn so that the machine's noise hits them alike."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
import timeit
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from .cases import Array, Case
from .check import pick, sample
from .peers import CONTENDERS, OURS, Library
from .roofline import Machine, demand, measure_for

START_SECONDS = 180.0
SHORTEST_SAMPLE = 5e-4
# Idle threads of OpenBLAS spin for 2**26 clock ticks after a call; they must not steal from whoever is next.
SETTLE_SECONDS = 0.04
MOST_SAMPLES = 1000
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NPROC",
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Median seconds of one call, or None with the reason in `note`."""

    seconds: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure: seconds a turn, turns, and the most that a contender's first call may take."""

    turn: float = 0.3
    turns: int = 3
    limit: float = 10.0


QUICK = Pace(turn=0.03, turns=3, limit=2.0)


def confine(threads: int) -> None:
    """Give this process and those it starts `threads` processors and tell every thread pool so."""
    os.environ.update({variable: str(threads) for variable in THREAD_VARIABLES})
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Refusal(Exception):
    """A contender did not do what it was asked; the text goes in the table."""


class Worker:
    """One contender's process. `ask` sends a request and waits; a process that is late or dies is replaced."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self._start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, request: str, *values: object, seconds: float = START_SECONDS) -> Any:
        """The answer to a request; raises Refusal with the reason when there is none within `seconds`."""
        try:
            self._pipe.send((request, *values))
            return self._receive(seconds)
        except (EOFError, ConnectionError):
            self._restart()
            raise Refusal("crashed") from None

    def _receive(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            self._restart()
            raise Refusal(f"over {seconds:g} s")
        good, answer = self._pipe.recv()
        if not good:
            raise Refusal(answer)
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self.name, self.threads), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = False

    def wait(self) -> None:
        """Return when the library is imported; raises Refusal when it cannot be."""
        if not self._ready:
            try:
                self._receive(START_SECONDS)
            except (EOFError, ConnectionError):
                raise Refusal("crashed while starting") from None
            self._ready = True

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _restart(self) -> None:
        self._stop()
        self._start()
        self.wait()


def serve(pipe: Connection, name: str, threads: int) -> None:
    """A worker's whole life: open the library, then answer `load`, `first`, `time` and `drop` until killed."""
    warnings.simplefilter("ignore")
    try:
        with _silence():
            library = CONTENDERS[name].open(threads)
    except Exception as error:
        pipe.send((False, _reason(error)))
        return
    pipe.send((True, None))
    entry: Entry | None = None
    while True:
        request, *values = pipe.recv()
        try:
            if request == "load":
                entry = Entry(library, threads, *values)
                answer: object = None
            elif request == "drop":
                answer = entry = None
            else:
                answer = getattr(entry, request)(*values)
            pipe.send((True, answer))
        except Exception as error:
            pipe.send((False, _reason(error)))


class Entry:
    """One case in one contender's hands: its own arrays and the statement that its users would write."""

    def __init__(self, library: Library, threads: int, case: Case, seed: int) -> None:
        self._case, self._threads = case, threads
        operands = [library.convert(operand) for operand in case.operands(seed)]
        names = [f"a{place}" for place in range(len(operands))]
        self._fetch = library.fetch
        subscripts = case.subscripts if library.spaces else case.subscripts.replace(" ", "")
        self._names = dict(zip(names, operands, strict=True), einsum=library.function(subscripts))
        self._statement = library.call.format(subscripts=subscripts, operands=", ".join(names))
        self._timer = timeit.Timer(self._statement, globals=self._names)

    def first(self, positions: Sequence[Array]) -> tuple[tuple[int, ...], str, Array]:
        """Call once; the result's shape, dtype and sampled values."""
        result = self._fetch(eval(self._statement, self._names))
        return result.shape, result.dtype.name, pick(result, positions)

    def time(self, seconds: float) -> float:
        """Median seconds of a call over samples that take about `seconds` together (garbage collection off)."""
        calls = 1
        taken = self._timer.timeit(calls)
        while taken < SHORTEST_SAMPLE:
            calls *= min(10, max(2, math.ceil(SHORTEST_SAMPLE / max(taken, 1e-9))))
            taken = self._timer.timeit(calls)
        count = max(3 if taken < 1 else 1, min(MOST_SAMPLES, int(seconds / taken)))
        return statistics.median(self._timer.repeat(count, calls)) / calls

    def rates(self) -> tuple[float, float]:
        """The flops and bytes a second that bound the case, as the machine is just now."""
        return measure_for(self._case, self._threads)


def race(
    cases: Iterable[Case],
    contenders: Sequence[str],
    threads: int,
    pace: Pace,
    seed: int,
    left_out: Callable[[str, str], None],
) -> Iterator[tuple[Case, dict[str, Timing], Machine | None]]:
    """Time every case on every contender; a contender that does not start is left out and said so.

    Yields each case as soon as it is done, with the contenders' timings and the rates of the machine in those turns:
    other tenants of the processor slow its rates and the contenders alike. The rates are measured by ours.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(name, threads)) for name in contenders]
        for worker in list(workers):
            try:
                worker.wait()
            except Refusal as refusal:
                left_out(worker.name, str(refusal))
                workers.remove(worker)
        for case in cases:
            yield case, *_race_one(case, workers, threads, pace, seed)


def _race_one(
    case: Case, workers: Sequence[Worker], threads: int, pace: Pace, seed: int
) -> tuple[dict[str, Timing], Machine | None]:
    wanted = sample(case, case.operands(seed), seed)
    timings: dict[str, Timing] = {}
    medians: dict[str, list[float]] = {}
    rates: list[tuple[float, float]] = []
    for worker in workers:
        try:
            worker.ask("load", case, seed)
            complaint = wanted.complaint(*worker.ask("first", wanted.positions, seconds=pace.limit))
            if complaint:
                raise Refusal(complaint)
            medians[worker.name] = []
        except Refusal as refusal:
            timings[worker.name] = Timing(None, str(refusal))
    for _ in range(pace.turns):
        for worker in workers:
            if worker.name in medians and worker.name not in timings:
                time.sleep(SETTLE_SECONDS)
                try:
                    patience = START_SECONDS + 20 * pace.limit
                    medians[worker.name].append(worker.ask("time", pace.turn, seconds=patience))
                    if worker.name == OURS:
                        rates.append(worker.ask("rates"))
                except Refusal as refusal:
                    timings[worker.name] = Timing(None, str(refusal))
    for worker in workers:
        worker.ask("drop")
        if worker.name not in timings:
            timings[worker.name] = Timing(statistics.median(medians[worker.name]))
    if not rates:
        return timings, None
    flops, bandwidth = map(statistics.median, zip(*rates, strict=True))
    needs = demand(case)
    return timings, Machine(threads, {needs.arithmetic: flops}, {math.ceil(needs.bytes): bandwidth}, OURS)


@contextmanager
def _silence() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    text = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    return f"refused: {text[:120]}"
