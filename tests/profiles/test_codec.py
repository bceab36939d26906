"""The stored form of a golden record."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ProfileError
from rtb.profiles import codec, record
from rtb.profiles.codec import Profile

HASHES = st.integers(1, 2**64 - 1)
TIMES = st.integers(0, 2**32 - 1)
PROFILES = st.builds(
    Profile,
    segments=st.lists(HASHES, max_size=20, unique=True).map(sorted),
    items=st.dictionaries(HASHES, TIMES, max_size=20),
    categories=st.dictionaries(HASHES, TIMES, max_size=20),
    caps=st.dictionaries(HASHES, st.tuples(TIMES, TIMES), max_size=20),
    viewed=st.lists(st.tuples(HASHES, TIMES), max_size=20),
    cart=st.dictionaries(HASHES, TIMES, max_size=20),
    opt_outs=st.sets(HASHES, max_size=20),
    opt_out=st.booleans(),
    updated_s=TIMES,
)


@given(PROFILES)
def test_round_trip(profile: Profile) -> None:
    """What was encoded is decoded, and passes the check."""
    data = codec.encode(profile)
    codec.check(data)
    assert profile == codec.decode(data)


@given(PROFILES, st.data())
def test_damage_is_refused_or_harmless(profile: Profile, data: st.DataObject) -> None:
    """A cut or a changed byte raises ProfileError or leaves a readable record, nothing else."""
    stored = bytearray(codec.encode(profile))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProfileError):
        codec.decode(bytes(stored))
    with pytest.raises(ProfileError):
        codec.check(bytes(stored[:place]))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no record raise ProfileError only."""
    with pytest.raises(ProfileError, match="at `header"):
        codec.check(data)


def test_layout_is_the_documented_one() -> None:
    """The header carries the counts, and sections follow in the order of the description."""
    data = codec.encode(
        Profile(segments=[7, 3], items={9: 100}, viewed=[(5, 2), (4, 1)], opt_outs={8})
    )
    assert len(data) == 32 + 2 * 8 + 16 + 2 * 16 + 8
    header = np.frombuffer(data, dtype=record.HEADER, count=1)[0]
    assert tuple(
        header[name].item()
        for name in ("magic", "version", "segments_count", "items_count", "categories_count",
                     "caps_count", "viewed_count", "cart_count", "opt_outs_count")
    ) == (b"RP", 1, 2, 1, 0, 0, 2, 0, 1)  # fmt: skip
    assert np.frombuffer(data, "<u8", count=2, offset=32).tolist() == [3, 7]
    assert np.frombuffer(data, record.ENTRY, 2, 64).tolist() == [(5, 2, 0), (4, 1, 0)]


def test_limits_keep_the_newest() -> None:
    """A section over its limit keeps its latest entries, still sorted by hash."""
    limit = record.ENTRIES_MAX
    items = {hash_: hash_ for hash_ in range(1, limit + 101)}
    profile = codec.decode(
        codec.encode(
            Profile(
                segments=list(range(1, record.SEGMENTS_MAX + 3)),
                items=items,
                viewed=[(h, 1) for h in range(limit + 5)],
            )
        )
    )
    assert list(range(101, limit + 101)) == list(profile.items)
    assert list(range(3, record.SEGMENTS_MAX + 3)) == profile.segments
    assert [(h, 1) for h in range(limit)] == profile.viewed


def test_the_largest_record_fits_its_limit() -> None:
    """Every section full is exactly RECORD_BYTES_MAX."""
    full = dict.fromkeys(range(1, record.ENTRIES_MAX + 1), 1)
    profile = Profile(
        segments=list(range(1, record.SEGMENTS_MAX + 1)),
        items=full,
        categories=full,
        caps=dict.fromkeys(full, (1, 1)),
        viewed=list(full.items()),
        cart=full,
        opt_outs=set(range(1, record.OPT_OUTS_MAX + 1)),
    )
    assert len(codec.encode(profile)) == record.RECORD_BYTES_MAX


def test_too_many_opt_outs_refuse_all() -> None:
    """An opt-out is never forgotten: one too many becomes a refusal of everything."""
    profile = Profile(opt_outs=set(range(1, record.OPT_OUTS_MAX + 2)))
    assert codec.decode(codec.encode(profile)).opt_out is True


def test_unsorted_hashes_are_refused() -> None:
    """Binary search needs order, so a record without it is no record."""
    data = bytearray(codec.encode(Profile(segments=[1, 2])))
    data[32:48] = data[40:48] + data[32:40]
    with pytest.raises(ProfileError, match="not ascending - at `segments`"):
        codec.check(bytes(data))


def test_links() -> None:
    """A link names its target; a record is no link; a bare link is refused."""
    assert codec.link_target(codec.encode_link(b"b:1")) == b"b:1"
    assert codec.link_target(codec.encode(Profile())) is None
    with pytest.raises(ProfileError):
        codec.link_target(codec.encode_link(b""))
