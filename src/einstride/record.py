"""einsum for a program that calls NumPy's or opt_einsum's: served by ours, with an account of every call."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, TypeAlias

import numpy as np

from .api import Plan, einsum, plan
from .cost import naive_flops
from .expression import spell

Einsum: TypeAlias = Callable[..., Any]

# Timing NumPy may take so much of the program's time: a part of what has passed, and what a short program can bear.
SAMPLED_PART = 0.1
SAMPLED_SECONDS = 0.5
# What NumPy's einsum needs for a multiply-add where that is not measured yet, on the careful side; it adds 16-bit
# floats one by one in software.
TERM_SECONDS = 2e-9
HALF_TERM_SECONDS = 1e-8
# With more labels even extents of 2 are many terms.
MOST_SMALL_LABELS = 10


@dataclass(slots=True)
class Row:
    """The calls that one place in the program makes with operands of the same shapes and dtypes.

    Attributes:
        code, instruction: the place.
        subscripts, shapes, dtypes: of the call, as far as they are known.
        plan: how ours does it; None where it refuses.
        like: what the program's own einsum returns for such a call: a type and a dtype.
        kernel: the kernels that ran, ``"view"``, or whose einsum was called instead of ours.
        refused: why the calls go to the program's own einsum; empty where ours serves them.
        count, seconds: how many calls, and the time they took together, planning included.
        planning: the seconds that planning took.
        sampled: seconds that the program's own einsum took for such a call.
        due: the count of calls at which the next is looked at more closely.
        checked: None, or what `Recorder` with ``check`` found: empty where both results agree.
    """

    code: CodeType
    instruction: int
    subscripts: str
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()
    plan: Plan | None = None
    like: tuple[type, Any] = (type(None), None)
    kernel: str = ""
    refused: str = ""
    count: int = 0
    seconds: float = 0.0
    planning: float = 0.0
    sampled: list[float] = field(default_factory=list)
    due: int = 0
    checked: str | None = None

    @property
    def file(self) -> str:
        return self.code.co_filename

    @property
    def line(self) -> int:
        """The number of the line that calls, as tracebacks count."""
        spans = self.code.co_lines()
        return next((line for start, end, line in spans if start <= self.instruction < end and line), 0)

    @property
    def own_seconds(self) -> float | None:
        """What the program's own einsum would have taken for all calls together, if that is known."""
        if self.refused:
            return self.seconds
        return statistics.median(self.sampled) * self.count if self.sampled else None


@dataclass(slots=True)
class Recorder:
    """Serves a program's einsum calls and keeps a `Row` for each kind of call.

    With ``check`` the first call of every kind is also computed by the program's own einsum and compared.
    A call that ours refuses goes to the program's own einsum, whose exception (or result) is then the program's; so
    does one that only ours would accept.

    >>> recorder = Recorder()
    >>> with recorder.serving():
    ...     trace = np.einsum("ii->", np.eye(3))
    >>> row, = recorder.rows
    >>> row.subscripts, row.shapes, row.dtypes, row.count
    ('ii->', ((3, 3),), ('float64',), 1)
    """

    check: bool = False
    sampling_seconds: float = 0.0
    _rows: dict[Hashable, Row] = field(default_factory=dict)
    _serving: bool = False
    _started: float = field(default_factory=time.perf_counter)
    _alone_threads: set[int] = field(default_factory=set)

    @property
    def rows(self) -> list[Row]:
        """One a kind of call, those that took longest first."""
        return sorted((row for row in self._rows.values() if row.count), key=lambda row: -row.seconds)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Put ours in the place of numpy.einsum, and of opt_einsum.contract when it is imported, for this while."""
        replaced: list[tuple[ModuleType, str, object, object]] = []

        def replace(original: Einsum, ours: Einsum, name: str, modules: Iterable[ModuleType | None]) -> None:
            for module in modules:
                if module is not None and vars(module).get(name) is original:
                    replaced.append((module, name, original, ours))
                    setattr(module, name, ours)

        def replace_contract(module: ModuleType) -> None:
            original = module.contract
            replace(original, self._contract(original), "contract", (sys.modules.get("opt_einsum.contract"), module))

        homes = ("numpy", "numpy._core", "numpy._core.einsumfunc", "numpy.core", "numpy.core.einsumfunc")
        replace(np.einsum, self._numpy(np.einsum), "einsum", map(sys.modules.get, homes))
        finder = _OnImport("opt_einsum", replace_contract)
        if "opt_einsum" in sys.modules:
            replace_contract(sys.modules["opt_einsum"])
        else:
            sys.meta_path.insert(0, finder)
        self._serving = True
        try:
            yield
        finally:
            # Whoever has kept one of ours calls the original through it from now on.
            self._serving = False
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
            for module, name, original, ours in reversed(replaced):
                if vars(module).get(name) is ours:
                    setattr(module, name, original)

    def _numpy(self, original: Einsum) -> Einsum:
        """What stands in for numpy.einsum: of its type, so that other array types take it over as they do NumPy's."""

        def relevant(*operands: Any, out: Any = None, **options: Any) -> tuple[Any, ...]:
            return operands if out is None else (*operands, out)

        dispatcher: Any = type(original)
        served: Einsum = functools.update_wrapper(dispatcher(relevant, self._served(original)), original)
        return served

    def _contract(self, original: Einsum) -> Einsum:
        """What stands in for opt_einsum.contract: ours for the calls that leave the order and the backend to it."""
        return functools.update_wrapper(self._served(original, _numpy_options), original)

    def _served(
        self,
        original: Einsum,
        translate: Callable[[Sequence[Any], dict[str, Any]], dict[str, Any] | None] | None = None,
    ) -> Einsum:
        """A function that takes ``original``'s place.

        ``translate`` gives ours the options of ``original``, or None for a call that is none of ours. A call that has
        come before costs some two microseconds beside what it computes.
        """
        rows, alone = self._rows, self._alone_threads
        array, clock, frame, thread = np.ndarray, time.perf_counter, sys._getframe, threading.get_ident

        def served(*operands: Any, **options: Any) -> Any:
            asked = options if translate is None else translate(operands, options)
            if asked is None or not self._serving or (alone and thread() in alone):
                return original(*operands, **options)
            caller = frame(1)
            # A code object's hash goes through all of it; the row keeps the object, so that its id stays its own.
            key: list[Hashable] = [id(caller.f_code), caller.f_lasti]
            for value in operands:
                if type(value) is array:
                    key += value.shape, value.dtype
                else:
                    key.append(value if type(value) is str else _kind(value))
            for name, value in options.items():
                key += name, _kind(value)
            known = tuple(key)
            row = rows.get(known)
            if row is None:
                begun = self._begin(original, caller.f_code, caller.f_lasti, operands, options, asked)
                row = rows.setdefault(known, begun)
            count = row.count
            row.count = count + 1
            if count >= row.due:
                return self._attend(row, original, operands, options, asked)
            start = clock()
            try:
                result = einsum(*operands, **asked)
            except Exception as error:
                refused = str(error)
            else:
                row.seconds += clock() - start
                return np.asarray(result) if row.like[0] is array else result
            return self._refuse(row, refused, original, operands, options)

        return served

    def _attend(
        self, row: Row, original: Einsum, operands: tuple[Any, ...], options: dict[str, Any], asked: dict[str, Any]
    ) -> Any:
        """A call of a row that is due, the 1st, 2nd, 4th, ...: look at what happens as well as doing it."""
        if row.refused:
            return self._refuse(row, row.refused, original, operands, options)
        first, row.due = row.due == 0, 2 * row.due + 1
        # Before ours, which may write over an operand.
        self._sample(row, original, operands, options)
        wanted = None
        if self.check and first:
            # A call that cannot be computed twice, for want of memory say, is the program's all the same.
            with contextlib.suppress(Exception):
                wanted = self._reference(row, original, operands)
        start = time.perf_counter()
        try:
            result = einsum(*operands, **asked)
        except Exception as error:
            refused = str(error)
        else:
            row.seconds += time.perf_counter() - start
            refused = _unlike(result, row.like)
        if refused:
            return self._refuse(row, refused, original, operands, options)
        if first:
            row.kernel = _kernels(row, operands, result, options)
        if wanted is not None:
            row.checked = _compare(result, *wanted)
        return np.asarray(result) if row.like[0] is np.ndarray else result

    def _refuse(
        self, row: Row, refused: str, original: Einsum, operands: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Have the program's own einsum answer, from now on: its result and its exceptions are what was expected."""
        row.refused, row.due, row.kernel = refused, 0, _library(original)
        start = time.perf_counter()
        try:
            return original(*operands, **options)
        finally:
            row.seconds += time.perf_counter() - start

    def _begin(
        self,
        original: Einsum,
        code: CodeType,
        instruction: int,
        operands: tuple[Any, ...],
        options: dict[str, Any],
        asked: dict[str, Any],
    ) -> Row:
        """A new row, planned, and refused where the program's own einsum would not take the call."""
        start = time.perf_counter()
        row = Row(code, instruction, operands[0].replace(" ", "") if operands and isinstance(operands[0], str) else "?")
        try:
            places = _arrays(operands)
            arrays = places[_values(operands)]
            row.shapes, row.dtypes = tuple(array.shape for array in arrays), tuple(array.dtype.name for array in arrays)
            if any(array.dtype == object for array in arrays):
                raise TypeError("objects are multiplied by methods of their own, which may do anything")
            row.plan = plan(*places, **{name: asked[name] for name in ("dtype", "optimize") if name in asked})
            row.subscripts = spell(row.plan.problem.expression)[0]
            if row.plan.dtype.kind not in "cO" and any(array.dtype.kind == "c" for array in arrays):
                raise TypeError("imaginary parts are discarded, of which NumPy warns")
        except Exception as error:
            row.refused = str(error)
            return row
        row.seconds = row.planning = time.perf_counter() - start
        try:
            row.like = self._kind_of_result(row.plan, original, operands, options)
        except Exception as error:
            row.refused = f"{_library(original)} would not: {error}"
        return row

    def _kind_of_result(
        self, made: Plan, original: Einsum, operands: Sequence[Any], options: dict[str, Any]
    ) -> tuple[type, np.dtype[Any]]:
        """The type and dtype that the program's own einsum returns, or its exception: asked with small extents.

        Those are 2, since NumPy leaves out axes of extent 1 and may then return a scalar for an array.
        """
        extent = 2 if len(made.problem.extents) <= MOST_SMALL_LABELS else 1

        def corner(value: Any) -> Any:
            return value[(slice(extent),) * value.ndim] if type(value) is np.ndarray else value

        out = options.get("out")
        small = {**options, "out": np.empty_like(corner(out))} if type(out) is np.ndarray else options
        with self._alone():
            result = original(*map(corner, operands), **small)
        return type(result), result.dtype

    def _sample(self, row: Row, original: Einsum, operands: Sequence[Any], options: dict[str, Any]) -> None:
        """Time the program's own einsum on these operands if that is cheap enough."""
        if row.plan is None or not all(type(value) is np.ndarray for value in operands[_values(operands)]):
            return
        expected = row.sampled[-1] if row.sampled else _predicted(row.plan, original, options)
        allowed = SAMPLED_SECONDS + SAMPLED_PART * (time.perf_counter() - self._started)
        if self.sampling_seconds + expected > allowed:
            return
        own = {**options, "out": np.empty_like(options["out"])} if options.get("out") is not None else options
        with self._alone():
            start = time.perf_counter()
            original(*operands, **own)
            row.sampled.append(time.perf_counter() - start)
        self.sampling_seconds += row.sampled[-1]

    def _reference(self, row: Row, original: Einsum, operands: Sequence[Any]) -> tuple[Any, Any] | None:
        """The other result and how far a right one may be from it, entry by entry; None for what has no such bound.

        Integers are exact. Two sums of K products of n factors, each formed in any order, differ by at most
        2 (K + n) eps times the sum of the products' sizes (Higham, Accuracy and Stability of Numerical Algorithms,
        3.1). NumPy gets 16-bit floats as float32, in which ours adds them; both round once more then.
        """
        made = row.plan
        if made is None or made.dtype.kind not in "biufc":
            return None
        places, values = _arrays(operands), _values(operands)
        wide = np.dtype(np.float32) if made.dtype == np.float16 else made.dtype
        with self._alone():
            places[values] = [array.astype(wide, casting="unsafe") for array in places[values]]
            result = np.asarray(original(*places, optimize=True)).astype(made.dtype)
            if made.dtype.kind not in "fc":
                return result, 0
            places[values] = [np.abs(array) for array in places[values]]
            sizes = original(*places, optimize=True)
        summed = set(range(len(made.problem.extents))).difference(made.problem.expression.output)
        terms = math.prod(made.problem.extents[label] for label in summed) + len(row.shapes)
        rounding = 0 if wide == made.dtype else np.finfo(made.dtype).eps
        return result, (2 * terms * np.finfo(wide).eps + rounding) * sizes

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Calls inside go to the program's own einsum, are not counted, and raise no floating-point errors."""
        thread = threading.get_ident()
        self._alone_threads.add(thread)
        try:
            with np.errstate(all="ignore"):
                yield
        finally:
            self._alone_threads.discard(thread)


class _OnImport:
    """A finder that has something done to a module when it is imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then
        self._asking = False

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != self._name or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is None or spec.loader is None:
            return spec
        loader, load = spec.loader, spec.loader.exec_module

        def load_then(module: ModuleType) -> None:
            del loader.exec_module  # the method of its class is back
            load(module)
            self._then(module)

        loader.exec_module = load_then  # type: ignore[method-assign]
        return spec


def _library(original: Einsum) -> str:
    return original.__module__.partition(".")[0]


def _values(operands: Sequence[Any]) -> slice:
    """Where the operands are among the arguments: after the subscripts, or each before its labels."""
    return slice(1, None) if operands and isinstance(operands[0], str) else slice(0, len(operands) // 2 * 2, 2)


def _arrays(operands: Sequence[Any]) -> list[Any]:
    """The arguments with the operands as arrays."""
    places = list(operands)
    places[_values(operands)] = map(np.asarray, places[_values(operands)])
    return places


def _kind(value: Any) -> Hashable:
    """What calls are told apart by, of an argument that is not an array."""
    if value is None or isinstance(value, str | bool | type | np.dtype):
        return value
    if isinstance(value, list | tuple):
        labels = all(isinstance(item, int) or item is Ellipsis for item in value)
        return tuple(value) if labels else (type(value), len(value))
    return type(value), getattr(value, "shape", None), str(getattr(value, "dtype", ""))


def _numpy_options(operands: Sequence[Any], options: dict[str, Any]) -> dict[str, Any] | None:
    """opt_einsum's options as ours knows them; None where the call asks for what only opt_einsum has."""
    if not options.keys() <= {"out", "dtype", "order", "casting", "optimize", "use_blas", "memory_limit", "backend"}:
        return None
    if not isinstance(options.get("optimize", True), str | bool) or options.get("memory_limit") is not None:
        return None
    if options.get("backend", "auto") not in ("auto", "numpy") or not operands:
        return None
    if not all(type(value) is np.ndarray for value in operands[_values(operands)]):
        return None
    if sys.modules["opt_einsum.sharing"].currently_sharing():
        return None  # it keeps intermediates for the next call
    return {name: options[name] for name in ("out", "dtype", "order", "casting") if name in options}


def _predicted(made: Plan, original: Einsum, options: dict[str, Any]) -> float:
    """Seconds that the program's own einsum may need, on the careful side."""
    pairwise = bool(options.get("optimize", _library(original) != "numpy"))
    flops = made.cost.flops if pairwise else naive_flops(made.problem)
    return flops / 2 * (HALF_TERM_SECONDS if made.dtype == np.float16 else TERM_SECONDS)


def _kernels(row: Row, operands: Sequence[Any], result: Any, options: dict[str, Any]) -> str:
    arrays = [value for value in operands if type(value) is np.ndarray]
    if options.get("out") is None and any(np.may_share_memory(result, array) for array in arrays):
        return "view"
    program = row.plan.program if row.plan is not None else None
    return (
        "+".join(dict.fromkeys(step.kernel for step in program.steps if not step.arranges))
        if program is not None
        else "numpy"
    )


def _unlike(result: Any, like: tuple[type, Any]) -> str:
    """What of our result is not as the program's own einsum has it; a scalar and an array without axes convert."""
    if result.dtype != like[1]:
        return f"the result would be {result.dtype}, not {like[1]}"
    return "" if issubclass(like[0], np.generic) or like[0] is np.ndarray else f"the result would not be {like[0]}"


def _compare(result: Any, wanted: Any, allowed: Any) -> str:
    """What is wrong with a result; empty if nothing is."""
    if np.shape(result) != np.shape(wanted):
        return f"shape {np.shape(result)}, not {np.shape(wanted)}"
    with np.errstate(all="ignore"):
        if np.asarray(result).dtype.kind not in "fc":
            wrong = np.asarray(result != wanted)
            return f"{int(wrong.sum())} of {wrong.size} entries differ" if wrong.any() else ""
        apart = np.abs(result - wanted)
        # Where sums overflow there is no bound, and infinities and NaN depend on the order of summation.
        wrong = np.asarray(~(apart <= allowed) & np.isfinite(allowed) & np.isfinite(wanted))
        if not wrong.any():
            return ""
        worst = float(np.max(apart[wrong] if np.ndim(apart) else apart))
    return f"{int(wrong.sum())} of {wrong.size} entries differ, by up to {worst:.3g}"
