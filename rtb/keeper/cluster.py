"""A node among others on the same books: what it borrows, and its mail.

`rtb.keeper.run` has one where its books are in PostgreSQL. It is asked at the few places of a turn
where other nodes matter: before records are read, when they are booked, and before money is lent.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from rtb.keeper import leases
from rtb.keeper.borrow import NO_NEWS, Borrower, News
from rtb.keeper.leases import Lent, Limits, Need, can_serve, lend
from rtb.keeper.mail import Mailbox
from rtb.keeper.tail import Read
from rtb.ledger.accounts import Line
from rtb.ledger.commands import Enrol
from rtb.ledger.pool import Amount
from rtb.stores.ledger_mail import Mail
from rtb.stores.ledger_pool import PooledStore

# Leases that one turn may find waiting for the pool: a new catalogue must not hold up records.
WAITS_MAX: Final = 5_000
_PLENTY: Final = Lent(1 << 80, 1 << 80)  # more than anybody needs
_WISHES: Final = 32  # leases for which a share is enough, so that the pool need not be asked


class Cluster:
    """This node's end of the pool and of the mail; positions: of its books, as they were loaded."""

    def __init__(self, books: PooledStore, positions: Mapping[str, int]) -> None:
        self._books = books
        self.pool, self.mailbox = Borrower(books), Mailbox(books, positions)

    @property
    def nodes(self) -> Mapping[int, bool]:
        """As `Told.nodes`; none before the first turn."""
        return self.pool.nodes

    def turn(self, now_ms: int, count: int) -> News:
        """Brings shares up to date, and fetches at most `count` records of mail, when it is time.

        Raises: StoreError.
        """
        news = self.pool.turn(now_ms)
        if news is not NO_NEWS:
            self.mailbox.fetch(self.nodes, count)
        return news

    def claim(self, enrolments: Iterable[Enrol]) -> set[int]:
        """Says whose money line items spend; returns those of which another node said otherwise.

        Raises: StoreError.
        """
        return self._books.claim(enrolments)

    def meet(self, reads: Sequence[Read]) -> None:
        """Asks who takes part if a record is about a bid of a node that is not known.

        A node takes part before it bids: once a notice of its bid is here, whoever asks is told
        of it. Raises: StoreError.
        """
        if self.mailbox.has_strangers(reads):
            self.mailbox.know(self._books.nodes())

    def waits(
        self, line: Line, flight: int, day: int, need: Need, room: Lent, live: int, limits: Limits
    ) -> bool:
        """Asks for what a lease needs, if there is little; whether to wait for the answer.

        room: what may be lent of all of the line item's pots; live, limits: as `leases.lend`.
        """
        wish = lend(need, _PLENTY, live, limits)
        if wish is None or all(map(_is_plenty, room, wish)):
            return False
        least = Amount(leases.least(need), max(1 - need.left_units, 0))
        self.pool.want(line, flight, day, least, Amount(*wish))
        return not (can_serve(need, room) or self.pool.is_spent(line, flight, day, least))

    def send(self, connection: Connection, mail: Sequence[Mail]) -> None:
        """Puts mail into the transaction of the batch that it belongs to."""
        self._books.send(connection, mail)

    def tidy_mail(self, before_s: int) -> None:
        """Deletes mail that was booked and is older. Raises: StoreError."""
        self._books.tidy_mail(self.mailbox.booked, before_s)

    def give_back(self) -> None:
        """Leaves what it was lent to the other nodes, if there are any. Raises: StoreError."""
        if sum(self.nodes.values()) > 1:
            self._books.give_back()


def _is_plenty(room: int, wish: int) -> bool:
    return room >= _WISHES * wish
