"""`einstride run`: the program notices nothing, and its einsum calls are accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einstride

COMMAND = "import sys; from einstride.cli import main; sys.exit(main())"
PATHS = [str(Path(einstride.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]


def python(*arguments: object, folder: Path, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder; what is installed for this process is installed for that one."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "COLUMNS": "80", **environment},
        timeout=120,
    )


def run(*arguments: object, folder: Path, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-c", COMMAND, "run", *arguments, folder=folder, text=text, **environment)


def account(*arguments: object, folder: Path) -> dict[str, Any]:
    """What --json says about a program that succeeds."""
    ended = run("--quiet", "--json", "calls.json", *arguments, folder=folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    found: dict[str, Any] = json.loads((folder / "calls.json").read_text())
    return found


# Each prints, fails or ends in another way; every one is run with Python and with `einstride run`.
PROGRAMS = {
    "what it can see of itself": """
        import sys, os
        print(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__, __doc__, __builtins__.__name__)
        print(sorted(globals()), type(__loader__).__name__, sys.modules["__main__"].__dict__ is globals())
        """,
    "standard input": "print(input() + sys.stdin.read()) if (sys := __import__('sys')) else 0",
    "an exception": """
        def fail(depth):
            return 1 / depth or fail(depth - 1)
        fail(0)
        """,
    "NumPy's own error": """
        import numpy as np
        def inner():
            np.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((4, 5)))
        inner()
        """,
    "a chain of exceptions": """
        import numpy as np
        try:
            try:
                np.einsum("ij->k", np.ones((2, 3)))
            finally:
                {}["missing"]
        except KeyError as error:
            raise RuntimeError("at last") from error
        """,
    "an error that is caught": """
        import numpy as np
        for arguments in [("ij", np.ones(3)), ("i->ii", np.ones(3)), ("é", np.ones(3)), (), (np.ones(2), [0], 7)]:
            try:
                print(np.einsum(*arguments))
            except Exception as error:
                print(type(error), error, error.__cause__, error.__context__)
        """,
    "options that NumPy lacks": """
        import numpy as np
        np.einsum("i->", np.ones(3), memory=100)
        """,
    "a syntax error": "print(1)\nif True print(2)\n",
    "sys.exit()": "import sys; sys.exit()",
    "sys.exit(3)": "import sys; sys.exit(3)",
    "sys.exit(True)": "import sys; sys.exit(True)",
    "sys.exit('text')": "import sys; print('out'); sys.exit('to stderr')",
    "sys.exit of an object": "import sys; sys.exit([1, 2])",
    "a hook of its own": "import sys; sys.excepthook = lambda *e: print('hook', e[0], e[2].tb_lineno); 1 / 0",
    "warnings": """
        import warnings, numpy as np
        warnings.warn("here"); warnings.warn("old", DeprecationWarning)
        def f(): warnings.warn("caller", stacklevel=2)
        f()
        np.einsum("i->i", np.ones(2, complex), dtype=float, casting="unsafe")
        """,
    "exit handlers and threads": """
        import atexit, threading, time, concurrent.futures
        atexit.register(print, "handler")
        def late(): time.sleep(0.2); print("thread")
        threading.Thread(target=late).start()
        pool = concurrent.futures.ThreadPoolExecutor(2)
        pool.submit(late)
        print("end")
        """,
    "an exit handler that uses the program": """
        import atexit
        value = "still there"
        @atexit.register
        def show(): print(value, __name__)
        """,
    "a subclass takes over": """
        import numpy as np
        class Mine:
            def __array_function__(self, func, types, args, kwargs):
                return func is np.einsum, args[0], sorted(kwargs)
        print(np.einsum("i->", Mine()), np.einsum("i->", np.ones(2), out=Mine()))
        """,
    "what einsum says of itself": """
        import inspect, pickle
        import numpy as np
        from numpy import einsum
        print(einsum is np.einsum, einsum.__name__, einsum.__module__, len(einsum.__doc__), inspect.signature(einsum))
        print(pickle.loads(pickle.dumps(einsum)) is einsum, repr(einsum)[:16])
        """,
    "results of every kind": """
        import numpy as np
        a = np.arange(12).reshape(3, 4)
        for r in [np.einsum("ij->ji", a), np.einsum("ij->", a), np.einsum(a, [0, 1], [1]),
                  np.einsum("i,i", [1, 2], [3, 4.5]),
                  np.einsum("i,i->", a[0], a[1], optimize=True), np.einsum("ij,jk", a, a.T), np.einsum("...j->...", a),
                  np.einsum("i->", np.array([1, 2], object)), np.einsum("i->", np.ones(3, np.longdouble)),
                  np.einsum("i,i->", np.ones(2, "m8[s]").view("i8"), [1, 2]),
                  np.einsum("ii->i", np.eye(3)).flags.writeable,
                  np.einsum("ij,j->i", a, a[0], out=np.empty(3)), np.einsum("i->", np.matrix([[1, 2]]).A1),
                  np.einsum("ij->i", a, dtype="f4"), np.einsum(np.ma.array([1, 2], mask=[0, 1]), [0], [])]:
            print(type(r), getattr(r, "dtype", ""), r)
        """,
}


def write(folder: Path, source: str, name: str = "program.py") -> Path:
    lines = source.splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    path = folder / name
    path.write_text("\n".join(line[indent:] for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_the_program_notices_nothing(source: str, tmp_path: Path) -> None:
    write(tmp_path, source)
    arguments = ("program.py", "-m", "--check", "two words")
    plain = python(*arguments, folder=tmp_path, text="typed\nlines\n")
    ours = run("--quiet", *arguments, folder=tmp_path, text="typed\nlines\n")
    assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, plain.stderr, plain.returncode)


def test_paths_to_a_script(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "import sys, beside; print(sys.argv, sys.path[0], __file__); 1 / 0")
    write(tmp_path / "sub", "print('imported')", "beside.py")
    write(tmp_path / "sub", "import sys; print(sys.argv, sys.path[0], __file__, __spec__.name)", "__main__.py")
    (tmp_path / "link.py").symlink_to(tmp_path / "sub" / "program.py")
    for path in ("sub/program.py", "./sub/../sub/program.py", tmp_path / "sub" / "program.py", "link.py", "sub"):
        plain, ours = python(path, "x", folder=tmp_path), run("--quiet", path, "x", folder=tmp_path)
        assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, plain.stderr, plain.returncode)


def test_modules(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    write(tmp_path / "package", "print('package')", "__init__.py")
    write(
        tmp_path / "package",
        "import sys; print(sys.argv, sys.path[0], __file__, __spec__.name, __package__); 1 / 0",
        "part.py",
    )
    for arguments in (("package.part", "--help", "-m"), ("package",), ("missing",), ("package.missing",)):
        plain, ours = python("-m", *arguments, folder=tmp_path), run("--quiet", "-m", *arguments, folder=tmp_path)
        assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, plain.stderr, plain.returncode)


CALLS = """
    import numpy as np
    from numpy import einsum
    a, b = np.ones((20, 30)), np.ones((30, 40), np.float32)
    for _ in range(5):
        c = einsum("ij,jk -> ik", a, b)
    for n in (2, 3):
        np.einsum(np.ones((n, n)), [7, 7], optimize=True)
    np.einsum("ij->ji", a)
    np.einsum("i->", np.array([1, 2], object))
    try:
        np.einsum("ij,jk", a, a)
    except ValueError:
        pass
    out = np.empty((20, 40))
    assert np.einsum("ij,jk->ik", a, b, out=out) is out
    """


def test_the_account(tmp_path: Path) -> None:
    path = write(tmp_path, CALLS)
    found = account("--check", path, "argument", folder=tmp_path)
    assert found["program"] == [str(path), "argument"]
    assert found["exit_status"] == 0
    assert found["versions"]["numpy"] == np.__version__
    calls = sorted(found["calls"], key=lambda call: (call["line"], call["shapes"]))
    assert [call["line"] for call in calls] == [6, 8, 8, 9, 10, 12, 16]
    assert all(call["file"] == str(path) for call in calls)
    product, trace, _, view, objects, wrong, filled = calls
    assert (product["subscripts"], product["count"]) == ("ij,jk->ik", 5)
    assert product["shapes"] == [[20, 30], [30, 40]]
    assert product["dtypes"] == ["float64", "float32"]
    assert product["flops"] == 2 * 20 * 30 * 40
    assert len(product["numpy_samples"]) == 3  # of the 1st, 2nd and 4th call
    assert all(call["seconds"] > 0 for call in calls)
    assert trace["shapes"] == [[2, 2]]
    assert view["kernel"] == "view"
    assert objects["kernel"] == wrong["kernel"] == "numpy"
    assert "objects" in objects["refused"]
    assert "20" in wrong["refused"]
    assert "30" in wrong["refused"]
    assert filled["refused"] == ""
    assert [call["check"] for call in calls] == ["", "", "", "", None, None, ""]


def test_the_table(tmp_path: Path) -> None:
    write(tmp_path, CALLS)
    ended = run("--check", "program.py", folder=tmp_path)
    assert ended.returncode == 0
    assert max(map(len, ended.stderr.splitlines())) <= 80
    for text in ("ij,jk->ik", "20x30 float64, 30x40 float32", "program.py:6", "48 k", "view", "11 calls of 7 kinds"):
        assert text in ended.stderr
    assert "5 kinds checked against NumPy: all agree" in ended.stderr
    assert "\x1b" not in ended.stderr


def test_a_program_without_einsum(tmp_path: Path) -> None:
    write(tmp_path, "print('nothing')")
    ended = run("program.py", folder=tmp_path)
    assert (ended.stdout, ended.stderr) == ("nothing\n", "einstride: the program called no einsum\n")


BROKEN = """
    import einstride.record as record, numpy as np, sys
    ours = record.einsum
    record.einsum = lambda *operands, **options: ours(*operands, **options) * (1 + 1e-9)
    np.einsum("ij,jk->ik", np.ones((9, 9)), np.ones((9, 9)))
    sys.exit({status})
    """


@pytest.mark.parametrize(("status", "expected"), [(0, 1), (3, 3)])
def test_a_wrong_result_is_found(status: int, expected: int, tmp_path: Path) -> None:
    write(tmp_path, BROKEN.format(status=status))
    ended = run("--check", "program.py", folder=tmp_path)
    assert ended.returncode == expected
    assert "81 of 81 entries differ" in " ".join(ended.stderr.split())
    assert run("program.py", folder=tmp_path).returncode == status


def test_opt_einsum(tmp_path: Path) -> None:
    pytest.importorskip("opt_einsum")
    path = write(
        tmp_path,
        """
        import numpy as np, sys
        import importlib.util
        importlib.util.find_spec("opt_einsum")  # looking is not importing
        import opt_einsum as oe
        from opt_einsum import contract
        assert contract is oe.contract
        a = np.ones((3, 4))
        print(type(contract("ij,ij->", a, a)), contract("ij,jk,kl->il", a, a.T, a), contract("ij->ji", a).shape)
        print(oe.contract_expression("ij,jk->ik", (3, 4), (4, 5))(a, np.ones((4, 5))))
        print(oe.contract_path("ij,jk", a, a.T)[0])
        print(contract("ij,jk->ik", a, a.T, optimize=[(0, 1)], memory_limit=100))
        with oe.shared_intermediates() as kept:
            contract("ij,jk->ik", a, a.T)
        print(len(kept))
        contract("λμ,μж->λж", a, a.T)
        try:
            contract("ij,jk", a, a)
        except Exception as error:
            print(type(error), error)
        """,
    )
    plain = python(path, folder=tmp_path)
    ours = run("--quiet", path, folder=tmp_path)
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)
    assert ours.returncode == plain.returncode == 0
    found = {(call["subscripts"], call["line"]): call for call in account("--check", path, folder=tmp_path)["calls"]}
    assert found["λμ,μж->λж", 16]["check"] == ""
    assert found["ij,jk,kl->il", 9]["refused"] == ""
    assert found["ij,jk", 18]["kernel"] == "opt_einsum"


def test_numpy_gets_its_einsum_back(tmp_path: Path) -> None:
    from einstride.record import Recorder

    before = np.einsum
    recorder = Recorder()
    with recorder.serving():
        kept = np.einsum
        assert kept is not before
        kept("i->", np.ones(3))
    assert np.einsum is before
    assert kept("i->", np.ones(3)) == 3  # and is no longer counted
    assert sum(row.count for row in recorder.rows) == 1


def test_ctrl_c(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import numpy as np
        a = np.ones((3000, 3000))
        print("go", flush=True)
        while True:
            np.einsum("ij,jk->ik", a, a)
        """,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "KeyboardInterrupt" in printed
    assert "record.py" not in printed
    assert "ij,jk->ik" in printed.partition("KeyboardInterrupt\n")[2]


def test_a_forked_child_gives_no_account(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    write(
        tmp_path,
        """
        import os, numpy as np
        np.einsum("i->", np.ones(3))
        if os.fork():
            os.wait()
            np.einsum("i->", np.ones(4))
        """,
    )
    ended = run("program.py", folder=tmp_path)
    assert ended.stderr.count("calls of") == 1
    assert "2 calls of 2 kinds" in ended.stderr


def notebook(folder: Path, *cells: str) -> Path:
    path = folder / "book.ipynb"
    found = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# A"]}, *found], "nbformat": 4}))
    return path


def test_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.txt").write_text("beside")
    book = notebook(
        tmp_path / "sub",
        "import numpy as np, sys\na = np.ones((3, 4))",
        "print(open('data.txt').read(), sys.argv)\nnp.einsum('ij->j', a)",
        "import json\nx = 1 / (a[0, 0] - 1)",
    )
    ended = run(book, "word", folder=tmp_path)
    assert ended.returncode == 0
    assert ended.stdout == f"beside {[str(book), 'word']}\narray([3., 3., 3., 3.])\n"
    assert "book.ipynb[3]:2" in ended.stderr
    book = notebook(tmp_path, "def f():\n    return {}['key']", "f()", "print('not reached')")
    ended = run("--quiet", book, folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (
        'Traceback (most recent call last):\n  File "book.ipynb[3]", line 1, in <module>\n    f()\n'
        "  File \"book.ipynb[2]\", line 2, in f\n    return {}['key']\n           ~~^^^^^^^\nKeyError: 'key'\n"
    ) or sys.version_info[:2] != (3, 11)


def test_magics_in_a_notebook(tmp_path: Path) -> None:
    book = notebook(tmp_path, "%time x = 1\n!echo from the shell", "x + 1")
    hide = tmp_path / "hidden"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'IPython' else find(name, *a)\n"
    )
    ended = run("--quiet", book, folder=tmp_path, PYTHONPATH=os.pathsep.join([str(hide), *PATHS]))
    assert ended.returncode == 1
    assert ended.stderr == 'book.ipynb[2]: magics and shell lines need IPython: pip install "einstride[notebook]"\n'
    pytest.importorskip("IPython")
    ended = run("--quiet", book, folder=tmp_path, IPYTHONDIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "from the shell\n" in ended.stdout
    assert ended.stdout.endswith("2\n")


@pytest.mark.parametrize("arguments", [(), ("missing.py",), ("--json",), ("--json", "no/such/folder/x.json", "ok.py")])
def test_a_wrong_command_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, "print('ran')", "ok.py")
    ended = run(*arguments, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert "einstride" in ended.stderr
