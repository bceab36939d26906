"""`rtb audit`: agreement is told, and every difference is found."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtb.base.errors import InputError, StoreError
from rtb.base.events import NO_PRICE, RATE_ONE, Kind
from rtb.cli.audit import show
from rtb.cli.console import console
from rtb.cli.main import gathered
from rtb.keeper.reconcile import Converted, Report, audit_of
from rtb.stores.journal_read import retire
from rtb.stores.ledger_view import LedgerView
from tests.cli.books import Laid, bill, configs_of, invoice_of
from tests.keeper.market import Market
from tests.keeper.node import T, line
from tests.keeper.records import PIXEL, bid_body, claims, conversion_body, notice_body


@pytest.fixture(name="node")
def node_fixture(tmp_path: Path) -> Iterator[Laid]:
    """Two workers with money for two line items."""
    node = Laid(tmp_path / "state")
    node.offer(line(1, 10_000_000), line(2, 10_000_000, daily=9_000_000))
    node.start_all()
    yield node
    node.close()


def audited(node: Laid, *invoices: Path) -> Report:
    """An audit while the keeper is there."""
    with node.view() as view:
        return audit_of(view, node.audited, invoices)


def spoil(node: Laid, statement: str) -> None:
    """Changes the books behind everybody's back."""
    with sqlite3.connect(node.paths.ledger) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def test_books_and_journals_agree(node: Laid) -> None:
    """After traffic with losses, copies and late bills, to the nano; nobody is fenced by it."""
    market = Market(node, (1, 2))
    market.play(30)
    while_running = audited(node)
    market.finish()
    report = audited(node)

    assert while_running.agrees
    assert report.agrees
    assert (0, 0, 0) == (report.difference_micros, report.not_applied, report.from_s)
    assert len(market.billed) == report.bills > 50
    assert sum(market.billed.values()) == sum(one.books_nanos for one in report.spend)
    assert report.left_out["duplicate"] > 5
    assert ["shop / spring / line 1", "shop / spring / line 2"] == [
        one.line_item for one in report.spend
    ]


def test_records_behind_the_keeper_are_left_out(node: Laid) -> None:
    """What is durable and not booked is counted, and no difference."""
    worker = node.workers[0]
    assert worker is not None
    (bid,) = bill(node, worker, 1, 1)
    worker.notice(Kind.BILL, bid)
    node.commit()
    report = audited(node)

    assert report.agrees
    assert (1, 1) == (report.not_applied, report.bills)


def test_conversions_are_counted(node: Laid, capsys: pytest.CaptureFixture[str]) -> None:
    """By line item, each once, beside what the books say; copies are counted as such."""
    worker = node.workers[0]
    assert worker is not None
    (bid,) = bill(node, worker, 1, 1)
    for order, value in ((7, 59_900_000), (7, 1), (8, 100_000), (0, NO_PRICE)):
        worker.journal.append(Kind.ORDER, conversion_body(bid.said, node.now_ms, order, value))
    worker.journal.append(Kind.CONVERSION, b"of another version")
    node.turns(2)
    report = audited(node)
    show(report, console())

    assert report.agrees
    assert [Converted("shop / spring / line 1", 3, 2, {"EUR": 60_000_000})] == report.conversions
    assert (1, 1) == (
        report.left_out["duplicate conversion"], report.left_out["of another version"],
    )  # fmt: skip
    assert "60 EUR" in capsys.readouterr().out


def test_a_changed_row_is_found(node: Laid) -> None:
    """By the balances that it no longer adds up to, and by the journals."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 3)
    spoil(node, "UPDATE rows SET nanos = nanos + 1000 WHERE bid = (SELECT max(bid) FROM rows)")
    report = audited(node)

    assert not report.agrees
    assert 1 == report.difference_micros
    assert any(text.startswith("rows: account") for text in report.books)
    assert [(2100, 3100)] == [(one.journals_nanos, one.books_nanos) for one in report.spend]


def test_a_bill_that_the_books_lost_is_found(node: Laid) -> None:
    """Even where rows and balances agree among themselves."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 2)
    last = "(SELECT max(bid) FROM rows)"
    spoil(node, "UPDATE balances SET posted_nanos = posted_nanos - 700, open_nanos = open_nanos"
                " + 700, posted_units = posted_units - 1, open_units = open_units + 1")  # fmt: skip
    spoil(node, "INSERT INTO rows SELECT sequence + 1000, time_s, 4, account, 3, 0, nanos, units,"
                f" moves, bid, worker, reference FROM rows WHERE bid = {last}")  # fmt: skip
    report = audited(node)

    assert [] == report.books
    assert [(1400, 700)] == [(one.journals_nanos, one.books_nanos) for one in report.spend]
    assert not report.agrees


def test_the_settling_kind_of_each_exchange(node: Laid) -> None:
    """An exchange that settles on impressions is charged by those, its bills are only words."""
    worker = node.workers[0]
    assert worker is not None
    said = claims(worker._id(node.now_ms // 1000), 1, 900, exchange=PIXEL)
    worker.journal.append(Kind.BID, bid_body(said, 900, node.now_ms))
    worker.journal.append(Kind.BILL, notice_body(said, node.now_ms, 800))
    worker.journal.append(Kind.IMPRESSION, notice_body(said, node.now_ms, 600))
    node.turns(2)
    report = audited(node)

    assert report.agrees
    assert [(600, 600)] == [(one.journals_nanos, one.books_nanos) for one in report.spend]


def test_dead_letters_are_no_difference(node: Laid) -> None:
    """A bill above its bid, and one for nobody, are in neither sum, and said."""
    worker = node.workers[0]
    assert worker is not None
    (bid,) = bill(node, worker, 1, 1)
    worker.notice(
        Kind.BILL, replace(bid, said=claims(worker._id(node.now_ms // 1000), 1, 100)), 200
    )
    worker.notice(Kind.BILL, replace(bid, said=claims(worker._id(node.now_ms // 1000), 77)), 200)
    node.turns(2)
    report = audited(node)

    assert report.agrees
    assert {"dead letter: above_bid": 1, "dead letter: unknown_line_item": 1} == report.left_out


def test_two_prices_of_one_bid(node: Laid) -> None:
    """The books took whichever they read first; that is what the journals are held to."""
    first, second = node.workers
    assert first is not None
    assert second is not None
    for micros in (500, 600):
        (bid,) = bill(node, first, 1, 1, micros)
        second.notice(Kind.BILL, bid, 1100 - micros)
        node.turns(2)
    report = audited(node)

    assert report.agrees
    assert 2 == sum(count for why, count in report.left_out.items() if "other_price" in why)


def test_retired_segments(node: Laid) -> None:
    """Bids of before the first kept record are compared on neither side, later ones on both."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 500)
    node.turns(1, 5_000)
    kept = bill(node, worker, 1, 500)
    gone = retire(node.journals, 0, worker.journal.last_sequence, 0, 1 << 40)
    node.turns(2, 3_000)
    late = bill(node, worker, 1, 4)
    report = audited(node)
    spoil(node, "UPDATE rows SET nanos = nanos + 5000 WHERE bid = (SELECT max(bid) FROM rows)")

    assert gone
    assert report.agrees
    assert T < report.from_s <= int(late[0].said["bid"][0]) >> 32
    assert 4 * 700 <= report.spend[0].books_nanos < (len(kept) + 504) * 700
    assert 5 == audited(node).difference_micros


def test_a_journal_that_is_not_here(node: Laid) -> None:
    """What it held is in the books alone: that differs, and is explained."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 2)
    (node.journals / "0").rename(node.folder / "elsewhere")
    report = audited(node)
    (node.folder / "elsewhere").rename(node.journals / "0")

    assert not report.agrees
    assert any("in the books, but not here" in note for note in report.notes)


# -- invoices --------------------------------------------------------------------------------------


def test_an_invoice_that_matches(node: Laid, tmp_path: Path) -> None:
    """Bid by bid and in total."""
    worker = node.workers[0]
    assert worker is not None
    path = invoice_of(tmp_path / "invoice.csv", bill(node, worker, 1, 5))
    report = audited(node, path)
    (found,) = report.invoices

    assert report.agrees
    assert ("adx", "USD", 5, 3500, 3500) == (
        found.exchange, found.currency, found.lines, found.invoiced_nanos, found.booked_nanos,
    )  # fmt: skip


def test_an_invoice_that_differs(node: Laid, tmp_path: Path) -> None:
    """Every kind of difference is named with its bid."""
    worker = node.workers[0]
    assert worker is not None
    bids = bill(node, worker, 1, 4)
    stranger = replace(bids[0], said=claims(worker._id(node.now_ms // 1000), 1))
    one = invoice_of(tmp_path / "a.csv", [bids[0], bids[1], bids[1], stranger])
    two = invoice_of(tmp_path / "b.csv", [bids[2]], 800)
    (found,) = audited(node, one, two).invoices

    assert {
        "matched": 2, "missing_here": 1, "missing_there": 1, "other_price": 1, "billed_twice": 1,
    } == found.counts  # fmt: skip
    assert {"missing_here", "missing_there", "other_price", "billed_twice"} == {
        each.verdict for each in found.findings
    }
    assert (3600, 2800) == (found.invoiced_nanos, found.booked_nanos)


def test_other_days_are_not_missed(node: Laid, tmp_path: Path) -> None:
    """An invoice is held against the days that it is of."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 2)
    node.turns(1, 86_400_000)
    node.turns(4)
    today = bill(node, worker, 1, 2)
    report = audited(node, invoice_of(tmp_path / "invoice.csv", today))

    assert report.agrees
    assert {"matched": 2} == {name: n for name, n in report.invoices[0].counts.items() if n}


def test_another_currency(node: Laid, tmp_path: Path) -> None:
    """A bid in another currency is booked at its own rate, and its invoice is read at that."""
    worker = node.workers[0]
    assert worker is not None
    (bid,) = bill(node, worker, 1, 1)
    said = claims(worker._id(node.now_ms // 1000), 1, 1001, rate_e9=RATE_ONE * 3 // 2)
    abroad = replace(bid, said=said)
    worker.notice(Kind.BILL, abroad, 901)
    node.turns(2)
    path = invoice_of(tmp_path / "invoice.csv", [abroad], 901)
    (found,) = audited(node, path, invoice_of(tmp_path / "rest.csv", [bid])).invoices

    assert {"matched": 2} == {name: n for name, n in found.counts.items() if n}
    assert 700 + 1352 == found.booked_nanos  # 901 at 1.5, rounded up


def test_an_invoice_of_nobody(node: Laid, tmp_path: Path) -> None:
    """An exchange that has no settings is refused by name."""
    path = invoice_of(tmp_path / "invoice.csv", [], exchange="who")
    with path.open("a") as file:
        file.write("a,1,1,USD,0.001,2026-09-21T00:00:00Z,who\n")
    with pytest.raises(InputError, match="no exchange 'who'"):
        audited(node, path)


# -- the command -----------------------------------------------------------------------------------


def test_the_command(node: Laid, tmp_path: Path) -> None:
    """Exit code and words tell agreement and difference, for people and programs."""
    worker = node.workers[0]
    assert worker is not None
    path = invoice_of(tmp_path / "invoice.csv", bill(node, worker, 1, 3))
    arguments = ["audit", "--data", str(node.folder), "--configs", str(configs_of(tmp_path)),
                 "--invoice", str(path)]  # fmt: skip
    agrees = CliRunner().invoke(gathered(), arguments)
    as_json = CliRunner().invoke(gathered(), [*arguments, "--json"])
    spoil(node, "UPDATE rows SET nanos = nanos + 1000 WHERE bid = (SELECT max(bid) FROM rows)")
    differs = CliRunner().invoke(gathered(), arguments)

    assert (0, 0, 1) == (agrees.exit_code, as_json.exit_code, differs.exit_code), agrees.output
    assert "0.0000021 USD" in agrees.output
    assert "all agrees" in agrees.output
    found = json.loads(as_json.stdout)
    assert (True, 3, 3) == (found["agrees"], found["bills"], found["invoices"][0]["lines"])
    assert "differs by 2 micros" in differs.output
    assert "other price 1" in differs.output


def test_settings_of_other_exchanges(node: Laid, tmp_path: Path) -> None:
    """With a wrong `--configs` neither agreement nor a difference is told."""
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 3)
    configs = configs_of(tmp_path)
    (configs / "exchanges" / "adx.toml").unlink()
    result = CliRunner().invoke(
        gathered(), ["audit", "--data", str(node.folder), "--configs", str(configs)]
    )

    assert 2 == result.exit_code, result.output
    assert "3 notices are of exchanges without settings" in result.output
    assert "at `--configs`" in result.output


def test_no_books(tmp_path: Path) -> None:
    """A directory without books is told as such, and stays empty."""
    with pytest.raises(StoreError, match="there are no books"):
        LedgerView.open(f"sqlite:///{tmp_path}/ledger.db")
    result = CliRunner().invoke(gathered(), ["audit", "--data", str(tmp_path)])

    assert 2 == result.exit_code
    assert "there are no books" in result.output
    assert [] == list(tmp_path.iterdir())
