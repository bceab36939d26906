"""Frequency caps in the decision: at every level, for people we know and those we do not."""

import json
from typing import Any

import pytest

from rtb._ext.engine import Engine as FastEngine
from rtb.base.hashing import token_hash
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import Decision, Dim, Opportunity
from rtb.catalogue.model import Advertiser, Campaign, FrequencyCap
from rtb.catalogue.snapshot import Snapshot
from rtb.decide.engine import Engine
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.profiles import codec
from rtb.profiles.codec import Profile
from rtb.profiles.record import COUNTS_ONLY, UNANSWERED
from rtb.server import settings
from tests.decide.test_rules import NOW_S, RATES, ZONES, banner, decide, image, line, snapshot

DAY_S = 86_400
EXCHANGE = Exchange(name="generic", path="generic", seat="house")


@pytest.fixture(params=[Engine, FastEngine], ids=["readable", "compiled"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


def cap(count: int, window: str = "1d") -> dict[str, Any]:
    """A cap of its owner's own level."""
    return {"frequency_caps": (FrequencyCap(count=count, window=window),)}


def seen(token: str, count: int, age_s: int = 100) -> Profile:
    """A person with one counter."""
    return Profile(caps={token_hash(Dim.CAP, token.encode()): (NOW_S - age_s, count)})


LEVELS = ["creative/c/86400", "line_item/l/86400", "campaign/k/86400", "advertiser/a/86400"]


def capped_at(level: str, count: int) -> Snapshot:
    """One line item with a cap at one level; at none where there is no such level."""
    of = {one: cap(count) if one == level else {} for one in
          ("creative", "line_item", "campaign", "advertiser")}  # fmt: skip
    return snapshot(
        Advertiser(id="a", domains=("shop.test",), **of["advertiser"]),
        Campaign(id="k", advertiser="a", **of["campaign"]),
        image("c", **of["creative"]),
        line("l", "c", **of["line_item"]),
    )


@pytest.mark.parametrize("token", LEVELS)
def test_every_level(engine: Any, token: str) -> None:
    """A cap holds at its level, from its count on and for its window."""
    catalogue = capped_at(token.split("/", 1)[0], 2)
    for count, age_s, capped in ((2, 100, True), (1, 100, False), (2, DAY_S + 1, False)):
        found = decide(engine, catalogue, profile=seen(token, count, age_s))
        assert capped == (found.nobid == NoBid.NO_CANDIDATE)
        assert not capped or {Reject.FREQUENCY_CAP} == found.reasons


def test_a_capped_creative_leaves_the_others(engine: Any) -> None:
    """Its line item goes on with the creatives that may still be shown."""
    catalogue = snapshot(image("c", **cap(2)), image("d", **cap(5)), line("l", "c", "d"))
    found = decide(engine, catalogue, profile=seen("creative/c/86400", 2))
    assert NoBid.BID == found.nobid
    assert {Reject.FREQUENCY_CAP} <= found.reasons
    assert NoBid.BID == decide(engine, catalogue).nobid


def test_counts_alone_make_nobody_known(engine: Any) -> None:
    """Caps hold for a person without a record, who is still nobody to those that ask for one."""
    catalogue = snapshot(image("c"), line("l", "c", **cap(2)), line("m", "c", needs_profile=True))
    for count, reasons in ((2, {Reject.FREQUENCY_CAP, Reject.NEEDS_PROFILE}),
                           (1, {Reject.NEEDS_PROFILE})):  # fmt: skip
        record = bytearray(codec.encode(seen("line_item/l/86400", count)))
        record[3] |= COUNTS_ONLY
        head, found = decided(engine, catalogue, bytes(record))
        assert reasons == found
        assert 1 == head["contextual"]


@pytest.mark.parametrize("level", ["creative", "line_item", "campaign", "advertiser", ""])
def test_who_may_have_seen_anything_gets_nothing_capped(engine: Any, level: str) -> None:
    """Without an answer of the store a cap of any level closes its line item, and no other."""
    head, found = decided(engine, capped_at(level, 9), UNANSWERED)

    assert ({Reject.FREQUENCY_CAP} if level else set()) == found
    assert (NoBid.NO_CANDIDATE if level else NoBid.BID) == head["nobid"]
    assert (1, 0) == (head["contextual"], head["opted_out"])


def test_who_may_have_refused_is_not_found_by_what_others_tell(engine: Any) -> None:
    """Without an answer of the store the exchange's data of somebody is not looked at either."""
    targeting = {"key": "data_segment", "in": ["dmp:7"]}
    catalogue = snapshot(image("c"), line("l", "c", targeting=targeting))
    told = {"data": [{"name": "dmp", "segment": [{"id": "7"}]}]}
    known = codec.encode(Profile(segments=[1]))

    assert NoBid.BID == decided(engine, catalogue, known, user=told)[0]["nobid"]
    assert NoBid.NO_CANDIDATE == decided(engine, catalogue, UNANSWERED, user=told)[0]["nobid"]


def decided(
    engine: Any, catalogue: Snapshot, record: bytes, **more: Any
) -> tuple[Any, set[Reject]]:
    """Head of the decision for somebody with such a record, and reasons of who was dropped."""
    opportunity, decision = Opportunity(), Decision()
    decode(json.dumps({"id": "r", "imp": [banner()], **more}).encode(), EXCHANGE, opportunity)
    terms = settings.terms_of(EXCHANGE, RATES, ZONES, 1000, 1)
    engine(catalogue).decide(opportunity, record, terms, None, NOW_S * 1000, decision)
    head = decision.data[0]["head"]
    drops = decision.data[0]["drops"][: head["drops_count"]]
    return head, {Reject(int(drop["reason"])) for drop in drops}
