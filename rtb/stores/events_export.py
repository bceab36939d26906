"""Journals as Parquet: each whole segment of a worker's journal becomes one file of events.

A segment is exported when the journal has gone on to the next one and all of it is durable, so its
file never has to grow. The file is written under a temporary name, flushed, and renamed; only then
is the worker's progress moved. A kill between the two exports the segment again, to the same name.

The name follows from the segment alone (node, worker, identity of the journal, first sequence). The
folder is the day of its first record, for who reads only some days; a file that is there already
keeps its folder. Records that damage has taken are counted and left out: they are the journal's to
tell (`rtb journal check`).

pyarrow takes some 100 MB of memory, so it is imported only where there is something to export, in a
process that ends afterwards (`rtb journal export`, or the child that `rtb serve` starts).
"""

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.events import record_time_ms
from rtb.stores import journal
from rtb.stores.artifacts import sync
from rtb.stores.events_names import Names
from rtb.stores.events_schema import schema_json
from rtb.stores.journal import FRAMES_AT, Kernel, Record
from rtb.stores.journal_kept import kept_in, node_of
from rtb.stores.journal_read import Reader, folder_of, segments

# Of one row group: what is in memory at a time, some 40 MB with all that is made of it.
BATCH_RECORDS: Final = 50_000
TIME_MS_MAX: Final = 1 << 42  # the year 2109: a time beyond is none
PROGRESS: Final = "progress"
SCHEMA_FILE: Final = "schema.json"
SUFFIX: Final = ".parquet"
_FRESH: Final = ".new"


class Progress(msgspec.Struct, frozen=True):
    """How far a worker's journal is exported.

    journal   its identity in hex: another one begins anew
    exported  sequence of the last record whose file is durable
    segments, rows, damaged, unread  so far: files, rows in them, records that damage has taken, and
              rows whose record could not be read as its kind
    """

    journal: str = ""
    exported: int = 0
    segments: int = 0
    rows: int = 0
    damaged: int = 0
    unread: int = 0


class Segment(NamedTuple):
    """A whole segment: records first to last, all durable."""

    path: Path
    first: int
    last: int


class Waiting(NamedTuple):
    """A worker's journal and what of it waits to be exported.

    last: sequence of its last durable record
    """

    worker: int
    journal: str
    progress: Progress
    segments: list[Segment]
    last: int


def progress_of(events: Path, worker: int) -> Progress:
    """How far a worker's journals were exported. Raises: StoreError."""
    path = events / PROGRESS / f"{worker}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error


def waiting(journals: Path, events: Path, kernel: Kernel) -> Iterator[Waiting]:
    """What there is to export, by worker. Raises: StoreError."""
    for kept in kept_in(journals, kernel):
        identity = f"{kept.identity:016x}"
        progress = progress_of(events, kept.worker)
        if progress.journal != identity:
            progress = msgspec.structs.replace(progress, journal=identity, exported=0)
        pairs = itertools.pairwise(segments(folder_of(journals, kept.worker)))
        whole = [Segment(path, first, after - 1) for (first, path), (after, _) in pairs]
        yield Waiting(
            kept.worker,
            identity,
            progress,
            [one for one in whole if progress.exported < one.last <= kept.last],
            kept.last,
        )


@dataclass
class Exporter:
    """Exports the journals of one node.

    node: what it is called where no bid of a journal tells
    """

    journals: Path
    events: Path
    node: int
    kernel: Kernel
    names: Names
    batch_records: int = BATCH_RECORDS

    def run(self) -> Iterator[tuple[int, Progress]]:
        """Exports all that waits; worker and progress after each segment.

        Raises: StoreError when another one exports just now, or the disk fails.
        """
        with self._alone():
            for stale in self.events.glob(f"*/*{_FRESH}"):  # of a killed one
                stale.unlink()
            _replace(self.events / SCHEMA_FILE, schema_json())
            for found in waiting(self.journals, self.events, self.kernel):
                progress = found.progress
                for segment in found.segments:
                    progress = self._export(found, segment, progress)
                    yield found.worker, progress

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            (self.events / PROGRESS).mkdir(parents=True, exist_ok=True)
            file = os.open(self.events / PROGRESS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{self.events}: {error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise StoreError(f"another one exports just now - at `{self.events}`") from error
        except OSError as error:
            raise StoreError(f"cannot export to {self.events}: {error}") from error
        finally:
            os.close(file)

    def _export(self, found: Waiting, segment: Segment, before: Progress) -> Progress:
        """One segment: its file first, then the progress."""
        known = node_of(self.journals, found.worker, self.kernel)
        node = self.node if known is None else known
        records = Records(self.journals, found, segment, self.kernel, self.batch_records)
        rows, unread = self._write(records, node, found, segment)
        after = msgspec.structs.replace(
            before,
            exported=segment.last,
            segments=before.segments + 1,
            rows=before.rows + rows,
            damaged=before.damaged + records.damaged,
            unread=before.unread + unread,
        )
        path = self.events / PROGRESS / f"{found.worker}.json"
        _replace(path, msgspec.json.encode(after))
        return after

    def _write(
        self, records: "Records", node: int, found: Waiting, segment: Segment
    ) -> tuple[int, int]:
        """The rows of a segment as its file; how many there are, and how many could not be read."""
        from rtb.stores import events_rows, events_write

        batches = iter(records)
        first = next(batches, [])
        path = self._path(node, found, segment, first)
        fresh = path.with_suffix(_FRESH)
        rows = unread = 0
        with events_write.file(fresh) as write:
            for batch in itertools.chain([first] if first else [], batches):
                table, not_read = events_rows.table_of(
                    batch, node, found.worker, found.journal, self.names
                )
                write(table)
                rows, unread = rows + len(batch), unread + not_read
        _settle(fresh, path)
        return rows, unread

    def _path(self, node: int, found: Waiting, segment: Segment, records: list[Record]) -> Path:
        name = f"{node}-{found.worker}-{found.journal}-{segment.first:020d}{SUFFIX}"
        there = next(self.events.glob(f"*/{name}"), None)
        if there is not None:
            return there
        times = (record_time_ms(kind, body) for _, kind, body in records)
        time_ms = next((one for one in times if one and 0 < one < TIME_MS_MAX), None)
        time_ms = time_ms or _created_ms(segment.path)
        folder = self.events / f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d}"
        if not folder.is_dir():
            folder.mkdir()
            sync(self.events)
        return folder / name


class Records:
    """The records of one segment, a batch at a time; `damaged` counts those that are lost."""

    def __init__(
        self, journals: Path, found: Waiting, segment: Segment, kernel: Kernel, batch_records: int
    ) -> None:
        self.damaged = 0
        self._reader = Reader(
            journals, found.worker, segment.first - 1, kernel, int(found.journal, 16), strict=True
        )
        self._last, self._batch = segment.last, batch_records

    def __iter__(self) -> Iterator[list[Record]]:
        with self._reader as reader:
            while reader.position < self._last:
                before = reader.position
                try:
                    records = reader.read(min(self._batch, self._last - before))
                except StoreCorrupt:
                    if not reader.skip_damage():
                        self.damaged += self._last - before
                        return
                    self.damaged += min(reader.position, self._last) - before
                    continue
                if not records:
                    return
                yield records


def _created_ms(path: Path) -> int:
    """When a segment was made, or last written where its header is damaged."""
    with path.open("rb") as file:
        try:
            return journal.decode_header(file.read(FRAMES_AT), str(path)).created_ms
        except StoreCorrupt:
            return int(path.stat().st_mtime) * 1000


def _replace(path: Path, data: bytes) -> None:
    """Replaces a small file, durably, where it says something else."""
    if path.exists() and path.read_bytes() == data:
        return
    fresh = path.with_suffix(_FRESH)
    fresh.write_bytes(data)
    _settle(fresh, path)


def _settle(fresh: Path, path: Path) -> None:
    """Gives a file its name once it is durable, and makes the name durable."""
    sync(fresh)
    fresh.replace(path)
    sync(path.parent)
