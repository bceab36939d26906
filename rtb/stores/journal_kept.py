"""What is left of a node's journals, for who reads them all from the beginning."""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from rtb.base.errors import StoreCorrupt
from rtb.base.events import BID, CLAIMS_VERSION, Kind, bid_node
from rtb.stores.journal import Kernel, Record, kinds_of
from rtb.stores.journal_read import Reader, first_sequence, folder_of

_BATCH: int = 10_000
_BIDS: Final = kinds_of(Kind.BID)
_BID: Final = Struct("<B7xQ80x")  # version, bid
assert _BID.size == BID.itemsize


class Kept(NamedTuple):
    """One worker's journal: the records from `first` to `last` can be read.

    identity: of the journal, as `Reader` has it; first is 1 where nothing was retired
    """

    worker: int
    identity: int
    first: int
    last: int

    def is_named(self, name: str) -> bool:
        """Whether the books mean this journal by a name: "<node>/<worker>/<identity>"."""
        return name.endswith(f"/{self.worker}/{self.identity:016x}")


def workers_of(directory: Path) -> list[int]:
    """Who has a journal in a directory, in order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal())


def kept_in(directory: Path, kernel: Kernel) -> list[Kept]:
    """The journals of a directory. Raises: StoreCorrupt."""
    found = []
    for worker in workers_of(directory):
        with Reader(directory, worker, kernel=kernel) as reader:
            last = reader.durable_sequence()
            if reader.identity:
                first = first_sequence(directory, worker)
                found.append(Kept(worker, reader.identity, first, last))
    return found


def node_of(directory: Path, worker: int, kernel: Kernel) -> int | None:
    """The node that wrote a journal, by the first of its bids; None where there is no bid yet.

    Only bids tell: the notices of a bid may come to any node. Raises: StoreError when the disk
    fails.
    """
    with Reader(directory, worker, first_sequence(directory, worker) - 1, kernel, kinds=_BIDS) as (
        reader
    ):
        while reader.position < reader.durable_sequence():
            try:
                records = reader.read(_BATCH)
            except StoreCorrupt:  # whoever reads on from here says so
                if not reader.skip_damage():
                    return None
                continue
            for _, _, body in records:
                version, bid = _BID.unpack(body) if len(body) == _BID.size else (0, 0)
                if version == CLAIMS_VERSION:
                    return bid_node(bid)
    return None


def stranger(directory: Path, worker: int, node: int, kernel: Kernel) -> str:
    """What is wrong with a journal that is another node's; "" when it is not.

    Its records would be booked a second time, by who holds no money for them. Raises: StoreError.
    """
    found = node_of(directory, worker, kernel)
    if found in (None, node):
        return ""
    return f"a journal of node {found}, not of node {node} - at `{folder_of(directory, worker)}`"


class Records:
    """The records of one journal up to a sequence, in order.

    given_up: records that damage has taken, so far; damaged: those of them that no operator has
        given up
    """

    def __init__(self, directory: Path, kept: Kept, until: int, kernel: Kernel) -> None:
        self._directory, self._kept, self._until = directory, kept, until
        self._kernel = kernel
        self.given_up = self.damaged = 0

    def __iter__(self) -> Iterator[Record]:
        kept = self._kept
        with Reader(
            self._directory, kept.worker, kept.first - 1, self._kernel, kept.identity
        ) as reader:
            known = 0
            while reader.position < self._until:
                try:
                    records = reader.read(min(_BATCH, self._until - reader.position))
                except StoreCorrupt:
                    skipped = reader.skip_damage()
                    if not skipped:
                        raise
                    self.given_up += skipped
                    self.damaged += skipped
                    continue
                if not records:
                    return
                for record in records:
                    if record[0] <= self._until:
                        yield record
                self.given_up += reader.given_up - known
                known = reader.given_up
