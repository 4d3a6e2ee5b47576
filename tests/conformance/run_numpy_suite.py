"""Run NumPy's own einsum tests, from the installed wheel, with einstride in numpy.einsum's place.

    python tests/conformance/run_numpy_suite.py [pytest arguments]

Exits with pytest's status. A test may be excepted only by name and with a reason, and is then expected to fail: an
exception that is no longer needed fails the run.
"""

from __future__ import annotations

import importlib.util
import sys

import numpy
import pytest

import einstride

# At most three.
EXCEPTED = {
    "TestEinsum::test_einsum_errors": 'asserts that "ij->jij" is refused; einstride writes the diagonal',
    "TestEinsum::test_subscript_range": "asserts that the label 52 is refused; einstride has any number of labels",
    "TestEinsum::test_einsum_0d_out": "has float64 cast to an int64 out= under casting='safe', which NumPy itself "
    "refuses unless optimize= is given",
}


def suite() -> str:
    """The file of NumPy's tests, which moved in NumPy 2."""
    for package in ("numpy._core.tests", "numpy.core.tests"):
        try:
            found = importlib.util.find_spec(f"{package}.test_einsum")
        except ModuleNotFoundError:
            continue
        if found and found.origin:
            return found.origin
    raise SystemExit(f"numpy {numpy.__version__} was installed without its tests")


class Exceptions:
    """Expects the excepted tests to fail."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            name = item.nodeid.split("::", 1)[1].split("[")[0]
            if name in EXCEPTED:
                item.add_marker(pytest.mark.xfail(reason=EXCEPTED[name], strict=True))


def main(arguments: list[str]) -> int:
    numpy.einsum = einstride.einsum
    numpy.einsum_path = einstride.einsum_path  # type: ignore[assignment]
    print(f"numpy {numpy.__version__}: {suite()}")
    alone = ["-p", "no:cacheprovider", "--rootdir", "/", "-c", "/dev/null"]  # not this project's pytest settings
    return int(pytest.main([suite(), "-q", *alone, *arguments], plugins=[Exceptions()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
