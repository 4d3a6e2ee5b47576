"""An expression as a formula, and as the loops that the formula stands for, in Python that runs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

from ..expression import Label
from .facts import Facts, Tensor
from .names import RESULT

WIDTH = 88
"""Columns that code and prose are broken at."""

# More loops than these are one loop over a product: Python allows no more than 20 blocks inside each other, and nobody
# wants to read half as many.
_DEEPEST = 6

# A space that code is not broken at.
_HARD = "\N{NO-BREAK SPACE}"


def formula(facts: Facts) -> str:
    """One entry of the result, from entries of the operands.

    >>> from einstride import plan
    >>> from einstride.explanation.facts import describe
    >>> print(formula(describe(plan("ij,jk->ik", (3, 4), (4, 5)))))
    out[i,k] = Σ_j A[i,j] * B[j,k]
    """
    summed = ",".join(facts.labels[label].identifier for label in summed_labels(facts))
    product = " * ".join(entry(facts, tensor, symbol(facts)) for tensor in facts.operands)
    total = f"Σ_{summed} " if len(summed) == 1 else f"Σ_({summed}) " if summed else ""
    return f"{entry(facts, facts.output, symbol(facts))} = {total}{product}"


def example(facts: Facts) -> str | None:
    """One entry written out in numbers, an index of its own for each label as far as extents allow; None for a result
    or a sum of no entries."""
    if 0 in [label.extent for label in facts.labels]:
        return None
    at = {label: number % facts.labels[label].extent for number, label in enumerate(dict.fromkeys(facts.output.labels))}
    summed = summed_labels(facts)
    products: list[str] = []
    count = 1
    for label in summed:
        at[label] = 0
        count *= facts.labels[label].extent
    for position in range(min(count, 2)):
        for label in reversed(summed):  # the innermost loop that moves
            if facts.labels[label].extent > 1:
                at[label] = position
                break
        products.append(" * ".join(entry(facts, tensor, lambda label: str(at[label])) for tensor in facts.operands))
    more = " + ..." if count > 2 else ""
    return f"{entry(facts, facts.output, lambda label: str(at[label]))} = {' + '.join(products)}{more}"


def loops(facts: Facts, casts: Iterable[str] = (), compute: str | None = None) -> str:
    """A function `loops` of the operands that gives the result entry by entry.

    ``casts`` are lines that convert operands beforehand, ``compute`` the type sums are formed in where it is another
    than the result's.

    >>> from einstride import plan
    >>> from einstride.explanation.facts import describe
    >>> print(loops(describe(plan("ij,jk->ik", (3, 4), (4, 5)))))
    import numpy as np
    <BLANKLINE>
    <BLANKLINE>
    def loops(A, B):
        out = np.zeros((3, 5), "float64")
        for i in range(3):
            for k in range(5):
                for j in range(4):
                    out[i, k] += A[i, j] * B[j, k]
        return out
    """
    kept = tuple(dict.fromkeys(facts.output.labels))
    summed = summed_labels(facts)
    many = len(kept) + len(summed) > _DEEPEST
    groups = [group for group in (kept, summed) if group] if many else [(label,) for label in (*kept, *summed)]
    name = symbol(facts)
    body = [*casts, f'{RESULT} = np.zeros({facts.output.shape}, "{compute or facts.dtype}")']
    indent = ""
    for group in groups:
        names, ranges = (
            ", ".join(map(name, group)),
            ", ".join(f"range({facts.labels[label].extent})" for label in group),
        )
        if len(group) == 1:
            body.append(f"{indent}for {names} in {ranges}:")
        else:
            body += folded(f"{indent}for{_HARD}({names}){_HARD}in{_HARD}product({ranges}):")
        indent += "    "
    product = " * ".join(_indexed(facts, tensor, name) for tensor in facts.operands)
    body += statement(f"{indent}{_indexed(facts, facts.output, name)} += ", product)
    body.append(f"return {RESULT}" + (f'.astype("{facts.dtype}")' if compute else ""))
    imports = ["from itertools import product", ""] if any(len(group) > 1 for group in groups) else []
    return function("loops", facts, [*imports, "import numpy as np"], body)


def function(name: str, facts: Facts, imports: Iterable[str], body: Iterable[str]) -> str:
    """The text of a function of the operands."""
    head = folded(f"def{_HARD}{name}({', '.join(tensor.name for tensor in facts.operands)}):")
    return "\n".join([*imports, "", "", *head, *(f"    {line}" for line in body)])


def statement(before: str, value: str) -> list[str]:
    """A statement that ends in a value, in lines that are not too wide; in parentheses, if it cannot break without."""
    if len(before) + len(value) <= WIDTH:
        return [before + value]
    outside = value
    while (inner := re.sub(r"[(\[][^()\[\]]*[)\]]", "", outside)) != outside:
        outside = inner
    return folded(f"{before.replace(' ', _HARD)}{f'({value})' if ' ' in outside else value}")


def folded(line: str) -> list[str]:
    """Code in lines that are not too wide; all of its spaces but the hard ones must lie in brackets."""
    bare = line.replace(_HARD, " ")
    if len(bare) <= WIDTH:
        return [bare]
    indent = " " * (len(bare) - len(bare.lstrip()))
    lines = textwrap.wrap(
        line, WIDTH, subsequent_indent=indent + "    ", break_long_words=False, break_on_hyphens=False
    )
    return [part.replace(_HARD, " ") for part in lines]


def entry(facts: Facts, tensor: Tensor, shown: Callable[[Label], str]) -> str:
    """An entry of a tensor as a formula has it."""
    return f"{tensor.name}[{','.join(_indices(facts, tensor, shown))}]" if tensor.labels else tensor.name


def symbol(facts: Facts) -> Callable[[Label], str]:
    return lambda label: facts.labels[label].identifier


def summed_labels(facts: Facts) -> tuple[Label, ...]:
    """The labels that the result lacks."""
    return tuple(label for label in range(len(facts.labels)) if label not in facts.output.labels)


def _indexed(facts: Facts, tensor: Tensor, shown: Callable[[Label], str]) -> str:
    return f"{tensor.name}[{', '.join(_indices(facts, tensor, shown)) or '()'}]"


def _indices(facts: Facts, tensor: Tensor, shown: Callable[[Label], str]) -> Sequence[str]:
    """An axis that is broadcast has one entry, whatever the label."""
    return [
        shown(label) if extent == facts.labels[label].extent else "0"
        for label, extent in zip(tensor.labels, tensor.shape, strict=True)
    ]
