"""The books as tables: a command, its outcome, then the balances."""

import itertools

import pytest

from rtb.ledger.accounts import NO_LIMIT, Balance
from rtb.ledger.changes import Entry
from rtb.ledger.commands import (
    AMOUNT_MAX,
    BID_MAX,
    Adjust,
    Command,
    Enrol,
    Expire,
    Flight,
    Forget,
    Grant,
    Outcome,
    Post,
    Reason,
    Scope,
    SetLimit,
    Take,
)  # fmt: skip
from tests.ledger.books import (
    ADVERTISER,
    AUTUMN,
    CAMPAIGN,
    EUR,
    HATS,
    LATER,
    SHOES,
    Books,
    T,
    adjust,
    bid,
    check_all,
    enrol,
    give,
    grant,
    limit,
    post,
    take,
    void,
)  # fmt: skip

O = Outcome  # noqa: E741
BOOKED = {O.POSTED, O.POSTED_UNSEEN, O.POSTED_OVER, O.LATE, O.LATE_OVER}
Step = tuple[Command, Outcome, dict[str, int]]


def run(steps: list[Step], *before: Command) -> Books:
    """Plays a table on books with a total of 100 nanos."""
    books = Books(enrol(), limit(Scope.LINE_ITEM, SHOES, 100), *before)
    for number, (command, outcome, balances) in enumerate(steps):
        assert (number, outcome) == (number, books(command))
        assert (number, balances) == (number, books.money())
    check_all(books)
    return books


def test_a_bid_that_is_won() -> None:
    """Grant, take, post: the rest of the hold goes back to the budget."""
    books = run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (take(1, 10), O.TAKEN, {"granted": 50, "pending": 10}),
        (take(2, 10), O.TAKEN, {"granted": 40, "pending": 20}),
        (post(1, 7), O.POSTED, {"granted": 40, "pending": 10, "posted": 7}),
        (post(2, 0), O.POSTED, {"granted": 40, "posted": 7}),
    ])  # fmt: skip
    assert (53, NO_LIMIT - 100) == books.state.available(Scope.LINE_ITEM, SHOES)
    assert {"granted": 98, "posted": 2} == books.units()


def test_bids_that_are_not_won() -> None:
    """A loss notice or the deadline gives all back; a hold ends once."""
    books = run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (take(1), O.TAKEN, {"granted": 50, "pending": 10}),
        (take(2), O.TAKEN, {"granted": 40, "pending": 20}),
        (void(1), O.VOIDED, {"granted": 40, "pending": 10}),
        (void(1), O.DUPLICATE, {"granted": 40, "pending": 10}),
        (Expire(T + 299), O.NOTHING, {"granted": 40, "pending": 10}),
        (Expire(T + 300), O.EXPIRED, {"granted": 40}),
        (void(2), O.DUPLICATE, {"granted": 40}),
        (Expire(T + 900), O.NOTHING, {"granted": 40}),
    ])  # fmt: skip
    assert 60 == books.state.available(Scope.LINE_ITEM, SHOES)[0]


def test_the_second_bill() -> None:
    """The same bill counts once; one at another price is told apart, and the first stands."""
    run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (take(1), O.TAKEN, {"granted": 50, "pending": 10}),
        (post(1, 7), O.POSTED, {"granted": 50, "posted": 7}),
        (post(1, 7), O.DUPLICATE, {"granted": 50, "posted": 7}),
        (post(1, 8), O.DUPLICATE_OTHER_PRICE, {"granted": 50, "posted": 7}),
        (take(1), O.DUPLICATE, {"granted": 50, "posted": 7}),
        (void(1), O.ALREADY_POSTED, {"granted": 50, "posted": 7}),
    ])  # fmt: skip


def test_a_lease_that_makes_no_impression() -> None:
    """Less than is of use is not lent; units may come to who has money left."""
    books = run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (grant(60, least=41), O.EXHAUSTED_LINE_ITEM, {"granted": 60}),
        (grant(60, least=40), O.GRANTED_PART, {"granted": 100}),
        (grant(60, least=0), O.EXHAUSTED_LINE_ITEM, {"granted": 100}),
        (grant(0, 3), O.GRANTED, {"granted": 100}),
    ])  # fmt: skip
    account = next(iter(books.state.accounts.values()))
    assert 203 == account.units[Balance.GRANTED]


def test_late_bills() -> None:
    """A bill after its hold is gone is booked, first from the budget, then beyond it."""
    books = run([
        (grant(100), O.GRANTED, {"granted": 100}),
        (take(1), O.TAKEN, {"granted": 90, "pending": 10}),
        (take(2), O.TAKEN, {"granted": 80, "pending": 20}),
        (void(1), O.VOIDED, {"granted": 80, "pending": 10}),
        (Expire(LATER), O.EXPIRED, {"granted": 80}),
        (grant(14), O.GRANTED, {"granted": 94}),
        (post(1, 4), O.LATE, {"granted": 94, "posted": 4}),
        (post(2, 7), O.LATE_OVER, {"granted": 94, "posted": 6, "over": 5}),
        (post(2, 7), O.DUPLICATE, {"granted": 94, "posted": 6, "over": 5}),
        (post(1, 4), O.DUPLICATE, {"granted": 94, "posted": 4 + 2, "over": 5}),
    ])  # fmt: skip
    late = [row for row in books.rows if row.entry is Entry.LATE]
    assert [(bid(1), 4), (bid(2), 2), (bid(2), 5)] == [(row.bid, row.nanos) for row in late]


def test_money_that_comes_back_pays_for_overspend() -> None:
    """Overspend is only what the budget cannot pay in the end."""
    run([
        (grant(100), O.GRANTED, {"granted": 100}),
        (take(1), O.TAKEN, {"granted": 90, "pending": 10}),
        (void(1), O.VOIDED, {"granted": 90}),
        (grant(10), O.GRANTED, {"granted": 100}),
        (post(1), O.LATE_OVER, {"granted": 100, "over": 10}),
        (take(2), O.TAKEN, {"granted": 90, "pending": 10, "over": 10}),
        (post(2, 6), O.POSTED, {"granted": 90, "posted": 10, "over": 6}),
        (give(), O.RETURNED, {"posted": 16}),
        (give(), O.NOTHING, {"posted": 16}),
        (grant(100), O.GRANTED_PART, {"posted": 16, "granted": 84}),
    ])  # fmt: skip


def test_a_raised_limit_pays_for_overspend_before_it_grants() -> None:
    """The next grant sees what is left after it."""
    run([
        (grant(100), O.GRANTED, {"granted": 100}),
        (adjust("a", 5), O.ADJUSTED_OVER, {"granted": 100, "over": 5}),
        (limit(Scope.LINE_ITEM, SHOES, 110), O.LIMIT_SET, {"granted": 100, "over": 5}),
        (grant(20), O.GRANTED_PART, {"granted": 105, "posted": 5}),
    ])  # fmt: skip


def test_grants_go_as_far_as_there_is_money() -> None:
    """A part, then none; what comes back may be granted again."""
    run([
        (grant(70), O.GRANTED, {"granted": 70}),
        (grant(70, worker=1), O.GRANTED_PART, {"granted": 100}),
        (grant(1, worker=2), O.EXHAUSTED_LINE_ITEM, {"granted": 100}),
        (give(worker=1), O.RETURNED, {"granted": 70}),
        (grant(30, worker=2), O.GRANTED, {"granted": 100}),
        (give(worker=2, line_item=0), O.RETURNED, {"granted": 70}),
        (give(worker=2, line_item=0), O.NOTHING, {"granted": 70}),
        (give(worker=2, line_item=HATS), O.UNKNOWN_LINE_ITEM, {"granted": 70}),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "key", "outcome"),
    [
        (Scope.LINE_ITEM, SHOES, O.EXHAUSTED_LINE_ITEM),
        (Scope.LINE_ITEM_DAY, SHOES, O.EXHAUSTED_LINE_ITEM_DAY),
        (Scope.FLIGHT, AUTUMN.key, O.EXHAUSTED_FLIGHT),
        (Scope.CAMPAIGN, CAMPAIGN, O.EXHAUSTED_CAMPAIGN),
        (Scope.CAMPAIGN_DAY, CAMPAIGN, O.EXHAUSTED_CAMPAIGN_DAY),
        (Scope.ADVERTISER, ADVERTISER, O.EXHAUSTED_ADVERTISER),
    ],
)
def test_each_scope_can_be_the_scarce_one(scope: Scope, key: int, outcome: Outcome) -> None:
    """The outcome names it, for money as for impressions; other days are free of daily ones."""
    daily = scope in (Scope.LINE_ITEM_DAY, Scope.CAMPAIGN_DAY)
    after = O.GRANTED if daily else outcome
    for bound in (limit(scope, key, 50), limit(scope, key, None, 50)):
        books = Books(enrol(), limit(Scope.LINE_ITEM, SHOES, 100), bound)
        assert books(grant(50, 50)) is O.GRANTED
        assert books(grant(20, 20)) is outcome
        assert books(grant(20, 20, at_s=LATER)) is after
        assert outcome.transient
        check_all(books)


def test_shared_scopes() -> None:
    """Line items of a campaign draw on the same money; each keeps its own account."""
    books = Books(enrol(), enrol(HATS), limit(Scope.CAMPAIGN, CAMPAIGN, 100))
    assert books(grant(70)) is O.GRANTED
    assert books(grant(70, line_item=HATS)) is O.GRANTED_PART
    assert ({"granted": 70}, {"granted": 30}) == (books.money(1), books.money(2))
    assert books(give()) is O.RETURNED
    assert books(grant(70, line_item=HATS)) is O.GRANTED
    assert 0 == books.state.available(Scope.CAMPAIGN, CAMPAIGN)[0]
    check_all(books)


def test_a_bid_belongs_to_the_day_and_flight_of_its_time() -> None:
    """Whenever its bill comes, and whichever day its lease was for."""
    midnight = T - T % 86_400 + 22 * 3600  # in Berlin
    books = Books(
        enrol(flights=(Flight(1, 0, midnight + 60), Flight(2, midnight + 90, 1 << 40))),
        limit(Scope.LINE_ITEM_DAY, SHOES, 100),
    )
    moments = (midnight - 1, midnight, midnight + 60, midnight + 90)
    for number, time_s in enumerate(moments):
        assert books(grant(10, at_s=time_s)) is O.GRANTED
        assert books(take(number, time_s=time_s)) is O.TAKEN
    for number, time_s in enumerate(moments):
        assert books(post(number, time_s=time_s)) is O.POSTED
    places = [(one.flight, one.day - books.state.accounts[1].day, one.nanos[Balance.POSTED])
              for one in books.state.accounts.values()]  # fmt: skip
    assert [(1, 0, 10), (1, 1, 10), (0, 1, 10), (2, 1, 10)] == places
    assert 70 == books.state.available(Scope.LINE_ITEM_DAY, SHOES, books.state.accounts[2].day)[0]
    check_all(books)


def test_takes_beyond_the_lease() -> None:
    """The budget has the rest; where it has not, the hold is short and the bill tells."""
    run([
        (grant(15), O.GRANTED, {"granted": 15}),
        (take(1), O.TAKEN, {"granted": 5, "pending": 10}),
        (take(2), O.TAKEN_UNGRANTED, {"pending": 20}),
        (take(3, worker=9), O.TAKEN_UNGRANTED, {"pending": 30}),
        (grant(65, worker=1), O.GRANTED, {"granted": 65, "pending": 30}),
        (take(4), O.TAKEN_SHORT, {"granted": 65, "pending": 35}),
        (post(4), O.POSTED_OVER, {"granted": 65, "pending": 30, "posted": 5, "over": 5}),
        (void(1), O.VOIDED, {"granted": 65, "pending": 20, "posted": 10}),
    ])  # fmt: skip


def test_bills_above_the_bid_are_quarantined() -> None:
    """Not a nano is booked, and the right bill may still come."""
    run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (take(1), O.TAKEN, {"granted": 50, "pending": 10}),
        (post(1, 11), O.ABOVE_BID, {"granted": 50, "pending": 10}),
        (post(2, 11), O.ABOVE_BID, {"granted": 50, "pending": 10}),
        (post(1, 10), O.POSTED, {"granted": 50, "posted": 10}),
    ])  # fmt: skip


def test_expected_mode() -> None:
    """Less than the price is reserved: a bill draws on its hold, the budget, and only then over."""
    run([
        (grant(90), O.GRANTED, {"granted": 90}),
        (take(1, 3), O.TAKEN, {"granted": 87, "pending": 3}),
        (take(2, 3), O.TAKEN, {"granted": 84, "pending": 6}),
        (post(1, 10, reserve=0), O.POSTED, {"granted": 84, "pending": 3, "posted": 10}),
        (post(2, 10, reserve=0), O.POSTED_OVER, {"granted": 84, "posted": 16, "over": 4}),
    ])  # fmt: skip


def test_an_expected_bill_before_its_bid() -> None:
    """What was reserved is not known, so the budget pays and the record charges the lease."""
    run([
        (grant(50), O.GRANTED, {"granted": 50}),
        (post(1, 10, reserve=0), O.POSTED_UNSEEN, {"granted": 50, "posted": 10}),
        (take(1, 3), O.TAKEN_SETTLED, {"granted": 47, "posted": 10}),
        (take(1, 3), O.DUPLICATE, {"granted": 47, "posted": 10}),
    ])  # fmt: skip


def test_refusals_change_nothing() -> None:
    """What is malformed, unknown, or another line item's leaves no trace."""
    books = Books(enrol(), enrol(HATS), grant(50), take(1))
    before = books.copy()
    top = 1 << 70
    for command, outcome in [
        (take(2, -1), O.MALFORMED),
        (take(2, AMOUNT_MAX + 1), O.MALFORMED),
        (Take(BID_MAX, SHOES, 1, T), O.MALFORMED),
        (Take(0, SHOES, 1, T), O.MALFORMED),
        (take(2, line_item=3), O.UNKNOWN_LINE_ITEM),
        (post(2, -1), O.MALFORMED),
        (post(2, AMOUNT_MAX + 1, top=top), O.MALFORMED),
        (Post(T, BID_MAX, SHOES, 1, 1, 1), O.MALFORMED),
        (post(2, line_item=3), O.UNKNOWN_LINE_ITEM),
        (post(1, line_item=HATS), O.OTHER_LINE_ITEM),
        (void(1, line_item=HATS), O.OTHER_LINE_ITEM),
        (void(2, line_item=3), O.UNKNOWN_LINE_ITEM),
        (void(-1), O.MALFORMED),
        (grant(0, 0), O.MALFORMED),
        (grant(-1), O.MALFORMED),
        (grant(1, -1), O.MALFORMED),
        (grant(1, at_s=-1), O.MALFORMED),
        (grant(1, line_item=3), O.UNKNOWN_LINE_ITEM),
        (adjust("", 1), O.MALFORMED),
        (adjust("a\0", 1), O.MALFORMED),
        (adjust("\ud800", 1), O.MALFORMED),
        (adjust("a", 1, -1), O.MALFORMED),
        (adjust("a", 1, at_s=1 << 32), O.MALFORMED),
        (adjust("a", -1), O.ABOVE_POSTED),
        (Adjust(T, "a", 3, T, 1, 0, Reason.CORRECTION), O.UNKNOWN_LINE_ITEM),
        (SetLimit(T, Scope.LINE_ITEM, SHOES, -1), O.MALFORMED),
        (SetLimit(T, Scope.LINE_ITEM, SHOES, None, -1), O.MALFORMED),
        (Enrol(T, 0, 1, 1, "UTC", EUR, "x"), O.MALFORMED),
        (Enrol(T, 3, 1, 1, "UTC", EUR, "x" * 501), O.MALFORMED),
        (Enrol(T, 3, 1, 1, "Europe/Atlantis", EUR, "x"), O.MALFORMED),
        (Enrol(T, 3, 1, 1, "UTC", EUR, "x", (Flight(1, 5, 5),)), O.MALFORMED),
        (Enrol(T, 3, 1, 1, "UTC", EUR, "x", (Flight(1, 0, 5), Flight(2, 4, 9))), O.MALFORMED),
        (Enrol(T, SHOES, 1, ADVERTISER, "Europe/Berlin", EUR, "x"), O.MOVED),
        (enrol(), O.NOTHING),
        (SetLimit(T, Scope.LINE_ITEM, SHOES), O.NOTHING),
        (Forget(0), O.NOTHING),
    ]:  # fmt: skip
        assert outcome is books(command), command
        assert before.rows == books.rows
        assert before.state.accounts == books.state.accounts
        assert before.state.holds == books.state.holds
        assert before.state.settled == books.state.settled
        assert before.state.lines == books.state.lines


def test_limits_may_be_lowered_below_what_is_committed() -> None:
    """Then nothing is granted until enough came back; what is committed is kept."""
    run([
        (grant(80), O.GRANTED, {"granted": 80}),
        (take(1, 30), O.TAKEN, {"granted": 50, "pending": 30}),
        (limit(Scope.LINE_ITEM, SHOES, 20), O.LIMIT_BELOW, {"granted": 50, "pending": 30}),
        (grant(1, worker=1), O.EXHAUSTED_LINE_ITEM, {"granted": 50, "pending": 30}),
        (give(), O.RETURNED, {"pending": 30}),
        (post(1, 15, top=30), O.POSTED, {"posted": 15}),
        (grant(9), O.GRANTED_PART, {"posted": 15, "granted": 5}),
    ])  # fmt: skip


def test_corrections() -> None:
    """Each reference counts once; refunds forgive overspend first."""
    books = run([
        (grant(95), O.GRANTED, {"granted": 95}),
        (adjust("a", 3, 1), O.ADJUSTED, {"granted": 95, "posted": 3}),
        (adjust("a", 3, 1), O.DUPLICATE, {"granted": 95, "posted": 3}),
        (adjust("b", 6), O.ADJUSTED_OVER, {"granted": 95, "posted": 5, "over": 4}),
        (adjust("c", -5), O.ADJUSTED, {"granted": 95, "posted": 4}),
        (adjust("d", -5), O.ABOVE_POSTED, {"granted": 95, "posted": 4}),
        (adjust("e", -4, -1), O.ADJUSTED, {"granted": 95}),
    ])  # fmt: skip
    named = {row.reference for row in books.rows if row.entry is Entry.ADJUST}
    assert {"a", "b", "c", "e"} == named


def test_what_is_forgotten_is_too_old() -> None:
    """Nothing is booked that could have been booked before; bids in flight still are."""
    run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (take(1), O.TAKEN, {"granted": 50, "pending": 10}),
        (take(2), O.TAKEN, {"granted": 40, "pending": 20}),
        (post(1), O.POSTED, {"granted": 40, "pending": 10, "posted": 10}),
        (Forget(T + 1), O.FORGOTTEN, {"granted": 40, "pending": 10, "posted": 10}),
        (post(1), O.TOO_OLD, {"granted": 40, "pending": 10, "posted": 10}),
        (void(1), O.TOO_OLD, {"granted": 40, "pending": 10, "posted": 10}),
        (take(3), O.TOO_OLD, {"granted": 40, "pending": 10, "posted": 10}),
        (post(2), O.POSTED, {"granted": 40, "posted": 20}),
    ])  # fmt: skip


def test_the_watermark_itself_is_remembered() -> None:
    """What was made at the moment before which all is forgotten is still known."""
    run([
        (grant(60), O.GRANTED, {"granted": 60}),
        (post(1, 4), O.POSTED_UNSEEN, {"granted": 50, "posted": 4}),
        (Forget(T), O.FORGOTTEN, {"granted": 50, "posted": 4}),
        (post(1, 4), O.DUPLICATE, {"granted": 50, "posted": 4}),
        (take(2), O.TAKEN, {"granted": 40, "pending": 10, "posted": 4}),
        (post(3, 5), O.POSTED_UNSEEN, {"granted": 30, "pending": 10, "posted": 9}),
        (void(4), O.VOIDED_UNSEEN, {"granted": 30, "pending": 10, "posted": 9}),
    ])  # fmt: skip


def test_every_order_ends_alike() -> None:
    """A bid, its bill, a loss and the bill again: 24 orders, one result, in both modes."""
    strict, expected = {"granted": 40, "posted": 7}, {"granted": 47, "posted": 3, "over": 4}
    for reserve, held, balances in ((10, 10, strict), (0, 3, expected)):
        bill = post(1, 7, reserve=reserve)
        for order in itertools.permutations([take(1, held), bill, void(1), bill]):
            books = Books(enrol(), limit(Scope.LINE_ITEM, SHOES, 50), grant(50))
            outcomes = [books(command) for command in order]
            assert balances == books.money(), outcomes
            assert 1 == len(BOOKED.intersection(outcomes))
            assert not books.state.holds
            check_all(books)


def test_leases_that_ran_out() -> None:
    """They are named, not taken: only their worker's fence makes that safe."""
    books = Books(enrol(), enrol(HATS), grant(5), grant(5, worker=3, line_item=HATS))
    assert [] == books.state.leases_due(T + 59)
    assert [(HATS, 3), (SHOES, 0)] == books.state.leases_due(T + 60)
    assert books(Grant(T, HATS, 3, T, 5, 0, T + 90)) is O.GRANTED
    assert books(Grant(T, HATS, 3, T, 5, 0, T + 30)) is O.GRANTED
    assert [(SHOES, 0)] == books.state.leases_due(T + 89)


def test_a_campaign_has_one_payer() -> None:
    """Nor do the books mix advertisers in a campaign, or currencies in an advertiser's."""
    books, usd = Books(enrol()), EUR + 1
    for campaign, advertiser, currency, outcome in (
        (CAMPAIGN, 9, EUR, O.MOVED),
        (8, ADVERTISER, usd, O.MOVED),
        (8, ADVERTISER, EUR, O.ENROLLED),
        (8, 9, EUR, O.MOVED),
        (7, 9, usd, O.ENROLLED),
    ):
        number = 1000 + len(books.state.lines)
        assert outcome is books(Enrol(T, number, campaign, advertiser, "UTC", currency, "x"))


def test_a_new_description() -> None:
    """Zone and flights may change; money booked stays where it is, the next goes by the new."""
    books = Books(enrol(), grant(5), take(1))
    assert books(Enrol(T, SHOES, CAMPAIGN, ADVERTISER, "UTC", EUR, "renamed")) is O.ENROLLED
    assert books(grant(5)) is O.GRANTED
    assert ["renamed", "UTC"] == [books.state.lines[SHOES].name, books.state.lines[SHOES].zone]
    assert [AUTUMN.key, 0] == [one.flight for one in books.state.accounts.values()]
    assert books(post(1)) is O.POSTED
    assert ({"posted": 10}, {"granted": 5}) == (books.money(1), books.money(2))


def test_alarms() -> None:
    """Money beyond a budget and bills not booked are for people to see."""
    assert O.LATE_OVER.alarming
    assert O.TOO_OLD.alarming
    assert not O.POSTED.alarming
    assert not O.TOO_OLD.transient
    assert O.UNKNOWN_LINE_ITEM.transient
