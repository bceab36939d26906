"""The money board: its file, the purse, and the two protocols by which a lease ends."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.base.records import MULTIPLIER_E6_ONE, OVERLAY, Overlay
from rtb.keeper import publish
from rtb.stores.board_money import NO_SLOT, MoneyBoard, Purse

SHOES, NOW = 7, 1_000_000


def _lend(board: MoneyBoard, nanos: int, units: int = 10, worker: int = 0, slot: int = 3) -> None:
    board.from_ms[worker, slot] = NOW - 1000
    board.granted[worker, slot] += nanos
    board.granted_units[worker, slot] += units
    board.until_ms[worker, slot] = NOW + 1000


@pytest.fixture
def board(tmp_path: Path) -> MoneyBoard:
    """Two workers, eight slots, one line item."""
    made = MoneyBoard.create(tmp_path / "money", 2, 8)
    made.keys[3] = SHOES
    made.header["generation"] += 1
    return made


def _purse(board: MoneyBoard, worker: int = 0, sequence: int = 0) -> Purse:
    purse = Purse(board, worker, lambda: sequence)
    board.keeper["incarnation"][worker] = purse.incarnation
    return purse


def test_a_fresh_board_lends_nothing(board: MoneyBoard) -> None:
    """Zeros are closed; a multiplier is one; another process sees the same words."""
    purse = _purse(board)
    again = MoneyBoard.open(board.path)

    assert MULTIPLIER_E6_ONE == again.multiplier_e6[5]
    assert not purse.affords(3, SHOES, 0, NOW)
    assert (1, 0) == (again.refusals[0, 3], again.refusals[1, 3])
    assert (2, 8) == (again.workers_count, again.slots_count)


def test_slots_follow_the_generation(board: MoneyBoard) -> None:
    """A purse looks line items up anew when the keeper has changed the keys."""
    purse = _purse(board)
    purse.bind(np.array([SHOES, 9], np.uint64))

    assert [3, NO_SLOT] == purse.slots().tolist()
    board.keys[4] = 9
    assert [3, NO_SLOT] == purse.slots().tolist()
    board.header["generation"] += 1
    assert [3, 4] == purse.slots().tolist()


def test_what_holds_line_items_back(board: MoneyBoard) -> None:
    """Rows of the snapshot's line items say what the keeper says of their slots."""
    purse = _purse(board)
    purse.bind(np.array([9, SHOES], np.uint64))
    rows = np.zeros(2, OVERLAY)
    before = purse.changes()
    publish.pace(board, 3, 400_000, 2_000)
    publish.overlay(board, 3, Overlay.EXHAUSTED, on=True)

    assert before < purse.changes()
    purse.hold_back(rows)
    assert [(1_000_000, 10_000, 0, 0), (400_000, 2_000, 2, 0)] == rows.tolist()


def test_what_changed_since_is_all_that_is_said_again(board: MoneyBoard) -> None:
    """Told change by change, the rows are those that somebody new would be told."""
    chance, purse, rows = random.Random(5), _purse(board), np.zeros(2, OVERLAY)
    for turn in range(60):
        keys = np.array([9, SHOES] if turn % 20 < 10 else [SHOES, 9], np.uint64)
        if turn % 10 == 0:
            purse.bind(keys)
        if turn % 7 == 3:
            board.keys[5] = chance.choice([9, 0])
            board.header["generation"] += 1
        if chance.random() < 0.5:
            publish.pace(board, chance.choice([3, 5]), chance.randrange(1, 1_000_000), 5_000)
        if chance.random() < 0.5:
            on = chance.random() < 0.5
            publish.overlay(board, chance.choice([3, 5]), Overlay.EXHAUSTED, on=on)
        purse.hold_back(rows)
        fresh, other = np.zeros(2, OVERLAY), _purse(board)
        other.bind(keys)
        other.hold_back(fresh)

        assert fresh.tolist() == rows.tolist()


def test_a_purse_takes_what_was_granted(board: MoneyBoard) -> None:
    """Cost by cost up to the grant, not a nano more; a refusal says what was wanted."""
    purse = _purse(board)
    _lend(board, 25)
    taken = 0
    while purse.affords(3, SHOES, 10, NOW):
        purse.take(3, 10)
        taken += 1

    assert 2 == taken
    assert (20, 2, 10, 1) == (
        board.taken[0, 3], board.taken_units[0, 3], board.wanted[0, 3], board.refusals[0, 3]
    )  # fmt: skip
    assert purse.affords(3, SHOES, 5, NOW)


def test_a_purse_takes_as_many_units_as_were_granted(board: MoneyBoard) -> None:
    """Free impressions are counted as well."""
    purse = _purse(board)
    _lend(board, 100, units=1)
    assert purse.affords(3, SHOES, 0, NOW)
    purse.take(3, 0)

    assert not purse.affords(3, SHOES, 0, NOW)


@pytest.mark.parametrize("now_ms", [NOW - 1001, NOW + 1000], ids=["before", "after"])
def test_a_lease_has_its_time(board: MoneyBoard, now_ms: int) -> None:
    """No bid outside of the day and flight that the money is of."""
    purse = _purse(board)
    _lend(board, 100)

    assert not purse.affords(3, SHOES, 1, now_ms)
    assert purse.affords(3, SHOES, 1, NOW + 999)


def test_a_slot_of_another_line_item_is_refused(board: MoneyBoard) -> None:
    """A look-up from before the keys changed pays from nobody's budget."""
    purse = _purse(board)
    _lend(board, 100)
    board.keys[3] = 8

    assert not purse.affords(3, SHOES, 1, NOW)


def test_a_start_closes_the_purse_until_the_keeper_is_done(board: MoneyBoard) -> None:
    """A new process takes nothing of what its predecessor was lent."""
    _purse(board)
    _lend(board, 100)
    second = Purse(board, 0, lambda: 41)

    assert (False, 41) == (second.ready, board.worker["said"][0])
    assert not second.affords(3, SHOES, 1, NOW)
    board.keeper["incarnation"][0] = second.incarnation
    assert second.affords(3, SHOES, 1, NOW)


def test_a_resting_worker_answers(board: MoneyBoard) -> None:
    """It says its last sequence for each question once."""
    sequences = iter([0, 17, 99])
    purse = Purse(board, 0, lambda: next(sequences))
    purse.rest()
    board.keeper["asked"][0] = 5
    purse.rest()
    purse.rest()

    assert (5, 17) == (board.worker["answered"][0], board.worker["said"][0])


def test_a_file_that_is_no_money_board(tmp_path: Path) -> None:
    """Empty, short, foreign, cut off, or of an impossible size: refused with its place."""
    path = tmp_path / "money"
    for content in (b"", b"short", b"x" * 4096):
        path.write_bytes(content)
        with pytest.raises(StoreCorrupt, match="money"):
            MoneyBoard.open(path)
    whole = MoneyBoard.create(path, 1, 8).path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreCorrupt, match="bytes"):
        MoneyBoard.open(path)
    with pytest.raises(ConfigError, match="steps"):
        MoneyBoard.create(path, 1, 9)


# -- all interleavings -----------------------------------------------------------------------------
# A model of what the module's docstring says, one word a step: every order of steps of one keeper
# and one worker, with a kill of either before each of its steps, is walked.


class _World(NamedTuple):
    """One line item with a budget of BUDGET bids; the journal is how many bids were appended.

    lease, booked, free   the books; applied: how far the journal was read
    worker, keeper        the step that each does next, with what it remembers
    """

    free: int
    lease: int = 0
    booked: int = 0
    applied: int = 0
    journal: int = 0
    open: bool = False
    granted: int = 0
    taken: int = 0
    asked: int = 0
    answered: int = 0
    said: int = 0
    incarnation_w: int = 0
    incarnation_k: int = 0
    worker: tuple[str, int] = ("dead", 0)
    keeper: tuple[str, int] = ("born", 0)
    kills: int = 0


BUDGET, LEASE, KILLS, ROUNDS, STARTS = 3, 2, 2, 2, 3


def _worker_steps(w: _World) -> Iterator[_World]:
    step, memory = w.worker
    if step != "dead" and w.kills < KILLS:
        yield w._replace(worker=("dead", 0), kills=w.kills + 1)
    if step == "dead" and w.incarnation_w < STARTS:
        yield w._replace(worker=("said", 0), taken=0)
    elif step == "said":
        yield w._replace(worker=("incarnate", 0), said=w.journal)
    elif step == "incarnate":
        yield w._replace(worker=("rest", 0), incarnation_w=w.incarnation_w + 1)
    elif step == "rest":
        if w.incarnation_k == w.incarnation_w:
            yield w._replace(worker=("open?", 0))
        if w.asked != w.answered:
            yield w._replace(worker=("saying", w.asked))
    elif step == "open?":
        yield w._replace(worker=("granted?", 0) if w.open else ("rest", 0))
    elif step == "granted?":
        yield w._replace(worker=("append", 0) if w.taken < w.granted else ("rest", 0))
    elif step == "append":
        yield w._replace(worker=("take", 0), journal=w.journal + 1)
    elif step == "take":
        yield w._replace(worker=("rest", 0), taken=w.taken + 1)
    elif step == "saying":
        yield w._replace(worker=("answering", memory), said=w.journal)
    elif step == "answering":
        yield w._replace(worker=("rest", 0), answered=memory)


def _read(w: _World, until: int) -> _World:
    """Applies the journal; what no lease covers comes from the budget, or is overspend."""
    count = until - w.applied
    leased = min(count, w.lease)
    return w._replace(
        applied=until, booked=w.booked + count, lease=w.lease - leased,
        free=w.free - (count - leased),
    )  # fmt: skip


def _keeper_steps(w: _World) -> Iterator[_World]:
    step, memory = w.keeper
    if step != "born" and w.kills < KILLS:
        yield w._replace(keeper=("born", 0), kills=w.kills + 1)
    if w.applied < w.journal:
        yield _read(w, w.applied + 1)
    if step in ("born", "idle"):
        if w.incarnation_w != w.incarnation_k:
            yield w._replace(keeper=("shut", w.incarnation_w), open=False)
        elif w.asked < ROUNDS + KILLS:
            yield w._replace(keeper=("ask", 0), open=False)
    if step == "idle" and w.free > 0 and not w.open:
        lent = min(LEASE, w.free)
        yield w._replace(keeper=("raise", lent), free=w.free - lent, lease=w.lease + lent)
    if step == "raise":
        yield w._replace(keeper=("open", 0), granted=w.granted + memory)
    elif step == "open":
        yield w._replace(keeper=("idle", 0), open=True)
    elif step == "shut":
        yield w._replace(keeper=("starting", memory << 8 | w.said))
    elif step == "starting" and w.applied >= memory & 255:
        yield w._replace(keeper=("settle-start", memory >> 8), free=w.free + w.lease, lease=0)
    elif step == "settle-start":
        yield w._replace(keeper=("admit", memory), granted=w.taken)
    elif step == "admit":
        yield w._replace(keeper=("idle", 0), incarnation_k=memory)
    elif step == "ask":
        yield w._replace(keeper=("asking", 0), asked=w.asked + 1)
    elif step == "asking":
        if w.incarnation_w != w.incarnation_k:
            yield w._replace(keeper=("idle", 0))
        elif w.answered == w.asked:
            yield w._replace(keeper=("answered", w.said))
    elif step == "answered" and w.applied >= memory:
        yield w._replace(keeper=("settle", 0), free=w.free + w.lease, lease=0)
    elif step == "settle":
        yield w._replace(keeper=("idle", 0), granted=w.taken)


def test_no_interleaving_spends_twice() -> None:
    """Whatever the order of steps and kills: never more bids than budget, and none ungranted."""
    start = _World(BUDGET)
    seen, waiting = {start}, deque([start])
    delivered = 0
    while waiting:
        world = waiting.popleft()
        assert world.journal <= BUDGET, world
        assert world.free >= 0, world
        assert BUDGET == world.free + world.lease + world.booked, world
        delivered = max(delivered, world.booked)
        for found in (*_worker_steps(world), *_keeper_steps(world)):
            if found not in seen:
                seen.add(found)
                waiting.append(found)

    assert BUDGET == delivered
    assert 10_000 < len(seen)
