"""Impressions counted: windows, duplicates, what is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ProfileError
from rtb.base.events import bid_id
from rtb.profiles import codec
from rtb.profiles.codec import Count, Counts, Link
from rtb.profiles.record import BIDS_MAX, ENTRIES_MAX, LINKS_MAX
from rtb.profiles.reducers import (
    Impression,
    Memory,
    Together,
    count_impressions,
    folded,
    followed,
    is_looked_at,
    links_of,
    spent_s,
    unlinked,
)

T = 1_790_000_000
MINUTE, LIFE = (7, 60), (9, 0)


def shown(number: int, after_ms: int, *caps: tuple[int, int]) -> Impression:
    """The impression of a bid made at T, so long after it."""
    return Impression(bid_id(T, 0, 0, number), T * 1000 + after_ms, caps or (MINUTE, LIFE))


def counts(record: bytes | None) -> dict[int, tuple[int, int]]:
    """Start, from T on, and count of each cap."""
    assert record is not None
    return {
        hash_: (one.start_s - T, one.shown)
        for hash_, one in codec.decode_counts(record).counts.items()
    }


def test_windows_open_and_close() -> None:
    """A window holds for its length from its first impression, a lifetime for ever."""
    record = count_impressions(None, [shown(1, 0)])
    assert {7: (0, 1), 9: (0, 1)} == counts(record)
    record = count_impressions(record, [shown(2, 59_999)])
    assert {7: (0, 2), 9: (0, 2)} == counts(record)
    record = count_impressions(record, [shown(3, 60_000)])
    assert {7: (60, 1), 9: (0, 3)} == counts(record)


def test_starts_are_rounded_up() -> None:
    """Counted in whole seconds, no window ends before its length is over."""
    record = count_impressions(None, [shown(1, 500), shown(2, 60_999)])
    assert {7: (1, 2), 9: (1, 2)} == counts(record)
    assert {7: (61, 1), 9: (1, 3)} == counts(count_impressions(record, [shown(3, 61_000)]))


def test_a_bid_counts_once() -> None:
    """Its duplicates change nothing, in the same batch or a day later."""
    record = count_impressions(None, [shown(1, 0), shown(1, 10)])
    assert {7: (0, 1), 9: (0, 1)} == counts(record)
    assert count_impressions(record, [shown(1, 20)]) is None
    assert count_impressions(record, [shown(1, 90_000_000)]) is None
    assert count_impressions(record, []) is None


def test_what_is_older_than_the_memory() -> None:
    """Nobody can tell whether it was counted, so it is not."""
    assert count_impressions(None, [shown(1, 90_001_000)]) is None
    assert count_impressions(None, [shown(1, 90_000_999)]) is not None


def test_order_is_the_order_of_time() -> None:
    """In a batch impressions are met by time; one from another window changes nothing."""
    record = count_impressions(None, [shown(2, 61_000, MINUTE), shown(1, 0, MINUTE)])
    assert {7: (61, 1)} == counts(record)
    late = count_impressions(record, [shown(3, 1_000, MINUTE)])
    assert {7: (61, 1)} == counts(late)
    near = count_impressions(record, [shown(4, 30_000, MINUTE)])
    assert {7: (61, 2)} == counts(near)


def test_limits_of_a_record() -> None:
    """The last BIDS_MAX bids are known, and the ENTRIES_MAX caps that were counted last."""
    record = None
    for number in range(BIDS_MAX + 2):
        record = count_impressions(record, [shown(number, number, MINUTE)])
    assert record is not None
    assert BIDS_MAX == len(codec.decode_counts(record).bids)
    assert count_impressions(record, [shown(2, 100, MINUTE)]) is None
    assert {7: (0, BIDS_MAX + 3)} == {
        7: (0, counts(count_impressions(record, [shown(1, 100, MINUTE)]))[7][1])
    }
    many = tuple((number, 0) for number in range(ENTRIES_MAX + 1))
    record = count_impressions(None, [shown(1, 0, *many[:-1])])
    record = count_impressions(record, [shown(2, 5_000, many[-1])])
    assert ENTRIES_MAX == len(counts(record))
    assert ENTRIES_MAX in counts(record)


def test_spent_counts() -> None:
    """Counts are spent when every window is over, idle lifetimes too, and no bid is remembered."""
    record = count_impressions(None, [shown(1, 0)])
    assert record is not None
    memory = Memory(remember_s=100, idle_s=1_000)
    spent = [spent_s(record, memory) <= T + age_s for age_s in (0, 59, 60, 999, 1_000)]
    assert [False, False, False, False, True] == spent
    window = count_impressions(None, [shown(1, 0, MINUTE)])
    assert window is not None
    assert [False, False, True] == [spent_s(window, memory) <= T + s for s in (59, 100, 101)]
    dropped = count_impressions(record, [Impression(bid_id(T + 61, 0, 0, 2), T * 1000 + 61_000,
                                                    (LIFE,))])  # fmt: skip
    assert {9: (0, 2)} == counts(dropped)
    assert 0 == spent_s(b"RC")


def test_counts_that_cannot_be_read_begin_anew() -> None:
    """A broken record is not in the way for ever."""
    good = codec.encode_counts(Counts({1: Count(T, 60, 1, T), 2: Count(T, 0, 1, T)}, [5]))
    assert Counts({1: Count(T, 60, 1, T), 2: Count(T, 0, 1, T)}, [5]) == codec.decode_counts(good)
    swapped = good[:8] + good[32:56] + good[8:32] + good[56:]
    linked = good[:3] + b"\x01" + good[4:]
    for broken in (b"", b"RP" + good[2:], good[:-1], good + b"x", b"RC\x02" + good[3:], swapped,
                   linked, good[:3] + b"\x7f" + good[4:] + bytes(16 * 127),
                   good[:4] + b"\xff\xff" + good[6:]):  # fmt: skip
        with pytest.raises(ProfileError, match=r"counts\."):
            codec.decode_counts(broken)
        assert {7: (0, 1), 9: (0, 1)} == counts(count_impressions(broken, [shown(1, 0)]))


def together(person: int, follow: bool = True, after_ms: int = 0) -> Together:
    """One who came together with a person, so long after T."""
    return Together(person, T * 1000 + after_ms, follow)


def test_links_are_kept_as_they_were_made() -> None:
    """One may become one to follow; what is known already changes nothing."""
    record = count_impressions(None, [], together=[together(5, False), together(6)])
    assert record is not None
    assert {6: Link(T, True), 5: Link(T, False)} == codec.decode_counts(record).links
    assert [6] == followed(record)
    for again in (together(5, False, 9_000), together(6, False), together(6, True, 9_000)):
        assert count_impressions(record, [], together=[again]) is None
    record = count_impressions(record, [shown(1, 0)], together=[together(5, True, 9_000)])
    assert record is not None
    assert {5: Link(T, True), 6: Link(T, True)} == codec.decode_counts(record).links
    assert {7: (0, 1), 9: (0, 1)} == counts(record)
    assert [5, 6] == links_of(record)
    left = unlinked(record, [5, 6, 7])
    assert left is not None
    assert [] == links_of(left)
    assert counts(record) == counts(left)


def test_who_came_together_with_many_is_a_crowd() -> None:
    """It leads to nobody; of its links those to follow are kept, and the latest."""
    many = [together(number, number == 3, number * 1000) for number in range(LINKS_MAX)]
    record = count_impressions(None, [], together=many)
    assert record is not None
    assert [3] == followed(record)
    record = count_impressions(record, [], together=[together(99, False, 99_000)])
    assert record is not None
    assert codec.decode_counts(record).crowd
    assert [] == followed(record)
    assert {*range(1, LINKS_MAX), 99} == {*links_of(record)}
    assert is_looked_at(record)


def test_a_link_alone_is_spent_after_a_day() -> None:
    """Nobody looks at one that is not to be followed; without counts and links nothing is left."""
    record = count_impressions(None, [], together=[together(5, False)])
    assert record is not None
    assert not is_looked_at(record)
    assert unlinked(record, [5]) is None
    assert [False, True] == [spent_s(record) <= T + age_s for age_s in (90_000, 90_001)]
    counted = count_impressions(record, [shown(1, 0)])
    assert counted is not None
    assert is_looked_at(counted)


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=30), st.integers(1, 100))
def test_windows_follow_each_other(times_ms: list[int], window_s: int) -> None:
    """In order of time a count is that of the plain rule: a window from its first impression on."""
    start_s = count = plain = 0
    begun_ms = -(1 << 40)
    for time_ms in sorted(times_ms):
        start_s, count = folded(start_s, count, window_s, time_ms)
        if time_ms >= begun_ms + window_s * 1000:
            begun_ms, plain = -(-time_ms // 1000) * 1000, 0
        plain += 1

        assert (begun_ms, plain) == (start_s * 1000, count)
