"""Power cuts: what was flushed stays, of the rest any page may be there or not."""

import contextlib
import os
import random
from pathlib import Path

import pytest

from rtb.stores.journal import PAGE_BYTES, Record
from rtb.stores.journal_read import MARK, folder_of, segments
from rtb.stores.journal_write import Journal, Limits, State, World
from tests.stores.journals import COMPILED, WORKER, Disk, Killed, crash, fill, read_all

# Segments of eight pages, so that a cut can tear them in many ways.
LIMITS = Limits(segment_bytes=8 * PAGE_BYTES, backlog_bytes=12_000, retry_ms=0)


class Platter(Disk):
    """A disk that remembers what was flushed, and can lose the rest."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__()
        self.folder, self.chance = folder, chance
        self._flushed: dict[int, bytes] = {}  # by inode
        self._names: dict[str, int] = {}

    def world(self) -> World:
        """As of a disk, its flushes seen."""
        plain = super().world()

        def sync(file: int) -> None:
            plain.sync(file)
            self._remember(file)

        return World(sync, plain.allocate, plain.now_ms, plain.ticks_s, plain.salt)

    def _remember(self, file: int) -> None:
        status = os.fstat(file)
        if os.path.samestat(status, self.folder.stat()):
            self._names = {path.name: path.stat().st_ino for path in self.folder.glob("*.seg")}
        else:
            self._flushed[status.st_ino] = os.pread(file, status.st_size, 0)

    def cut(self) -> None:
        """Power is gone and back: flushed bytes and names are there; for every other page and
        name chance decides between the newest and the flushed one. The mark is an old one.
        """
        now = {path.name: path for path in self.folder.glob("*.seg")}
        inodes = {name: path.stat().st_ino for name, path in now.items()}
        newest = {inodes[name]: path.read_bytes() for name, path in now.items()}
        names = self._names if self.chance.random() < 0.5 else inodes
        after = {
            name: self._torn(self._flushed.get(inode, b""), newest.get(inode, b""))
            for name, inode in names.items()
        }
        mark = bytearray((self.folder / MARK).read_bytes())
        sequence = int.from_bytes(mark[:8], "little")
        mark[:8] = self.chance.randint(0, sequence).to_bytes(8, "little")
        for path in now.values():
            path.unlink()
        for name, data in after.items():
            (self.folder / name).write_bytes(data)
        self._names = {path.name: path.stat().st_ino for path in self.folder.glob("*.seg")}
        self._flushed = {inode: after[name] for name, inode in self._names.items()}
        (self.folder / MARK).write_bytes(mark)

    def _torn(self, flushed: bytes, newest: bytes) -> bytes:
        """A file of which some unflushed pages were written."""
        size = max(len(flushed), len(newest))
        flushed, newest = flushed.ljust(size, b"\0"), newest.ljust(size, b"\0")
        pages = [
            (newest if self.chance.random() < 0.5 else flushed)[at : at + PAGE_BYTES]
            for at in range(0, size, PAGE_BYTES)
        ]
        return b"".join(pages)


def _live(journal: Journal, platter: Platter, made: list[Record]) -> None:
    """Appends and commits for a while, over a flush that fails now and then.

    A life often ends right after a segment was left, where most can go wrong.
    """
    chance, names = platter.chance, len(segments(platter.folder))
    for _ in range(chance.randrange(25)):
        made += fill(journal, chance.randrange(40))
        if chance.random() < 0.1:
            platter.fail_syncs = {platter.syncs + chance.randint(1, 3)}
        if chance.random() < 0.1:
            platter.kill_at = platter.syncs + chance.randint(1, 8)
        journal.turn()
        if journal.state != State.OPEN:
            journal.turn()
        if len(segments(platter.folder)) != names and chance.random() < 0.7:
            return
    made += fill(journal, chance.randrange(60))


@pytest.mark.parametrize("seed", range(40))
def test_power_cuts(tmp_path: Path, seed: int) -> None:
    """However often power goes, what was durable or read is there, and nothing is invented."""
    platter = Platter(folder_of(tmp_path, WORKER), random.Random(seed))
    made: list[Record] = []
    seen: list[Record] = []
    powered = True
    for _ in range(12):
        journal = Journal.open(tmp_path, WORKER, LIMITS, COMPILED, platter.world())
        assert len(seen) <= journal.recovery.last <= len(made)
        assert 0 == journal.recovery.lost
        assert not powered or len(made) == journal.recovery.last  # a kill alone takes nothing
        made = made[: journal.recovery.last]
        with contextlib.suppress(Killed):
            _live(journal, platter, made)
        seen += read_all(tmp_path, len(seen))
        assert made[: len(seen)] == seen
        assert journal.durable_sequence == len(seen)
        crash(journal)
        platter.fail_syncs, platter.kill_at = set(), 0
        powered = platter.chance.random() < 0.4
        if not powered:
            platter.cut()
    with Journal.open(tmp_path, WORKER, LIMITS, COMPILED, platter.world()) as journal:
        made = made[: journal.recovery.last]

    assert made == read_all(tmp_path)
    assert seen == made[: len(seen)]
