"""The garbage collector of processes that must not pause, and what a start leaves behind."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Objects made before the young are looked through, and how seldom the older: what a request or a
# batch leaves behind dies by reference count, cycles are few.
_THRESHOLDS: Final = 50_000, 20, 100
# glibc keeps freed pages to itself until asked; other C libraries have no such call, nor the need.
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def settle() -> None:
    """What is there now stays, and is never looked through again; what comes later is, rarely.

    What a start needed for a moment goes back to the system: some megabytes a process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    if _TRIM is not None:
        _TRIM(0)


@contextmanager
def building() -> Iterator[None]:
    """While a million objects are made that stay: looking through them again and again, as their
    number grows, takes nearly as long as making them. Then they are settled.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    settle()
