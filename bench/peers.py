"""The contenders: how each library's einsum is opened, fed and called, the way its own users do."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Array, as_dtype

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Library:
    """An opened library.

    call: the statement to time, with `{subscripts}` (a literal) and `{operands}` (names, with commas) filled in; the
    result is complete when it ends. function(subscripts): what the name `einsum` in it stands for.
    convert: a NumPy array to the library's own; fetch: a result back to NumPy. spaces: whether
    it accepts spaces in subscripts.
    """

    function: Callable[[str], Callable[..., Any]]
    call: str = "einsum({subscripts!r}, {operands})"
    convert: Callable[[Array], Any] = np.asarray
    fetch: Callable[[Any], Array] = np.asarray
    spaces: bool = True


@dataclass(frozen=True, slots=True)
class Contender:
    """A library in the race: the module and distribution it needs, and `open(threads)`, run in its own process."""

    name: str
    module: str
    distribution: str
    open: Callable[[int], Library]

    def absent(self) -> str:
        """Why it cannot take part, or ""."""
        return "" if importlib.util.find_spec(self.module) else f"{self.module} is not installed"

    def version(self) -> str:
        """The version of the installed distribution, or "from source"."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "from source"


def _import(module: str) -> Any:
    return importlib.import_module(module)


def _numpy(threads: int) -> Library:
    return Library(lambda _: np.einsum)


def _numpy_optimized(threads: int) -> Library:
    return Library(lambda _: np.einsum, "einsum({subscripts!r}, {operands}, optimize=True)")


def _opt_einsum(threads: int) -> Library:
    opt_einsum = _import("opt_einsum")

    return Library(lambda _: opt_einsum.contract)


def _cotengra(threads: int) -> Library:
    cotengra = _import("cotengra")

    return Library(lambda _: cotengra.einsum, spaces=False)


def _torch(threads: int) -> Library:
    torch = _import("torch")

    torch.set_num_threads(threads)

    def convert(array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
        if min(array.strides, default=0) < 0:
            array = np.ascontiguousarray(array)
        return torch.from_numpy(array)

    def fetch(tensor: Any) -> Array:
        if tensor.dtype is torch.bfloat16:
            return np.asarray(tensor.float().numpy().astype(as_dtype("bfloat16")))
        return np.asarray(tensor.numpy())

    return Library(lambda _: torch.einsum, convert=convert, fetch=fetch)


def _jax(threads: int) -> Library:
    jax = _import("jax")
    jnp = jax.numpy

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)

    def function(subscripts: str) -> Callable[..., Any]:
        compiled: Callable[..., Any] = jax.jit(lambda *operands: jnp.einsum(subscripts, *operands))
        return compiled

    return Library(function, "einsum({operands}).block_until_ready()", convert=jnp.asarray)


def _tensorflow(threads: int) -> Library:
    tf = _import("tensorflow")

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return Library(lambda _: tf.einsum, convert=tf.constant, fetch=lambda tensor: np.asarray(tensor.numpy()))


def _pytblis(threads: int) -> Library:
    pytblis = _import("pytblis")

    pytblis.set_num_threads(threads)
    return Library(lambda _: pytblis.einsum)


def _ours(threads: int) -> Library:
    einstride = _import("einstride")

    return Library(lambda _: einstride.einsum)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("numpy", "numpy", "numpy", _numpy),
        Contender("numpy opt", "numpy", "numpy", _numpy_optimized),
        Contender("opt_einsum", "opt_einsum", "opt_einsum", _opt_einsum),
        Contender("cotengra", "cotengra", "cotengra", _cotengra),
        Contender("torch", "torch", "torch", _torch),
        Contender("jax", "jax", "jax", _jax),
        Contender("tensorflow", "tensorflow", "tensorflow-cpu", _tensorflow),
        Contender("pytblis", "pytblis", "pytblis", _pytblis),
        Contender(OURS, "einstride", "einstride", _ours),
    )
}
