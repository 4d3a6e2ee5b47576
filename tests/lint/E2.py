import numpy as np
import torch

np.einsum("ij,jk->ik", a)
#         ^^^^^^^^^^^ E2 the subscripts have 2 terms for 1 operand
np.einsum("ij->i", a, b, optimize=True)
#         ^^^^^^^ E2 the subscripts have 1 term for 2 operands
np.einsum("ij->i")
#         ^^^^^^^ E2 the subscripts have 1 term for 0 operands
np.einsum("ij,jk->ik", [a, b])
#         ^^^^^^^^^^^ E2 the subscripts have 2 terms for 1 operand
torch.einsum("ij,jk->ik", [a, b, c])
#            ^^^^^^^^^^^ E2 the subscripts have 2 terms for 3 operands

# How many operands there are is not known.
np.einsum("ij,jk->ik", *operands)
torch.einsum("ij,jk->ik", operands)
torch.einsum("ij,jk->ik", [a, *operands])
torch.einsum("ij,jk->ik", [a, b])
