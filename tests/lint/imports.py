"""Every way to an einsum that is followed, and some that only look like one."""

import functools

import einstride as es
import jax.numpy as jnp
import numpy
import numpy as xp
import opt_einsum as oe
import tensorflow as tf
import torch
from jax import numpy as other
from numpy import einsum
from numpy import einsum as total
from opt_einsum import contract

try:
    import cupy as cp
except ImportError:
    cp = None

product = xp.einsum
SUBSCRIPTS = "i->q"
#                ^ E3 output label `q` is in no operand; did you mean `i`?

numpy.einsum("i->q", a)
#                ^ E3 output label `q` is in no operand; did you mean `i`?
xp.einsum("i->q", a)
#             ^ E3 output label `q` is in no operand; did you mean `i`?
einsum("i->q", a)
#          ^ E3 output label `q` is in no operand; did you mean `i`?
total("i->q", a)
#         ^ E3 output label `q` is in no operand; did you mean `i`?
product("i->q", a)
#           ^ E3 output label `q` is in no operand; did you mean `i`?
jnp.einsum("i->q", a)
#              ^ E3 output label `q` is in no operand; did you mean `i`?
other.einsum("i->q", a)
#                ^ E3 output label `q` is in no operand; did you mean `i`?
torch.einsum("i->q", a)
#                ^ E3 output label `q` is in no operand; did you mean `i`?
tf.einsum("i->q", a)
#             ^ E3 output label `q` is in no operand; did you mean `i`?
oe.contract("i->q", a)
#               ^ E3 output label `q` is in no operand; did you mean `i`?
contract("i->q", a)
#            ^ E3 output label `q` is in no operand; did you mean `i`?
es.einsum("i->q", a)
#             ^ E3 output label `q` is in no operand; did you mean `i`?
cp.einsum("i->q", a)
#             ^ E3 output label `q` is in no operand; did you mean `i`?


def inside(a, xp):
    import numpy as np

    np.einsum(SUBSCRIPTS, a)
    xp.einsum("i->q", a)  # a parameter

    class Kept:
        value = np.einsum("i->q", a)
        #                     ^ E3 output label `q` is in no operand; did you mean `i`?

    def einsum(*arguments):
        return arguments

    return einsum("i->q", a), Kept, lambda torch: torch.einsum("i->q", a)


def unknown(a, text):
    for name in "ab":
        text = name
    numpy.einsum(text, a)
    numpy.einsum(f"{text}->q", a)
    numpy.einsum("i->" + text, a)
    functools.partial(numpy.einsum, "i->q")
    a.einsum("i->q", a)
    einops.einsum(a, "i -> q")


def expected(pytest, unittest):
    with pytest.raises(ValueError):
        numpy.einsum("i->q", a)
    with unittest.assertRaisesRegex(ValueError, "q"):
        numpy.einsum("i->q", a)
