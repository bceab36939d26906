"""The compiled engine against the readable one: same arguments, same bytes."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rtb._ext.engine import Engine as FastEngine
from rtb.base.reasons import Reject
from rtb.base.records import DROPS_MAX, Decision, Opportunity
from rtb.catalogue.model import Advertiser, Campaign
from rtb.decide.engine import Engine, Trace
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.server import settings
from tests.decide import worlds
from tests.decide.test_rules import banner, image, line, snapshot

RATES = settings.load_rates(settings.CONFIGS / "rates.toml")
ZONES = settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS)
EXCHANGE = Exchange(name="generic", path="generic", seat="house")


def _outcome(decision: Decision) -> dict[str, Any]:
    data = decision.data[0]
    head = data["head"]
    # Of more than there is room for, the kept ones are those that came first, in either's order.
    drops = data["drops"][: head["drops_count"] % DROPS_MAX]
    return {
        "head": head.tolist(),
        "bids": data["bids"][: head["bids_count"]].tolist(),
        "drops": sorted(drops.tolist()),
    }


# The last ones have several blocks of 512 line items.
SIZES = [60] * 22 + [1_300, 1_800]


@pytest.mark.parametrize(("seed", "line_items"), list(enumerate(SIZES)))
def test_twins_agree(seed: int, line_items: int) -> None:
    """Both engines decide the same on random worlds, to the last bid, price and reason."""
    snapshot = worlds.snapshot(seed, line_items)
    slow, fast = Engine(snapshot), FastEngine(snapshot)
    chance = random.Random(seed)
    opportunity, ours, theirs = Opportunity(), Decision(), Decision()
    candidates = 7 if seed % 3 == 0 else 1000
    requests = 25 if line_items < 100 else 6
    terms = settings.terms_of(EXCHANGE, RATES, ZONES, candidates, 5)
    reasons: set[int] = set()
    for turn in range(requests):
        terms.data["exhaustive"] = turn % 2
        decode(json.dumps(worlds.request(chance)).encode(), EXCHANGE, opportunity)
        person = worlds.profile(chance)
        overlay = worlds.overlay(chance, line_items)
        arguments = (opportunity, person, terms, overlay, worlds.NOW_MS)
        slow_trace, fast_trace = Trace(), Trace()
        slow.decide(*arguments, ours, slow_trace)
        fast.decide(*arguments, theirs, fast_trace)

        assert _outcome(ours) == _outcome(theirs)
        assert slow_trace.drops == fast_trace.drops
        drops = ours.data[0]["drops"][: ours.data[0]["head"]["drops_count"]]
        reasons |= set(drops["reason"].tolist())
        for refused in _refused(chance, ours):
            slow.fall_back(opportunity, ours, refused)
            fast.fall_back(opportunity, theirs, refused)

            assert _outcome(ours) == _outcome(theirs)
    assert len(reasons) > 8


def _refused(chance: random.Random, decision: Decision) -> Iterator[int]:
    """Bids that their budgets refuse, in the order in which they are asked: half of the chosen."""
    for number, bid in enumerate(_bids(decision)):
        if bid["chosen"] and chance.random() < 0.5:
            yield number


@pytest.mark.parametrize("engine", [Engine, FastEngine], ids=["readable", "compiled"])
def test_hopeless_candidates_change_nothing(engine: type[Engine]) -> None:
    """Leaving out who cannot reach a full short list gives the bids that looking at all gives."""
    chance = random.Random(8)
    opportunity, looked, brief = Opportunity(), Decision(), Decision()
    terms = settings.terms_of(EXCHANGE, RATES, ZONES, 1000, 5)
    left_out = unseen = 0
    # Few requests of the last world leave a whole block unseen: it goes on until one does.
    for seed, line_items, requests in ((0, 120, 40), (1, 120, 40), (2, 1_600, 80)):
        core = engine(worlds.snapshot(seed, line_items))
        overlay = worlds.overlay(chance, line_items) if seed == 1 else None
        for number in range(requests):
            if number > 12 and unseen:
                break
            decode(json.dumps(worlds.request(chance)).encode(), EXCHANGE, opportunity)
            arguments = (opportunity, worlds.profile(chance), terms, overlay, worlds.NOW_MS)
            terms.data["exhaustive"] = 1
            core.decide(*arguments, looked)
            terms.data["exhaustive"] = 0
            core.decide(*arguments, brief)
            ours, theirs = _outcome(brief), _outcome(looked)
            hopeless = {drop[:3] for drop in ours["drops"] if drop[3] == Reject.BELOW_SHORTLIST}
            bidding = {(bid["line_item"], bid["imp"]) for bid in _bids(looked)}

            assert theirs["bids"] == ours["bids"]
            assert not bidding & {(line_item, imp) for line_item, _, imp in hopeless}
            left_out += len(hopeless)
            unseen += int(looked.data["head"]["eligible_count"][0])
            unseen -= int(brief.data["head"]["eligible_count"][0])
    assert left_out > 50
    assert unseen > 0


def _bids(decision: Decision) -> np.ndarray:
    data = decision.data[0]
    return data["bids"][: data["head"]["bids_count"]]


@pytest.mark.parametrize("seed", range(6))
def test_twins_agree_on_crowds(seed: int) -> None:
    """Where most are rivals both engines keep the same of them, and what they leave unseen changes
    no bid; two impressions always find somebody.
    """
    chance = random.Random(seed)
    objects: list[Any] = []
    for number in range(8):
        name = f"a{number}"
        objects += [Advertiser(id=name, domains=("b.test",)), Campaign(id=name, advertiser=name),
                    image(name, advertiser=name)]  # fmt: skip
    for number in range(700):
        owner = f"a{chance.randrange(8)}"
        objects.append(
            line(f"l{number}", owner, campaign=owner, cpm=f"{chance.randint(1, 400) / 100}",
                 separation=chance.choice(["cars"] * 30 + ["soap"] * 10 + [None]))
        )  # fmt: skip
    world = snapshot(*objects)
    slow, fast = Engine(world), FastEngine(world)
    terms = settings.terms_of(EXCHANGE, RATES, ZONES, 1000, 5)
    opportunity, ours, theirs, whole = Opportunity(), Decision(), Decision(), Decision()
    for count in range(1, 9):
        slots = [banner() | {"id": str(number)} for number in range(count)]
        body = {"id": f"r{seed}", "at": 1, "imp": slots}
        decode(json.dumps(body).encode(), EXCHANGE, opportunity)
        for exhaustive, decision in ((1, whole), (0, theirs)):
            terms.data["exhaustive"] = exhaustive
            fast.decide(opportunity, None, terms, None, worlds.NOW_MS, decision)
        slow.decide(opportunity, None, terms, None, worlds.NOW_MS, ours)

        assert _outcome(ours) == _outcome(theirs)
        assert _outcome(whole)["bids"] == _outcome(theirs)["bids"]
        assert min(count, 2) <= _bids(theirs)["chosen"].sum()
