"""The rules of a catalogue: what one object may say, and what objects may say of each other.

`check` is pure: a catalogue in, findings out. An error means that the object cannot be served as
written; a warning, that it can, but perhaps not as meant. Types were checked on reading; here are
values: references that lead nowhere, money below nothing, flights that end before they start,
sizes that no screen has, URLs that a browser should not open.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import msgspec

from rtb.base.links import CONVERSION_MACRO
from rtb.base.money import CPM_MICROS_MAX, currency_code
from rtb.catalogue import render, vast
from rtb.catalogue.model import (
    KINDS,
    Advertiser,
    Amount,
    Budget,
    Campaign,
    Catalogue,
    Creative,
    Deal,
    Entity,
    Flight,
    FrequencyCap,
    Image,
    LineItem,
    Product,
    Segment,
    flight_ms,
    is_zone,
    key_of,
    micros,
    price_of,
    product_key,
    window_s,
)
from rtb.catalogue.targeting import (
    ALIASES,
    audiences,
    category_text,
    faults,
    host_text,
    language_text,
    token_text,
)

Severity = Literal["error", "warning"]

# Limits, each far above honest use.
ID_CHARS_MAX: Final = 128
TEXT_CHARS_MAX: Final = 5_000
MARKUP_BYTES_MAX: Final = 256 * 1024
SIDE_PX_MAX: Final = 16_384
DURATION_S_MAX: Final = 6 * 3600
DAYS_MAX: Final = 3_650
CREATIVES_MAX: Final = 200  # of one line item
# Below a thousandth of a unit an amount is probably units that should be micros.
SUSPICIOUS_MICROS: Final = 1_000
# regs.ext.dsa allows no longer names (OpenRTB DSA transparency extension).
DSA_CHARS_MAX: Final = 100

# A host, then anything that stands in a URL or a macro. No credentials: they only deceive.
_URL = re.compile(
    r"https?://[^\s/?#@\"<>\\^`\x00-\x20]+(?:[/?#][^\s\"<>\\^`\x00-\x20]*)?", re.IGNORECASE
)
# Control characters as JSON escapes them, after any number of escaped backslashes. Tab and line
# breaks have forms of their own, and are text.
_CONTROL = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:u00[01][0-9a-f]|[bf])")
AVAILABILITIES: Final = frozenset({
    "in_stock", "instock", "out_of_stock", "outofstock", "preorder", "backorder", "available",
    "unavailable", "discontinued",
})  # fmt: skip


class Finding(NamedTuple):
    """One thing that is wrong: with which object, in which field, how badly."""

    kind: str
    key: str
    field: str
    message: str
    severity: Severity = "error"


# What has budgets or frequency caps of its own.
_COUNTED: Final = frozenset({"advertisers", "campaigns", "line_items", "creatives"})
_Remark = tuple[str, str] | tuple[str, str, Severity]  # field, message, severity
_Remarks = Iterator[_Remark]


# Targeting key -> its values that requests are known to have, in lower case; "currency": those that
# have a rate. This package knows neither the wire nor the settings: who calls brings them.
Known = Mapping[str, Set[str]]
NOTHING_KNOWN: Final[Known] = {}


def check(catalogue: Catalogue, known: Known = NOTHING_KNOWN) -> Iterator[Finding]:
    """Every rule on every object, in the order of `KINDS`."""
    for kind in KINDS:
        yield from _twins(kind, catalogue)
        for entity in catalogue.table(kind).values():
            yield from check_entity(kind, entity, catalogue, known)


def _twins(kind: str, catalogue: Catalogue) -> Iterator[Finding]:
    """Ids that are one to the hash under which money and impressions are counted."""
    seen: dict[bytes, str] = {}
    for key in catalogue.table(kind) if kind in _COUNTED else ():
        first = seen.setdefault(key.encode(errors="replace").lower(), key)
        if first != key:
            message = f"differs from {first!r} only in case: they could not be counted apart"
            yield Finding(kind, key, "id", message)


def check_entity(
    kind: str, entity: Entity, catalogue: Catalogue, known: Known = NOTHING_KNOWN
) -> Iterator[Finding]:
    """Every rule on one object, which need not be in the catalogue itself."""
    key = key_of(entity)
    # Text that cannot be encoded would stop every other rule.
    remarks = list(_texts(entity)) or _RULES[kind](entity, catalogue)
    for remark in (*_id(entity), *remarks):
        yield Finding(kind, key, *remark)
    if known and isinstance(entity, LineItem):
        for remark in _unheard(entity.targeting, known):
            yield Finding(kind, key, *remark)
    rates = known.get("currency")
    if rates and isinstance(entity, Advertiser) and entity.currency.lower() not in rates:
        told = f"no rate for {entity.currency!r}: it cannot bid where another currency is asked for"
        yield Finding(kind, key, "currency", told, "warning")


def sound_part(catalogue: Catalogue) -> Catalogue:
    """The catalogue without what has errors and what hangs on that.

    A line item keeps going with the creatives and deals that remain, as long as some do.
    """
    catalogue = _without(catalogue, set())
    while errors := [each for each in check(catalogue) if each.severity == "error"]:
        catalogue = _without(catalogue, {(each.kind, each.key) for each in errors})
    return catalogue


def _without(catalogue: Catalogue, bad: Set[tuple[str, str]]) -> Catalogue:
    kept = {
        kind: {key: each for key, each in catalogue.table(kind).items() if (kind, key) not in bad}
        for kind in KINDS
    }
    result = Catalogue()
    for entity in (each for table in kept.values() for each in table.values()):
        if isinstance(entity, LineItem):
            creatives = tuple(each for each in entity.creatives if each in kept["creatives"])
            deals = tuple(each for each in entity.deals if each in kept["deals"])
            if (creatives, deals) != (entity.creatives, entity.deals):
                entity = msgspec.structs.replace(
                    entity,
                    creatives=creatives,
                    deals=deals,
                    open_market=entity.in_open_market,
                )
        result.add(entity)
    return result


# -- texts, numbers, times ------------------------------------------------------------------------


def _id(entity: Entity) -> _Remarks:
    if not entity.id or len(entity.id) > ID_CHARS_MAX or entity.id != entity.id.strip():
        yield "id", f"expected 1 to {ID_CHARS_MAX} characters without spaces around them"


def _texts(entity: Entity) -> _Remarks:
    """No control characters anywhere; in an id no tab and no line break either."""
    if any(char in "\t\n\r" for char in entity.id):
        yield "id", "control character"
    try:
        if not _CONTROL.search(msgspec.json.encode(entity)):
            return
    except UnicodeEncodeError:
        yield "", "half a surrogate pair: not a text"
        return
    for name in entity.__struct_fields__:
        if _CONTROL.search(msgspec.json.encode(getattr(entity, name))):
            yield name, "control character"


def _amount(field: str, amount: Amount | None, top: int, least: int = 1) -> _Remarks:
    """An amount within [least, top] micros; None is no amount."""
    if amount is None:
        return
    try:
        value = micros(amount)
    except ValueError as error:
        yield field, str(error)
        return
    if not least <= value <= top:
        yield field, f"out of range: {amount!r}"
    elif isinstance(amount, int) and 0 < value < SUSPICIOUS_MICROS:
        yield field, f"{amount} micros is next to nothing; as text it would be units", "warning"


# Totals go further than prices, but stay exact in 64 bits with room to add them up.
TOTAL_MICROS_MAX: Final = 10**15


IMPRESSIONS_MAX: Final = 10**12
# What the budget of each object can say.
_BUDGETS: Final = {
    "advertiser": ("total",),
    "campaign": ("total", "daily"),
    "flight": ("total", "impressions"),
    "line item": ("total", "daily", "impressions", "mode"),
}


def _budget(budget: Budget, owner: str, field: str = "budget") -> _Remarks:
    for name in Budget.__struct_fields__:
        if name not in _BUDGETS[owner] and getattr(budget, name) != getattr(Budget(), name):
            yield f"{field}.{name}", f"the budget of a {owner} has {', '.join(_BUDGETS[owner])}"
    yield from _amount(f"{field}.total", budget.total, TOTAL_MICROS_MAX, 0)
    yield from _amount(f"{field}.daily", budget.daily, TOTAL_MICROS_MAX, 0)
    if budget.impressions is not None:
        yield from _number(f"{field}.impressions", budget.impressions, 0, IMPRESSIONS_MAX)


def _number(field: str, value: float, low: float, high: float, open_low: bool = False) -> _Remarks:
    inside = low < value <= high if open_low else low <= value <= high
    if not inside:
        start = "over" if open_low else "from"
        yield field, f"expected a number {start} {low:g} to {high:g}, got {value!r}"


def _caps(caps: tuple[FrequencyCap, ...], levels: tuple[str, ...]) -> _Remarks:
    for index, cap in enumerate(caps):
        place = f"frequency_caps[{index}]"
        yield from _number(f"{place}.count", cap.count, 1, 1_000_000)
        if cap.level not in (None, *levels):
            yield f"{place}.level", f"expected one of {', '.join(levels)}"
        try:
            window_s(cap.window)
        except ValueError as error:
            yield f"{place}.window", str(error)


def _flights(flights: tuple[Flight, ...], advertiser: Advertiser | None) -> _Remarks:
    timezone = advertiser.timezone if advertiser and is_zone(advertiser.timezone) else "UTC"
    spans: list[tuple[int, int, int]] = []
    for index, flight in enumerate(flights):
        yield from _budget(flight.budget, "flight", f"flights[{index}].budget")
        try:
            start, end = flight_ms(flight, timezone)
        except (ValueError, OverflowError) as error:
            yield f"flights[{index}]", str(error)
            continue
        if end <= start:
            yield f"flights[{index}]", "ends before it starts"
        else:
            spans.append((start, end, index))
    spans.sort()
    for (_, end, first), (start, _, second) in pairwise(spans):
        if start < end:
            # A moment has one flight, or its money would have two budgets.
            yield f"flights[{second}]", f"overlaps flights[{first}]"


def _each(field: str, values: tuple[str, ...], read: Callable[[str], str]) -> _Remarks:
    """Values that a reader refuses."""
    for index, value in enumerate(values):
        try:
            read(value)
        except ValueError as error:
            yield f"{field}[{index}]", f"{error}, got {value!r}"


# -- few rules ------------------------------------------------------------------------------------


def _plain(entity: Segment, catalogue: Catalogue) -> _Remarks:
    yield from ()


def _deal(deal: Deal, catalogue: Catalogue) -> _Remarks:
    if not deal.exchange:
        yield "exchange", "expected the name of an exchange"


def _advertiser(advertiser: Advertiser, catalogue: Catalogue) -> _Remarks:
    if "/" in advertiser.id:
        # "advertiser/product" is the key of a product, here and in profiles.
        yield "id", "must not contain a slash"
    try:
        currency_code(advertiser.currency)
    except ValueError as error:
        yield "currency", str(error)
    if not is_zone(advertiser.timezone):
        yield "timezone", f"unknown time zone {advertiser.timezone!r}"
    yield from _each("domains", advertiser.domains, host_text)
    for exchange, seat in advertiser.seats.items():
        if not exchange or not seat:
            yield "seats", "expected exchange = seat, both not empty"
    yield from _budget(advertiser.budget, "advertiser")
    yield from _caps(advertiser.frequency_caps, ("advertiser", "campaign", "line_item"))
    if advertiser.dsa is not None:
        for name in ("behalf", "paid"):
            if not 0 < len(getattr(advertiser.dsa, name)) <= DSA_CHARS_MAX:
                yield f"dsa.{name}", f"expected 1 to {DSA_CHARS_MAX} characters"


def _campaign(campaign: Campaign, catalogue: Catalogue) -> _Remarks:
    advertiser = catalogue.advertisers.get(campaign.advertiser)
    if advertiser is None:
        yield "advertiser", f"unknown advertiser {campaign.advertiser!r}"
    yield from _flights(campaign.flights, advertiser)
    yield from _budget(campaign.budget, "campaign")
    yield from _caps(campaign.frequency_caps, ("campaign", "line_item"))


def _product(product: Product, catalogue: Catalogue) -> _Remarks:
    advertiser = catalogue.advertisers.get(product.advertiser)
    if advertiser is None:
        yield "advertiser", f"unknown advertiser {product.advertiser!r}"
    if not product.title.strip():
        yield "title", "expected a text"
    for name in ("title", "description"):
        if len(getattr(product, name)) > TEXT_CHARS_MAX:
            yield name, f"longer than {TEXT_CHARS_MAX} characters"
    for name in ("price", "sale_price"):
        yield from _price(name, getattr(product, name), advertiser)
    for name in ("link", "image_link"):
        yield from _url(name, getattr(product, name) or None, None)
    if product.availability.strip().lower().replace(" ", "_") not in AVAILABILITIES:
        yield "availability", f"unknown availability {product.availability!r}"


def _price(field: str, text: str | None, advertiser: Advertiser | None) -> _Remarks:
    if text is None:
        return
    try:
        price, currency = price_of(text)
    except ValueError as error:
        yield field, str(error)
        return
    if not 0 <= price <= TOTAL_MICROS_MAX:
        yield field, f"out of range: {text!r}"
    if advertiser and currency != advertiser.currency.upper():
        yield (
            field,
            f"in {currency}, while the advertiser counts in {advertiser.currency}",
            "warning",
        )


# -- line items -----------------------------------------------------------------------------------


def _line_item(line_item: LineItem, catalogue: Catalogue) -> _Remarks:
    campaign = catalogue.campaigns.get(line_item.campaign)
    if campaign is None:
        yield "campaign", f"unknown campaign {line_item.campaign!r}"
    owner = campaign.advertiser if campaign else None
    yield from _goal(line_item)
    yield from _line_item_creatives(line_item, owner, catalogue)
    yield from _line_item_deals(line_item, catalogue)
    yield from _targeting(line_item, catalogue)
    yield from _flights(line_item.flights, catalogue.advertisers.get(owner or ""))
    yield from _budget(line_item.budget, "line item")
    yield from _caps(line_item.frequency_caps, ("line_item", "campaign", "advertiser"))
    yield from _number("priors.ctr", line_item.priors.ctr, 0, 1, open_low=True)
    yield from _number("priors.cvr", line_item.priors.cvr, 0, 1, open_low=True)
    yield from _number("shade", line_item.shade, 0, 1, open_low=True)
    exclude = line_item.exclude_purchased
    yield from _number("exclude_purchased.item_days", exclude.item_days, 0, DAYS_MAX)
    yield from _number("exclude_purchased.category_days", exclude.category_days, 0, DAYS_MAX)


def _goal(line_item: LineItem) -> _Remarks:
    goal = line_item.goal
    if goal.type == "roas":
        if goal.order_value is None or goal.target_roas is None:
            yield "goal", "a roas goal needs order_value and target_roas"
        elif goal.amount is not None:
            yield "goal.amount", "a roas goal has none: its amount is order_value / target_roas"
        yield from _amount("goal.order_value", goal.order_value, TOTAL_MICROS_MAX)
        if goal.target_roas is not None:
            yield from _number("goal.target_roas", goal.target_roas, 0, 10_000, open_low=True)
    else:
        if goal.amount is None:
            yield "goal.amount", f"a {goal.type} goal needs an amount"
        if goal.order_value is not None or goal.target_roas is not None:
            yield "goal", f"order_value and target_roas belong to a roas goal, not {goal.type}"
        top = CPM_MICROS_MAX if goal.type == "cpm" else TOTAL_MICROS_MAX
        yield from _amount("goal.amount", goal.amount, top)
    if line_item.max_cpm is None and goal.type != "cpm":
        yield "max_cpm", f"a {goal.type} goal needs max_cpm, the most to pay for 1,000 impressions"
    yield from _amount("max_cpm", line_item.max_cpm, CPM_MICROS_MAX)


def _line_item_creatives(line_item: LineItem, owner: str | None, catalogue: Catalogue) -> _Remarks:
    if not line_item.creatives:
        yield "creatives", "expected at least one creative"
    if len(line_item.creatives) > CREATIVES_MAX:
        yield "creatives", f"more than {CREATIVES_MAX}"
    if len(set(line_item.creatives)) != len(line_item.creatives):
        yield "creatives", "names a creative twice"
    for index, key in enumerate(line_item.creatives):
        creative = catalogue.creatives.get(key)
        if creative is None:
            yield f"creatives[{index}]", f"unknown creative {key!r}"
        elif owner is not None and creative.advertiser != owner:
            yield f"creatives[{index}]", f"{key!r} belongs to advertiser {creative.advertiser!r}"


def _line_item_deals(line_item: LineItem, catalogue: Catalogue) -> _Remarks:
    for index, key in enumerate(line_item.deals):
        if key not in catalogue.deals:
            yield f"deals[{index}]", f"unknown deal {key!r}"
    if len(set(line_item.deals)) != len(line_item.deals):
        yield "deals", "names a deal twice"
    if not line_item.deals and not line_item.in_open_market:
        yield "open_market", "false without deals: it could never bid"


def _targeting(line_item: LineItem, catalogue: Catalogue) -> _Remarks:
    found = list(faults(line_item.targeting))
    yield from ((fault.path, fault.reason) for fault in found)
    wrong = tuple(fault.path for fault in found)
    # A tree deeper than the stack has been told as a fault.
    with contextlib.suppress(RecursionError):
        for path, segment in audiences(line_item.targeting):
            if segment not in catalogue.segments and not path.startswith(wrong):
                yield path, f"unknown segment {segment!r}"


def _unheard(tree: object, known: Known) -> _Remarks:
    """Values that may be written, but that perhaps no request ever has."""
    for path, key, value in _values(tree):
        if key not in known:
            continue
        with contextlib.suppress(ValueError):  # told by the rules
            if token_text(key, value)[1] not in known[key]:
                yield path, f"unknown {key} {value!r}: perhaps no request ever says it", "warning"


def _values(tree: object) -> Iterator[tuple[str, str, str]]:
    """(path, key, value) of every text that a tree compares with, readable or not."""
    waiting: list[tuple[str, object]] = [("targeting", tree)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        for word, body in reversed(node.items()):
            if word == "not":
                waiting.append((f"{path}.not", body))
            elif word in {"all", "any"} and isinstance(body, list | tuple):
                waiting += [(f"{path}.{word}[{n}]", body[n]) for n in reversed(range(len(body)))]
        values = node["in"] if "in" in node else [node.get("is")]
        for index, value in enumerate(values if isinstance(values, list | tuple) else ()):
            if isinstance(value, str):
                key = str(node.get("key"))
                yield f"{path}.in[{index}]", ALIASES.get(key, key), value


# -- creatives ------------------------------------------------------------------------------------


def _creative(creative: Creative, catalogue: Catalogue) -> _Remarks:
    advertiser = catalogue.advertisers.get(creative.advertiser)
    if advertiser is None:
        yield "advertiser", f"unknown advertiser {creative.advertiser!r}"
    elif not creative.domains and not advertiser.domains:
        yield "domains", "neither the creative nor its advertiser has any; exchanges require one"
    product = _product_of(creative, catalogue)
    # Of an advertiser that is unknown no product can be known: said once is enough.
    unknowable = creative.product is not None and advertiser is None
    if creative.product is not None and product is None and not unknowable:
        yield "product", f"unknown product {creative.product!r} of {creative.advertiser!r}"
    wrong = [*_TYPES[creative.type](creative), *_sizes(creative), *_lists(creative)]
    wrong += [*_urls(creative), *_caps(creative.frequency_caps, ("creative",))]
    yield from wrong
    if not unknowable and not any(len(remark) == 2 for remark in wrong):
        yield from _rendering(creative, product)


def _product_of(creative: Creative, catalogue: Catalogue) -> Product | None:
    if creative.product is None:
        return None
    return catalogue.products.get(product_key(creative.advertiser, creative.product))


def _needs(creative: Creative, *names: str) -> _Remarks:
    for name in names:
        if not getattr(creative, name):
            yield name, f"a creative of type {creative.type} needs it"


def _image(creative: Creative) -> _Remarks:
    yield from _needs(creative, "image_url", "width", "height", "landing_page")
    mime = creative.mime or render.mime_of(creative.image_url or "")
    if not render.mime_mask(mime):
        yield "mime", "unknown image type: not served where the exchange lists types", "warning"


def _html(creative: Creative) -> _Remarks:
    yield from _needs(creative, "html")
    if (creative.width is None) != (creative.height is None):
        yield "width", "expected both width and height, or neither for any size"


def _native(creative: Creative) -> _Remarks:
    yield from _needs(creative, "native", "landing_page")
    native = creative.native
    if native is None:
        return
    if not native.title.strip():
        yield "native.title", "expected a text"
    for number in native.data:
        if not (number.isascii() and number.isdigit() and 0 < int(number[:4]) < 256):
            yield "native.data", f"expected the number of a data type, got {number!r}"
    images: dict[str, Image | None] = {"native.icon": native.icon, "native.main": native.main}
    images |= {f"native.images[{index}]": image for index, image in enumerate(native.images)}
    for place, image in images.items():
        if image is not None:
            yield from _number(f"{place}.width", image.width, 1, SIDE_PX_MAX)
            yield from _number(f"{place}.height", image.height, 1, SIDE_PX_MAX)
            yield from _url(f"{place}.url", image.url, creative.secure)
    if creative.media_files:
        yield from _needs(creative, "duration_s")


def _av(creative: Creative) -> _Remarks:
    if bool(creative.media_files) == bool(creative.vast_tag_url):
        yield "media_files", "expected either media_files or vast_tag_url"
    yield from _needs(creative, "duration_s")
    if creative.vast_tag_url and not render.mime_mask(creative.mime or ""):
        told = "of the media behind the tag: not served where the exchange lists types, and most do"
        yield "mime", told, "warning"
    if creative.media_files and not creative.landing_page:
        yield "landing_page", "none: the ad cannot be clicked", "warning"
    for event in creative.tracking:
        name, at, offset = event.partition("@")
        if name not in vast.EVENTS or (name == "progress") != bool(at):
            yield f"tracking.{event}", "unknown event; progress is written progress@seconds"
        elif at and not (offset.isascii() and offset.isdigit() and len(offset) < 6):
            yield f"tracking.{event}", "expected whole seconds after @"
    if creative.type == "video" and creative.media_files and not _video_sized(creative):
        yield "width", "the video's width and height are needed, here or on its media files"


def _video_sized(creative: Creative) -> bool:
    own = creative.width and creative.height
    return bool(own) or all(file.width and file.height for file in creative.media_files)


_TYPES: Final[dict[str, Callable[[Creative], _Remarks]]] = {
    "image": _image,
    "html": _html,
    "native": _native,
    "video": _av,
    "audio": _av,
}


def _sizes(creative: Creative) -> _Remarks:
    """Sizes, durations and rates that exist."""
    limits = {
        "width": (1, SIDE_PX_MAX),
        "height": (1, SIDE_PX_MAX),
        "duration_s": (1, DURATION_S_MAX),
        "skip_after_s": (0, DURATION_S_MAX),
    }
    for name, (low, high) in limits.items():
        value: int | None = getattr(creative, name)
        if value is not None:
            yield from _number(name, value, low, high)
    for index, file in enumerate(creative.media_files):
        place = f"media_files[{index}]"
        for name, number in (("width", file.width), ("height", file.height)):
            if number is not None:
                yield from _number(f"{place}.{name}", number, 1, SIDE_PX_MAX)
        if file.bitrate_kbps is not None:
            yield from _number(f"{place}.bitrate_kbps", file.bitrate_kbps, 1, 1_000_000)
        if not render.mime_mask(file.mime):
            yield f"{place}.mime", f"unknown type {file.mime!r}: refused by most", "warning"


def _lists(creative: Creative) -> _Remarks:
    """Numbers of the exchange's lists, categories, domains, language."""
    for name, values, top in (
        ("attr", creative.attr, 63),
        ("api", creative.api, 31),
        ("expandable", creative.expandable, 6),
    ):
        if any(not 1 <= value <= top for value in values):
            yield name, f"expected numbers from 1 to {top}"
    for taxonomy, codes in creative.categories.items():
        texts = tuple(f"{taxonomy}:{code}" for code in codes)
        yield from _each(f"categories.{taxonomy}", texts, category_text)
    if not creative.categories:
        yield "categories", "none: some exchanges refuse bids without category", "warning"
    yield from _each("domains", creative.domains, host_text)
    if creative.language is not None:
        try:
            language_text(creative.language)
        except ValueError as error:
            yield "language", str(error)


def _urls(creative: Creative) -> _Remarks:
    """Every URL field."""
    for name in ("image_url", "landing_page", "vast_tag_url", "error_url", "preview_url"):
        yield from _url(name, getattr(creative, name), creative.secure)
    lists: dict[str, tuple[str, ...]] = {
        "click_trackers": creative.click_trackers,
        "impression_urls": creative.impression_urls,
        "media_files": tuple(file.url for file in creative.media_files),
    }
    lists |= {f"tracking.{event}": urls for event, urls in creative.tracking.items()}
    for name, urls in lists.items():
        for index, url in enumerate(urls):
            yield from _url(f"{name}[{index}]", url, creative.secure)


def _url(field: str, url: str | None, secure: bool | None) -> _Remarks:
    if url is None:
        return
    if not _URL.fullmatch(url):
        yield field, f"expected a URL that begins with https://, got {url[:80]!r}"
    elif url.lower().startswith("http://"):
        if secure:
            yield field, "http:// in a creative that is declared secure"
        else:
            yield field, "http:// is not served where the exchange asks for https", "warning"


def _rendering(creative: Creative, product: Product | None) -> _Remarks:
    """What shows only when the ad is put together: macros, its size, its safety."""
    try:
        markup = render.markup(creative, product)
        assets = render.assets(creative, product)
        secure = render.is_secure(creative, product)
        render.click_target(creative, product)
        if creative.preview_url:
            render.expand(creative.preview_url, creative, product, "url")
    except render.MacroError as error:
        yield _field_of(error, creative), str(error)
        return
    if len(markup.encode()) > MARKUP_BYTES_MAX:
        yield "html", f"renders to more than {MARKUP_BYTES_MAX} bytes"
    if creative.secure and not secure:
        yield "secure", "declared secure, but contains http://"
    # A link is filled with its click URL, and so are the macros in it.
    if any(render.has_hole(asset.text) for asset in assets if asset.kind != render.LINK):
        yield "native", "macros of the auction cannot stand in native assets"
    if creative.type == "html" and render.has_unsafe_script(creative.html or ""):
        yield "html", "a product macro or notice URL inside <script> needs |js", "warning"
    if any(CONVERSION_MACRO in text for text in (markup, *(asset.text for asset in assets))):
        told = f"{CONVERSION_MACRO} is filled where a click leads to, by {{click_url}}, only"
        yield creative.type, told, "warning"
    for macro, meant in render.misspelt(markup, *(asset.text for asset in assets)):
        told = f"{macro} is no macro and stays as it is: {{{meant}}} was meant?"
        yield creative.type, told, "warning"
    if "${" in (creative.landing_page or ""):
        yield "landing_page", "clicks are signed before the exchange could fill ${...}", "warning"


def _field_of(error: render.MacroError, creative: Creative) -> str:
    if "product." in str(error):
        return "product"
    return "landing_page" if "landing_page" in str(error) else creative.type


_RULES: Final[dict[str, Callable[..., _Remarks]]] = {
    "advertisers": _advertiser,
    "segments": _plain,
    "deals": _deal,
    "campaigns": _campaign,
    "products": _product,
    "creatives": _creative,
    "line_items": _line_item,
}
