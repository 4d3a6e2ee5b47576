import numpy as np
from numpy import half
import torch


def sums(a, x):
    np.einsum("ij->i", a, dtype=np.float16)
    #         ^^^^^^^ W3 the sum over `j` is kept in float16, of 3 digits and at most 65504; sum in float32
    np.einsum("i,i->", a.astype("float16"), x.astype(half))
    #         ^^^^^^^ W3 the sum over `i` is kept in float16, of 3 digits and at most 65504; sum in float32
    h = np.zeros((3, 4), dtype="f2")
    np.einsum("ij->", h)
    #         ^^^^^^ W3 the sum over `i`, `j` is kept in float16, of 3 digits and at most 65504; sum in float32

    np.einsum("ij->ji", h)  # nothing is summed
    np.einsum("ij->i", h, dtype=np.float32)
    np.einsum("i,i->", a.astype("float16"), x)  # x may be of another type
    torch.einsum("ij->i", h)
