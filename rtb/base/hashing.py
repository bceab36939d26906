"""Token hashes: the 64-bit names by which targeting, blocks, profiles and models know a value.

A token is a value in a dimension ("usa" in COUNTRY). Its hash is FNV-1a over the ASCII-lowered
UTF-8 bytes, started from the dimension, and finished with a 64-bit avalanche so that the low bits
may index tables. It is the same in the request decoder, the catalogue compiler, the profile store
and the model: a change here orphans every stored artefact, so `HASH_VERSION` goes into each.

With a million distinct values, the chance that any two collide is about 3 in 10^8.
"""

import math
from typing import Final

HASH_VERSION: Final = 1

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_MASK: Final = 0xFFFFFFFFFFFFFFFF


def mix64(value: int) -> int:
    """Avalanche finaliser: every input bit flips each output bit with probability one half."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def token_hash(dim: int, value: bytes) -> int:
    """The hash of one value in one dimension; never 0, so that 0 can mean "absent"."""
    state = (_OFFSET ^ dim) * _PRIME & _MASK
    for byte in value:
        if 65 <= byte <= 90:
            byte |= 32
        state = (state ^ byte) * _PRIME & _MASK
    return mix64(state) or 1


_UNION_SALT: Final = 0x9E3779B97F4A7C15
_CELL_SALT: Final = 0xD1B54A32D192ED03
CELLS_PER_DEGREE: Final = 2
_CELLS_ROUND: Final = 360 * CELLS_PER_DEGREE


def union_hash(union: int, token: int) -> int:
    """A token as a value of a union of dimensions (`records.UNIONS`)."""
    return mix64(token ^ union * _UNION_SALT & _MASK) or 1


def cell_of(lat: float, lon: float) -> tuple[int, int]:
    """The grid cell of a place; longitudes wrap around."""
    return math.floor(lat * CELLS_PER_DEGREE), math.floor(lon * CELLS_PER_DEGREE) % _CELLS_ROUND


def cell_hash(row: int, column: int) -> int:
    """A grid cell as a token of `Dim.GEO_CELL`."""
    return mix64((row + _CELLS_ROUND) * 4096 + column ^ _CELL_SALT) or 1
