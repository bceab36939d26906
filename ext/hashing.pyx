"""Compiled twin of `rtb.base.hashing`."""

from libc.stdint cimport uint8_t, uint64_t

from tokens cimport cell_hash as c_cell_hash
from tokens cimport mix64 as c_mix64
from tokens cimport token_hash as c_token_hash
from tokens cimport union_hash as c_union_hash


def mix64(uint64_t value) -> int:
    return c_mix64(value)


def token_hash(int dim, const uint8_t[::1] value not None) -> int:
    if value.shape[0] == 0:
        return c_token_hash(dim, NULL, 0)
    return c_token_hash(dim, &value[0], value.shape[0])


def union_hash(int union, uint64_t token) -> int:
    return c_union_hash(union, token)


def cell_token(double lat, double lon) -> int:
    """`cell_hash(*cell_of(lat, lon))`."""
    return c_cell_hash(lat, lon)
