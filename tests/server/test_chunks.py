"""Announced sizes of chunks, however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.server.chunks import ChunkSizes

LIMIT = 100


def body_of(*sizes: int) -> bytes:
    """A whole chunked body; its contents look like sizes."""
    chunks = b"".join(b"%x;x=y\r\n%b\r\n" % (size, (b"ffff\r\n" * size)[:size]) for size in sizes)
    return chunks + b"0\r\n\r\n"


@given(st.lists(st.integers(1, 60), max_size=6), st.lists(st.integers(1, 40), max_size=20))
def test_what_is_announced_is_known_at_once(sizes: list[int], cuts: list[int]) -> None:
    """Over the limit or not, whatever the segments; and never by what stands in a chunk."""
    body, sizes_of, told, at = body_of(*sizes), ChunkSizes(LIMIT), False, 0
    for cut in [*cuts, len(body)]:
        told = sizes_of.feed(body[at : at + cut]) or told
        at += cut

    assert (sum(sizes) > LIMIT) == told


@pytest.mark.parametrize(
    ("body", "is_over"),
    [
        (b"ffffffffffffffff\r\n", True),
        (b"ffffffffffffffff", False),  # the line may go on
        (b"64\r\n", False),
        (b"65\r\n", True),
        (b"not a size\r\n65\r\n", False),
        (b"-65\r\n65\r\n", False),
        (b"0" * 300 + b"65\r\n", False),
        (b"0\r\nx: ffff\r\n\r\n", False),
        (b"", False),
    ],
)
def test_odd_bodies(body: bytes, is_over: bool) -> None:
    """What is no size is left to the parser; behind the last chunk nothing is one."""
    assert is_over == ChunkSizes(LIMIT).feed(body)


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    """Nothing raises."""
    ChunkSizes(LIMIT).feed(data)
