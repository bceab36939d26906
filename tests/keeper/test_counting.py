"""The count of impressions beside the books, while its Redis is away, silent, or has forgotten."""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from rtb.base.events import Kind, bid_id
from rtb.keeper import caps
from rtb.keeper.caps import Settings
from rtb.keeper.counting import RETRY_MS, Counting
from rtb.profiles import codec
from rtb.profiles.record import counts_key
from rtb.stores import counts_redis
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.counts_redis import RedisCounts
from rtb.stores.journal_write import Journal
from rtb.stores.profiles import Links, Shown
from tests.decide.test_caps import cap
from tests.decide.test_rules import image, line, snapshot
from tests.keeper.node import SIZES
from tests.keeper.test_caps import impression
from tests.stores.journals import COMPILED, Disk
from tests.stores.test_profiles_redis import Server, needs_redis

pytestmark = [pytest.mark.server, needs_redis]
PERSON = 77


class Asked(RedisCounts):
    """Remembers how often it was asked."""

    times = 0

    def positions(self, names: Sequence[str] | None = None) -> dict[str, int]:
        self.times += 1
        return super().positions(names)

    def count(self, *arguments: object) -> int:
        self.times += 1
        return super().count(*arguments)  # type: ignore[arg-type]


@dataclass
class Place:
    """A journal with impressions of one person, and who counts them."""

    server: Server
    store: Asked
    journal: Journal
    counting: Counting
    keys: tuple[int, int]
    shown: int = 0

    def show(self) -> None:
        """One more impression, durable when this returns."""
        self.shown += 1
        now_ms = time.time_ns() // 1_000_000  # keys end by the server's clock
        bid = bid_id(now_ms // 1000, 0, 0, self.shown)
        line_item, creative = self.keys
        body = impression(PERSON, bid, now_ms, creative, line_item=line_item)
        self.journal.append(Kind.IMPRESSION, body)
        self.journal.turn()

    def counted(self) -> int:
        """What Redis says of that person."""
        with redis.Redis.from_url(self.server.url, protocol=2) as raw:
            value = raw.get(counts_key(PERSON))
        counts = codec.decode_counts(value).counts if value is not None else {}
        return max((one.shown for one in counts.values()), default=0)


@pytest.fixture(name="place")
def place_fixture(tmp_path: Path) -> Iterator[Place]:
    server = Server(tmp_path)
    journal = Journal.open(tmp_path / "journals", 0, SIZES, COMPILED, Disk(salt=5).world())
    board = CapsBoard.create(tmp_path / "run" / "caps", 1, Sizes(4, 64))
    store = Asked(server.url)
    found = Counting(store, board, tmp_path / "journals", COMPILED, Settings())
    made = snapshot(image("c"), line("l", "c", **cap(50)))
    found.serve(made)
    keys = int(made["line_items"]["key"][0]), int(made["creatives"]["key"][0])
    place = Place(server, store, journal, found, keys)
    yield place
    server.kill()
    found.close()
    journal.close()
    store.close()


def test_a_store_that_is_not_there_yet(place: Place) -> None:
    """It is asked once a second, and then all is counted that came meanwhile."""
    place.server.kill()
    place.show()
    for number in range(10):
        assert 0 == place.counting.turn(100_000 + number * RETRY_MS // 10)
    assert 1 == place.store.times
    assert "counts: " in place.counting.fault
    assert {} == place.counting.positions()
    assert not place.counting.is_read()

    place.server.start()
    assert 1 == place.counting.turn(101_100)
    assert ("", 1, True) == (place.counting.fault, place.counted(), place.counting.is_read())
    assert {0: 1} == place.counting.positions()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_store_that_goes_and_returns(place: Place, number: int) -> None:
    """Nothing is counted twice, nothing left out; a silent one is asked once a second, too."""
    place.show()
    assert 1 == place.counting.turn(100_000)
    place.server.signal(number)
    place.show()
    asked = place.store.times
    for part in range(10):
        place.counting.turn(101_000 + part * RETRY_MS // 10)
    assert asked + 1 == place.store.times
    assert place.counting.fault
    assert ({0: 1}, False) == (place.counting.positions(), place.counting.is_read())

    if number == signal.SIGSTOP:
        place.server.signal(signal.SIGCONT)
    else:
        place.server.kill()
        place.server.start()
    now_ms = 103_000
    while place.counting.fault:
        place.counting.turn(now_ms)
        now_ms += RETRY_MS
    assert 2 == place.counted()


def test_a_slow_store_is_given_rests(place: Place) -> None:
    """After a turn of 300 ms nothing is asked for twice as long."""
    clock = iter(range(0, 100_000, 300))
    place.counting._steady_ms = lambda: next(clock)
    place.show()
    assert 1 == place.counting.turn(50_000)
    place.show()
    later = [place.counting.turn(50_000 + after_ms) for after_ms in (300, 600, 899, 900)]
    assert [0, 0, 0, 1] == later


def test_what_was_removed_uncounted_is_not_waited_for(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and what is there is counted."""
    place.show()
    place.counting.turn(100_000)
    place.show()
    place.show()
    place.counting.close()
    monkeypatch.setattr(caps, "first_sequence", lambda journals, worker: 3)
    assert 1 == place.counting.turn(101_000)
    assert "records 2 to 2 were never counted" in caplog.text
    assert ({0: 3}, "") == (place.counting.positions(), place.counting.fault)
    assert 2 == place.counted()


def test_a_store_that_forgot_is_counted_into_again(place: Place) -> None:
    """By the same process, from where the store says."""
    for _ in range(3):
        place.show()
    place.counting.turn(100_000)
    with redis.Redis.from_url(place.server.url, protocol=2) as raw:
        raw.flushall()
    place.show()
    place.counting.turn(101_000)
    assert "counts were lost" in place.counting.fault
    place.counting.turn(103_000)
    assert ("", 4) == (place.counting.fault, place.counted())


def test_a_transaction_without_an_answer_is_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done or not, the same batch is given again, and counts once."""

    def silent(
        store: RedisCounts, pipeline: redis.client.Pipeline, shown: Shown,
        positions: dict[str, int], links: Links,
    ) -> int:  # fmt: skip
        execute = pipeline.execute
        pipeline.execute = lambda: execute() and _no_answer()  # type: ignore[method-assign]
        return whole(store, pipeline, shown, positions, links)

    whole = counts_redis.RedisCounts._try
    place.show()
    place.counting.turn(100_000)
    with monkeypatch.context() as patch:
        patch.setattr(counts_redis.RedisCounts, "_try", silent)
        place.show()
        place.counting.turn(101_000)
    assert ("counts not written: no answer", 2) == (place.counting.fault, place.counted())
    place.counting.turn(103_000)
    place.show()
    place.counting.turn(104_000)
    assert ("", 3) == (place.counting.fault, place.counted())


def _no_answer() -> None:
    raise redis.TimeoutError("no answer")
