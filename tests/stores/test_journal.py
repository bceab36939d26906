"""The journal's bytes: headers, frames, and what damage does to them."""

import random
from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt
from rtb.stores import journal
from rtb.stores.journal import FRAMES_AT, HEADER_COPIES, Header
from rtb.stores.journal_read import MARK, Reader, folder_of
from rtb.stores.journal_write import Limits
from tests.stores.journals import (
    COMPILED,
    WORKER,
    fill,
    last_segment,
    opened,
    read_all,
    record_of,
    used_bytes,
)

RECORDS = 200
ONE_SEGMENT = Limits(segment_bytes=1 << 16, backlog_bytes=30_000)
HEADER = Header(worker=3, created_ms=1_700_000_000_000, size=1 << 16, salt=77)


def test_header_round_trip() -> None:
    """A header is read back from either of its copies."""
    data = bytearray(journal.encode_header(HEADER))
    assert FRAMES_AT == len(data)
    assert HEADER == journal.decode_header(bytes(data), "x")
    for at in HEADER_COPIES:
        harmed = data.copy()
        harmed[at + 9] ^= 4
        assert HEADER == journal.decode_header(bytes(harmed), "x")


@pytest.mark.parametrize("data", [b"", bytes(1024), b"RTBJOURN" * 128])
def test_what_is_no_segment_is_refused(data: bytes) -> None:
    """Empty, blank or foreign bytes raise with the place."""
    with pytest.raises(StoreCorrupt, match="at byte 0"):
        journal.decode_header(data, "x")


def test_a_body_that_looks_like_a_frame_is_no_record() -> None:
    """Who does not know the salt cannot smuggle a record in, even where the frame around broke."""
    forged = journal.encode_frame(2, 1, b"forged", 0)
    data = bytearray(journal.encode_frame(1, 11, forged, 77))
    data[0] ^= 1

    assert -1 == COMPILED.find(bytes(data), 0, 77, 1, 99)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of one segment with records of mixed sizes, all durable, closed."""
    with opened(tmp_path, limits=ONE_SEGMENT) as made:
        fill(made, RECORDS)
    return tmp_path


def test_cut_at_every_byte(written: Path) -> None:
    """However short the file, the whole records before the cut are read, and nothing else."""
    path = last_segment(written)
    data = path.read_bytes()[: used_bytes(path)]
    salt = journal.decode_header(data, "").salt
    ends = [FRAMES_AT]
    for sequence in range(1, RECORDS + 1):
        ends.append(ends[-1] + journal.frame_bytes(len(record_of(sequence)[2])))
    whole = [record_of(sequence) for sequence in range(1, RECORDS + 1)]
    count = 0
    for cut in range(FRAMES_AT, ends[-1]):
        count += ends[count + 1] <= cut
        records, at, _ = COMPILED.scan(data[:cut], FRAMES_AT, salt, 1, 1 << 62, 0, 1 << 62)
        assert (count, ends[count]) == (len(records), at)
        assert whole[count - 1 : count] == records[-1:]


def test_every_flipped_bit_is_found(written: Path) -> None:
    """1,000 random flips of one bit: each read stops there and raises; no record is invented."""
    path = last_segment(written)
    data = path.read_bytes()
    used = used_bytes(path)
    whole = [record_of(sequence) for sequence in range(1, RECORDS + 1)]
    chance = random.Random(31)
    for _ in range(1000):
        bit = chance.randrange(FRAMES_AT * 8, used * 8)
        harmed = bytearray(data)
        harmed[bit >> 3] ^= 1 << (bit & 7)
        path.write_bytes(harmed)
        with Reader(written, WORKER, kernel=COMPILED) as reader:
            records = reader.read(RECORDS) if bit >> 3 >= FRAMES_AT + 40 else []
            with pytest.raises(StoreCorrupt, match="record"):
                reader.read(RECORDS)
            assert whole[: len(records)] == records
            assert 1 == reader.skip_damage()
            assert whole[len(records) + 1 :] == reader.read(RECORDS)


def test_header_flips_are_mended_or_found(written: Path) -> None:
    """One harmed copy of the header changes nothing; with both harmed nothing is read."""
    path = last_segment(written)
    data = bytearray(path.read_bytes())
    for at in HEADER_COPIES:
        data[at + 33] ^= 1
        path.write_bytes(data)
        if at == 0:
            assert RECORDS == len(read_all(written))
    with Reader(written, WORKER, kernel=COMPILED) as reader:
        with pytest.raises(StoreCorrupt, match="segment"):
            reader.read(1)
        assert RECORDS == reader.skip_damage()


def test_an_absurd_mark_is_not_believed(written: Path) -> None:
    """A mark beyond what a segment can hold is damaged itself; the records say where they end."""
    with (folder_of(written, WORKER) / MARK).open("r+b") as mark:
        mark.write((1 << 40).to_bytes(8, "little"))
    with opened(written, limits=ONE_SEGMENT) as again:
        assert (RECORDS, 0) == (again.recovery.last, again.recovery.lost)
        fill(again, 1)

    assert RECORDS + 1 == len(read_all(written))
