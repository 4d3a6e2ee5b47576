"""The machine a program is lowered for: instruction-set level and the rates estimates are made with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from . import _core


@dataclass(frozen=True, slots=True)
class Machine:
    """What estimates of time need to know about one core of a machine.

    Attributes:
        level: the instruction-set level the kernels run at.
        vector_bytes: bytes in a vector register.
        vectors_per_second: fused multiply-adds of whole vectors a core can retire in a second.
        bytes_per_second: bytes a core reads from beyond its second-level cache in a second.
        cache_bytes: the part of the second-level cache that a step may count on.
    """

    level: str
    vector_bytes: int
    vectors_per_second: float
    bytes_per_second: float
    cache_bytes: int


# The rates are constants of a level and not a measurement made at start-up: a plan depends on them, the order of a
# sum depends on the plan, and results have to be the same bit for bit from run to run. The AVX-512 ones are near what
# was measured on a Zen 4 core; the others are scaled from them by width and pipes. Only their ratios decide anything.
_MACHINES = {
    "avx512": Machine("avx512", 64, 3.6e9, 20e9, 1 << 19),
    "avx2": Machine("avx2", 32, 7.2e9, 20e9, 1 << 18),
    "neon": Machine("neon", 16, 6e9, 20e9, 1 << 18),
    "portable": Machine("portable", 16, 3.6e9, 20e9, 1 << 18),
}


@cache
def detect() -> Machine:
    """The machine this process runs on.

    >>> detect().vector_bytes in (16, 32, 64)
    True
    """
    return _MACHINES[_core.level_name()]
