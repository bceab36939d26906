"""Bounds: a snapshot that could lead the engine astray is refused, whatever is wrong with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rtb.base.errors import CatalogueError
from rtb.catalogue import snapshot
from rtb.catalogue.bounds import INDEXES, RANGES, check_arrays
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import Catalogue

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(name="sample", scope="module")
def sample_fixture(catalogue_of: Callable[..., Catalogue]) -> tuple[Arrays, dict[str, object]]:
    return compile_snapshot(catalogue_of(600))


def copy_of(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def test_whole_snapshot_passes(sample: tuple[Arrays, dict[str, object]]) -> None:
    """What the compiler makes is accepted."""
    check_arrays(*sample)


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, _ in RANGES])
@pytest.mark.parametrize("what", ["before", "after", "huge"])
def test_range_outside_is_refused(
    sample: tuple[Arrays, dict[str, object]], owner: str, name: str, what: str
) -> None:
    """No start and no count may lead out of its array."""
    arrays = copy_of(sample[0])
    table = arrays[owner]
    if not len(table):
        pytest.skip(f"the sample has no {owner}")
    start, count = f"{name}_start", f"{name}_count"
    if what == "before":
        table[start][-1] = -1
    elif what == "after":
        table[start][-1], table[count][-1] = 1 << 30, 1
    else:
        table[start][-1], table[count][-1] = (1 << 31) - 1, (1 << 31) - 1
    with pytest.raises(CatalogueError, match=f"{owner}.{name}"):
        check_arrays(arrays, sample[1])


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, _, _ in INDEXES])
def test_index_outside_is_refused(
    sample: tuple[Arrays, dict[str, object]], owner: str, name: str
) -> None:
    """No index may lead out of its array."""
    for value in (-2, 1 << 30):
        arrays = copy_of(sample[0])
        arrays[owner][name][0] = value
        with pytest.raises(CatalogueError, match=f"{owner}.{name}"):
            check_arrays(arrays, sample[1])


def _first(table: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> int:
    return int(np.flatnonzero(wanted)[0])


def _dense_start(arrays: Arrays) -> None:
    rows = arrays["rows"]
    rows["start"][_first(rows, rows["sparse"] == 0)] = len(arrays["words"])


def _tail_bit(arrays: Arrays) -> None:
    rows = arrays["rows"]
    start = int(rows["start"][_first(rows, rows["sparse"] == 0)])
    words = snapshot.words_count(len(arrays["line_items"]))
    arrays["words"][start + words - 1] |= np.uint64(1 << 63)


def _set(name: str, column: str | None, index: int, value: object) -> Callable[[Arrays], None]:
    def damage(arrays: Arrays) -> None:
        table = arrays[name] if column is None else arrays[name][column]
        table[index] = value

    return damage


def _op(op: int, field: str, value: int) -> Callable[[Arrays], None]:
    def damage(arrays: Arrays) -> None:
        table = arrays["programs"]
        table[field][_first(table, table["op"] == op)] = value

    return damage


def _full(arrays: Arrays) -> None:
    arrays["value_slots"][arrays["value_slots"] < 0] = 0


def _moved(arrays: Arrays) -> None:
    """Swaps a value with an empty slot that its probe does not lead to."""
    table = arrays["value_slots"]
    taken = np.flatnonzero(table >= 0)[0]
    free = np.flatnonzero(table < 0)
    away = free[np.abs(free - taken) > 8][0]
    table[away], table[taken] = table[taken], -1


def _cut(arrays: Arrays, name: str) -> None:
    arrays[name] = arrays[name][:-1]


def _repeat(arrays: Arrays, name: str) -> None:
    arrays[name]["key"][1] = arrays[name]["key"][0]


DAMAGES = [
    ("rows.start", _dense_start),
    ("words", _tail_bit),
    ("rows.summary", _set("rows", "summary", 0, 1 << 40)),
    ("summaries", _set("summaries", None, 0, np.uint64(1 << 63))),
    ("value_slots", _set("value_slots", None, 0, 1 << 30)),
    ("value_slots", _full),
    ("value_slots", _moved),
    ("creative_categories", _set("creative_categories", None, 0, 99)),
    ("creative_codes.ordinal", _set("creative_codes", "ordinal", 0, 99)),
    ("creative_codes.parent", _set("creative_codes", "parent", 0, 99)),
    ("creative_domains", _set("creative_domains", None, 0, -1)),
    ("line_item_deals", _set("line_item_deals", None, 0, 99)),
    ("program_hashes", _op(snapshot.OP_IN, "count", 1 << 30)),
    ("program_numbers", _op(snapshot.OP_AT_LEAST, "start", 1 << 30)),
    ("program_numbers", _op(snapshot.OP_AT_LEAST, "count", 0)),
    ("pops an empty stack", _op(snapshot.OP_ANY, "count", 9)),
    ("folds nothing", _op(snapshot.OP_ANY, "count", 0)),
    ("one value", _op(snapshot.OP_ANY, "op", snapshot.OP_NOT)),
    ("unknown op", _op(snapshot.OP_ANY, "op", 77)),
    ("program_numbers", _set("program_numbers", None, 0, np.nan)),
    ("shade", _set("line_items", "shade", 0, np.inf)),
    ("max_cpm_micros", _set("line_items", "max_cpm_micros", 0, 0)),
    ("bid_micros", _set("line_items", "bid_micros", 0, -1)),
    ("goal", _set("line_items", "goal", 0, 9)),
    ("flights", _set("line_items", "flights_count", 0, 0)),
    ("media", _set("creatives", "media", 0, 0)),
    ("line_item_budgets are", lambda arrays: _cut(arrays, "line_item_budgets")),
    ("advertiser_budgets are", lambda arrays: _cut(arrays, "advertiser_budgets")),
    ("campaign_budgets are", lambda arrays: _cut(arrays, "campaign_budgets")),
    ("total_micros", _set("campaign_budgets", "total_micros", 0, -2)),
    ("daily_micros", _set("line_item_budgets", "daily_micros", 0, 1 << 62)),
    ("impressions", _set("flight_budgets", "impressions", 0, -7)),
    ("pacing", _set("line_item_budgets", "pacing", 0, 0)),
    ("line_items.key is 0", _set("line_items", "key", 0, 0)),
    ("line_items.key repeats", lambda arrays: _repeat(arrays, "line_items")),
    ("advertisers.key repeats", lambda arrays: _repeat(arrays, "advertisers")),
    ("campaign_budgets.key repeats", lambda arrays: _repeat(arrays, "campaign_budgets")),
    ("flight_budgets.key is 0", _set("flight_budgets", "key", 0, 0)),
    ("flight_budgets are", _set("line_item_budgets", "flights_count", 0, 1)),
    ("end before", _set("flights", "start_ms", 0, 1 << 61)),
    ("end before", _set("flights", "start_ms", 0, -1000)),
    ("overlap", _set("flights", "end_ms", 0, 1 << 61)),
    ("no time zone", _set("advertiser_budgets", "zone_count", 0, 1)),
    ("pieces.hole", _set("pieces", "hole", 0, 99)),
    ("pieces.event", _set("pieces", "event", 0, 8)),
    ("pieces.escape", _set("pieces", "escape", 0, 3)),
    ("dims.dim", _set("dims", "dim", 0, 64)),
    ("dims.dim", _set("dims", "dim", 0, 3)),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGES)
def test_damage_is_refused(
    sample: tuple[Arrays, dict[str, object]], message: str, damage: Callable[[Arrays], None]
) -> None:
    """Each rule of the engine's trust has a check."""
    arrays = copy_of(sample[0])
    damage(arrays)
    with pytest.raises(CatalogueError, match=message):
        check_arrays(arrays, sample[1])


def test_missing_or_foreign_array_is_refused(sample: tuple[Arrays, dict[str, object]]) -> None:
    """All arrays are there, with the layout that this program knows."""
    arrays = copy_of(sample[0])
    del arrays["rows"]
    with pytest.raises(CatalogueError, match="rows is missing"):
        check_arrays(arrays, sample[1])
    arrays["rows"] = np.zeros(3, dtype=np.int64)
    with pytest.raises(CatalogueError, match="another layout"):
        check_arrays(arrays, sample[1])


@pytest.mark.parametrize("name", ["format", "hash_version", "counts"])
def test_meta_of_another_program_is_refused(
    sample: tuple[Arrays, dict[str, object]], name: str
) -> None:
    """A snapshot of another format or hash is not served."""
    with pytest.raises(CatalogueError):
        check_arrays(sample[0], sample[1] | {name: 99})
