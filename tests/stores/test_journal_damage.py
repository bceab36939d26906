"""Records that are lost: named, given up by an operator, and stepped over, but no others."""

from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.stores.journal_damage import Damage, damages, give_up
from rtb.stores.journal_kept import Kept, Records, kept_in
from rtb.stores.journal_read import GIVEN_UP, Reader, Span, folder_of, given_up, segments
from tests.stores.journals import COMPILED, WORKER, fill, last_segment, opened, read_all, record_of


def spoil(path: Path, at: int) -> None:
    """Flips a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def place_of(directory: Path, sequence: int) -> tuple[Path, int]:
    """File and byte in which a record begins."""
    first, path = [one for one in segments(folder_of(directory, WORKER)) if one[0] <= sequence][-1]
    with Reader(directory, WORKER, first - 1, COMPILED) as reader:
        while reader.position < sequence - 1:
            reader.read(1)
        return path, max(reader._at, 1024)


def lost_in(directory: Path) -> tuple[Kept, list[Damage]]:
    """The one journal, and what it has lost."""
    (kept,) = kept_in(directory, COMPILED)
    return kept, list(damages(directory, kept, COMPILED))


@pytest.fixture(name="journal")
def journal_fixture(tmp_path: Path) -> Path:
    """A journal of a few segments that nobody writes."""
    with opened(tmp_path) as journal:
        for _ in range(20):
            fill(journal, 9)
            journal.turn()
    return tmp_path


def test_a_whole_journal_has_lost_nothing(journal: Path) -> None:
    """Nothing is damaged."""
    assert [] == lost_in(journal)[1]


def test_what_is_lost_is_named(journal: Path) -> None:
    """Each loss with its records and its place, and whether it was given up."""
    for path, at in [place_of(journal, sequence) for sequence in (30, 31, 90)]:
        spoil(path, at + 20)
    _, found = lost_in(journal)

    assert [Span(30, 31), Span(90, 90)] == [one.span for one in found]
    assert not any(one.is_given_up for one in found)
    assert "record 90 is damaged or missing - at byte" in found[1].place
    assert WORKER == found[0].worker


def test_what_is_given_up_is_stepped_over(journal: Path) -> None:
    """By readers from anywhere; who is strict still stops, and an audit counts what is missing."""
    path, at = place_of(journal, 50)
    spoil(path, at + 20)
    kept, (lost,) = lost_in(journal)
    give_up(journal, kept, [lost.span])

    assert [record_of(number) for number in range(1, 181) if number != 50] == read_all(journal)
    assert [record_of(51)] == read_all(journal, 49)[:1]
    assert [Damage(**lost._asdict() | {"is_given_up": True})] == lost_in(journal)[1]
    strict = Reader(journal, WORKER, 49, COMPILED, strict=True)
    with strict, pytest.raises(StoreCorrupt, match="record 50"):
        strict.read(1)
    records = Records(journal, kept, kept.last, COMPILED)
    assert 179 == len(list(records))
    assert 1 == records.given_up


def test_nothing_else_is_stepped_over(journal: Path) -> None:
    """More that is lost beside it, or elsewhere, stops readers where they stood."""
    path, at = place_of(journal, 50)
    spoil(path, at + 20)
    kept, (lost,) = lost_in(journal)
    give_up(journal, kept, [lost.span])
    path, at = place_of(journal, 52)
    spoil(path, at - 16)  # the end of 51

    with Reader(journal, WORKER, kernel=COMPILED) as reader:
        assert 49 == len(reader.read(1000))
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match="record 50"):
                reader.read(1000)
        assert 49 == reader.position
    assert [Span(50, 51)] == [one.span for one in lost_in(journal)[1]]


def test_the_end_of_a_journal(journal: Path) -> None:
    """Its last records are given up; what its worker writes from then on is read."""
    path = last_segment(journal)
    spoil(path, 0)
    spoil(path, 512)  # both heads: nothing of the segment can be read
    kept, (lost,) = lost_in(journal)
    give_up(journal, kept, [lost.span])
    first = segments(folder_of(journal, WORKER))[-1][0]

    assert (Span(first, 180), None) == (lost.span, lost.to_ms)
    assert first - 1 == len(read_all(journal))
    with opened(journal) as again:
        fill(again, 3)
    assert [*range(1, first), 181, 182, 183] == [record[0] for record in read_all(journal)]


def test_a_missing_segment(journal: Path) -> None:
    """All that it held is one loss."""
    (_, _), (gone, path), (after, _) = segments(folder_of(journal, WORKER))[:3]
    path.unlink()
    kept, (lost,) = lost_in(journal)
    give_up(journal, kept, [lost.span])

    assert Span(gone, after - 1) == lost.span
    assert 180 - (after - gone) == len(read_all(journal))


def test_a_journal_that_is_written_is_left_alone(journal: Path) -> None:
    """Its worker lives: nothing is given up behind its back."""
    (kept,) = kept_in(journal, COMPILED)
    with opened(journal), pytest.raises(StoreError, match="a worker writes this journal"):
        give_up(journal, kept, [Span(1, 2)])

    assert [] == given_up(folder_of(journal, WORKER), kept.identity)


def test_the_word_is_for_one_journal(journal: Path) -> None:
    """Another that begins in the same folder is not meant; a list without sense is a fault."""
    (kept,) = kept_in(journal, COMPILED)
    folder = folder_of(journal, WORKER)
    give_up(journal, kept, [Span(1, 2)])
    give_up(journal, kept, [Span(5, 5)])

    assert [Span(1, 2), Span(5, 5)] == given_up(folder, kept.identity)
    assert [] == given_up(folder, kept.identity + 1)
    (folder / GIVEN_UP).write_text("what is this\n")
    with pytest.raises(StoreError, match="given-up"):
        given_up(folder, kept.identity)
    with pytest.raises(StoreError):
        give_up(journal, kept._replace(worker=99), [Span(1, 2)])
