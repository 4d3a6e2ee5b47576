"""NumPy's own einsum tests pass with einstride in numpy.einsum's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conformance.run_numpy_suite import EXCEPTED


def test_numpy_suite() -> None:
    """In a process of its own, for it replaces numpy.einsum."""
    script = Path(__file__).with_name("run_numpy_suite.py")
    finished = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " passed" in finished.stdout


def test_at_most_three_exceptions() -> None:
    assert len(EXCEPTED) <= 3
