"""What a node's books say after a run, for people: single line items, sums, and the audit.

Everything is read, nothing is written: from the books, from the keeper's report on pacing, from the
journals and from the exchange's invoice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from rtb.base.errors import StoreError
from rtb.base.events import bid_time_s
from rtb.base.money import ceil_div, currency_code, currency_name
from rtb.cli.audit import differs
from rtb.keeper.reconcile import NANOS_PER_MICRO, Compared, Node, Report, audit_of, invoices_of
from rtb.ledger.accounts import NO_LIMIT, Balance, place
from rtb.ledger.amounts import NANOS
from rtb.ledger.changes import Entry
from rtb.ledger.commands import Scope
from rtb.notices.conversions import Conversions
from rtb.notices.notice import CONVERSIONS
from rtb.server import settings
from rtb.stores.journal_kept import Records, kept_in
from rtb.stores.ledger_view import Account, LedgerView, Look

UNPACED: Final = "unpaced"
# A line item that nothing holds back, in the units of `Pacing`.
_WHOLE: Final = (10_000, 1_000_000)
_BETWEEN: Final = " / "  # the names of advertiser, campaign and line item
_DOLLAR: Final = currency_code("USD")
_SPENT: Final = (Balance.POSTED, Balance.OVER)
_BILLS: Final = (Entry.POST, Entry.LATE)


class Pacing(msgspec.Struct, frozen=True):
    """What the keeper reports of a line item; `target` and `budget` as its budget is counted.

    error_e6  (spent - target) / budget
    """

    line_item: str
    mode: str
    target: int
    budget: int
    error_e6: int
    multiplier_e6: int
    participation_e4: int


@dataclass(frozen=True)
class Item:
    """A line item's budget day; amounts in nanos of its currency, `budget_nanos` None: no limit.

    dollars      what it spent, to compare it with others
    impressions  in flight and billed, of the day
    bids, billed of the run: those that took money, and those of them that were billed
    pacing       what the keeper last reported; None where it has not
    """

    key: int
    name: str
    currency: str
    budget_nanos: int | None
    spent_nanos: int
    pending_nanos: int
    impressions: int
    dollars: float
    bids: int = 0
    billed: int = 0
    pacing: Pacing | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether the rest of its day is less than a bid of it costs on average."""
        used = self.spent_nanos + self.pending_nanos
        if self.budget_nanos is None or not self.impressions:
            return False
        return (self.budget_nanos - used) * self.impressions < used

    @property
    def is_held_back(self) -> bool:
        """Whether pacing lets it have fewer requests, or lower prices, than it could have."""
        pacing = self.pacing
        if pacing is None or pacing.mode == UNPACED:
            return False
        return (pacing.participation_e4, pacing.multiplier_e6) < _WHOLE


@dataclass(frozen=True)
class Totals:
    """Of all line items and days, in dollars: for people, who compare."""

    spent: float
    pending: float
    granted: float
    overspend: float


class Rates:
    """What currencies are worth: amounts in dollars, to compare them, never to book them."""

    def __init__(self, path: Path) -> None:
        """Raises: ConfigError."""
        rows = settings.load_rates(path)
        self._rates = dict(zip(rows["cur"].tolist(), rows["rate"].tolist(), strict=True))

    def dollars(self, currency: int, nanos: int) -> float:
        """An amount of a currency; 0 where nobody says what it is worth."""
        rate = self._rates.get(currency, 0.0) / self._rates[_DOLLAR]
        return float(nanos / NANOS * rate)


# -- line items ------------------------------------------------------------------------------------


def items_of(look: Look, rates: Rates, now_s: int) -> list[Item]:
    """Line items that have bid on their advertiser's present day."""
    found: dict[int, list[Account]] = {}
    for account in look.accounts:
        if account.day == place(look.lines[account.line_item], now_s)[1]:
            found.setdefault(account.line_item, []).append(account)
    items = (_item(look, rates, key, accounts) for key, accounts in found.items())
    return [item for item in items if item.impressions]


def _item(look: Look, rates: Rates, key: int, accounts: Iterable[Account]) -> Item:
    spent = pending = impressions = 0
    for account in accounts:
        nanos, units = account.nanos, account.units
        spent += nanos[Balance.POSTED] + nanos[Balance.OVER]
        pending += nanos[Balance.PENDING]
        impressions += units[Balance.POSTED] + units[Balance.OVER] + units[Balance.PENDING]
    line, limit = look.lines[key], look.limits.get((Scope.LINE_ITEM_DAY, key))
    budget = limit.nanos if limit is not None and limit.nanos < NO_LIMIT else None
    return Item(
        key, line.name.rsplit(_BETWEEN, 1)[-1], currency_name(line.currency), budget, spent,
        pending, impressions, rates.dollars(line.currency, spent),
    )  # fmt: skip


def paced(items: Iterable[Item], rows: Mapping[int, Pacing]) -> list[Item]:
    """The same with what pacing says of them."""
    return [replace(item, pacing=rows.get(item.key)) for item in items]


def pacing_rows(path: Path) -> dict[int, Pacing]:
    """The keeper's report by line item; nothing where there is none yet.

    Raises: StoreError when it cannot be read.
    """
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[Pacing])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
    return {int(row.line_item, 16): row for row in rows}


def interesting(items: Iterable[Item], count: int) -> list[Item]:
    """A few to look at, in the order of their spend: a third that have run out, a third that pacing
    holds back, as far as there are such, and others that spent most.
    """
    ranked = sorted(items, key=_rank)
    chosen: dict[int, Item] = {}
    _add(chosen, (item for item in ranked if item.is_exhausted), count // 3)
    _add(chosen, (item for item in ranked if item.is_held_back), count // 3)
    _add(chosen, ranked, count - len(chosen))
    return sorted(chosen.values(), key=_rank)


def _rank(item: Item) -> tuple[float, int]:
    return -item.dollars, item.key


def _add(chosen: dict[int, Item], items: Iterable[Item], count: int) -> None:
    """At most so many more."""
    most = len(chosen) + count
    for item in items:
        if len(chosen) >= most:
            return
        chosen.setdefault(item.key, item)


def counted(view: LedgerView, items: Iterable[Item], since_s: int) -> Iterator[Item]:
    """The same with their bids and bills of the rows since a time, which is that of a run.

    Raises: StoreError.
    """
    for item in items:
        bids, billed = 0, set()
        for _, row in view.rows([item.key]):
            if row.time_s < since_s:
                continue
            if row.entry is Entry.TAKE:
                bids += row.moves
            elif row.entry in _BILLS and row.target in _SPENT:  # not what was given back
                billed.add(row.bid)
        yield replace(item, bids=bids, billed=len(billed))


def totals_of(look: Look, rates: Rates) -> Totals:
    """All money of the books."""

    def of(*balances: Balance) -> float:
        return sum(
            rates.dollars(
                look.lines[account.line_item].currency,
                sum(account.nanos[balance] for balance in balances),
            )
            for account in look.accounts
        )

    return Totals(
        of(*_SPENT), of(Balance.PENDING), of(Balance.GRANTED), of(Balance.OVER),
    )  # fmt: skip


# -- the audit -------------------------------------------------------------------------------------


class RunView(LedgerView):
    """Books that know of single bids only those of a run: what its invoice is compared with."""

    since_s = 0

    def booked(self, bids: Iterable[int]) -> dict[int, int]:
        """See `LedgerView.booked`; bids of earlier runs are left out."""
        return super().booked(bid for bid in bids if bid_time_s(bid) >= self.since_s)


@dataclass(frozen=True)
class Audited:
    """All that is in the books against rows and journals; one run against its invoice."""

    books: Report
    invoices: list[Compared]

    @property
    def agrees(self) -> bool:
        """To the nano, and bid by bid."""
        return self.books.agrees and not any(map(differs, self.invoices))

    @property
    def difference_micros(self) -> int:
        """The sum of all differences, rounded up."""
        off = sum(abs(one.invoiced_nanos - one.booked_nanos) for one in self.invoices)
        return self.books.difference_micros + ceil_div(off, NANOS_PER_MICRO)

    @property
    def report(self) -> Report:
        """All of it as one audit, for people."""
        return msgspec.structs.replace(
            self.books, agrees=self.agrees, difference_micros=self.difference_micros,
            invoices=self.invoices,
        )  # fmt: skip

    @property
    def matched(self) -> int:
        """Bids on which books and invoice agree."""
        return sum(one.counts["matched"] for one in self.invoices)

    @property
    def lines(self) -> int:
        """Of the invoice."""
        return sum(one.lines for one in self.invoices)


def audited(node: Node, invoice: Path, since_s: int) -> Audited:
    """Compares everything, and the invoice with the bids that were made since a time.

    Raises: StoreError where books or journals cannot be read; InputError for the invoice.
    """
    with ExitStack() as stack:
        whole = stack.enter_context(LedgerView.open(node.paths.ledger_url))
        run = stack.enter_context(RunView.open(node.paths.ledger_url))
        run.since_s = since_s
        return Audited(audit_of(whole, node), invoices_of([(run, node)], [invoice]))


# -- conversions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Converted:
    """What the journals say of conversions; `micros`: their value by currency."""

    conversions: int
    micros: dict[str, int]


def converted(node: Node, since_s: int) -> Converted:
    """Conversions of bids that were made since a time. Raises: StoreError."""
    found = Conversions(since_s)
    for kept in kept_in(node.paths.journals, node.kernel):
        for _, kind, body in Records(node.paths.journals, kept, kept.last, node.kernel):
            if kind in CONVERSIONS:
                found.add(body)
    totals = found.by_line_item.values()
    micros = sum((total.value_micros for total in totals), Counter[int]())
    return Converted(
        sum(total.conversions for total in totals),
        {currency_name(code): value for code, value in micros.items()},
    )


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Money:
    """What there is to show of a run."""

    items: list[Item]
    totals: Totals
    audit: Audited
    converted: Converted


def money_of(
    node: Node, rates: Rates, invoice: Path, since_s: int, now_s: int, count: int
) -> Money:
    """Everything, of a node that does not run any more; `count` line items of it.

    since_s: when the run began. Raises: as `audited`.
    """
    with LedgerView.open(node.paths.ledger_url) as view:
        look = view.look()
        items = paced(items_of(look, rates, now_s), pacing_rows(node.paths.pacing_report))
        shown = list(counted(view, interesting(items, count), since_s))
    return Money(
        shown, totals_of(look, rates), audited(node, invoice, since_s), converted(node, since_s)
    )
