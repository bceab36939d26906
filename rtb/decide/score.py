"""Scoring kernels (Numba): the functions that score a bid are those that training evaluates with.

A model head (click, or conversion after a click) is a factorisation machine over hashed tokens,

    logit(x) = bias + sum_i w[i] + sum_{i<j} <v[i], v[j]>         i, j over all tokens of x

in *two towers*: the pairs split into request-request, ad-ad and request-ad. The first two and the
weights belong to one side alone, and the last is the product of the two sums of factors, so that

    logit = bias + q[0] + a[0] + <q[1:9], a[1:9]>

where q is computed once a request and a once a creative, at publish. A candidate costs one product
of eight. Logistic regression is the same with factors of zero.

Tables are float32 of shape (2^bits, ROW): column 0 the weight, 1..8 the factors, the rest zero, so
that a row is one cache line. A token's row is `hash & (2^bits - 1)`. Both sides share one table:
the tokens of the ad side are hashed in a dimension of their own (`Dim.AD`), so they collide with
the request's no more than with each other. Towers are float32 of shape (ROW,), laid out alike.

The bid path calls C function pointers (`kernel_addresses`), with no Python in between. They wrap
the same jitted functions, compiled once and cached in NUMBA_CACHE_DIR; `warm` does it, under a
lock, before workers start. No fast-math: a NaN must stay one. Tables are finite by `Model.check`.
"""

import contextlib
import ctypes
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic
from numba.np.numpy_support import carray

ROW: Final = 16
FACTORS: Final = 8

# A logit beyond this is a probability of 0 or 1 to a float32; bounding it keeps exp finite.
LOGIT_MAX: Final = 30.0

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
Indexes = npt.NDArray[np.int32]

# To the first element of a C array of unknown length.
FloatPointer: TypeAlias = "ctypes._Pointer[ctypes.c_float]"
DoublePointer: TypeAlias = "ctypes._Pointer[ctypes.c_double]"
HashPointer: TypeAlias = "ctypes._Pointer[ctypes.c_uint64]"
IndexPointer: TypeAlias = "ctypes._Pointer[ctypes.c_int32]"

# Constants of the exponential: ROUNDER pushes the fraction out of a double, leaving the nearest
# integer in its low bits; LN2 is split so that n * LN2_HIGH is exact.
LOG2_E: Final = 1.4426950408889634
LN2_HIGH: Final = 6.93147180369123816490e-01
LN2_LOW: Final = 1.90821492927058770002e-10
ROUNDER: Final = 6755399441055744.0


Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compiles on first call, releases the interpreter lock, caches on disk."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@intrinsic
def _two_to(typing_context, shifted):  # type: ignore[no-untyped-def]
    """2^n as a double, for n held in the low bits of `shifted` = n + ROUNDER.

    To LLVM two bit casts and a shift; Numba has no spelling for them.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(arguments[0], ir.IntType(64))
        exponent = builder.add(bits, ir.Constant(ir.IntType(64), 1023))
        return builder.bitcast(
            builder.shl(exponent, ir.Constant(ir.IntType(64), 52)), ir.DoubleType()
        )

    return types.float64(types.float64), generate


two_to = cast("Callable[[float], float]", _two_to)


@kernel
def request_vector(table: Floats, hashes: Hashes, n: int, out: Floats) -> None:
    """The tower of one side: its weights and its own pairs in column 0, its factors in 1..8.

    Shapes: table (2^bits, ROW); hashes (>= n,), a set: a token given twice counts twice;
        out (ROW,), written in place.
    """
    mask = np.uint64(table.shape[0] - 1)
    total = np.float32(0.0)
    squares = np.float32(0.0)
    for column in range(ROW):
        out[column] = 0.0
    for i in range(n):
        row = hashes[i] & mask
        total += table[row, 0]
        for column in range(1, FACTORS + 1):
            factor = table[row, column]
            out[column] += factor
            squares += factor * factor
    pairs = np.float32(0.0)
    for column in range(1, FACTORS + 1):
        pairs += out[column] * out[column]
    out[0] = total + np.float32(0.5) * (pairs - squares)


@kernel
def ad_vectors(
    table: Floats, starts: Indexes, counts: Indexes, features: Hashes, out: Floats
) -> None:
    """The towers of all creatives, at publish.

    Shapes: starts, counts (n,), ranges of features; features (f,); out (n, ROW), written in place.
    """
    for i in range(starts.shape[0]):
        start = starts[i]
        request_vector(table, features[start : start + counts[i]], counts[i], out[i])


@kernel
def logit(q: Floats, a: Floats, bias: float) -> float:
    """The uncalibrated score of one request tower with one ad tower.

    The sum is spelled as a tree, which fits vector registers without leave to reorder floats.
    """
    product = ((q[1] * a[1] + q[5] * a[5]) + (q[3] * a[3] + q[7] * a[7])) + (
        (q[2] * a[2] + q[6] * a[6]) + (q[4] * a[4] + q[8] * a[8])
    )
    return bias + (np.float64(q[0]) + np.float64(a[0]) + np.float64(product))


@kernel
def probability(score: float, slope: float, shift: float) -> float:
    """The calibrated probability of a logit: 1 / (1 + exp(-(slope * score + shift))).

    NaN stays NaN. exp is written out, so that it vectorises: 2^n * e^r with |r| <= ln(2) / 2, and
    e^r by a polynomial of degree 11, within 1e-14 of the library's.
    """
    x = slope * score + shift
    x = LOGIT_MAX if x > LOGIT_MAX else x
    x = -LOGIT_MAX if x < -LOGIT_MAX else x
    shifted = -x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (-x - n * LN2_HIGH) - n * LN2_LOW
    power = 1.0 / 39916800.0
    power = power * r + 1.0 / 3628800.0
    power = power * r + 1.0 / 362880.0
    power = power * r + 1.0 / 40320.0
    power = power * r + 1.0 / 5040.0
    power = power * r + 1.0 / 720.0
    power = power * r + 1.0 / 120.0
    power = power * r + 1.0 / 24.0
    power = power * r + 1.0 / 6.0
    power = power * r + 0.5
    power = power * r + 1.0
    power = power * r + 1.0
    return 1.0 / (1.0 + power * two_to(shifted))


@kernel
def score(
    ad_rows: Floats,
    q: Floats,
    creatives: Indexes,
    n: int,
    bias: float,
    slope: float,
    shift: float,
    out: Doubles,
) -> None:
    """Probabilities of n candidates for one request.

    Shapes: ad_rows (creatives, ROW); q (ROW,); creatives (>= n,), rows of ad_rows, trusted to be
        in range; out (>= n,), written in place.
    """
    for i in range(n):
        out[i] = logit(q, ad_rows[creatives[i]], bias)
    for i in range(n):
        out[i] = probability(out[i], slope, shift)


def _request_vector_c(
    table: FloatPointer, bits: int, hashes: HashPointer, n: int, out: FloatPointer
) -> None:
    """`request_vector` for C: table has 2^bits rows."""
    request_vector(carray(table, (1 << bits, ROW)), carray(hashes, (n,)), n, carray(out, (ROW,)))


def _score_c(
    ad_rows: FloatPointer,
    q: FloatPointer,
    creatives: IndexPointer,
    n: int,
    bias: float,
    slope: float,
    shift: float,
    out: DoublePointer,
) -> None:
    """`score` for C. How many rows ad_rows has is not known here, and not needed."""
    rows = carray(ad_rows, (1 << 31, ROW))
    tower, chosen = carray(q, (ROW,)), carray(creatives, (n,))
    score(rows, tower, chosen, n, bias, slope, shift, carray(out, (n,)))


# The C types of the two entry points, as `ext` declares them.
_ENTRY_POINTS: Final = {
    "request_vector": (
        _request_vector_c,
        "void(CPointer(float32), int64, CPointer(uint64), int64, CPointer(float32))",
    ),
    "score": (
        _score_c,
        "void(CPointer(float32), CPointer(float32), CPointer(int32), int64,"
        " float64, float64, float64, CPointer(float64))",
    ),
}


@functools.cache
def _entry_points() -> dict[str, "CFunc[Callable[..., None]]"]:
    """The compiled entry points, kept alive for as long as the process lives."""
    with _cache_lock():
        return {
            name: numba.cfunc(signature, cache=True)(cast("Callable[..., None]", function))
            for name, (function, signature) in _ENTRY_POINTS.items()
        }


def kernel_addresses() -> dict[str, int]:
    """Addresses of the C entry points, compiled or loaded from the cache on the first call.

    void request_vector(const float *table, int64_t bits, const uint64_t *hashes, int64_t n,
                        float *out);
    void score(const float *ad_rows, const float *q, const int32_t *creatives, int64_t n,
               double bias, double slope, double shift, double *out);

    Both run without the interpreter, raise nothing and allocate nothing. Rows are ROW floats.
    """
    return {name: int(function.address or 0) for name, function in _entry_points().items()}


def warm() -> None:
    """Compiles and caches everything the bid path and a model swap call.

    Once before workers start (seconds), then in each worker (a cache read). Numba may crash when
    several processes fill an empty cache at the same time, so the first one holds a lock.
    """
    kernel_addresses()
    with _cache_lock():
        table = np.zeros((2, ROW), dtype=np.float32)
        hashes = np.zeros(1, dtype=np.uint64)
        features = hashes.copy()
        # Numba compiles for read-only arrays anew, and those of a mapped artefact are such.
        table.flags.writeable = features.flags.writeable = False
        q = np.zeros(ROW, dtype=np.float32)
        ranges = np.zeros(1, dtype=np.int32)
        rows = np.zeros((1, ROW), dtype=np.float32)
        request_vector(table, hashes, 1, q)
        ad_vectors(table, ranges, ranges, features, rows)
        score(rows, q, ranges, 1, 0.0, 1.0, 0.0, np.zeros(1))
        probability(0.0, 1.0, 0.0)


@contextlib.contextmanager
def _cache_lock() -> Iterator[None]:
    """Holds the lock file of the cache; where none can be written there is nothing to guard."""
    directory = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "__pycache__"
    try:
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(Path(directory) / ".kernels.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
