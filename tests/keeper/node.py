"""A node for tests: journals, board, books, workers and a keeper that can all be killed.

Time is the node's; nothing sleeps. A killed worker keeps its pages, as the system would: its
journal is left unclosed and unlocked. Journals are committed by hand, one `turn` a bid or so.
"""

import fcntl
import os
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rtb.base.events import Kind, bid_id
from rtb.exchanges.settings import Exchange
from rtb.keeper.leases import Limits as Leases
from rtb.keeper.letters import Letters
from rtb.keeper.run import NO_COSTS, Keeper, Settings
from rtb.ledger.accounts import Balance
from rtb.ledger.chart import Advertiser, Campaign, Chart, FlightBudget, LineItem
from rtb.ledger.commands import Outcome, Scope
from rtb.stores.board_money import NO_SLOT, MoneyBoard, Purse
from rtb.stores.journal_write import Journal
from rtb.stores.journal_write import Limits as Sizes
from rtb.stores.ledger_pool import open_books
from tests.keeper.records import ADX, EXCHANGES, bid_body, claims, notice_body
from tests.stores.journals import COMPILED, Disk, Killed

T = 1_790_000_000  # 14:13:20 UTC
USD = 0x555344
CAMPAIGN, ADVERTISER = 500, 600
SIZES = Sizes(segment_bytes=1 << 17, backlog_bytes=1 << 15, retry_ms=0)
UNLIMITED = 1 << 50


@dataclass
class Bid:
    """One that went out."""

    said: np.ndarray
    nanos: int
    line_item: int
    time_ms: int


class Worker:
    """Bids from its purse, and writes its journal."""

    def __init__(self, node: "Node", number: int) -> None:
        self.node, self.number = node, number
        self.disk = Disk(salt=node.chance.randrange(1 << 32))
        world = self.disk.world()
        self.journal = Journal.open(node.journals, number, SIZES, COMPILED, world)
        self.purse = Purse(node.board, number, lambda: self.journal.last_sequence)
        self._bound = 0
        self._second = 0  # of the newest bid: a clock may step back, ids do not

    def slot_of(self, line_item: int) -> int:
        """Where a line item stands on the board, or NO_SLOT."""
        if line_item != self._bound:
            self.purse.bind(np.array([line_item], np.uint64))
            self._bound = line_item
        return int(self.purse.slots()[0])

    def bid(self, line_item: int, micros: int = 1000, exchange: Exchange = ADX) -> Bid | None:
        """One opportunity: bids if the purse affords it."""
        node = self.node
        now_ms = max(node.now_ms, self._second * 1000)
        slot = self.slot_of(line_item)
        if slot == NO_SLOT or not self.purse.affords(slot, line_item, micros, now_ms):
            return None
        said = claims(self._id(now_ms // 1000), line_item, micros, exchange=exchange)
        found = Bid(said, micros, line_item, now_ms)
        self.journal.append(Kind.BID, bid_body(found.said, micros, now_ms))
        if node.chance.random() < node.die_in_bid:  # between the record and the word
            self.kill()
            return None
        self.purse.take(slot, micros)
        node.sent.append(found)
        return found

    def notice(self, kind: Kind, bid: Bid, micros: int = -1) -> None:
        """A notice of some bid, of whichever worker."""
        self.journal.append(kind, notice_body(bid.said, self.node.now_ms, micros))

    def kill(self) -> None:
        """Ends without a word; the kernel drops its lock and keeps its pages."""
        journal = self.journal
        fcntl.flock(journal._lock_file, fcntl.LOCK_UN)
        os.close(journal._lock_file)
        self.node.workers[self.number] = None

    def _id(self, second: int) -> int:
        node, self._second = self.node, second
        key = (second, self.number)
        node.counted[key] = node.counted.get(key, -1) + 1
        return bid_id(second, node.number, self.number, node.counted[key])


@dataclass
class Node:
    """Everything on one machine."""

    folder: Path
    workers_count: int = 2
    number: int = 0
    seed: int = 1
    lease_ms: int = 2_000
    now_ms: int = T * 1000
    steady_ms: int = 0  # goes on by turns alone, whatever is made of `now_ms`
    die_in_bid: float = 0.0
    keeper_dies: float = 0.0
    keepers: int = 0  # that were started
    sent: list[Bid] = field(default_factory=list)
    counted: dict[tuple[int, int], int] = field(default_factory=dict)
    outcomes: Counter[Outcome] = field(default_factory=Counter)  # of keepers that are no more
    limits: dict[str, int] = field(default_factory=dict)  # of leases, over the defaults
    books_url: str = ""  # "": in its folder

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.journals = self.folder / "journals"
        self.board = MoneyBoard.create(self.folder / "run" / "money", self.workers_count, 8)
        self.books_url = self.books_url or f"sqlite:///{self.folder / 'ledger.db'}"
        self.workers: list[Worker | None] = [None] * self.workers_count
        self.letters = self.folder / "dead.jsonl"
        self.plan = Chart()
        self.start_keeper()

    def start_keeper(self) -> None:
        """A new keeper process; the last one, if any, simply is no more."""
        self.keepers += 1
        self.books = open_books(self.books_url, self.number)
        settings = Settings(self.number, leases=Leases(lease_ms=self.lease_ms, **self.limits))
        self.keeper = Keeper(
            self.books, self.board, self.journals, Letters(self.letters), EXCHANGES, COMPILED,
            settings,
        )  # fmt: skip
        if self.plan.line_items:
            self.keeper.chart(self.plan, self.now_ms)

    def kill_keeper(self) -> None:
        """Lets go of its files as the system would."""
        self.outcomes.update(self.keeper.outcomes)
        self.keeper.close()
        self.books.close()

    def offer(
        self, *items: LineItem, zone: str = "UTC", nanos: int | None = None,
        costs: Mapping[int, int] = NO_COSTS, currency: int = USD,
    ) -> None:  # fmt: skip
        """Sets the budgets."""
        self.plan = Chart(
            (Advertiser(ADVERTISER, "shop", zone, currency),),
            (Campaign(CAMPAIGN, "spring", ADVERTISER, nanos),),
            items,
        )
        self.keeper.chart(self.plan, self.now_ms, costs)

    def start(self, number: int) -> Worker:
        """Starts one worker."""
        found = self.workers[number] = Worker(self, number)
        return found

    def start_all(self) -> None:
        """Starts all, and turns until they may be lent to."""
        for number in range(self.workers_count):
            self.start(number)
        self.turns(3)

    def commit(self) -> None:
        """What the threads of the journals would do."""
        for worker in self.workers:
            if worker is not None:
                worker.journal.turn()

    def turn(self, ms: int = 50) -> int:
        """Time passes: workers rest, journals are committed, the keeper steps."""
        self.now_ms += ms
        self.steady_ms += ms
        for worker in self.workers:
            if worker is not None:
                worker.purse.rest()
        self.commit()
        try:
            return self.keeper.step(self.now_ms, self.steady_ms)
        except Killed:
            self.kill_keeper()
            self.start_keeper()
            return 0

    def turns(self, count: int, ms: int = 50) -> None:
        """Several."""
        for _ in range(count):
            self.turn(ms)

    def balance(self, balance: Balance, line_item: int) -> int:
        """Nanos of a line item."""
        return self.books.balances(Scope.LINE_ITEM, line_item)[0][balance]

    def committed(self, line_item: int) -> int:
        """What is lent, in flight and spent."""
        nanos = self.books.balances(Scope.LINE_ITEM, line_item)[0]
        return nanos[Balance.GRANTED] + nanos[Balance.PENDING] + nanos[Balance.POSTED]

    def lent(self, line_item: int) -> int:
        """Nanos that the board lets workers take."""
        slot = self.keeper.slots.slot[line_item]
        return int((self.board.granted[:, slot] - self.board.taken[:, slot]).sum())

    def close(self) -> None:
        """Ends all."""
        for worker in self.workers:
            if worker is not None:
                worker.journal.close()
        self.kill_keeper()


def line(key: int, nanos: int | None = None, *, daily: int | None = None,
         units: int | None = None, until_s: int = 0) -> LineItem:  # fmt: skip
    """A line item; until_s: the end of its flight, which then has the budget."""
    if not until_s:
        return LineItem(key, f"line {key}", CAMPAIGN, nanos, daily, units)
    flight = FlightBudget(key + 1000, T - 1000, until_s, nanos, units)
    return LineItem(key, f"line {key}", CAMPAIGN, None, daily, None, (flight,))
