"""The places for ads in generated requests: impressions as the usual supply-side software writes.

All functions take the chance that they use, so that equal seeds give equal impressions.
"""

from random import Random
from typing import Final

import orjson

from rtb.sim import world
from rtb.sim.devices import CTV, PC, Device
from rtb.sim.draws import Weighted
from rtb.sim.publishers import Publisher

Json = dict[str, object]

# What a device is asked to show.
_MEDIA: Final = {
    "tv": Weighted(("video", "banner"), (96, 4)),
    "pc": Weighted(("banner", "video", "native", "audio", "multi"), (70, 8, 12, 2, 8)),
    "mobile": Weighted(("banner", "video", "native", "audio", "multi"), (66, 8, 16, 4, 6)),
}
# Median floors of a thousand impressions in dollars; televisions cost more.
FLOOR_CPM: Final = {"banner": 0.35, "video": 4.0, "native": 0.5, "audio": 2.5, "multi": 0.5}
_FLOOR_TV: Final = 1.5
_VIDEO_MIMES: Final = ["video/mp4", "video/webm", "application/x-mpegURL"]
_PROTOCOLS: Final = ([2, 3, 5, 6], [2, 3, 5, 6, 7, 8], [2, 3, 5, 6, 7, 8, 11, 12, 13, 14])
_BATTR: Final[tuple[list[int], ...]] = (
    [],
    [],
    [1, 3, 8, 9, 10, 14],
    [3, 5, 6, 8, 9, 10],
    [13],
    [1, 2, 8, 13, 14],
)


def medium_of(random: Random, device: Device) -> str:
    """What is asked for on a device: one of the media, or "multi" for several at once."""
    group = "tv" if device.type == CTV else "pc" if device.type == PC else "mobile"
    return _MEDIA[group].pick(random)


def impressions(
    random: Random, medium: str, device: Device, place: Publisher, currency: str, units: float
) -> list[Json]:
    """The impressions of one request; `units` of `currency` make a dollar."""
    floor = FLOOR_CPM[medium] * place.quality * units * (_FLOOR_TV if device.type == CTV else 1.0)
    if medium == "video" and device.type == CTV and random.random() < 0.4:
        found = _pod(random, device)
    elif medium in {"banner", "native"} and place.kind == "site" and random.random() < 0.12:
        found = [_imp(random, medium, device, place) for _ in range(random.randint(2, 4))]
    else:
        found = [_imp(random, medium, device, place)]
    offer = random.random() < world.DEAL_SHARE
    for number, imp in enumerate(found, 1):
        imp_floor = floor * random.lognormvariate(0.0, 0.4)
        imp["id"] = str(number)
        imp["bidfloor"] = round(imp_floor, 2)
        imp["bidfloorcur"] = currency
        imp["secure"] = 1
        imp["tagid"] = f"{place.id}-{medium[0]}{number}"
        if random.random() < 0.6:
            imp["ext"] = {"gpid": f"/{40_000 + place.number}/{place.name}/{medium}#{number}"}
        if offer:
            imp["pmp"] = _deals(random, imp_floor, currency)
        if random.random() < 0.3:
            value = round(random.uniform(0.2, 0.95), 2)
            imp["metric"] = [{"type": "viewability", "value": value, "vendor": "EXCHANGE"}]
        if random.random() < 0.3:
            imp["exp"] = random.choice((300, 600, 3600))
    return found


def _imp(random: Random, medium: str, device: Device, place: Publisher) -> Json:
    """One impression without what all media share."""
    imp: Json = {}
    if medium in {"banner", "multi"}:
        imp["banner"] = _banner(random, device, place)
    if medium == "video" or (medium == "multi" and random.random() < 0.6):
        imp["video"] = _video(random, device, place)
    if medium == "native" or (medium == "multi" and (len(imp) < 2 or random.random() < 0.3)):
        imp["native"] = _native(random)
    if medium == "audio":
        imp["audio"] = _audio(random)
    if place.kind == "app" and "video" in imp and random.random() < 0.4:
        imp["instl"] = 1
        imp["rwdd"] = random.randint(0, 1)
    elif place.kind == "app":
        imp["instl"] = 0
        imp["displaymanager"] = "adkit"
        imp["displaymanagerver"] = "5.4.1"
    return imp


def _banner(random: Random, device: Device, place: Publisher) -> Json:
    table = world.BANNER_SIZES["mobile" if device.mobile else "desktop"]
    count = 1 if place.kind == "app" else random.choice((1, 1, 2, 3))
    sizes = [size.split("x") for size in table.several(random, count)]
    formats = [{"w": int(width), "h": int(height)} for width, height in sizes]
    banner: Json = {
        "w": formats[0]["w"], "h": formats[0]["h"], "format": formats,
        "pos": random.choice((1, 1, 3, 0)),
    }  # fmt: skip
    battr = random.choice(_BATTR)
    if battr:
        banner["battr"] = battr
    if place.kind == "app":
        banner["api"] = [3, 5, 6, 7]
    if random.random() < 0.15:
        banner["mimes"] = ["image/jpeg", "image/png", "image/gif", "text/html", "text/javascript"]
    return banner


def _video(random: Random, device: Device, place: Publisher) -> Json:
    tv = device.type == CTV
    width, height = (1920, 1080) if tv else (640, 360) if place.kind == "site" else (640, 480)
    video: Json = {
        "mimes": _VIDEO_MIMES[: random.randint(1, 3)],
        "minduration": random.choice((3, 5, 6)),
        "maxduration": random.choice((30, 30, 45, 60, 16)),
        "protocols": random.choice(_PROTOCOLS),
        "w": width, "h": height,
        "startdelay": 0 if tv else random.choice((0, 0, -1)),
        "plcmt": 1 if tv else random.choice((1, 2, 3, 4)),
        "linearity": 1,
        "playbackmethod": [random.choice((1, 2, 6))],
        "delivery": [1, 2],
        "api": [2, 7],
        "pos": random.choice((1, 7, 0)),
    }  # fmt: skip
    if not tv and random.random() < 0.5:
        video |= {"skip": 1, "skipmin": 15, "skipafter": 5}
    return video


def _pod(random: Random, device: Device) -> list[Json]:
    """A commercial break: as one dynamic pod, or as slots of a structured one."""
    common: Json = {
        "mimes": _VIDEO_MIMES[:2], "protocols": _PROTOCOLS[1], "w": 1920, "h": 1080,
        "startdelay": random.choice((0, -1)), "plcmt": 1, "linearity": 1, "playbackmethod": [1],
        "podid": "pod1",
    }  # fmt: skip
    if random.random() < 0.5:
        seconds = random.choice((60, 90, 120))
        dynamic: Json = {
            "minduration": 6, "maxduration": 30, "poddur": seconds, "maxseq": seconds // 15,
        }  # fmt: skip
        return [{"video": common | dynamic}]
    exact = random.random() < 0.3
    slots: list[Json] = []
    for number in range(random.randint(2, 4)):
        length: Json = {"rqddurs": [15, 30]} if exact else {"minduration": 5, "maxduration": 30}
        slot = 1 if number == 0 else 0
        slots.append({"video": common | length | {"slotinpod": slot, "podseq": 0}})
    return slots


def _native(random: Random) -> Json:
    """The request of a feed ad, which is a JSON text within the JSON (section 3.2.9)."""
    width, height = random.choice(((300, 157), (600, 314), (1200, 627)))
    image = {"type": 3, "wmin": width, "hmin": height}
    assets: list[Json] = [
        {"id": 1, "required": 1, "title": {"len": random.choice((25, 50, 90))}},
        {"id": 2, "required": 1, "img": image},
        {"id": 3, "required": 0, "img": {"type": 1, "wmin": 50, "hmin": 50}},
        {"id": 4, "required": random.randint(0, 1), "data": {"type": 1, "len": 25}},
        {"id": 5, "required": 0, "data": {"type": 2, "len": random.choice((90, 140))}},
        {"id": 6, "required": 0, "data": {"type": 12, "len": 15}},
    ]
    request = {
        "ver": "1.2", "context": random.choice((1, 2)), "plcmttype": random.choice((1, 2, 4)),
        "plcmtcnt": 1, "assets": assets[: random.randint(4, 6)],
        "eventtrackers": [{"event": 1, "methods": [1, 2]}], "privacy": 1,
    }  # fmt: skip
    return {"request": orjson.dumps(request).decode(), "ver": "1.2", "api": [7]}


def _audio(random: Random) -> Json:
    return {
        "mimes": ["audio/mpeg", "audio/mp4", "audio/ogg"],
        "minduration": 5, "maxduration": random.choice((30, 30, 60)),
        "protocols": [2, 3, 7, 9, 10], "startdelay": random.choice((0, -1)),
        "feed": random.choice((1, 3)), "stitched": random.randint(0, 1), "nvol": 4,
        "delivery": [1, 2],
    }  # fmt: skip


def _deals(random: Random, floor: float, currency: str) -> Json:
    deals: list[Json] = []
    for key in world.DEALS.several(random, random.randint(1, 4)):
        deal: Json = {
            "id": key, "bidfloor": round(floor * random.uniform(1.1, 2.0), 2),
            "bidfloorcur": currency, "at": random.choice((1, 1, 1, 2, 3)),
        }  # fmt: skip
        if random.random() < 0.05:
            deal["wseat"] = [f"seat-{random.randrange(500):05d}"]
        deals.append(deal)
    return {"private_auction": int(random.random() < 0.05), "deals": deals}
