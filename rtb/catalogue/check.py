"""The rules of a catalogue: what one object may say, and what objects may say of each other.

`check` is pure: a catalogue in, findings out. An error means that the object cannot be served as
written; a warning, that it can, but perhaps not as meant. Types were checked on reading; here are
values: references that lead nowhere, money below nothing, flights that end before they start,
sizes that no screen has, URLs that a browser should not open.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from rtb.base.money import CPM_MICROS_MAX, currency_code, currency_name
from rtb.catalogue import check_parts as parts
from rtb.catalogue.check_creatives import creative_remarks
from rtb.catalogue.check_parts import TOTAL_MICROS_MAX, Remarks, Severity
from rtb.catalogue.model import (
    KINDS,
    Advertiser,
    Campaign,
    Catalogue,
    Deal,
    Entity,
    LineItem,
    Product,
    Segment,
    is_zone,
    key_of,
    price_of,
)
from rtb.catalogue.targeting_parse import audiences, faults
from rtb.catalogue.targeting_values import ALIASES, host_text, token_text
from rtb.catalogue.tokens import ad_key, owner_key

# Limits, each far above honest use.
ID_CHARS_MAX: Final = 128
TEXT_CHARS_MAX: Final = 5_000
DAYS_MAX: Final = 3_650
CREATIVES_MAX: Final = 200  # of one line item
# regs.ext.dsa allows no longer names (OpenRTB DSA transparency extension).
DSA_CHARS_MAX: Final = 100

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


class Owner(NamedTuple):
    """Whose money a line item spends, in keys of the books; and what it is called there."""

    campaign: int
    advertiser: int
    currency: int
    name: str


@dataclass(frozen=True)
class Outside:
    """What rules compare a catalogue with, and it does not say itself: whoever calls brings it.

    values      targeting key -> its values that requests are known to have, in lower case
    currencies  that have a rate, in lower case; empty where rates are not known
    owners      of line items that have books, by their keys
    """

    values: Mapping[str, Set[str]] = field(default_factory=dict)
    currencies: Set[str] = frozenset()
    owners: Mapping[int, Owner] = field(default_factory=dict)

    @cached_property
    def campaigns(self) -> Mapping[int, Owner]:
        """Whose the campaigns are, by their keys."""
        return {one.campaign: one for one in self.owners.values()}

    @cached_property
    def advertisers(self) -> Mapping[int, Owner]:
        """What advertisers count in, by their keys."""
        return {one.advertiser: one for one in self.owners.values()}


NOTHING_KNOWN: Final = Outside()


def check(catalogue: Catalogue, outside: Outside = NOTHING_KNOWN) -> Iterator[Finding]:
    """Every rule on every object, in the order of `KINDS`."""
    for kind in KINDS:
        yield from _twins(kind, catalogue)
        for entity in catalogue.table(kind).values():
            yield from check_entity(kind, entity, catalogue, outside)


def _twins(kind: str, catalogue: Catalogue) -> Iterator[Finding]:
    """Ids that are one to the hash under which money and impressions are counted."""
    seen: dict[bytes, str] = {}
    for key in catalogue.table(kind) if kind in _COUNTED else ():
        first = seen.setdefault(key.encode(errors="replace").lower(), key)
        if first != key:
            message = f"differs from {first!r} only in case: they could not be counted apart"
            yield Finding(kind, key, "id", message)


def check_entity(
    kind: str, entity: Entity, catalogue: Catalogue, outside: Outside = NOTHING_KNOWN
) -> Iterator[Finding]:
    """Every rule on one object, which need not be in the catalogue itself."""
    key = key_of(entity)
    # Text that cannot be encoded would stop every other rule.
    remarks = list(_texts(entity)) or _RULES[kind](entity, catalogue)
    for remark in (*_id(entity), *remarks):
        yield Finding(kind, key, *remark)
    for remark in _compared(entity, outside):
        yield Finding(kind, key, *remark)


def _compared(entity: Entity, outside: Outside) -> Remarks:
    """What of one object only shows beside what is outside of the catalogue.

    Money was lent and booked under an owner, and in his currency: it cannot move to another.
    """
    if isinstance(entity, LineItem):
        yield from _unheard(entity.targeting, outside)
        booked = outside.owners.get(ad_key("line_item", entity.id))
        if booked and booked.campaign != ad_key("campaign", entity.campaign):
            yield "campaign", _moved(f"as {booked.name!r}")
    elif isinstance(entity, Campaign):
        booked = outside.campaigns.get(ad_key("campaign", entity.id))
        if booked and booked.advertiser != owner_key(entity.advertiser):
            yield "advertiser", _moved(f"under another advertiser, with {booked.name!r}")
    elif isinstance(entity, Advertiser):
        booked = outside.advertisers.get(owner_key(entity.id))
        currency = entity.currency.lower()
        if booked and currency_name(booked.currency).lower() != currency:
            yield "currency", _moved(f"in {currency_name(booked.currency)}, with {booked.name!r}")
        if outside.currencies and currency not in outside.currencies:
            told = f"no rate for {entity.currency!r}: nothing can be bid in another currency"
            yield "currency", told, "warning"


def _moved(where: str) -> str:
    return f"it is in the books {where}, and money cannot move: give it a new id"


def sound_part(catalogue: Catalogue, outside: Outside = NOTHING_KNOWN) -> Catalogue:
    """The catalogue without what has errors and what hangs on that.

    A line item keeps going with the creatives and deals that remain, as long as some do.
    """
    catalogue = _without(catalogue, set())
    while errors := [each for each in check(catalogue, outside) if each.severity == "error"]:
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


def _id(entity: Entity) -> Remarks:
    if not entity.id or len(entity.id) > ID_CHARS_MAX or entity.id != entity.id.strip():
        yield "id", f"expected 1 to {ID_CHARS_MAX} characters without spaces around them"


def _texts(entity: Entity) -> Remarks:
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


# -- few rules ------------------------------------------------------------------------------------


def _plain(entity: Segment, catalogue: Catalogue) -> Remarks:
    yield from ()


def _deal(deal: Deal, catalogue: Catalogue) -> Remarks:
    if not deal.exchange:
        yield "exchange", "expected the name of an exchange"


def _advertiser(advertiser: Advertiser, catalogue: Catalogue) -> Remarks:
    if "/" in advertiser.id:
        # "advertiser/product" is the key of a product, here and in profiles.
        yield "id", "must not contain a slash"
    try:
        currency_code(advertiser.currency)
    except ValueError as error:
        yield "currency", str(error)
    if not is_zone(advertiser.timezone):
        yield "timezone", f"unknown time zone {advertiser.timezone!r}"
    yield from parts.each("domains", advertiser.domains, host_text)
    for exchange, seat in advertiser.seats.items():
        if not exchange or not seat:
            yield "seats", "expected exchange = seat, both not empty"
    yield from parts.budget(advertiser.budget, "advertiser")
    yield from parts.caps(advertiser.frequency_caps, ("advertiser", "campaign", "line_item"))
    if advertiser.dsa is not None:
        for name in ("behalf", "paid"):
            if not 0 < len(getattr(advertiser.dsa, name)) <= DSA_CHARS_MAX:
                yield f"dsa.{name}", f"expected 1 to {DSA_CHARS_MAX} characters"


def _campaign(campaign: Campaign, catalogue: Catalogue) -> Remarks:
    advertiser = catalogue.advertisers.get(campaign.advertiser)
    if advertiser is None:
        yield "advertiser", f"unknown advertiser {campaign.advertiser!r}"
    yield from parts.flights(campaign.flights, advertiser)
    yield from parts.budget(campaign.budget, "campaign")
    yield from parts.caps(campaign.frequency_caps, ("campaign", "line_item"))


def _product(product: Product, catalogue: Catalogue) -> Remarks:
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
        yield from parts.url(name, getattr(product, name) or None, None)
    if product.availability.strip().lower().replace(" ", "_") not in AVAILABILITIES:
        yield "availability", f"unknown availability {product.availability!r}"


def _price(field: str, text: str | None, advertiser: Advertiser | None) -> Remarks:
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


def _line_item(line_item: LineItem, catalogue: Catalogue) -> Remarks:
    campaign = catalogue.campaigns.get(line_item.campaign)
    if campaign is None:
        yield "campaign", f"unknown campaign {line_item.campaign!r}"
    owner = campaign.advertiser if campaign else None
    yield from _goal(line_item)
    yield from _line_item_creatives(line_item, owner, catalogue)
    yield from _line_item_deals(line_item, catalogue)
    yield from _targeting(line_item, catalogue)
    yield from parts.flights(line_item.flights, catalogue.advertisers.get(owner or ""))
    yield from parts.budget(line_item.budget, "line item")
    yield from parts.caps(line_item.frequency_caps, ("line_item", "campaign", "advertiser"))
    yield from parts.number("priors.ctr", line_item.priors.ctr, 0, 1, open_low=True)
    yield from parts.number("priors.cvr", line_item.priors.cvr, 0, 1, open_low=True)
    yield from parts.number("shade", line_item.shade, 0, 1, open_low=True)
    exclude = line_item.exclude_purchased
    yield from parts.number("exclude_purchased.item_days", exclude.item_days, 0, DAYS_MAX)
    yield from parts.number("exclude_purchased.category_days", exclude.category_days, 0, DAYS_MAX)


def _goal(line_item: LineItem) -> Remarks:
    goal = line_item.goal
    if goal.type == "roas":
        if goal.order_value is None or goal.target_roas is None:
            yield "goal", "a roas goal needs order_value and target_roas"
        elif goal.amount is not None:
            yield "goal.amount", "a roas goal has none: its amount is order_value / target_roas"
        yield from parts.amount("goal.order_value", goal.order_value, TOTAL_MICROS_MAX)
        if goal.target_roas is not None:
            yield from parts.number("goal.target_roas", goal.target_roas, 0, 10_000, open_low=True)
    else:
        if goal.amount is None:
            yield "goal.amount", f"a {goal.type} goal needs an amount"
        if goal.order_value is not None or goal.target_roas is not None:
            yield "goal", f"order_value and target_roas belong to a roas goal, not {goal.type}"
        top = CPM_MICROS_MAX if goal.type == "cpm" else TOTAL_MICROS_MAX
        yield from parts.amount("goal.amount", goal.amount, top)
    if line_item.max_cpm is None and goal.type != "cpm":
        yield "max_cpm", f"a {goal.type} goal needs max_cpm, the most to pay for 1,000 impressions"
    yield from parts.amount("max_cpm", line_item.max_cpm, CPM_MICROS_MAX)


def _line_item_creatives(line_item: LineItem, owner: str | None, catalogue: Catalogue) -> Remarks:
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


def _line_item_deals(line_item: LineItem, catalogue: Catalogue) -> Remarks:
    for index, key in enumerate(line_item.deals):
        if key not in catalogue.deals:
            yield f"deals[{index}]", f"unknown deal {key!r}"
    if len(set(line_item.deals)) != len(line_item.deals):
        yield "deals", "names a deal twice"
    if not line_item.deals and not line_item.in_open_market:
        yield "open_market", "false without deals: it could never bid"


def _targeting(line_item: LineItem, catalogue: Catalogue) -> Remarks:
    found = list(faults(line_item.targeting))
    yield from ((fault.path, fault.reason) for fault in found)
    wrong = tuple(fault.path for fault in found)
    # A tree deeper than the stack has been told as a fault.
    with contextlib.suppress(RecursionError):
        for path, segment in audiences(line_item.targeting):
            if segment not in catalogue.segments and not path.startswith(wrong):
                yield path, f"unknown segment {segment!r}"


def _unheard(tree: object, outside: Outside) -> Remarks:
    """Values that may be written, but that perhaps no request ever has."""
    known = outside.values
    for path, key, value in _values(tree) if known else ():
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


_RULES: Final[dict[str, Callable[..., Remarks]]] = {
    "advertisers": _advertiser,
    "segments": _plain,
    "deals": _deal,
    "campaigns": _campaign,
    "products": _product,
    "creatives": creative_remarks,
    "line_items": _line_item,
}
