"""Subscripts read sentence by sentence, for someone who has not seen any before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from ..expression import Label
from .facts import Facts, Tensor, is_lettered
from .loops import summed_labels


def guide(facts: Facts) -> tuple[str, ...]:
    """What each part of the subscripts says.

    >>> from einstride import plan
    >>> from einstride.explanation.facts import describe
    >>> for sentence in guide(describe(plan("bcik,bcij->bckj", (2, 3, 4, 5), (2, 3, 4, 6)))):
    ...     print(sentence)
    Each letter names an axis: first those of A, then those of B, and after the arrow those of the result.
    The axes of A are called b, c, i, k; those of B: b, c, i, j; those of the result: b, c, k, j.
    The result has one entry for each b, c, k, j: 2 x 3 x 5 x 6 = 180 entries.
    A and B have b, c, i in common: an entry of one meets the entries of the other that are at the same b, c, i.
    The result has no axis i: each of its entries is a sum over i, of 4 products.
    """
    return (*_names(facts), _entries(facts), *_meeting(facts), _sum(facts), *_peculiar(facts))


def _names(facts: Facts) -> Iterator[str]:
    symbols = "letter" if is_lettered(facts.expression.names) else "label"
    order = ", then ".join(f"those of {tensor.name}" for tensor in facts.operands)
    yield f"Each {symbols} names an axis: first {order}, and after the arrow those of the result."
    unnamed = [label.name for label in facts.labels if label.name.startswith("...")]
    if unnamed:
        yield f"The dots stand for the axes that have no {symbols}, here called {', '.join(unnamed)}."
    numbers = [tensor.name for tensor in facts.operands if not tensor.labels]
    named = [(tensor.name, tensor.labels) for tensor in facts.operands if tensor.labels]
    if facts.output.labels:
        named.append(("the result", facts.output.labels))
    said = [f"{'those' if number else 'The axes'} of {name}" for number, (name, _) in enumerate(named)]
    links = [" are called ", *[": "] * len(named)]
    axes = [f"{who}{link}{_named(facts, labels)}" for who, link, (_, labels) in zip(said, links, named, strict=False)]
    if axes:
        yield f"{'; '.join(axes)}."
    if numbers:
        yield f"{', '.join(numbers)} {'is a number' if len(numbers) == 1 else 'are numbers'}, without axes."


def _entries(facts: Facts) -> str:
    kept = tuple(dict.fromkeys(facts.output.labels))
    if not kept:
        return "The result is a single number."
    extents = [facts.labels[label].extent for label in kept]
    product = f"{' x '.join(map(str, extents))} = " if len(extents) > 1 else ""
    count = prod(extents)
    return f"The result has one entry for each {_named(facts, kept)}: {product}{_counted(count, 'entry', 'entries')}."


def _meeting(facts: Facts) -> Iterator[str]:
    holders = {n: sum(n in tensor.labels for tensor in facts.operands) for n in range(len(facts.labels))}
    shared = _named(facts, [label for label, count in holders.items() if count > 1])
    if shared and len(facts.operands) == 2:
        first, second = facts.operands
        yield (
            f"{first.name} and {second.name} have {shared} in common: an entry of one meets the entries of the other "
            f"that are at the same {shared}."
        )
    elif shared:
        yield f"Operands that have a label in common are read at the same value of it: here {shared}."


def _sum(facts: Facts) -> str:
    single = len(facts.operands) == 1
    name = facts.operands[0].name
    summed = summed_labels(facts)
    if not summed:
        return f"Nothing is summed: each entry is {f'an entry of {name}' if single else 'one product'}."
    count = prod(facts.labels[label].extent for label in summed)
    terms = _counted(count, "entry", "entries") + f" of {name}" if single else _counted(count, "product", "products")
    labels = _named(facts, summed)
    axes = "axis" if len(summed) == 1 else "axes"
    return f"The result has no {axes} {labels}: each of its entries is a sum over {labels}, of {terms}."


def _peculiar(facts: Facts) -> Iterator[str]:
    """Diagonals, and axes that are broadcast."""
    for tensor in (*facts.operands, facts.output):
        name = "the result" if tensor is facts.output else tensor.name
        repeated = [label for label in dict.fromkeys(tensor.labels) if tensor.labels.count(label) > 1]
        if repeated:
            means = "it is zero off that diagonal" if tensor is facts.output else "only that diagonal is read"
            yield f"{_named(facts, repeated)} names several axes of {name}: {means}."
        for axis in _stretched(facts, tensor):
            yield f"Axis {axis} of {name}, of extent 1, serves every value of its label: broadcasting."


def _stretched(facts: Facts, tensor: Tensor) -> Sequence[int]:
    extents = zip(tensor.labels, tensor.shape, strict=True)
    return [axis for axis, (label, extent) in enumerate(extents) if extent != facts.labels[label].extent]


def _named(facts: Facts, labels: Iterable[Label]) -> str:
    return ", ".join(facts.labels[label].name for label in labels)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
