"""From a catalogue's budgets to the books."""

import msgspec
import pytest

from rtb.base.errors import CatalogueError
from rtb.ledger.chart import Advertiser, Campaign, Chart, FlightBudget, LineItem, changes_to
from rtb.ledger.commands import Outcome, Scope
from tests.ledger.books import EUR, Books, T, give, grant

FLIGHTS = (FlightBudget(8, T + 100, T + 200, None, 50), FlightBudget(7, T - 100, T + 100, 60))
ITEM = LineItem(5, "shoes", 3, nanos=100, daily_nanos=70, units=9, flights=FLIGHTS)
CHART = Chart(
    (Advertiser(2, "shop", "Europe/Berlin", EUR, 1_000),),
    (Campaign(3, "spring", 2, 500, 200),),
    (ITEM,),
)


def test_a_chart_becomes_limits() -> None:
    """Every limit stands in its scope, and the same chart again changes nothing."""
    books = Books()
    for command in changes_to(CHART, books.state, T):
        assert books(command) in (Outcome.ENROLLED, Outcome.LIMIT_SET)
    shown = {scope: books.state.available(scope, key, 0) for scope, key in [
        (Scope.ADVERTISER, 2), (Scope.CAMPAIGN, 3), (Scope.CAMPAIGN_DAY, 3), (Scope.LINE_ITEM, 5),
        (Scope.LINE_ITEM_DAY, 5), (Scope.FLIGHT, 7),
    ]}  # fmt: skip

    assert [1_000, 500, 200, 100, 70, 60] == [nanos for nanos, _ in shown.values()]
    assert 9 == shown[Scope.LINE_ITEM][1]
    assert 50 == books.state.available(Scope.FLIGHT, 8)[1]
    assert "shop / spring / shoes" == books.state.lines[5].name
    assert books(grant(80, 5, line_item=5)) is Outcome.GRANTED_PART
    assert [] == changes_to(CHART, books.state, T)


def test_only_what_changed() -> None:
    """A raised budget is one command; one taken away is no limit; the rest is left alone."""
    books = Books(*changes_to(CHART, Books().state, T))
    item = msgspec.structs.replace(ITEM, nanos=None, flights=FLIGHTS[1:])
    changed = Chart(CHART.advertisers, CHART.campaigns, (item,))

    outcomes = [books(command) for command in changes_to(changed, books.state, T)]

    assert [Outcome.ENROLLED, Outcome.LIMIT_SET] == outcomes
    assert books(grant(60, 1, line_item=5)) is Outcome.GRANTED
    assert books(give(line_item=5)) is Outcome.RETURNED


def test_owners_must_be_there() -> None:
    """A line item that belongs to nobody has no books."""
    for wrong in (Chart((), CHART.campaigns, (ITEM,)), Chart(CHART.advertisers, (), (ITEM,))):
        with pytest.raises(CatalogueError, match="shoes"):
            changes_to(wrong, Books().state, T)
