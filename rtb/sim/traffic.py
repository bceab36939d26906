"""Realistic bid requests: who looks at what, on which device, and how an exchange says so.

A visit is a person of the world at a place; a request is what OpenRTB 2.6 makes of it. The
same seed and number of people give the same requests, of 1 to 2 kB each, about 1.5 on average.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import orjson

from rtb.sim import slots, world
from rtb.sim.devices import CTV, DEVICES, PC, PHONE, Device
from rtb.sim.places import GDPR_COUNTRIES, City
from rtb.sim.publishers import Kind, Publisher, seen_from
from rtb.sim.retail import UNITS
from rtb.sim.shelves import KEYWORDS
from rtb.sim.slots import Json

_BATCH: Final = 4096
_TMAX_MS: Final = (100, 120, 150, 200)
_BLOCKED: Final = (
    "IAB25", "IAB25-3", "IAB26", "IAB7-39", "IAB8-5", "IAB8-18", "IAB9-9", "IAB11", "IAB11-4",
    "IAB14-1", "IAB14-3", "IAB23", "IAB24", "IAB25-2", "IAB26-1",
)  # fmt: skip
# A vertical's own category is blocked now and then: a shop keeps its rivals from its pages.
_BLOCKED_TRADES: Final = ("IAB18-4", "IAB18-3", "IAB19-6", "IAB10-5", "IAB6-6", "IAB2-3")
_CONSENT: Final = (
    "CQA1eQAQA1eQAAGABCENA8EgAP_gAEPgAAwIKWtX_H__bW9r8X7_aft0eY1P9_j77sQxBhfJE-4FzLvW_JwXx2EX"
)
_GPP: Final = "DBACNYA~CQA1eQAQA1eQAAGABCENA8EgAAAAAAAAAAwIAAAAAAAA.YAAAAAAAAAAA~1YNN"
_APP_OWNERS: Final = ("loop", "umber", "sona", "tally")


@dataclass(frozen=True, slots=True)
class Visit:
    """A person at a place: what happens, known or not to those who bid."""

    person: int
    city: City
    device: Device
    place: Publisher
    medium: str


class Traffic:
    """A stream of visits and the requests that they cause."""

    def __init__(self, seed: int, people_count: int = world.PEOPLE_COUNT) -> None:
        self._random = Random(f"traffic {seed}")
        self._draw = np.random.default_rng([seed & 0xFFFFFFFF, people_count])
        self._people = world.people(people_count)
        self._waiting: list[int] = []

    def visit(self) -> Visit:
        """The next visit: popular people come more often, mostly on their own device."""
        random = self._random
        if not self._waiting:
            self._waiting = self._people.draw(self._draw.random(_BATCH)).tolist()
        person = self._waiting.pop()
        city = world.CITIES[self._people.city[person]]
        device = DEVICES.values[self._people.device[person]]
        if random.random() < 0.25:
            device = DEVICES.pick(random)
        medium = slots.medium_of(random, device)
        place = seen_from(city.country, _kind(random, device, medium)).pick(random)
        return Visit(person, city, device, place, medium)

    def request(self, visit: Visit) -> Json:
        """The bid request of a visit."""
        random = self._random
        city = visit.city
        in_euro = city.country in GDPR_COUNTRIES and random.random() < 0.25
        currency = "EUR" if in_euro else "USD"
        request: Json = {
            "id": f"{random.getrandbits(128):032x}",
            "imp": slots.impressions(
                random, visit.medium, visit.device, visit.place, currency, UNITS[currency]
            ),
        }
        page = _app(random, visit) if visit.place.kind in {"app", "tv"} or (
            visit.place.kind == "audio" and visit.device.mobile
        ) else _site(random, visit)  # fmt: skip
        request |= page
        privacy, regs = _regs(random, city)
        # A request that forbids personal data still carries some; not to use it is on us.
        request["device"] = _device(random, visit, privacy)
        request["user"] = _user(random, visit, privacy)
        request |= {
            "at": 2 if random.random() < 0.15 else 1,
            "tmax": random.choice(_TMAX_MS),
            "cur": [currency],
            "bcat": _blocked(random),
        }
        if random.random() < 0.3:
            count = random.randint(1, 8)
            request["badv"] = [f"brand-{random.randrange(3000)}.example" for _ in range(count)]
        request["source"] = _source(random, visit.place)
        request["regs"] = regs
        return request

    def bodies(self, count: int) -> Iterator[bytes]:
        """`count` requests as JSON texts."""
        for _ in range(count):
            yield orjson.dumps(self.request(self.visit()))


def _kind(random: Random, device: Device, medium: str) -> Kind:
    """On what kind of place a device meets an ad of this medium."""
    if device.type == CTV:
        return "tv"
    if medium == "audio":
        return "audio"
    if device.type == PC:
        return "site"
    return "app" if random.random() < (0.55 if device.type == PHONE else 0.45) else "site"


# -- where ----------------------------------------------------------------------------------------


def _site(random: Random, visit: Visit) -> Json:
    place = visit.place
    path = f"{random.choice(KEYWORDS).replace(' ', '-')}/{random.randrange(10**6):06d}"
    site: Json = {
        "id": f"s{place.number}",
        "domain": place.domain,
        "cat": list(place.categories),
        "page": f"https://www.{place.domain}/{path}?p={random.randint(1, 9)}",
        "publisher": _publisher(random, place),
        "mobile": int(visit.device.mobile),
        "keywords": ",".join(place.keywords),
    }
    if place.cattax != 1:
        site["cattax"] = place.cattax
    if random.random() < 0.25:
        site["ref"] = f"https://www.{place.domain}/"
    if random.random() < 0.1 or place.kind == "audio":
        site["content"] = _content(random, place)
    return {"site": site}


def _publisher(random: Random, place: Publisher) -> Json:
    publisher: Json = {"id": place.id}
    if random.random() < 0.5:
        publisher |= {"name": place.name, "domain": place.domain}
    return publisher


def _app(random: Random, visit: Visit) -> Json:
    place = visit.place
    store = "apps.example" if visit.device.family == "ios" else "play.example"
    app: Json = {
        "id": f"a{place.number}",
        "name": place.name.replace("-", " ").title(),
        "bundle": place.bundle,
        "domain": place.domain,
        "storeurl": f"https://{store}/details?id={place.bundle}",
        "cat": list(place.categories),
        "ver": f"{random.randint(1, 9)}.{random.randint(0, 20)}.{random.randint(0, 9)}",
        "publisher": _publisher(random, place),
        "keywords": ",".join(place.keywords),
    }
    if place.cattax != 1:
        app["cattax"] = place.cattax
    if place.kind in {"tv", "audio"}:
        app["content"] = _content(random, place)
    return {"app": app}


def _content(random: Random, place: Publisher) -> Json:
    content: Json = {
        "id": f"c{random.randrange(10**5)}",
        "title": f"{place.genre} hour {random.randint(1, 60)}",
        "genre": place.genre,
        "language": place.language,
        "livestream": int(random.random() < 0.2),
        "len": random.choice((600, 1320, 2640, 5400)),
        "context": 3 if place.kind == "audio" else 1,
        "contentrating": random.choice(("TV-G", "TV-PG", "TV-14")),
    }
    if place.kind == "tv":
        content |= {
            "series": f"{place.name.split('-')[0].title()} Stories",
            "season": f"Season {random.randint(1, 8)}",
            "episode": random.randint(1, 20),
            "network": {"id": f"n{place.number % 7}", "name": f"Network {place.number % 7}"},
            "channel": {"id": f"ch{place.number}", "name": place.name},
        }
    return content


# -- who ------------------------------------------------------------------------------------------


def _regs(random: Random, city: City) -> tuple[str, Json]:
    """Which signal forbids personal data ("" none), and what the request says about laws."""
    chance = random.random()
    european = city.country in GDPR_COUNTRIES
    regs: Json = {"coppa": 0, "gdpr": int(european and chance < 0.13)}
    if european:
        return ("gdpr" if regs["gdpr"] else ""), regs
    if city.country == "USA":
        regs["us_privacy"] = "1YYN" if chance < 0.03 else "1YNN"
        if chance < 0.03:
            return "us_privacy", regs
    if chance < 0.045:
        return "coppa", regs | {"coppa": 1}
    if chance < 0.07:
        return "gpp", regs | {"gpp": _GPP, "gpp_sid": [2, 6]}
    return ("limited" if chance < 0.09 else ""), regs


def _device(random: Random, visit: Visit, privacy: str) -> Json:
    kit, city = visit.device, visit.city
    limited = privacy == "limited"
    app = visit.place.kind != "site" and (kit.mobile or kit.type == CTV)
    agent = kit.app_agent if app else random.choice(kit.agents)
    # Blocks that are kept for documentation: no request of ours names a real household.
    net = random.choice(("192.0.2", "198.51.100", "203.0.113"))
    device: Json = {
        "ua": agent,
        "ip": f"{net}.{random.randint(1, 254)}",
        "geo": _geo(random, city),
        "devicetype": kit.type,
        "os": kit.os,
        "osv": kit.osv,
        "language": city.language,
        "dnt": int(limited and not app),
        "lmt": int(limited and app),
        "connectiontype": _connection(random, kit),
    }
    if kit.model:
        device |= {"make": kit.make, "model": kit.model, "w": kit.width, "h": kit.height}
    if device["connectiontype"] in {6, 7}:
        device["carrier"] = random.choice(world.CARRIERS)
    if app:
        device["ifa"] = (
            "00000000-0000-0000-0000-000000000000" if limited else world.ifa(visit.person)
        )
    if kit.type == PC and random.random() < 0.35:
        device["sua"] = {
            "platform": {"brand": kit.os, "version": [kit.osv or "0"]},
            "browsers": [{"brand": "Chromium", "version": ["131"]}],
            "mobile": 0,
            "source": 2,
        }
    return device


def _connection(random: Random, kit: Device) -> int:
    if kit.mobile:
        return random.choice((2, 2, 2, 6, 7)) if random.random() < 0.97 else 5
    return random.choice((1, 2)) if kit.type == PC else random.choice((2, 2, 1))


def _geo(random: Random, city: City) -> Json:
    return {
        "lat": round(city.lat + random.uniform(-0.08, 0.08), 4),
        "lon": round(city.lon + random.uniform(-0.08, 0.08), 4),
        "type": 2,
        "country": city.country,
        "region": city.region,
        "city": city.name,
        "zip": f"{city.postcode}{random.randint(10, 99)}",
        "utcoffset": city.zone_min,
    }


def _user(random: Random, visit: Visit, privacy: str) -> Json:
    user: Json = {"id": f"x{visit.person ^ 0x5A5A5A:x}"}
    if random.random() < world.KNOWN_SHARE:
        user["buyeruid"] = world.buyeruid(visit.person)
    if random.random() < 0.25:
        segments = random.sample(world.DATA_SEGMENTS, random.randint(2, 3))
        provider = random.choice(world.DATA_PROVIDERS)
        user["data"] = [
            {"id": provider, "name": provider, "segment": [{"id": each} for each in segments]}
        ]
    if random.random() < 0.25:
        user["eids"] = _eids(random, visit.person)
    if privacy == "gdpr":
        user["consent"] = _CONSENT
    return user


def _eids(random: Random, person: int) -> list[Json]:
    eids: list[Json] = [
        {"source": "first-party.example", "uids": [{"id": f"fp-{person:08x}", "atype": 1}]}
    ]
    if random.random() < 0.5:
        uid = {"id": world.eid(person), "atype": 3}
        eids.insert(0, {"source": world.EID_SOURCE, "uids": [uid]})
    return eids


def _blocked(random: Random) -> list[str]:
    codes = random.sample(_BLOCKED, random.randint(2, 6))
    if random.random() < 0.05:
        codes.append(random.choice(_BLOCKED_TRADES))
    return codes


def _source(random: Random, place: Publisher) -> Json:
    nodes: list[Json] = [{"asi": "exchange.example", "sid": place.id, "hp": 1}]
    if random.random() < 0.4:
        nodes.append({"asi": f"{random.choice(_APP_OWNERS)}-ssp.example", "sid": "88120", "hp": 1})
    source: Json = {"tid": f"{random.getrandbits(128):032x}"}
    if random.random() < 0.6:
        source["schain"] = {"ver": "1.0", "complete": 1, "nodes": nodes}
    return source
