"""Dead letters: what is kept of records that cannot be booked."""

from pathlib import Path

import pytest

from rtb.base.errors import StoreError
from rtb.keeper.letters import Letter, Letters, Reason, read


def _letter(sequence: int) -> Letter:
    return Letter("0/1/ab", sequence, 9, Reason.BROKEN_BODY, b"\x00\xff body")


def test_letters_are_read_as_they_were_written(tmp_path: Path) -> None:
    """With place, reason and body; counted by reason; none from no file."""
    letters = Letters(tmp_path / "dead" / "letters.jsonl")
    letters.add([])
    letters.add([_letter(1), _letter(2)])

    assert [] == read(tmp_path / "none")
    assert [_letter(1), _letter(2)] == read(tmp_path / "dead" / "letters.jsonl")
    assert {Reason.BROKEN_BODY: 2} == letters.counts


def test_a_letter_written_again_is_one(tmp_path: Path) -> None:
    """A keeper killed before its commit writes the same letters once more."""
    path = tmp_path / "letters.jsonl"
    Letters(path).add([_letter(1)])
    Letters(path).add([_letter(1), _letter(2)])

    assert [_letter(1), _letter(2)] == read(path)
    assert 3 == path.read_bytes().count(b"\n")


def test_a_torn_line_harms_no_other(tmp_path: Path) -> None:
    """What a power cut left half written is passed over, and what follows it is whole."""
    path = tmp_path / "letters.jsonl"
    Letters(path).add([_letter(1), _letter(2)])
    path.write_bytes(path.read_bytes()[:-9])
    Letters(path).add([_letter(3)])

    assert [_letter(1), _letter(3)] == read(path)


def test_a_flood_is_counted_and_not_kept(tmp_path: Path) -> None:
    """The file has a limit; the records stay in their journals."""
    letters = Letters(tmp_path / "letters.jsonl", bytes_max=150)
    for sequence in range(5):
        letters.add([_letter(sequence)])

    assert (5, 4) == (letters.counts[Reason.BROKEN_BODY], letters.dropped)
    assert [_letter(0)] == read(tmp_path / "letters.jsonl")


def test_a_disk_that_refuses_is_a_fault_with_its_place(tmp_path: Path) -> None:
    """So the batch is not committed without its letters."""
    with pytest.raises(StoreError, match="letters"):
        Letters(tmp_path).add([_letter(1)])
