"""The journal's two twins: same checksums, same bytes in a segment, same records read."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb._ext import journal as compiled
from rtb.base.errors import RtbError
from rtb.stores import journal as readable
from rtb.stores.journal import FRAMES_AT

TWINS = [pytest.param(readable, id="readable"), pytest.param(compiled, id="compiled")]
BACKLOG_BYTES = 600
SEGMENT_BYTES = FRAMES_AT + 2 * BACKLOG_BYTES + 8


@pytest.mark.parametrize("twin", TWINS)
def test_checksum_is_the_standard_one(twin: Any) -> None:
    """CRC-32C of the test vectors in RFC 3720, and in two steps as in one."""
    vectors = [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA),
               (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)]  # fmt: skip

    assert [crc for _, crc in vectors] == [twin.crc32c(data) for data, _ in vectors]
    assert 0xE3069283 == twin.crc32c(b"6789", twin.crc32c(b"12345"))


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_checksums_agree_with_and_without_the_instruction(data: bytes, start: int) -> None:
    """The processor's instruction, the tables and the readable loop give the same value."""
    expected = readable.crc32c(data, start)
    found = []
    for hardware in (True, False):
        compiled.use_hardware(hardware)
        found.append(compiled.crc32c(data, start))
    compiled.use_hardware(True)

    assert [expected, expected] == found


def _frames(bodies: list[bytes], first: int, salt: int) -> bytes:
    return b"".join(
        readable.encode_frame(first + place, 1 + place % 255, body, salt)
        for place, body in enumerate(bodies)
    )


BODIES = st.lists(st.binary(max_size=60), max_size=8)


@given(BODIES, st.integers(0, 2**32 - 1), st.data())
def test_scan_and_find_agree_on_any_bytes(
    bodies: list[bytes], salt: int, data: st.DataObject
) -> None:
    """Whole, cut or damaged: both twins read the same records and stop at the same place."""
    frames = bytearray(_frames(bodies, 7, salt))
    frames = frames[: data.draw(st.integers(0, len(frames)))]
    for _ in range(data.draw(st.integers(0, 2)) if frames else 0):
        frames[data.draw(st.integers(0, len(frames) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after, last, most = (data.draw(st.integers(0, 16)) for _ in range(3))
    kinds = readable.kinds_of(*data.draw(st.sets(st.integers(1, 9))))
    walk = (bytes(frames), 0, salt, 7, last, after, most, kinds)
    look = (bytes(frames), 0, salt, data.draw(st.integers(0, 16)), 99)

    assert readable.scan(*walk) == compiled.scan(*walk)
    assert readable.find(*look) == compiled.find(*look)


@pytest.mark.parametrize("twin", TWINS)
def test_scan_reads_what_was_framed(twin: Any) -> None:
    """Records come back as written, up to a limit of sequences or of records."""
    bodies = [bytes([size & 255]) * size for size in (0, 1, 8, 96, 104, 65_535)]
    frames = _frames(bodies, 1, 5)
    whole = [(place + 1, place + 1, body) for place, body in enumerate(bodies)]

    assert (whole, len(frames), 7) == twin.scan(frames, 0, 5, 1, 99, 0, 99)
    assert whole[2:4] == twin.scan(frames, 0, 5, 1, 4, 2, 99)[0]
    assert whole[:2] == twin.scan(memoryview(frames), 0, 5, 1, 99, 0, 2)[0]
    some = readable.kinds_of(2, 3, 6)
    assert (whole[1:3], 6) == twin.scan(frames, 0, 5, 1, 99, 0, 5, some)[::2]
    assert [] == twin.scan(frames, 0, 6, 1, 99, 0, 99)[0]  # another segment's salt
    assert [] == twin.scan(frames, 0, 5, 2, 99, 0, 99)[0]  # another sequence was expected
    assert 16 == twin.find(frames, 8, 5, 1, 99)


def _act(pen: Any, segments: list[bytearray], step: int, chance: random.Random) -> object:
    """One call on a pen; errors are results too."""
    try:
        if step < 12:
            kind = chance.choice([0, 1, 11, 255, 256])
            return pen.append(kind, chance.randbytes(chance.randrange(90)))
        if step == 12:
            size = chance.choice([SEGMENT_BYTES, SEGMENT_BYTES, FRAMES_AT + BACKLOG_BYTES - 1])
            segments.append(bytearray(size))
            return pen.spare(segments[-1], len(segments))
        if step == 13:
            return pen.cut()
        if step == 14:
            return pen.release()
        if step == 15:
            return pen.stop()
        if step == 16:
            segments.append(bytearray(SEGMENT_BYTES))
            return pen.begin(segments[-1], len(segments))
        if step == 17:
            return pen.ahead()
        return pen.go()
    except (RtbError, MemoryError) as error:
        return type(error), str(error)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 18), max_size=60))
def test_pens_write_the_same_bytes(seed: int, steps: list[int]) -> None:
    """In any order of calls both pens answer the same, and leave the same segments."""
    seen = []
    for twin in (readable, compiled):
        chance = random.Random(seed)
        pen, segments = twin.Pen(BACKLOG_BYTES, 41), []
        answers = [_act(pen, segments, step, chance) for step in (16, 18, *steps)]
        seen.append((answers, segments, pen.last, pen.has_spare))

    assert seen[0] == seen[1]


@pytest.mark.parametrize("twin", TWINS)
def test_a_body_may_be_any_buffer(twin: Any) -> None:
    """Bytes, views and arrays are written alike."""
    segment = bytearray(SEGMENT_BYTES)
    pen = twin.Pen(BACKLOG_BYTES, 0)
    pen.begin(segment, 9)
    pen.go()
    for body in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        pen.append(2, body)

    assert [b"abc"] * 3 == [body for _, _, body in twin.scan(segment, FRAMES_AT, 9, 1, 9, 0, 9)[0]]


@pytest.mark.parametrize("twin", TWINS)
def test_a_longer_body_than_a_frame_holds_is_refused(twin: Any) -> None:
    """65,535 bytes are the most; one more raises and writes nothing."""
    segment = bytearray(200_000)
    pen = twin.Pen(90_000, 0)
    pen.begin(segment, 9)
    pen.go()
    with pytest.raises(RtbError):
        pen.append(1, bytes(65_536))

    assert 1 == pen.append(1, bytes(65_535))
