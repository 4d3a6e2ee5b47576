"""Finding the einsum calls of a syntax tree: names are followed through imports and single assignments, by scope."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

# The functions that read subscripts as NumPy does, and the library each belongs to.
EINSUMS = {
    "numpy.einsum": "numpy",
    "jax.numpy.einsum": "jax",
    "torch.einsum": "torch",
    "torch.functional.einsum": "torch",
    "tensorflow.einsum": "tensorflow",
    "tensorflow.linalg.einsum": "tensorflow",
    "opt_einsum.contract": "opt_einsum",
    "cupy.einsum": "cupy",
    "dask.array.einsum": "dask",
    "autograd.numpy.einsum": "autograd",
    "einstride.einsum": "einstride",
}

# What a name is bound to: the dotted path of an import, the value of an assignment, or something else.
Binding: TypeAlias = "str | ast.expr | None"


@dataclass(eq=False, slots=True)
class Scope:
    """The names that a module, a class, a function or a lambda binds."""

    parent: Scope | None
    is_class: bool = False
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    elsewhere: dict[str, Scope] = field(default_factory=dict)  # by `global` and `nonlocal`

    def bind(self, name: str, binding: Binding) -> None:
        self.elsewhere.get(name, self).bindings.setdefault(name, []).append(binding)

    def owner(self, name: str) -> Scope | None:
        """The scope whose ``name`` a use in this scope means."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.elsewhere:
                return scope.elsewhere[name]
            if name in scope.bindings and (scope is self or not scope.is_class):
                return scope
            scope = scope.parent
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """Where code runs: a statement of a block, and the comprehension or lambda in it that may repeat the code."""

    block: list[ast.stmt]
    index: int
    repeated: ast.AST | None


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """An einsum call, as far as the source tells it.

    ``subscripts`` is the string that the literal ``node`` holds, or the label lists of the interleaved form with the
    output's, or None, last; ``operands`` is None where their number is not known.
    """

    function: ast.Call
    scope: Scope
    place: Place
    libraries: frozenset[str]
    node: ast.expr
    subscripts: str | tuple[tuple[Hashable, ...] | None, ...]
    operands: tuple[ast.expr, ...] | None

    @property
    def keywords(self) -> dict[str | None, ast.expr]:
        """The keywords; ``**`` is under None."""
        return {keyword.arg: keyword.value for keyword in self.function.keywords}


@dataclass(frozen=True, slots=True)
class Module:
    """The einsum calls of a source in its order, and every use of each name."""

    calls: tuple[Call, ...]
    uses: dict[tuple[Scope, str], list[ast.Name]]


def resolve(expression: ast.expr, scope: Scope, depth: int = 8) -> frozenset[str]:
    """The dotted paths that a name or attribute may stand for; none if it may stand for anything else."""
    if isinstance(expression, ast.Attribute):
        return frozenset([f"{path}.{expression.attr}" for path in resolve(expression.value, scope, depth)])
    if not isinstance(expression, ast.Name) or not depth:
        return frozenset()
    owner = scope.owner(expression.id)
    paths: set[str] = set()
    for binding in () if owner is None else owner.bindings.get(expression.id, ()):
        if isinstance(binding, ast.Constant) and binding.value is None:
            continue  # what stands in for a library that cannot be imported
        found = {binding} if isinstance(binding, str) else set()
        if isinstance(binding, ast.expr) and owner is not None:
            found = set(resolve(binding, owner, depth - 1))
        if not found:
            return frozenset()
        paths |= found
    return frozenset(paths)


def assigned(expression: ast.expr, scope: Scope) -> ast.expr:
    """The value of a name that is assigned once; any other expression as it is."""
    if isinstance(expression, ast.Name):
        owner = scope.owner(expression.id)
        bindings = [] if owner is None else owner.bindings.get(expression.id, [])
        if len(bindings) == 1 and isinstance(bindings[0], ast.expr):
            return bindings[0]
    return expression


def find_calls(tree: ast.Module) -> Module:
    """Every call of an einsum whose subscripts, or labels, are literal.

    >>> found = find_calls(ast.parse("import numpy as xp\\nxp.einsum('ij->i', a)"))
    >>> [(call.subscripts, sorted(call.libraries)) for call in found.calls]
    [('ij->i', ['numpy'])]
    """
    reader = _Reader(tree)
    uses: dict[tuple[Scope, str], list[ast.Name]] = {}
    for name, scope in reader.names:
        owner = scope.owner(name.id)
        if owner is not None:
            uses.setdefault((owner, name.id), []).append(name)
    calls = [call for candidate in reader.calls if (call := _einsum(*candidate)) is not None]
    return Module(tuple(calls), uses)


def _einsum(function: ast.Call, scope: Scope, place: Place) -> Call | None:
    paths = resolve(function.func, scope)
    if not paths or not paths <= EINSUMS.keys() or not function.args or isinstance(function.args[0], ast.Starred):
        return None
    libraries = frozenset([EINSUMS[path] for path in paths])
    first, *rest = function.args
    literal = assigned(first, scope)
    if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
        operands = None if any(isinstance(operand, ast.Starred) for operand in rest) else tuple(rest)
        if libraries == {"torch"} and len(rest) == 1:  # torch takes its operands in a list, too
            listed = rest[0]
            single = isinstance(listed, ast.List | ast.Tuple)
            starred = single and any(isinstance(item, ast.Starred) for item in listed.elts)  # type: ignore[attr-defined]
            operands = tuple(listed.elts) if single and not starred else None  # type: ignore[attr-defined]
        return Call(function, scope, place, libraries, literal, literal.value, operands)
    terms = [_labels(argument) for argument in function.args[1::2]]
    output = _labels(function.args[-1]) if len(function.args) % 2 else None
    if not terms or None in terms or (output is None and len(function.args) % 2):
        return None
    return Call(
        function, scope, place, libraries, function, (*terms, output), tuple(function.args[: len(terms) * 2 : 2])
    )


def _labels(argument: ast.expr) -> tuple[Hashable, ...] | None:
    """A literal list of numbers and ellipses."""
    if not isinstance(argument, ast.List | ast.Tuple):
        return None
    values = [item.value if isinstance(item, ast.Constant) else None for item in argument.elts]
    known = all(value is Ellipsis or (isinstance(value, int) and not isinstance(value, bool)) for value in values)
    return tuple(values) if known else None


class _Reader(ast.NodeVisitor):
    """Collects bindings, uses of names and calls, each with its scope."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = self.scope = Scope(None)
        self.place = Place(tree.body, 0, None)
        self.names: list[tuple[ast.Name, Scope]] = []
        self.calls: list[tuple[ast.Call, Scope, Place]] = []
        self.refused = False  # a test expects the code to fail, so what is wrong with it is meant
        self.generic_visit(tree)

    def generic_visit(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list):
                outer = self.place
                for index, item in enumerate(value):
                    if isinstance(item, ast.stmt):
                        self.place = Place(value, index, None)
                    if isinstance(item, ast.AST):
                        self.visit(item)
                self.place = outer

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.names.append((node, self.scope))
        else:
            self.scope.bind(node.id, None)

    def visit_Call(self, node: ast.Call) -> None:
        if not self.refused:
            self.calls.append((node, self.scope, self.place))
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        outer = self.refused
        self.refused = outer or any(_expects_an_error(item.context_expr) for item in node.items)
        self.generic_visit(node)
        self.refused = outer

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            root = alias.name.partition(".")[0]
            self.scope.bind(alias.asname or root, alias.name if alias.asname else root)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name != "*":
                self.scope.bind(alias.asname or alias.name, f"{module}.{alias.name}")
            elif f"{module}.einsum" in EINSUMS:
                self.scope.bind("einsum", f"{module}.einsum")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self._assign(node.target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.scope.bind(target.id, value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for part, item in zip(target.elts, value.elts, strict=True):
                self._assign(part, item)
        else:
            self.visit(target)

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.elsewhere.update(dict.fromkeys(node.names, self.module))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        for name in node.names:
            owner = self.scope.parent and self.scope.parent.owner(name)
            if owner is not None:
                self.scope.elsewhere[name] = owner

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.scope.bind(node.name, None)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self.scope.bind(node.name, None)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.scope.bind(node.name, None)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.scope.bind(node.name, None)
        for part in (*node.decorator_list, *_outside(node.args), *([node.returns] if node.returns else [])):
            self.visit(part)
        self._enter(node.args, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in _outside(node.args):
            self.visit(part)
        outer = self.place
        self.place = Place(outer.block, outer.index, node)
        self._enter(node.args, [node.body])
        self.place = outer

    def _enter(self, arguments: ast.arguments, body: list[ast.stmt] | list[ast.expr]) -> None:
        outer, self.scope = self.scope, Scope(self.scope)
        for argument in _parameters(arguments):
            self.scope.bind(argument.arg, None)
        self.generic_visit(ast.Module(body, []))  # type: ignore[arg-type]
        self.scope = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.bind(node.name, None)
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, self.scope = self.scope, Scope(self.scope, is_class=True)
        self.generic_visit(ast.Module(node.body, []))
        self.scope = outer

    def visit_comprehension_of(self, node: ast.AST) -> None:
        outer = self.place
        self.place = Place(outer.block, outer.index, node)
        self.generic_visit(node)
        self.place = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of


def _expects_an_error(context: ast.expr) -> bool:
    """Whether a ``with`` is pytest's ``raises(...)``, unittest's ``assertRaises(...)`` or alike."""
    function = context.func if isinstance(context, ast.Call) else context
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return "raises" in name.casefold()


def _outside(arguments: ast.arguments) -> Iterator[ast.expr]:
    """The parts of a function's arguments that the scope around it evaluates."""
    yield from arguments.defaults
    yield from (default for default in arguments.kw_defaults if default is not None)
    yield from (argument.annotation for argument in _parameters(arguments) if argument.annotation is not None)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]
