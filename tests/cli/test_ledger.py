"""`rtb ledger`: accounts, rows and invoices, for people and programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rtb.base.errors import InputError
from rtb.base.events import Kind
from rtb.base.records import Dim
from rtb.catalogue.tokens import hash_of
from rtb.cli.ledger import Shown, Wanted, report
from rtb.cli.main import gathered
from rtb.ledger.calendar import day_name
from tests.cli.books import Laid, bill, configs_of, invoice_of
from tests.keeper.node import line

SHOES = hash_of(Dim.AD, "line_item:shoes")
TODAY = "2026-09-21"


@pytest.fixture(name="node")
def node_fixture(tmp_path: Path) -> Iterator[Laid]:
    """A line item that spent, and one that did not."""
    node = Laid(tmp_path / "state")
    node.offer(line(SHOES, 10_000_000, daily=5_000_000, units=9_000), line(2), nanos=20_000_000)
    node.start_all()
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, SHOES, 3)
    assert worker.bid(SHOES) is not None  # one in flight
    node.turns(2)
    yield node
    node.close()


def shown(node: Laid, wanted: Wanted = Wanted()) -> dict[tuple[str, str], Shown]:  # noqa: B008
    """The report by level and name."""
    with node.view() as view:
        return {(one.level, one.name): one for one in report(view.look(), wanted)}


def ran(node: Laid, *arguments: str) -> Result:
    """The command's result."""
    command = ["ledger", arguments[0], "--data", str(node.folder), *arguments[1:]]
    return CliRunner().invoke(gathered(), command)


def test_accounts(node: Laid) -> None:
    """Budget, spent, in flight, lent out and left, at each level; they add up."""
    found = shown(node)
    item = found["line item", f"line {SHOES}"]

    assert [("advertiser", "shop"), ("campaign", "spring"), ("line item", "line 2"),
            ("line item", f"line {SHOES}")] == sorted(found)  # fmt: skip
    assert (10_000_000, 2_100, 1_000, 0, 9_000, 3) == (
        item.budget_nanos, item.posted_nanos, item.pending_nanos, item.over_nanos,
        item.budget_units, item.posted_units,
    )  # fmt: skip
    assert item.left_nanos == 10_000_000 - 2_100 - 1_000 - item.granted_nanos
    campaign = found["campaign", "spring"]
    assert (20_000_000, 2_100) == (campaign.budget_nanos, campaign.posted_nanos)
    assert (None, None, 2_100) == (
        found["advertiser", "shop"].budget_nanos, found["advertiser", "shop"].left_nanos,
        found["advertiser", "shop"].posted_nanos,
    )  # fmt: skip
    assert 0 == found["line item", "line 2"].posted_nanos


def test_days_of_one(node: Laid) -> None:
    """A line item that is asked for shows its days and what each may spend."""
    found = shown(node, Wanted(line_item="shoes"))

    assert {"shop", "spring", f"line {SHOES}", TODAY} == {name for _, name in found}
    day = found["day", TODAY]
    assert (5_000_000, 2_100, 1_000) == (day.budget_nanos, day.posted_nanos, day.pending_nanos)


def test_one_day_of_all(node: Laid) -> None:
    """Then the budgets are those of days, and another day is empty."""
    today = next(iter(node.keeper.state.accounts.values())).day
    found = shown(node, Wanted(day=today))

    assert TODAY == day_name(today)
    assert (5_000_000, 2_100) == (
        found["line item", f"line {SHOES}"].budget_nanos,
        found["line item", f"line {SHOES}"].posted_nanos,
    )
    assert found["campaign", "spring"].budget_nanos is None
    assert 0 == shown(node, Wanted(day=today + 1))["campaign", "spring"].posted_nanos


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(line_item="shoes"), 1), (Wanted(line_item="line 2"), 1),
        (Wanted(line_item=f"{2:016x}"), 1), (Wanted(campaign="spring"), 2),
        (Wanted(advertiser="shop"), 2), (Wanted(advertiser="shop", line_item="line 2"), 1),
    ],
)  # fmt: skip
def test_who_is_meant(node: Laid, wanted: Wanted, count: int) -> None:
    """By id, by name, by key; all that is asked must hold."""
    assert count == sum(level == "line item" for level, _ in shown(node, wanted))


def test_nobody_is_meant(node: Laid) -> None:
    """A name that the books do not have is a fault, not an empty table."""
    with pytest.raises(InputError, match="no line item of the books is meant - at `boots`"):
        shown(node, Wanted(line_item="boots"))


def test_the_table(node: Laid) -> None:
    """Amounts are decimals, each budget with its currency."""
    result = ran(node, "show")

    assert 0 == result.exit_code, result.output
    for text in ("shop", "  spring", "0.01 USD", "0.0000021", "3 of 9,000", "-"):
        assert text in result.output
    assert 4 == len(json.loads(ran(node, "show", "--json").stdout))


def test_rows(node: Laid) -> None:
    """Every row with its bid in hex, the names of its entry and balances, and its account."""
    result = ran(node, "show", "--rows", "--line-item", "shoes", "--day", TODAY)
    rows = [row.split("\t") for row in result.stdout.splitlines()]
    head, bills = rows[0], [row for row in rows[1:] if row[2] == "post" and row[8]]
    bids = {f"{int(bid.said['bid'][0]):016x}" for bid in node.sent[:3]}

    assert ["row", "time", "entry", "from", "to", "amount"] == head[:6]
    assert bids == {row[8] for row in bills}
    assert {("pending", "posted", "0.0000007 USD", TODAY)} == {
        (*row[3:6], row[10]) for row in bills
    }
    assert {"grant", "take", "post"} <= {row[2] for row in rows}
    assert ["0/0"] == sorted({row[9] for row in rows[1:] if row[2] == "grant"})
    assert 1 == len(ran(node, "show", "--rows", "--line-item", "line 2").stdout.splitlines())
    assert len(rows) == len(ran(node, "show", "--rows").stdout.splitlines())


def test_a_day_that_is_none(node: Laid) -> None:
    """Wrong usage has its own exit code."""
    assert 2 == ran(node, "show", "--day", "yesterday").exit_code


def test_importing_an_invoice(node: Laid, tmp_path: Path) -> None:
    """It says what differs, bid by bid; the exit code tells whether anything does."""
    configs = ("--configs", str(configs_of(tmp_path)))
    whole = invoice_of(tmp_path / "whole.csv", node.sent[:3])
    part = invoice_of(tmp_path / "part.csv", node.sent[:2])
    agrees = ran(node, "import-invoice", str(whole), *configs)
    differs = ran(node, "import-invoice", str(part), *configs)
    as_json = ran(node, "import-invoice", str(part), *configs, "--json")

    assert (0, 1, 1) == (agrees.exit_code, differs.exit_code, as_json.exit_code), agrees.output
    assert "matched 3" in agrees.output
    assert f"{int(node.sent[2].said['bid'][0]):016x}" in differs.output
    assert {"missing_there": 1, "matched": 2} == {
        name: count for name, count in json.loads(as_json.stdout)[0]["counts"].items() if count
    }


def test_looking_changes_nothing(node: Laid) -> None:
    """The keeper goes on as the writer that it was."""
    worker = node.workers[0]
    assert worker is not None
    shown(node)
    worker.notice(Kind.LOSS, node.sent[3])
    node.turns(2)

    assert 0 == shown(node)["line item", f"line {SHOES}"].pending_nanos
    assert "" == node.keeper.fault
