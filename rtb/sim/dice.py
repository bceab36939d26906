"""Chance that belongs to one bid, in whatever order answers come."""

import math
from typing import Final

from rtb.base.hashing import mix64

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_UNIT: Final = 1.0 / (1 << 64)
# Of an exponential wait: one in 150 is longer, and would only make the end of a run longer.
_WAIT_MEANS_MAX: Final = 5.0


class Dice:
    """Chance that belongs to one bid of one auction."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, serial: int, index: int) -> None:
        self._state = mix64(mix64(seed & _MASK) ^ (serial << 8 | index & 255))

    def unit(self) -> float:
        """The next number in [0, 1)."""
        self._state = self._state + _GOLDEN & _MASK
        return mix64(self._state) * _UNIT

    def hits(self, share: float) -> bool:
        """Whether something of this share happens; asks for no number where it cannot."""
        return share > 0.0 and self.unit() < share

    def wait_ms(self, mean_ms: float) -> int:
        """An exponential wait, not endlessly long."""
        return round(mean_ms * min(-math.log(1.0 - self.unit()), _WAIT_MEANS_MAX))
