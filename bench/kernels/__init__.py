"""Kernels alone: each module prints a JSON line a kernel, `python -m bench.kernels` keeps them."""
