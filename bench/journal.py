"""What does the journal cost: a record written, a record read, a commit?

    python -m bench.journal [--quick]

Records are written into real segments on the checkout's disk. `append` is measured alone, in a
loop, and at a steady rate, where caches are cold and pages new; the commit thread's CPU time is
that of the whole thread, flushes included.
"""

import asyncio
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop

from bench import options
from bench.record import ROOT, Result
from bench.servers import cores
from rtb._ext import journal as compiled
from rtb.base.events import BID, NOTICE, Kind
from rtb.stores.journal import Kernel
from rtb.stores.journal_read import Reader
from rtb.stores.journal_write import Journal, Limits

KERNEL = Kernel(compiled.Pen, compiled.scan, compiled.find)
BID_BODY = bytes(range(BID.itemsize))
NOTICE_BODY = bytes(range(NOTICE.itemsize))
RECORDS = 20_000  # a round
RATE = 10_000  # records a second and worker, the rate that the commit is judged at
APPEND_US_MAX = 0.3
READ_US_MAX = 2.0
PACE_S = 0.001


@contextmanager
def fresh() -> Iterator[Path]:
    """An empty directory on the disk that the checkout is on."""
    parent = ROOT / "build" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="journal-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def appends_us(kind: Kind, body: bytes, rounds: int) -> float:
    """CPU time of an append in a loop, the loop included; commits fall between the rounds."""
    found = []
    with fresh() as directory, Journal.open(directory, 0, kernel=KERNEL) as journal:
        append = journal.append
        for _ in range(rounds + 1):
            start_ns = time.thread_time_ns()
            for _ in range(RECORDS):
                append(kind, body)
            found.append((time.thread_time_ns() - start_ns) / RECORDS / 1000)
            journal.turn()
    return statistics.median(found[1:])


def reads_us(rounds: int) -> float:
    """CPU time of a record read, a thousand a call."""
    found = []
    with fresh() as directory:
        with Journal.open(directory, 0, kernel=KERNEL) as journal:
            for _ in range(RECORDS):
                journal.append(Kind.BID, BID_BODY)
        for _ in range(rounds):
            with Reader(directory, 0, kernel=KERNEL) as reader:
                start_ns = time.thread_time_ns()
                while reader.read(1000):
                    pass
                found.append((time.thread_time_ns() - start_ns) / RECORDS / 1000)
    return statistics.median(found)


async def _pace(journal: Journal, duration_s: float) -> tuple[int, list[int], list[float]]:
    """Appends at `RATE`; one in ten waits until it is durable.

    Returns: records, nanoseconds of each append, milliseconds of each wait.
    """
    loop = asyncio.get_running_loop()
    journal.start(loop)
    clock, append = time.perf_counter_ns, journal.append
    appends_ns: list[int] = []
    waits_ms: list[float] = []

    def waited(since_ns: int, _: bool) -> None:
        waits_ms.append((clock() - since_ns) / 1e6)

    start_s, count = time.perf_counter(), 0
    while (spent_s := time.perf_counter() - start_s) < duration_s:
        while count < spent_s * RATE:
            start_ns = clock()
            sequence = append(Kind.BID, BID_BODY)
            appends_ns.append(clock() - start_ns)
            count += 1
            if count % 10 == 0:
                journal.when_durable(sequence, partial(waited, start_ns))
        await asyncio.sleep(PACE_S)
    return count, appends_ns, waits_ms


def steady(duration_s: float) -> dict[str, float]:
    """At the steady rate: the thread's CPU time a record, appends and waits."""
    with fresh() as directory, Journal.open(directory, 0, Limits(), KERNEL) as journal:

        async def run() -> tuple[int, list[int], list[float], float]:
            found = await _pace(journal, duration_s)
            thread = next(one for one in threading.enumerate() if one.name == "journal-0")
            assert thread.ident is not None
            clock = time.pthread_getcpuclockid(thread.ident)
            return *found, time.clock_gettime(clock)

        count, appends_ns, waits_ms, cpu_s = uvloop.run(run())
    appends, waits = sorted(appends_ns), sorted(waits_ms)
    return {
        "commit_us": cpu_s / count * 1e6,
        "commit_core": cpu_s / duration_s,
        "append_p50_us": appends[len(appends) // 2] / 1000,
        "append_p99_us": appends[len(appends) * 99 // 100] / 1000,
        "append_mean_us": statistics.mean(appends) / 1000,
        "durable_p50_ms": waits[len(waits) // 2],
        "durable_p99_ms": waits[len(waits) * 99 // 100],
    }


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__, rounds=15)
    rounds = 5 if chosen.quick else chosen.rounds
    duration_s = 2.0 if chosen.quick else 10.0
    options.pin(cores()[0])
    result = Result(
        "journal",
        "What does the journal cost: a record written, a record read, a commit?",
        {"rounds": rounds, "records": RECORDS, "rate": RATE, "duration_s": duration_s},
    )
    bid_us = appends_us(Kind.BID, BID_BODY, rounds)
    notice_us = appends_us(Kind.WIN, NOTICE_BODY, rounds)
    result.add("append_bid_us", "append a bid, 96 bytes", bid_us, "us", APPEND_US_MAX)
    result.add("append_notice_us", "append a notice, 104 bytes", notice_us, "us", APPEND_US_MAX)
    result.add("read_us", "read a record", reads_us(rounds), "us", READ_US_MAX)
    found = steady(duration_s)
    result.add("commit_us", "commit, CPU a record at 10,000/s", found["commit_us"], "us")
    result.add("durable_p50_ms", "a record is durable after, p50", found["durable_p50_ms"], "ms")
    result.add("durable_p99_ms", "a record is durable after, p99", found["durable_p99_ms"], "ms")
    result.details = {name: round(value, 4) for name, value in found.items()}
    result.write(chosen.out)


if __name__ == "__main__":
    main()
