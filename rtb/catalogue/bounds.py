"""Proof that a snapshot cannot lead the engine astray: every index points inside its array.

The compiled engine reads these arrays without checks of its own, so this runs before any worker
serves them. A checksum says that a file is as it was written; this says that it was written right.
All checks are vectorised: a snapshot of 100,000 line items takes a fraction of a second.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import CatalogueError
from rtb.base.events import VideoEvent
from rtb.base.hashing import HASH_VERSION
from rtb.base.records import Dim, Escape, Hole
from rtb.catalogue import snapshot
from rtb.catalogue.model import is_zone

Arrays = Mapping[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]

# Ranges: in which array, by owner and field.
RANGES: Final = (
    ("line_items", "id", "text"),
    ("line_items", "creatives", "creatives"),
    ("line_items", "flights", "flights"),
    ("line_items", "caps", "caps"),
    ("line_items", "deals", "line_item_deals"),
    ("line_items", "program", "programs"),
    ("line_item_budgets", "flights", "flight_budgets"),
    ("advertiser_budgets", "zone", "text"),
    ("advertiser_budgets", "name", "text"),
    ("advertisers", "id", "text"),
    ("advertisers", "seats", "seats"),
    ("campaigns", "id", "text"),
    ("seats", "text", "text"),
    ("creatives", "id", "text"),
    ("creatives", "categories", "creative_categories"),
    ("creatives", "codes", "creative_codes"),
    ("creatives", "domains", "creative_domains"),
    ("creatives", "adomains", "creative_domains"),
    ("creatives", "statuses", "creative_statuses"),
    ("creatives", "renditions", "renditions"),
    ("creatives", "assets", "assets"),
    ("creatives", "caps", "caps"),
    ("creatives", "features", "features"),
    ("creatives", "frame", "pieces"),
    ("products", "id", "text"),
    ("products", "categories", "product_categories"),
    ("assets", "text", "text"),
    ("pieces", "text", "text"),
)
# Indexes: into which array, and whether -1 may stand for none.
INDEXES: Final = (
    ("line_items", "campaign", "campaigns", False),
    ("line_items", "advertiser", "advertisers", False),
    ("campaigns", "advertiser", "advertisers", False),
    ("creatives", "product", "products", True),
    ("dims", "free_row", "rows", True),
    ("values", "include_row", "rows", True),
    ("values", "exclude_row", "rows", True),
)
ORDINAL_COUNTS: Final = {
    Dim.BCAT: "categories",
    Dim.ACAT: "categories",
    Dim.BADV: "domains",
    Dim.DEAL_WADOMAIN: "domains",
}


def check_arrays(arrays: Arrays, meta: Mapping[str, object]) -> None:
    """Raises CatalogueError, with the name of the array, for the first thing that is wrong."""
    _check_shapes(arrays, meta)
    for owner, name, target in RANGES:
        table = arrays[owner]
        _ranges(f"{owner}.{name}", table[f"{name}_start"], table[f"{name}_count"], arrays[target])
    for owner, name, target, optional in INDEXES:
        low = -1 if optional else 0
        _within(f"{owner}.{name}", arrays[owner][name], low, len(arrays[target]))
    _check_ordinals(arrays, meta)
    _check_rows(arrays)
    _check_slots(arrays)
    _check_programs(arrays)
    _check_values(arrays)
    _check_budgets(arrays)


def _fail(what: str) -> None:
    raise CatalogueError(f"snapshot refused: {what}")


def _require(right: object, what: str) -> None:
    if not right:
        _fail(what)


def _within(name: str, values: npt.NDArray[Any], low: int, stop: int) -> None:
    wide = values.astype(np.int64)
    _require(np.all((wide >= low) & (wide < stop)), f"{name} points outside")


def _ranges(
    name: str, start: npt.NDArray[Any], count: npt.NDArray[Any], target: npt.NDArray[Any]
) -> None:
    first, size = start.astype(np.int64), count.astype(np.int64)
    inside = (first >= 0) & (size >= 0) & (size <= len(target)) & (first <= len(target) - size)
    _require(np.all(inside), f"{name} points outside")


def _check_shapes(arrays: Arrays, meta: Mapping[str, object]) -> None:
    _require(meta.get("format") == snapshot.FORMAT_VERSION, "format version")
    _require(meta.get("hash_version") == HASH_VERSION, "hash version")
    for name, dtype in snapshot.ARRAYS.items():
        _require(name in arrays, f"array {name} is missing")
        array = arrays[name]
        _require(array.dtype == dtype and array.ndim == 1, f"array {name} has another layout")


def _count(meta: Mapping[str, object], name: str) -> int:
    counts = meta.get("counts")
    value = counts.get(name) if isinstance(counts, dict) else None
    if not isinstance(value, int) or value < 0:
        raise CatalogueError(f"snapshot refused: meta has no count of {name}")
    return value


def _check_ordinals(arrays: Arrays, meta: Mapping[str, object]) -> None:
    values, deals = arrays["values"], len(arrays["deals"])
    categories, codes = _count(meta, "categories"), arrays["creative_codes"]
    _within("creative_categories", arrays["creative_categories"], 0, categories)
    _within("creative_codes.ordinal", codes["ordinal"], 0, categories)
    _within("creative_codes.parent", codes["parent"], -1, categories)
    _within("creative_domains", arrays["creative_domains"], 0, _count(meta, "domains"))
    _within("line_item_deals", arrays["line_item_deals"], 0, deals)
    for dim, name in ORDINAL_COUNTS.items():
        of_dim = values["ordinal"][values["dim"] == dim]
        _within(f"values.ordinal of {dim.name}", of_dim, -1, _count(meta, name))
    others = ~np.isin(values["dim"], [int(dim) for dim in ORDINAL_COUNTS])
    _within("values.ordinal", values["ordinal"][others], -1, deals)


def _check_rows(arrays: Arrays) -> None:
    """Rows lie inside their arrays, and no bit stands for a line item that is not there."""
    rows, line_items = arrays["rows"], len(arrays["line_items"])
    words, summary_words = (
        snapshot.words_count(line_items),
        snapshot.summary_words_count(line_items),
    )
    sparse = rows["sparse"] != 0
    listed, dense = rows[sparse], rows[~sparse]
    _ranges("rows.members", listed["start"], listed["count"], arrays["members"])
    _within("members", arrays["members"], 0, line_items)
    _within("rows.start", dense["start"], 0, len(arrays["words"]) - words + 1)
    _within("rows.summary", rows["summary"], 0, len(arrays["summaries"]) - summary_words + 1)
    _check_tail("words", arrays["words"], dense["start"], words, line_items)
    blocks = words // snapshot.BLOCK_WORDS
    _check_tail("summaries", arrays["summaries"], rows["summary"], summary_words, blocks)


def _check_tail(
    name: str, bits: npt.NDArray[Any], starts: npt.NDArray[Any], width: int, bits_count: int
) -> None:
    """In each row of `width` words, no bit from `bits_count` on is set."""
    for word in range(bits_count // 64, width):
        used = max(bits_count - word * 64, 0)
        mask = np.uint64((1 << 64) - (1 << used))
        _require(not np.any(bits[starts + word] & mask), f"{name} has bits past the end")


def _check_slots(arrays: Arrays) -> None:
    """The hash table leads to every value, and a probe for any other ends."""
    table, values = arrays["value_slots"], arrays["values"]
    size = len(table)
    _require(size >= 2 and size & (size - 1) == 0, "value_slots is no power of two")
    _within("value_slots", table, -1, len(values))
    _require(np.any(table < 0), "value_slots is full")
    placed = np.sort(table[table >= 0])
    _require(np.array_equal(placed, np.arange(len(values))), "value_slots misses a value")
    home = np.empty(len(values), dtype=np.int64)
    taken = np.flatnonzero(table >= 0)
    home[table[taken]] = taken
    at = (values["hash"] & np.uint64(size - 1)).astype(np.int64)
    waiting = np.arange(len(values))
    for _ in range(size):
        waiting = waiting[at[waiting] != home[waiting]]
        if not len(waiting):
            return
        _require(np.all(table[at[waiting]] >= 0), "value_slots breaks a probe")
        at[waiting] = (at[waiting] + 1) & (size - 1)
    _fail("value_slots breaks a probe")


_PUSHES: Final = (
    snapshot.OP_IN,
    snapshot.OP_AT_LEAST,
    snapshot.OP_AT_MOST,
    snapshot.OP_WITHIN_KM,
    snapshot.OP_CONST,
)
_FOLDS: Final = (snapshot.OP_ALL, snapshot.OP_ANY)


def _check_programs(arrays: Arrays) -> None:
    """Operands lie inside, and every program leaves one value on a stack that never runs dry."""
    programs = arrays["programs"]
    op, count = programs["op"], programs["count"].astype(np.int64)
    hashes = programs[op == snapshot.OP_IN]
    _ranges("program_hashes", hashes["start"], hashes["count"], arrays["program_hashes"])
    numeric = np.isin(op, (snapshot.OP_AT_LEAST, snapshot.OP_AT_MOST, snapshot.OP_WITHIN_KM))
    numbers = programs[numeric]
    _ranges("program_numbers", numbers["start"], numbers["count"], arrays["program_numbers"])
    _require(np.all(numbers["count"] >= 1), "program_numbers of a comparison are missing")
    points = programs[op == snapshot.OP_WITHIN_KM]["count"]
    _require(np.all((points >= 3) & (points % 2 == 1)), "points of a distance are incomplete")
    pushes, folds, negates = np.isin(op, _PUSHES), np.isin(op, _FOLDS), op == snapshot.OP_NOT
    _require(np.all(pushes | folds | negates), "unknown op in programs")
    _require(np.all(count[folds] >= 1), "an op in programs folds nothing")
    needs = np.where(folds, count, np.where(negates, 1, 0))
    _check_stacks(arrays["line_items"], needs, np.where(pushes, 1, 1 - needs))


def _check_stacks(line_items: npt.NDArray[Any], needs: Ints, gains: Ints) -> None:
    ranges = np.stack([line_items["program_start"], line_items["program_count"]], axis=1)
    ranges = np.unique(ranges, axis=0).astype(np.int64)
    start, count = ranges[ranges[:, 1] > 0].T
    if not len(start):
        return
    ends = np.cumsum(count)
    first = ends - count
    at = np.arange(int(ends[-1])) - np.repeat(first - start, count)
    depth = np.cumsum(gains[at])
    depth -= np.repeat(depth[first] - gains[at][first], count)
    _require(np.all(depth - gains[at] >= needs[at]), "a program pops an empty stack")
    _require(np.all(depth[ends - 1] == 1), "a program does not leave one value")
    _require(np.all(depth <= snapshot.STACK_MAX), "a program is too deep")


def _check_values(arrays: Arrays) -> None:
    """Numbers that arithmetic relies on."""
    items = arrays["line_items"]
    for name in ("target_roas", "prior_ctr", "prior_cvr", "shade"):
        _require(np.all(np.isfinite(items[name])), f"line_items.{name} is not finite")
    _require(np.all(items["max_cpm_micros"] > 0), "line_items.max_cpm_micros is not positive")
    _require(np.all(items["bid_micros"] >= 0), "line_items.bid_micros is negative")
    _require(np.all((items["goal"] >= 1) & (items["goal"] <= 4)), "line_items.goal")
    _require(np.all(items["flights_count"] >= 1), "line_items.flights")
    _require(np.all(items["separation"] >= -1), "line_items.separation")
    _require(np.all(np.isfinite(arrays["program_numbers"])), "program_numbers is not finite")
    media = arrays["creatives"]["media"]
    _require(np.all((media >= 1) & (media <= 4)), "creatives.media")
    pieces = arrays["pieces"]
    for name, kind in (("hole", Hole), ("event", VideoEvent), ("escape", Escape)):
        _within(f"pieces.{name}", pieces[name], 0, max(kind) + 1)
    dims = arrays["dims"]["dim"]
    _require(np.all((dims >= 1) & (dims <= 63)), "dims.dim")
    _require(len(np.unique(dims)) == len(dims), "dims.dim repeats")


# -- what the keeper relies on --------------------------------------------------------------------

# Sums of money are 64-bit, and a nano is a thousandth of a micro.
LIMIT_MAX: Final = (1 << 63) // 1000
_LIMITS: Final = (
    ("advertiser_budgets", "total_micros"),
    ("campaign_budgets", "total_micros"),
    ("campaign_budgets", "daily_micros"),
    ("line_item_budgets", "total_micros"),
    ("line_item_budgets", "daily_micros"),
    ("line_item_budgets", "impressions"),
    ("flight_budgets", "total_micros"),
    ("flight_budgets", "impressions"),
)
_KEYS: Final = ("line_items", "advertisers", "campaign_budgets", "flight_budgets")


def _check_budgets(arrays: Arrays) -> None:
    """Every owner has its budget and a key of its own, and books can be opened for it."""
    for owner in ("advertiser", "campaign", "line_item"):
        same = len(arrays[f"{owner}_budgets"]) == len(arrays[f"{owner}s"])
        _require(same, f"{owner}_budgets are not one each")
    for name, column in _LIMITS:
        _within(f"{name}.{column}", arrays[name][column], snapshot.NO_LIMIT, LIMIT_MAX)
    for name in _KEYS:
        keys = np.sort(arrays[name]["key"])
        _require(not len(keys) or keys[0] > 0, f"{name}.key is 0")
        _require(np.all(keys[1:] > keys[:-1]), f"{name}.key repeats")
    _within("line_item_budgets.pacing", arrays["line_item_budgets"]["pacing"], 1, 5)
    _check_flights(arrays)
    _check_zones(arrays)


def _check_flights(arrays: Arrays) -> None:
    """Flights follow one another, and those that have budgets have one each."""
    items, flights = arrays["line_items"], arrays["flights"]
    counts = arrays["line_item_budgets"]["flights_count"]
    right = (counts == items["flights_count"]) | (counts == 0)
    _require(np.all(right), "flight_budgets are not one each")
    start, end = flights["start_ms"] // 1000, flights["end_ms"] // 1000
    _require(np.all((start >= 0) & (start < end)), "flights end before they start")
    ranges = np.stack([items["flights_start"], items["flights_count"]], axis=1)
    for first, count in np.unique(ranges, axis=0).tolist():
        inner = slice(first, first + count - 1)
        _require(np.all(end[inner] <= start[first + 1 : first + count]), "flights overlap")


def _check_zones(arrays: Arrays) -> None:
    budgets, text = arrays["advertiser_budgets"], arrays["text"]
    ranges = np.stack([budgets["zone_start"], budgets["zone_count"]], axis=1)
    for start, count in np.unique(ranges, axis=0).tolist():
        name = text[start : start + count].tobytes().decode(errors="replace")
        _require(is_zone(name), "advertiser_budgets.zone is no time zone")
