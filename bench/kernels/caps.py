"""Frequency caps on the bid path, and how fast the keeper counts for them."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.kernels.line import measure, show
from rtb._ext.caps import Caps
from rtb.base.events import CLAIMS_VERSION, NOTICE, Kind, bid_id
from rtb.base.hashing import mix64, token_hash
from rtb.base.records import Dim
from rtb.keeper.caps import CapsKeeper, Stretch
from rtb.profiles.codec import Profile, encode
from rtb.profiles.identity import buyer_key
from rtb.stores.caps import Limits
from rtb.stores.caps_board import WAYS, CapsBoard
from rtb.stores.caps_table import CapsTable
from rtb.stores.counts_lmdb import CountsStore
from rtb.stores.profiles_lmdb import ProfileStore

Call = Callable[[], object]
T = 1_790_000_000
PEOPLE, COUNTED = 100_000, 50_000
TURNS, BATCH = 20, 2_500
CROWD = 2_000  # with bids in flight
LINE, CREATIVE = 11, 12
TABLE = CapsTable(
    np.array([LINE, CREATIVE], np.uint64), np.array([0, 3]), np.array([3, 1]),
    np.array([mix64(cap) for cap in range(1, 5)], np.uint64), np.array([3600, 86_400, 0, 60]),
    np.full(4, 1_000),
)  # fmt: skip


def _records(first: int, keys: list[bytes], persons: list[int]) -> list[tuple[int, int, bytes]]:
    """Journal records of impressions, of persons by chance."""
    chance = np.random.default_rng(first)
    rows = np.zeros(BATCH, NOTICE)
    rows["claims"]["version"] = CLAIMS_VERSION
    rows["claims"]["line_item"], rows["claims"]["creative"] = LINE, CREATIVE
    rows["claims"]["person"] = np.array(persons, np.uint64)[chance.integers(0, COUNTED, BATCH)]
    rows["claims"]["bid"] = [bid_id(T, 0, 0, number % 65_536) + (number >> 16 << 32)
                             for number in range(first, first + BATCH)]  # fmt: skip
    rows["time_ms"] = T * 1000
    return [(first + n, int(Kind.IMPRESSION), row.tobytes()) for n, row in enumerate(rows)]


def _count(keeper: CapsKeeper, keys: list[bytes], persons: list[int]) -> list[float]:
    """CPU nanoseconds a record, one value a turn; every turn ends on the disk."""
    found = []
    for turn in range(TURNS):
        records = _records(1 + turn * BATCH, keys, persons)
        start_ns = time.thread_time_ns()
        last = (turn + 1) * BATCH
        keeper.apply([Stretch("0/0/0000000000000007", last - BATCH, last, records)])
        found.append((time.thread_time_ns() - start_ns) / BATCH)
    return found


def _reads(store: ProfileStore, caps: Caps, order: list[bytes]) -> Iterator[tuple[str, Call]]:
    """The look-up without and with the key, and all of it with the caps."""
    keys = itertools.cycle([[key] for key in order])
    three = itertools.cycle([[key, b"u:exchange:" + key, b"i:" + key * 4] for key in order])

    def whole(kind: Iterator[list[bytes]]) -> Call:
        def call() -> object:
            one = next(kind)
            record, key = store.find_key(one)
            return caps.view(one, key, record, T * 1000 + 500)

        return call

    yield "find", lambda: store.find(next(keys))
    yield "find_key", lambda: store.find_key(next(keys))
    yield "find_key_view", whole(keys)
    yield "find_key_view_3_keys", whole(three)


def _in_flight(caps: Caps, counted: list[bytes], others: list[bytes], now_ms: int) -> None:
    """The caps of people with bids in flight, and what a bid costs that has no place left."""
    made = itertools.count(bid_id(T + 1, 0, 0, 0))
    flying = 0
    for most in (1, WAYS):
        for _ in range(most - flying):
            for key in (*counted, *others):
                caps.bid(token_hash(Dim.PERSON, key), next(made), LINE, CREATIVE, now_ms)
        flying = most
        for who, order in (("others", others), ("counted", counted)):
            keys = itertools.cycle([[key] for key in order])

            def view(keys: Iterator[list[bytes]] = keys) -> object:
                return caps.view(next(keys), None, None, now_ms)

            show(f"caps_view_{flying}_in_flight_{who}", measure(view, 10_000))
    full = itertools.cycle([token_hash(Dim.PERSON, key) for key in others])
    show("caps_bid_refused",
         measure(lambda: caps.bid(next(full), 1, LINE, CREATIVE, now_ms), 10_000))  # fmt: skip


def main() -> None:
    """Prints a JSON line a figure."""
    chance = np.random.default_rng(7)
    keys = [buyer_key(b"u%030d" % number) for number in range(PEOPLE)]
    persons = [token_hash(Dim.PERSON, key) for key in keys[:COUNTED]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        record = encode(Profile(segments=list(range(1, 9)), items=dict.fromkeys(range(1, 13), 1)))
        board = CapsBoard.create(path / "caps", 2)
        with ProfileStore.open(path, readonly=False) as writer:
            writer.load((key, record) for key in keys)
            board.worker["identity"] = 7
            keeper = CapsKeeper(CountsStore(writer), board, TABLE)
            for _ in range(512):
                keeper.tidy(T)
            rounds = _count(keeper, keys, persons)
            show("caps_keeper_record", rounds[1:], batch=BATCH, people=COUNTED)
        with ProfileStore.open(path) as store:
            caps = Caps(board, 0, 0, 7, Limits(), store.counts)
            caps.serve(TABLE)
            caps.refresh(T * 1000, store.refresh)
            counted = [keys[n] for n in chance.permutation(COUNTED)[:20_000]
                       if store.counts(persons[n])]  # fmt: skip
            others = [keys[COUNTED + n] for n in chance.permutation(PEOPLE - COUNTED)[:20_000]]
            one, now_ms = others[0], T * 1000 + 500
            show("caps_view_nothing",
                 measure(lambda: caps.view([one], one, record, now_ms), 20_000))  # fmt: skip
            for who, order in (("others", others), ("counted", counted)):
                for kind, call in _reads(store, caps, order):
                    show(f"caps_{kind}_{who}", measure(call, 10_000), people=PEOPLE)
            _in_flight(caps, counted[:CROWD], others[:CROWD], now_ms)
            bids = itertools.count(bid_id(T, 0, 0, 0))
            some = itertools.cycle(persons)

            def bid() -> None:
                person, number = next(some), next(bids)
                caps.bid(person, number, LINE, CREATIVE, now_ms)
                caps.lost(person, number, now_ms)

            show("caps_bid_and_lost", measure(bid, 10_000))
            show("caps_refresh", measure(lambda: caps.refresh(now_ms, store.refresh), 2_000))


if __name__ == "__main__":
    main()
