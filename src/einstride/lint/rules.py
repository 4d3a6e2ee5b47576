"""The rules: from the einsum calls of a source to findings. Each rule is a function of its own."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..cost import naive_flops
from ..errors import EinsumError, Pointed
from ..expression import Expression, parse_interleaved, parse_unranked
from .calls import EINSUMS, Call, Module, find_calls, resolve
from .chains import chains
from .extents import at_equal_extents, least_flops
from .finding import Finding
from .source import Source, ignored, syntax_tree

_WORDS = {path.rpartition(".")[2] for path in EINSUMS}
_LATIN_ONLY = {"numpy", "torch"}
_HALVES = {f"numpy.{name}" for name in ("float16", "half")}
_HALF_NAMES = ("float16", "half", "f2", "e", "<f2", "=f2", ">f2")


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule says of a call: ``span`` is in its subscripts, None for all of them."""

    code: str
    message: str
    span: tuple[int, int] | None = None


def findings(source: Source) -> list[Finding]:
    """Everything the rules say of a source, in its order, but for what its comments silence.

    Raises:
        SyntaxError: it is not Python; a source that names no einsum is not looked at.

    >>> from .source import from_text
    >>> [found] = findings(from_text("import numpy as np\\nc = np.einsum('ij,jk->iq', a, b)"))
    >>> print(found.place, found.code, found.message)
    <text>:2:24 E3 output label `q` is in no operand; did you mean `k`?
    """
    if not any(word in source.text for word in _WORDS):
        return []
    module = find_calls(syntax_tree(source.text))
    silenced = ignored(source.text)
    lines = source.text.split("\n")
    found: dict[Finding, tuple[int, int]] = {}  # and where; a string that several calls share is reported once
    for call, report in _reports(module):
        line, start, stop = _locate(call, report.span, lines)
        if any(_is_silenced(silenced, at, report.code) for at in (line, call.function.lineno, _last_line(call))):
            continue
        cell, cell_line = source.places[line - 1]
        finding = Finding(
            source.path, cell, cell_line, start + 1, stop + 1, report.code, report.message, lines[line - 1].rstrip("\r")
        )
        found[finding] = (line, start)
    return sorted(found, key=lambda finding: (found[finding], finding.code))


def _reports(module: Module) -> Iterator[tuple[Call, Report]]:
    parsed: dict[Call, Expression] = {}
    for call in module.calls:
        try:
            expression = _expression(call)
        except EinsumError as error:
            yield call, _malformed(call, error)
            continue
        if call.operands is not None and len(call.operands) != len(expression.inputs):
            yield call, _count(call, expression)
            continue
        parsed[call] = expression
        for rule in _RULES:
            for report in rule(call, expression):
                yield call, report
    for call, message in chains(module, parsed):
        yield call, Report("W4", message)


def _expression(call: Call) -> Expression:
    if isinstance(call.subscripts, str):
        return parse_unranked(call.subscripts)
    *inputs, output = call.subscripts
    terms = [term or () for term in inputs]
    return parse_interleaved(terms, output, [len(term) - term.count(Ellipsis) for term in terms])


def _malformed(call: Call, error: EinsumError) -> Report:
    said = error.args[0]
    if not isinstance(said, Pointed) or not said.spans:
        return Report("E1", str(said).partition("\n")[0])
    start, stop = said.spans[-1]
    if not isinstance(call.subscripts, str):
        return Report("E3" if "output label" in said.said else "E1", said.said)
    # The only thing wrong with a letter is that no operand has it.
    return Report("E3" if call.subscripts[start:stop].isalpha() else "E1", said.said, (start, stop))


def _count(call: Call, expression: Expression) -> Report:
    terms, operands = len(expression.inputs), len(call.operands or ())
    named = "1 term" if terms == 1 else f"{terms} terms"
    return Report("E2", f"the subscripts have {named} for {operands} {'operand' if operands == 1 else 'operands'}")


def _elsewhere(call: Call, expression: Expression) -> Iterator[Report]:
    if "einstride" in call.libraries:
        return
    for label, times in Counter(expression.output).items():
        if times > 1:
            message = f"output label `{expression.names[label]}` appears {times} times, which only einstride accepts"
            yield Report("E4", message, _span(call, expression, label, last=True))
    if call.libraries <= _LATIN_ONLY and isinstance(call.subscripts, str):
        for label, name in enumerate(expression.names):
            if not name.isascii():
                message = f"label `{name}` is not one of a-z and A-Z, which are all that {_either(call)} accepts"
                yield Report("E4", message, _span(call, expression, label))


def _either(call: Call) -> str:
    return " or ".join(sorted(call.libraries))


def _summed_alone(call: Call, expression: Expression) -> Iterator[Report]:
    if len(expression.inputs) < 2 or not _is_explicit(call):
        return
    counts = Counter(label for term in expression.inputs for label in term)
    for number, term in enumerate(expression.inputs):
        for label in term:
            if counts[label] == 1 and label not in expression.output:
                message = (
                    f"label `{expression.names[label]}` is in operand {number} alone and not in the output, "
                    "so it is summed away"
                )
                yield Report("W1", message, _span(call, expression, label))


def _transposed(call: Call, expression: Expression) -> Iterator[Report]:
    first = sorted(expression.output)  # labels are numbered in order of first appearance
    if _is_explicit(call) or list(expression.output) == first:
        return
    ellipsis = "..." if "." in call.subscripts else ""

    def written(labels: Iterable[int]) -> str:
        names = [expression.names[label] for label in labels]
        return ellipsis + "".join(names) if isinstance(call.subscripts, str) else f"[{', '.join(names)}]"

    output = written(expression.output)
    message = f"the output, left out, is `{output}`, sorted; write it, if it is meant, or else `{written(first)}`"
    yield Report("W2", message)


def _half(call: Call, expression: Expression) -> Iterator[Report]:
    summed = [name for label, name in enumerate(expression.names) if label not in expression.output]
    if call.libraries != {"numpy"} or not summed:
        return
    keywords = call.keywords
    dtype = keywords.get("dtype")
    if dtype is not None or None in keywords:
        halves = dtype is not None and _is_half_type(dtype, call)
    else:
        halves = bool(call.operands) and all(_is_half(operand, call) for operand in call.operands or ())
    if halves:
        over = ", ".join(f"`{name}`" for name in summed)
        yield Report("W3", f"the sum over {over} is kept in float16, of 3 digits and at most 65504; sum in float32")


def _unplanned(call: Call, expression: Expression) -> Iterator[Report]:
    count = len(expression.inputs)
    if call.libraries != {"numpy"} or count < 3 or {"optimize", None} & call.keywords.keys():
        return
    problem = at_equal_extents(expression)
    if least_flops(problem) < naive_flops(problem):
        message = (
            f"numpy.einsum multiplies all {count} operands in one loop nest; optimize=True contracts them in pairs"
        )
        yield Report("W5", message)


_RULES: tuple[Callable[[Call, Expression], Iterator[Report]], ...] = (
    _elsewhere,
    _summed_alone,
    _transposed,
    _half,
    _unplanned,
)


def _is_explicit(call: Call) -> bool:
    return ">" in call.subscripts if isinstance(call.subscripts, str) else call.subscripts[-1] is not None


def _span(call: Call, expression: Expression, label: int, last: bool = False) -> tuple[int, int] | None:
    """Where a label of one letter stands in a string of subscripts, the first time or the last."""
    if not isinstance(call.subscripts, str):
        return None
    name = expression.names[label]
    at = call.subscripts.rindex(name) if last else call.subscripts.index(name)
    return at, at + 1


def _is_half(operand: ast.expr, call: Call) -> bool:
    """Whether an operand is made as float16: ``x.astype("float16")``, ``zeros(3, dtype=np.float16)`` and the like."""
    if isinstance(operand, ast.Name):
        owner = call.scope.owner(operand.id)
        bindings = [] if owner is None else owner.bindings[operand.id]
        values = [binding for binding in bindings if isinstance(binding, ast.expr)]
        return (
            bool(values)
            and len(values) == len(bindings)
            and all(not isinstance(value, ast.Name) and _is_half(value, call) for value in values)
        )
    if not isinstance(operand, ast.Call):
        return False
    if resolve(operand.func, call.scope) & _HALVES:
        return True
    types = [keyword.value for keyword in operand.keywords if keyword.arg == "dtype"]
    if isinstance(operand.func, ast.Attribute) and operand.func.attr == "astype":
        types += operand.args[:1]
    return any(_is_half_type(given, call) for given in types)


def _is_half_type(given: ast.expr, call: Call) -> bool:
    if isinstance(given, ast.Constant):
        return given.value in _HALF_NAMES
    return bool(resolve(given, call.scope) & _HALVES)


def _is_silenced(silenced: dict[int, frozenset[str] | None], line: int, code: str) -> bool:
    if line not in silenced:
        return False
    codes = silenced[line]
    return codes is None or code in codes


def _last_line(call: Call) -> int:
    return call.function.end_lineno or call.function.lineno


def _locate(call: Call, span: tuple[int, int] | None, lines: list[str]) -> tuple[int, int, int]:
    """The line of a span in a call's subscripts, and its columns in characters; the whole literal where it is hidden
    behind escapes or several lines."""
    node = call.node
    line = lines[node.lineno - 1]
    start = _characters(line, node.col_offset)
    ends_here = node.end_lineno == node.lineno and node.end_col_offset is not None
    stop = _characters(line, node.end_col_offset or 0) if ends_here else len(line.rstrip())
    if span is not None and isinstance(call.subscripts, str):
        at = line.find(call.subscripts, start, stop)
        if at >= 0:
            return node.lineno, at + span[0], at + max(span[1], span[0] + 1)
    return node.lineno, start, stop


def _characters(line: str, offset: int) -> int:
    """A syntax tree counts columns in bytes of UTF-8."""
    return len(line.encode()[:offset].decode())
