"""From a served snapshot to the books: what the catalogue says of money is what may be spent."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rtb.base.records import Dim
from rtb.catalogue import budgets
from rtb.catalogue.bounds import check_arrays
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import (
    Advertiser,
    Budget,
    Campaign,
    Catalogue,
    Creative,
    Deal,
    Flight,
    Goal,
    LineItem,
)
from rtb.catalogue.snapshot import Snapshot
from rtb.catalogue.tokens import hash_of
from rtb.keeper.chart import NAME_CHARS_MAX, chart_of, plans_of
from rtb.ledger.chart import Chart, changes_to
from rtb.ledger.commands import Outcome, Scope
from rtb.pacing.schedule import Shape
from tests.ledger.books import Books, T

JPY = 0x4A5059
MARCH_S = int(datetime(2026, 2, 28, 15, tzinfo=UTC).timestamp())  # 1 March in Tokyo
APRIL_S = int(datetime(2026, 3, 31, 15, tzinfo=UTC).timestamp())


def catalogue_of(**changes: Any) -> Catalogue:
    """An advertiser in Tokyo, a campaign with a flight, and two line items; one is changed."""
    result = Catalogue()
    zone = {"currency": "JPY", "timezone": "Asia/Tokyo"}
    result.add(Advertiser("a", "Shop", domains=("s.example",), budget=Budget("5000"), **zone))
    flight = Flight("2026-03-01", "2026-03-31", Budget("700", impressions=90))
    result.add(Campaign("c", "a", flights=(flight,), budget=Budget("900", daily="40.5")))
    result.add(Deal("d", exchange="generic"))
    result.add(Creative("cr", "a", "html", html="<b>x</b>"))
    result.add(LineItem("plain", "c", Goal("cpm", amount="2"), ("cr",)))
    fields: dict[str, Any] = {"goal": Goal("cpm", amount="2"), "creatives": ("cr",)} | changes
    result.add(LineItem("li", "c", **fields))
    return result


def snapshot_of(catalogue: Catalogue) -> Snapshot:
    arrays, meta = compile_snapshot(catalogue)
    check_arrays(arrays, meta)
    return Snapshot(arrays, meta, "")


LINE_ITEM, PLAIN = (hash_of(Dim.AD, f"line_item:{each}") for each in ("li", "plain"))
CAMPAIGN = hash_of(Dim.AD, "campaign:c")
PAYER = hash_of(Dim.OPT_OUT, "a")


def charted(snapshot: Snapshot) -> Chart:
    """The chart of a snapshot."""
    return chart_of(snapshot, plans_of(snapshot))


def test_books_allow_what_the_catalogue_says() -> None:
    """Every limit stands in its scope, in nanos, and the same snapshot again changes nothing."""
    budget = Budget("300", "20", impressions=1_000)
    chart = charted(snapshot_of(catalogue_of(budget=budget)))
    books = Books()
    outcomes = {books(command) for command in changes_to(chart, books.state, T)}

    assert {Outcome.ENROLLED, Outcome.LIMIT_SET} == outcomes
    [flight] = books.state.lines[LINE_ITEM].flights
    limits = {
        (Scope.ADVERTISER, PAYER): (5_000, None),
        (Scope.CAMPAIGN, CAMPAIGN): (900, None),
        (Scope.CAMPAIGN_DAY, CAMPAIGN): (40.5, None),
        (Scope.LINE_ITEM, LINE_ITEM): (300, 1_000),
        (Scope.LINE_ITEM_DAY, LINE_ITEM): (20, None),
        (Scope.FLIGHT, flight.key): (700, 90),
    }
    for scope, (amount, units) in limits.items():
        limit = books.state.limits[scope]
        assert (amount * 10**9, units or limit.units) == (limit.nanos, limit.units), scope
    assert (MARCH_S, APRIL_S) == (flight.start_s, flight.end_s)
    assert (flight,) == books.state.lines[PLAIN].flights
    line = books.state.lines[LINE_ITEM]
    assert ("Asia/Tokyo", JPY, "Shop / c / li") == (line.zone, line.currency, line.name)
    assert [] == changes_to(chart, books.state, T)


def test_no_limit_is_none() -> None:
    """What nobody bounded is not bounded by a number, and nothing at all is a bound."""
    snapshot = snapshot_of(catalogue_of(budget=Budget(daily=0), flights=(Flight(),)))
    items = {item.key: item for item in charted(snapshot).line_items}

    assert (None, None, None) == (
        items[PLAIN].nanos,
        items[PLAIN].daily_nanos,
        items[PLAIN].units,
    )
    assert (None, 0) == (items[LINE_ITEM].nanos, items[LINE_ITEM].daily_nanos)
    assert [(None, None)] == [(each.nanos, each.units) for each in items[LINE_ITEM].flights]


def test_line_item_without_flights_always_runs() -> None:
    """Then the books have no flight, so no end."""
    catalogue = catalogue_of()
    catalogue.campaigns["c"] = Campaign("c", "a")
    chart = charted(snapshot_of(catalogue))

    assert [(), ()] == [item.flights for item in chart.line_items]


def test_plan_says_what_pacing_needs() -> None:
    """A row of the snapshot, its zone, how it is spent, and its budgets."""
    snapshot = snapshot_of(
        catalogue_of(budget=Budget("300", mode="expected"), pacing="ahead", deals=("d",))
    )
    plans = plans_of(snapshot)
    plan = plans[LINE_ITEM]

    assert [LINE_ITEM, PLAIN] == sorted(plans, key=[LINE_ITEM, PLAIN].index)
    assert "li" == snapshot.id_of("line_items", plan.row) == plan.name
    assert ("Asia/Tokyo", JPY, CAMPAIGN) == (plan.zone, plan.currency, plan.campaign)
    assert (Shape.AHEAD, True, True) == (plan.shape, plan.expected, plan.deals_only)
    assert (300 * 10**9, None, None) == (plan.nanos, plan.daily_nanos, plan.units)
    assert [90] == [flight.units for flight in plan.flights]
    other = plans[PLAIN]
    assert (Shape.ASAP, False, False) == (other.shape, other.expected, other.deals_only)


def test_numbers_of_pacing_are_those_of_shapes() -> None:
    """The snapshot stores them, and pacing reads them."""
    shapes = {"even": Shape.EVEN, "ahead": Shape.AHEAD, "asap": Shape.ASAP, "traffic": Shape.CURVE}
    assert shapes == budgets.PACINGS


ODD = [
    ("x" * 400, "x" * NAME_CHARS_MAX),
    ("tab\tand\u2028line", "tab?and?line"),
    ("", "a"),
]


@pytest.mark.parametrize(("name", "expected"), ODD)
def test_odd_names_open_books_all_the_same(name: str, expected: str) -> None:
    """A name is for people: it must not keep money from being counted."""
    catalogue = catalogue_of()
    catalogue.advertisers["a"] = Advertiser("a", name, domains=("s.example",))
    chart = charted(snapshot_of(catalogue))
    books = Books()

    assert expected == chart.advertisers[0].name
    outcomes = [books(command) for command in changes_to(chart, books.state, T)]
    assert Outcome.MALFORMED not in outcomes


def test_text_that_is_no_text_is_still_a_name() -> None:
    """A damaged snapshot gives odd names, not a keeper that stops."""
    snapshot = snapshot_of(catalogue_of())
    start = int(snapshot["campaigns"][0]["id_start"])
    snapshot.arrays["text"] = snapshot["text"].copy()
    snapshot.arrays["text"][start] = 0xFF

    assert ["\N{REPLACEMENT CHARACTER}"] == [each.name for each in charted(snapshot).campaigns]


def test_a_whole_catalogue_enrols() -> None:
    """Line items that share campaigns, flights and budgets all get their books."""
    catalogue = catalogue_of()
    for number in range(50):
        own = (Flight("2026-05-01"),) if number % 3 else ()
        catalogue.add(LineItem(f"li{number}", "c", Goal("cpm", amount="1"), ("cr",), flights=own))
    chart = charted(snapshot_of(catalogue))
    books = Books()
    outcomes: list[Outcome] = [books(command) for command in changes_to(chart, books.state, T)]

    assert 52 == outcomes.count(Outcome.ENROLLED)
    assert {Outcome.ENROLLED, Outcome.LIMIT_SET} == set(outcomes)
