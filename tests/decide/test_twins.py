"""The compiled engine against the readable one: same arguments, same bytes."""

import json
import random

import pytest

from rtb._ext.engine import Engine as FastEngine
from rtb.base.records import Decision, Opportunity
from rtb.decide.engine import Engine, Trace
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.server import settings
from tests.decide import worlds

RATES = settings.load_rates(settings.CONFIGS / "rates.toml")
ZONES = settings.load_zones(settings.CONFIGS / "zones.toml", worlds.NOW_MS)
EXCHANGE = Exchange(name="generic", path="generic", seat="house")


def _outcome(decision: Decision) -> dict[str, object]:
    data = decision.data[0]
    head = data["head"]
    return {
        "head": head.tolist(),
        "bids": data["bids"][: head["bids_count"]].tolist(),
        "drops": sorted(data["drops"][: head["drops_count"]].tolist()),
    }


@pytest.mark.parametrize("seed", range(24))
def test_twins_agree(seed: int) -> None:
    """Both engines decide the same on random worlds, to the last bid, price and reason."""
    snapshot = worlds.snapshot(seed, 60)
    slow, fast = Engine(snapshot), FastEngine(snapshot)
    chance = random.Random(seed)
    opportunity, ours, theirs = Opportunity(), Decision(), Decision()
    candidates = 7 if seed % 3 == 0 else 1000
    terms = settings.terms_of(EXCHANGE, RATES, ZONES, candidates, 5)
    reasons: set[int] = set()
    for _ in range(25):
        decode(json.dumps(worlds.request(chance)).encode(), EXCHANGE, opportunity)
        person = worlds.profile(chance)
        paused = bytes(chance.getrandbits(1) * 0b1001 for _ in range(8))
        arguments = (opportunity, person, terms, paused, worlds.NOW_MS)
        slow_trace, fast_trace = Trace(), Trace()
        slow.decide(*arguments, ours, slow_trace)
        fast.decide(*arguments, theirs, fast_trace)

        assert _outcome(ours) == _outcome(theirs)
        assert slow_trace.drops == fast_trace.drops
        drops = ours.data[0]["drops"][: ours.data[0]["head"]["drops_count"]]
        reasons |= set(drops["reason"].tolist())
    assert len(reasons) > 8
