"""Prices across currencies, exactly: never above what a line item pays, never below a floor."""

import json
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rtb._ext.engine import Engine as CompiledEngine
from rtb.base.money import currency_code, currency_name, format_micros
from rtb.base.records import RATE, Decision, Opportunity, Terms
from rtb.catalogue.model import Advertiser, Campaign, Goal
from rtb.catalogue.snapshot import Snapshot
from rtb.decide.engine import Engine as ReadableEngine
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.server import settings
from tests.decide.test_rules import ZONES, image, line, snapshot
from tests.decide.worlds import NOW_MS

CURRENCIES = ["USD", "EUR", "JPY", "KWD"]
EXCHANGE = Exchange(name="generic", path="generic", seat="house")
LINES = 4  # of each currency: a short list takes all
ENGINES = [ReadableEngine, CompiledEngine]
HAIR = Fraction(1, 1 << 49)  # of a price: far less than a micro


def catalogue(chance: random.Random) -> Snapshot:
    """Line items that want to bid more than they may, or nearly so, in several currencies."""
    objects: list[Any] = []
    for currency in CURRENCIES:
        objects += [
            Advertiser(id=f"a-{currency}", currency=currency, domains=(f"{currency}.test",)),
            Campaign(id=f"k-{currency}", advertiser=f"a-{currency}"),
        ]
        for number in range(LINES):
            name = f"{currency}-{number}"
            most = chance.choice([chance.randint(1, 30), chance.randint(1, 60_000_000), 7_000_000])
            wanted = most if chance.random() < 0.5 else max(1, most - chance.randint(0, 3))
            objects += [
                image(name, advertiser=f"a-{currency}"),
                line(
                    name, name, campaign=f"k-{currency}", max_cpm=format_micros(most),
                    goal=Goal(type="cpm", amount=format_micros(wanted)),
                    shade=chance.choice([1.0, 1.0, 0.999_999, 0.5]),
                ),
            ]  # fmt: skip
    return snapshot(*objects)


def terms(chance: random.Random) -> Terms:
    """Rates as people write them, and with every digit that a double has."""
    kinds = [
        lambda: chance.choice([1.0, 1.16, 0.0065, 3.26, 1.33, 2.0, 0.5, 1e-6, 4e5]),
        lambda: chance.uniform(1e-3, 10.0),
        lambda: 10.0 ** chance.uniform(-9, 9),
        lambda: float(np.nextafter(1.0, chance.choice([0.0, 2.0]))),
    ]
    rates = np.zeros(len(CURRENCIES), RATE)
    rates["cur"] = [currency_code(name) for name in CURRENCIES]
    rates["rate"] = [1.0, *(chance.choice(kinds)() for _ in CURRENCIES[1:])]
    return settings.terms_of(EXCHANGE, rates, ZONES, 1000, 1)


def request(chance: random.Random, rows: np.ndarray) -> dict[str, Any]:
    """One impression; its floor is small, high, or about what some line item may pay."""
    row = rows[chance.randrange(len(rows))]
    most, name = int(row["max_cpm_micros"]), currency_name(int(row["currency"]))
    floor, currency = chance.choice(
        [(0, "USD"), (chance.randint(1, 30), chance.choice(CURRENCIES)), (most, name),
         (max(1, most * 3 // 4), name), (max(1, most + chance.randint(-1, 1)), name)]
    )  # fmt: skip
    imp: dict[str, Any] = {
        "id": "1", "banner": {"format": [{"w": 300, "h": 250}]},
        "bidfloor": floor / 1e6, "bidfloorcur": currency,
    }  # fmt: skip
    at, ours = chance.choice([1, 2]), chance.choice(CURRENCIES)
    return {"id": f"r{chance.random()}", "at": at, "imp": [imp], "cur": [ours]}


@pytest.mark.parametrize("seed", range(6))
def test_no_price_leaves_its_bounds(seed: int) -> None:
    """Every price on a short list, as a fraction: at most `max_cpm` in the line item's currency, at
    least the floor in the floor's; both engines alike.
    """
    chance = random.Random(seed)
    world = catalogue(chance)
    engines = [engine(world) for engine in ENGINES]
    decisions = [Decision(), Decision()]
    rows, opportunity = world["line_items"], Opportunity()
    bids = at_most = at_floor = 0
    for _ in range(100):
        spoken, body = terms(chance), request(chance, rows)
        decode(json.dumps(body).encode(), EXCHANGE, opportunity)
        for engine, decision in zip(engines, decisions, strict=True):
            engine.decide(opportunity, None, spoken, None, NOW_MS, decision)
        assert _outcome(decisions[0]) == _outcome(decisions[1])
        used = spoken.data[0]["rates"][: len(CURRENCIES)]
        # A rate is what is written: the shortest decimal that gives its double.
        rates = {int(one["cur"]): Fraction(repr(float(one["rate"]))) for one in used}
        data = decisions[1].data[0]
        ours = rates[int(data["head"]["cur"])]
        imp = opportunity.facts[0]["imps"][0]
        floor = int(imp["floor_micros"]) * rates[int(imp["floor_cur"])]
        for bid in data["bids"][: data["head"]["bids_count"]]:
            row = rows[int(bid["line_item"])]
            price = int(bid["price_micros"]) * ours
            limit = int(row["max_cpm_micros"]) * rates[int(row["currency"])]
            assert floor * (1 - HAIR) <= price <= limit * (1 + HAIR), (body, row, bid)
            bids += 1
            at_most += limit - price < ours
            at_floor += 0 <= price - floor < ours
    assert min(bids, at_most) > 100
    assert at_floor > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("rate", ["1.16", "1.24", "0.71", "1.33", "0.0065", "3.26"])
@pytest.mark.parametrize("cents", [1, 7, 420, 99_999, 123_457])
def test_an_agreed_price_is_met(engine: Any, at: int, rate: str, cents: int) -> None:
    """A deal whose floor is just what the line item pays, written in the other currency: floats of
    rates lie beside their decimals, and prices do not."""
    price = f"{cents / 100:.2f}"
    world = snapshot(
        Advertiser(id="a", currency="EUR", domains=("a.test",)), Campaign(id="k", advertiser="a"),
        image("c", advertiser="a"),
        line("l", "c", campaign="k", goal=Goal(type="cpm", amount=price), max_cpm=price),
    )  # fmt: skip
    agreed = Fraction(cents * 10_000) * Fraction(rate)
    rates = np.zeros(2, RATE)
    rates["cur"], rates["rate"] = [currency_code("USD"), currency_code("EUR")], [1.0, float(rate)]
    deal = {"id": "d", "at": at, "bidfloor": float(agreed / 10**6), "bidfloorcur": "USD"}
    imp = {"id": "1", "banner": {"w": 300, "h": 250}, "pmp": {"deals": [deal]}}
    opportunity, decision = Opportunity(), Decision()
    body = {"id": "r", "imp": [imp], "cur": ["USD"]}
    decode(json.dumps(body).encode(), EXCHANGE, opportunity)
    spoken = settings.terms_of(EXCHANGE, rates, ZONES, 1000, 1)
    engine(world).decide(opportunity, None, spoken, None, NOW_MS, decision)
    data = decision.data[0]
    assert 1 == data["head"]["bids_count"]
    assert round(agreed) == data["bids"][0]["price_micros"]


def _outcome(decision: Decision) -> tuple[Any, ...]:
    data = decision.data[0]
    head = data["head"]
    bids, drops = data["bids"][: head["bids_count"]], data["drops"][: head["drops_count"]]
    return head.tolist(), bids.tolist(), sorted(drops.tolist())
