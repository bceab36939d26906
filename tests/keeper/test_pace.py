"""Pacing on a node: from books and boards to what line items are told, round by round."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rtb.base.reasons import Reject
from rtb.catalogue.model import Budget, Flight
from rtb.keeper.chart import plans_of
from rtb.keeper.pace import Settings
from rtb.keeper.pace_budgets import Name, aim_of, budgets_of
from rtb.keeper.pace_report import Row
from rtb.ledger.commands import Scope
from rtb.pacing.goal import Mode
from rtb.pacing.schedule import Shape
from rtb.stores.board import FUNNEL_FIRST_REASON, FUNNEL_SAMPLE
from tests.keeper.pacing_node import MIDNIGHT_S, PacedNode, key_of, snapshot_of

DAY_S = 86_400
ALL = (1_000_000, 10_000)
DAILY = {"budget": Budget(daily="20")}


@pytest.fixture
def node(tmp_path: Path) -> PacedNode:
    return PacedNode(tmp_path)


# -- budgets and goals -----------------------------------------------------------------------------


def test_budgets_that_have_an_end() -> None:
    """Days and flights are paced; a total that never ends and what is wanted at once are not."""
    snapshot = snapshot_of(
        {
            "open": {"budget": Budget("300", "20", impressions=50)},
            "flight": {
                "budget": Budget("300", impressions=50),
                "flights": (Flight("2026-09-21", "2026-09-22", Budget("7", impressions=9)),),
            },
            "asap": {"budget": Budget(daily="20"), "pacing": "asap"},
        },
        budget=Budget("900", daily="40"),
    )
    plans = list(plans_of(snapshot).items())
    found = {one.name: one for one in budgets_of(snapshot, plans)}
    [flight] = plans[1][1].flights
    campaign = plans[0][1].campaign

    assert {
        Name(Scope.LINE_ITEM_DAY, key_of("open"), False): 20 * 10**9,
        Name(Scope.LINE_ITEM, key_of("flight"), False): 300 * 10**9,
        Name(Scope.LINE_ITEM, key_of("flight"), True): 50,
        Name(Scope.FLIGHT, flight.key, False): 7 * 10**9,
        Name(Scope.FLIGHT, flight.key, True): 9,
        Name(Scope.CAMPAIGN_DAY, campaign, False): 40 * 10**9,
    } == {name: one.amount for name, one in found.items()}
    assert (0, 1, 2) == found[Name(Scope.CAMPAIGN_DAY, campaign, False)].members


ZONES = [
    ("Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=UTC), 25),
    ("Europe/Berlin", datetime(2026, 3, 29, 12, tzinfo=UTC), 23),
    ("Asia/Tokyo", datetime(2026, 3, 29, 16, tzinfo=UTC), 24),
]


@pytest.mark.parametrize(("zone", "now", "hours"), ZONES, ids=["long", "short", "plain"])
def test_day_is_the_advertisers(zone: str, now: datetime, hours: int) -> None:
    """A day's budget aims at the end of the advertiser's day, whatever its length."""
    snapshot = snapshot_of({"li": DAILY}, zone)
    [budget] = budgets_of(snapshot, list(plans_of(snapshot).items()))
    aim = aim_of(budget, int(now.timestamp()), {})
    schedule = aim.goal.schedule

    assert hours * 3600 == schedule.end_s - schedule.start_s
    assert schedule.start_s <= now.timestamp() < aim.until_s <= schedule.end_s


def test_day_of_a_flight_that_begins_at_noon() -> None:
    """A day's budget is spent in the part of it that the flight leaves."""
    flight = Flight("2026-09-21T12:00:00Z", "2026-09-30")
    snapshot = snapshot_of({"li": {**DAILY, "flights": (flight,)}})
    [budget] = budgets_of(snapshot, list(plans_of(snapshot).items()))
    before, first, last = (
        aim_of(budget, MIDNIGHT_S + hour * 3600, {}) for hour in (0, 13, 24 * 30)
    )
    schedule = first.goal.schedule

    assert (12 * 3600, 24 * 3600) == (schedule.start_s - MIDNIGHT_S, schedule.end_s - MIDNIGHT_S)
    assert before.until_s <= schedule.start_s
    assert last.goal.schedule.start_s == last.goal.schedule.end_s


def test_total_over_flights_leaves_gaps_out() -> None:
    """Between two flights the target of their common budget stands still."""
    flights = (
        Flight("2026-09-21", "2026-09-21"),
        Flight("2026-09-24T00:30:00Z", "2026-09-24"),
    )
    snapshot = snapshot_of({"li": {"budget": Budget("48"), "flights": flights}})
    [budget] = budgets_of(snapshot, list(plans_of(snapshot).items()))
    schedule = aim_of(budget, MIDNIGHT_S, {}).goal.schedule
    hours = [schedule.target_nanos(4750, MIDNIGHT_S + hour * 3600) for hour in (12, 24, 72, 73, 96)]

    assert [1200, 2400, 2400, 2450, 4750] == hours


def test_curve_follows_what_was_learned() -> None:
    """A budget that is spent by the traffic has the hours of its zone as its target."""
    snapshot = snapshot_of({"li": {**DAILY, "pacing": "traffic"}})
    [budget] = budgets_of(snapshot, list(plans_of(snapshot).items()))
    weights = tuple(1000 if 8 <= slot % 24 < 20 else 0 for slot in range(168))
    schedule = aim_of(budget, MIDNIGHT_S, {"UTC": weights}).goal.schedule

    assert Shape.CURVE is schedule.shape
    assert [0, 0, 600, 1200] == [
        schedule.target_nanos(1200, MIDNIGHT_S + hour * 3600) for hour in (0, 8, 14, 20)
    ]


# -- what is told ----------------------------------------------------------------------------------


def test_not_paced(node: PacedNode) -> None:
    """What has no budget, or wants it spent at once, is not held back, whatever stood there."""
    node.serve(snapshot_of({"free": {}, "asap": {**DAILY, "pacing": "asap"}}))
    for slot in node.slots.values():
        node.money.multiplier_e6[slot], node.money.participation_e4[slot] = 5, 5
    node.serve(snapshot_of({"free": {}, "asap": {**DAILY, "pacing": "asap"}}))
    changes = int(node.money.header["changes"][0])
    node.turn()
    node.turn()

    assert (ALL, ALL) == (node.said("free"), node.said("asap"))
    assert changes == node.money.header["changes"][0]
    assert {} == node.pacers.errors()


def test_nothing_is_bid_before_the_first_step(node: PacedNode) -> None:
    """A line item that nobody knows waits for its controller, which then probes."""
    node.serve(snapshot_of({"li": DAILY}))
    before = node.said("li")
    node.turn()

    assert (100_000, 0) == before
    assert (100_000, 100) == node.said("li")
    assert {Mode.PROBE: 1} == node.pacers.summary().modes


def test_cold_start_takes_minutes(node: PacedNode) -> None:
    """A floor at six tenths of the value is found in three minutes, and then the plan is kept."""
    node.serve(snapshot_of({"li": DAILY}))
    for _ in range(180):
        node.offer("li", 200, floor=0.6)
        node.turn()
    found = node.spent["li"]
    for _ in range(1200):
        node.offer("li", 200, floor=0.6)
        node.turn()
    plan = 20 * 10**9 * (node.now_s - MIDNIGHT_S) // DAY_S

    assert found > 0
    assert plan == pytest.approx(node.spent["li"], abs=20 * 10**9 * 0.02)
    assert abs(node.pacers.errors()[key_of("li")]) <= 20_000


def test_hardly_any_traffic_is_not_held_back(node: PacedNode) -> None:
    """A request in ten seconds at the highest price could never spend the budget: all are bid on,
    at their full value, a few minutes after the start.
    """
    node.serve(snapshot_of({"li": {"budget": Budget(daily="200")}}))
    for _ in range(30):
        node.turn(10)
        node.offer("li", 1, floor=0.5)

    assert ALL == node.said("li")


def test_budget_that_affords_a_part_of_its_traffic(node: PacedNode) -> None:
    """A budget for two fifths of what comes delivers within seconds, and not ahead of its plan."""
    node.serve(snapshot_of({"li": {"budget": Budget(daily="1400")}}))  # 8 of 20 a second
    for _ in range(20):
        node.turn()
        node.offer("li", 20, floor=0.5)
    early = node.spent["li"]
    for _ in range(580):
        node.turn()
        node.offer("li", 20, floor=0.5)
    plan = 1400 * 10**9 * (node.now_s - MIDNIGHT_S) // DAY_S

    assert 0 < early < 1400 * 10**9 * 60 // DAY_S
    assert plan == pytest.approx(node.spent["li"], abs=1400 * 10**9 * 0.02)


def test_win_in_the_first_second(node: PacedNode) -> None:
    """A low price that wins at once is not taken for the price of a budget that affords more."""
    node.serve(snapshot_of({"li": {"budget": Budget(daily="1400")}}))
    for _ in range(20):
        node.turn()
        node.offer("li", 30)

    assert {Mode.PACED: 1} == node.pacers.summary().modes
    assert node.said("li")[0] > 500_000


def test_large_budget_is_not_held_back(node: PacedNode) -> None:
    """Ten requests a second cannot spend a budget of thousands, so nothing is probed for long."""
    node.serve(snapshot_of({"li": {"budget": Budget(daily="50000")}}))
    for _ in range(90):
        node.offer("li", 10, floor=0.5)
        node.turn()

    assert ALL == node.said("li")


def test_budget_that_is_spent(node: PacedNode) -> None:
    """Nothing is bid any more today, and tomorrow goes on with the multiplier of today."""
    node.serve(snapshot_of({"li": {"budget": Budget(daily="0.01")}}))
    node.turn()
    for slot in node.slots.values():
        node.money.participation_e4[slot] = 10_000
    node.offer("li", 100)
    node.turn()
    today = node.said("li")
    node.turn(DAY_S)
    node.turn(30)

    assert 0 == today[1]
    assert {Mode.PACED: 1} == node.pacers.summary().modes
    assert node.said("li")[1] > 0


def test_tightest_budget_holds(node: PacedNode) -> None:
    """A line item is held to the one of its budgets that allows least; the row names it."""
    flight = Flight("2026-09-21", "2026-09-30", Budget("0"))
    node.serve(snapshot_of({"li": {"budget": Budget(daily="2000"), "flights": (flight,)}}))
    node.turn()
    node.turn()

    assert 0 == node.said("li")[1]
    assert {Mode.PROBE: 1, Mode.SPENT: 1} == node.pacers.summary().modes


def test_campaign_paces_its_line_items_together(node: PacedNode) -> None:
    """What one line item spent of a common budget holds the other back, but not one that is in a
    hurry.
    """
    items = {"one": {}, "two": {}, "asap": {"pacing": "asap"}}
    node.serve(snapshot_of(items, budget=Budget(daily="10")))
    for _ in range(60):
        node.turn()
        for one in items:
            node.offer(one, 100)

    assert node.said("one") == node.said("two")
    assert ALL == node.said("asap")
    assert 0 == node.said("two")[1]  # the one in a hurry had more than all should have by now


def test_impressions_are_paced(node: PacedNode) -> None:
    """A budget of impressions is spread like money."""
    flight = Flight("2026-09-21", "2026-09-21", Budget(impressions=8_640))
    node.serve(snapshot_of({"li": {"flights": (flight,)}}))
    wins = 0
    for _ in range(1800):
        node.turn()
        wins += node.offer("li", 100)

    assert 180 == pytest.approx(wins, abs=8_640 * 0.02)


def test_next_flight_starts_within_a_round(node: PacedNode) -> None:
    """A line item waits for its flight, and is let in when that begins."""
    flight = Flight("2026-09-21T01:00:00Z", "2026-09-21")
    node.serve(snapshot_of({"li": {**DAILY, "flights": (flight,)}}))
    node.turn()
    waiting = node.said("li")
    node.turn(3598)
    still = node.said("li")
    node.turn()

    assert (0, 0) == (waiting[1], still[1])
    assert node.said("li")[1] > 0


# -- restarts --------------------------------------------------------------------------------------


def paced(node: PacedNode, seconds: int = 300) -> None:
    """Runs a line item until it is paced."""
    for _ in range(seconds):
        node.offer("li", 100, floor=0.3)
        node.turn()


def test_next_keeper_goes_on(node: PacedNode) -> None:
    """A keeper that starts again, or a whole node, has the multiplier of the last."""
    node.serve(snapshot_of({"li": DAILY}))
    paced(node)
    before = node.said("li")
    node.pacers.save(node.now_s)
    node.start()
    node.serve(snapshot_of({"li": DAILY}))
    first = node.said("li")
    node.turn()
    after = node.said("li")
    fresh = PacedNode(node.folder / "other", node.now_s, books=node.books)
    (fresh.folder / "memory").write_bytes((node.folder / "memory").read_bytes())
    fresh.start()
    fresh.serve(snapshot_of({"li": DAILY}))
    fresh.turn()

    assert before == first
    assert before[0] == after[0] == fresh.said("li")[0]
    assert {Mode.PACED: 1} == fresh.pacers.summary().modes


def test_board_is_enough_for_the_next_keeper(node: PacedNode) -> None:
    """Without its memory a keeper goes on with a multiplier that stands on the board."""
    node.serve(snapshot_of({"li": DAILY}))
    [slot] = node.slots.values()
    node.money.multiplier_e6[slot], node.money.participation_e4[slot] = 420_000, 10_000
    node.start()
    node.serve(snapshot_of({"li": DAILY}))
    node.turn()

    assert 420_000 == node.said("li")[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":9}',
        b'{"curves":{"UTC":{"requests":[],"seconds":[],"prior":[]}}}',
        b'{"budgets":[{"scope":99,"key":1,"units":false,"multiplier_e6":5,"recent":{}}]}',
    ],
)
def test_broken_memory_is_none(node: PacedNode, content: bytes) -> None:
    """A file that cannot be read costs a cold start, and nothing else."""
    (node.folder / "memory").write_bytes(content)
    node.start()
    node.serve(snapshot_of({"li": DAILY}))
    node.turn()

    assert {Mode.PROBE: 1} == node.pacers.summary().modes


def test_old_memory_is_none(node: PacedNode) -> None:
    """After a month the market is another one, but people keep their hours."""
    node.serve(snapshot_of({"li": DAILY}))
    paced(node)
    node.pacers.save(node.now_s)
    node.now_s += 31 * DAY_S
    [slot] = node.slots.values()
    node.money.multiplier_e6[slot], node.money.participation_e4[slot] = ALL
    node.start()
    node.serve(snapshot_of({"li": DAILY}))
    node.turn()

    assert {Mode.PROBE: 1} == node.pacers.summary().modes


def test_new_snapshot_keeps_what_was_learned(node: PacedNode) -> None:
    """Line items that stay go on, at whatever row; new ones begin."""
    node.serve(snapshot_of({"li": DAILY}))
    paced(node)
    before = node.said("li")
    node.serve(snapshot_of({"a new one": DAILY, "li": DAILY}))
    node.turn()

    assert before[0] == node.said("li")[0]
    assert {Mode.PACED: 1, Mode.PROBE: 1} == node.pacers.summary().modes


def test_hours_are_learned_and_kept(node: PacedNode) -> None:
    """Requests of all line items are counted for the hour of each advertiser's week."""
    node.serve(snapshot_of({"li": DAILY}, zone="Asia/Tokyo"))
    for _ in range(5):
        node.turn(60)
        node.board.columns["requests"][0, 3, 0] += 6_000
    node.turn(60)
    node.pacers.save(node.now_s)
    kept = msgspec.json.decode((node.folder / "memory").read_bytes())["curves"]["Asia/Tokyo"]

    assert 9 == int(np.argmax(kept["requests"]))  # Monday 09:00
    assert 100 == pytest.approx(kept["requests"][9] / kept["seconds"][9], rel=0.01)


# -- cost and reports ------------------------------------------------------------------------------


def test_turns_are_bounded(tmp_path: Path) -> None:
    """A round of many budgets is spread over turns, and each of them is reached."""
    node = PacedNode(tmp_path, settings=Settings(report_ms=1 << 40, work_max=13))
    items = {f"li {number}": DAILY for number in range(10)}
    node.serve(snapshot_of(items))
    node.now_s += 1
    reached = []
    for _ in range(14):
        node.pacers.turn(node.books.state, node.now_s * 1000)
        reached.append(sum(node.said(one)[1] > 0 for one in items))

    assert max(after - before for before, after in pairwise(reached)) == 1
    assert 10 == reached[-1]


def test_nothing_new_is_not_stepped(node: PacedNode) -> None:
    """A budget that nothing came for is left alone for half a minute."""
    node.serve(snapshot_of({"li": DAILY}))
    paced(node)
    node.turn(31)
    state = node.pacers._pacers[0].state
    node.turn(5)

    assert state is node.pacers._pacers[0].state


def test_requests_are_counted_once(node: PacedNode) -> None:
    """A request is told once where pacing lets it pass, else for each creative; a worker that
    starts again counts its money from nothing.
    """
    node.serve(snapshot_of({"li": DAILY}))
    counts = node.pacers._counts
    counts._creatives[:] = 3
    funnel = node.board.funnel[0, 0]
    funnel[Reject.PACED - FUNNEL_FIRST_REASON] += 5
    funnel[Reject.SIZE - FUNNEL_FIRST_REASON] += 4
    funnel[Reject.BELOW_FLOOR - FUNNEL_FIRST_REASON] += 2
    funnel[Reject.TARGETING_EXPRESSION - FUNNEL_FIRST_REASON] += 9
    [slot] = node.slots.values()
    node.money.taken[:, slot], node.money.taken_units[:, slot] = 500, 5
    counts.look()
    node.money.taken[0, slot], node.money.taken_units[0, slot] = 100, 1
    for worker in counts.workers():
        counts.look_at(worker)
    counts.look()

    assert [7 * FUNNEL_SAMPLE] == counts.requests.tolist()
    assert ([1_100], [11]) == (counts.reserved.tolist(), counts.bids.tolist())


def test_report_for_people(tmp_path: Path) -> None:
    """Every line item has a row that says how it is paced."""
    node = PacedNode(tmp_path, settings=replace(Settings(), report_ms=1_000))
    node.serve(snapshot_of({"li": DAILY, "free": {}}))
    paced(node, 120)
    node.turn()
    rows = msgspec.json.decode((tmp_path / "report").read_bytes(), type=list[Row])
    paced_row, free = sorted(rows, key=lambda row: row.scope, reverse=True)

    assert ("li", "line_item_day", False) == (
        paced_row.name,
        paced_row.scope,
        paced_row.impressions,
    )
    assert node.spent["li"] == paced_row.spent
    assert 20 * 10**9 == paced_row.budget
    assert abs(paced_row.spent - paced_row.target) <= abs(paced_row.error_e6) * 20_000
    assert ("free", "unpaced", 0) == (free.name, free.mode, free.spent)


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    """A disk that is full is told, and stops nothing."""
    node = PacedNode(tmp_path, settings=replace(Settings(), report_ms=1_000))
    node.serve(snapshot_of({"li": DAILY}))
    (tmp_path / "memory").mkdir()
    paced(node, 60)
    node.pacers.save(node.now_s)

    assert "memory" in node.pacers.fault
    assert Mode.WAITING not in node.pacers.summary().modes


# -- several nodes ---------------------------------------------------------------------------------


def test_nodes_keep_one_plan(tmp_path: Path) -> None:
    """Two nodes, one with twice the traffic, spend a day's budget together as one would alone; each
    hears every few seconds what the other has seen. Without it they spend twice the plan."""
    nodes = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        nodes.append(PacedNode(tmp_path / str(number)))
        nodes[-1].serve(snapshot_of({"li": {"budget": Budget(daily="1400")}}))
    for second in range(900):
        for node, requests in zip(nodes, (7, 13), strict=True):
            node.turn()
            node.offer("li", requests, floor=0.5)
        if second % 2 == 0:
            for node, other in pairwise([*nodes, nodes[0]]):
                node.pacers.hear(dict(other.pacers.own))
    plan = 1400 * 10**9 * (nodes[0].now_s - MIDNIGHT_S) // DAY_S
    spent = [node.spent["li"] for node in nodes]

    assert plan == pytest.approx(sum(spent), abs=1400 * 10**9 * 0.001)
    assert min(spent) > plan // 4


def test_what_is_heard_late_is_no_news(tmp_path: Path) -> None:
    """What another node spent before this one heard of it is not taken for spent just now."""
    node = PacedNode(tmp_path)
    node.serve(snapshot_of({"li": {"budget": Budget(daily="1400")}}))
    for _ in range(60):
        node.turn()
        node.offer("li", 20, floor=0.5)
    [(name, day)] = node.pacers.own
    before = node.pacers._pacers[0].state.recent
    node.pacers.hear({(name, day): replace(node.pacers.own[name, day], spent_nanos=500 * 10**9)})
    node.turn()
    after = node.pacers._pacers[0].state.recent

    assert after.spent_nanos - before.spent_nanos < 10**9
    assert node.pacers._pacers[0].seen.spent_nanos > 500 * 10**9
