"""The compiled encoder against the readable one: same bytes for the same decision."""

import json
import random

import pytest

from rtb._ext.engine import Engine
from rtb._ext.respond import encode as fast_encode
from rtb.base.money import format_micros
from rtb.base.records import Decision, Opportunity
from rtb.exchanges.decode import decode
from rtb.exchanges.response import encode
from rtb.exchanges.settings import Exchange
from rtb.server import settings
from tests.decide import worlds
from tests.notices import bids

RATES = settings.load_rates(settings.CONFIGS / "rates.toml")
ZONES = settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS)


@pytest.mark.parametrize("seed", range(8))
def test_twins_encode_alike(seed: int) -> None:
    """Random decisions, with several seats, deals, native ads and holes, give the same bytes."""
    exchange = Exchange(
        name="generic", path="generic", seat='ho"use' if seed % 2 else "",
        settle_on=("burl", "impression")[seed % 2], click_macro=("", "%%CLICK%%")[seed // 2 % 2],
    )  # fmt: skip
    terms = settings.terms_of(exchange, RATES, ZONES, 1000, 1)
    snapshot = worlds.snapshot(seed, 80)
    engine = Engine(snapshot)
    chance = random.Random(seed)
    opportunity, decision = Opportunity(), Decision()
    encoded = 0
    for _ in range(60):
        request = worlds.request(chance)
        request["id"] = chance.choice(["plain", 'q"\\uote', "ü-ß", "a/b c", str(request["id"])])
        decode(json.dumps(request, ensure_ascii=False).encode(), exchange, opportunity)
        engine.decide(opportunity, None, terms, None, worlds.NOW_MS, decision)
        if decision.data["head"]["nobid"][0]:
            continue
        encoded += 1
        signed = bids.links_of(exchange, decision), bids.signed(decision)
        expected = encode(opportunity, decision, snapshot.arrays, exchange, *signed)

        assert expected == fast_encode(opportunity, decision, snapshot.arrays, exchange, *signed)
        assert request["id"] == json.loads(expected)["id"]
    assert encoded > 10


@pytest.mark.parametrize("micros", [1, 10, 999_999, 1_000_000, 1_234_500, 99_999_999_999, 50_000])
def test_price_is_exact(micros: int) -> None:
    """A price is written as the shortest decimal that is exactly its micros."""
    snapshot = worlds.snapshot(1, 40)
    exchange = Exchange(name="generic", path="generic")
    opportunity, decision = Opportunity(), Decision()
    decode(b'{"id":"r","imp":[{"id":"i","banner":{"w":300,"h":250}}]}', exchange, opportunity)
    decision.data["head"]["bids_count"] = 1
    decision.data["bids"][0, 0]["chosen"] = 1
    decision.data["bids"][0, 0]["deal"] = -1
    decision.data["bids"][0, 0]["price_micros"] = micros
    decision.data["head"]["cur"] = 0x555344

    signed = bids.links_of(exchange, decision), bids.signed(decision)
    body = fast_encode(opportunity, decision, snapshot.arrays, exchange, *signed)

    assert f'"price":{format_micros(micros)}'.encode() in body
