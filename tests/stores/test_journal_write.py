"""The writer: commits, who waits for them, segments that follow each other, disks that fail."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rtb.base.errors import ConfigError, StoreError
from rtb.stores import journal_write
from rtb.stores.journal import READABLE, Kernel, Record
from rtb.stores.journal_read import folder_of, segments
from rtb.stores.journal_write import Journal, Limits, State, World
from tests.stores.journals import COMPILED, SMALL, WORKER, Disk, fill, opened, read_all, record_of

ROOT = Path(__file__).parents[2]
BRISK = replace(SMALL, commit_ms=1, watch_ms=5, stall_ms=20)
PATIENCE_S = 10.0


async def until(true: Callable[[], object]) -> None:
    """Lets the loop run until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.001)


def test_both_kernels_leave_the_same_files(tmp_path: Path) -> None:
    """The compiled and the readable journal write the same files, byte for byte."""
    seen = []
    for name, kernel in (("readable", READABLE), ("compiled", COMPILED)):
        with opened(tmp_path / name, kernel=kernel) as journal:
            for _ in range(24):
                fill(journal, 9)
                journal.turn()
        folder = folder_of(tmp_path / name, WORKER)
        seen.append({path.name: path.read_bytes() for path in folder.iterdir()})

    assert seen[0] == seen[1]
    assert 3 < len(seen[0])


@pytest.mark.parametrize("kernel", [READABLE, COMPILED], ids=["readable", "compiled"])
def test_pages_that_are_let_go_lose_nothing(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is durable nor what was appended since, in one segment and over several."""
    monkeypatch.setattr(journal_write, "LET_GO_RECORDS", 10)
    with opened(tmp_path, kernel=kernel) as journal:
        written = []
        for _ in range(60):
            written += fill(journal, 7)
            journal.turn()
            written += fill(journal, 2)  # on pages that are gone
        journal.turn()
        assert len(written) == journal.durable_sequence

    assert written == read_all(tmp_path)
    assert 1 < len(segments(folder_of(tmp_path, WORKER)))


def test_limits_must_fit_each_other(tmp_path: Path) -> None:
    """A segment that could not take what is not durable is refused at start."""
    for wrong in (Limits(segment_bytes=4096), Limits(segment_bytes=(64 << 20) + 1)):
        with pytest.raises(ConfigError, match="segment_bytes"):
            Journal.open(tmp_path, WORKER, wrong)


async def test_waiters_hear_in_order_and_after_the_commit(tmp_path: Path) -> None:
    """Callbacks come on the loop, in order, each when its record is durable."""
    with opened(tmp_path, limits=BRISK) as journal:
        journal.start(asyncio.get_running_loop())
        heard: list[tuple[int, bool, bool, bool]] = []
        here = threading.get_ident()

        def listen(sequence: int) -> None:
            journal.when_durable(
                sequence,
                lambda durable: heard.append(
                    (sequence, durable, sequence <= journal.durable_sequence,
                     here == threading.get_ident())
                ),
            )  # fmt: skip

        for _ in range(15):
            listen(fill(journal, 1)[0][0])
        assert [] == heard
        await until(lambda: len(heard) == 15)
        listen(7)  # durable for long
        await until(lambda: len(heard) == 16)

    assert [(number, True, True, True) for number in [*range(1, 16), 7]] == heard


async def test_one_wake_up_a_commit(tmp_path: Path) -> None:
    """The loop is woken once for all waiters of a commit, and not at all without one."""
    with opened(tmp_path) as journal:
        loop = asyncio.get_running_loop()
        journal._loop = loop  # commits by hand
        woken: list[object] = []
        loop.call_soon_threadsafe = lambda *call: woken.append(call)  # type: ignore[method-assign, assignment]
        fill(journal, 5)
        journal.turn()
        assert [] == woken
        for sequence, _, _ in fill(journal, 5):
            journal.when_durable(sequence, print)
        journal.turn()
        assert 1 == len(woken)
        journal._waiting.clear()


async def test_a_failed_flush_is_told_and_mended(tmp_path: Path) -> None:
    """Waiters hear no, appends are refused, and it resumes by itself with all that was appended."""
    disk = Disk()
    with opened(tmp_path, disk, BRISK) as journal:
        journal.start(asyncio.get_running_loop())
        made = fill(journal, 5)
        await until(lambda: journal.durable_sequence == 5)
        disk.fail_syncs = None
        heard: list[bool] = []
        made += fill(journal, 5)
        journal.when_durable(10, heard.append)
        await until(lambda: heard)
        assert [False] == heard
        assert (State.FAILED, False) == (journal.state, journal.writable)
        assert "injected" in journal.fault
        with pytest.raises(StoreError, match="stopped"):
            journal.append(1, b"")
        journal.when_durable(10, heard.append)
        await until(lambda: len(heard) == 2)
        assert [False, False] == heard
        assert made[:5] == read_all(tmp_path)
        disk.fail_syncs = set()
        await until(lambda: journal.writable)
        assert (10, "") == (journal.durable_sequence, journal.fault)
        made += fill(journal, 5)

    assert made == read_all(tmp_path)


def _busy_life(directory: Path, disk: Disk) -> tuple[list[Record], list[Record]]:
    """Appends over several segments; returns what was appended, and what a reader saw meanwhile."""
    made: list[Record] = []
    seen: list[Record] = []
    with opened(directory, disk) as journal:
        for _ in range(30):
            for _ in range(10):
                record = record_of(len(made) + 1)
                try:
                    assert record[0] == journal.append(record[1], record[2])
                except StoreError:
                    break
                made.append(record)
            journal.turn()
            seen += read_all(directory, len(seen))
            assert journal.durable_sequence == len(seen)
        journal.turn()
        journal.turn()
    return made, seen


def test_any_one_flush_may_fail(tmp_path: Path) -> None:
    """Whichever flush fails, of file or directory: no record is lost, doubled or invented."""
    disk = Disk()
    _busy_life(tmp_path / "whole", disk)
    assert 20 < disk.syncs
    for number in range(5, disk.syncs + 1):
        # the first flushes are those of opening, which may fail as a whole
        made, seen = _busy_life(tmp_path / str(number), Disk(fail_syncs={number, number + 1}))
        assert made[: len(seen)] == seen
        assert made == read_all(tmp_path / str(number))
        assert 200 < len(made)


@pytest.mark.parametrize("number", [1, 2])
def test_opening_on_a_failing_disk(tmp_path: Path, number: int) -> None:
    """Opening raises, transient, and leaves what the next attempt opens."""
    with pytest.raises(StoreError) as found:
        Journal.open(tmp_path, WORKER, SMALL, COMPILED, Disk(fail_syncs={number}).world())
    assert found.value.transient
    with opened(tmp_path) as journal:
        assert [record_of(1), record_of(2)] == fill(journal, 2)


def test_opening_without_room_for_a_next_segment(tmp_path: Path) -> None:
    """It opens, takes records, and allows bids once there is a next segment."""
    with opened(tmp_path, Disk(fail_syncs={3})) as journal:
        assert not journal.writable
        fill(journal, 1)
        journal.turn()
        assert journal.writable


def _fill_up(journal: Journal, made: list[Record]) -> None:
    """Appends and commits until the journal refuses."""
    while True:
        made += fill(journal, 1)
        journal.turn()


def test_a_full_disk_stops_bids_before_notices(tmp_path: Path) -> None:
    """Without a next segment no bids are made, while records still find room; it mends itself."""
    disk = Disk()
    with opened(tmp_path, disk) as journal:
        assert journal.writable
        disk.full = True
        made: list[Record] = []
        while journal.writable:
            made += fill(journal, 5)
            journal.turn()
        assert 1 == len(segments(folder_of(tmp_path, WORKER))) - 1
        assert "No space" in journal.fault or "injected" in journal.fault
        made += fill(journal, 10)
        with pytest.raises(StoreError, match="no next segment"):
            _fill_up(journal, made)
        assert made == read_all(tmp_path)
        disk.full = False
        journal.turn()
        assert (True, "") == (journal.writable, journal.fault)
        made += fill(journal, 10)

    assert made == read_all(tmp_path)


def test_a_disk_that_falls_behind(tmp_path: Path) -> None:
    """What no commit has taken is limited; the record that passes the limit is refused."""
    with opened(tmp_path, backlog_bytes=500) as journal:
        with pytest.raises(StoreError, match="behind"):
            fill(journal, 20)
        journal.turn()
        fill(journal, 1)


async def test_a_disk_that_hangs(tmp_path: Path) -> None:
    """A flush that does not return stops bids and answers waiters; when it does, all goes on."""
    disk, held = Disk(), threading.Event()
    held.set()
    world = disk.world()

    def sync(file: int) -> None:
        held.wait()
        world.sync(file)

    hanging = replace(world, sync=sync)
    with Journal.open(tmp_path, WORKER, BRISK, COMPILED, hanging) as journal:
        journal.start(asyncio.get_running_loop())
        heard: list[bool] = []
        held.clear()
        made = fill(journal, 1)
        journal.when_durable(1, heard.append)
        while not heard:
            disk.now_s += 0.01
            await asyncio.sleep(0.002)
        assert (False, [False], State.OPEN) == (journal.writable, heard, journal.state)
        assert "not answered" in journal.fault
        held.set()
        await until(lambda: journal.writable)
        assert (1, "") == (journal.durable_sequence, journal.fault)
        made += fill(journal, 1)

    assert made == read_all(tmp_path)


async def test_close_commits_and_answers(tmp_path: Path) -> None:
    """Closing commits what is left; who waits hears of it; then nothing more is taken."""
    heard: list[bool] = []
    with opened(tmp_path, commit_ms=10_000) as journal:
        journal.start(asyncio.get_running_loop())
        fill(journal, 3)
        journal.when_durable(3, heard.append)
    await until(lambda: heard)
    assert [True] == heard
    journal.close()
    with pytest.raises(StoreError):
        journal.append(1, b"")


def test_close_after_the_loop(tmp_path: Path) -> None:
    """A loop that was closed first is no hindrance: all is committed, nobody waits any more."""
    journal = Journal.open(tmp_path, WORKER, BRISK, COMPILED, Disk().world())

    async def live() -> None:
        journal.start(asyncio.get_running_loop())
        journal.when_durable(fill(journal, 3)[-1][0], print)

    asyncio.run(live())
    journal.close()

    assert 3 == len(read_all(tmp_path))


FULL = """
import os, sys
from pathlib import Path
from rtb.base.errors import StoreError
from rtb.stores.journal_write import Journal
from tests.stores.journals import COMPILED, SMALL, WORKER, fill, read_all

directory = Path(sys.argv[1])
with Journal.open(directory, WORKER, SMALL, COMPILED) as journal:
    made = fill(journal, 3)
    stuff = directory / "stuff"
    with stuff.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    while journal.writable:
        made += fill(journal, 5)
        journal.turn()
    print(journal.fault)
    made += fill(journal, 5)
    journal.turn()
    stuff.unlink()
    journal.turn()
    assert journal.writable
    made += fill(journal, 15)
    journal.turn()
assert made == read_all(directory)
print("whole")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Without a free page: no bids, no SIGBUS, and all as before once there is room."""
    mount = f"mount -t tmpfs -o size=128k none {tmp_path} 2>/dev/null || exit 77"
    found = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh",
         sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if found.returncode == 77 or "unshare" in found.stderr:
        pytest.skip("no private mounts here")

    assert ("", 0) == (found.stderr, found.returncode)
    assert "No space left" in found.stdout
    assert "whole" in found.stdout


def test_the_default_world_is_the_real_one(tmp_path: Path) -> None:
    """With real flushes, times and chance the journal does the same."""
    with Journal.open(tmp_path, WORKER, SMALL, COMPILED, World()) as journal:
        made = fill(journal, 20)
        journal.turn()
        made += fill(journal, 20)

    assert made == read_all(tmp_path)
