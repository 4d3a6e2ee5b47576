"""Attention in einsum's notation: products, a softmax over a label between them, in memory that grows with length."""

from __future__ import annotations

from .call import attend, attend_vjp
from .local import Chunks, Window, chunked, unchunked

__all__ = ["Chunks", "Window", "attend", "attend_vjp", "chunked", "unchunked"]
