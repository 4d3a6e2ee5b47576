"""Benchmarks as code: `python -m bench` times einsum libraries side by side on the same operands."""
