"""Stored records <-> plain Python: for the keeper, tools, imports and tests.

The bid path never decodes: the engine reads the layout of `rtb.profiles.record` in place. What a
stored record may look like is decided here, by `check`; whoever writes one calls `encode`. The
same for counts, by `decode_counts` and `encode_counts`.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rtb.base.errors import ProfileError
from rtb.profiles.record import (
    BIDS_MAX,
    COUNT,
    COUNTS_HEADER,
    COUNTS_LINK,
    COUNTS_MAGIC,
    COUNTS_VERSION,
    CROWD,
    ENTRIES_MAX,
    ENTRY,
    HEADER,
    LINK_BYTES,
    LINK_MAGIC,
    LINKS_MAX,
    MAGIC,
    OPT_OUT,
    OPT_OUTS_MAX,
    SEGMENTS_MAX,
    VERSION,
)

# Sections between the segments and the opt-outs, in stored order.
_SECTIONS = ("items", "categories", "caps", "viewed", "cart")
_SORTED = ("items", "categories", "caps")
_LIMITS = {"segments": SEGMENTS_MAX, "opt_outs": OPT_OUTS_MAX} | dict.fromkeys(
    _SECTIONS, ENTRIES_MAX
)
_HASH = np.dtype("<u8")


@dataclass(slots=True)
class Profile:
    """What we know of one person. All keys are token hashes, all times epoch seconds.

    segments: audiences, oldest membership first
    items, categories: last purchase of each
    caps: (start of the window, impressions in it) of each counter
    viewed: (item, time), last first
    cart: when each item was put there
    opt_outs: advertisers that this person refuses; `opt_out` refuses all
    """

    segments: list[int] = field(default_factory=list)
    items: dict[int, int] = field(default_factory=dict)
    categories: dict[int, int] = field(default_factory=dict)
    caps: dict[int, tuple[int, int]] = field(default_factory=dict)
    viewed: list[tuple[int, int]] = field(default_factory=list)
    cart: dict[int, int] = field(default_factory=dict)
    opt_outs: set[int] = field(default_factory=set)
    opt_out: bool = False
    updated_s: int = 0


def encode(profile: Profile) -> bytes:
    """The stored form. What exceeds a limit loses its oldest part, opt-outs never.

    More than OPT_OUTS_MAX advertisers refused is read as a refusal of all: forgetting one of them
    would be worse than losing the bids.
    """
    refused = profile.opt_out or len(profile.opt_outs) > OPT_OUTS_MAX
    segments = sorted(set(profile.segments[-SEGMENTS_MAX:]))
    opt_outs = sorted(profile.opt_outs)[:OPT_OUTS_MAX]
    sections = {
        "items": _newest(profile.items),
        "categories": _newest(profile.categories),
        "caps": sorted(_newest_rows((h, t, n) for h, (t, n) in profile.caps.items())),
        "viewed": [(h, t, 0) for h, t in profile.viewed[:ENTRIES_MAX]],
        "cart": _newest(profile.cart),
    }
    header = np.zeros(1, dtype=HEADER)
    header["magic"], header["version"] = MAGIC, VERSION
    header["flags"] = OPT_OUT if refused else 0
    header["updated_s"] = profile.updated_s
    header["segments_count"], header["opt_outs_count"] = len(segments), len(opt_outs)
    for name, rows in sections.items():
        header[f"{name}_count"] = len(rows)
    parts = [header.tobytes(), np.array(segments, dtype=_HASH).tobytes()]
    parts += [np.array(rows, dtype=ENTRY).tobytes() for rows in sections.values()]
    parts.append(np.array(opt_outs, dtype=_HASH).tobytes())
    return b"".join(parts)


def _newest(times: Mapping[int, int]) -> list[tuple[int, int, int]]:
    return sorted(_newest_rows((h, t, 0) for h, t in times.items()))


def _newest_rows(rows: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """At most ENTRIES_MAX rows (hash, time_s, value): those with the latest times."""
    kept = list(rows)
    if len(kept) > ENTRIES_MAX:
        kept.sort(key=lambda row: (-row[1], row[0]))
        del kept[ENTRIES_MAX:]
    return kept


def decode(data: bytes | memoryview) -> Profile:
    """The plain view of a record.

    Raises: ProfileError as `check` does.
    """
    header, parts = _split(data)
    return Profile(
        segments=[int(h) for h in parts["segments"]],
        items=_times(parts["items"]),
        categories=_times(parts["categories"]),
        caps={int(row["hash"]): (int(row["time_s"]), int(row["value"])) for row in parts["caps"]},
        viewed=[(int(row["hash"]), int(row["time_s"])) for row in parts["viewed"]],
        cart=_times(parts["cart"]),
        opt_outs={int(h) for h in parts["opt_outs"]},
        opt_out=bool(int(header["flags"]) & OPT_OUT),
        updated_s=int(header["updated_s"]),
    )


def _times(entries: npt.NDArray[np.void]) -> dict[int, int]:
    return {int(row["hash"]): int(row["time_s"]) for row in entries}


def check(data: bytes | memoryview) -> None:
    """Refuses bytes that are not a record: magic, version, limits, size and order.

    Raises: ProfileError; its path names the header field or the section.
    """
    _split(data)


def _split(
    data: bytes | memoryview,
) -> tuple[np.void, dict[str, npt.NDArray[np.void]]]:
    """Header and sections, verified; arrays are views of `data`."""
    if len(data) < HEADER.itemsize:
        raise ProfileError(f"expected at least {HEADER.itemsize} bytes, got {len(data)}", "header")
    header = np.frombuffer(data, dtype=HEADER, count=1)[0]
    if header["magic"] != MAGIC:
        raise ProfileError(f"expected magic {MAGIC!r}, got {bytes(data[:2])!r}", "header.magic")
    if header["version"] != VERSION:
        raise ProfileError(f"unknown version {header['version']}", "header.version")
    counts = {name: int(header[f"{name}_count"]) for name in _LIMITS}
    for name, count in counts.items():
        if count > _LIMITS[name]:
            raise ProfileError(f"{count} entries, limit {_LIMITS[name]}", f"header.{name}_count")
    layout = [("segments", _HASH), *((name, ENTRY) for name in _SECTIONS), ("opt_outs", _HASH)]
    size = HEADER.itemsize + sum(dtype.itemsize * counts[name] for name, dtype in layout)
    if len(data) != size:
        raise ProfileError(f"counts ask for {size} bytes, got {len(data)}", "header")
    parts: dict[str, npt.NDArray[np.void]] = {}
    offset = HEADER.itemsize
    for name, dtype in layout:
        parts[name] = np.frombuffer(data, dtype=dtype, count=counts[name], offset=offset)
        offset += dtype.itemsize * counts[name]
    for name in ("segments", *_SORTED, "opt_outs"):
        if not _ascending(parts[name]):
            raise ProfileError("hashes are not ascending", name)
    return header, parts


def _ascending(section: npt.NDArray[np.void]) -> bool:
    """Whether the hashes of a section rise strictly, as binary search needs."""
    column = section if section.dtype == _HASH else section["hash"]
    hashes = column.astype(np.uint64)
    return bool((hashes[:-1] < hashes[1:]).all())


def encode_link(key: bytes) -> bytes:
    """A link record: "the profile of this identifier lies under `key`"."""
    return LINK_MAGIC + bytes((VERSION, 0)) + key


def link_target(data: bytes | memoryview) -> bytes | None:
    """The key that a link names, or None when `data` is not a link.

    Raises: ProfileError for a link of another version or without a key.
    """
    if bytes(data[:2]) != LINK_MAGIC:
        return None
    if len(data) <= LINK_BYTES or data[2] != VERSION:
        raise ProfileError("not a link of this version", "link")
    return bytes(data[LINK_BYTES:])


# -- counts ----------------------------------------------------------------------------------------

# Small records that the keeper reads and writes a thousand times a second: no arrays.
_COUNTS_HEADER: Final = struct.Struct("<2sBBHH")
_COUNT: Final = struct.Struct("<QIIII")
_LINK: Final = struct.Struct("<QII")
assert _COUNTS_HEADER.size == COUNTS_HEADER.itemsize
assert _COUNT.size == COUNT.itemsize
assert _LINK.size == COUNTS_LINK.itemsize


class Count(NamedTuple):
    """Impressions of one cap in its window; window_s 0 is a lifetime."""

    start_s: int
    window_s: int
    shown: int
    last_s: int


class Link(NamedTuple):
    """One that came together with a person; follow: whose counts are to be looked at too."""

    made_s: int
    follow: bool


@dataclass(slots=True)
class Counts:
    """What was shown to one person: counts by the cap's hash, and the bids in them, oldest first;
    and whom it came together with.

    crowd: with more than LINKS_MAX, so it is nobody's own
    Limits: of more than ENTRIES_MAX counts those are kept that were counted last, of bids the last
    BIDS_MAX, of links those to follow before others, and the latest.
    """

    counts: dict[int, Count] = field(default_factory=dict)
    bids: list[int] = field(default_factory=list)
    links: dict[int, Link] = field(default_factory=dict)
    crowd: bool = False


def encode_counts(found: Counts) -> bytes:
    """The stored form. What exceeds a limit loses its oldest part."""
    rows = sorted(found.counts.items())
    if len(rows) > ENTRIES_MAX:
        rows.sort(key=lambda row: (-row[1].last_s, row[0]))
        rows = sorted(rows[:ENTRIES_MAX])
    bids = found.bids[-BIDS_MAX:]
    links = sorted(found.links.items(), key=_link_order)[:LINKS_MAX]
    flags = len(links) | (CROWD if found.crowd else 0)
    parts = [_COUNTS_HEADER.pack(COUNTS_MAGIC, COUNTS_VERSION, flags, len(rows), len(bids))]
    parts += [_COUNT.pack(hash_, *count) for hash_, count in rows]
    parts.append(struct.pack(f"<{len(bids)}Q", *bids))
    parts += [_LINK.pack(person, *link) for person, link in links]
    return b"".join(parts)


def _link_order(row: tuple[int, Link]) -> tuple[bool, int, int]:
    return not row[1].follow, -row[1].made_s, row[0]


def decode_counts(data: bytes | memoryview) -> Counts:
    """The plain view of counts.

    Raises: ProfileError; its path names the part of the layout that is broken.
    """
    head = _COUNTS_HEADER.size
    if len(data) < head:
        raise ProfileError(f"expected at least {head} bytes, got {len(data)}", "counts.header")
    magic, version, flags, counts_count, bids_count = _COUNTS_HEADER.unpack_from(data)
    links_count = flags & CROWD - 1
    if magic != COUNTS_MAGIC or version != COUNTS_VERSION:
        raise ProfileError(f"not counts of version {COUNTS_VERSION}", "counts.header")
    bids_at = head + counts_count * _COUNT.size
    links_at = bids_at + 8 * bids_count
    if counts_count > ENTRIES_MAX or bids_count > BIDS_MAX or links_count > LINKS_MAX:
        raise ProfileError("more entries than the limit", "counts.header")
    if len(data) != links_at + links_count * _LINK.size:
        raise ProfileError(f"counts ask for another size than {len(data)} bytes", "counts.header")
    rows = _COUNT.iter_unpack(data[head:bids_at])
    counts = {hash_: Count(*rest) for hash_, *rest in rows}
    if [*counts] != sorted(counts) or len(counts) != counts_count:
        raise ProfileError("hashes are not ascending", "counts.counts")
    bids = list(struct.unpack_from(f"<{bids_count}Q", data, bids_at))
    links = {
        one: Link(at_s, bool(follow)) for one, at_s, follow in _LINK.iter_unpack(data[links_at:])
    }
    return Counts(counts, bids, links, bool(flags & CROWD))
