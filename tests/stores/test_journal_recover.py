"""What is left of a journal after its worker was killed, and after damage."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.stores.journal import Record
from rtb.stores.journal_read import AGAIN, MARK, SPARE, folder_of, segments
from rtb.stores.journal_write import Journal, Limits, State
from tests.stores.journals import (
    COMPILED,
    SMALL,
    WORKER,
    Disk,
    Killed,
    crash,
    fill,
    last_segment,
    opened,
    read_all,
    record_of,
    used_bytes,
)

ROOT = Path(__file__).parents[2]
ONE_SEGMENT = Limits(segment_bytes=1 << 16, backlog_bytes=30_000)


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """What was appended and never committed is there when the journal is opened again."""
    journal = Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world())
    made = fill(journal, 10)
    crash(journal)
    assert [] == read_all(tmp_path)
    with opened(tmp_path) as again:
        assert (10, 0, 0) == (
            again.recovery.last, again.recovery.cut_bytes, again.recovery.lost
        )  # fmt: skip
        made += fill(again, 5)

    assert made == read_all(tmp_path)


def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    """At every byte of the last two frames: whole records are kept, the rest is counted."""
    journal = Journal.open(tmp_path, WORKER, ONE_SEGMENT, COMPILED, Disk().world())
    fill(journal, 20)
    path, mark = last_segment(tmp_path), folder_of(tmp_path, WORKER) / MARK
    crash(journal)
    data, used = path.read_bytes(), used_bytes(path)
    for cut in range(used - 300, used):
        for segment in segments(folder_of(tmp_path, WORKER)):
            segment[1].unlink()
        mark.write_bytes(bytes(16))
        path.write_bytes(data[:cut].ljust(len(data), b"\0"))
        with opened(tmp_path, limits=ONE_SEGMENT) as again:
            last, cut_bytes = again.recovery.last, again.recovery.cut_bytes
            assert 15 <= last < 20 or cut >= used - 8
            assert (cut_bytes == 0) == (used_bytes(path) == len(data[:cut].rstrip(b"\0")))
            fill(again, 1)
        assert [record_of(number) for number in range(1, last + 2)] == read_all(tmp_path)


def test_a_kill_right_after_the_roll(tmp_path: Path) -> None:
    """A segment that its writer had no time to name is found and named."""
    journal = Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world())
    made: list[Record] = []
    while journal._pen.has_spare:
        journal.turn()
        made += fill(journal, 1)
    assert (folder_of(tmp_path, WORKER) / SPARE).exists()
    crash(journal)
    with opened(tmp_path):
        pass

    assert made == read_all(tmp_path)


def _life(directory: Path, disk: Disk) -> list[Record]:
    """Appends over several segments until the disk's process is killed; returns what it made."""
    made: list[Record] = []
    journal = Journal.open(directory, WORKER, SMALL, COMPILED, disk.world())
    with contextlib.suppress(Killed):
        for _ in range(14):
            if journal.state == State.OPEN:
                made += fill(journal, 10)
            journal.turn()
    crash(journal)
    return made


def test_a_kill_at_any_flush_after_one_failed(tmp_path: Path) -> None:
    """Whichever flush fails, and wherever a kill meets the resuming: all that was made is there."""
    disk = Disk()
    _life(tmp_path / "whole", disk)
    for number in range(4, disk.syncs):
        for later in range(1, 5):
            directory = tmp_path / f"{number}-{later}"
            made = _life(directory, Disk(fail_syncs={number}, kill_at=number + later))
            with opened(directory) as again:
                assert len(made) == again.recovery.last
                made += fill(again, 3)
            assert made == read_all(directory)


def test_a_kill_while_records_are_written_again(tmp_path: Path) -> None:
    """What resumes but holds only a part does not take the place of what was given up."""
    disk = Disk()
    journal = Journal.open(tmp_path, WORKER, SMALL, COMPILED, disk.world())
    made = fill(journal, 12)
    disk.fail_syncs, disk.kill_at = {disk.syncs + 1}, disk.syncs + 3
    journal.turn()
    with pytest.raises(Killed):
        journal.turn()
    crash(journal)
    again = folder_of(tmp_path, WORKER) / AGAIN
    data = again.read_bytes()
    again.write_bytes(data[: used_bytes(again) - 100].ljust(len(data), b"\0"))
    with opened(tmp_path):
        assert not again.exists()

    assert made == read_all(tmp_path)


def test_damage_of_durable_records_is_counted_not_hidden(tmp_path: Path) -> None:
    """A durable record that broke stays visible: sequences go on after it, readers raise at it."""
    with opened(tmp_path) as journal:
        fill(journal, 12)
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[used_bytes(path) - 60] ^= 8
    path.write_bytes(data)
    with opened(tmp_path) as again:
        assert 12 == again.recovery.last
        assert 0 < again.recovery.lost <= 12
        whole = 12 - again.recovery.lost
        fill(again, 3)

    assert whole == len(read_all(tmp_path))
    with pytest.raises(StoreCorrupt, match="byte"):
        read_all(tmp_path, after=whole)


@pytest.mark.parametrize("left", [0, 100, 1024])
def test_a_last_segment_that_is_gone(tmp_path: Path, left: int) -> None:
    """Even when nothing is left of it, no sequence that was durable is given again."""
    with opened(tmp_path) as journal:
        fill(journal, 12)
    os.truncate(last_segment(tmp_path), left)
    with opened(tmp_path) as again:
        assert (12, 12) == (again.recovery.last, again.recovery.lost)
        made = fill(again, 2)

    assert made == read_all(tmp_path, after=12)


def test_what_a_failed_flush_left_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery writes what no commit has flushed again: its pages may count as clean."""
    journal = Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world())
    fill(journal, 2)
    journal.turn()
    path = last_segment(tmp_path)
    flushed = used_bytes(path)
    fill(journal, 3)
    crash(journal)
    data, written, pwrite = path.read_bytes(), [], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *call: written.append(call[1:]) or pwrite(*call))
    with opened(tmp_path):
        pass
    again, at = written[0]

    assert data[at : at + len(again)] == again
    assert at <= flushed + 7
    assert used_bytes(path) <= at + len(again)


def test_one_writer(tmp_path: Path) -> None:
    """A second writer of the same journal is refused; another worker's is none of its business."""
    with opened(tmp_path):
        with pytest.raises(StoreError):
            Journal.open(tmp_path, WORKER, SMALL, COMPILED)
        Journal.open(tmp_path, WORKER + 1, SMALL, COMPILED).close()


def test_starting_over_and_over_leaves_one_empty_segment(tmp_path: Path) -> None:
    """A worker that restarts in a loop does not fill the disk."""
    for _ in range(5):
        crash(Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk().world()))

    assert 1 == len(segments(folder_of(tmp_path, WORKER)))


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.stores.journals import COMPILED, WORKER, record_of
from rtb.stores.journal_write import Journal, Limits, State

async def main():
    limits = Limits(segment_bytes=1 << 16, backlog_bytes=30_000)
    journal = Journal.open(Path(sys.argv[1]), WORKER, limits, COMPILED)
    journal.start(asyncio.get_running_loop())
    print(journal.last_sequence, flush=True)
    while True:
        for _ in range(20):
            sequence, kind, body = record_of(journal.last_sequence + 1)
            journal.append(kind, body)
            sys.stdout.write(f"{sequence}\\n")
            sys.stdout.flush()
        await asyncio.sleep(0.002)

asyncio.run(main())
"""


def test_kill_9_of_a_real_writer(tmp_path: Path) -> None:
    """20 kills at random moments: all whose append returned is there, and at most one more."""
    chance = random.Random(20)
    known = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(chance.random() * 0.05)
            writer.send_signal(signal.SIGKILL)
            told = writer.stdout.read().split(b"\n")[:-1]
        known = int(told[-1]) if told else known
        with opened(tmp_path, limits=ONE_SEGMENT) as again:
            assert known <= again.recovery.last <= known + 1
            assert 0 == again.recovery.lost
            known = again.recovery.last
    assert [record_of(number) for number in range(1, known + 1)] == read_all(tmp_path)
    assert 20 < known


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class JournalAgainstList(RuleBasedStateMachine):
    """A journal held against a list of records, whatever happens to its process and disk."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.disk = Disk()
        self.made: list[Record] = []
        self.read: list[Record] = []
        self.journal = self._open()

    def _open(self) -> Journal:
        return Journal.open(self.directory, WORKER, SMALL, COMPILED, self.disk.world())

    @rule(count=st.integers(1, 30))
    def append(self, count: int) -> None:
        """Appends, until the journal refuses."""
        for _ in range(count):
            record = record_of(len(self.made) + 1)
            try:
                assert record[0] == self.journal.append(record[1], record[2])
            except StoreError:
                return
            self.made.append(record)

    @rule()
    def turn(self) -> None:
        """The thread has its turn."""
        self.journal.turn()

    @rule(calls=st.integers(1, 4))
    def fail_a_flush(self, calls: int) -> None:
        """One of the next flushes fails."""
        self.disk.fail_syncs = {self.disk.syncs + calls}

    @rule(full=st.booleans())
    def fill_disk(self, full: bool) -> None:
        """No segment can be allocated, or again."""
        self.disk.full = full

    @rule()
    def kill(self) -> None:
        """The process dies and starts again on a disk that works."""
        crash(self.journal)
        self.disk.full, self.disk.fail_syncs = False, set()
        self.journal = self._open()
        assert len(self.made) == self.journal.recovery.last

    @rule()
    def close(self) -> None:
        """An orderly end and a new start."""
        self.disk.full, self.disk.fail_syncs = False, set()
        self.journal.close()
        assert self.journal.durable_sequence == len(self.made)
        self.journal = self._open()

    @precondition(lambda self: self.journal.durable_sequence > len(self.read))
    @rule()
    def follow(self) -> None:
        """A reader that comes back where it was finds the records after it."""
        self.read += read_all(self.directory, after=len(self.read))
        assert self.journal.durable_sequence == len(self.read)

    @invariant()
    def same(self) -> None:
        """What was read is what was written; what is durable was appended."""
        assert self.made[: len(self.read)] == self.read
        assert self.journal.durable_sequence <= len(self.made) == self.journal.last_sequence

    def teardown(self) -> None:
        """All is readable in the end, from the start."""
        self.disk.full, self.disk.fail_syncs = False, set()
        self.journal.close()
        assert self.made == read_all(self.directory)
        self._stack.close()


TestJournalAgainstList = JournalAgainstList.TestCase


@pytest.mark.parametrize("size", [0, 7, 8, 9, 15, None])
def test_a_mark_that_is_cut_off(tmp_path: Path, size: int | None) -> None:
    """It is made anew, as one that is not there: for a new journal, of the same records."""
    with opened(tmp_path) as journal:
        made = fill(journal, 10)
    mark = folder_of(tmp_path, WORKER) / MARK
    before = mark.read_bytes()
    mark.unlink() if size is None else mark.write_bytes(before[:size])
    with opened(tmp_path, Disk(salt=99)) as again:
        assert (10, 0) == (again.recovery.last, again.recovery.lost)
        made += fill(again, 5)

    assert made == read_all(tmp_path)
    assert before[8:] != mark.read_bytes()[8:]


def test_a_mark_that_is_cut_off_still_says_what_was_durable(tmp_path: Path) -> None:
    """Records that are damaged beside it are not taken for the end of the journal."""
    with opened(tmp_path, limits=ONE_SEGMENT) as journal:
        fill(journal, 10)
    mark = folder_of(tmp_path, WORKER) / MARK
    mark.write_bytes(mark.read_bytes()[:9])
    path = last_segment(tmp_path)
    used = used_bytes(path)
    with path.open("r+b") as segment:
        segment.seek(used - 5)
        segment.write(bytes(5))
    with opened(tmp_path, limits=ONE_SEGMENT) as again:
        assert (10, 1) == (again.recovery.last, again.recovery.lost)
