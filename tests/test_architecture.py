"""The direction of imports, as DESIGN.md draws it, and what `import einstride` may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import einstride

SOURCE = Path(einstride.__file__).parent

# Each module of the package (a folder counts as one) and what it may import. A chain is written once: a module may
# import every earlier one of its chain, and the second chain all of the first.
FIRST = ("errors", "expression", "problem", "tree", "cost", "search")
SECOND = (
    "_core",
    "machine",
    "loop",
    "program",
    "kernels",
    "predict",
    "step",
    "arrange",
    "lower",
    "array",
    "run",
    "api",
    "attention",
    "bar",
)
PRESENTATION = ("explanation", "tour", "lint", "record", "bench", "cli", "magics", "__main__")
ROOT = "__init__"


def allowed(module: str) -> set[str]:
    """The modules that ``module`` may import when it is loaded."""
    if module in FIRST:
        return set(FIRST[: FIRST.index(module)])
    if module in SECOND:
        return {*FIRST, *SECOND[: SECOND.index(module)]}
    if module in PRESENTATION:
        return {*FIRST, *SECOND, *PRESENTATION[: PRESENTATION.index(module)]}
    return {*FIRST, *SECOND}


# Plans are explained by presentation, which is imported when that is asked for and not before.
# IPython's magics are loaded by IPython.
DEFERRED = {("api", "explanation"), ("__init__", "magics")}


@dataclass(frozen=True)
class Import:
    module: str  # who imports
    target: str  # what
    line: int
    deferred: bool  # inside a function
    typing: bool  # under `if TYPE_CHECKING:`


def imports(module: str, package: tuple[str, ...], source: str) -> Iterator[Import]:
    """The imports of one file that lies in ``package``, as top-level modules of einstride or of others."""

    def visit(node: ast.AST, deferred: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checking = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            for target in targets(child):
                yield Import(module, target, child.lineno, deferred, typing)  # type: ignore[attr-defined]
            yield from visit(child, inside, checking)

    def targets(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield own(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            here = list(package[: len(package) - node.level + 1]) if node.level else []
            path = [*here, *(node.module.split(".") if node.module else [])]
            if path == ["einstride"]:
                yield from (own([*path, alias.name]) for alias in node.names)
            else:
                yield own(path)

    def own(path: list[str]) -> str:
        return f"einstride.{path[1]}" if path[0] == "einstride" and len(path) > 1 else path[0]

    yield from visit(ast.parse(source), False, False)


def wrong(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    where = f"{found.module}, line {found.line}"
    if not found.target.startswith("einstride"):
        known = found.target in sys.stdlib_module_names or found.target == "numpy"
        optional = found.deferred or found.typing
        return None if known or optional else f"{where}: imports {found.target} when it is loaded"
    target = found.target.removeprefix("einstride.")
    if found.target == "einstride":
        return None if found.module in PRESENTATION else f"{where}: imports the whole package"
    if target == found.module or target in allowed(found.module) or found.typing:
        return None
    if found.deferred and (found.module, target) in DEFERRED:
        return None
    return f"{where}: {found.module} may not import {target}"


def all_imports() -> Iterator[Import]:
    for path in sorted(SOURCE.rglob("*.py")):
        inner = path.relative_to(SOURCE).with_suffix("").parts
        package = ("einstride", *inner[:-1])
        yield from imports(inner[0], package, path.read_text())


def test_imports_go_one_way() -> None:
    assert [message for found in all_imports() if (message := wrong(found))] == []


def test_every_module_has_its_place() -> None:
    modules = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert modules <= {*FIRST, *SECOND, *PRESENTATION, ROOT, "__main__"}


def test_a_wrong_import_is_seen() -> None:
    def messages(module: str, source: str, *, package: tuple[str, ...] = ("einstride",)) -> list[str]:
        return [message for found in imports(module, package, source) if (message := wrong(found))]

    assert messages("tree", "from .problem import Problem") == []
    assert messages("tree", "from .cost import Cost") == ["tree, line 1: tree may not import cost"]
    assert messages("tree", "from . import cost") == ["tree, line 1: tree may not import cost"]
    assert messages("tree", "import einstride.cost") == ["tree, line 1: tree may not import cost"]
    assert messages("tree", "from einstride import cost") == ["tree, line 1: tree may not import cost"]
    assert messages("search", "from ..api import plan", package=("einstride", "search")) != []
    assert messages("search", "from .greedy import run", package=("einstride", "search")) == []
    assert messages("api", "from .explanation import text") != []
    assert messages("api", "def explain():\n    from .explanation import text") == []
    assert messages("api", "if TYPE_CHECKING:\n    from .explanation import text") == []
    assert messages("lower", "def lower():\n    from .explanation import text") != []
    assert messages("cost", "import torch") == ["cost, line 1: imports torch when it is loaded"]
    assert messages("cost", "import numpy as np\nimport math") == []


def test_importing_loads_no_other_array_library() -> None:
    program = "import numpy, sys; before = set(sys.modules); import einstride; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    packages = {name.partition(".")[0] for name in loaded}
    assert "einstride" in packages
    assert packages <= {"einstride", "numpy", *sys.stdlib_module_names}
    assert not {f"einstride.{name}" for name in PRESENTATION} & set(loaded)
