"""The bid path in one process: what it counts of what the core found."""

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.lent import LentMoney
from rtb.base.events import BID, Kind
from rtb.base.reasons import Reject
from rtb.exchanges.settings import Exchange
from rtb.keeper import tally
from rtb.pacing.goal import Mode
from rtb.server import kernels, metrics_money, settings
from rtb.server.bid import Bidder, Endpoint, Reply, Serving
from rtb.stores.board import FUNNEL_FIRST_REASON, FUNNEL_SAMPLE, Board
from rtb.stores.caps_table import CapsTable
from rtb.stores.journal import READABLE
from rtb.stores.journal_kept import Records, kept_in
from rtb.stores.profiles import CountsAnswer, Lookup
from tests.decide import worlds

PATIENT = settings.Bid(shed_after_ms=10_000)
EXCHANGE = Exchange(name="generic", path="generic", tmax_ms_default=20_000, deadline_ms_max=10_000)
HOPELESS = Reject.BELOW_SHORTLIST


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board for one worker."""
    return Board.create(tmp_path / "board", 1, 512)


@pytest.fixture
def answer(board: Board, tmp_path: Path) -> Callable[[bytes], Reply]:
    """Answers a body with a catalogue of many line items that are seldom good enough."""
    compiled = kernels.load()
    snapshot = worlds.snapshot(3, 400)
    exchanges = {"generic": EXCHANGE}
    money = LentMoney(tmp_path, exchanges, compiled, 400)
    bidder = Bidder(PATIENT, exchanges, compiled, compiled.meter(board, 0), money)
    rates = settings.load_rates(settings.CONFIGS / "rates.toml")
    bidder.price_by(rates, settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS))
    bidder.serve(Serving(snapshot, compiled.engine(snapshot, None), snapshot.arrays, 1, "", ""))
    endpoint = bidder.endpoints[b"generic"]

    def reply(body: bytes) -> Reply:
        now_ns = time.monotonic_ns()
        found = bidder.answer(endpoint, body, 0, now_ns, now_ns, lambda _: None)
        assert found is not None
        return found

    return reply


def test_the_funnel_looks_at_all(answer: Callable[[bytes], Reply], board: Board) -> None:
    """Requests sampled for the funnel look at everybody; the others leave out who cannot win."""
    chance = random.Random(1)
    statuses = set()
    for number in range(20 * FUNNEL_SAMPLE):
        request = worlds.request(chance) | {"id": f"r{number}"}
        statuses.add(answer(json.dumps(request).encode())[0])

    assert {200, 204} == statuses
    assert board.total("rejects")[HOPELESS] > 0
    assert np.sum(board.funnel[0]) > 0
    assert 0 == np.sum(board.funnel[0, :, HOPELESS - FUNNEL_FIRST_REASON])


@pytest.mark.parametrize(
    "exchange",
    settings.load_exchanges(settings.CONFIGS / "exchanges").values(),
    ids=lambda one: one.name,
)
def test_every_shipped_exchange_leaves_time_to_bid(exchange: Exchange) -> None:
    """Where nothing is said of the time, a request has ten milliseconds at least."""
    assert Endpoint(0, exchange).budget_ns(0) >= 10_000_000


def test_metrics_name_the_modes_of_pacing() -> None:
    """The data plane has its own list of modes, since it does not know the package: the same."""
    assert tuple(mode.name.lower() for mode in Mode) == metrics_money.PACING_MODES


def test_metrics_say_how_long_notices_are_remembered() -> None:
    """As long as the keeper does, which the data plane does not know either."""
    assert tally.REMEMBER_S == metrics_money.REMEMBER_S


class Far:
    """A store over the network: what it is asked for waits until it is told to answer."""

    def __init__(self) -> None:
        self.waiting: list[CountsAnswer] = []
        self.up = True

    def find_counts(self, keys: Sequence[bytes], deadline_ns: int, answer: CountsAnswer) -> None:
        """As `RemoteProfiles.find_counts`."""
        if self.up:
            self.waiting.append(answer)
        else:
            answer(Lookup.DOWN, None, None, [])


def test_every_look_up_over_the_network_is_timed(board: Board, tmp_path: Path) -> None:
    """From asking to the answer; one that was not sent took no time and is none."""
    now_ns = [time.monotonic_ns()]
    compiled, exchanges, far = kernels.load(), {"generic": EXCHANGE}, Far()
    snapshot = worlds.snapshot(3, 40)
    bidder = Bidder(
        PATIENT, exchanges, compiled, compiled.meter(board, 0),
        LentMoney(tmp_path, exchanges, compiled, 40), remote=far,  # type: ignore[arg-type]
        monotonic_ns=lambda: now_ns[0],
    )  # fmt: skip
    bidder.serve(Serving(snapshot, compiled.engine(snapshot, None), snapshot.arrays, 1, "", ""))
    replies: list[Reply] = []

    def ask() -> Reply | None:
        body = json.dumps(worlds.request(random.Random(1)) | {"user": {"id": "u"}, "regs": {}})
        return bidder.answer(
            bidder.endpoints[b"generic"], body.encode(), 0, now_ns[0], now_ns[0], replies.append
        )

    for lookup in (Lookup.MISS, Lookup.TIMEOUT):
        assert ask() is None
        now_ns[0] += 2_000_000
        far.waiting.pop()(lookup, None, None, [])
    far.up = False

    assert ask() is not None
    assert (2, 4_000) == (board.total("lookup_us").sum(), board.total("lookup_sum_us"))
    assert (2, 3) == (len(replies), board.total("lookups").sum())


@pytest.mark.parametrize("lookup", Lookup)
def test_nobody_is_named_whom_the_store_did_not_answer_for(
    board: Board, tmp_path: Path, lookup: Lookup
) -> None:
    """He may have opted out: no hash of his, no link of his ids, and nothing that has caps."""
    inflight_max = 0 if lookup is Lookup.BUSY else 1
    patient = settings.Bid(shed_after_ms=10_000, inflight_max=inflight_max)
    persons, links, capped = _bids_for_many(board, tmp_path, patient, lookup)
    assert lookup.transient == (persons == {0})
    assert lookup.transient == (links == 0)
    assert lookup.transient == (capped == 0)


def test_nobody_is_named_who_was_not_looked_up(board: Board, tmp_path: Path) -> None:
    """Without the time for a look-up bids go on, for nobody, and without what has caps."""
    hurried = settings.Bid(shed_after_ms=10_000, profile_min_ms=10_000)
    assert ({0}, 0, 0) == _bids_for_many(board, tmp_path, hurried, Lookup.HIT)


def _bids_for_many(
    board: Board, folder: Path, chosen: settings.Bid, lookup: Lookup
) -> tuple[set[int], int, int]:
    """As `_named`, of 150 requests of people of whom a remote store says the same."""
    compiled, exchanges, far = kernels.load(), {"generic": EXCHANGE}, Far()
    snapshot = worlds.snapshot(3, 200)
    money = LentMoney(folder, exchanges, compiled, 200)
    bidder = Bidder(
        chosen, exchanges, compiled, compiled.meter(board, 0), money,
        remote=far,  # type: ignore[arg-type]
    )  # fmt: skip
    rates = settings.load_rates(settings.CONFIGS / "rates.toml")
    bidder.price_by(rates, settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS))
    bidder.serve(Serving(snapshot, compiled.engine(snapshot, None), snapshot.arrays, 1, "", ""))
    money.caps.refresh(time.time_ns() // 1_000_000)
    chance, device = random.Random(1), {"ifa": "6d92078a-8246-4ba4-ae5b-76104861e7dc"}
    for number in range(150):
        person = {"user": {"buyeruid": f"u{number}"}, "device": device, "regs": {}}
        body = json.dumps(worlds.request(chance) | person).encode()
        now_ns = time.monotonic_ns()
        bidder.answer(bidder.endpoints[b"generic"], body, 0, now_ns, now_ns, lambda _: None)
        while far.waiting:
            far.waiting.pop()(lookup, None, None, [])
    money.flush()
    return _named(folder / "journals", CapsTable.of(snapshot.arrays))


def _named(journals: Path, table: CapsTable) -> tuple[set[int], int, int]:
    """Persons of the bids of a journal; how many links it has, and bids that have caps."""
    persons, links, capped = set(), 0, 0
    for kept in kept_in(journals, READABLE):
        for _, kind, body in Records(journals, kept, kept.last, READABLE):
            links += kind == Kind.LINK
            if kind == Kind.BID:
                claims = np.frombuffer(body, BID)[0]["claims"]
                persons.add(int(claims["person"]))
                keys = int(claims["line_item"]), int(claims["creative"])
                capped += any(table.of_key(key) for key in keys)
    return persons, links, capped
