"""Line items one by one: names, results and pacing, and no more of them than somebody looks at."""

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rtb.base.reasons import Reject
from rtb.server import metrics_detail
from rtb.server.metrics_detail import Paced, detail, text_of
from rtb.stores.board import FUNNEL_BID, FUNNEL_FIRST_REASON, FUNNEL_REASONS
from rtb.stores.serving import StatePaths
from tests.decide import worlds

SNAPSHOT = worlds.snapshot(5, 12)
KEYS = [f"{key:016x}" for key in SNAPSHOT["line_items"]["key"].tolist()]


def funnel_of(**counts: int) -> np.ndarray:
    """Counts by "r<row>_<result>"."""
    found = np.zeros((64, FUNNEL_REASONS), np.int64)
    for name, count in counts.items():
        row, _, result = name[1:].partition("_")
        number = FUNNEL_BID if result == "bid" else int(Reject[result.upper()])
        found[int(row), number - FUNNEL_FIRST_REASON] = count
    return found


def samples(*arguments: object) -> dict[str, dict[tuple[str, ...], float]]:
    """What a scraper reads, by metric and labels."""
    text = "\n".join(text_of(SNAPSHOT, *arguments)) + "\n"  # type: ignore[arg-type]
    return {
        family.name: {tuple(one.labels.values()): one.value for one in family.samples}
        for family in text_string_to_metric_families(text)
    }


def name_of(row: int) -> str:
    """The id of a line item."""
    return metrics_detail._Names(SNAPSHOT).of(row)


def test_results_by_line_item() -> None:
    """Bids and drops under their names; rows that the catalogue does not have are not shown."""
    found = samples(funnel_of(r2_bid=3, r2_outranked=7, r5_below_floor=1, r60_bid=9), [])

    assert {
        (name_of(2), "bid"): 3, (name_of(2), "outranked"): 7, (name_of(5), "below_floor"): 1,
    } == found["rtb_line_item_sampled"]  # fmt: skip


def test_pacing_by_line_item() -> None:
    """What was spent of what the plan says; without a plan, or of another catalogue, nothing."""
    rows = [
        Paced(KEYS[1], "line_item_day", 75, 100, 1_200_000, 5_000),
        Paced(KEYS[2], "line_item_day", 5, 0, 1_000_000, 10_000),
        Paced(KEYS[3], "", 5, 0, 1_000_000, 10_000),
        Paced("f" * 16, "line_item_day", 5, 1, 1_000_000, 10_000),
    ]
    found = samples(funnel_of(), rows)

    assert {(name_of(1),): 0.75} == found["rtb_pacing_index"]
    assert {(name_of(1),): 1.2, (name_of(2),): 1.0} == found["rtb_pacing_multiplier"]
    assert {(name_of(1),): 0.5, (name_of(2),): 1.0} == found["rtb_pacing_participation"]


def test_those_that_matter_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most, the busiest are shown, and how many are not is said."""
    monkeypatch.setattr(metrics_detail, "LINE_ITEMS_MAX", 2)
    found = samples(funnel_of(r0_bid=1, r1_bid=9, r2_bid=5), [])

    assert [(name_of(1), "bid"), (name_of(2), "bid")] == list(found["rtb_line_item_sampled"])
    assert {(): 1} == found["rtb_line_items_left_out"]


def test_every_metric_is_documented() -> None:
    """The families of the reference are those of the text."""
    text = "\n".join(text_of(SNAPSHOT, funnel_of(), []))

    assert [family.name for family in metrics_detail.FAMILIES] == re.findall(r"# TYPE (\w+) ", text)


def test_a_node_without_a_catalogue(tmp_path: Path) -> None:
    """There is nothing to tell."""
    assert [] == list(detail(StatePaths(tmp_path)))
