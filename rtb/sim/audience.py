"""Who clicks on what the exchange shows: the seeded people as they really are, or nobody special.

`rtb.sim.clicks` is the truth. It needs to know who was asked about and what is shown: the visit
behind a request of the pool, and the seeded creative that a bid names.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import orjson

from rtb.catalogue.model import Creative
from rtb.sim import clicks, world
from rtb.sim.auction import Bid
from rtb.sim.campaigns import CTR, CVR
from rtb.sim.clicks import Shown
from rtb.sim.seed import CATALOGUE
from rtb.sim.traffic import Visit

_MEDIA: Final = {1: "banner", 2: "video", 3: "audio", 4: "native"}
_HOUR_S: Final = 3600


class Audience(Protocol):
    """What people do with ads."""

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        """The chance of a click on a bid shown for request `number` of the pool, and that the click
        leads to an order."""


class Anybody:
    """People of whom nothing is known: the average of the medium."""

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        """See `Audience`."""
        return CTR[_MEDIA.get(bid.mtype, "banner")], CVR


class Seeded:
    """The people of a seeded directory, by the truth that the bidder may only guess."""

    def __init__(
        self, people: world.People, visits: Sequence[Visit], ads: Mapping[str, Shown]
    ) -> None:
        self._people, self._visits, self._ads = people, visits, ads
        self._others = Anybody()

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        """See `Audience`; an ad that was not seeded is clicked as the average is."""
        ad = self._ads.get(bid.crid)
        if ad is None:
            return self._others.odds(number, bid)
        visit = self._visits[number]
        hour = int(time.time()) // _HOUR_S % 24
        click = clicks.click_odds(self._people, visit, ad, hour)
        return click, clicks.conversion_odds(self._people, visit, ad)


def seeded_ads(data: Path) -> dict[str, Shown]:
    """The creatives of a seeded directory by id; none where there is no catalogue of ours."""
    path = data / CATALOGUE / "creatives.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        creatives = [msgspec.convert(orjson.loads(line), Creative) for line in lines]
    return {each.id: clicks.shown(each) for each in creatives if clicks.is_seeded(each)}
