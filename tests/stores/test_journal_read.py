"""The reader: follows a writer of another process, and what may be deleted behind it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt
from rtb.stores.journal import Kernel
from rtb.stores.journal_read import MARK, Reader, first_sequence, folder_of, retire, segments
from rtb.stores.journal_write import Journal
from tests.stores.journals import (
    COMPILED,
    KERNELS,
    SMALL,
    WORKER,
    Disk,
    crash,
    fill,
    last_segment,
    opened,
    read_all,
    record_of,
    used_bytes,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_reads_over_segments_from_anywhere(tmp_path: Path, kernel: Kernel) -> None:
    """Over many segments each record comes once and in order, from whatever place one starts."""
    made = []
    with opened(tmp_path, kernel=kernel) as journal:
        for _ in range(30):
            made += fill(journal, 9)
            journal.turn()
    assert 4 < len(segments(folder_of(tmp_path, WORKER)))
    for after in range(0, len(made) + 1, 13):
        assert made[after:] == read_all(tmp_path, after, kernel)
    with Reader(tmp_path, WORKER, 0, kernel) as reader:
        read = []
        while found := reader.read(7):
            assert len(found) <= 7
            read += found
            assert read[-1][0] == reader.position
    assert made == read


def test_before_there_is_a_journal(tmp_path: Path) -> None:
    """A reader may come first; it finds nothing, until there is something."""
    with Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        assert (0, []) == (reader.durable_sequence(), reader.read(10))
        with opened(tmp_path) as journal:
            assert [] == reader.read(10)
            made = fill(journal, 2)
        assert made == reader.read(10)


def test_another_journal_in_its_place(tmp_path: Path) -> None:
    """A journal that was deleted and begun again is told from the one that was read."""
    with opened(tmp_path) as journal:
        fill(journal, 5)
    with Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        assert 5 == len(reader.read(10))
        position, identity = reader.position, reader.identity
    with Reader(tmp_path, WORKER, position, COMPILED, identity) as reader:
        assert [] == reader.read(10)
    shutil.rmtree(tmp_path / str(WORKER))
    with opened(tmp_path, Disk(salt=77)) as journal:
        fill(journal, 9)
    other = Reader(tmp_path, WORKER, position, COMPILED, identity)
    with pytest.raises(StoreCorrupt, match="another journal"):
        other.read(10)
    (folder_of(tmp_path, WORKER) / MARK).write_bytes(b"")
    with pytest.raises(StoreCorrupt, match="durable"):
        Reader(tmp_path, WORKER, kernel=COMPILED).read(10)


def test_only_durable_records_are_given(tmp_path: Path) -> None:
    """What a power cut could take is not shown: its sequence may yet mean something else."""
    with opened(tmp_path) as journal, Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        made = fill(journal, 5)
        assert [] == reader.read(10)
        journal.turn()
        assert made == reader.read(10)
        assert [] == reader.read(10)


def test_a_segment_replaced_under_its_name(tmp_path: Path) -> None:
    """A reader that waits in an empty segment follows the one that took its place."""
    with Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        first = Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world())
        made = fill(first, 3)
        first.turn()
        assert made == reader.read(10)
        crash(first)
        second = Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world())
        reader._move()  # it opened the new segment, which is still empty
        crash(second)
        with opened(tmp_path) as third:
            made = fill(third, 3)
            third.turn()
            assert made == reader.read(10)


FOLLOWER = """
import sys
from pathlib import Path
from rtb.stores.journal_read import MARK, Reader
from tests.stores.journals import COMPILED, WORKER, record_of

count = int(sys.argv[2])
with Reader(Path(sys.argv[1]), WORKER, kernel=COMPILED) as reader:
    print("ready", flush=True)
    position = 0
    while position < count:
        for record in reader.read(50):
            position += 1
            assert record_of(position) == record
print("done", flush=True)
"""


def test_another_process_follows(tmp_path: Path) -> None:
    """A reader in another process gets each record whole and once while the writer writes."""
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, str(tmp_path), "1500"], stdout=subprocess.PIPE, cwd=ROOT
    ) as reader:
        assert reader.stdout is not None
        assert b"ready\n" == reader.stdout.readline()
        with opened(tmp_path) as journal:
            for _ in range(150):
                fill(journal, 10)
                journal.turn()
        assert b"done\n" == reader.stdout.readline()


def test_damage_stops_the_reader_with_its_place(tmp_path: Path) -> None:
    """What stands before a damaged record is given; then every call raises, and says where."""
    with opened(tmp_path) as journal:
        fill(journal, 12)
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[used_bytes(path) // 2] ^= 1
    path.write_bytes(data)
    with Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        before = reader.read(100)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match=rf"record {len(before) + 1} .* at byte \d+"):
                reader.read(100)
        assert 1 == reader.skip_damage()
        assert [record_of(number) for number in range(len(before) + 2, 13)] == reader.read(100)


def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    """A hole between segments is told, and skipped only when asked to."""
    with opened(tmp_path) as journal:
        for _ in range(40):
            fill(journal, 9)
            journal.turn()
    (_, _), (gone, path), (after, _) = segments(folder_of(tmp_path, WORKER))[:3]
    path.unlink()
    with Reader(tmp_path, WORKER, kernel=COMPILED) as reader:
        assert gone - 1 == len(reader.read(1000))
        with pytest.raises(StoreCorrupt, match=f"record {gone}"):
            reader.read(1000)
        assert after - gone == reader.skip_damage()
        assert 360 - after + 1 == len(reader.read(1000))
    with Reader(tmp_path, WORKER + 1, 0, COMPILED) as nobody:
        assert [] == nobody.read(1)


def test_retire_keeps_what_is_needed(tmp_path: Path) -> None:
    """Whole segments go once applied and old enough, never the last one."""
    with opened(tmp_path) as journal:
        for _ in range(40):
            fill(journal, 9)
            journal.turn()
    known = segments(folder_of(tmp_path, WORKER))
    firsts = [first for first, _ in known]
    for place, (_, path) in enumerate(known):
        os.utime(path, (1000 + place, 1000 + place))

    assert [] == retire(tmp_path, WORKER, firsts[2], older_than_s=60, now_s=1059)
    assert firsts[:1] == retire(tmp_path, WORKER, firsts[2], older_than_s=60, now_s=1060)
    assert firsts[1:2] == retire(tmp_path, WORKER, firsts[3] - 1, older_than_s=60, now_s=5000)
    assert firsts[2] == first_sequence(tmp_path, WORKER)
    assert firsts[2:-1] == retire(tmp_path, WORKER, 1 << 40, older_than_s=60, now_s=5000)
    assert [record_of(number) for number in range(firsts[-1], 361)] == read_all(
        tmp_path, firsts[-1] - 1
    )
    assert 1 == first_sequence(tmp_path, WORKER + 1)
