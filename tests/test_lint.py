"""Lint: each fixture marks its findings with carets in comments; and files, notebooks, formats and exit statuses."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einstride import cli
from einstride.cli.lint import write_github, write_json, write_text
from einstride.lint import RULES, Finding, findings, read
from einstride.lint.source import from_notebook, from_text

FIXTURES = sorted(Path(__file__).with_name("lint").glob("*.py"))
MARK = re.compile(r"^\s*#\s*(\^+) ([EW]\d) (.*)$")
WRONG = 'import numpy as np\nnp.einsum("i->q", a)\n'
SUSPECT = 'import numpy as np\nnp.einsum("ba", a)\n'
FINE = 'import numpy as np\nnp.einsum("ab", a)\n'


def marked(text: str) -> list[tuple[int, int, int, str, str]]:
    """Line, columns, code and message of the findings that comments below the lines promise."""
    found = []
    code_line = 0
    for number, line in enumerate(text.split("\n"), 1):
        mark = MARK.match(line)
        if mark is None:
            code_line = number
        else:
            found.append((code_line, mark.start(1) + 1, mark.end(1) + 1, mark[2], mark[3]))
    return found


def reported(found: list[Finding]) -> list[tuple[int, int, int, str, str]]:
    return [(one.line, one.column, one.end_column, one.code, one.message) for one in found]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: str(fixture.stem))
def test_findings_are_where_the_fixture_marks_them(fixture: Path) -> None:
    expected = marked(fixture.read_text(encoding="utf-8"))
    assert expected
    assert reported(findings(read(fixture))) == expected


def test_every_code_has_a_fixture_that_is_about_it() -> None:
    for code in RULES:
        [fixture] = [fixture for fixture in FIXTURES if fixture.stem == code]
        assert {found.code for found in findings(read(fixture))} == {code}


def test_a_text_without_einsum_is_not_parsed() -> None:
    assert findings(from_text("not python at all")) == []


def notebook(*cells: tuple[str, str]) -> str:
    return json.dumps({"cells": [{"cell_type": kind, "source": text.splitlines(True)} for kind, text in cells]})


def test_a_notebook_is_one_source_with_places_of_its_own() -> None:
    text = notebook(
        ("markdown", "np.einsum('i->q', a)"),
        ("code", "%matplotlib inline\nimport numpy as np\n!ls\nnp.einsum?"),
        ("code", "files = !ls"),
        ("code", "%%bash\nnp.einsum('i->q', a)"),
        ("code", "b = (7\n  %a)\nls = !ls\nnp.einsum('i->q', a"),
        ("code", "%%time\nx = 1\nnp.einsum('i->q', a)"),
    )
    [found] = findings(from_notebook(text, "book.ipynb"))
    assert (found.cell, found.line, found.column, found.code) == (6, 3, 15, "E3")
    assert found.place == "book.ipynb:cell 6:3:15"


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("b = (7\n  %a)\nnp.einsum('i->q', a)", 3),  # no magic, for it is Python as it is
        ("%matplotlib inline\nfiles = !ls\nnp.einsum('i->q', a)\nnp.einsum?", 3),
        ("if True:\n    %pwd\nnp.einsum('i->q', a)", 3),
        ("%%timeit -n 1\nnp.einsum('i->q', a)", 2),
    ],
)
def test_magics_are_no_hindrance(cell: str, line: int) -> None:
    [found] = findings(from_notebook(notebook(("code", "import numpy as np"), ("code", cell))))
    assert (found.cell, found.line) == (2, line)


CHAINS = (Path(__file__).with_name("lint") / "W4.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("function", "count"), [("nested", 3), ("named", 3), ("three", 4), ("in_jax", 3)])
def test_a_merged_chain_is_the_chain(function: str, count: int) -> None:
    """The fixture's functions, run, against the subscripts that lint would have instead."""
    start = CHAINS.index(f"def {function}(")
    code = CHAINS[start : CHAINS.find("\n\n\n", start)]
    names: dict[str, Any] = {"np": np, "jnp": np}
    exec(code, names)
    rng = np.random.default_rng(0)
    operands = [*(rng.integers(-9, 9, (4, 4)) for _ in range(count - 1)), rng.integers(-9, 9, 4)]
    merged = re.search(r"as one: `(.*?)`", code)
    assert merged is not None
    shift = 3 if function == "named" else 0  # what the function adds besides
    assert (names[function](*operands) == np.einsum(merged[1], *operands) + shift).all()


def test_the_text_of_a_finding_in_a_notebook() -> None:
    [found] = findings(from_notebook(notebook(("code", "import numpy as np\nnp.einsum('i->q', a)"))))
    assert found.text == "np.einsum('i->q', a)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}'])
def test_what_is_no_notebook_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_notebook(text)


@pytest.mark.parametrize(
    ("files", "options", "status"),
    [
        ({"a.py": FINE}, [], 0),
        ({"a.py": SUSPECT}, [], 0),
        ({"a.py": SUSPECT}, ["--strict"], 1),
        ({"a.py": WRONG}, [], 1),
        ({"a.py": FINE, "deeper/b.py": WRONG}, [], 1),
        ({".hidden/b.py": WRONG, "a.txt": WRONG}, [], 0),
        ({"a.ipynb": notebook(("code", WRONG))}, [], 1),
        ({"a.ipynb": "no notebook", "b.py": WRONG}, [], 2),
        ({"a.py": "einsum ("}, [], 2),
        ({"a.py": "# coding: nonsense\n"}, [], 2),
    ],
)
def test_the_exit_status(files: dict[str, str], options: list[str], status: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cli.main(["lint", *options, str(tmp_path)]) == status


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.py"
    assert cli.main(["lint", str(missing)]) == 2
    assert f"{missing} cannot be read" in capsys.readouterr().err


def test_text_is_the_place_the_message_and_the_line_with_a_caret() -> None:
    stream = io.StringIO()
    write_text(findings(from_text(WRONG + SUSPECT, "a.py")), stream)
    assert stream.getvalue() == (
        "a.py:2:15: E3 output label `q` is in no operand; did you mean `i`?\n"
        '  np.einsum("i->q", a)\n'
        "                ^\n"
        "a.py:4:11: W2 the output, left out, is `ab`, sorted; write it, if it is meant, or else `ba`\n"
        '  np.einsum("ba", a)\n'
        "            ^^^^\n"
        "1 error, 1 warning\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_same_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, terminal = io.StringIO(), Terminal()
    found = findings(from_text(WRONG, "a" * 200 + "[b].py"))
    write_text(found, plain)
    write_text(found, terminal)
    assert terminal.getvalue() != plain.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()) == plain.getvalue()


def test_json_has_every_field() -> None:
    stream = io.StringIO()
    write_json(findings(from_text(WRONG, "a.py")), stream)
    [found] = json.loads(stream.getvalue())
    assert found == {
        "path": "a.py",
        "cell": None,
        "line": 2,
        "column": 15,
        "end_column": 16,
        "code": "E3",
        "severity": "error",
        "message": "output label `q` is in no operand; did you mean `i`?",
        "text": 'np.einsum("i->q", a)',
    }


def test_github_gets_annotations() -> None:
    stream = io.StringIO()
    write_github(findings(from_text('import numpy\nnumpy.einsum("%", a)', "a,b.py")), stream)
    write_github(findings(from_notebook(notebook(("code", WRONG)), "a.ipynb")), stream)
    assert stream.getvalue().splitlines() == [
        "::error file=a%2Cb.py,line=2,col=15,endColumn=16,title=einstride E1::'%25' at position 0, in the term of "
        "operand 0, is not a label; labels are letters",
        "::error file=a.ipynb,line=1,title=einstride E3::cell 1, line 2: output label `q` is in no operand; "
        "did you mean `i`?",
    ]


@pytest.mark.parametrize(
    ("package", "codes"), [("opt_einsum", {"W1", "W2"}), ("einops", set()), ("scipy.linalg", set())]
)
def test_a_correct_package_has_no_errors(package: str, codes: set[str]) -> None:
    """Their own code, and tests that expect what they do."""
    module: Any = pytest.importorskip(package)
    found = [one for path in sorted(Path(module.__file__).parent.rglob("*.py")) for one in findings(read(path))]
    assert {one.code for one in found} <= codes
