"""What single objects of the catalogue say, in the numbers that the snapshot holds. All pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from rtb.base.records import Dim
from rtb.catalogue import render, vast
from rtb.catalogue.model import (
    FLIGHT_MS_MAX,
    FLIGHT_MS_MIN,
    Advertiser,
    Campaign,
    Creative,
    FrequencyCap,
    Goal,
    LineItem,
    Product,
    category_prefixes,
    flight_ms,
    micros,
    product_key,
    window_s,
)
from rtb.catalogue.targeting_values import language_text
from rtb.catalogue.tokens import ad_key, hash_of

# `delivery` of a media file as the lists of OpenRTB number it.
DELIVERY: Final = {"streaming": 1, "progressive": 2}


def flights_ms(
    line_item: LineItem, campaign: Campaign, advertiser: Advertiser
) -> list[tuple[int, int]]:
    """Flights of a line item, else of its campaign, else always."""
    flights = line_item.flights or campaign.flights
    if not flights:
        return [(FLIGHT_MS_MIN, FLIGHT_MS_MAX)]
    return sorted(flight_ms(flight, advertiser.timezone) for flight in flights)


def bid_micros(goal: Goal) -> int:
    """What one unit of the goal is worth: 1,000 impressions, a click, an action."""
    if goal.type == "roas":
        # A conversion may cost what keeps the return: its order value over the target.
        return int(micros(goal.order_value or 0) / (goal.target_roas or 1.0))
    return micros(goal.amount or 0)


def max_cpm_micros(line_item: LineItem) -> int:
    """The most that 1,000 impressions may cost; a CPM goal is its own limit."""
    if line_item.max_cpm is not None:
        return micros(line_item.max_cpm)
    return bid_micros(line_item.goal)


def expected_cpm_micros(line_item: LineItem) -> int:
    """Value of 1,000 impressions by the priors: orders line items, prices nothing."""
    value: float = bid_micros(line_item.goal)
    if line_item.goal.type != "cpm":
        value *= 1000 * line_item.priors.ctr
    if line_item.goal.type in {"cpa", "roas"}:
        value *= line_item.priors.cvr
    return min(int(value), max_cpm_micros(line_item))


def mask(numbers: Iterable[int]) -> int:
    """Bit n for each number n."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def domain_parents(domain: str) -> Iterator[str]:
    """A domain and every parent of it that still has a dot."""
    labels = domain.lower().split(".")
    for first in range(max(len(labels) - 1, 1)):
        yield ".".join(labels[first:])


def category_tokens(categories: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Categories as "cattax:code", and tier one of those of taxonomy 1."""
    for taxonomy, codes in categories.items():
        for code in codes:
            yield from code_tokens(taxonomy, code)


def code_tokens(taxonomy: str, code: str) -> Iterator[str]:
    """A category, and in taxonomy 1 the tier one that it belongs to."""
    yield f"{taxonomy}:{code}"
    if taxonomy == "1" and "-" in code:
        yield f"1:{code.split('-', 1)[0]}"


def caps(
    line_item: LineItem, campaign: Campaign, advertiser: Advertiser
) -> list[tuple[int, int, int]]:
    """Caps of a line item and of what it belongs to: hash, count, window; each count once."""
    ids = {"line_item": line_item.id, "campaign": campaign.id, "advertiser": advertiser.id}
    found: list[tuple[int, int, int]] = []
    owners: tuple[tuple[str, tuple[FrequencyCap, ...]], ...] = (
        ("line_item", line_item.frequency_caps),
        ("campaign", campaign.frequency_caps),
        ("advertiser", advertiser.frequency_caps),
    )
    for owner, its_caps in owners:
        for cap in its_caps:
            level = cap.level or owner
            found.append(_cap(cap, level, ids[level]))
    return _strictest(found)


def creative_caps(creative: Creative) -> list[tuple[int, int, int]]:
    """Caps of a creative, whichever line item shows it."""
    return _strictest(_cap(cap, "creative", creative.id) for cap in creative.frequency_caps)


def _strictest(caps: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Of several limits of one count the lowest: an impression must not count for it twice."""
    limits: dict[tuple[int, int], int] = {}
    for hash_, count, seconds in caps:
        limits[hash_, seconds] = min(count, limits.get((hash_, seconds), count))
    return [(hash_, count, seconds) for (hash_, seconds), count in limits.items()]


def _cap(cap: FrequencyCap, level: str, owner: str) -> tuple[int, int, int]:
    seconds = window_s(cap.window)
    return hash_of(Dim.CAP, f"{level}/{owner}/{seconds}"), cap.count, seconds


def is_available(availability: str) -> bool:
    """May the product be advertised: in stock, or orderable before it is."""
    return availability.strip().lower().replace(" ", "_") in {
        "in_stock", "instock", "preorder", "backorder", "available",
    }  # fmt: skip


def creative_facts(
    creative: Creative, advertiser: Advertiser, product: Product | None
) -> dict[str, object]:
    """The columns of a creative that its line item does not change."""
    is_av = creative.type in {"video", "audio"}
    language = creative.language
    return {
        "key": ad_key("creative", creative.id),
        "attr": mask(creative.attr),
        "mime": render.creative_mimes(creative),
        "language": hash_of(Dim.WLANG, language_text(language)) if language else 0,
        "bundle": hash_of(Dim.BAPP, creative.bundle) if creative.bundle else 0,
        "api": mask(creative.api),
        "w": render.shown_size(creative)[0] or 0,
        "h": render.shown_size(creative)[1] or 0,
        "dur_s": creative.duration_s or 0,
        "skip_s": -1 if creative.skip_after_s is None else creative.skip_after_s,
        "media": int(render.media_number(creative)),
        "btype": render.banner_type(creative) if creative.media == "banner" else 0,
        "secure": render.is_secure(creative, product),
        "protocol": vast.protocol(creative) if is_av else 0,
        "linearity": creative.linearity if creative.type == "video" else 0,
        "expand": mask(creative.expandable),
        "rating": creative.rating or 0,
        "dsa": 0 if advertiser.dsa is None else 1 + advertiser.dsa.adrender,
        "item": hash_of(Dim.ITEM, product_key(advertiser.id, product.id)) if product else 0,
        "available": is_available(product.availability) if product else True,
    }


def renditions(creative: Creative, product: Product | None) -> list[tuple[int, ...]]:
    """What a player may choose among, as `snapshot.RENDITION` has it; none but of video and audio.

    Of a tag nothing is known but what the creative says of the media behind it.
    """
    if creative.type not in {"video", "audio"}:
        return []
    own = (creative.width or 0, creative.height or 0)
    if not creative.media_files:
        url = _file_key(creative.vast_tag_url or "", creative, product)
        return [(url, render.creative_mimes(creative), 0, *own, 0)]
    # Where no file says a type that is known, the creative may.
    mimes = [render.mime_mask(file.mime) for file in creative.media_files]
    mimes = mimes if any(mimes) else [render.creative_mimes(creative)] * len(mimes)
    return [
        (
            _file_key(file.url, creative, product),
            mime,
            file.bitrate_kbps or 0,
            *((file.width, file.height) if file.width and file.height else own),
            mask([DELIVERY[file.delivery]]),
        )
        for file, mime in zip(creative.media_files, mimes, strict=True)
    ]


def _file_key(url: str, creative: Creative, product: Product | None) -> int:
    return ad_key("file", render.expand(url, creative, product, "url"))


def creative_features(creative: Creative, product: Product | None) -> Iterator[int]:
    """Model tokens of a creative that do not depend on its line item."""
    names = [f"creative:{creative.id}", f"media:{creative.media}"]
    if creative.width and creative.height:
        names.append(f"size:{creative.width}x{creative.height}")
    if product:
        names.append(f"product:{product.id}")
        names += [f"category:{prefix}" for prefix in category_prefixes(product.category)]
    names += [f"category:{token}" for token in category_tokens(creative.categories)]
    for name in dict.fromkeys(names):
        yield hash_of(Dim.AD, name)
