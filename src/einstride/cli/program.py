"""A Python program run in this process as Python itself would have run it."""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import runpy
import sys
import traceback
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .. import record

Start = Callable[[], object]


def outcome(start: Start) -> int:
    """Run a program to its end: its exit status, the traceback of an exception printed as Python prints it."""
    try:
        start()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:
        _leave_out_ours(error)
        sys.excepthook(type(error), error, error.__traceback__)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def file(path: str, arguments: Sequence[str]) -> Start:
    """A script, a notebook, or a folder or archive with a ``__main__.py``.

    Raises:
        OSError: it cannot be read.
    """
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        sys.argv[:] = [path, *arguments]
        _first_on_path(os.path.abspath(path))
        return _as_main("__main__", name_in_argv=False)
    source = Path(path).read_bytes()
    sys.argv[:] = [path, *arguments]
    _first_on_path(os.path.dirname(os.path.realpath(path)))
    if path.endswith(".ipynb"):
        return _notebook(path, source)
    absolute = os.path.join(os.getcwd(), path)

    def start() -> None:
        main = _fresh_main()
        main.__dict__.update(__file__=absolute, __cached__=None, __loader__=SourceFileLoader("__main__", absolute))
        exec(compile(source, absolute, "exec", dont_inherit=True), main.__dict__)

    return start


def module(name: str, *arguments: str) -> Start:
    """A module, as ``python -m`` runs it."""
    sys.argv[:] = ["-m", *arguments]
    _first_on_path(os.getcwd())
    return _as_main(name, name_in_argv=True)


def _as_main(name: str, name_in_argv: bool) -> Start:
    def start() -> None:
        _fresh_main()
        # The very function that python -m calls; the public run_module restores __main__ before exit handlers run.
        runpy._run_module_as_main(name, name_in_argv)  # type: ignore[attr-defined]

    return start


def _notebook(path: str, source: bytes) -> Start:
    """The notebook's code cells in order, in one namespace and in its folder, where Jupyter runs them too."""
    cells = [
        (number, "".join(cell["source"]))
        for number, cell in enumerate(json.loads(source).get("cells", ()), 1)
        if cell["cell_type"] == "code"
    ]
    name = os.path.basename(path)

    def start() -> None:
        os.chdir(os.path.dirname(os.path.realpath(path)))
        # Before Python 3.13 the hook of its own looks for source lines in files only.
        sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, trace)
        main = _fresh_main()
        shell = _shell(main)
        with shell.builtin_trap if shell else nullcontext():
            for number, text in cells:
                _run_cell(f"{name}[{number}]", shell.transform_cell(text) if shell else text, main, bool(shell))

    return start


def _shell(main: ModuleType) -> Any:
    if find_spec("IPython") is None:
        return None
    from IPython.core.interactiveshell import InteractiveShell

    return InteractiveShell.instance(user_module=main, user_ns=main.__dict__)


def _run_cell(name: str, text: str, main: ModuleType, has_magics: bool) -> None:
    lines = text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)  # for tracebacks
    try:
        tree = ast.parse(text, name)
    except SyntaxError:
        if not has_magics and any(line.lstrip().startswith(("%", "!")) for line in lines):
            raise SystemExit(
                f'{name}: magics and shell lines need IPython: pip install "einstride[notebook]"'
            ) from None
        raise
    # The value of a last expression is shown.
    last = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
    for part, mode in ((tree, "exec"), (ast.Interactive(last), "single")):
        exec(compile(part, name, mode, dont_inherit=True), main.__dict__)


def _first_on_path(folder: str) -> None:
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder


def _fresh_main() -> ModuleType:
    """A new ``__main__``, there until the interpreter ends."""
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})
    sys.modules["__main__"] = main
    return main


def _leave_out_ours(error: BaseException | None) -> None:
    """Take the frames of this command out of an exception's traceback, and out of those it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = _foreign(error.__traceback__)
        if error.__cause__ is not None and error.__context__ is not error.__cause__:
            _leave_out_ours(error.__context__)
        error = error.__cause__ or error.__context__


def _foreign(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this command."""
    ours = (__file__, record.__file__)
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    at = trace
    while at is not None:
        while at.tb_next is not None and at.tb_next.tb_frame.f_code.co_filename in ours:
            at.tb_next = at.tb_next.tb_next
        at = at.tb_next
    return trace
