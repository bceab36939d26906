"""Mail between nodes of one PostgreSQL: notices that came to another node than the one that bid.

A sender counts what it sends to each node, and commits one batch at a time; so who reads beyond a
number has missed nothing before it. Mail is kept after it was read: audits need it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from rtb.stores.ledger_engines import columns
from rtb.stores.ledger_pool_schema import MAIL, META

# Names of positions in a node's books: how much was sent to a node, and read of what it sent.
MAIL_TO: Final = "mail-to/"
MAIL_FROM: Final = "mail-from/"


class Mail(NamedTuple):
    """A record whose bid another node has made; number: counted for each pair of nodes."""

    to_node: int
    from_node: int
    number: int
    time_s: int
    journal: str
    sequence: int
    kind: int
    body: bytes


def after(connection: Connection, node: int, read: Mapping[int, int], count: int) -> list[Mail]:
    """The mail of a node that comes after what it has read, by sender."""
    found = connection.exec_driver_sql(
        f"SELECT mail.* FROM unnest(%s::bigint[], %s::bigint[]) AS sent (sender, last) "
        f"JOIN {MAIL.name} AS mail ON mail.to_node = %s AND mail.from_node = sent.sender "
        "AND mail.number > sent.last ORDER BY mail.from_node, mail.number LIMIT %s",
        (*columns(list(read.items())), node, count),
    )
    return [_mail(row) for row in found]


def tidy(connection: Connection, node: int, read: Mapping[int, int], before_s: int) -> None:
    """Deletes mail that was read and is older, and notes since when all is kept."""
    gone = 0
    for sender, number in read.items():
        old = MAIL.delete().where(
            MAIL.c.to_node == node, MAIL.c.from_node == sender,
            MAIL.c.number <= number, MAIL.c.time_s < before_s,
        )  # fmt: skip
        gone += connection.execute(old).rowcount
    if gone:
        connection.exec_driver_sql(
            f"INSERT INTO {META.name} VALUES ('mail_from_s', %s) ON CONFLICT (name) "
            f"DO UPDATE SET value = GREATEST({META.name}.value, excluded.value)",
            (before_s,),
        )


class Post(NamedTuple):
    """The mail of a node as an audit needs it.

    sent      journal -> sequences of its records that other nodes book
    received  what others have sent, as far as it was booked
    waiting   how many of others' records were not booked yet
    from_s    all mail since then is kept
    """

    sent: dict[str, set[int]]
    received: list[Mail]
    waiting: int
    from_s: int


NO_POST: Final = Post({}, [], 0, 0)


def post_of(connection: Connection, node: int, positions: Mapping[str, int]) -> Post:
    """The mail of a node; positions: of its books, in the same look."""
    sent: dict[str, set[int]] = {}
    query = select(MAIL.c.journal, MAIL.c.sequence).where(MAIL.c.from_node == node)
    for journal, sequence in connection.execute(query):
        sent.setdefault(journal, set()).add(sequence)
    received, waiting = [], 0
    query = select(MAIL).where(MAIL.c.to_node == node)
    for row in connection.execute(query.order_by(MAIL.c.from_node, MAIL.c.number)):
        mail = _mail(row)
        if mail.number <= positions.get(f"{MAIL_FROM}{mail.from_node}", 0):
            received.append(mail)
        else:
            waiting += 1
    return Post(sent, received, waiting, mail_from_s(connection))


def mail_from_s(connection: Connection) -> int:
    """All mail that was sent since then is kept."""
    query = select(META.c.value).where(META.c.name == "mail_from_s")
    return connection.execute(query).scalar() or 0


def _mail(row: Sequence[Any]) -> Mail:
    """A row of `pool_mail`."""
    return Mail._make((*row[:-1], bytes(row[-1])))
