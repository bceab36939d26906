"""Small random worlds: a catalogue that uses every rule, and requests and people that meet it."""

import json
import random

import numpy as np

from rtb.base.hashing import token_hash
from rtb.base.records import OVERLAY, Dim
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import (
    Advertiser,
    Campaign,
    Catalogue,
    Creative,
    Deal,
    ExcludePurchased,
    Flight,
    FrequencyCap,
    Goal,
    Image,
    LineItem,
    MediaFile,
    Native,
    Priors,
    Product,
    Segment,
    Transparency,
)
from rtb.catalogue.snapshot import Snapshot
from rtb.profiles import record

NOW_MS = 1_790_000_000_000
COUNTRIES = ("USA", "DEU", "FRA")
SEGMENTS = ("sport", "home", "pets")
SIZES = ((300, 250), (728, 90), (320, 50), (300, 600))
CATEGORIES = ("IAB1", "IAB2-3", "IAB7-39", "IAB19")
DEALS = ("deal-1", "deal-2", "deal-3")
PRODUCTS = 12
LANDING_PAGES = (
    "https://shop.test/landing",
    "https://shop.test/landing?rtb={conversion_token}",
    "https://shop.test/?i={imp_id}&a={auction_id}&b={bid_id}#{width}x{height}",
    "https://shop.test/a%20b/%C3%BC?q=100%25&x={cachebuster}",
    "https://shop.test/%C3%BC?q=a%2Fb",
    "https://shop.test/{bid_id}{bid_id}/%zz",
)


def _leaf(chance: random.Random) -> dict[str, object]:
    return chance.choice(
        [
            {"key": "country", "in": chance.sample(COUNTRIES, chance.randint(1, 2))},
            {"key": "domain", "in": [chance.choice(["example.com", "news.test", "shop.test"])]},
            {"key": "device_type", "in": [str(chance.choice([1, 2, 4, 5]))]},
            {"key": "os", "in": [chance.choice(["ios", "android"])]},
            {"key": "os_version", "at_least": chance.choice(["10", "15.1"])},
            {"key": "viewability", "at_least": 0.5},
            {"key": "distance", "within_km": 50, "of": [[52.5, 13.4], [48.1, 11.6]]},
            {"key": "audience", "in": chance.sample(SEGMENTS, 1)},
            {"key": "category", "in": [chance.choice(CATEGORIES)]},
            {"key": "keyword", "in": [chance.choice(["shoes", "bikes"])]},
            {"key": "hour", "hours": [f"0-{chance.randint(6, 23)}"]},
            {"key": "size", "in": [chance.choice(["300x250", "728x90"])]},
            {"key": "position", "in": ["1"]},
            {"key": "key_value", "in": [chance.choice(["tier=gold", "tier=tin"])]},
            {"key": "exchange", "in": ["generic"]},
        ]
    )


def _tree(chance: random.Random, depth: int = 0) -> dict[str, object]:
    kind = chance.random()
    if depth >= 2 or kind < 0.4:
        return _leaf(chance)
    if kind < 0.55:
        return {"not": _tree(chance, depth + 1)}
    children = [_tree(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    return {"all" if kind < 0.75 else "any": children}


def _creative(chance: random.Random, number: int, advertiser: str) -> Creative:
    kind = chance.choice(["image", "image", "html", "flex", "native", "video", "audio"])
    shared: dict[str, object] = {
        "id": f"c{number}",
        "advertiser": advertiser,
        "landing_page": LANDING_PAGES[number % len(LANDING_PAGES)],
        "categories": {"1": tuple(chance.sample(CATEGORIES, chance.randint(0, 2)))},
        "attr": tuple(chance.sample([1, 6, 13, 16], chance.randint(0, 1))),
        "api": tuple(chance.sample([3, 5], chance.randint(0, 1))),
        "language": chance.choice([None, "en", "de"]),
        "bundle": chance.choice([None, None, "com.shop.app"]),
        "product": chance.choice([None, f"p{chance.randrange(PRODUCTS)}"]),
    }
    scheme = chance.choice(["https", "https", "http"])
    if kind == "image":
        w, h = chance.choice(SIZES)
        shared |= {"type": "image", "image_url": f"{scheme}://cdn.test/{number}.png"}
        shared |= {"width": w, "height": h}
    elif kind == "html":
        w, h = chance.choice(SIZES)
        shared |= {"type": "html", "html": "<b>{bid_id}</b>", "width": w, "height": h}
        shared |= {"expandable": tuple(chance.sample([1, 2, 3], chance.randint(0, 1)))}
    elif kind == "flex":
        shared |= {"type": "html", "html": "<i>{width}x{height}</i>"}
    elif kind == "native":
        main = Image(url="https://cdn.test/m.jpg", width=1200, height=627, mime="image/jpeg")
        shared |= {
            "type": "native",
            "native": Native(
                title="T" * chance.randint(5, 60), main=main, sponsored="Shop", cta="Buy"
            ),
        }
    else:
        kbps = chance.choice([None, 400, 4000])
        # Files draw for themselves, so that a world is the same with more of them.
        own = random.Random(number)
        files = tuple(_file(own, scheme, kind, kbps) for _ in range(own.choice([1, 1, 2, 3])))
        shared |= {
            "type": kind, "media_files": files, "duration_s": chance.choice([6, 15, 30]),
            "vast_version": chance.choice(["2.0", "3.0", "4.2"]),
            "skip_after_s": chance.choice([None, 5]), "width": 640, "height": 360,
        }  # fmt: skip
    return Creative(**shared)  # type: ignore[arg-type]


def _file(chance: random.Random, scheme: str, kind: str, kbps: int | None) -> MediaFile:
    mimes = ["video/mp4", "video/mp4", "video/webm"] if kind == "video" else ["audio/mpeg"]
    return MediaFile(
        url=f"{scheme}://cdn.test/v{chance.randrange(20)}",
        mime=chance.choice(mimes),
        width=640,
        height=chance.choice([360, 360, 480]),
        bitrate_kbps=chance.choice([kbps, 700]),
        delivery=chance.choice(["progressive", "streaming"]),
    )


def _goal(chance: random.Random) -> Goal:
    kind = chance.choice(["cpm", "cpc", "cpa", "roas"])
    if kind == "cpm":
        return Goal(type="cpm", amount=f"{chance.uniform(0.2, 9):.4f}")
    if kind == "roas":
        return Goal(type="roas", target_roas=chance.uniform(1, 8), order_value="55.50")
    return Goal(type=kind, amount="0.80" if kind == "cpc" else "12")  # type: ignore[arg-type]


def catalogue(seed: int, line_items: int) -> Catalogue:
    """A catalogue of some line items; the same seed gives the same one."""
    chance = random.Random(seed)
    found = Catalogue()
    for name in SEGMENTS:
        found.add(Segment(id=name))
    for name in DEALS:
        found.add(Deal(id=name, exchange="generic"))
    for number in range(4):
        seats = {"generic": f"seat-{number}"} if number % 2 else {}
        found.add(
            Advertiser(
                id=f"a{number}",
                name=f"A{number}",
                domains=(f"www.shop{number}.test",),
                seats=seats,
                currency="EUR" if number == 3 else "USD",
                dsa=Transparency("A", "B", adrender=number == 2) if number in (1, 2) else None,
            )
        )
        found.add(Campaign(id=f"k{number}", advertiser=f"a{number}"))
        for product in range(PRODUCTS):
            found.add(
                Product(
                    id=f"p{product}",
                    advertiser=f"a{number}",
                    title="P",
                    price="9.99 USD",
                    link="https://shop.test/p",
                    image_link="https://cdn.test/p.jpg",
                    availability="out_of_stock" if product == 0 else "in_stock",
                    product_type=chance.choice(["Shoes > Running", "Shoes", "Home > Pots"]),
                )
            )
    for number in range(line_items):
        owner = chance.randrange(4)
        creatives = []
        for _ in range(chance.randint(1, 4)):
            creative = _creative(chance, len(found.creatives), f"a{owner}")
            found.add(creative)
            creatives.append(creative.id)
        deals = tuple(chance.sample(DEALS, chance.choice([0, 0, 0, 1, 2])))
        flights = chance.choice(
            [
                (),
                (Flight(start="2020-01-01", end="2040-01-01"),),
                (Flight(start="2020-01-01", end="2021-01-01"),),
            ]
        )
        found.add(
            LineItem(
                id=f"l{number}",
                campaign=f"k{owner}",
                goal=_goal(chance),
                creatives=tuple(creatives),
                flights=flights,
                max_cpm="40",
                targeting=_tree(chance) if chance.random() < 0.6 else None,
                deals=deals,
                open_market=chance.choice([None, True]) if deals else None,
                repeat=chance.random() < 0.3,
                needs_profile=chance.random() < 0.1,
                separation=chance.choice([None, "cars", "soap"]),
                exclude_purchased=ExcludePurchased(
                    item_days=chance.choice([0, 30]), category_days=chance.choice([0, 10])
                ),
                frequency_caps=(FrequencyCap(level="line_item", count=2, window="1d"),)
                if chance.random() < 0.3
                else (),
                priors=Priors(ctr=chance.uniform(0.0005, 0.02), cvr=chance.uniform(0.01, 0.1)),
                shade=chance.choice([1.0, 0.7]),
            )
        )
    return found


def snapshot(seed: int, line_items: int) -> Snapshot:
    """The compiled catalogue of a seed."""
    arrays, meta = compile_snapshot(catalogue(seed, line_items))
    return Snapshot(arrays, meta, f"seed-{seed}")


def _av(chance: random.Random) -> dict[str, object]:
    found: dict[str, object] = {"mimes": ["video/mp4", "audio/mpeg"], "w": 640, "h": 360}
    options: list[dict[str, object]] = [
        {"minduration": 5, "maxduration": 30},
        {"rqddurs": [6, 15]},
        {"protocols": [2, 3, 7]},
        {"skip": chance.choice([0, 1])},
        {"api": [3, 5, 7]},
        {"poddur": 45, "maxseq": 3, "podid": "pod"},
        {"podid": "pod", "poddedupe": [chance.randint(1, 5)]},
        {"poddur": 90, "poddedupe": [chance.randint(1, 5)]},
        {"boxingallowed": 0},
        {"delivery": [1]},
        {"mincpmpersec": 0.05},
        {"durfloors": [{"mindur": 1, "maxdur": 10, "bidfloor": 2}, {"mindur": 11, "bidfloor": 3}]},
        {"maxbitrate": 1000},
        {"minbitrate": 500},
        {"battr": [13]},
        {"linearity": 1},
    ]
    for option in chance.sample(options, chance.randint(1, 5)):
        found |= option
    return found


def _native(chance: random.Random) -> dict[str, object]:
    assets = [
        {"id": 1, "required": 1, "title": {"len": chance.choice([25, 90])}},
        {"id": 2, "required": 1, "img": {"type": 3, "wmin": 600, "hmin": 300}},
        {"id": 3, "required": chance.randint(0, 1), "data": {"type": 12, "len": 15}},
    ]
    if chance.random() < 0.2:
        assets[chance.randrange(3)]["id"] = 1
    return {"request": json.dumps({"ver": "1.2", "assets": assets}), "api": [3, 5]}


def _imp(chance: random.Random, number: int) -> dict[str, object]:
    imp: dict[str, object] = {"id": f"i{number}"}
    if chance.random() < 0.7:
        sizes = chance.sample(SIZES, chance.randint(1, 3))
        banner: dict[str, object] = {"format": [{"w": w, "h": h} for w, h in sizes]}
        banner |= chance.choice([{}, {"api": [3, 5]}, {"battr": [1]}, {"btype": [4]}, {"pos": 1}])
        banner |= chance.choice([{}, {"mimes": ["image/png", "text/html"]}, {"expdir": [2]}])
        if sizes == [SIZES[0]]:  # old spelling of some sizes: a range about them
            del banner["format"]
            banner |= {"wmin": SIZES[0][0] - 10, "wmax": SIZES[0][0], "hmax": SIZES[0][1]}
        imp["banner"] = banner
    if chance.random() < 0.35:
        imp["video"] = _av(chance)
    if chance.random() < 0.1:
        imp["audio"] = _av(chance)
    if chance.random() < 0.25:
        imp["native"] = _native(chance)
    imp["bidfloor"] = chance.choice([0, 0, 0.1, 2.5])
    imp |= chance.choice([{}, {"bidfloorcur": "EUR"}, {"secure": 1}, {"instl": 1}])
    if chance.random() < 0.4:
        deals: list[dict[str, object]] = []
        for deal in chance.sample(DEALS, chance.randint(1, 3)):
            deals.append({"id": deal, "bidfloor": chance.choice([0, 0.5, 3])})
            deals[-1] |= chance.choice([{}, {"at": 1}, {"at": 3}, {"at": 2}])
            deals[-1] |= chance.choice([{}, {}, {"wseat": ["seat-1", "house"]}])
            deals[-1] |= chance.choice([{}, {}, {"wadomain": ["shop1.test", "shop2.test"]}])
            deals[-1] |= chance.choice([{}, {"bidfloorcur": "EUR"}])
        imp["pmp"] = {"private_auction": chance.choice([0, 0, 1]), "deals": deals}
    if chance.random() < 0.3:
        imp["metric"] = [{"type": "viewability", "value": chance.random()}]
    return imp


def request(chance: random.Random) -> dict[str, object]:
    """One bid request as a tree."""
    found: dict[str, object] = {
        "id": f"r{chance.getrandbits(48)}",
        "imp": [_imp(chance, number) for number in range(chance.choice([1, 1, 2, 4, 9]))],
        "site": {
            "domain": chance.choice(["www.example.com", "news.test", "x.shop.test"]),
            "cat": chance.sample(CATEGORIES, 2),
            "keywords": chance.choice(["shoes,red", "bikes", ""]),
            "ext": {"data": {"tier": chance.choice(["gold", "tin"])}},
        },
        "device": {
            "devicetype": chance.choice([1, 2, 4]),
            "os": chance.choice(["iOS", "Android", "Windows"]),
            "osv": chance.choice(["9.1", "15.2", "17"]),
            "geo": {
                "country": chance.choice(COUNTRIES), "lat": 52.4, "lon": 13.1,
                "utcoffset": chance.choice([-300, 60]),
            },
        },
    }  # fmt: skip
    found |= chance.choice([{}, {"at": 1}, {"at": 1}, {"at": 2}, {"at": 3}])
    found |= chance.choice([{}, {"cur": ["USD"]}, {"cur": ["EUR"]}, {"cur": ["XXX"]}])
    found |= chance.choice(
        [{}, {"bcat": ["IAB7"]}, {"acat": chance.sample(["IAB1", "IAB2", "IAB7", "IAB19"], 2)}]
    )
    found |= chance.choice([{}, {"badv": ["shop0.test"]}, {"bapp": ["com.shop.app"]}])
    found |= chance.choice([{}, {"wseat": ["seat-1", "house"]}, {"bseat": ["seat-3"]}])
    found |= chance.choice([{}, {"wlang": ["de"]}, {"regs": {"gdpr": 1}}, {"regs": {"coppa": 1}}])
    told = {"dsarequired": chance.randint(1, 3)}
    told |= chance.choice([{}, {"pubrender": chance.randint(0, 2)}])
    dsa = {"ext": {"dsa": told}}
    found |= chance.choice([{}, {}, {}, {"regs": dsa}])
    return found


def profile(chance: random.Random) -> bytes | None:
    """A stored person, or nobody."""
    if chance.random() < 0.2:
        return None
    now_s = NOW_MS // 1000

    def entries(hashes: list[int]) -> bytes:
        rows = [
            (value, now_s - chance.randrange(1, 60 * 86_400), chance.randint(1, 3))
            for value in sorted(set(hashes))
        ]
        parts.append(len(rows))
        return b"".join(
            a.to_bytes(8, "little") + b.to_bytes(4, "little") + c.to_bytes(4, "little")
            for a, b, c in rows
        )

    parts: list[int] = []
    segments = sorted(
        token_hash(Dim.AUDIENCE, name.encode()) for name in SEGMENTS if chance.random() < 0.5
    )
    items = [
        token_hash(Dim.ITEM, f"a{chance.randrange(4)}/p{chance.randrange(PRODUCTS)}".encode())
        for _ in range(chance.randint(0, 8))
    ]
    categories = [
        token_hash(Dim.CATEGORY, f"a{chance.randrange(4)}/Shoes".encode())
        for _ in range(chance.randint(0, 2))
    ]
    caps = [
        token_hash(Dim.CAP, f"line_item/l{chance.randrange(60)}/86400".encode()) for _ in range(12)
    ]
    opt_outs = [token_hash(Dim.OPT_OUT, b"a2")] if chance.random() < 0.2 else []
    body = b"".join(hash_.to_bytes(8, "little") for hash_ in segments)
    body += entries(items) + entries(categories) + entries(caps)
    body += b"".join(hash_.to_bytes(8, "little") for hash_ in opt_outs)
    head = np.zeros(1, record.HEADER)
    head["magic"], head["version"] = record.MAGIC, record.VERSION
    kind = chance.random()
    head["flags"] = record.OPT_OUT if kind < 0.05 else record.UNCOUNTED if kind > 0.95 else 0
    head["segments_count"], head["opt_outs_count"] = len(segments), len(opt_outs)
    head["items_count"], head["categories_count"], head["caps_count"] = parts
    return head.tobytes() + body


def overlay(chance: random.Random, line_items: int) -> np.ndarray:
    """What the node knows of a world's line items: most run freely, a few have no row."""
    rows = np.zeros(line_items - 3, OVERLAY)
    for row in rows:
        row["multiplier_e6"] = chance.choice((1_000_000, 1_000_000, 2_000_000, 400_000, 0))
        row["participation_e4"] = chance.choice((10_000, 10_000, 10_000, 5_000, 0))
        row["bits"] = chance.choice((0,) * 20 + (1, 2, 4, 6))
    return rows
