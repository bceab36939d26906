"""The commit step, both twins: what is paid, recorded and signed, and what is not."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtb._ext.caps import Caps as CompiledCaps
from rtb._ext.commit import Commit as CompiledCommit
from rtb._ext.engine import Engine
from rtb._ext.notices import Signer as CompiledSigner
from rtb.base.errors import StoreError
from rtb.base.events import BID, ClaimFlag, Kind, bid_time_s, cost_nanos
from rtb.base.links import Sheets
from rtb.base.reasons import Reject
from rtb.base.records import Decision, Opportunity
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.notices.tokens import Keyring, Signer, opened
from rtb.server import settings
from rtb.server.commit import Commit, Payment
from rtb.stores.board_money import MoneyBoard, Purse
from rtb.stores.caps import Caps
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.caps_table import CapsTable
from tests.decide import worlds

RATES = settings.load_rates(settings.CONFIGS / "rates.toml")
ZONES = settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS)
EXCHANGE = Exchange(name="generic", path="generic")
TERMS = settings.terms_of(EXCHANGE, RATES, ZONES, 1000, 1)
PAYMENT = Payment(EXCHANGE.claim_key, 1, RATES)
KEYS = Keyring(3, {3: b"a secret of sixteen bytes"})
NOW_MS = worlds.NOW_MS
PLENTY = 1 << 50
TWINS = {
    "readable": (Commit, Signer, Caps),
    "compiled": (CompiledCommit, CompiledSigner, CompiledCaps),
}


class Till:
    """A commit step over a world, with a board and a journal to look at."""

    def __init__(self, folder: Path, name: str, seed: int = 1, not_before_s: int = 0) -> None:
        self.snapshot = worlds.snapshot(seed, 80)
        self.engine = Engine(self.snapshot)
        keys = self.snapshot["line_items"]["key"]
        self.board = MoneyBoard.create(folder / f"money-{name}", 1, 80)
        self.board.keys[: len(keys)] = keys
        self.board.header["generation"] += 1
        purse = Purse(self.board, 0, lambda: 0)
        self.board.keeper["incarnation"][0] = purse.incarnation
        self.records: list[tuple[int, bytes]] = []
        self.full = False
        commit, signer, caps = TWINS[name]
        self.caps_board = CapsBoard.create(folder / f"caps-{name}", 1, Sizes(16, 64))
        self.caps_board.header["ready"] = 1
        self.caps: Any = caps(self.caps_board, 0, 5, 7, stored=lambda person: None)
        self.caps.serve(CapsTable.of(self.snapshot.arrays))
        self.caps.refresh(NOW_MS)
        self.commit: Any = commit(
            purse, self.append, signer(KEYS), KEYS, 5, 0, not_before_s, self.caps
        )
        self.commit.serve(self.snapshot.arrays)
        self.opportunity, self.decision, self.sheets = Opportunity(), Decision(), Sheets()

    def append(self, kind: int, body: bytes) -> int:
        if self.full:
            raise StoreError("the disk is full")
        self.records.append((kind, body))
        return len(self.records)

    def lend(self, slots: Any = slice(None), nanos: int = PLENTY, units: int = 1000) -> None:
        board = self.board
        board.from_ms[0, slots], board.until_ms[0, slots] = NOW_MS - 1000, NOW_MS + 10_000
        board.granted[0, slots] += nanos
        board.granted_units[0, slots] += units

    def bid(
        self,
        request: dict[str, Any],
        flags: int = 0,
        now_ms: int = NOW_MS,
        key: bytes | None = None,
    ) -> int | None:
        """How many bids go out; None when nobody was chosen.

        key: of somebody without a record, whose caps are seen; None: of one whose are not
        """
        decode(json.dumps(request).encode(), EXCHANGE, self.opportunity)
        record = None if key is None else self.caps.view([key], None, None, now_ms)
        person = 7 if key is None else self.caps.person
        self.engine.decide(self.opportunity, record, TERMS, None, now_ms, self.decision)
        if self.decision.data["head"]["nobid"][0]:
            return None
        return int(
            self.commit.pay(
                self.opportunity, self.decision, self.engine, PAYMENT, person, flags, now_ms,
                self.sheets,
            )
        )  # fmt: skip

    def chosen(self) -> list[int]:
        bids = self.decision.data["bids"][0, : self.decision.data["head"]["bids_count"][0]]
        return [int(number) for number in np.flatnonzero(bids["chosen"])]

    def drops(self) -> list[Any]:
        drops = self.decision.data["drops"][0, : self.decision.data["head"]["drops_count"][0]]
        return drops.tolist()

    def bodies(self) -> list[np.void]:
        return [np.frombuffer(body, BID)[0] for _, body in self.records]


@pytest.fixture(params=list(TWINS))
def till(request: pytest.FixtureRequest, tmp_path: Path) -> Till:
    """Each twin in turn."""
    return Till(tmp_path, request.param)


def requests(count: int, seed: int = 3) -> list[dict[str, Any]]:
    """Requests of a world that somebody bids on."""
    chance = random.Random(seed)
    found = []
    while len(found) < count:
        request = worlds.request(chance)
        request.pop("test", None)
        found.append(request)
    return found


def first_bid(till: Till, flags: int = 0) -> dict[str, Any]:
    """Offers requests until one is bid on; that request."""
    for request in requests(200):
        if till.bid(request, flags):
            return request
    raise AssertionError("no request of this world is bid on")


def test_what_goes_out_is_paid_recorded_and_signed(till: Till) -> None:
    """Each bid that goes out is charged to its lease, and its record says what its claims say."""
    till.lend()
    first_bid(till)
    bids = till.decision.data["bids"][0]

    assert len(till.chosen()) == len(till.records)
    for number, (kind, data) in zip(till.chosen(), till.records, strict=True):
        body = np.frombuffer(data, BID)[0]
        claims = body["claims"]
        assert Kind.BID == kind
        assert (EXCHANGE.claim_key, 7, 3) == (claims["exchange"], claims["person"], claims["key"])
        assert bids[number]["price_micros"] == claims["price_micros"]
        assert body["reserve_nanos"] == cost_nanos(
            int(claims["price_micros"]), int(claims["rate_e9"])
        )
        assert NOW_MS // 1000 == bid_time_s(int(claims["bid"]))
        sheet = till.sheets.sheet(number)
        assert claims.tobytes() == opened(sheet[: 96 + 11], 0, KEYS)
        assert till.sheets.data[number]["bid"] == claims["bid"]
    assert int(till.board.taken.sum()) == sum(int(body["reserve_nanos"]) for body in till.bodies())
    assert len(till.records) == till.board.taken_units.sum()


def test_without_a_lease_nothing_goes_out(till: Till) -> None:
    """Every refusal is said on the board, so that the keeper may lend; nothing is recorded."""
    offered, reasons = 0, set()
    for request in requests(40):
        offered += till.bid(request) or 0
        drops = till.decision.data["drops"][0, : till.decision.data["head"]["drops_count"][0]]
        reasons |= set(drops["reason"].tolist())

    assert 0 == offered
    assert [] == till.records
    assert till.board.refusals.sum() > 10
    assert Reject.BUDGET in reasons


def test_a_refused_bid_gives_way_to_the_next(till: Till) -> None:
    """Who is best but has no money is passed over; the answer still has a bid."""
    till.lend()
    request = next(each for each in requests(200) if till.bid(each) == 1 and len(_listed(till)) > 1)
    till.records.clear()
    (best,) = till.chosen()
    best_line_item, *others = _listed(till)
    till.board.until_ms[0, best_line_item] = 0

    assert 1 == till.bid(request)
    (out,) = till.chosen()
    bids = till.decision.data["bids"][0]
    assert bids[best]["group"] == bids[out]["group"]
    assert int(bids[out]["line_item"]) in others
    assert 1 == len(till.records)


def _listed(till: Till) -> list[int]:
    """The line items of the short list of the first competition, best first."""
    data = till.decision.data[0]
    bids = data["bids"][: data["head"]["bids_count"]]
    return [int(bid["line_item"]) for bid in bids if bid["group"] == 0]


def test_a_lease_is_not_overdrawn(till: Till) -> None:
    """Not by a nano: bids stop where the lease ends, whoever comes."""
    till.lend(nanos=20_000_000)
    for request in requests(300):
        till.bid(request)

    assert till.board.taken.max() > 10_000_000
    assert (till.board.taken <= till.board.granted).all()
    spent = {}
    for body in till.bodies():
        key = int(body["claims"]["line_item"])
        spent[key] = spent.get(key, 0) + int(body["reserve_nanos"])
    taken = till.board.taken[0, : len(till.snapshot["line_items"])]
    keys = [int(key) for key in till.snapshot["line_items"]["key"]]
    assert spent == {key: int(sum_) for key, sum_ in zip(keys, taken, strict=True) if sum_}


@pytest.mark.parametrize("flags", [0, ClaimFlag.TEST])
def test_more_exposures_than_may_be_billed_get_no_bid(till: Till, flags: int) -> None:
    """A dooh impression for 14.5 people, where the exchange's settings allow to bill one."""
    till.lend()
    request = first_bid(till, flags)
    records = len(till.records)
    for imp in request["imp"]:
        imp["qty"] = {"multiplier": 14.5}

    assert 0 == till.bid(request, flags)
    assert records == len(till.records)
    assert Reject.MULTIPLIER in {drop[3] for drop in till.drops()}
    for imp in request["imp"]:
        imp["qty"] = {"multiplier": 0.5}
    assert till.bid(request, flags)


def test_a_test_pays_nothing(till: Till) -> None:
    """test=1 is signed as such, recorded nowhere, and has the same number every time."""
    request = first_bid(till, ClaimFlag.TEST)
    signed = [till.sheets.sheet(number) for number in till.chosen()]
    till.bid(request, ClaimFlag.TEST, NOW_MS + 77_777)

    assert signed == [till.sheets.sheet(number) for number in till.chosen()]
    assert [] == till.records
    assert 0 == till.board.taken.sum() == till.board.refusals.sum()


def test_a_journal_that_refuses_stops_bids(till: Till) -> None:
    """What cannot be recorded does not go out, and is not charged."""
    till.lend()
    till.full = True
    counts = [till.bid(request) for request in requests(60)]

    assert 0 == sum(count or 0 for count in counts)
    assert till.commit.stopped
    assert 0 == till.board.taken.sum()
    till.full = False
    first_bid(till)
    assert not till.commit.stopped


def test_ids_are_given_once(till: Till) -> None:
    """Ids differ within a second, go on in the next, and do not step back with the clock."""
    till.lend()
    for turn, request in enumerate(requests(200)):
        till.bid(request, now_ms=NOW_MS + (0, 900, 1200, -3000)[turn % 4])
    ids = [int(body["claims"]["bid"]) for body in till.bodies()]

    assert len(ids) > 50
    assert len(ids) == len(set(ids))
    assert [bid_time_s(one) for one in ids] == sorted(bid_time_s(one) for one in ids)


def test_a_restart_waits_for_its_second(tmp_path: Path) -> None:
    """A worker gives no id of a second that its life before may have used."""
    for name in TWINS:
        till = Till(tmp_path, name, not_before_s=NOW_MS // 1000 + 1)
        till.lend()
        request = requests(1)[0]
        assert not till.bid(request)
        assert till.bid(request, now_ms=NOW_MS + 1000) is not None
        assert all(
            bid_time_s(int(body["claims"]["bid"])) > NOW_MS // 1000 for body in till.bodies()
        )


def test_an_expected_budget_reserves_its_share(till: Till) -> None:
    """Where the keeper says so a part of the cost is taken, and the claims tell."""
    till.lend()
    till.board.reserve_e6[:] = 250_001
    first_bid(till)

    for body in till.bodies():
        claims = body["claims"]
        cost = cost_nanos(int(claims["price_micros"]), int(claims["rate_e9"]))
        assert -(-cost * 250_001 // 1_000_000) == body["reserve_nanos"]
        assert claims["flags"] == ClaimFlag.EXPECTED


def test_twins_pay_alike(tmp_path: Path) -> None:
    """Random worlds, leases and refusals: same bids, records, sheets and words on the board."""
    for seed in range(4):
        tills = [Till(tmp_path, name, seed) for name in TWINS]
        chance = random.Random(seed)
        for request in requests(80, seed):
            slots = [chance.randrange(80) for _ in range(6)]
            nanos, flags = chance.randrange(9_000_000), chance.choice((0, 0, 0, 1))
            key = b"i:%d" % chance.randrange(3)
            share, now_ms = chance.randrange(1, 1_000_001), NOW_MS + chance.randrange(4000)
            request["id"] = chance.choice(["plain", 'q"\\uote', "ü-ß", "a/b c{bid_id}"])
            counts = []
            for till in tills:
                till.lend(slots, nanos, 2)
                till.board.reserve_e6[slots[0]] = share
                counts.append(till.bid(request, flags, now_ms, key))

            one, other = tills
            assert counts[0] == counts[1]
            assert one.chosen() == other.chosen()
            assert one.drops() == other.drops()
            assert one.caps_board.sets.tobytes() == other.caps_board.sets.tobytes()
            assert [one.sheets.sheet(n) for n in one.chosen()] == [
                other.sheets.sheet(n) for n in other.chosen()
            ]
        assert one.records == other.records
        for name in ("taken", "taken_units", "wanted", "refusals"):
            assert (getattr(one.board, name) == getattr(other.board, name)).all()
        assert len(one.records) > 5
