"""Chains: an einsum whose result is only used by another could be part of it, and one plan for both may be cheaper."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from ..expression import Expression, parse_unranked
from .calls import Call, Module
from .extents import at_equal_extents, least_flops

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def chains(module: Module, parsed: Mapping[Call, Expression]) -> Iterator[tuple[Call, str]]:
    """Each last call of a chain, and what to say of it."""
    made_by = {id(call.function): call for call in parsed if _is_plain(call)}
    inner = {call: _inner_calls(call, module, made_by) for call in made_by.values()}
    consumed = {found for calls in inner.values() for found in calls.values()}
    for call, calls in inner.items():
        if not calls or call in consumed:
            continue
        merged = _merged(call, inner)
        if merged is None:
            continue
        parts = [call, *_all_inner(call, inner)]
        if _flops(merged) < sum(_flops(str(part.subscripts)) for part in parts):
            written = " and ".join(f"`{part.subscripts}`" for part in reversed(parts))
            planned = " with optimize=True" if "numpy" in call.libraries else ""  # others plan without being asked
            yield call, f"{written} would be cheaper as one: `{merged}`{planned}"


def _is_plain(call: Call) -> bool:
    """Whether the call does nothing but an einsum without an ellipsis, spelled in letters."""
    return (
        isinstance(call.subscripts, str)
        and "." not in call.subscripts
        and call.operands is not None
        and call.keywords.keys() <= {"optimize"}
    )


def _inner_calls(call: Call, module: Module, made_by: Mapping[int, Call]) -> dict[int, Call]:
    """Per operand the call that makes it, where nothing else uses its result."""
    found: dict[int, Call] = {}
    for number, operand in enumerate(call.operands or ()):
        made = made_by.get(id(operand))
        if made is None and isinstance(operand, ast.Name):
            made = _assigned_call(operand, call, module, made_by)
        if made is not None and made.libraries == call.libraries:
            found[number] = made
    return found


def _assigned_call(name: ast.Name, call: Call, module: Module, made_by: Mapping[int, Call]) -> Call | None:
    """The call whose result a name holds, if that is all the name is for and both calls run equally often."""
    owner = call.scope.owner(name.id)
    bindings = [] if owner is None else owner.bindings[name.id]
    if owner is not call.scope or len(bindings) != 1 or len(module.uses[owner, name.id]) != 1:
        return None
    made = made_by.get(id(bindings[0]))
    if made is None or made.place.block is not call.place.block or made.place.repeated or call.place.repeated:
        return None
    if made.place.index >= call.place.index or not isinstance(_statement(call), ast.Assign | ast.Return | ast.Expr):
        return None
    between = call.place.block[made.place.index + 1 : call.place.index]
    inputs = {part.id for operand in made.operands or () for part in ast.walk(operand) if isinstance(part, ast.Name)}
    return None if _written(between) & inputs else made


def _statement(call: Call) -> ast.stmt:
    return call.place.block[call.place.index]


def _written(statements: list[ast.stmt]) -> set[str]:
    """The names that are bound, or whose items or attributes are."""
    names: set[str] = set()
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                root: ast.expr = node
                while isinstance(root, ast.Attribute | ast.Subscript):
                    root = root.value
                if isinstance(root, ast.Name):
                    names.add(root.id)
    return names


def _all_inner(call: Call, inner: Mapping[Call, dict[int, Call]]) -> list[Call]:
    return [part for made in inner[call].values() for part in (made, *_all_inner(made, inner))]


def _merged(call: Call, inner: Mapping[Call, dict[int, Call]]) -> str | None:
    """The subscripts of a call with its inner calls in their operands' places; None where that cannot be written."""
    subscripts = "".join(str(call.subscripts).split())
    expression = parse_unranked(subscripts)
    terms = subscripts.partition("->")[0].split(",")
    output = "".join(expression.names[label] for label in expression.output)
    taken = set(subscripts)
    merged: list[str] = []
    for number, term in enumerate(terms):
        made = inner[call].get(number)
        if made is None:
            merged.append(term)
            continue
        below = _merged(made, inner)
        if below is None:
            return None
        inputs, _, made_output = below.partition("->")
        if len(set(made_output)) < len(made_output) or len(made_output) != len(term):
            return None
        renamed = dict(zip(made_output, term, strict=True))
        for letter in sorted(set(inputs) - set(made_output) - {","}):
            free = letter if letter not in taken else next((one for one in _LETTERS if one not in taken), None)
            if free is None:
                return None
            renamed[letter] = free
            taken.add(free)
        merged.append("".join(renamed.get(letter, letter) for letter in inputs))
    return f"{','.join(merged)}->{output}"


def _flops(subscripts: str) -> int:
    return least_flops(at_equal_extents(parse_unranked(subscripts)))
