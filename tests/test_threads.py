"""Threads, signals, forks and failing allocations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import einstride
from einstride import einsum

posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks are POSIX's")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Three threads, whatever the machine has; as before afterwards."""
    before = einstride.num_threads()
    einstride.set_num_threads(3)
    yield
    einstride.set_num_threads(before)


def run_python(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own, which may spoil its process."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def long_product() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Operands whose product takes seconds."""
    return np.ones((3000, 12000)), np.ones((12000, 6000))


def test_counts() -> None:
    for count in (1, 2, 5):
        einstride.set_num_threads(count)
        assert einstride.num_threads() == count
    with pytest.raises(ValueError, match="at least 1"):
        einstride.set_num_threads(0)


@pytest.mark.parametrize(("setting", "count"), [("2", 2), ("3,2", 3), ("0", None), ("many", None)])
def test_omp_num_threads(setting: str, count: int | None) -> None:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    done = run_python("import einstride; print(einstride.num_threads())", OMP_NUM_THREADS=setting)
    assert int(done.stdout) == (usable if count is None else count)


def test_two_callers_at_once() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 300, 300))
    want = einsum("ij,jk->ik", a, b)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(30):
            if not np.array_equal(einsum("ij,jk->ik", a, b), want):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_table_may_be_emptied_while_programs_run() -> None:
    a = np.random.default_rng(2).standard_normal((400, 400))
    want = einsum("ij,jk->ik", a, a)
    stop = threading.Event()

    def forget() -> None:
        while not stop.is_set():
            einstride._core.forget()

    forgetful = threading.Thread(target=forget)
    forgetful.start()
    try:
        for _ in range(50):
            assert np.array_equal(einsum("ij,jk->ik", a, a), want)
    finally:
        stop.set()
        forgetful.join()


def test_other_python_threads_run_meanwhile() -> None:
    a = np.ones((1000, 1000))
    einsum("ij,jk->ik", a, a)
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    before = ticks
    for _ in range(10):
        einsum("ij,jk->ik", a, a)
    after = ticks
    done.set()
    ticker.join()
    assert after > before


@posix
@pytest.mark.parametrize("threads_used", [1, 3])
def test_ctrl_c_stops_long_work(threads_used: int) -> None:
    # The bar is 0.3 s. Waking the process up is not the engine's; a machine under load gets twice that.
    einstride.set_num_threads(threads_used)
    a, b = long_product()
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.2, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        einsum("ij,jk->ik", a, b)
    assert time.perf_counter() - sent < 0.6
    timer.join()
    assert np.array_equal(einsum("ij,jk->ik", np.eye(500), np.ones((500, 2))), np.ones((500, 2)))


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_use() -> None:
    a = np.random.default_rng(3).standard_normal((500, 500))
    want = einsum("ij,jk->ik", a, a)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(einsum("ij,jk->ik", a, a), want) else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(einsum("ij,jk->ik", a, a), want)


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_another_thread_computes() -> None:
    a = np.random.default_rng(4).standard_normal((500, 500))
    want = einsum("ij,jk->ik", a, a)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            einsum("ij,jk->ik", a, a)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(einsum("ij,jk->ik", a, a), want) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        worker.join()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
def test_memory_error() -> None:
    done = run_python(
        """
        import resource
        import numpy as np
        from einstride import einsum
        small = np.ones((300, 300))
        einsum("ij,jk->ik", small, small)
        x = np.ones(30_000)
        einsum("i->i", x)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                einsum("i,j->ij", x, x)
            except MemoryError:
                print("MemoryError")
        print(einsum("ij,jk->ik", small, small)[0, 0])
        """
    )
    assert done.stdout.split() == ["MemoryError"] * 3 + ["300.0"], done.stderr


def test_exit_with_threads_that_sleep_and_calls_remembered() -> None:
    done = run_python(
        """
        import numpy as np
        import einstride
        einstride.set_num_threads(4)
        a = np.ones((600, 600))
        kept = [einstride.einsum("ij,jk->ik", a, a) for _ in range(3)]
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
