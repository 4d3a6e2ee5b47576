import einstride
import numpy as np

np.einsum("i,j->iij", a, b)
#                ^ E4 output label `i` appears 2 times, which only einstride accepts
einstride.einsum("i,j->iij", a, b)
np.einsum("iλ->i", a)
#           ^ E4 label `λ` is not one of a-z and A-Z, which are all that numpy accepts
einstride.einsum("iλ->i", a)
