"""Notices of other nodes' bids: any node takes a notice, the one that made the bid books it.

A record whose bid another node has made is not booked here: it goes into the mail as it is, in the
transaction that moves the journal's position. Its own node reads the mail as one more journal, with
a position for each sender in its own books. So it is booked once, however often and wherever the
exchange sent it.

Who never took part in the pool gets no mail: nobody would read it. What comes for its bids is
booked here, as a bill of a bid that was never seen. Who was released does: only its books know what
was booked already, and the money of what it had in flight stays with it.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

from rtb.base.events import NOTICE, Kind
from rtb.keeper.batch import Place
from rtb.keeper.tail import Read
from rtb.ledger.commands import worker_of
from rtb.stores.ledger_mail import MAIL_FROM, MAIL_TO, Mail
from rtb.stores.ledger_pool import PooledStore

_NODE_SHIFT: Final = 8  # of `commands.worker_of`
_BID_AT: Final = slice(8, 16)  # of a notice's body: `events.CLAIMS`, little endian
MONEY_KINDS: Final = frozenset(map(int, (Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION)))


class Sender:
    """Where mail comes from, as a journal's name."""

    def __init__(self, node: int) -> None:
        self.name = f"{MAIL_FROM}{node}"


class Mailbox:
    """The mail of one node. nodes: those that ever took part in the pool, but itself."""

    def __init__(self, books: PooledStore, positions: Mapping[str, int]) -> None:
        self._books = books
        self._sent = _by_node(positions, MAIL_TO)
        self.booked = _by_node(positions, MAIL_FROM)
        self._senders: dict[int, Sender] = {}
        self._queue: list[Mail] = []
        self.nodes: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether all that was fetched has been read."""
        return not self._queue

    def fetch(self, nodes: Mapping[int, bool], count: int) -> None:
        """Fetches what has come, when the last is read. nodes: as `Told.nodes`.

        Raises: StoreError.
        """
        self.know(nodes)
        if not self._queue:
            after = {node: self.booked.get(node, 0) for node in self.nodes}
            self._queue = self._books.receive(after, count)

    def know(self, nodes: Iterable[int]) -> None:
        """Who gets mail from now on."""
        self.nodes = frozenset(nodes) - {self._books.node}

    def has_strangers(self, reads: Iterable[Read]) -> bool:
        """Whether there is a notice of a bid by a node that is not known to take part."""
        known = self.nodes | {self._books.node}
        return any(
            _is_notice(kind, body) and node_of(body) not in known
            for read in reads
            for _, kind, body in read.records
        )

    def read(self, count: int) -> list[Read]:
        """At most so many records, by sender."""
        mail, self._queue = self._queue[:count], self._queue[count:]
        found = []
        for node, letters in groupby(mail, key=_sender):
            records = [(one.number, one.kind, one.body) for one in letters]
            after, last = self.booked.get(node, 0), records[-1][0]
            self.booked[node] = last
            sender = self._senders.setdefault(node, Sender(node))
            found.append(Read(sender, records, after, last))
        return found

    def is_for_another(self, kind: int, body: bytes) -> bool:
        """Whether a record goes into the mail."""
        return _is_notice(kind, body) and node_of(body) in self.nodes

    def stamp(self, places: Iterable[Place], now_s: int) -> list[Mail]:
        """The mail of some records, numbered."""
        found = []
        for journal, (sequence, kind, body) in places:
            node = node_of(body)
            number = self._sent[node] = self._sent.get(node, 0) + 1
            own = self._books.node
            found.append(Mail(node, own, number, now_s, journal, sequence, kind, body))
        return found


def _is_notice(kind: int, body: bytes) -> bool:
    return kind in MONEY_KINDS and len(body) == NOTICE.itemsize


def node_of(body: bytes) -> int:
    """Who made the bid of a notice."""
    return worker_of(int.from_bytes(body[_BID_AT], "little")) >> _NODE_SHIFT


def positions_of(mail: Iterable[Mail]) -> dict[str, int]:
    """How much has been sent to whom once this has."""
    return {f"{MAIL_TO}{one.to_node}": one.number for one in mail}


def _by_node(positions: Mapping[str, int], prefix: str) -> dict[int, int]:
    return {
        int(name.removeprefix(prefix)): position
        for name, position in positions.items()
        if name.startswith(prefix)
    }


def _sender(mail: Mail) -> int:
    return mail.from_node
