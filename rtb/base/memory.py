"""The garbage collector of processes that must not pause."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Objects made before the young are looked through, and how seldom the older: what a request or a
# batch leaves behind dies by reference count, cycles are few.
_THRESHOLDS: Final = 50_000, 20, 100


def settle() -> None:
    """What is there now stays, and is never looked through again; what comes later is, rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


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
