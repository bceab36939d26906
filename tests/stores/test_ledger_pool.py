"""Books of several nodes in one PostgreSQL, what each is lent, and their mail."""

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import DBAPIError

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.ledger.accounts import NO_LIMIT, Pot
from rtb.ledger.commands import Enrol, Grant, Outcome, Repay, Scope
from rtb.ledger.pool import Amount, Ask, Wants
from rtb.stores import ledger_owners as owners
from rtb.stores.ledger_mail import Mail
from rtb.stores.ledger_pool import PooledStore, Told, open_books
from rtb.stores.ledger_sql import LedgerStore
from tests.ledger.books import ADVERTISER, CAMPAIGN, HATS, SHOES, USD, T, enrol, limit, post, take
from tests.stores.postgres import Postgres

pytestmark = pytest.mark.server
TOTAL: Pot = (Scope.LINE_ITEM, SHOES, 0)
OTHER: Pot = (Scope.LINE_ITEM, 1 << 63, 0)


@pytest.fixture
def url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.url()


def opened(url: str, node: int) -> PooledStore:
    """The books of a node with a line item of 100 nanos."""
    store = open_books(url, node, lock_wait_ms=200)
    assert isinstance(store, PooledStore)
    store.load(node)
    if SHOES not in store.state.lines:
        store.apply([enrol(), limit(Scope.LINE_ITEM, SHOES, 100)])
    return store


def ask(drawn: int = 0, least: int = 0, ahead: int = 0, pot: Pot = TOTAL) -> Ask:
    """An ask for money."""
    return Ask(pot, Amount(drawn, 0), Amount(least, 0), Amount(ahead, 0), Amount(100, NO_LIMIT))


def grant(nanos: int) -> Grant:
    """A lease of the line item."""
    return Grant(T, SHOES, 0, T, nanos, 0, T + 60)


def bounds(told: Told) -> dict[Pot, int]:
    """What may be drawn of the pots that were asked for."""
    return {pot: share.bound.nanos for pot, share in told.shares.items()}


def left(store: PooledStore) -> int:
    """What a node may still draw of the line item."""
    return store.state.available(Scope.LINE_ITEM, SHOES)[0]


def test_each_node_has_books_of_its_own(url: str) -> None:
    """What one books the other does not see; each is fenced for itself."""
    with opened(url, 1) as one, opened(url, 2) as two:
        one.apply([post(1, 5)], {"1/0/aa": 3})

        assert {} == two.load(2)[1]
        assert {"1/0/aa": 3} == one.load(1)[1]
        assert [] == one.audit() + two.audit()
        with opened(url, 1), pytest.raises(StoreError, match="another keeper took over"):
            one.exchange([ask()])


def test_nothing_is_drawn_that_was_not_lent(url: str) -> None:
    """A budget is nobody's at first; alone a node gets all of it, and has it after a restart."""
    with opened(url, 1) as store:
        assert [Outcome.EXHAUSTED_LINE_ITEM] == store.apply([grant(10)]).outcomes
        told = store.exchange([ask(least=10, ahead=30)])
        assert {TOTAL: 100} == bounds(told)
        assert [Outcome.GRANTED] == store.apply([grant(10)]).outcomes
    with opened(url, 1) as store:
        assert 90 == left(store)


def test_two_nodes_share(url: str) -> None:
    """Who came first gives back what it does not need once another wants, never what it drew."""
    with opened(url, 1) as one:
        assert {TOTAL: 100} == bounds(one.exchange([ask(least=10, ahead=30)]))
        one.apply([grant(40)])
        with opened(url, 2) as two:
            assert {1: True, 2: True} == one.exchange([]).nodes
            assert {TOTAL: 0} == bounds(two.exchange([ask(least=10, ahead=80)]))

            assert {TOTAL: Wants.MORE} == one.exchange([]).wanted
            assert {TOTAL: 55} == bounds(one.exchange([ask(40, least=10, ahead=15)]))
            assert {TOTAL: 22} == bounds(two.exchange([ask(least=10, ahead=80)]))
            assert [Outcome.GRANTED_PART] == one.apply([grant(40)]).outcomes
            assert [Outcome.GRANTED_PART] == two.apply([grant(80)]).outcomes
            assert (0, 0) == (left(one), left(two))


def test_a_share_that_nothing_was_heard_of(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the commit fails a node has the less of both; what is written down is at most more."""
    with opened(url, 1) as one, opened(url, 2) as two:
        two.exchange([])
        one.exchange([ask(least=10, ahead=30)])
        two.exchange([ask(least=90, ahead=90)])

        def lost(*_: object) -> None:
            raise DBAPIError("COMMIT", None, OSError("the network is gone"))

        monkeypatch.setattr(one, "_lower", _after(one._lower, lost))
        with pytest.raises(StoreError, match="network"):
            one.exchange([ask()])
        assert 0 == left(one)
        with pytest.raises(StoreError, match="network"):
            one.exchange([ask(least=20, ahead=60)])
        assert 0 == left(one)
        monkeypatch.undo()
        one.load(1)
        assert 30 == left(one)


def _after(first, then):  # type: ignore[no-untyped-def]
    def both(*arguments: object) -> None:
        first(*arguments)
        then()

    return both


def test_pots_are_locked_in_order(url: str) -> None:
    """Two nodes that ask for the same pots at once: the second waits, and is told the truth."""
    with opened(url, 1) as one, opened(url, 2) as two:
        with one._transaction() as connection:
            one._answers(connection, [ask(least=1, ahead=60)], alone=False)
            with pytest.raises(StoreError, match="lock timeout") as fault:
                two.exchange([ask(least=1, ahead=60, pot=OTHER), ask(least=1, ahead=60)])
            assert fault.value.transient
        told = two.exchange([ask(least=1, ahead=60, pot=OTHER), ask(least=1, ahead=60)])

        assert {TOTAL: 25, OTHER: 50} == bounds(told)


def test_overspend_is_paid_from_what_is_lent_later(url: str) -> None:
    """A bill beyond the share counts against the budget of all, and is none once it was lent."""
    with opened(url, 1) as one, opened(url, 2) as two:
        two.exchange([ask(least=1, ahead=2)])
        applied = one.apply([post(1, 30, 30)])
        assert [Outcome.POSTED_OVER] == applied.outcomes
        assert [Outcome.NOTHING] == one.apply([Repay(T, 1)]).outcomes
        told = one.exchange([ask(30)])

        assert {TOTAL: 30} == {pot: share.lent.nanos for pot, share in told.shares.items()}
        assert [Outcome.REPAID] == one.apply([Repay(T, 1)]).outcomes
        assert [Outcome.NOTHING] == one.apply([Repay(T, 1), Repay(T, 99)]).outcomes[1:]
        assert [] == one.audit()


def test_a_node_that_is_gone_is_released(url: str) -> None:
    """What it had not drawn goes to the others; its keeper is refused, and begins from what it
    drew."""
    with opened(url, 1) as one, opened(url, 2) as two:
        one.exchange([ask(least=10, ahead=30)])
        one.apply([take(1, 25)])
        with open_books(url, 1) as again:
            assert isinstance(again, PooledStore)
            again.release()
        with pytest.raises(StoreError, match="took over"):
            one.exchange([ask()])

        told = two.exchange([ask(least=10, ahead=10)])
        assert {1: False, 2: True} == told.nodes
        assert {TOTAL: 75} == bounds(told)
    with opened(url, 1) as back:
        assert {1: True, 2: True} == back.nodes()
        assert 0 == left(back)


def test_days_that_are_over_are_let_go(url: str) -> None:
    """The pots of old days go, node by node."""
    day = (Scope.LINE_ITEM_DAY, SHOES, 739_000)
    with opened(url, 1) as one, opened(url, 2) as two:
        for store in (one, two):
            store.apply([limit(Scope.LINE_ITEM_DAY, SHOES, 100)])
            store.exchange([ask(least=1, ahead=5, pot=day), ask(least=1, ahead=5)])
        one.let_go(739_001)

        assert {TOTAL} == set(one.state.lent or ())
        assert {TOTAL, day} == set(two.state.lent or ())
        two.let_go(739_001)
        two.load(2)
        assert {TOTAL} == set(two.state.lent or ())


def test_mail_is_read_once(url: str) -> None:
    """Records for another node's bids come with the batch, in order, after a position."""
    with opened(url, 1) as one, opened(url, 2) as two:
        mail = [Mail(2, 1, number, T + number, "1/0/aa", 7, 3, b"body") for number in (1, 2, 3)]
        one.apply([], {"mail-to/2": 3}, also=lambda connection: one.send(connection, mail))

        assert mail[:2] == two.receive({1: 0}, 2)
        assert mail[2:] == two.receive({1: 2, 3: 0}, 2)
        assert [] == two.receive({}, 2) + one.receive({2: 0}, 2)
        two.tidy_mail({1: 2}, T + 2)
        assert mail[1:] == two.receive({1: 0}, 5)


def test_a_batch_that_fails_sends_nothing(url: str) -> None:
    """Mail is in the transaction of its batch."""
    with opened(url, 1) as one, opened(url, 2) as two:
        mail = [Mail(2, 1, 1, T, "1/0/aa", 7, 3, b"body")]

        def fail(connection: object) -> None:
            one.send(connection, mail)  # type: ignore[arg-type]
            raise StoreError("no more")

        with pytest.raises(StoreError, match="no more"):
            one.apply([], {"1/0/aa": 7}, also=fail)
        assert [] == two.receive({1: 0}, 5)


def test_books_of_the_former_version_are_moved(url: str) -> None:
    """Books that one node kept alone in the database become its own; another's stay."""
    with LedgerStore.open(url) as old:
        old.load(3)
        old.apply([enrol(), limit(Scope.LINE_ITEM, SHOES, 100)], {"3/0/aa": 9})
    with open_books(url, 1) as other:
        assert {} == other.load(1)[1]
    with open_books(url, 3) as same:
        assert {"3/0/aa": 9} == same.load(3)[1]
        assert [] == same.audit()


def test_another_version_of_the_pool_is_refused(url: str) -> None:
    """Nodes of two versions do not lend to each other by different rules."""
    with opened(url, 1) as store, store._transaction() as connection:
        connection.exec_driver_sql("UPDATE pool_meta SET value = 9 WHERE name = 'version'")

    with pytest.raises(StoreCorrupt, match="a pool of version 9, expected 2"):
        open_books(url, 2)


OTHER_OWNERS = [
    replace(enrol(), currency=USD),
    replace(enrol(), advertiser=ADVERTISER + 1),
    replace(enrol(), campaign=CAMPAIGN + 1),
    replace(enrol(HATS), currency=USD),
    replace(enrol(HATS), advertiser=ADVERTISER + 1),
    replace(enrol(HATS), campaign=CAMPAIGN + 1, currency=USD),
]
SAME_OWNER = [
    enrol(),
    enrol(HATS),
    replace(enrol((1 << 64) - 4), campaign=(1 << 64) - 2),
    replace(enrol(HATS), campaign=CAMPAIGN + 1, advertiser=(1 << 64) - 3, currency=USD),
    replace(enrol(), name="renamed", zone="UTC", flights=()),
]


@pytest.mark.parametrize("enrolment", OTHER_OWNERS + SAME_OWNER)
@pytest.mark.parametrize("before", [False, True], ids=["agreed on", "in books of before"])
def test_nodes_agree_on_who_pays(url: str, enrolment: Enrol, before: bool) -> None:
    """Pots are known by campaign and line item: the first node says whose money is in them."""
    with opened(url, 1) as one:
        assert set() == one.claim([enrol()])
        if before:
            with one._transaction() as connection:
                connection.exec_driver_sql("DROP TABLE rtb_pool.pool_owners")
                connection.exec_driver_sql("UPDATE pool_meta SET value = 1 WHERE name = 'version'")
    with opened(url, 2) as two:
        refused = {enrolment.line_item} if enrolment in OTHER_OWNERS else set()
        assert refused == two.claim([enrolment])
        assert refused == two.claim([enrolment, enrol(99)])
        assert set() == two.claim([])


def test_a_refused_claim_leaves_nothing(url: str) -> None:
    """A slip of one node takes a line item, a campaign or an advertiser from nobody."""
    right = replace(enrol(HATS), campaign=CAMPAIGN + 1)
    slip = replace(right, currency=USD)
    moved = replace(enrol(99), advertiser=ADVERTISER + 1, currency=USD)
    with opened(url, 1) as one, opened(url, 2) as two:
        assert set() == one.claim([enrol()])
        assert {HATS, 99} == two.claim([slip, moved])
        assert set() == one.claim([right])
        assert set() == two.claim([right])
        assert set() == one.claim([replace(moved, campaign=CAMPAIGN + 2)])


def test_claims_of_a_moment_wait_for_each_other(url: str) -> None:
    """Two nodes that say different things at once: one of them is first in everything."""
    ours = [enrol(), enrol(HATS)]
    theirs = [replace(one, advertiser=ADVERTISER + 1) for one in reversed(ours)]
    with opened(url, 1) as one, opened(url, 2) as two:
        with one._transaction() as connection:
            assert set() == owners.claim(connection, one._bulk, ours)
            with pytest.raises(StoreError, match="lock timeout"):
                two.claim(theirs)
        assert {SHOES, HATS} == two.claim(theirs)


def test_books_that_are_moved_say_whose_money_they_spend(url: str) -> None:
    """Those of one node's alone, whether it or another one makes the pool."""
    with LedgerStore.open(url) as old:
        old.load(3)
        old.apply([enrol()])
    other = replace(enrol(), advertiser=ADVERTISER + 1)
    with open_books(url, 1) as first, open_books(url, 3) as moved, opened(url, 2) as two:
        assert isinstance(first, PooledStore)
        assert isinstance(moved, PooledStore)
        assert {SHOES} == two.claim([other])
