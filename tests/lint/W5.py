import numpy as np
import opt_einsum

np.einsum("ij,jk,kl->il", a, b, c)
#         ^^^^^^^^^^^^^^ W5 numpy.einsum multiplies all 3 operands in one loop nest; optimize=True contracts them in pairs

np.einsum("ij,jk,kl->il", a, b, c, optimize=True)
np.einsum("ij,jk,kl->il", a, b, c, **options)
np.einsum("i,j,k->ijk", a, b, c)  # pairs are no cheaper
np.einsum("i,i,i->", a, b, c)
opt_einsum.contract("ij,jk,kl->il", a, b, c)
