"""Processors without AVX-512 and without AVX2, emulated: a level that is forced on a better one proves less, for what
the processor has not may still run."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import textwrap

import pytest

EMULATOR = shutil.which("qemu-x86_64")

PROGRAM = """
    import numpy as np
    import einstride
    from einstride import _core
    from einstride.kernels import KERNELS

    # Batches along adjacent lanes, too: wide vectors leave some of them to those of a narrower level.
    calls = ["ij,jk->ik", "ij,kj->ki", "ika,kja->ija", "aik,akj->aij", "i,i,ij->j", "ij->ji", "ij->j", "ii->i"]
    random = np.random.default_rng(0)
    ran = set()
    for dtype in "?bBhHiIlLefdFD":
        for extent in (3, 5, 9, 20, 37):
            for subscripts in calls:
                inputs = subscripts.split("->")[0].split(",")
                operands = [
                    random.integers(0, 3, [8 if label == "k" else extent for label in term]).astype(dtype)
                    for term in inputs
                ]
                result = einstride.einsum(subscripts, *operands)
                assert np.array_equal(result, np.einsum(subscripts, *operands)), (subscripts, dtype, extent)
                ran.update(einstride.plan(subscripts, *operands).program.kernels)
    assert ran == {kernel.id for kernel in KERNELS}, ran
    q, k, v = random.normal(size=(3, 40, 17))
    weights = np.exp(q @ k.T / np.sqrt(17))
    expected = weights @ v / weights.sum(1, keepdims=True)
    # An exponential errs as its score does, relatively; two sums of at most 40 numbers on either side.
    score = (abs(q) @ abs(k).T).max() / np.sqrt(17)
    relative = 4 * np.finfo(float).eps * ((40 + 4) * (score + 1) + 40)
    result = einstride.attend("qd,kd,ke->qe", q, k, v, over="k")
    assert (abs(result - expected) <= 2 * relative * abs(v).max()).all()
    print(_core.level_name(), *_core.levels())
"""


@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-user on x86-64")
@pytest.mark.parametrize(("processor", "levels"), [("Haswell", "avx2 avx2 portable"), ("Nehalem", "portable portable")])
def test_every_kernel(processor: str, levels: str) -> None:
    command = [str(EMULATOR), "-cpu", processor, sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == levels
