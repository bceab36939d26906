"""How many records a second can the books take, on one core?

    python -m bench.ledger [--quick]

Records are bids and bills, 3:1, as a keeper reads them from journals: bills come up to a few
seconds after their bids, the other bids expire. What is counted is CPU time of everything that the
books do for a batch: the machine, the rows, SQLite with every commit on the disk, forgetting.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bench import options
from bench.record import Result
from bench.servers import cores
from rtb.base.events import bid_id
from rtb.ledger.accounts import State
from rtb.ledger.changes import Changes
from rtb.ledger.commands import (
    TAKE,
    Command,
    Enrol,
    Expire,
    Forget,
    Grant,
    Post,
    Scope,
    SetLimit,
    Take,
    Takes,
)  # fmt: skip
from rtb.ledger.machine import apply
from rtb.stores.ledger_sql import LedgerStore

START_S = 1_790_000_000
BIDS_PER_SECOND = 15_000
HOLD_S = 6
REMEMBERED_S = 12
RECORDS_PER_S_MIN = 20_000


@dataclass(frozen=True)
class Size:
    """How much is played."""

    line_items: int = 1_000
    bids: int = 450_000
    batch: int = 1_500
    large_batch: int = 5_000  # a keeper that is behind takes more at once


def start(size: Size) -> list[Command]:
    """Line items with a limit at every level, and a lease each."""
    commands: list[Command] = []
    for key in range(1, size.line_items + 1):
        campaign, advertiser = key % 100 + 1, key % 10 + 1
        commands += [
            Enrol(START_S, key, campaign, advertiser, "Europe/Berlin", 0x455552, f"line {key}"),
            SetLimit(START_S, Scope.LINE_ITEM, key, 10**15, 10**9),
            SetLimit(START_S, Scope.LINE_ITEM_DAY, key, 10**14),
            SetLimit(START_S, Scope.CAMPAIGN, campaign, 10**17),
            SetLimit(START_S, Scope.ADVERTISER, advertiser, 10**18),
            Grant(START_S, key, 0, START_S, 10**12, 10**6, START_S + 600),
        ]
    return commands


def records(size: Size) -> Iterator[Command]:
    """Bids in order of time, and among them a bill for every third, up to 3 s later."""
    chance = random.Random(7)
    bids: list[Take] = []
    window = 3 * BIDS_PER_SECOND
    for number in range(size.bids):
        time_s = START_S + number // BIDS_PER_SECOND
        line_item = chance.randrange(1, size.line_items + 1)
        name = bid_id(time_s, 0, 0, number % BIDS_PER_SECOND)
        bids.append(Take(name, line_item, 2_000_000, time_s + HOLD_S))
        yield bids[-1]
        if number % 3 == 2:
            won = bids[chance.randrange(max(len(bids) - window, 0), len(bids))]
            yield Post(time_s, won.bid, won.line_item, 1_500_000, 2_000_000, 2_000_000)


def batches(size: Size, count: int) -> list[list[Command]]:
    """As a keeper would apply them: `count` records, the bids first and together, then the bills,
    what is due, and what may be forgotten."""
    found: list[list[Command]] = []
    stream = records(size)
    now_s = START_S
    while batch := list(islice(stream, count)):
        bids = [one for one in batch if isinstance(one, Take)]
        bills = [one for one in batch if not isinstance(one, Take)]
        now_s = max(now_s, *(one.bid >> 32 for one in bids))
        rows = [(one.bid, one.line_item, one.nanos, one.deadline_s, one.units) for one in bids]
        together = Takes(np.array(rows, TAKE))
        found.append([together, *bills, Expire(now_s), Forget(now_s - REMEMBERED_S)])
    return found


def machine_s(size: Size, work: Sequence[Sequence[Command]]) -> float:
    """CPU seconds of the machine alone."""
    state, changes = State(), Changes()
    for command in start(size):
        apply(state, command, changes)
    begin_s = time.process_time()
    for batch in work:
        changes = Changes()
        for command in batch:
            apply(state, command, changes)
        state.settled.clear()  # as the store does
        state.spent.clear()
    return time.process_time() - begin_s


def store_s(size: Size, work: Sequence[Sequence[Command]]) -> tuple[float, float, float]:
    """CPU and wall seconds of the store on SQLite, and CPU seconds of a start from it."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with LedgerStore.open(url) as store:
            store.load()
            store.apply(start(size))
            begin_s, begin_wall_s = time.process_time(), time.monotonic()
            for number, batch in enumerate(work):
                store.apply(batch, {"w0": number})
            spent_s, wall_s = time.process_time() - begin_s, time.monotonic() - begin_wall_s
        begin_s = time.process_time()
        with LedgerStore.open(url) as store:
            store.load()
            return spent_s, wall_s, time.process_time() - begin_s


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=3)
    options.pin(cores()[0])
    size = Size(bids=60_000) if chosen.quick else Size()
    rounds = 1 if chosen.quick else chosen.rounds
    work, large = batches(size, size.batch), batches(size, size.large_batch)
    count = size.bids + size.bids // 3
    result = Result(
        "ledger",
        "How many records a second can the books take, on one core?",
        {"line_items": size.line_items, "bids": size.bids, "batch": size.batch, "rounds": rounds},
    )
    alone = statistics.median(machine_s(size, work) for _ in range(rounds))
    runs = [store_s(size, work) for _ in range(rounds)]
    large_s = statistics.median(store_s(size, large)[0] for _ in range(rounds))
    stored, wall, load = (statistics.median(values) for values in zip(*runs, strict=True))
    result.add("machine_per_s", "the machine alone, records a CPU second", count / alone, "/s")
    result.add(
        "sqlite_per_s", "with SQLite, each batch on the disk, records a CPU second",
        count / stored, "/s", RECORDS_PER_S_MIN, at_least=True,
    )  # fmt: skip
    result.add(
        "sqlite_large_per_s", f"the same in batches of {size.large_batch:,}", count / large_s, "/s"
    )
    result.add(
        "sqlite_wall_per_s", f"by the clock, in batches of {size.batch:,}", count / wall, "/s"
    )
    result.add("load_ms", "a start with 6 s of bids in flight", load * 1000, "ms")
    result.write(chosen.out)


if __name__ == "__main__":
    main()
