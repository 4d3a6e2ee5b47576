"""The stops of the tour: what is computed, on which arrays, and the NumPy function that does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stop:
    """One einsum of the tour.

    ``plain`` computes the same without einsum, and ``spelled`` is how that is written.
    """

    title: str
    subscripts: str
    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    plain: Callable[..., Any]
    spelled: str
    remark: str


def stops(seed: int = 0) -> tuple[Stop, ...]:
    """The stops in order, on arrays drawn from ``seed``.

    >>> [stop.subscripts for stop in stops()][:3]
    ['ij, jk -> ik', 'ij, ij -> ij', 'ij -> ji']
    """
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-9, 10, (3, 4)), rng.integers(-9, 10, (4, 5))
    other = rng.integers(-9, 10, (3, 4))
    lefts, rights = rng.integers(-9, 10, (2, 3, 4)), rng.integers(-9, 10, (2, 4, 5))
    queries, keys = rng.standard_normal((32, 64, 512)), rng.standard_normal((32, 128, 512))
    keys_turned = keys.transpose(0, 2, 1)
    # Sequences of 4 x 8 and 4 x 4 entries, cut into 4 chunks of rows each.
    wide = rng.standard_normal((2, 4, 8)).reshape(2, 4, 4, 2)
    narrow = rng.standard_normal((2, 4, 4)).reshape(2, 4, 4, 1)
    narrow_turned = narrow.transpose(0, 1, 3, 2)
    return (
        Stop(
            "Matrix product",
            "ij, jk -> ik",
            ("A", "B"),
            (left, right),
            np.matmul,
            "np.matmul(A, B)",
            "A label in both operands and not in the output is summed over.",
        ),
        Stop(
            "Entry by entry",
            "ij, ij -> ij",
            ("A", "B"),
            (left, other),
            np.multiply,
            "A * B",
            "Every label is kept, so nothing is summed.",
        ),
        Stop(
            "Transpose",
            "ij -> ji",
            ("A",),
            (left,),
            np.transpose,
            "A.T",
            "The same numbers with the axes in another order: a view, no copy.",
        ),
        Stop(
            "Column sums",
            "ij -> j",
            ("A",),
            (left,),
            lambda a: a.sum(axis=0),
            "A.sum(axis=0)",
            "The row label i is gone from the output, so each column is summed.",
        ),
        Stop(
            "Row sums",
            "ij -> i",
            ("A",),
            (left,),
            lambda a: a.sum(axis=1),
            "A.sum(axis=1)",
            "The column label j is gone from the output, so each row is summed.",
        ),
        Stop(
            "Batched product",
            "bij, bjk -> bik",
            ("A", "B"),
            (lefts, rights),
            np.matmul,
            "np.matmul(A, B)",
            "A label in both operands and in the output makes a batch: one product for each b.",
        ),
        Stop(
            "Sum of everything",
            "bij ->",
            ("A",),
            (lefts,),
            np.sum,
            "A.sum()",
            "No label is left, so the result is a single number.",
        ),
        Stop(
            "Keys turned",
            "bkm -> bmk",
            ("K",),
            (keys,),
            lambda k: k.transpose(0, 2, 1),
            "K.transpose(0, 2, 1)",
            "The first spelling of attention scores wants the keys turned; that is a view too.",
        ),
        Stop(
            "Attention scores, keys turned first",
            "bqm, bmk -> bqk",
            ("Q", "KT"),
            (queries, keys_turned),
            np.matmul,
            "np.matmul(Q, KT)",
            "Each query against each key: a batch of matrix products.",
        ),
        Stop(
            "Attention scores, keys as they are",
            "bqm, bkm -> bqk",
            ("Q", "K"),
            (queries, keys),
            lambda q, k: np.matmul(q, k.transpose(0, 2, 1)),
            "np.matmul(Q, K.transpose(0, 2, 1))",
            "The subscripts say which axes meet, so nobody has to turn the keys.",
        ),
        Stop(
            "Chunks turned",
            "bcik -> bcki",
            ("B",),
            (narrow,),
            lambda b: b.transpose(0, 1, 3, 2),
            "B.transpose(0, 1, 3, 2)",
            "After the reshape there are two batch labels, b and the chunk c.",
        ),
        Stop(
            "Chunked product",
            "bcik, bcij -> bckj",
            ("B", "A"),
            (narrow, wide),
            lambda b, a: np.matmul(b.transpose(0, 1, 3, 2), a),
            "np.matmul(B.transpose(0, 1, 3, 2), A)",
            "Attention within chunks, straight from the reshaped arrays.",
        ),
        Stop(
            "Chunked product, chunks turned first",
            "bcki, bcij -> bckj",
            ("BT", "A"),
            (narrow_turned, wide),
            np.matmul,
            "np.matmul(BT, A)",
            "The other spelling gives the same numbers.",
        ),
    )
