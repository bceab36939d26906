"""The board: counters that all processes see, and the pen that writes them."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb._ext.meter import Meter as Compiled
from rtb.base.errors import StoreCorrupt
from rtb.base.records import Decision
from rtb.stores.board import (
    BUCKETS,
    CONSENT_NONE,
    CONSENT_RECORD,
    FUNNEL_BID,
    FUNNEL_FIRST_REASON,
    PRICE_BOUNDS_MICROS,
    PRICE_BUCKETS,
    Board,
    Gauge,
    Http,
    Meter,
    Outcome,
    bucket_of,
    bucket_start_us,
    price_bucket_of,
)


def _decision(chance: random.Random) -> Decision:
    decision = Decision()
    data = decision.data[0]
    data["head"]["eligible_count"] = chance.randrange(50)
    data["head"]["scored_count"] = chance.randrange(50)
    data["head"]["contextual"] = chance.randrange(2)
    data["head"]["opted_out"] = chance.randrange(2)
    drops, bids = chance.randrange(20), chance.randrange(5)
    for number in range(drops):
        data["drops"][number] = (chance.randrange(40), -1, 0, chance.choice([5, 64, 73, 120]))
    for number in range(bids):
        data["bids"][number]["line_item"] = chance.randrange(40)
        data["bids"][number]["media"] = chance.randint(1, 4)
        data["bids"][number]["price_micros"] = chance.randrange(10**7)
        data["bids"][number]["chosen"] = chance.randrange(2)
    data["head"]["drops_count"], data["head"]["bids_count"] = drops, bids
    return decision


def test_pens_write_the_same_columns(tmp_path: Path) -> None:
    """The compiled and the readable pen leave the same counts, histograms and funnel."""
    boards = [Board.create(tmp_path / name, 2, 32) for name in ("slow", "fast")]
    pens = [Meter(boards[0], 1), Compiled(boards[1], 1)]
    for pen in pens:
        chance = random.Random(7)
        for _ in range(200):
            duration = chance.choice([-5, 0, 3, 900, 10**7, 10**12])
            exchange, outcome, nobid = (chance.randrange(most) for most in (3, 6, 14))
            pen.request(exchange, outcome, nobid, 33, duration)
            found = chance.choice([None, _decision(chance)])
            lookup, signals = chance.randint(-1, 5), chance.choice((-1, 0, 0, 1, 64, 127))
            pen.request(exchange, outcome, 0, 0, 5, lookup, found, True, signals)
            pen.decision(chance.randrange(3), _decision(chance), chance.random() < 0.5)
            pen.looked_up(chance.choice((-1, 7, 10**4)))
            pen.stage(chance.randrange(5), chance.randrange(10**6))
            pen.lookup(chance.randrange(6))
            pen.http(chance.randrange(9))
        pen.gauge(Gauge.PID, 42)

    np.testing.assert_array_equal(boards[0].columns, boards[1].columns)
    np.testing.assert_array_equal(boards[0].funnel, boards[1].funnel)
    assert 0 < boards[0].funnel[1, :, FUNNEL_BID - FUNNEL_FIRST_REASON].sum()
    assert 0 == boards[0].funnel[0].sum()
    assert not boards[0].columns["requests"][0].any()


def _bid(price_micros: int) -> Decision:
    decision = Decision()
    decision.data[0]["head"]["bids_count"] = 1
    decision.data[0]["bids"][0]["chosen"] = 1
    decision.data[0]["bids"][0]["price_micros"] = price_micros
    return decision


@pytest.mark.parametrize("pen", [Meter, Compiled])
def test_prices_fall_into_their_buckets(tmp_path: Path, pen: type[Meter]) -> None:
    """A price that is a bound is below it, as the text format has it; bids too late are no bids."""
    board = Board.create(tmp_path / "board", 1, 8)
    meter = pen(board, 0)
    prices = [0, 1, *PRICE_BOUNDS_MICROS, *(one + 1 for one in PRICE_BOUNDS_MICROS)]
    for price in prices:
        meter.request(2, Outcome.BID, 0, 0, 5, decision=_bid(price))
        meter.request(2, Outcome.LATE, 0, 0, 5, decision=_bid(price))

    assert [3] + [2] * (PRICE_BUCKETS - 2) + [1] == board.total("bid_prices")[2].tolist()
    assert PRICE_BUCKETS == len(PRICE_BOUNDS_MICROS) + 1
    assert 0 == price_bucket_of(PRICE_BOUNDS_MICROS[0])
    assert sum(prices) == board.total("bid_price_micros")[2]
    assert len(prices) == board.total("bids")[2].sum()


@pytest.mark.parametrize("pen", [Meter, Compiled])
def test_who_says_no_is_counted(tmp_path: Path, pen: type[Meter]) -> None:
    """Every signal of a request, the record's, or none; nothing of what nobody could read."""
    board = Board.create(tmp_path / "board", 1, 8)
    meter = pen(board, 0)
    refusing = Decision()
    refusing.data[0]["head"]["opted_out"] = 1
    for signals in (0, 0, 0b101):
        meter.request(0, Outcome.NOBID, 1, 0, 5, signals=signals)
    meter.request(0, Outcome.NOBID, 1, 0, 5, decision=refusing, signals=0)
    meter.request(0, Outcome.BAD, 1, 0, 5)
    consent = board.total("consent").tolist()

    assert (1, 0, 1) == tuple(consent[:3])
    assert (2, 1) == (consent[CONSENT_NONE], consent[CONSENT_RECORD])
    assert 5 == sum(consent)


def test_another_process_sees_the_counts(tmp_path: Path) -> None:
    """A board opened again shows what the first one wrote."""
    board = Board.create(tmp_path / "run" / "board", 1, 8)
    Compiled(board, 0).request(2, Outcome.BID, 0, 0, 150)
    Compiled(board, 0).http(Http.LANE)
    again = Board.open(tmp_path / "run" / "board")

    assert 1 == again.total("requests")[2, Outcome.BID]
    assert 1 == again.total("http")[Http.LANE]


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 4096])
def test_a_file_that_is_no_board_is_refused(tmp_path: Path, damage: bytes) -> None:
    """An empty, short or foreign file raises and is not written to."""
    path = tmp_path / "board"
    path.write_bytes(damage)

    with pytest.raises(StoreCorrupt):
        Board.open(path)


def test_a_pen_for_a_worker_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A column outside the board would be somebody else's memory."""
    with pytest.raises(IndexError):
        Compiled(Board.create(tmp_path / "board", 1, 8), 1)


@given(st.integers(0, 2**21))
def test_buckets_bound_the_error(us: int) -> None:
    """A duration lies in its bucket, whose width is at most an eighth of where it starts."""
    bucket = bucket_of(us)
    low, high = bucket_start_us(bucket), bucket_start_us(bucket + 1)

    assert low <= us
    assert us < high or bucket == BUCKETS - 1
    assert high - low <= max(low / 8, 1)
