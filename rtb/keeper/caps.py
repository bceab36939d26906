"""Impressions of the journals, counted for frequency caps.

    read      records of all journals that are not counted yet
    count     one transaction of the store: counts of the persons met, and the journals' positions
    publish   on the caps board, only after the transaction

A person's bit is raised on the board before the transaction: a worker that sees the new counts in
the store looks for them. Killed anywhere, the next keeper goes on where the store says, so nothing
is counted twice and nothing left out. Positions are the store's own, not those of the books.

Of all records only impressions count, and of those no tests, none for nobody, and none of line
items without caps. Links of ids that came together are put to the counts of both ends.
"""

import logging
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from rtb.base.errors import InvariantError, StoreError
from rtb.base.events import (
    CLAIMS,
    CLAIMS_VERSION,
    LINK,
    LINK_OTHERS_MAX,
    LINK_VERSION,
    NOTICE,
    ClaimFlag,
    Kind,
    Way,
)
from rtb.keeper.tail import Tails
from rtb.stores.caps_board import CapsBoard, Filter
from rtb.stores.caps_table import CapsTable
from rtb.stores.journal import Record, kinds_of
from rtb.stores.journal_read import Reader, first_sequence
from rtb.stores.profiles import CountsWriter, Links, Shown, link

log = logging.getLogger("rtb.keeper")

MS_PER_S: Final = 1000
# version, flags, bid, line item, creative, person, time_ms: the rest is not needed here.
_NOTICE: Final = struct.Struct("<BxBx4xQQQ8xQ24xq")
_PLACES: Final = {"version": 0, "flags": 2, "bid": 8, "line_item": 16, "creative": 24, "person": 40}
assert CLAIMS.fields is not None
assert all(CLAIMS.fields[name][1] == place for name, place in _PLACES.items())
assert CLAIMS.itemsize + 8 == _NOTICE.size
# version, count, time_ms, person, others, ways
_LINK: Final = struct.Struct(f"<BB6xqQ{LINK_OTHERS_MAX}Q{LINK_OTHERS_MAX + 1}s")
assert LINK.itemsize == _LINK.size
_IMPRESSION: Final = int(Kind.IMPRESSION)
_LINKED: Final = int(Kind.LINK)
_TEST: Final = int(ClaimFlag.TEST)
# All that a reader for this keeper needs to return.
COUNTED_KINDS: Final = kinds_of(_IMPRESSION, _LINKED)


class Fate(IntEnum):
    """What became of an impression, or of a link."""

    GIVEN = 0  # to the store, which counts each bid once
    TEST = 1
    NOBODY = 2  # no person, or one who may not be counted
    NO_CAPS = 3
    BROKEN = 4  # a length or a version that we do not know
    LINKED = 5


@dataclass(frozen=True)
class Settings:
    """What a node sets for its count of caps.

    node             number of the node, in the names of its journals
    batch_records    5,000: a batch is counted in a fraction of a second
    position_every   20,000 records without an impression or a link: a position is written only
                     then, for each transaction costs a flush of the disk
    tidy_steps       512: the store is walked through in so many steps
    tidy_persons     2,000: and until the first walk is through, steps are taken together that have
                     no more persons than that, so that a store of few is known within a turn
    """

    node: int = 0
    batch_records: int = 5_000
    position_every: int = 20_000
    tidy_steps: int = 512
    tidy_persons: int = 2_000


class Stretch(NamedTuple):
    """Of one journal, by its name: the impressions among the records (after, last].

    Records of other kinds may be among them; they are passed over.
    """

    name: str
    after: int
    last: int
    records: Sequence[Record]


def names_of(journals: Path, node: int, workers: int) -> list[tuple[int, str]]:
    """Each worker that has a journal, and its name."""
    found = []
    for worker in range(workers):
        with Reader(journals, worker) as reader:
            if reader.durable_sequence() >= 0 and reader.identity:
                found.append((worker, f"{node}/{worker}/{reader.identity:016x}"))
    return found


class CapsKeeper:
    """The one writer of counts on a node.

    positions  how far each journal of this node is counted, by its name
    """

    def __init__(
        self,
        store: CountsWriter,
        board: CapsBoard,
        table: CapsTable,
        settings: Settings = Settings(),
        names: Sequence[str] | None = None,
    ) -> None:
        """names: of the journals that are there; without them the store is gone through."""
        self._store, self._board, self._table, self._settings = store, board, table, settings
        self._filter = Filter(board)
        ours = f"{settings.node}/"  # other nodes may count into the same store
        self.positions = {
            name: one for name, one in store.positions(names).items() if name.startswith(ours)
        }
        self._reached = dict(self.positions)
        self._held: list[Stretch] = []
        self._idle = 0  # records since the last transaction
        self._step = 0
        self.fates: Counter[Fate] = Counter()
        self.fault = ""  # of the last transaction; "" when it went well
        self._publish()

    def serve(self, table: CapsTable) -> None:
        """Puts the caps of a new snapshot in force; to be done before workers bid by it."""
        self._table = table

    def begin_at(self, journals: Path) -> dict[str, int]:
        """Positions to read on from, by journal: the oldest record that is still kept, where
        nothing is counted yet, or records were removed that are not.
        """
        found = dict(self.positions)
        for worker, name in names_of(journals, self._settings.node, self._board.workers_count):
            oldest = first_sequence(journals, worker) - 1
            if found.get(name, oldest) < oldest:
                log.error("%s: records %d to %d were never counted", name, found[name] + 1, oldest)
            found[name] = self._reached[name] = max(found.get(name, oldest), oldest)
        return found

    # -- a turn ------------------------------------------------------------------------------------

    def step(self, tails: Tails, now_ms: int) -> int:
        """One turn with tails of its own; returns how many records it went through.

        A batch that the store could not take is kept and tried again as it is.
        Raises: StoreError when trying again would not help, InvariantError.
        """
        if not self._held:
            reads = tails.read(self._settings.batch_records, now_ms)
            self._held = [
                Stretch(tail.name, after, last, records) for tail, records, after, last in reads
            ]
        try:
            self.apply(self._held)
        except StoreError as error:
            if not error.transient:
                raise
            self.fault = str(error)
            return 0
        count = sum(one.last - one.after for one in self._held)
        self.fault, self._held = "", []
        return count

    def apply(self, reads: Iterable[Stretch]) -> int:
        """Counts records of journals, each in order; those that were counted before are left out.

        Returns: how many persons' counts changed.
        Raises: StoreError when nothing was counted: give the same records again. InvariantError
            when records were left out.
        """
        shown: Shown = {}
        links: Links = {}
        reached, told, passed = dict(self._reached), False, 0
        fates: Counter[Fate] = Counter()
        for one in reads:
            before = _counted(one, reached)
            for sequence, kind, body in one.records:
                if sequence > before and kind == _IMPRESSION:
                    told = True
                    fates[self._take(body, shown)] += 1
                elif sequence > before and kind == _LINKED:
                    told = True
                    fates[_take_links(body, links)] += 1
            if one.last > before:
                passed += one.last - before
                reached[one.name] = one.last
        if not told and self._idle + passed < self._settings.position_every:
            self._reached, self._idle = reached, self._idle + passed
            return 0
        for person in (*shown, *_who_follow(links)):
            self._filter.add(person)
        moved = {name: one for name, one in reached.items() if self.positions.get(name) != one}
        changed = self._store.count(shown, moved, links)
        self.positions, self._reached, self._idle = reached, dict(reached), 0
        self.fates += fates
        self._publish()
        return changed

    def settle(self) -> None:
        """Tells the store how far the journals hold nothing more to count. Raises: StoreError."""
        moved = {
            name: one for name, one in self._reached.items() if self.positions.get(name) != one
        }
        if moved:
            self._store.count({}, moved)
            self.positions, self._idle = dict(self._reached), 0
            self._publish()

    def _take(self, body: bytes, shown: Shown) -> Fate:
        if len(body) != NOTICE.itemsize:
            return Fate.BROKEN
        version, flags, bid, line_item, creative, person, time_ms = _NOTICE.unpack_from(body)
        if version != CLAIMS_VERSION or time_ms <= 0:
            return Fate.BROKEN
        if flags & _TEST:
            return Fate.TEST
        if not person:
            return Fate.NOBODY
        given = self._table.add(shown, person, bid, time_ms, line_item, creative)
        return Fate.GIVEN if given else Fate.NO_CAPS

    def _publish(self) -> None:
        """Says on the board how far this node's journals are counted."""
        for name, sequence in self.positions.items():
            _, worker, identity = name.split("/")
            if int(worker) >= self._board.workers_count:
                continue
            if int(identity, 16) != self._board.worker[int(worker)]["identity"]:
                continue  # a journal that is no more
            row = self._board.keeper[int(worker)]
            if row["identity"] != int(identity, 16):
                row["counted"] = 0
                row["identity"] = int(identity, 16)
            row["counted"] = sequence

    # -- house-keeping -----------------------------------------------------------------------------

    def tidy(self, now_s: int) -> int:
        """Drops counts that are spent and renews the filter, for one part of all persons; for more
        than one while it is not `ready`.

        To be called every minute or so, and at once after the start, until `ready`.
        Returns: how many persons of that part have counts. Raises: StoreError.
        """
        count = self._tidy(now_s)
        while not self.ready and count < self._settings.tidy_persons:
            count += self._tidy(now_s)
        return count

    def _tidy(self, now_s: int) -> int:
        steps = min(self._settings.tidy_steps, self._filter.words_count)
        first = self._filter.words_count * self._step // steps
        last = self._filter.words_count * (self._step + 1) // steps
        low, high = self._filter.span(first, last)
        kept = self._store.sweep(low, high, now_s)
        self._filter.replace(first, last, np.array(kept, np.uint64))
        self._step = (self._step + 1) % steps
        if self._step == 0:
            self._filter.open()
        return len(kept)

    @property
    def is_idle(self) -> bool:
        """Whether all that was read is counted."""
        return not self._held

    @property
    def ready(self) -> bool:
        """Whether the filter tells of everybody; until then workers look for everybody's counts."""
        return self._filter.ready


def _take_links(body: bytes, links: Links) -> Fate:
    """Puts a link to those of both its ends; one end follows it, or both do."""
    if len(body) != LINK.itemsize:
        return Fate.BROKEN
    version, count, time_ms, person, *others, ways = _LINK.unpack(body)
    if version != LINK_VERSION or count > LINK_OTHERS_MAX or time_ms <= 0:
        return Fate.BROKEN
    for other, way in zip(others[:count], ways, strict=False):
        link(links, other, person, time_ms, bool(way & Way.TO_PERSON))
        link(links, person, other, time_ms, bool(way & Way.FROM_PERSON))
    return Fate.LINKED


def _who_follow(links: Links) -> Iterator[int]:
    """Persons whose links requests must see."""
    return (person for person, every in links.items() if any(one.follow for one in every))


def _counted(one: Stretch, reached: Mapping[str, int]) -> int:
    """Up to where a journal was counted before. Raises: InvariantError when records are missing."""
    before = reached.get(one.name, one.after)
    if one.after > before and one.last > one.after:
        raise InvariantError(f"{one.name}: records {before + 1} to {one.after} were left out")
    return before
