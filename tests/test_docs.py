"""Every piece of prose that shows code is run: README, docs, docstrings and the notebook."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import einstride

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if path.exists())
MODULES = sorted(
    ["einstride", *(found.name for found in pkgutil.walk_packages(einstride.__path__, "einstride."))],
)


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def run_page(text: str, name: str) -> int:
    """Run a page's python blocks in order, in one namespace; return how many there were."""
    names: dict[str, Any] = {"__name__": name}
    blocks = python_blocks(text)
    for number, block in enumerate(blocks):
        if block.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, names, f"{name}, block {number}", name, 0)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            report: list[str] = []
            assert runner.run(test, out=report.append, clear_globs=False).failed == 0, "".join(report)
            names.update(test.globs)
        else:
            exec(compile(block, f"{name}, block {number}", "exec"), names)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_page(page: Path) -> None:
    run_page(page.read_text(), page.name)


@pytest.mark.skipif(not PAGES, reason="the pages are in the source tree only")
def test_the_readme_has_five_examples() -> None:
    assert len(python_blocks((ROOT / "README.md").read_text())) >= 5


def test_a_page_that_is_wrong_fails() -> None:
    with pytest.raises(AssertionError):
        run_page("```python\n>>> 1 + 1\n3\n```\n", "wrong")
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "wrong")
    assert run_page("```python\nx = 2\n```\n```python\n>>> x\n2\n```\n```sh\nfalse\n```\n", "right") == 2


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_public_names_have_examples() -> None:
    finder = doctest.DocTestFinder(recurse=False)
    for name in einstride.__all__:
        public = getattr(einstride, name)
        if callable(public) and not (isinstance(public, type) and issubclass(public, Exception)):
            assert any(test.examples for test in finder.find(public, name)), f"{name} has no example"


@pytest.mark.skipif(not (ROOT / "docs" / "tour.ipynb").exists(), reason="the notebook is in the source tree only")
def test_notebook() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert sum(cell.cell_type == "code" for cell in notebook.cells) >= 10
