"""The snapshot: the catalogue as frozen arrays, which workers map read-only and serve from.

Indexes, never ids, join the arrays. `*_start, *_count` name a range in another array. Bitsets hold
one bit a line item: bit i of word i // 64, little-endian words. They are cut in blocks of
`BLOCK_WORDS` words (512 line items); a summary has one bit a block that is not all zero, and the
engine visits only blocks that survive the AND of the summaries. So that this pays, the compiler
orders line items by their most selective targeting, which puts alike ones in the same blocks.

For each targeting dimension d, a line item survives a request with values V when

    (it does not care about d  or  V meets its included values)  and  V misses its excluded values

`dims` gives the row of "does not care"; `values` finds, by token hash, the rows of line items that
include or exclude a value. What a boolean expression says beyond that is its `program`, run on
survivors only.

`tests/catalogue/test_snapshot.py` holds this description; `ext/snapshot.pxd` mirrors the layouts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FORMAT_VERSION: Final = 3
BLOCK_WORDS: Final = 8


CACHE_LINE: Final = 64


def _struct(*fields: tuple[str, object]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


def _lines(*fields: tuple[str, object]) -> np.dtype[Any]:
    """As `_struct`, padded to whole cache lines: what is looked at together stands in one line."""
    dense = _struct(*fields)
    layout: Any = {
        "names": [name for name, _ in fields],
        "formats": [kind for _, kind in fields],
        "offsets": [dense.fields[name][1] for name, _ in fields],  # type: ignore[index]
        "itemsize": -(-dense.itemsize // CACHE_LINE) * CACHE_LINE,
    }
    padded: np.dtype[Any] = np.dtype(layout, align=True)
    return padded


# Flags of a line item.
OPEN_MARKET: Final = 1  # may bid without a deal
REPEAT: Final = 2  # may win several impressions of one request
NEEDS_PROFILE: Final = 4  # bids only on people we know
EXPECTED: Final = 8  # a bid reserves its price times its chance to win, not all of its price

# Goals (bid strategies).
GOAL_CPM, GOAL_CPC, GOAL_CPA, GOAL_ROAS = 1, 2, 3, 4

# How a budget is spent over its period; the numbers are those of `pacing.schedule.Shape`.
PACING_EVEN, PACING_AHEAD, PACING_ASAP, PACING_TRAFFIC = 1, 2, 3, 4

NO_LIMIT: Final = -1  # of an amount or a number of impressions in a budget

LINE_ITEM = _lines(
    # first line: may it run at all
    ("creatives_start", "i4"), ("creatives_count", "i4"),  # in `creatives`
    ("program_start", "i4"), ("program_count", "i4"),
    ("flights_start", "i4"), ("flights_count", "i4"),
    ("deals_start", "i4"), ("deals_count", "i4"),  # in `line_item_deals`: deal ordinals
    ("caps_start", "i4"), ("caps_count", "i4"),
    ("advertiser", "i4"),
    ("separation", "i4"),  # competitive group, -1 none
    ("item_window_s", "i4"),  # leave out people who bought the product within; 0 = off
    ("category_window_s", "i4"),
    ("currency", "u4"),  # base.money.currency_code
    ("goal", "u1"),
    ("flags", "u1"),
    # second line: what is it worth
    ("bid_micros", "i8"),  # CPM: price of 1,000 impressions; CPC: of a click; CPA: of an action
    ("max_cpm_micros", "i8"),  # never bid above; always > 0
    ("order_value_micros", "i8"),  # ROAS: expected revenue of a conversion
    ("target_roas", "f8"),
    ("prior_ctr", "f8"),
    ("prior_cvr", "f8"),  # conversions per click
    ("shade", "f8"),  # first price: share of value that is bid, 0 < shade <= 1
    ("key", "u8"),  # token_hash(Dim.AD, "line_item:<id>"): stable across snapshots
    # third line: who is it
    ("id_start", "i4"), ("id_count", "i4"),  # UTF-8 bytes in `text`
    ("campaign", "i4"),
)  # fmt: skip
ADVERTISER = _struct(
    ("key", "u8"),  # tokens.owner_key
    ("id_start", "i4"), ("id_count", "i4"),
    ("seats_start", "i4"), ("seats_count", "i4"),  # in `seats`
)  # fmt: skip
CAMPAIGN = _struct(("id_start", "i4"), ("id_count", "i4"), ("advertiser", "i4"))
SEAT = _struct(
    ("exchange", "u8"),  # token_hash(Dim.EXCHANGE, name)
    ("hash_w", "u8"),  # token_hash(Dim.WSEAT, seat)
    ("hash_b", "u8"),  # token_hash(Dim.BSEAT, seat)
    ("hash_dw", "u8"),  # token_hash(Dim.DEAL_WSEAT, seat)
    ("text_start", "i4"), ("text_count", "i4"),  # the seat, as JSON string contents
)  # fmt: skip
FLIGHT = _struct(("start_ms", "i8"), ("end_ms", "i8"))  # [start, end), epoch, whole seconds
# Budgets: what the keeper makes its chart of accounts from. They stand in tables of their own,
# beside the rows that a bid looks at. Amounts are micros of the advertiser's currency; NO_LIMIT.
ADVERTISER_BUDGET = _struct(  # a row an advertiser
    ("total_micros", "i8"),
    ("zone_start", "i4"), ("zone_count", "i4"),  # IANA time zone, in `text`
    ("name_start", "i4"), ("name_count", "i4"),  # for people, in `text`; may be empty
    ("currency", "u4"),  # base.money.currency_code
)  # fmt: skip
CAMPAIGN_BUDGET = _struct(  # a row a campaign
    ("key", "u8"),  # token_hash(Dim.AD, "campaign:<id>")
    ("total_micros", "i8"),
    ("daily_micros", "i8"),
)
LINE_ITEM_BUDGET = _struct(  # a row a line item
    ("total_micros", "i8"),
    ("daily_micros", "i8"),
    ("impressions", "i8"),
    ("flights_start", "i4"), ("flights_count", "i4"),  # in `flight_budgets`; see there
    ("pacing", "u1"),
)  # fmt: skip
# One a flight, in the order of the line item's flights; none where it has none and always runs.
FLIGHT_BUDGET = _struct(
    # token_hash(Dim.AD, "flight:campaign:<id>/<start_ms>"), or "flight:line_item:..." if it is the
    # line item's own: those who share a flight share its budget, and a flight that is prolonged
    # keeps its books.
    ("key", "u8"),
    ("total_micros", "i8"),
    ("impressions", "i8"),
)
CAP = _struct(
    ("hash", "u8"),  # token_hash(Dim.CAP, "level/id/window_s")
    ("count", "i4"),
    ("window_s", "i4"),  # 0 = lifetime
)

# One row a creative *as used by one line item*, so that ranges are contiguous.
CREATIVE = _lines(
    # first line: most creatives that may not run fail on one of these
    ("attr", "u8"),  # mask of creative attributes
    ("mime", "u8"),  # mask of its types; 0 = unknown, refused where mimes are listed
    ("language", "u8"),  # token_hash(Dim.WLANG, primary subtag); 0 = none
    ("api", "u4"),  # mask of frameworks that it needs
    ("w", "i4"), ("h", "i4"),
    ("product", "i4"),  # -1 none
    ("categories_start", "i4"), ("categories_count", "i4"),  # in `creative_categories`: ordinals
    ("domains_start", "i4"), ("domains_count", "i4"),  # in `creative_domains`, parents too
    ("statuses_count", "i4"),
    ("media", "u1"),  # records.Media
    ("btype", "u1"),  # banner ad type 1..4
    ("secure", "u1"),  # every URL is https
    ("expand", "u1"),  # mask of directions 1..6 it may expand to
    # second line: history, video and audio, the tie-break
    ("key", "u8"),  # token_hash(Dim.AD, "creative:<id>")
    ("item", "u8"),  # of the product, as there
    ("bundle", "u8"),  # token_hash(Dim.BAPP, promoted app); 0 = none
    ("dur_s", "i4"),
    ("skip_s", "i4"),  # -1: cannot be skipped; else its own skip button after
    ("renditions_start", "i4"), ("renditions_count", "i4"),  # video, audio, in `renditions`
    ("assets_start", "i4"), ("assets_count", "i4"),  # native, in `assets`
    ("statuses_start", "i4"),  # exchanges where it may not run
    ("available", "u1"),  # of the product, as there; 1 without one
    ("protocol", "u1"),  # VAST number, wrapper or inline
    ("linearity", "u1"),
    ("rating", "u1"),  # qagmediarating, 0 unknown
    ("dsa", "u1"),  # 1: its frame can say who is behind the ad (regs.ext.dsa); 2: the ad shows it
    ("caps_count", "i4"),  # its own, in `caps`
    # third line: what few requests ask for; for the answer and the model
    ("caps_start", "i4"),
    ("codes_start", "i4"), ("codes_count", "i4"),  # in `creative_codes`: its own categories
    ("adomains_start", "i4"), ("adomains_count", "i4"),  # in `creative_domains`, without parents
    ("features_start", "i4"), ("features_count", "i4"),  # in `features`: ad-side model tokens
    ("frame_start", "i4"), ("frame_count", "i4"),  # pre-rendered bid, in `pieces`
    ("id_start", "i4"), ("id_count", "i4"),
)  # fmt: skip
# A category that a creative itself has. Ordinals are those of `creative_categories`.
CODE = _struct(
    ("taxonomy", "i4"),
    ("ordinal", "i4"),
    ("parent", "i4"),  # of its tier one; -1 none
    ("told", "i4"),  # 1: its bids say it (a bid has one taxonomy)
)
# A media file, or what a tag of another server promises. A player takes one of a creative's, so one
# has to fit in all respects. 0 = unknown.
RENDITION = _struct(
    ("url", "u8"),  # token_hash(Dim.AD, "file:<url>")
    ("mime", "u8"),  # mask of its type; 0 is refused where mimes are listed
    ("bitrate_kbps", "i4"),
    ("w", "i4"), ("h", "i4"),
    ("delivery", "u1"),  # mask 1 streaming 2 progressive 3 download
)  # fmt: skip
PRODUCT = _struct(
    ("item", "u8"),  # token_hash(Dim.ITEM, "advertiser/id")
    ("price_micros", "i8"),
    ("categories_start", "i4"), ("categories_count", "i4"),  # in `product_categories`: hashes u8
    ("id_start", "i4"), ("id_count", "i4"),
    ("available", "u1"),
)  # fmt: skip
# A native asset that a creative has. `text` is JSON string contents, to stand inside a JSON string
# (that is, escaped twice), ready to be copied into `adm`.
ASSET = _struct(
    ("text_start", "i4"), ("text_count", "i4"),  # title, data value, or URL; video: VAST
    ("chars", "i4"),  # length in characters before escaping
    ("w", "i4"), ("h", "i4"),
    ("dur_s", "i4"),
    ("mime", "u8"),
    ("protocol", "i2"),
    ("kind", "u1"),  # 1 title 2 img 3 video 4 data
    ("type", "u1"),  # img, data type
)  # fmt: skip
# A rendered bid is pieces: literal JSON text, or a hole that is filled for each bid.
PIECE = _struct(
    ("text_start", "i4"), ("text_count", "i4"),
    ("hole", "u2"),  # records.Hole
    ("event", "u1"),  # of a VIDEO_URL: base.events.VideoEvent
    ("escape", "u1"),  # records.Escape
)  # fmt: skip

DIM = _struct(
    ("dim", "i4"),
    ("free_row", "i4"),  # row of line items that do not care about inclusion; -1 = all do not
    ("has_excludes", "i4"),
    ("per_imp", "i4"),  # tokens of this dimension belong to impressions
)
VALUE = _struct(
    ("hash", "u8"),
    ("dim", "i4"),
    ("include_row", "i4"),  # -1 none
    ("exclude_row", "i4"),  # -1 none
    ("ordinal", "i4"),  # number within its dimension; used by block lists and deals
)
# A row is a set of line items, stored as a bitset or, when short, as a sorted list.
ROW = _struct(
    ("start", "i8"),  # dense: first word in `words`; sparse: first entry in `members`
    ("summary", "i8"),  # first word in `summaries`
    ("count", "i4"),  # members
    ("sparse", "i4"),  # 1: a list
)
# Postfix program of an expression. IN pops nothing and pushes 0/1; ALL/ANY pop n; NOT pops 1.
# AT_LEAST, AT_MOST: one number, false where the request's is unknown (OS_VERSION 0). WITHIN_KM:
# km, then latitude and longitude of each point. CONST pushes its count, 0 or 1.
STACK_MAX: Final = 32  # deepest stack of any program
OP = _struct(
    ("op", "i4"),
    ("dim", "i4"),
    ("start", "i4"),  # IN: hashes in `program_hashes`; numeric: params in `program_numbers`
    ("count", "i4"),
)
OP_IN, OP_ALL, OP_ANY, OP_NOT = 1, 2, 3, 4
OP_AT_LEAST, OP_AT_MOST, OP_WITHIN_KM, OP_CONST = 5, 6, 7, 8

ARRAYS: Final[Mapping[str, np.dtype[Any]]] = {
    "line_items": LINE_ITEM,
    "advertisers": ADVERTISER,
    "campaigns": CAMPAIGN,
    "seats": SEAT,
    "flights": FLIGHT,
    "advertiser_budgets": ADVERTISER_BUDGET,
    "campaign_budgets": CAMPAIGN_BUDGET,
    "line_item_budgets": LINE_ITEM_BUDGET,
    "flight_budgets": FLIGHT_BUDGET,
    "caps": CAP,
    "line_item_deals": np.dtype("i4"),
    "deals": np.dtype("u8"),  # ordinal -> token_hash(Dim.DEAL, id)
    "creatives": CREATIVE,
    "creative_categories": np.dtype("i4"),
    "creative_codes": CODE,
    "creative_domains": np.dtype("i4"),
    "creative_statuses": np.dtype("u8"),  # token_hash(Dim.EXCHANGE, name) where it may not run
    "renditions": RENDITION,
    "products": PRODUCT,
    "product_categories": np.dtype("u8"),
    "assets": ASSET,
    "features": np.dtype("u8"),
    "pieces": PIECE,
    "dims": DIM,  # in the order in which the engine ANDs them: most selective first
    "values": VALUE,
    "value_slots": np.dtype("i4"),  # open addressing: slot = hash & (size - 1), linear probing; -1
    "rows": ROW,
    "words": np.dtype("u8"),
    "summaries": np.dtype("u8"),
    "members": np.dtype("u4"),
    "programs": OP,
    "program_hashes": np.dtype("u8"),
    "program_numbers": np.dtype("f8"),
    "text": np.dtype("u1"),
}


def table_of(rows: Sequence[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A table of rows (tuples in the order of the layout), the gaps of its alignment zeroed.

    numpy leaves whatever was in memory there, which would make equal tables differ as bytes.
    """
    table = np.array(rows, dtype=dtype)
    if dtype.fields:
        gaps = np.ones(dtype.itemsize, dtype=bool)
        for kind, offset, *_ in dtype.fields.values():
            gaps[offset : offset + kind.itemsize] = False
        table.view(np.uint8).reshape(len(table), dtype.itemsize)[:, gaps] = 0
    return table


def words_count(line_items_count: int) -> int:
    """Words of one dense row: whole blocks."""
    blocks = -(-line_items_count // (64 * BLOCK_WORDS))
    return max(blocks, 1) * BLOCK_WORDS


def summary_words_count(line_items_count: int) -> int:
    """Words of one summary: a bit a block."""
    return -(-words_count(line_items_count) // (64 * BLOCK_WORDS))


class Snapshot:
    """A catalogue ready to serve: named arrays, a meta table, a content hash.

    Attributes: one numpy array per key of `ARRAYS`; `meta` (format, hash version, counts, source);
    `content_hash` (hex) names the file and the generation.
    """

    def __init__(
        self, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any], content_hash: str
    ) -> None:
        self.arrays = dict(arrays)
        self.meta = dict(meta)
        self.content_hash = content_hash
        for name, dtype in ARRAYS.items():
            if self.arrays[name].dtype != dtype:
                raise TypeError(f"snapshot array {name}: {self.arrays[name].dtype}, not {dtype}")

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    def text(self, start: int, count: int) -> str:
        """A piece of the text array."""
        return self.arrays["text"][start : start + count].tobytes().decode()

    def id_of(self, kind: str, index: int) -> str:
        """The advertiser's own id of a row of `line_items`, `creatives`, `campaigns`, ..."""
        row = self.arrays[kind][index]
        return self.text(int(row["id_start"]), int(row["id_count"]))
