"""How many records a second does the keeper book, on one core?

    python -m bench.keeper [--quick]

Two workers bid from their purses and journal what they do, 10 bids to 3 bills to 3 impressions; the
other bids expire. What is counted is CPU time of the keeper's turns: reading and checking the
journals, the books, SQLite with every commit on the disk, leases, the board. What the workers do is
not counted.
"""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench import options
from bench.record import ROOT, Result
from bench.servers import cores
from rtb._ext import journal as compiled
from rtb.base.events import BID, CLAIMS_VERSION, MULTIPLIER_ONE, NOTICE, RATE_ONE, Kind, bid_id
from rtb.exchanges.settings import Exchange
from rtb.keeper.letters import Letters
from rtb.keeper.run import Keeper, Settings
from rtb.ledger.chart import Advertiser, Campaign, Chart, LineItem
from rtb.stores.board_money import NO_SLOT, MoneyBoard, Purse
from rtb.stores.journal import Kernel
from rtb.stores.journal_write import Journal, Limits
from rtb.stores.ledger_sql import LedgerStore

KERNEL = Kernel(compiled.Pen, compiled.scan, compiled.find)
START_S = 1_790_000_000
EXCHANGE = Exchange(name="bench", path="bench", reservation_ttl_s=6)
WORKERS = 2
COST = 2_000_000
RECORDS_PER_S_MIN = 20_000
LAG_MS_MAX = 100


@dataclass(frozen=True)
class Size:
    """How much is played: `turn_ms` of traffic a turn, at `bids_per_s` offered."""

    line_items: int = 1_000
    bids_per_s: int = 12_500  # 20,000 records a second
    turn_ms: int = 100
    seconds: int = 20
    warm_s: int = 8  # until leases fit and holds expire


@dataclass
class World:
    """A node without servers."""

    keeper: Keeper
    journals: list[Journal]
    purses: list[Purse]
    size: Size
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    sent: list[tuple[int, np.ndarray]] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    records: int = 0


def chart(size: Size) -> Chart:
    """Line items with a limit at every level."""
    items = tuple(
        LineItem(key, f"line {key}", key % 100 + 1, 10**15, 10**14, 10**9)
        for key in range(1, size.line_items + 1)
    )
    campaigns = tuple(
        Campaign(key, f"campaign {key}", key % 10 + 1, 10**17) for key in range(1, 101)
    )
    owners = tuple(
        Advertiser(key, f"advertiser {key}", "Europe/Berlin", 0x455552, 10**18)
        for key in range(1, 11)
    )
    return Chart(owners, campaigns, items)


def purse_of(board: MoneyBoard, worker: int, journal: Journal) -> Purse:
    """A worker's purse, which says how far its journal goes."""
    return Purse(board, worker, lambda: journal.last_sequence)


@contextmanager
def world(size: Size) -> Iterator[World]:
    """On the disk that the checkout is on."""
    parent = ROOT / "build" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="keeper-", dir=parent))
    board = MoneyBoard.create(folder / "money", WORKERS, (size.line_items + 7) // 8 * 8)
    with LedgerStore.open(f"sqlite:///{folder / 'ledger.db'}") as books:
        keeper = Keeper(
            books, board, folder / "journals", Letters(folder / "dead"),
            {EXCHANGE.claim_key: EXCHANGE}, KERNEL, Settings(remember_s=12),
        )  # fmt: skip
        keeper.chart(chart(size), START_S * 1000)
        journals = [
            Journal.open(folder / "journals", worker, Limits(), KERNEL) for worker in range(WORKERS)
        ]
        purses = [purse_of(board, worker, journal) for worker, journal in enumerate(journals)]
        for purse in purses:
            purse.bind(np.arange(1, size.line_items + 1, dtype=np.uint64))
        yield World(keeper, journals, purses, size)
        for journal in journals:
            journal.close()
        keeper.close()
    shutil.rmtree(folder)


def offer(found: World, now_ms: int) -> None:
    """One opportunity: a bid if it can be paid, and with it 0.3 bills and impressions."""
    worker = found.chance.randrange(WORKERS)
    key = found.chance.randrange(1, found.size.line_items + 1)
    purse = found.purses[worker]
    slot = int(purse.slots()[key - 1])
    if slot == NO_SLOT or not purse.affords(slot, key, COST, now_ms):
        return
    second = now_ms // 1000
    number = found.counts[second * WORKERS + worker] = (
        found.counts.get(second * WORKERS + worker, -1) + 1
    )
    body = np.zeros(1, BID)
    said = body["claims"]
    said["version"], said["exchange"] = CLAIMS_VERSION, EXCHANGE.claim_key
    said["bid"], said["line_item"] = bid_id(second, 0, worker, number), key
    said["price_micros"], said["rate_e9"] = COST, RATE_ONE
    body["reserve_nanos"], body["time_ms"] = COST, now_ms
    found.journals[worker].append(Kind.BID, body.tobytes())
    purse.take(slot, COST)
    found.records += 1
    if found.chance.randrange(10) < 3:
        found.sent.append((now_ms + found.chance.randrange(3_000), said.copy()))


def notices(found: World, now_ms: int) -> None:
    """The bill and the impression of each won bid whose time has come, on any worker."""
    due = [one for one in found.sent if one[0] <= now_ms]
    found.sent = [one for one in found.sent if one[0] > now_ms]
    for _, said in due:
        body = np.zeros(1, NOTICE)
        body["claims"], body["time_ms"] = said, now_ms
        body["price_micros"], body["multiplier_e6"], body["price_state"] = (
            1_500_000,
            MULTIPLIER_ONE,
            1,
        )
        journal = found.journals[found.chance.randrange(WORKERS)]
        for kind in (Kind.BILL, Kind.IMPRESSION):
            journal.append(kind, body.tobytes())
            found.records += 1


def play(size: Size) -> tuple[float, list[float], int]:
    """CPU seconds of the turns after the warm-up, their wall ms, and how many records they read."""
    spent_s, walls_ms, before = 0.0, [], 0
    with world(size) as found:
        turns = (size.warm_s + size.seconds) * 1000 // size.turn_ms
        for turn in range(turns):
            now_ms = START_S * 1000 + turn * size.turn_ms
            for _ in range(size.bids_per_s * size.turn_ms // 1000):
                offer(found, now_ms)
            notices(found, now_ms)
            for purse, journal in zip(found.purses, found.journals, strict=True):
                purse.rest()
                journal.turn()
            measured = now_ms - START_S * 1000 >= size.warm_s * 1000
            begin_s, begin_wall_s = time.process_time(), time.monotonic()
            found.keeper.step(now_ms)
            if measured:
                spent_s += time.process_time() - begin_s
                walls_ms.append((time.monotonic() - begin_wall_s) * 1000)
            else:
                before = found.keeper.records
        return spent_s, walls_ms, found.keeper.records - before


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=3)
    options.pin(cores()[0])
    size = Size(seconds=5) if chosen.quick else Size()
    few = replace(size, line_items=100)
    half = replace(size, bids_per_s=size.bids_per_s // 2, turn_ms=50)
    rounds = 1 if chosen.quick else chosen.rounds
    result = Result(
        "keeper",
        "How many records a second does the keeper book, on one core?",
        {"line_items": size.line_items, "seconds": size.seconds, "turn_ms": size.turn_ms,
         "workers": WORKERS, "rounds": rounds},
    )  # fmt: skip
    runs = [play(size) for _ in range(rounds)]
    rate = statistics.median(count / spent for spent, _, count in runs)
    result.add(
        "records_per_s", f"{size.line_items:,} line items, records a CPU second", rate, "/s",
        RECORDS_PER_S_MIN, at_least=True,
    )  # fmt: skip
    spent, _, count = play(few)
    result.add("few_items_per_s", f"the same, {few.line_items} line items", count / spent, "/s")
    _, walls, count = play(half)
    walls.sort()
    label = f"a turn at {count // half.seconds:,} records a second by the clock"
    result.add("turn_p50_ms", f"{label}, p50", walls[len(walls) // 2], "ms")
    result.add("turn_p99_ms", f"{label}, p99", walls[len(walls) * 99 // 100], "ms", LAG_MS_MAX)
    result.write(chosen.out)


if __name__ == "__main__":
    main()
