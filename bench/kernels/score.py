"""Scoring: 1,000 candidates on one request, and the tower of the request itself."""

import ctypes
from functools import partial

import numpy as np

import rtb.cli.main  # noqa: F401  (names the kernel cache)
from bench.kernels.line import measure, show
from rtb.decide.score import ROW, kernel_addresses

CANDIDATES = (50, 1_000)
CREATIVES = 30_000
BITS = 18
TOKENS = 40


def main() -> None:
    """Prints a JSON line a case."""
    chance = np.random.default_rng(7)
    table = chance.normal(0, 0.05, (1 << BITS, ROW)).astype(np.float32)
    ad_rows = chance.normal(0, 0.05, (CREATIVES, ROW)).astype(np.float32)
    query = chance.normal(0, 0.05, ROW).astype(np.float32)
    hashes = chance.integers(0, 1 << 63, TOKENS, dtype=np.uint64)
    out = np.zeros(max(CANDIDATES))
    addresses = kernel_addresses()
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    vector = ctypes.CFUNCTYPE(None, pointer, number, pointer, number, pointer)(
        addresses["request_vector"]
    )
    score = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, real, real, real, pointer)(
        addresses["score"]
    )
    tower = (table.ctypes.data, BITS, hashes.ctypes.data, TOKENS, query.ctypes.data)
    show("request_vector", measure(lambda: vector(*tower), 5_000), tokens=TOKENS)
    for count in CANDIDATES:
        # Candidates of one request lie all over the catalogue.
        chosen = chance.choice(CREATIVES, count, replace=False).astype(np.int32)
        arguments = (
            ad_rows.ctypes.data, query.ctypes.data, chosen.ctypes.data, count, -4.0, 1.0, 0.0,
            out.ctypes.data,
        )  # fmt: skip
        show(f"score_{count}", measure(partial(score, *arguments), 2_000), candidates=count)


if __name__ == "__main__":
    main()
