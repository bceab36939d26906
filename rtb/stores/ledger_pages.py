"""Pages of the books on disk: what was written on them batch by batch, and what is left of spent
ones.

    packs   first bid -> bids that one batch wrote on one page, as they were then
    losses  first bid -> numbers of bids that one batch closed on one page
    pages   page -> up to which deadline it has expired, and, once all of it has, its bitmap

A bid of a pack is open unless it was lost, its page has expired beyond its deadline, or a mark says
that it was billed. So a bill writes its mark alone, and expiry one row a page. Bodies are
compressed; that of a spent page is a few bytes, as its numbers are dense.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from rtb.base.errors import StoreCorrupt
from rtb.base.events import BID_SECOND_SHIFT
from rtb.ledger import audit
from rtb.ledger.accounts import Balance, State
from rtb.ledger.changes import Changes
from rtb.ledger.pages import (
    HELD,
    NEVER_S,
    NUMBERS_MAX,
    PAGE_SHIFT,
    SECOND_SHIFT,
    Page,
    Rows,
    by_account,
    number_of,
    page_of,
)  # fmt: skip
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_engines import Bulk

_NUMBER: Final = np.dtype(np.uint16)
_Kind = TypeVar("_Kind", bound=np.generic)
_LEVEL: Final = 1  # of compression: three times as fast as the usual one, and hardly worse here


def encode(rows: np.ndarray) -> bytes:
    """An array as a body."""
    return zlib.compress(rows.tobytes(), _LEVEL)


def decode(body: bytes, kind: np.dtype[_Kind], place: str) -> npt.NDArray[_Kind]:
    """The inverse. Raises: StoreCorrupt."""
    try:
        return np.frombuffer(zlib.decompress(body), kind)
    except (zlib.error, ValueError) as error:
        raise StoreCorrupt(f"{error} - at `{place}`") from error


def _bids(page: int) -> tuple[int, int]:
    """The first and the last bid that a page could have."""
    return page << PAGE_SHIFT, page << PAGE_SHIFT | NUMBERS_MAX - 1


# -- reading ---------------------------------------------------------------------------------------


def read_pages(connection: Connection, state: State) -> None:
    """All pages that are not spent. Raises: StoreCorrupt."""
    pages = schema.PAGES
    partly = select(pages.c.page, pages.c.expired_s).where(func.length(pages.c.bitmap) == 0)
    expired = {int(page): int(expired_s) for page, expired_s in connection.execute(partly)}
    for first, body in connection.execute(select(schema.PACKS).order_by(schema.PACKS.c.first)):
        key = page_of(int(first))
        page = state.pages.get(key)
        if page is None:
            page = state.pages[key] = Page(expired.get(key, NEVER_S))
        for deadline_s in page.add(decode(body, HELD, f"pack {first}")):
            state.pages_due.setdefault(deadline_s, []).append(key)
    for first, body in connection.execute(select(schema.LOSSES)):
        page = state.pages.get(page_of(int(first)))
        if page is None:
            raise StoreCorrupt(f"no such page - at `losses {first}`")
        page.rows["open"][decode(body, _NUMBER, f"losses {first}")] = 0
    if state.pages:
        _close_settled(connection, state)


def _close_settled(connection: Connection, state: State) -> None:
    bid = schema.SETTLED.c.bid
    oldest, _ = _bids(min(state.pages))
    for (settled,) in connection.execute(select(bid).where(bid >= oldest)):
        page = state.pages.get(page_of(settled))
        if page is not None and page.held(number_of(settled)) is not None:
            page.close(number_of(settled))


def pending(connection: Connection) -> audit.Sums:
    """What PENDING must be by the bids on pages. Raises: StoreCorrupt."""
    state = State()
    read_pages(connection, state)
    sums: audit.Sums = {}
    if state.pages:
        rows = np.concatenate([page.open_rows() for page in state.pages.values()])
        for account, nanos, units, _ in by_account(rows):
            audit.add(sums, (account, Balance.PENDING), nanos, units)
    return sums


def stage(
    connection: Connection, bulk: Bulk, state: State, bids: Iterable[int], takes: Sequence[Rows]
) -> list[tuple[int, int]]:
    """Shows the machine the spent pages of bids that it will be asked for.

    takes: of dtype commands.TAKE. Returns: [first, last] bid of these on each page, where marks of
    bids that were settled before they were taken may lie.
    """
    ranges = [found for one in takes for found in _ranges(one["bid"], state.forgotten_s)]
    keys = {page_of(bid) for bid in bids} | {page_of(first) for first, _ in ranges}
    keys -= state.pages.keys()
    for page, _, bitmap in bulk.find(connection, schema.PAGES, keys) if keys else ():
        if bitmap:
            state.spent[int(page)] = zlib.decompress(bitmap)
    return ranges


def _ranges(bids: np.ndarray, forgotten_s: int) -> list[tuple[int, int]]:
    ranked = np.sort(bids)
    ranked = ranked[(ranked >> BID_SECOND_SHIFT >= forgotten_s) & (ranked < 1 << 63)]
    if not len(ranked):
        return []
    starts = np.flatnonzero(np.diff(ranked >> PAGE_SHIFT, prepend=0))
    ends = np.append(starts[1:], len(ranked)) - 1
    return list(zip(ranked[starts].tolist(), ranked[ends].tolist(), strict=True))


# -- writing ---------------------------------------------------------------------------------------


def write(connection: Connection, bulk: Bulk, changes: Changes) -> None:
    """What a batch wrote on pages, and what has expired of them."""
    spent = changes.spent
    bulk.insert(
        connection, schema.PACKS,
        [_pack(key, np.concatenate(parts))
         for key, parts in changes.packs.items() if key not in spent],
    )  # fmt: skip
    bulk.insert(
        connection, schema.LOSSES,
        [(key << PAGE_SHIFT | min(numbers), encode(np.array(numbers, _NUMBER)))
         for key, numbers in changes.lost.items() if key not in spent],
    )  # fmt: skip
    for table in (schema.PACKS, schema.LOSSES):
        bulk.delete_ranges(connection, table, [_bids(key) for key in spent])
    forgotten = [(key,) for key, bitmap in spent.items() if not bitmap]
    bulk.delete(connection, schema.PAGES, forgotten)
    bulk.upsert(
        connection, schema.PAGES,
        [(key, expired_s, zlib.compress(spent[key], _LEVEL) if key in spent else b"")
         for key, expired_s in changes.expired.items() if spent.get(key) != b""],
    )  # fmt: skip


def _pack(key: int, rows: Rows) -> tuple[int, bytes]:
    return key << PAGE_SHIFT | int(rows["number"].min()), encode(rows)


def purge(connection: Connection, before_s: int, rows_max: int) -> int:
    """Lets go of at most so many spent pages made before a moment; returns of how many."""
    pages = schema.PAGES
    below = min(before_s << SECOND_SHIFT, (1 << 63) - 1)
    old = (pages.c.page < below) & (func.length(pages.c.bitmap) > 0)
    some = select(pages.c.page).where(old).order_by(pages.c.page).limit(rows_max)
    return connection.execute(pages.delete().where(pages.c.page.in_(some))).rowcount
