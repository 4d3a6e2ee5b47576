import numpy as np

np.einsum("i->q", a)  # einstride: ignore
np.einsum("i->q", a)  # einstride: ignore[E3]
np.einsum("i->q", a)  # einstride: ignore[E1, E3] because
np.einsum(  # einstride: ignore
    "i->q",
    a,
)
np.einsum("i->q", a)  # einstride: ignore[W3]
#             ^ E3 output label `q` is in no operand; did you mean `i`?
