"""What `/metrics/detail` shows: line items, one by one, as Prometheus text.

It is asked for apart from `/metrics`, for there are as many series as line items, and it is made by
a process of its own that gives way to bids: `python -m rtb.server.metrics_detail STATE`.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from rtb.base.errors import RtbError, StoreError
from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
from rtb.catalogue.snapshot import Snapshot
from rtb.server.metrics import reject_name
from rtb.stores import artifacts, board_funnel
from rtb.stores.board import FUNNEL_BID, FUNNEL_FIRST_REASON, FUNNEL_SAMPLE, Board
from rtb.stores.board_funnel import Funnel
from rtb.stores.serving import StatePaths, read_serving

# Of each family those that there is most to tell of; ten thousand would be more than is scraped in
# time, and nobody looks at them.
LINE_ITEMS_MAX: Final = 2_000
NICE: Final = 10


class Family(NamedTuple):
    """One metric, for the text and for the reference."""

    name: str
    type: str
    labels: str
    help: str


SAMPLED: Final = Family(
    "rtb_line_item_sampled_total", "counter", "line_item, result",
    f"Candidates of one request in {FUNNEL_SAMPLE}: bids, or the rule that dropped them; since "
    "the catalogue that is served was let in",
)  # fmt: skip
INDEX: Final = Family(
    "rtb_pacing_index", "gauge", "line_item", "Spend as a share of what the plan says by now"
)
MULTIPLIER: Final = Family(
    "rtb_pacing_multiplier", "gauge", "line_item", "What pacing multiplies bids by"
)
PARTICIPATION: Final = Family(
    "rtb_pacing_participation", "gauge", "line_item", "Share of requests that pacing lets it have"
)
LEFT_OUT: Final = Family(
    "rtb_line_items_left_out", "gauge", "",
    f"Line items beyond the {LINE_ITEMS_MAX:,} of each metric that there is most to tell of",
)  # fmt: skip
FAMILIES: Final = (SAMPLED, INDEX, MULTIPLIER, PARTICIPATION, LEFT_OUT)


class Paced(msgspec.Struct, frozen=True):
    """A line item of the keeper's report (`rtb.keeper.pace_report.Row`)."""

    line_item: str
    scope: str
    spent: int
    target: int
    multiplier_e6: int
    participation_e4: int


def text_of(snapshot: Snapshot, funnel: Funnel, paced: Iterable[Paced]) -> Iterator[str]:
    """The text, line by line.

    funnel: (rows, reasons), as `board_funnel.since` has it
    """
    items = snapshot["line_items"]
    known = {f"{key:016x}": row for row, key in enumerate(items["key"].tolist())}
    names = _Names(snapshot)
    counts = funnel[: len(items)]
    busy = np.flatnonzero(counts.any(axis=1))
    ranked = busy[np.argsort(-counts[busy].sum(axis=1), kind="stable")]
    yield from _head(SAMPLED)
    for row in ranked[:LINE_ITEMS_MAX].tolist():
        for reason in np.flatnonzero(counts[row]).tolist():
            label = f'line_item="{names.of(row)}",result="{_result(reason)}"'
            yield f"{SAMPLED.name}{{{label}}} {counts[row, reason]}"
    rows = [(known[one.line_item], one) for one in paced if one.scope and one.line_item in known]
    rows.sort(key=lambda pair: -pair[1].spent)
    for family, value in _PACING:
        yield from _head(family)
        for row, one in rows[:LINE_ITEMS_MAX]:
            found = value(one)
            if found is not None:
                yield f'{family.name}{{line_item="{names.of(row)}"}} {found:.6g}'
    yield from _head(LEFT_OUT)
    yield f"{LEFT_OUT.name} {max(len(busy), len(rows), LINE_ITEMS_MAX) - LINE_ITEMS_MAX}"


def _index(one: Paced) -> float | None:
    return one.spent / one.target if one.target else None


def _multiplier(one: Paced) -> float | None:
    return one.multiplier_e6 / MULTIPLIER_E6_ONE


def _participation(one: Paced) -> float | None:
    return one.participation_e4 / PARTICIPATION_E4_ALL


_PACING: Final = ((INDEX, _index), (MULTIPLIER, _multiplier), (PARTICIPATION, _participation))


def _head(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.type}"


def _result(reason: int) -> str:
    number = reason + FUNNEL_FIRST_REASON
    return "bid" if number == FUNNEL_BID else reject_name(number)


class _Names:
    """Ids of line items, fit to stand in a label."""

    def __init__(self, snapshot: Snapshot) -> None:
        rows = snapshot["line_items"]
        self._starts, self._counts = rows["id_start"], rows["id_count"]
        self._text = snapshot["text"].data

    def of(self, row: int) -> str:
        start = int(self._starts[row])
        text = bytes(self._text[start : start + int(self._counts[row])]).decode(errors="replace")
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def detail(paths: StatePaths) -> Iterator[str]:
    """The text of a node; nothing before it serves a catalogue. Raises: StoreError."""
    serving = read_serving(paths)
    if serving is None:
        return
    snapshot = artifacts.open_snapshot(paths.root / serving.snapshot, verify=False)
    funnel = board_funnel.since(Board.open(paths.board), serving.generation)
    yield from text_of(snapshot, funnel, _paced(paths.pacing_report))


def _paced(path: Path) -> list[Paced]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Paced])
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error


def main() -> int:
    """Entry point; 1 when it cannot be told, the reason is on standard error."""
    os.nice(NICE)
    try:
        for line in detail(StatePaths(Path(sys.argv[1]))):
            sys.stdout.write(f"{line}\n")
    except RtbError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
