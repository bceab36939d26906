"""What a run's money is shown as: line items, sums, and an audit of that run's invoice alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtb.base.errors import InputError, StoreError
from rtb.base.events import Kind
from rtb.cli import demo_books as books
from rtb.cli.demo_books import Item, Pacing, Rates
from rtb.server import settings
from rtb.stores.ledger_view import LedgerView
from tests.cli.books import Laid, bill, invoice_of
from tests.keeper.node import T, line

RATES = Rates(settings.CONFIGS / settings.Files().rates)
USD, JPY = 0x555344, 0x4A5059


@pytest.fixture(name="node")
def node_fixture(tmp_path: Path) -> Iterator[Laid]:
    """Two workers with money for two line items, the second with a small daily budget."""
    node = Laid(tmp_path / "state")
    node.offer(line(1, 10_000_000), line(2, 10_000_000, daily=20_500))
    node.start_all()
    yield node
    node.close()


def money_of(node: Laid, invoice: Path, since_s: int) -> books.Money:
    """As the demonstration asks for it."""
    return books.money_of(node.audited, RATES, invoice, since_s, node.now_ms // 1000, 12)


def items_of(node: Laid) -> dict[str, Item]:
    """By name."""
    with LedgerView.open(node.paths.ledger_url) as view:
        look = view.look()
    return {item.name: item for item in books.items_of(look, RATES, node.now_ms // 1000)}


def item(key: int, dollars: float, **said: object) -> Item:
    """A line item that has spent."""
    known = {"name": f"li{key}", "currency": "USD", "budget_nanos": None, "spent_nanos": 100,
             "pending_nanos": 0, "impressions": 1} | said  # fmt: skip
    return Item(key=key, dollars=dollars, **known)  # type: ignore[arg-type]


def pacing(mode: str, multiplier_e6: int = 1_000_000, participation_e4: int = 10_000) -> Pacing:
    """What the keeper reports of a line item."""
    return Pacing("1", mode, 0, 0, 0, multiplier_e6, participation_e4)


def test_a_run_agrees_with_its_invoice(node: Laid, tmp_path: Path) -> None:
    """Bids, bills, spend, what is in flight: as they were; and no difference."""
    worker = node.workers[0]
    assert worker is not None
    billed = bill(node, worker, 1, 5)
    assert worker.bid(1) is not None
    node.turns(2)
    money = money_of(node, invoice_of(tmp_path / "i.csv", billed), T)

    (shown,) = money.items
    assert ("line 1", 6, 5, 3_500, 1_000) == (
        shown.name, shown.bids, shown.billed, shown.spent_nanos, shown.pending_nanos,
    )  # fmt: skip
    assert money.audit.agrees
    assert (5, 5, 0) == (money.audit.matched, money.audit.lines, money.audit.difference_micros)
    assert 3_500e-9 == pytest.approx(money.totals.spent)
    assert 1_000e-9 == pytest.approx(money.totals.pending)
    assert money.totals.granted > 0
    assert 0 == money.totals.overspend


def test_an_earlier_run_of_the_day_is_not_on_this_invoice(node: Laid, tmp_path: Path) -> None:
    """Its bills stay in the books, and are not missing on an invoice that is not theirs."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 3)
    node.now_ms += 60_000
    since_s = node.now_ms // 1000
    node.turns(2)
    later = bill(node, worker, 1, 2)
    invoice = invoice_of(tmp_path / "i.csv", later)
    money = money_of(node, invoice, since_s)

    assert money.audit.agrees
    assert (2, 5) == (money.audit.matched, money.audit.books.bills)
    assert (2, 2, 3_500) == (
        money.items[0].bids, money.items[0].billed, money.items[0].spent_nanos,
    )  # fmt: skip
    assert not money_of(node, invoice, T).audit.agrees


@pytest.mark.parametrize(("said", "found"), [(2, "missing_there"), (4, "missing_here")])
def test_a_wrong_invoice_differs(node: Laid, tmp_path: Path, said: int, found: str) -> None:
    """A bill too few or too many on it is found, to the micro."""
    worker = node.workers[0]
    assert worker is not None
    bids = bill(node, worker, 1, 3)
    lost = worker.bid(1)
    assert lost is not None
    node.turns(2)
    money = money_of(node, invoice_of(tmp_path / "i.csv", [*bids, lost][:said]), T)

    assert not money.audit.agrees
    assert not money.audit.report.agrees
    assert 1 == money.audit.difference_micros
    assert 1 == money.audit.report.invoices[0].counts[found]


def test_no_invoice_is_an_error(node: Laid, tmp_path: Path) -> None:
    """It is not taken for an empty one."""
    with pytest.raises((InputError, StoreError)):
        money_of(node, tmp_path / "none.csv", T)


def test_a_daily_budget_runs_out(node: Laid) -> None:
    """What is left of it is less than a bid costs."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 2, 1, 1000)
    assert not items_of(node)["line 2"].is_exhausted
    while (bid := worker.bid(2)) is not None or len(node.sent) < 20:
        if bid is not None:
            worker.notice(Kind.BILL, bid, 1000)
        node.turn()
    node.turns(2)

    found = items_of(node)["line 2"]
    assert (20_500, 20_000) == (found.budget_nanos, found.spent_nanos)
    assert found.is_exhausted


def test_amounts_are_compared_in_dollars() -> None:
    """By the rates file; a currency without a rate counts for nothing."""
    assert 2.0 == RATES.dollars(USD, 2_000_000_000)
    assert 0 < RATES.dollars(JPY, 100_000_000_000) < 2
    assert 0 == RATES.dollars(1, 1_000_000_000)


def test_the_interesting_ones() -> None:
    """A third have run out, a third are held back, the others spent most; in order of spend."""
    rich = [item(key, 100 - key) for key in range(10)]
    out = [item(20 + key, 5.0 - key, budget_nanos=100) for key in range(4)]
    held = [item(30 + key, 1.0 - key / 10, pacing=pacing("paced", 500_000)) for key in range(4)]
    free = [item(40, 0.9, pacing=pacing("paced")), item(41, 0.8, pacing=pacing("unpaced", 1))]
    shown = books.interesting([*free, *held, *out, *rich], 6)

    assert [0, 1, 20, 21, 30, 31] == [one.key for one in shown]
    assert [item(1, 1.0)] == books.interesting([item(1, 1.0)], 6)


def test_pacing_is_read_from_the_report(tmp_path: Path) -> None:
    """By line item; none before the first report, and a broken one is an error."""
    path = tmp_path / "pacing.json"
    assert {} == books.pacing_rows(path)
    row = {"line_item": "00000000000000ff", "mode": "paced", "target": 5, "budget": 9, "more": 1,
           "error_e6": -2, "multiplier_e6": 3, "participation_e4": 4}  # fmt: skip
    path.write_text(json.dumps([row]))
    found = books.pacing_rows(path)

    assert {255: Pacing("00000000000000ff", "paced", 5, 9, -2, 3, 4)} == found
    assert [pacing_of.pacing for pacing_of in books.paced([item(255, 1.0)], found)] == [found[255]]
    path.write_text("[")
    with pytest.raises(StoreError, match="pacing"):
        books.pacing_rows(path)
