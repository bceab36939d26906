"""The golden record of one person, as stored: a flat, versioned, little-endian layout.

The engine reads it in place, from the buffer that the store hands out:

    header  32 bytes   magic "RP", version, flags, six counts (u2), updated_s (u4), two spare u4
    segments           n x u8    token_hash(Dim.AUDIENCE, name), sorted
    items              n x ENTRY token_hash(Dim.ITEM, "advertiser/product"), time_s of last purchase
    categories         n x ENTRY token_hash(Dim.CATEGORY, "advertiser/category"), last purchase
    caps               n x ENTRY token_hash(Dim.CAP, "level/id/window_s"), window start, count
    viewed             n x ENTRY items, last first
    cart               n x ENTRY items
    opt_outs           n x u8    token_hash(Dim.OPT_OUT, advertiser id), sorted; count in the header

Entries of items, categories and caps are sorted by hash. Times are epoch seconds.
Consent: flag OPT_OUT refuses every use; `opt_outs` those of single advertisers.

A person is known by several identifiers (`rtb.profiles.identity`). The record lies under one of
them; each other one holds a link, so that a look-up costs one read, at most two:

    link   4 bytes     magic "RL", version, spare; then the key of the record

What was shown to a person is counted apart, under a key made of the person's hash, so that an
import of records erases no counts, and somebody without a record is counted too. Keys without a
record that came together in one request are linked there, so that they share counts:

    header  8 bytes    magic "RC", version, links (u1: how many, and bit CROWD), two counts (u2)
    counts             n x COUNT of caps, sorted by hash
    bids               n x u8    bids whose impression is in the counts, oldest first
    links              n x LINK  persons it came together with, those to look at first

A person is `token_hash(Dim.PERSON, key)`: of the key that the record lies under, or of a key of
the request where no record was found.
"""

import struct
from typing import Final

import numpy as np

MAGIC: Final = b"RP"
VERSION: Final = 1

OPT_OUT: Final = 1
COUNTS_ONLY: Final = 2  # made for one request out of counts: nobody that we know
UNCOUNTED: Final = 4  # made for one request: what was shown to its person is not known

HEADER = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("flags", "u1"),
        ("segments_count", "u2"),
        ("items_count", "u2"),
        ("categories_count", "u2"),
        ("caps_count", "u2"),
        ("viewed_count", "u2"),
        ("cart_count", "u2"),
        ("updated_s", "u4"),
        ("opt_outs_count", "u2"),
        ("spare", "u2"),
        ("spare2", "u8"),
    ]
)
ENTRY = np.dtype([("hash", "u8"), ("time_s", "u4"), ("value", "u4")])
assert HEADER.itemsize == 32
assert ENTRY.itemsize == 16

# Of whom the store did not say anything: he may have opted out, and may have seen everything.
UNANSWERED: Final = struct.pack(
    f"<2sBB{HEADER.itemsize - 4}x", MAGIC, VERSION, COUNTS_ONLY | UNCOUNTED
)

# Caps of one record. They bound the read (a record is copied nowhere) and the write.
SEGMENTS_MAX: Final = 512
ENTRIES_MAX: Final = 512
OPT_OUTS_MAX: Final = 64
RECORD_BYTES_MAX: Final = 32 + 8 * SEGMENTS_MAX + 5 * 16 * ENTRIES_MAX + 8 * OPT_OUTS_MAX

LINK_MAGIC: Final = b"RL"
LINK_BYTES: Final = 4

COUNTS_MAGIC: Final = b"RC"
COUNTS_VERSION: Final = 1
COUNTS_HEADER = np.dtype(
    [
        ("magic", "S2"),
        ("version", "u1"),
        ("links", "u1"),
        ("counts_count", "u2"),
        ("bids_count", "u2"),
    ]
)
COUNT = np.dtype(
    [
        ("hash", "u8"),  # as in `caps`
        ("start_s", "u4"),  # of the window; rounded up, so that none ends early
        ("window_s", "u4"),  # 0 = lifetime
        ("count", "u4"),
        ("last_s", "u4"),  # when it was last counted
    ]
)
assert COUNTS_HEADER.itemsize == 8
assert COUNT.itemsize == 24
# Bids that a person's counts remember. More impressions of one person within a day are no person's.
BIDS_MAX: Final = 64

# Links of one key: a person of ten exchanges with three ids on each. A key that more came together
# with is nobody's own, such as a constant that a publisher sends for all: a crowd.
LINKS_MAX: Final = 32
CROWD: Final = 128
COUNTS_LINK = np.dtype([("person", "u8"), ("made_s", "u4"), ("follow", "u4")])
assert COUNTS_LINK.itemsize == 16
assert LINKS_MAX < CROWD

PERSON_PREFIX: Final = b"h:"


_COUNTS_KEY: Final = struct.Struct(">2sQ").pack


def counts_key(person: int) -> bytes:
    """Where the counts of a person lie; in the order of the hashes."""
    return _COUNTS_KEY(PERSON_PREFIX, person)


def opts_out(record: bytes | memoryview) -> bool:
    """Whether a record refuses every use."""
    return bytes(record[:2]) == MAGIC and len(record) > 3 and bool(record[3] & OPT_OUT)
