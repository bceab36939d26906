"""Reading all workers' journals in turn, and finding out that a worker is dead.

A tail that meets damage stops where it is and says so; the others go on. Nothing is lent to its
worker from then on, and nothing expires, for the bills that stand behind the damage are not known.

A journal that another node wrote is not read: `check` finds it before anything starts, and a tail
that comes upon one later says so and stays out of it. Nobody waits for what stands in it.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from rtb.base.errors import ConfigError, StoreError
from rtb.base.events import record_time_ms
from rtb.stores.journal import ALL_KINDS, Kernel, Record
from rtb.stores.journal_kept import kept_in, stranger, workers_of
from rtb.stores.journal_read import (
    Mark,
    Reader,
    first_sequence,
    folder_of,
    is_marked,
    segments,
)
from rtb.stores.journal_recover import recover

log = logging.getLogger("rtb.keeper")


class Tail:
    """One worker's journal, read on from where the books are.

    name        of the journal in the books; "" until there is one
    fault       why it cannot be read; "" when it can
    before      where the last `read` began
    horizon_ms  all that was durable before this moment has been read
    """

    def __init__(
        self,
        directory: Path,
        node: int,
        worker: int,
        kernel: Kernel,
        positions: Mapping[str, int],
        kinds: bytes = ALL_KINDS,
    ) -> None:
        self.worker = worker
        self.before = 0
        self.name = ""
        self.fault = ""
        self.horizon_ms = 0
        self._directory, self._node, self._kernel = directory, node, kernel
        self._positions, self._kinds = positions, kinds
        self._reader = Reader(directory, worker, kernel=kernel)
        self._is_strange = False  # another node's

    @property
    def position(self) -> int:
        """Sequence of the last record that was read."""
        return self._reader.position

    def durable_sequence(self) -> int:
        """How far it could be read by now."""
        return self._reader.durable_sequence() if self._found() else 0

    def read(self, records_max: int, now_ms: int) -> list[Record]:
        """Those of the next records that are wanted; none where it cannot be read."""
        self.before = self.position
        try:
            if not self._found():
                self.horizon_ms = now_ms
                return []
            self.before = self.position
            durable = self._reader.durable_sequence()
            records = self._reader.read(records_max)
        except StoreError as error:
            self.fault = str(error)
            return []
        self.fault = ""
        if self.position >= durable:
            self.horizon_ms = now_ms
        elif records:
            _, kind, body = records[-1]
            self.horizon_ms = record_time_ms(kind, body) or self.horizon_ms
        return records

    def _found(self) -> bool:
        """Whether there is a journal that may be read."""
        if not self.name and not self._is_strange and self._reader.durable_sequence() >= 0:
            self._look()
        return bool(self.name)

    def _look(self) -> None:
        """Names the journal by its identity: one that was deleted begins anew in the books too."""
        identity = self._reader.identity
        if not identity:
            return
        wrong = stranger(self._directory, self.worker, self._node, self._kernel)
        if wrong:
            self._is_strange, self.fault = True, wrong
            return
        self.name = f"{self._node}/{self.worker}/{identity:016x}"
        after = self._positions.get(self.name)
        after = self._beginning() if after is None else after
        self._reader.close()
        self._reader = Reader(
            self._directory, self.worker, after, self._kernel, identity, self._kinds
        )

    def _beginning(self) -> int:
        """Of a journal that is new to the books: before its first record. Where only its mark was
        made anew the first ones may be gone, booked under the name that it had."""
        oldest = first_sequence(self._directory, self.worker) - 1
        former = f"{self._node}/{self.worker}/"
        booked = (at for name, at in self._positions.items() if name.startswith(former))
        return oldest if max(booked, default=0) >= oldest else 0

    def close(self) -> None:
        """Lets go of the files."""
        self._reader.close()


class Source(Protocol):
    """Where records come from, by the name that the books know."""

    name: str


class Read(NamedTuple):
    """What is wanted of the records of one journal that come after `after`, up to `last`."""

    tail: Source
    records: list[Record]
    after: int
    last: int


class Tails:
    """The journals of all workers of a node."""

    def __init__(self, make: Callable[[int], Tail]) -> None:
        self._make = make
        self._tails: dict[int, Tail] = {}
        self._next = 0

    def of(self, worker: int) -> Tail:
        """A worker's tail."""
        found = self._tails.get(worker)
        if found is None:
            found = self._tails[worker] = self._make(worker)
        return found

    def read(self, records_max: int, now_ms: int) -> list[Read]:
        """At most so many records in all: each journal its share, and what those before it left.

        The first is another one each time, so a busy worker cannot keep the others waiting.
        """
        tails = list(self._tails.values())
        self._next += 1
        found = []
        for number in range(len(tails)):
            tail = tails[(self._next + number) % len(tails)]
            share = max(records_max // (len(tails) - number), 1)
            records = tail.read(share, now_ms)
            after, last = tail.before, tail.position
            records_max -= last - after
            if last > after:
                found.append(Read(tail, records, after, last))
        return found

    def horizon_ms(self, now_ms: int) -> int:
        """The moment up to which all journals were read."""
        return min([now_ms, *(tail.horizon_ms for tail in self._tails.values())])

    def positions(self) -> dict[int, int]:
        """How far each journal was read, by worker."""
        return {worker: tail.position for worker, tail in self._tails.items()}

    def are_read(self) -> bool:
        """Whether there is nothing to read by now; a journal that cannot be read counts as read."""
        tails = self._tails.values()
        return all(tail.fault or tail.position >= tail.durable_sequence() for tail in tails)

    def faults(self) -> dict[int, str]:
        """What cannot be read, by worker."""
        return {worker: tail.fault for worker, tail in self._tails.items() if tail.fault}

    def close(self) -> None:
        """Lets go of all files."""
        for tail in self._tails.values():
            tail.close()


def check(directory: Path, node: int, kernel: Kernel) -> None:
    """Finds journals that are another node's before anything starts, and makes marks anew that are
    not whole. One that cannot be read now may be later. Raises: ConfigError.
    """
    try:
        for worker in workers_of(directory):
            if not is_marked(folder_of(directory, worker)):
                bury(directory, worker, kernel)
        found = [
            stranger(directory, one.worker, node, kernel) for one in kept_in(directory, kernel)
        ]
    except StoreError as error:
        log.warning("the journals cannot be looked at: %s", error)
        return
    for wrong in filter(None, found):
        raise ConfigError(wrong)


def _mark_of(folder: Path) -> Mark:
    """The mark of a dead worker's journal. A new one is a new journal to the books: its records are
    read from the first on, and what they know of them is not booked again."""
    if not is_marked(folder):
        log.error("the mark of a journal was lost, and is made anew - at `%s`", folder)
    return Mark.create(folder, int.from_bytes(os.urandom(8), "little") | 1)


def bury(
    directory: Path, worker: int, kernel: Kernel, sync: Callable[[int], None] = os.fdatasync
) -> bool:
    """Does what the next start of a dead worker would do to its journal; False while it lives.

    A worker holds its journal's lock as long as it can append: who gets the lock knows that it is
    dead. Recovery makes durable all that it appended, so that it can be read to the end.

    Raises: StoreError when the disk fails.
    """
    folder = folder_of(directory, worker)
    try:
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # it never had a journal
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if segments(folder):
            mark = _mark_of(folder)
            try:
                recover(folder, mark, kernel, sync, file)
            finally:
                mark.close()
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error
    finally:
        os.close(file)
    return True
