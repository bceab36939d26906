"""All journals of a node, from the first record that is kept."""

from pathlib import Path

from rtb.stores.journal_kept import Records, kept_in
from rtb.stores.journal_read import retire
from tests.stores.journals import (
    COMPILED,
    WORKER,
    fill,
    last_segment,
    opened,
    record_of,
    used_bytes,
)


def test_everything_up_to_a_record(tmp_path: Path) -> None:
    """As written, and no further than asked."""
    with opened(tmp_path) as journal:
        made = []
        for _ in range(10):
            made += fill(journal, 20)
            journal.turn()
        (kept,) = kept_in(tmp_path, COMPILED)
        found = list(Records(tmp_path, kept, 150, COMPILED))

    assert (WORKER, 1, 200) == (kept.worker, kept.first, kept.last)
    assert made[:150] == found
    assert kept.is_named(f"7/{WORKER}/{kept.identity:016x}")
    assert not kept.is_named(f"7/{WORKER + 1}/{kept.identity:016x}")


def test_after_segments_were_retired(tmp_path: Path) -> None:
    """It begins where the oldest segment does."""
    with opened(tmp_path) as journal:
        for _ in range(10):
            fill(journal, 20)
            journal.turn()
        gone = retire(tmp_path, WORKER, 150, 0, 1 << 40)
        (kept,) = kept_in(tmp_path, COMPILED)
        found = list(Records(tmp_path, kept, kept.last, COMPILED))

    assert gone
    assert 1 < kept.first == found[0][0]
    assert 200 == found[-1][0]


def test_damage_is_stepped_over_and_counted(tmp_path: Path) -> None:
    """What follows is read; how much is missing is said."""
    with opened(tmp_path) as journal:
        fill(journal, 12)
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[used_bytes(path) // 2] ^= 1
    path.write_bytes(data)
    (kept,) = kept_in(tmp_path, COMPILED)
    records = Records(tmp_path, kept, kept.last, COMPILED)
    found = list(records)

    assert (11, 1) == (len(found), records.given_up)
    assert all(record == record_of(record[0]) for record in found)


def test_no_journals(tmp_path: Path) -> None:
    """A node that never ran has none, and a folder without a mark is none."""
    (tmp_path / "3").mkdir()

    assert [] == kept_in(tmp_path, COMPILED) == kept_in(tmp_path / "none", COMPILED)
