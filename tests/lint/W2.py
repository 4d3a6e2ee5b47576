import numpy as np

np.einsum("ba", x)
#         ^^^^ W2 the output, left out, is `ab`, sorted; write it, if it is meant, or else `ba`
np.einsum("kj,ji", x, y)
#         ^^^^^^^ W2 the output, left out, is `ik`, sorted; write it, if it is meant, or else `ki`
np.einsum("...ba", x)
#         ^^^^^^^ W2 the output, left out, is `...ab`, sorted; write it, if it is meant, or else `...ba`
z = np.einsum(x, [1, 0])
#   ^^^^^^^^^^^^^^^^^^^^ W2 the output, left out, is `[0, 1]`, sorted; write it, if it is meant, or else `[1, 0]`

np.einsum("ij,jk", x, y)
np.einsum("ba->ab", x)
np.einsum("ii", x)
