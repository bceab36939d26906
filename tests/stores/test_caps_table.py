"""Caps by the keys of line items and creatives."""

import numpy as np

from rtb.catalogue.snapshot import CAP, LINE_ITEM
from rtb.profiles.reducers import Impression
from rtb.stores.caps_table import CapsTable

CREATIVE = np.dtype([("key", "u8"), ("caps_start", "i4"), ("caps_count", "i4")])
BARE = np.dtype([("key", "u8")])


def arrays(
    line_items: dict[int, list[int]], creatives: dict[int, list[int]], bare: bool = False
) -> dict[str, np.ndarray]:
    """Snapshot arrays: hashes of caps by key; the window of a cap is its hash times ten."""
    caps: list[int] = []
    rows: dict[str, np.ndarray] = {}
    for name, dtype, owners in (("line_items", LINE_ITEM, line_items),
                                ("creatives", BARE if bare else CREATIVE, creatives)):  # fmt: skip
        table = np.zeros(len(owners), dtype)
        for row, (key, hashes) in zip(table, owners.items(), strict=True):
            row["key"] = key
            if not bare or name == "line_items":
                row["caps_start"], row["caps_count"] = len(caps), len(hashes)
            caps += hashes
        rows[name] = table
    rows["caps"] = np.array([(one, 1, one * 10) for one in caps], CAP)
    return rows


def test_caps_of_line_item_and_creative() -> None:
    """An impression counts for the caps of both; who has none has none."""
    table = CapsTable.of(arrays({1 << 63: [1, 2], 4: []}, {9: [3], 8: [], 7: [3]}))
    assert ((1, 10), (2, 20), (3, 30)) == table.caps(1 << 63, 9)
    assert ((3, 30),) == table.caps(4, 7)
    assert () == table.caps(4, 8)
    assert () == table.caps((1 << 64) - 1, 0)
    assert () == CapsTable.empty().caps(1, 2)
    shown: dict[int, list[Impression]] = {}
    assert not table.add(shown, 5, 77, 1000, 4, 8)
    assert table.add(shown, 5, 77, 1000, 4, 9)
    assert {5: [Impression(77, 1000, ((3, 30),))]} == shown


def test_a_creative_of_several_line_items() -> None:
    """It stands in the snapshot once for each of them, with the same caps."""
    found = arrays({1: [1]}, {9: [3]})
    found["creatives"] = np.concatenate([found["creatives"]] * 3)
    assert ((1, 10), (3, 30)) == CapsTable.of(found).caps(1, 9)


def test_a_snapshot_without_caps_of_creatives() -> None:
    """One of an older layout has caps of line items only."""
    assert ((1, 10),) == CapsTable.of(arrays({1: [1]}, {9: []}, bare=True)).caps(1, 9)


def test_what_left_the_catalogue_is_remembered() -> None:
    """A line item that is no more counts by its last caps; one that is, by those of today."""
    first = CapsTable.of(arrays({1: [1, 2], 2: [3]}, {9: [4]}))
    second = CapsTable.of(arrays({2: [5], 3: [6]}, {}), first)
    third = CapsTable.of(arrays({2: []}, {}), second)
    assert ((1, 10), (2, 20), (4, 40)) == second.caps(1, 9)
    assert ((5, 50), (6, 60)) == second.caps(2, 3)
    assert ((1, 10), (2, 20), (4, 40)) == third.caps(1, 9)
    assert ((6, 60),) == third.caps(2, 3)
    assert 4 == len(third.hashes)
