"""What pacing needs of a node, for tests: a snapshot, books, boards, and a market that is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtb.base.events import bid_id
from rtb.base.reasons import Reject
from rtb.base.records import Dim
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import Advertiser, Campaign, Catalogue, Creative, Goal, LineItem
from rtb.catalogue.snapshot import Snapshot
from rtb.catalogue.tokens import hash_of
from rtb.keeper.chart import chart_of, plans_of
from rtb.keeper.pace import Pacers, Settings
from rtb.keeper.pace_budgets import aimed_in
from rtb.keeper.publish import Slots
from rtb.ledger.chart import changes_to
from rtb.ledger.commands import Outcome, Post, Take
from rtb.stores.board import FUNNEL_BID, FUNNEL_FIRST_REASON, FUNNEL_SAMPLE, Board
from rtb.stores.board_money import MoneyBoard
from tests.ledger.books import Books

MIDNIGHT_S = 1_789_948_800  # 2026-09-21 00:00 UTC, a Monday
MAX_CPM = "2"  # a bid costs 2,000,000 nanos at most

SILENT = Settings(report_ms=1 << 40)


def key_of(line_item: str) -> int:
    return hash_of(Dim.AD, f"line_item:{line_item}")


def snapshot_of(
    line_items: Mapping[str, Mapping[str, Any]], zone: str = "UTC", **campaign: Any
) -> Snapshot:
    """Line items of one campaign, paced evenly; each with what is special about it."""
    catalogue = Catalogue()
    catalogue.add(Advertiser("a", "Shop", domains=("s.example",), currency="USD", timezone=zone))
    catalogue.add(Campaign("c", "a", **campaign))
    catalogue.add(Creative("cr", "a", "html", html="<b>x</b>"))
    for name, fields in line_items.items():
        its = {"pacing": "even"} | dict(fields)
        catalogue.add(LineItem(name, "c", Goal("cpm", amount=MAX_CPM), ("cr",), **its))
    arrays, meta = compile_snapshot(catalogue)
    return Snapshot(arrays, meta, "")


@dataclass
class PacedNode:
    """Books, boards and pacers in a folder; `serve` first."""

    folder: Path
    now_s: int = MIDNIGHT_S
    settings: Settings = SILENT
    books: Books = field(default_factory=Books)
    spent: dict[str, int] = field(default_factory=dict)
    bids: int = 0

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng(7)
        self.board = Board.create(self.folder / "board", 2, 16)
        self.money = MoneyBoard.create(self.folder / "money", 2, 16)
        self.start()

    def start(self) -> None:
        """A new keeper on the same files."""
        self.pacers = Pacers(
            self.board, self.money, self.folder / "memory", self.folder / "report", self.settings
        )

    def serve(self, snapshot: Snapshot) -> None:
        """Budgets, places and pacing of a snapshot."""
        plans = plans_of(snapshot)
        for command in changes_to(chart_of(snapshot, plans), self.books.state, self.now_s):
            self.books(command)
        self.rows = {one: row for row, one in enumerate(self._names(snapshot))}
        slots = Slots(self.money)
        slots.assign([key_of(one) for one in self.rows])
        self.slots = slots.slot
        aimed = aimed_in(snapshot, plans, self.pacers.weights, self.now_s)
        self.pacers.serve(aimed, self.books.state, self.slots, self.now_s * 1000)

    def _names(self, snapshot: Snapshot) -> list[str]:
        return [snapshot.id_of("line_items", row) for row in range(len(snapshot["line_items"]))]

    def said(self, line_item: str) -> tuple[int, int]:
        """Multiplier and participation on the board."""
        slot = self.slots[key_of(line_item)]
        return int(self.money.multiplier_e6[slot]), int(self.money.participation_e4[slot])

    def turn(self, seconds: int = 1) -> None:
        """Time passes, and one whole round."""
        self.now_s += seconds
        for _ in range(2 + self.board.workers_count * 2):
            self.pacers.turn(self.books.state, self.now_s * 1000)

    def offer(self, line_item: str, requests: int, floor: float = 0.0, won: float = 1.0) -> int:
        """Requests that the line item can have, all at one floor, as a share of its value; told as
        a worker would. Bids cost what they bid. Returns: impressions.
        """
        multiplier_e6, part_e4 = self.said(line_item)
        open_ = int(self.chance.binomial(requests, part_e4 / 10_000))
        bids = open_ if multiplier_e6 / 1e6 > floor else 0
        wins = int(self.chance.binomial(bids, won))
        self._count(line_item, requests - open_, Reject.PACED)
        self._count(line_item, open_ - bids, Reject.BELOW_FLOOR)
        self._count(line_item, bids, FUNNEL_BID)
        nanos = 2_000_000 * multiplier_e6 // 1_000_000
        slot = self.slots[key_of(line_item)]
        self.money.taken[0, slot] += bids * nanos
        self.money.taken_units[0, slot] += bids
        for number in range(bids):
            self._book(key_of(line_item), nanos, number < wins)
        self.spent[line_item] = self.spent.get(line_item, 0) + wins * nanos
        return wins

    def _count(self, line_item: str, requests: int, reason: int) -> None:
        sampled = self.chance.binomial(requests, 1 / FUNNEL_SAMPLE)
        self.board.funnel[0, self.rows[line_item], reason - FUNNEL_FIRST_REASON] += sampled

    def _book(self, key: int, nanos: int, won: bool) -> None:
        """A lost bid is reserved for a moment only; what is won is posted."""
        self.bids += 1
        if not won:
            return
        bid = bid_id(self.now_s, 0, 0, self.bids)
        self.books(Take(bid, key, nanos, self.now_s + 600))
        outcome = self.books(Post(self.now_s, bid, key, nanos, nanos, nanos))
        assert outcome in (Outcome.POSTED, Outcome.POSTED_OVER)
