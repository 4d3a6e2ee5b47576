import numpy as np

np.einsum("ij,jk->iq", a, b)
#                  ^ E3 output label `q` is in no operand; did you mean `k`?
np.einsum("ij -> J", a)
#                ^ E3 output label `J` is in no operand; did you mean `j`?
c = np.einsum(a, [0, 1], [2])
#   ^^^^^^^^^^^^^^^^^^^^^^^^^ E3 output label `2` is in no operand
