"""Generated requests: the same by seed, real in shape and size, valid by the schema."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from rtb.base.records import Opportunity
from rtb.exchanges import decode
from rtb.server import settings
from rtb.sim import world
from rtb.sim.traffic import Traffic

SCHEMAS = Path(__file__).parents[3] / "shared" / "protocol" / "schemas"
COUNT = 1500


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    return list(Traffic(11, 2000).bodies(COUNT))


@pytest.fixture(scope="module")
def requests(bodies: list[bytes]) -> list[dict[str, object]]:
    return [json.loads(body) for body in bodies]


def test_a_seed_repeats(bodies: list[bytes]) -> None:
    """The same seed and people give the same bytes; another seed gives others."""
    assert bodies[:50] == list(Traffic(11, 2000).bodies(50))
    assert bodies[:50] != list(Traffic(12, 2000).bodies(50))


def test_sizes(bodies: list[bytes]) -> None:
    """Bodies have 1 to 2 kB, nearly all of them, about 1.5 kB on average."""
    sizes = np.array([len(body) for body in bodies])

    assert 1_350 < sizes.mean() < 1_750
    assert 1_000 < np.percentile(sizes, 5)
    assert 2_400 > np.percentile(sizes, 95)


def test_formats(requests: list[dict[str, object]]) -> None:
    """About 60 % banner, 20 % video, 12 % native, 3 % audio; some of several kinds or slots."""
    kinds: Counter[str] = Counter()
    for request in requests:
        imps = request["imp"]
        assert isinstance(imps, list)
        media = {name for name in ("banner", "video", "native", "audio") if name in imps[0]}
        kinds["multi" if len(media) > 1 else media.pop()] += 1
        kinds["slots"] += len(imps) > 1
        kinds["pods"] += "podid" in imps[0].get("video", {})
        kinds["deals"] += "pmp" in imps[0]
    shares = {kind: count / COUNT for kind, count in kinds.items()}

    assert 0.50 < shares["banner"] < 0.66
    assert 0.15 < shares["video"] < 0.26
    assert 0.08 < shares["native"] < 0.18
    assert 0.01 < shares["audio"] < 0.06
    assert 0.03 < shares["multi"] < 0.10
    assert 0.04 < shares["slots"] < 0.18
    assert 0.02 < shares["pods"] < 0.10
    assert 0.06 < shares["deals"] < 0.14


def test_people(requests: list[dict[str, object]]) -> None:
    """Seventy per cent name a person of ours, and popular people come again and again."""
    users = [request["user"] for request in requests]
    known = [user["buyeruid"] for user in users if isinstance(user, dict) and "buyeruid" in user]
    numbers = [int(name[1:]) for name in known]

    assert 0.66 < len(known) / COUNT < 0.74
    assert 0 <= min(numbers) <= max(numbers) < 2000
    assert Counter(known).most_common(1)[0][1] > 5


def test_decoded(bodies: list[bytes]) -> None:
    """The decoder finds a usable request in each, no quirk in any, privacy in about a tenth."""
    exchange = settings.load_exchanges(settings.CONFIGS / "exchanges")["generic"]
    opportunity = Opportunity()
    private = 0
    for body in bodies[:400]:
        decode.decode(body, exchange, opportunity)
        head = opportunity.facts["head"][0]
        assert 0 == int(head["quirks"])
        assert int(head["imps_count"]) > 0
        private += int(head["privacy"]) > 0

    assert 0.05 < private / 400 < 0.16


def test_a_person_stays_the_same() -> None:
    """Visits of one person come from one city, whose country the request names."""
    traffic = Traffic(5, 50)
    people = world.people(50)
    for visit in (traffic.visit() for _ in range(100)):
        assert world.CITIES[people.city[visit.person]] is visit.city


def test_valid_by_the_schema(bodies: list[bytes]) -> None:
    """Every request satisfies the JSON Schema of OpenRTB 2.6."""
    found = sorted(SCHEMAS.glob("*bid-request.schema.json"))
    if not found:
        pytest.skip("no ../shared/protocol/schemas beside the checkout")
    validator = jsonschema.Draft202012Validator(json.loads(found[0].read_text()))
    for body in islice(bodies, 250):
        assert [] == [error.message for error in validator.iter_errors(json.loads(body))]
