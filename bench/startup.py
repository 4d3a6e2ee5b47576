"""What `import einstride` adds to `import numpy`: the median over fresh processes.

>>> 0 < import_seconds("math", processes=1) < 60
True
"""

from __future__ import annotations

import statistics
import subprocess
import sys

PROCESSES = 15
PROGRAM = """
import numpy, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def import_seconds(module: str = "einstride", processes: int = PROCESSES) -> float:
    """Median seconds that importing a module takes once NumPy is there; raises CalledProcessError if it cannot be."""
    command = [sys.executable, "-c", PROGRAM.format(module=module)]

    def once() -> float:
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    once()
    return statistics.median(once() for _ in range(processes))


if __name__ == "__main__":
    print(f"import einstride: {import_seconds() * 1e3:.1f} ms over importing NumPy (median of {PROCESSES} processes)")
