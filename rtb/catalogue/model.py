"""The catalogue as people write it: advertiser -> campaign -> line item -> creative, and products,
deals, segments beside them.

Every field is checked for its type when it is read (`load`), every rule between fields and objects
in `check`; `compile` may rely on both. Amounts are decimal text in the advertiser's currency
("1.25") or integer micros (1_250_000); a bare float is refused, because 0.1 is not a tenth.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from rtb.base.money import parse_micros

Amount = str | int
Status = Literal["active", "paused", "archived"]
# How a budget is spent over its day or flight: by the clock, faster at first, as fast as it goes,
# or by the traffic that each hour brings.
Pacing = Literal["even", "ahead", "asap", "traffic"]

# Priors where the advertiser gives none: a display click in a thousand, an order in a hundred.
CTR_PRIOR: Final = 0.001
CVR_PRIOR: Final = 0.01


class _Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all: immutable, and an unknown field is an error."""


class FrequencyCap(_Object, frozen=True):
    """At most `count` impressions to one person in `window` ("1h", "7d", "lifetime").

    `level` says whose impressions count together; by default those of the object it stands in.
    """

    count: int
    window: str
    level: Literal["creative", "line_item", "campaign", "advertiser"] | None = None


class Budget(_Object, frozen=True):
    """What may be spent; the ledger alone enforces it. None is no limit, 0 is nothing at all.

    total          over the lifetime, or of the flight it stands in
    daily          each day of the advertiser's time zone anew; of campaigns and line items
    impressions    as `total`, in impressions; of line items and flights
    mode           of line items. "strict": every bid in flight is counted at its full price, so
                   nothing is overspent. "expected": at its price times the chance to win; more
                   bids fit, and at most what those in flight lack is overspent.
    """

    total: Amount | None = None
    daily: Amount | None = None
    impressions: int | None = None
    mode: Literal["strict", "expected"] = "strict"


class Transparency(_Object, frozen=True):
    """Who is behind an ad, as the Digital Services Act asks (`bid.ext.dsa`): on whose behalf it is
    shown and who paid for it, up to 100 characters each. `adrender`: his ads say so themselves."""

    behalf: str
    paid: str
    adrender: bool = False


class Advertiser(_Object, frozen=True):
    """Who pays. `seats` names the buyer seat on each exchange."""

    id: str
    name: str = ""
    status: Status = "active"
    domains: tuple[str, ...] = ()
    seats: dict[str, str] = {}
    currency: str = "USD"
    timezone: str = "UTC"
    separation: str | None = None
    budget: Budget = Budget()
    frequency_caps: tuple[FrequencyCap, ...] = ()
    dsa: Transparency | None = None
    external_id: str | None = None


class Flight(_Object, frozen=True):
    """When to run: [start, end). A date without time is its midnight in the advertiser's zone; a
    date as `end` is the last day, included. `budget` is for this flight alone; that of a
    campaign's flight is shared by the line items that run in it."""

    start: str | None = None
    end: str | None = None
    budget: Budget = Budget()


class Campaign(_Object, frozen=True):
    """A goal holder; flights and caps hold for its line items that have none of their own."""

    id: str
    advertiser: str
    name: str = ""
    status: Status = "active"
    flights: tuple[Flight, ...] = ()
    budget: Budget = Budget()
    frequency_caps: tuple[FrequencyCap, ...] = ()
    separation: str | None = None
    external_id: str | None = None


class Goal(_Object, frozen=True):
    """What an impression is worth: `amount` per 1,000 impressions, per click or per action, or a
    return on spend: `order_value` expected per conversion, divided by `target_roas`."""

    type: Literal["cpm", "cpc", "cpa", "roas"]
    amount: Amount | None = None
    target_roas: float | None = None
    order_value: Amount | None = None


class ExcludePurchased(_Object, frozen=True):
    """Leave out people who bought the creative's product, or from its category, within days."""

    item_days: int = 0
    category_days: int = 0


class Priors(_Object, frozen=True):
    """Click and conversion rates to assume while no model knows better."""

    ctr: float = CTR_PRIOR
    cvr: float = CVR_PRIOR


class LineItem(_Object, frozen=True):
    """The spending unit. `open_market` defaults to true without deals and false with them."""

    id: str
    campaign: str
    goal: Goal
    creatives: tuple[str, ...]
    name: str = ""
    status: Status = "active"
    max_cpm: Amount | None = None
    flights: tuple[Flight, ...] = ()
    budget: Budget = Budget()
    pacing: Pacing = "asap"
    frequency_caps: tuple[FrequencyCap, ...] = ()
    targeting: dict[str, object] | None = None
    deals: tuple[str, ...] = ()
    open_market: bool | None = None
    repeat: bool = False
    needs_profile: bool = False
    separation: str | None = None
    exclude_purchased: ExcludePurchased = ExcludePurchased()
    priors: Priors = Priors()
    shade: float = 1.0
    external_id: str | None = None

    @property
    def in_open_market(self) -> bool:
        """May it bid without a deal."""
        return not self.deals if self.open_market is None else self.open_market


class Image(_Object, frozen=True):
    """An image of a native ad."""

    url: str
    width: int
    height: int
    mime: str | None = None


class Native(_Object, frozen=True):
    """The assets of a native ad; the exchange chooses among them. `data` holds texts by the number
    of their data type for those that have no name here."""

    title: str
    icon: Image | None = None
    main: Image | None = None
    images: tuple[Image, ...] = ()
    sponsored: str | None = None
    description: str | None = None
    rating: str | None = None
    likes: str | None = None
    downloads: str | None = None
    price: str | None = None
    sale_price: str | None = None
    phone: str | None = None
    address: str | None = None
    description2: str | None = None
    display_url: str | None = None
    cta: str | None = None
    data: dict[str, str] = {}


class MediaFile(_Object, frozen=True):
    """One rendition of a video or audio ad."""

    url: str
    mime: str
    width: int | None = None
    height: int | None = None
    bitrate_kbps: int | None = None
    delivery: Literal["streaming", "progressive"] = "progressive"


VastVersion = Literal["2.0", "3.0", "4.0", "4.1", "4.2", "4.3"]


class Creative(_Object, frozen=True):
    """An ad. `type` says which fields count:

    image            image_url, width, height, landing_page, alt
    html             html; without width and height it fits any size
    native           native, landing_page; media_files make its video asset
    video, audio     media_files or vast_tag_url (a wrapper), duration_s, vast_version
    """

    id: str
    advertiser: str
    type: Literal["image", "html", "native", "video", "audio"]
    name: str = ""
    status: Status = "active"
    width: int | None = None
    height: int | None = None
    mime: str | None = None
    landing_page: str | None = None
    image_url: str | None = None
    alt: str = ""
    html: str | None = None
    native: Native | None = None
    media_files: tuple[MediaFile, ...] = ()
    vast_tag_url: str | None = None
    vast_version: VastVersion = "3.0"
    duration_s: int | None = None
    linearity: Literal[1, 2] = 1
    skip_after_s: int | None = None
    frequency_caps: tuple[FrequencyCap, ...] = ()
    error_url: str | None = None
    tracking: dict[str, tuple[str, ...]] = {}
    click_trackers: tuple[str, ...] = ()
    impression_urls: tuple[str, ...] = ()
    attr: tuple[int, ...] = ()
    api: tuple[int, ...] = ()
    btype: Literal[1, 2, 3, 4] | None = None
    expandable: tuple[int, ...] = ()
    categories: dict[str, tuple[str, ...]] = {}
    domains: tuple[str, ...] = ()
    bundle: str | None = None
    language: str | None = None
    rating: Literal[1, 2, 3] | None = None
    product: str | None = None
    exchange_status: dict[str, Literal["approved", "pending", "rejected", "suspended"]] = {}
    secure: bool | None = None
    preview_url: str | None = None
    external_id: str | None = None

    @property
    def flexible(self) -> bool:
        """Does it fit any size offered."""
        return self.type == "html" and self.width is None and self.height is None

    @property
    def media(self) -> str:
        """The medium as `Dim.MEDIA` spells it."""
        return "banner" if self.type in {"image", "html"} else self.type


class Product(_Object, frozen=True):
    """An item of an advertiser's shop, in the columns of a Google Merchant feed.

    Title and price are needed too; `check` asks for them, so that a row tells all its faults.
    """

    id: str
    advertiser: str
    title: str = ""
    price: str = ""
    link: str = ""
    image_link: str = ""
    description: str = ""
    sale_price: str | None = None
    availability: str = "in_stock"
    product_type: str | None = None
    google_product_category: str | None = None
    brand: str | None = None
    item_group_id: str | None = None
    gtin: str | None = None
    mpn: str | None = None
    condition: str | None = None
    color: str | None = None
    size: str | None = None

    @property
    def category(self) -> str:
        """The path of its category, "Shoes > Running"; "" when it has none."""
        return self.product_type or self.google_product_category or ""


class Deal(_Object, frozen=True):
    """A private marketplace deal that was agreed on one exchange."""

    id: str
    exchange: str
    name: str = ""


class Segment(_Object, frozen=True):
    """An audience of ours; profiles carry its id."""

    id: str
    name: str = ""


Entity = Advertiser | Campaign | LineItem | Creative | Product | Deal | Segment

# Table name -> type; the order is that of dependence: nothing refers to what comes later.
KINDS: Final[dict[str, type[Entity]]] = {
    "advertisers": Advertiser,
    "segments": Segment,
    "deals": Deal,
    "campaigns": Campaign,
    "products": Product,
    "creatives": Creative,
    "line_items": LineItem,
}


class Catalogue(msgspec.Struct, kw_only=True):
    """All objects by id; products by "advertiser/id", because shops number their items alike."""

    advertisers: dict[str, Advertiser] = {}
    campaigns: dict[str, Campaign] = {}
    line_items: dict[str, LineItem] = {}
    creatives: dict[str, Creative] = {}
    products: dict[str, Product] = {}
    deals: dict[str, Deal] = {}
    segments: dict[str, Segment] = {}

    def table(self, kind: str) -> dict[str, Entity]:
        """One of the tables by its name in `KINDS`."""
        table: dict[str, Entity] = getattr(self, kind)
        return table

    def add(self, entity: Entity) -> bool:
        """Puts an object in its table; False, and nothing changes, when the id is taken."""
        table = self.table(_TABLES[type(entity)])
        return table.setdefault(key_of(entity), entity) is entity


_TABLES: Final = {entity: kind for kind, entity in KINDS.items()}


def key_of(entity: Entity) -> str:
    """The key of an object in its table of the catalogue."""
    if isinstance(entity, Product):
        return product_key(entity.advertiser, entity.id)
    return entity.id


def product_key(advertiser: str, product: str) -> str:
    """The key of a product; also the text of its `Dim.ITEM` token."""
    return f"{advertiser}/{product}"


def micros(amount: Amount) -> int:
    """An amount as micros.

    Raises: ValueError for text that is not a finite decimal, or next to nothing but not 0.
    """
    if isinstance(amount, int):
        return amount
    found = parse_micros(amount)
    if not found and any(digit in amount.lower().partition("e")[0] for digit in "123456789"):
        raise ValueError(f"less than a millionth: {amount[:40]!r}")
    return found


def price_of(text: str) -> tuple[int, str]:
    """A feed's price, "45.00 USD", as micros and currency.

    Raises: ValueError unless it is a decimal, a space and three letters (either may come first).
    """
    parts = text.split()
    if len(parts) == 2 and parts[0].isalpha():
        parts.reverse()
    if len(parts) != 2 or len(parts[1]) != 3 or not (parts[1].isascii() and parts[1].isalpha()):
        raise ValueError(f"expected a price such as '45.00 USD', got {text!r}")
    return parse_micros(parts[0]), parts[1].upper()


def category_prefixes(path: str) -> list[str]:
    """Each level of a category path: "A > B" gives "A" and "A > B"."""
    levels = [level.strip() for level in path.split(">")]
    levels = [level for level in levels if level]
    return [" > ".join(levels[: count + 1]) for count in range(len(levels))]


_WINDOW_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def window_s(window: str) -> int:
    """A cap's window in seconds, 0 = lifetime. Raises: ValueError when it cannot be read."""
    if window == "lifetime":
        return 0
    unit = _WINDOW_UNITS_S.get(window[-1:])
    if unit is None or not (window[:-1].isascii() and window[:-1].isdigit()) or len(window) > 6:
        raise ValueError(f"expected a window such as '1h', '7d' or 'lifetime', got {window!r}")
    seconds = int(window[:-1]) * unit
    if not 0 < seconds < 1 << 31:
        raise ValueError(f"window out of range: {window!r}")
    return seconds


def is_zone(name: str) -> bool:
    """Is it the name of a time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path that escapes; a directory
        return False
    return True


# What `Flight` means by an open start and an open end.
FLIGHT_MS_MIN: Final = 0
FLIGHT_MS_MAX: Final = 1 << 62


def flight_ms(flight: Flight, timezone: str) -> tuple[int, int]:
    """A flight as [start, end) in epoch milliseconds, on whole seconds, as books are kept.

    Raises: ValueError when it cannot be read.
    """
    zone = ZoneInfo(timezone)
    start, end = FLIGHT_MS_MIN, FLIGHT_MS_MAX
    if flight.start is not None:
        start = max(_epoch_ms(flight.start, zone, 0), FLIGHT_MS_MIN)
    if flight.end is not None:
        end = _epoch_ms(flight.end, zone, 1)
    return start, end


def _epoch_ms(text: str, zone: ZoneInfo, days: int) -> int:
    """A moment, or the midnight `days` after a date; without offset it is local time in `zone`."""
    if len(text) <= 10:
        day = date.fromisoformat(text) + timedelta(days=days)
        moment = datetime.combine(day, time(), zone)
    else:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
    return int(moment.astimezone(UTC).timestamp()) * 1000
