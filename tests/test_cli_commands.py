"""The `einstride` command: what it says, its help, and its errors."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

import einstride
from einstride import _core, cli
from einstride.cli import explain, info


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert len(text) > 250


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert all(f"\n    {command} " in listed for command in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"einstride {info.version()}\n"


def test_the_parser_loads_no_extra() -> None:
    program = (
        "import sys; from einstride import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{'rich', 'IPython', 'multiprocessing', 'torch', 'jax'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == ""


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "bqm,bkm->bqk", "32x64x512", "32x128x512", "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    assert "(32, 64, 512), (32, 128, 512) -> (32, 64, 128)  float32" in out
    assert cli.main(["explain", "ij,,->ij", "3x4", "0d", "()"]) == 0
    assert "(3, 4), (), ()" in capsys.readouterr().out


def test_explain_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "product.html"
    assert cli.main(["explain", "ij,jk->ik", "3x4", "4x5", "--html", str(page)]) == 0
    assert capsys.readouterr().out == ""
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli.main(["explain", "ij", "3x4", "--html", str(tmp_path / "none" / "x.html")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_python_runs_the_package_as_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "einstride", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"einstride {info.version()}\n"


@pytest.mark.parametrize(
    ("subscripts", "shapes", "options"),
    [
        ("ij,jk->ik", ["3x4", "5x6"], {}),
        ("ij,jk->iq", ["3x4", "4x6"], {}),
        ("ij,jk->ik", ["3x4"], {}),
        ("ij", ["3x4"], {"dtype": "floaty"}),
        ("ij", ["3x4"], {"optimize": "best"}),
    ],
)
def test_a_wrong_einsum_is_a_message(
    subscripts: str, shapes: list[str], options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(einstride.EinsumError) as error:
        einstride.plan(subscripts, *map(explain.shape, shapes), **options)  # type: ignore[arg-type]
    flags = [f"--{name}={value}" for name, value in options.items()]
    assert cli.main(["explain", subscripts, *shapes, *flags]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"einstride: {error.value}\n")


@pytest.mark.parametrize("shape", ["3*4", "x", "3x", "-3x4", "3,4", "(3, 4)", ""])
def test_a_bad_shape(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "ij", f" {shape}"])
    assert ended.value.code == 2
    assert "is not a shape: write 32x64x512" in capsys.readouterr().err


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "ATTEMPTS", 1)
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == _core.level_name()
    assert found["levels"] == _core.levels()
    assert found["threads"] == einstride.num_threads()
    assert all(rate > 0 for rate in (*found["flops"].values(), *found["read_bytes"].values()))
    text = info.text(found)
    assert f"{found['flops']['float32'] / 1e9:.0f} Gflop/s" in text
    assert found["processor"] in text


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], {"quick": True, "few": True, "progress": True, "json": None}),
        (["--all", "--no-progress"], {"quick": False, "few": False, "progress": False}),
        (["--only", "attn*", "--only", "mm"], {"quick": True, "few": False, "only": ["attn*", "mm"]}),
        (["--contenders", "numpy", "ours", "--threads", "3"], {"contenders": ["numpy", "ours"], "threads": 3}),
        (["--json", "x.json"], {"json": Path("x.json")}),
    ],
)
def test_bench(given: list[str], asked: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    benchmark = pytest.importorskip(
        "einstride.bench.__main__", reason="only wheels and editable installs have the benchmark inside"
    )
    found: list[argparse.Namespace] = []

    def parsed(arguments: list[str]) -> int:
        found.append(benchmark._parser().parse_args(arguments))
        return 7

    monkeypatch.setattr(benchmark, "main", parsed)
    assert cli.main(["bench", *given]) == 7
    assert {name: getattr(found[0], name) for name in asked} == asked


def test_bench_says_where_it_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("einstride.cli.bench.find_spec", lambda name: None)
    assert cli.main(["bench"]) == 2
    assert "python -m bench" in capsys.readouterr().err
