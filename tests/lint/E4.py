import einstride
import numpy as np

np.einsum("i,j->iij", a, b)
#                ^ E4 output label `i` appears 2 times, which only einstride accepts
einstride.einsum("i,j->iij", a, b)
