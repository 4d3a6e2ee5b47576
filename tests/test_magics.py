"""%explain and %%einstride in an IPython shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

interactiveshell = pytest.importorskip("IPython.core.interactiveshell")


@pytest.fixture(scope="module")
def shell() -> Iterator[Any]:
    main = sys.modules["__main__"]  # which a shell puts itself in the place of
    made = interactiveshell.InteractiveShell()
    sys.modules["__main__"] = main
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "einstride")
    yield made
    made.history_manager.end_session()


@pytest.fixture
def names(shell: Any) -> Iterator[dict[str, Any]]:
    shell.user_ns.update(np=np, einsum=np.einsum, a=np.ones((3, 4)), b=np.ones((4, 5), np.float32))
    yield shell.user_ns
    shell.reset(new_session=False)


def test_explain_takes_arrays_expressions_and_shapes(
    shell: Any, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell('%explain "ij, jk -> ik" a b')
    assert "(3, 4), (4, 5) -> (3, 5)  float64" in capsys.readouterr().out
    shell.run_cell("%explain ij,jk a.T 3x7")
    assert "(4, 3), (3, 7) -> (4, 7)" in capsys.readouterr().out
    shell.run_cell("%explain")
    assert "%explain" in capsys.readouterr().err
    shell.run_cell("%explain ij,jk a a")
    assert "ShapeError" in capsys.readouterr().out


def test_a_cell_runs_with_its_table_under_it(
    shell: Any, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    numpys = np.einsum
    shell.run_cell(
        "%%einstride --check\nmade = np.einsum('ij,jk->ik', a, b)\nfrom numpy import einsum as mine\neinsum('ij->j', a)"
    )
    out = capsys.readouterr().out
    assert "array([3., 3., 3., 3.])" in out.partition("einsum")[0]
    assert "ij,jk->ik" in out
    assert "2 calls of 2 kinds" in out
    assert "2 kinds checked against NumPy: all agree" in out
    assert np.array_equal(names["made"], np.full((3, 5), 4.0))
    assert np.einsum is names["einsum"] is names["mine"] is numpys


def test_a_cell_that_fails(shell: Any, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    numpys = np.einsum
    shell.run_cell("%%einstride --quiet\nnp.einsum('ij->j', a)\n1 / 0")
    out = capsys.readouterr().out
    assert "ZeroDivisionError" in out
    assert "calls of" not in out
    assert np.einsum is numpys
    shell.run_cell("%%einstride --loud\npass")
    assert "--check and --quiet" in capsys.readouterr().err
