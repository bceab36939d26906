"""A wake-up call at a moment, to the microsecond: the timers of event loops know milliseconds.

Eight thousand requests a second are due every 125 us; sent by a millisecond timer they would come
in bursts of eight, and the burst would measure itself. Linux has timers as files (`timerfd`), which
an event loop can wait for like for a socket; where they are missing the loop's own timer must do.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_FLAGS: Final = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_TFD_TIMER_ABSTIME: Final = 1
_NS_PER_S: Final = 1_000_000_000


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval, then moment, each as seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Calls `wake` once at each moment that is set; a later `set` replaces an earlier one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._handle: asyncio.TimerHandle | None = None
        self._file = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._file >= 0:
            self._spec = _Spec()
            self._reference = ctypes.byref(self._spec)
            loop.add_reader(self._file, self._expired)

    def set(self, moment_ns: int) -> None:
        """Rings at `moment_ns` of `time.monotonic_ns`, at once when that is over."""
        if self._file < 0:
            if self._handle is not None:
                self._handle.cancel()
            delay_s = max(0.0, (moment_ns - time.monotonic_ns()) / _NS_PER_S)
            self._handle = self._loop.call_later(delay_s, self._wake)
            return
        # A value of zero would disarm the timer.
        self._spec.value_s, self._spec.value_ns = divmod(max(moment_ns, 1), _NS_PER_S)
        self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, self._reference, None)

    def close(self) -> None:
        """Never rings again."""
        if self._handle is not None:
            self._handle.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._wake()
