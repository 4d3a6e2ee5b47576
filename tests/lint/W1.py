import jax.numpy as jnp
import numpy as np

np.einsum("ij,kl->ik", a, b)
#           ^ W1 label `j` is in operand 0 alone and not in the output, so it is summed away
#              ^ W1 label `l` is in operand 1 alone and not in the output, so it is summed away
c = jnp.einsum(a, [0, 1], b, [1, 2], [0])
#   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ W1 label `2` is in operand 1 alone and not in the output, so it is summed away

# One operand is there to be summed, and so is the trace in a product.
np.einsum("ij->i", a)
np.einsum("ii,jk->jk", a, b)
