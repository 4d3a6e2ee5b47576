"""``einstride info``."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..bar import bar

# The extension's codes of what sums are formed in.
PEAKS = {"float32": 3, "float64": 4}
READS = {"256 KiB": 256 << 10, "8 MiB": 8 << 20, "256 MiB": 256 << 20}
ATTEMPTS = 3


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "info",
        help="say what einstride runs on, and how fast that is",
        description="Versions, the processor and the instruction sets that einstride uses of it, threads, caches, and "
        "the rates that all threads together reach: arithmetic on registers, and reading working sets of three sizes. "
        "Measuring takes some seconds.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON; rates are per second")
    parser.set_defaults(run=info)


def info(options: argparse.Namespace) -> int:
    with bar("measuring") as tell:
        found = gather(tell)
    print(json.dumps(found, indent=1) if options.json else text(found))
    return 0


def version() -> str:
    """The installed version of einstride, or where it runs from without being installed."""
    try:
        return metadata.version("einstride")
    except metadata.PackageNotFoundError:
        return "from source"


def gather(tell: Callable[[float | None], None]) -> dict[str, Any]:
    """Everything that the command says; ``tell`` hears how far the measuring is."""
    steps = [(name, partial(_core.measure_flops, code)) for name, code in PEAKS.items()]
    steps += [(name, partial(_core.measure_bandwidth, size)) for name, size in READS.items()]
    rates = {}
    for number, (name, measure) in enumerate(steps):
        tell(number / len(steps))
        rates[name] = max(measure() for _ in range(ATTEMPTS))
    return {
        "einstride": version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "level": _core.level_name(),
        "levels": _core.levels(),
        "threads": _core.num_threads(),
        "caches": caches(),
        "flops": {name: rates[name] for name in PEAKS},
        "read_bytes": {name: rates[name] for name in READS},
    }


def text(found: dict[str, Any]) -> str:
    rows = {
        "einstride": found["einstride"],
        "numpy": found["numpy"],
        "python": f"{found['python']}, {found['system']}",
        "processor": found["processor"],
        "level": f"{found['level']} (of {', '.join(found['levels'])}; EINSTRIDE_LEVEL names another)",
        "threads": f"{found['threads']} (OMP_NUM_THREADS or einstride.set_num_threads says how many)",
        "caches": ", ".join(f"{name} {size}" for name, size in found["caches"].items()) or "unknown",
        "peak": ", ".join(f"{name} {rate / 1e9:.0f} Gflop/s" for name, rate in found["flops"].items()),
        "reading": ", ".join(f"{rate / 1e9:.0f} GB/s from {name}" for name, rate in found["read_bytes"].items()),
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """The first core's data caches and their sizes, as Linux knows them."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((folder / name).read_text(encoding="utf-8").strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found
