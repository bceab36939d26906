"""`rtb ledger`: accounts, rows and invoices, for people and programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct
from typer.testing import CliRunner, Result

from rtb.base.errors import InputError
from rtb.base.events import Kind
from rtb.base.records import Dim
from rtb.catalogue.model import FLIGHT_MS_MAX, FLIGHT_MS_MIN
from rtb.catalogue.tokens import hash_of
from rtb.cli.ledger import Shown, Wanted, report
from rtb.cli.main import gathered
from rtb.ledger.calendar import day_name
from rtb.ledger.chart import FlightBudget
from tests.cli.books import Laid, bill, configs_of, invoice_of
from tests.keeper.node import T, line

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


def _report(node: Laid, wanted: Wanted) -> list[Shown]:
    with node.view() as view:
        return list(report(view.look(), wanted))


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


def test_flights_with_a_budget(tmp_path: Path) -> None:
    """Under their line item; one that line items share, once, under the campaign, and whole."""
    node = Laid(tmp_path / "state")
    shared = (FlightBudget(77, T - 1000, T + 200_000, 40_000, 50),)
    rest = (FlightBudget(78, FLIGHT_MS_MIN // 1000, FLIGHT_MS_MAX // 1000),)
    items = [replace_struct(line(key), flights=shared) for key in (1, 2)]
    node.offer(*items, line(3, 9_000, until_s=T + 100_000), replace_struct(line(4), flights=rest))
    node.start_all()
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 3)
    bill(node, worker, 2, 1)
    bill(node, worker, 3, 2)
    found = [(one.level, one.name) for one in _report(node, Wanted())]
    flights = [one for one in _report(node, Wanted()) if one.level == "flight"]
    narrow = [one for one in _report(node, Wanted(line_item="line 2")) if one.level == "flight"]
    node.close()

    assert ["advertiser", "campaign", "flight", "line item", "line item", "line item", "flight",
            "line item"] == [level for level, _ in found]  # fmt: skip
    assert [(40_000, 50, 2_800, 4), (9_000, None, 1_400, 2)] == [
        (one.budget_nanos, one.budget_units, one.posted_nanos, one.posted_units) for one in flights
    ]
    assert f"flight from {TODAY} to 2026-09-22" == flights[1].name
    assert [flights[0]] == narrow


def test_flights_for_programs(tmp_path: Path) -> None:
    """With `--json` a flight says whose it is, which one, when it runs and what it may spend."""
    node = Laid(tmp_path / "state")
    runs = (
        FlightBudget(81, FLIGHT_MS_MIN // 1000, T - 1000, 7_000),
        FlightBudget(82, T - 1000, T + 90_000, 40_000, 50),
        FlightBudget(83, T + 90_000, FLIGHT_MS_MAX // 1000, 8_000),
    )
    node.offer(replace_struct(line(1), flights=runs))
    found = json.loads(ran(node, "show", "--json", "--line-item", "line 1").stdout)
    node.close()
    flights = [one for one in found if one["level"] == "flight"]

    assert [
        (1, f"{81:016x}", "", "2026-09-21T13:56:40Z", 7_000, None),
        (2, f"{82:016x}", "2026-09-21T13:56:40Z", "2026-09-22T15:13:20Z", 40_000, 50),
        (3, f"{83:016x}", "2026-09-22T15:13:20Z", "", 8_000, None),
    ] == [
        tuple(one[name] for name in ("flight", "key", "from", "until", "budget_nanos",
                                     "budget_units"))
        for one in flights
    ]  # fmt: skip
    assert {("line 1", "USD")} == {(one["under"], one["currency"]) for one in flights}
    assert {("", 0, "", "")} == {
        (one["under"], one["flight"], one["from"], one["until"])
        for one in found if one["level"] != "flight"
    }  # fmt: skip


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
        (Wanted(advertiser="shop"), 2), (Wanted(advertiser="SHOP", campaign="Spring"), 2),
        (Wanted(line_item="SHOES"), 1), (Wanted(advertiser="shop", line_item="line 2"), 1),
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


def test_rows_for_programs(node: Laid) -> None:
    """With `--json` they are one array, with amounts in nanos."""
    found = json.loads(ran(node, "show", "--rows", "--json", "--line-item", "shoes").stdout)
    lines = ran(node, "show", "--rows", "--line-item", "shoes").stdout.splitlines()
    (bill_of_first,) = [
        one for one in found
        if one["entry"] == "post" and one["bid"] == f"{int(node.sent[0].said['bid'][0]):016x}"
    ]  # fmt: skip

    assert len(lines) - 1 == len(found)
    assert ("pending", "posted", 700, "USD", TODAY) == tuple(
        bill_of_first[name] for name in ("source", "target", "nanos", "currency", "day")
    )
    assert [] == json.loads(ran(node, "show", "--rows", "--json", "--line-item", "line 2").stdout)


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
