"""The compiled path against the reference: same answers, same counters, same records."""

import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.lent import LentMoney
from rtb._ext.path import Path as SwiftPath
from rtb.base.reasons import NoBid
from rtb.base.records import Dim, Privacy
from rtb.catalogue.tokens import token_hash
from rtb.exchanges.settings import Exchange
from rtb.profiles import codec, identity
from rtb.profiles.record import opts_out
from rtb.server import kernels, settings
from rtb.server.bid import Bidder, Endpoint, Reply, Serving
from rtb.stores.board import CONSENT_NONE, CONSENT_RECORD, STAGE_SAMPLE, Board, Outcome
from rtb.stores.profiles_lmdb import ProfileStore
from tests.decide import worlds
from tests.server.test_answers import unsigned
from tests.stores.test_opt_outs import deciding

PATIENT = settings.Bid(shed_after_ms=10_000)
LINE_ITEMS = 120
HOUR_MS = 3_600_000
OPTED_OUT = identity.user_key(b"generic", b"no")
# Times differ from run to run; how often they were taken does not.
TIMES = (
    "latency_us", "stages_us", "latency_sum_us", "stages_sum_us", "lookup_us", "lookup_sum_us",
    "gauges",
)  # fmt: skip


class Profiles:
    """Records by key, made up on first sight; None for every third key, and who has opted out."""

    def __init__(self) -> None:
        refusing = codec.encode(codec.Profile(opt_out=True))
        self._records: dict[bytes, bytes | None] = {OPTED_OUT: refusing}

    def find_key(self, keys: Sequence[bytes]) -> tuple[bytes | None, bytes | None]:
        """As `LocalProfiles.find_key`."""
        key = keys[0]
        if key not in self._records:
            chance = random.Random(key)
            self._records[key] = worlds.profile(chance) if chance.random() < 0.67 else None
        record = self._records[key]
        return record, None if record is None else key


class Side:
    """A bidder with its board and journal: with the compiled path, or without."""

    def __init__(
        self, folder: Path, exchange: Exchange, swift: bool, bid: settings.Bid = PATIENT,
        wall_ns: Callable[[], int] = time.time_ns, local: Any = None,
    ) -> None:  # fmt: skip
        folder.mkdir()
        self.board = Board.create(folder / "board", 1, 512)
        compiled = dataclasses.replace(kernels.compiled(), path=SwiftPath if swift else None)
        exchanges = {"generic": exchange}
        self.money = LentMoney(folder, exchanges, compiled, LINE_ITEMS, in_flight_ms=HOUR_MS)
        self.money.flush()
        meter = compiled.meter(self.board, 0)
        self.bidder = Bidder(
            bid,
            exchanges,
            compiled,
            meter,
            self.money,
            local=Profiles() if local is None else local,
            wall_ns=wall_ns,  # type: ignore[arg-type]
        )
        rates = settings.load_rates(settings.CONFIGS / "rates.toml")
        zones = settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS)
        self.bidder.price_by(rates, zones)
        snapshot = worlds.snapshot(3, LINE_ITEMS)
        engine = compiled.engine(snapshot, None)
        self.bidder.serve(Serving(snapshot, engine, snapshot.arrays, 1, "", ""))
        self.endpoint: Endpoint = self.bidder.endpoints[b"generic"]

    def answer(self, body: bytes, age_ns: int = 0) -> Reply:
        """Its answer to a body whose first byte came `age_ns` ago."""
        now_ns = time.monotonic_ns()
        found = self.bidder.answer(self.endpoint, body, 0, now_ns - age_ns, now_ns, _never)
        assert found is not None
        return found

    def is_swift(self, body: bytes) -> bool:
        """Whether the compiled path answers a body itself."""
        assert self.bidder.swift is not None
        now_ns = time.monotonic_ns()
        return self.bidder.swift.answer(self.endpoint, body, 0, now_ns, now_ns) is not None

    def counters(self) -> dict[str, list[int]]:
        """All counters that do not measure time."""
        column = self.board.columns[0]
        names = [name for name in column.dtype.names or () if name not in TIMES]
        found = {name: np.asarray(column[name]).ravel().tolist() for name in names}
        found |= {name: column[name].sum(axis=1).tolist() for name in TIMES[:2]}
        found["lookup_us"] = [int(column["lookup_us"].sum())]
        return found | {"funnel": self.board.funnel.ravel().tolist()}


def _wall_clock() -> Callable[[], int]:
    """A clock that begins in the first seconds of an hour: no window of a cap, and no hour that
    line items aim at, ends between the answers of a pair.
    """
    began_ns = (worlds.NOW_MS // HOUR_MS * HOUR_MS + 5_000) * 1_000_000 - time.monotonic_ns()
    return lambda: time.monotonic_ns() + began_ns


def _never(reply: Reply) -> None:
    raise AssertionError(f"answered later: {reply}")


@pytest.fixture(params=["204", "200"])
def sides(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Side, Side]]:
    """Both, for each style of saying no."""
    exchange = _exchange(request.param)
    wall_ns = _wall_clock()
    both = (
        Side(tmp_path / "swift", exchange, True, wall_ns=wall_ns),
        Side(tmp_path / "steps", exchange, False, wall_ns=wall_ns),
    )
    yield both
    for side in both:
        side.money.close()


def _exchange(no_bid: str) -> Exchange:
    return Exchange(
        name="generic", path="generic", no_bid=no_bid, tmax_ms_default=20_000,
        deadline_ms_max=10_000,
    )  # fmt: skip


def _bodies(seed: int, count: int) -> Iterator[bytes]:
    """Random requests, some of them odd."""
    chance = random.Random(seed)
    odd: list[Callable[[dict[str, object]], dict[str, object]]] = [
        lambda one: one | {"test": 1},
        lambda one: one | {"tmax": 1},
        lambda one: one | {"tmax": "60000"},  # no deadline ends within a slow test
        lambda one: one | {"regs": {"gdpr": 1}},
        lambda one: one | {"imp": []},
        lambda one: one | {"imp": "none"},
        lambda one: one | {"user": {"id": f"u{chance.randrange(5)}"}},
        lambda one: one | {"user": {"id": "no"}},
        lambda one: one | {"device": {"lmt": 1, "dnt": 1}},
    ]
    for number in range(count):
        request = worlds.request(chance) | {"id": f"r{number}"}
        if chance.random() < 0.3:
            request = chance.choice(odd)(request)
        yield json.dumps(request).encode()


@pytest.mark.parametrize("seed", range(3))
def test_path_answers_and_counts_as_the_steps(sides: tuple[Side, Side], seed: int) -> None:
    """Random requests, odd ones among them, are answered, counted and recorded alike."""
    swift, steps = sides
    statuses = set()
    for body in _bodies(seed, 300):
        expected = steps.answer(body)
        status, answer = swift.answer(body)
        statuses.add(status)

        assert (expected[0], unsigned(expected[1])) == (status, unsigned(answer))
    assert steps.counters() == swift.counters()
    assert steps.money.journal.last_sequence == swift.money.journal.last_sequence > 0
    assert {200, 400} <= statuses


SIGNALS: list[tuple[dict[str, object], Privacy]] = [
    ({"regs": {"gdpr": 1}}, Privacy.GDPR),
    ({"regs": {"gpp": "DBABMA"}}, Privacy.GPP),
    ({"regs": {"us_privacy": "1YYN"}}, Privacy.US_PRIVACY),
    ({"regs": {"coppa": 1}}, Privacy.COPPA),
    ({"device": {"lmt": 1}}, Privacy.LMT),
    ({"device": {"dnt": 1}}, Privacy.DNT),
    ({"regs": {"ext": {"gpc": "1"}}}, Privacy.GPC),
    ({"device": {"lmt": 1, "dnt": 1}, "regs": {"coppa": 1}}, Privacy(8 + 16 + 32)),
    ({}, Privacy(0)),
]


@pytest.mark.parametrize(("fields", "signals"), SIGNALS, ids=str)
def test_each_signal_is_counted(
    sides: tuple[Side, Side], fields: dict[str, object], signals: Privacy
) -> None:
    """Once a request that carries it, whoever the person is, by the path and by the steps."""
    request = {"imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "user": {"id": "no"}}
    for side in sides:
        for number in range(2 * STAGE_SAMPLE):
            side.answer(json.dumps(request | fields | {"id": f"r{number}"}).encode())
        side.answer(json.dumps(request | fields | {"id": "test", "test": 1}).encode())
        side.answer(b'{"id":"one"')
        consent = side.board.total("consent").tolist()
        expected = [0] * len(consent)
        for signal in signals:
            expected[int(signal).bit_length() - 1] = 2 * STAGE_SAMPLE
        expected[CONSENT_RECORD] = 0 if signals else 2 * STAGE_SAMPLE

        assert expected == consent


def test_a_request_without_signals_is_counted(sides: tuple[Side, Side]) -> None:
    """Where neither it nor the person's record says no."""
    request = {"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}]}
    for side in sides:
        side.answer(json.dumps(request).encode())

        assert [CONSENT_NONE] == np.flatnonzero(side.board.total("consent")).tolist()


def test_path_takes_the_usual_and_hands_back_the_rest(tmp_path: Path) -> None:
    """Most requests are usual; tests, what cannot be read and what is too late are not."""
    side = Side(tmp_path / "swift", _exchange("204"), True)
    taken = [side.is_swift(body) for body in _bodies(9, 4 * STAGE_SAMPLE)]
    request = worlds.request(random.Random(1)) | {"id": "one"}
    unusual = [
        json.dumps(request | {"test": 1}).encode(),
        json.dumps(request | {"tmax": 1}).encode(),
        b'{"id":"one"',
    ]

    assert sum(taken) > len(taken) / 2
    assert [False, False, False] == [side.is_swift(body) for body in unusual]
    side.money.close()


def test_path_hands_back_while_the_journal_takes_nothing(tmp_path: Path) -> None:
    """With a journal that is not writable no bid is paid; the reference says why."""
    side = Side(tmp_path / "swift", _exchange("200"), True)
    side.money.journal.writable = side.money.writable = False
    status, body = side.answer(json.dumps(worlds.request(random.Random(1))).encode())

    assert (200, NoBid.PAID_BIDDING_STOPPED.nbr) == (status, json.loads(body)["nbr"])
    side.money.close()


def test_whatever_is_late_is_no_bid_and_counted_once(tmp_path: Path) -> None:
    """With any part of the time used up before, each request ends once: in a bid or late."""
    bid = settings.Bid(shed_after_ms=10_000, late_ms=0, bid_min_ms=0, profile_min_ms=0)
    side = Side(tmp_path / "swift", _exchange("204"), True, bid)
    budget_ns = side.endpoint.budget_ns(0)
    statuses = [
        side.answer(body, budget_ns - number * 1_000)[0]
        for number, body in enumerate(_bodies(4, 400))
    ]
    requests = side.board.total("requests")

    assert {200, 204, 400} >= set(statuses)
    assert len(statuses) == requests.sum()
    assert requests[0, Outcome.LATE] > 0
    side.money.close()


def _named(body: dict[str, Any], keys: Sequence[bytes]) -> bytes:
    """A request that carries ids, given by their keys."""
    user: dict[str, Any] = {}
    device: Any = body["device"]
    body = body | {"user": user}
    eids: dict[str, list[dict[str, str]]] = {}
    for key in keys:
        kind, _, rest = key.decode().partition(":")
        if kind == "b":
            user["buyeruid"] = rest
        elif kind == "u":
            user["id"] = rest.partition(":")[2]
        elif kind == "i":
            body["device"] = device | {"ifa": rest}
        else:
            source, _, one = rest.partition(":")
            eids.setdefault(source, []).append({"id": one})
    user["eids"] = [{"source": source, "uids": uids} for source, uids in eids.items()]
    return json.dumps(body).encode()


def test_a_no_under_any_id_is_as_a_single_one(tmp_path: Path) -> None:
    """Random records under random ids: both paths decide for whom the oracle names; where one says
    no, as for a person with that id alone, and nothing is counted for anybody.
    """
    chance, wall_ns, ends = random.Random(8), _wall_clock(), Counter[bool]()
    ids, far, refusing = [b"b:1", b"u:generic:2", b"i:3", b"e:y.com:4"], b"b:far", b"b:no"
    no = codec.encode(codec.Profile(opt_out=True))
    with ProfileStore.open(tmp_path / "profiles", readonly=False) as store:
        store.put_many([(refusing, no)])
        swift, steps, alone = (
            Side(tmp_path / name, _exchange("204"), name != "steps", wall_ns=wall_ns, local=store)
            for name in ("swift", "steps", "alone")
        )
        for number in range(150):
            values = [None, None, no, *map(codec.encode_link, (far, b"b:1")),
                      *(worlds.profile(chance) for _ in range(4))]  # fmt: skip
            stored = {key: value for key in (*ids, far) if (value := chance.choice(values))}
            store.put_many([(key, stored.get(key)) for key in (*ids, far)])
            keys = [key for key in ids if chance.random() < 0.6] or ids[:1]
            request = worlds.request(chance) | {"id": f"r{number}", "regs": {}}
            expected = steps.answer(_named(request, keys))
            status, answer = swift.answer(_named(request, keys))
            record, key = deciding(stored, keys)
            assert (expected[0], unsigned(expected[1])) == (status, unsigned(answer))
            persons = {steps.money.caps.person, swift.money.caps.person}
            if record is not None and opts_out(record):
                single = alone.answer(_named(request, [refusing]))
                assert (single[0], unsigned(single[1])) == (status, unsigned(answer))
                assert {0} == persons
                ends[True] += status == 200
            elif key is not None:
                assert {token_hash(int(Dim.PERSON), key)} == persons
                ends[False] += status == 200
        for side in (swift, steps, alone):
            side.money.close()
    assert min(ends[True], ends[False]) > 10
