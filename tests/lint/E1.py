import numpy as np

np.einsum("ij,jk>ik", a, b)
#               ^ E1 the '>' at position 5, in the term of operand 1, is not part of '->', which stands before the output
np.einsum("i%->i", a)
#           ^ E1 '%' at position 1, in the term of operand 0, is not a label; labels are letters
np.einsum("...i...->i", a)
#              ^^^ E1 the term of operand 0 has two ellipses; it can have one
np.einsum("i->i->i", a)
#              ^^ E1 '->' appears twice; it stands once, before the output
subscripts = "i..->i"
#              ^ E1 the '.' at position 1, in the term of operand 0, is not part of an ellipsis '...'
np.einsum(subscripts, a)
np.einsum("i\x07->i", a)
#         ^^^^^^^^^^ E1 '\x07' at position 1, in the term of operand 0, is not a label; labels are letters
"ä"; np.einsum("é1->", a)
#                ^ E1 '1' at position 1, in the term of operand 0, is not a label; labels are letters (numbers are labels in the form einsum(a, [0, 1], b, [1, 2], [0, 2]))
z = np.einsum(a, [..., 0, ...])
#   ^^^^^^^^^^^^^^^^^^^^^^^^^^^ E1 the term of operand 0 has two ellipses; it can have one
