import jax.numpy as jnp
import numpy as np


def nested(a, b, v):
    return np.einsum("ik,k->i", np.einsum("ij,jk->ik", a, b), v)
    #                ^^^^^^^^^ W4 `ij,jk->ik` and `ik,k->i` would be cheaper as one: `ij,jk,k->i` with optimize=True


def named(a, b, v):
    x = np.einsum("pq,qr->pr", a, b)
    y = 3
    return np.einsum("ij,j->i", x, v) + y
    #                ^^^^^^^^^ W4 `pq,qr->pr` and `ij,j->i` would be cheaper as one: `iq,qj,j->i` with optimize=True


def three(a, b, c, v):
    x = np.einsum("ij,jk->ik", a, b)
    y = np.einsum("ij,jk->ik", x, c)
    return np.einsum("ij,j", y, v)
    #                ^^^^^^ W4 `ij,jk->ik` and `ij,jk->ik` and `ij,j` would be cheaper as one: `ia,ab,bj,j->i` with optimize=True


def used_twice(a, b, v):
    x = np.einsum("ij,jk->ik", a, b)
    return np.einsum("ij,j->i", x, v) + x


def hoisted(a, b, vs):
    x = np.einsum("ij,jk->ik", a, b)
    for v in vs:
        print(np.einsum("ij,j->i", x, v))
    z = np.einsum("ij,jk->ik", a, b)
    return [np.einsum("ij,j->i", z, v) for v in vs]


def changed_between(a, b, v):
    x = np.einsum("ij,jk->ik", a, b)
    a[0] = 1
    return np.einsum("ij,j->i", x, v)


def no_cheaper(a, b, c):
    return np.einsum("ik,kl->il", np.einsum("ij,jk->ik", a, b), c)


def of_another_type(a, b, v):
    return np.einsum("ik,k->i", np.einsum("ij,jk->ik", a, b, dtype=float), v)


def in_jax(a, b, v):
    return jnp.einsum("ik,k->i", jnp.einsum("ij,jk->ik", a, b), v)
    #                 ^^^^^^^^^ W4 `ij,jk->ik` and `ik,k->i` would be cheaper as one: `ij,jk,k->i`


def of_two_libraries(a, b, v):
    return np.einsum("ik,k->i", jnp.einsum("ij,jk->ik", a, b), v)
