"""Presentation of expressions and plans: in words, as a formula, as code, in pictures and in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..array import load
from .arrays import NUMPY, TORCH, by_library, conversions
from .facts import Facts, Measured, describe
from .guide import guide
from .loops import example, formula, loops
from .text import signature, whole_text
from .words import reading

if TYPE_CHECKING:
    from ..api import Plan


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """All there is to tell about a plan. `print` it, look at it in Jupyter, or `save` it as a page.

    Attributes:
        plan: the plan.
        measured: seconds from `measure`, which predictions are shown beside.

    >>> from einstride import explain
    >>> product = explain("ij,jk->ik", (3, 4), (4, 5))
    >>> product.words
    'rows of A against columns of B, summed over j'
    >>> product.formula
    'out[i,k] = Σ_j A[i,j] * B[j,k]'
    >>> print(product.numpy)
    import numpy as np
    <BLANKLINE>
    <BLANKLINE>
    def by_numpy(A, B):
        return A @ B
    """

    plan: Plan
    measured: Measured | None = None

    @property
    def facts(self) -> Facts:
        """Labels, steps and costs as data."""
        return describe(self.plan, self.measured)

    @property
    def words(self) -> str:
        """What is computed, in one line of words."""
        return reading(self.plan.problem.expression, [tensor.name for tensor in self.facts.operands])

    @property
    def guide(self) -> tuple[str, ...]:
        """What each part of the subscripts says, in sentences."""
        return guide(self.facts)

    @property
    def formula(self) -> str:
        """One entry of the result from entries of the operands."""
        return formula(self.facts)

    @property
    def example(self) -> str | None:
        """One entry of the result written out in numbers; None where there is none, or nothing to sum."""
        return example(self.facts)

    @property
    def loops(self) -> str:
        """Python source of a function `loops` of the operands: the definition, entry by entry."""
        return loops(self.facts, *conversions(self.plan, self.facts, NUMPY))

    @property
    def numpy(self) -> str:
        """Python source of a function `by_numpy` of the operands, in NumPy's own operations."""
        return by_library(self.plan, self.facts, NUMPY)

    @property
    def torch(self) -> str:
        """Python source of a function `by_torch` of the operands, for the dtypes that PyTorch has."""
        return by_library(self.plan, self.facts, TORCH)

    def __repr__(self) -> str:
        return f"<Explanation of {signature(self.facts)}>"

    def __str__(self) -> str:
        return whole_text(self)

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self)

    def save(self, path: str | Path) -> None:
        """Write everything as one HTML page that needs nothing else.

        Raises:
            OSError: the file cannot be written.
        """
        from .page import page

        Path(path).write_text(page(self), encoding="utf-8")

    def measure(self, *operands: object) -> Explanation:
        """The same with times measured on these operands beside the predicted ones, of each step and of all.

        A few runs of every step take part; the least time counts. Steps run on as many threads as einstride uses,
        predictions are for one, and leave out the some hundred nanoseconds of a call.

        Raises:
            ShapeError: there are more or fewer operands than planned, or one has another shape.
            OperandTypeError: an operand has another dtype.

        >>> import numpy as np
        >>> from einstride import explain
        >>> square = np.ones((50, 50))
        >>> seen = explain("ij,jk,kl->il", square, square, square).measure(square, square, square)
        >>> len(seen.measured.steps), seen.measured.total > 0
        (2, True)
        """
        from .measure import measure

        self.plan(*operands)
        arrays = load([np.asarray(operand) for operand in operands], self.plan.dtype, "safe")
        plan = replace(self.plan, strides=tuple([array.strides for array in arrays]))
        return Explanation(plan, measure(plan, arrays))
