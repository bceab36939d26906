"""Records of a journal as a table of `rtb.stores.events_schema`: the one module that needs pyarrow.

Bodies of one kind are read as an array of their record type at once. A body whose size or version
is not that of its kind makes a row all the same, with the bytes as they are in `unread`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rtb.base.events import (
    BID,
    CLAIMS_VERSION,
    CONVERSION,
    LINK,
    LINK_OTHERS_MAX,
    LINK_VERSION,
    MULTIPLIER_ONE,
    NO_PRICE,
    NOTICE,
    RATE_ONE,
    VIDEO_NAMES,
    ClaimFlag,
    Kind,
    PriceState,
    cost_nanos,
)  # fmt: skip
from rtb.base.money import currency_name
from rtb.base.records import Media
from rtb.stores.events_names import Exchange, Names
from rtb.stores.events_schema import FIELDS, KEY, LOSS_REASONS, VERSION
from rtb.stores.journal import Record

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Columns = dict[str, Any]

# Beyond it nothing is ever booked, and a column of 64 bits could not hold it.
NANOS_MAX: Final = 1 << 62
_TYPES: Final[dict[str, Any]] = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp[ms, UTC]": pa.timestamp("ms", "UTC"),
    "list<string>": pa.list_(pa.string()),
    "list<int32>": pa.list_(pa.int32()),
    "binary": pa.binary(),
}
SCHEMA: Final = pa.schema(
    [
        pa.field(one.name, _TYPES[one.type], one.name not in KEY, {"meaning": one.meaning})
        for one in FIELDS
    ],
    {"rtb.events.version": str(VERSION)},
)
_OF_KIND: Final = {
    Kind.BID: BID,
    Kind.CONVERSION: CONVERSION,
    Kind.ORDER: CONVERSION,
    Kind.LINK: LINK,
    **{kind: NOTICE for kind in Kind if Kind.BID < kind < Kind.CONVERSION},
}
_VERSIONS: Final = {BID: CLAIMS_VERSION, NOTICE: CLAIMS_VERSION, CONVERSION: CLAIMS_VERSION,
                    LINK: LINK_VERSION}  # fmt: skip


def _names(members: Iterable[IntEnum]) -> dict[int, str]:
    return {int(member): member.name.lower() for member in members}


_KINDS, _MEDIA, _STATES = _names(Kind), _names(Media), _names(PriceState)
_VIDEO: Final = {int(event): name for event, name in VIDEO_NAMES.items()}


class _Part:
    """The records of one layout: where they stand among all, and their bodies as an array."""

    def __init__(self, kind: np.dtype[Any], at: list[int], bodies: list[bytes]) -> None:
        self.at = np.array(at, np.int64)
        self.rows: Array = np.frombuffer(b"".join(bodies), kind)


def _is_whole(kind: int, body: bytes) -> bool:
    layout = _OF_KIND.get(kind)  # type: ignore[call-overload]
    return layout is not None and len(body) == layout.itemsize and body[0] == _VERSIONS[layout]


def table_of(
    records: Sequence[Record], node: int, worker: int, journal: str, names: Names
) -> tuple[Any, int]:
    """The rows of some records, in their order; and how many of them could not be read.

    journal: its identity in hex. Returns: a pyarrow table of SCHEMA.
    """
    count = len(records)
    whole = [_is_whole(kind, body) for _, kind, body in records]
    found: dict[np.dtype[Any], tuple[list[int], list[bytes]]] = {}
    for place, (_, kind, body) in enumerate(records):
        if whole[place]:
            at, bodies = found.setdefault(_OF_KIND[Kind(kind)], ([], []))
            at.append(place)
            bodies.append(body)
    parts = {layout: _Part(layout, *said) for layout, said in found.items()}
    columns: Columns = {
        "node": np.full(count, node, np.int32),
        "worker": np.full(count, worker, np.int32),
        "journal": pa.array([journal] * count),
        "sequence": np.array([one[0] for one in records], np.int64),
        "kind": pa.array([_KINDS.get(kind, str(kind)) for _, kind, _ in records]),
        "time": _times(parts, count),
        "unread": pa.array(
            [
                None if is_whole else body
                for is_whole, (_, _, body) in zip(whole, records, strict=True)
            ],
            pa.binary(),
        ),
    }
    kinds = np.array([kind for _, kind, _ in records], np.int64)
    for some in (_claims(parts, kinds, names), _others(parts, kinds)):
        for name, column in some.items():
            columns[name] = pc.coalesce(columns[name], column) if name in columns else column
    arrays = [_column(columns.get(field.name), field, count) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA), count - sum(whole)


def _column(column: Any, field: Any, count: int) -> Any:
    if column is None:
        return pa.nulls(count, field.type)
    return (column if isinstance(column, pa.Array) else pa.array(column)).cast(field.type)


# -- putting values in their places ----------------------------------------------------------------


def _spread(count: int, at: Array, values: Array, valid: Mask | None = None) -> Any:
    """Values at their places, null everywhere else, and where they are not valid."""
    out = np.zeros(count, values.dtype)
    null = np.ones(count, np.bool_)
    out[at] = values
    null[at] = False if valid is None else ~valid
    return pa.array(out, mask=null)


def _named(
    count: int, at: Array, values: Array, name: Callable[[int], str | None],
    valid: Mask | None = None,
) -> Any:  # fmt: skip
    """The names of values, each looked up once."""
    different, places = np.unique(values, return_inverse=True)
    texts = pa.array([name(one) for one in different.tolist()], pa.string())
    return texts.take(_spread(count, at, places.astype(np.int32), valid))


def _hex16(value: int) -> str:
    return f"{value:016x}"


def _moments(count: int, at: Array, values: Array, valid: Mask | None = None) -> Any:
    return _spread(count, at, values, valid).cast(pa.timestamp("ms", "UTC"))


def _times(parts: dict[np.dtype[Any], _Part], count: int) -> Any:
    times, null = np.zeros(count, np.int64), np.ones(count, np.bool_)
    for part in parts.values():
        times[part.at], null[part.at] = part.rows["time_ms"], False
    return pa.array(times, mask=null).cast(pa.timestamp("ms", "UTC"))


# -- what every record of a bid has ----------------------------------------------------------------


def _claims(parts: dict[np.dtype[Any], _Part], kinds: Array, names: Names) -> Columns:
    own = [part for layout, part in parts.items() if layout is not LINK]
    if not own:
        return {}
    count = len(kinds)
    at = np.concatenate([part.at for part in own])
    said: Array = np.concatenate([part.rows["claims"] for part in own])
    flags = said["flags"]
    exchange = {key: one.name for key, one in names.exchanges.items()}
    bid_nanos = costs_nanos(said["price_micros"], said["rate_e9"])
    columns: Columns = {
        "bid": _named(count, at, said["bid"], _hex16),
        "test": _spread(count, at, flags & ClaimFlag.TEST != 0),
        "expected": _spread(count, at, flags & ClaimFlag.EXPECTED != 0),
        "exchange": _named(count, at, said["exchange"], exchange.get),
        "exchange_key": _named(count, at, said["exchange"], lambda key: f"{key:08x}"),
        "media": _named(count, at, said["media"], _MEDIA.get, said["media"] != Media.NONE),
        "secret": _spread(count, at, said["key"].astype(np.int32)),
        "bid_price_micros": _spread(count, at, said["price_micros"]),
        "rate_e9": _spread(count, at, said["rate_e9"].astype(np.int64)),
        "bid_nanos": _spread(count, at, bid_nanos, bid_nanos >= 0),
    }
    for name in ("line_item", "creative", "product"):
        columns[f"{name}_key"] = _named(count, at, said[name], _hex16, said[name] != 0)
    for name in ("person", "target"):
        columns[name] = _named(count, at, said[name], _hex16, said[name] != 0)
    columns["creative"] = _named(count, at, said["creative"], names.creative)
    columns["product"] = _named(count, at, said["product"], names.product)
    return columns | _owners(count, at, said["line_item"], names) | _cleared(parts, kinds, names)


def _owners(count: int, at: Array, keys: Array, names: Names) -> Columns:
    """Whose line items these are."""
    different, places = np.unique(keys, return_inverse=True)
    found = [names.line_item(key) for key in different.tolist()]
    where = _spread(count, at, places.astype(np.int32))
    columns = {
        "line_item": [one and one.id for one in found],
        "campaign": [one and one.campaign for one in found],
        "campaign_key": [one and _hex16(one.campaign_key) for one in found],
        "advertiser": [one and one.advertiser for one in found],
        "advertiser_key": [one and _hex16(one.advertiser_key) for one in found],
        "currency": [one and one.currency for one in found],
    }
    return {name: pa.array(texts, pa.string()).take(where) for name, texts in columns.items()}


# -- money -----------------------------------------------------------------------------------------


def costs_nanos(price_micros: Array, rate_e9: Array, multiplier_e6: Array | None = None) -> Array:
    """`events.cost_nanos` of many; -1 where the price is none or the cost beyond all sense."""
    count = len(price_micros)
    many = np.full(count, MULTIPLIER_ONE, np.int64) if multiplier_e6 is None else multiplier_e6
    plain = (rate_e9 == RATE_ONE) & (many == MULTIPLIER_ONE)
    out = np.where(plain, price_micros, NO_PRICE).astype(np.int64)
    for place in np.flatnonzero(~plain & (price_micros >= 0)).tolist():
        cost = cost_nanos(int(price_micros[place]), int(rate_e9[place]), int(many[place]))
        out[place] = cost if cost <= NANOS_MAX else NO_PRICE
    return out


def _cleared(parts: dict[np.dtype[Any], _Part], kinds: Array, names: Names) -> Columns:
    """What notices say of money."""
    part = parts.get(NOTICE)
    if part is None:
        return {}
    count, at, rows = len(kinds), part.at, part.rows
    price, claims, multiplier = rows["price_micros"], rows["claims"], rows["multiplier_e6"]
    cleared = costs_nanos(price, claims["rate_e9"], multiplier.astype(np.int64))
    charged = charged_nanos(kinds[at], rows, names.exchanges)
    return {
        "price_micros": _spread(count, at, price, price != NO_PRICE),
        "price_state": _named(count, at, rows["price_state"], _STATES.get),
        "multiplier_e6": _spread(count, at, multiplier.astype(np.int64)),
        "cleared_nanos": _spread(count, at, cleared, cleared >= 0),
        "charged_nanos": _spread(count, at, charged, charged >= 0),
    }


def charged_nanos(kinds: Array, rows: Array, exchanges: Mapping[int, Exchange]) -> Array:
    """What notices ask of the books, -1 for nothing: `notices.settle.settle` for many.

    rows: of dtype NOTICE
    """
    claims, state = rows["claims"], rows["price_state"]
    known, places = np.unique(claims["exchange"], return_inverse=True)
    found = [exchanges.get(key) for key in known.tolist()]
    settles_on = np.array([one.settles_on if one else 0 for one in found], np.int64)[places]
    empty_is_bid = np.array([bool(one and one.empty_is_bid) for one in found], np.bool_)[places]
    owed = (kinds == settles_on) & (claims["flags"] & ClaimFlag.TEST == 0)
    price = np.full(len(rows), NO_PRICE, np.int64)
    is_priced = owed & (state == PriceState.OK)
    is_bid = owed & (state == PriceState.EMPTY) & empty_is_bid
    price[is_priced] = rows["price_micros"][is_priced]
    price[is_bid] = claims["price_micros"][is_bid]
    multiplier = rows["multiplier_e6"].astype(np.int64)
    cost = costs_nanos(price, claims["rate_e9"], multiplier)
    most = costs_nanos(claims["price_micros"], claims["rate_e9"], multiplier)
    return np.where(cost <= most, cost, NO_PRICE)  # the books refuse what is above the bid


# -- what only one kind has ------------------------------------------------------------------------


def _others(parts: dict[np.dtype[Any], _Part], kinds: Array) -> Columns:
    count = len(kinds)
    columns: Columns = {}
    if BID in parts:
        at, rows = parts[BID].at, parts[BID].rows
        columns["reserve_nanos"] = _spread(count, at, rows["reserve_nanos"])
        columns["auction_type"] = _spread(count, at, rows["at"].astype(np.int32))
    if NOTICE in parts:
        columns |= _told(parts[NOTICE], kinds)
    if CONVERSION in parts:
        columns |= _sold(parts[CONVERSION], count)
    if LINK in parts:
        columns |= _linked(parts[LINK], count)
    return columns


def _told(part: _Part, kinds: Array) -> Columns:
    """What an exchange or a player says beside money."""
    count, at, rows = len(kinds), part.at, part.rows
    why, least, less = rows["loss"], rows["min_to_win_micros"], rows["discount_micros"]
    is_loss = (kinds[at] == Kind.LOSS) & (why != 0)
    return {
        "min_to_win_micros": _spread(count, at, least, least != NO_PRICE),
        "discount_micros": _spread(count, at, less, less != NO_PRICE),
        "loss": _spread(count, at, why.astype(np.int32), is_loss),
        "loss_reason": _named(count, at, why, LOSS_REASONS.get, is_loss),
        "video": _named(count, at, rows["detail"], _VIDEO.get, kinds[at] == Kind.VIDEO),
        "shown": _moments(count, at, rows["shown_ms"], rows["shown_ms"] != 0),
    }


def _sold(part: _Part, count: int) -> Columns:
    """What an advertiser says."""
    at, rows = part.at, part.rows
    worth, currency = rows["value_micros"], rows["currency"]
    return {
        "order": _named(count, at, rows["order"], _hex16, rows["order"] != 0),
        "value_micros": _spread(count, at, worth, worth != NO_PRICE),
        "value_currency": _named(count, at, currency, currency_name, currency != 0),
        "value_state": _named(count, at, rows["value_state"], _STATES.get),
    }


def _linked(part: _Part, count: int) -> Columns:
    """Who is the same person as whom."""
    others: list[list[str] | None] = [None] * count
    ways: list[list[int] | None] = [None] * count
    for place, row in zip(part.at.tolist(), part.rows, strict=True):
        number = min(int(row["count"]), LINK_OTHERS_MAX)
        others[place] = [_hex16(one) for one in row["others"][:number].tolist()]
        ways[place] = row["ways"][:number].tolist()
    people = part.rows["person"]
    return {
        "person": _named(count, part.at, people, _hex16),
        "linked": pa.array(others, pa.list_(pa.string())),
        "linked_ways": pa.array(ways, pa.list_(pa.int32())),
    }
