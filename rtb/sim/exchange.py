"""The simulated exchange: processes that send and auction, one that watches and sums up.

The load runs in processes of its own (`rtb.sim.load`), because a live table takes milliseconds to
draw, and a generator that draws is late. They report by pipe twice a second.
"""

import asyncio
import math
import multiprocessing as mp
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rtb.base.errors import ConfigError
from rtb.sim.load import Load, Pace
from rtb.sim.pool import Target, pool_of
from rtb.sim.seed import people_count
from rtb.sim.tally import Summary, Tally, TallyRecord, summary
from rtb.sim.traffic import Traffic

REPORT_S: Final = 0.5
# Distinct requests that a process replays: far more than any cache of a bidder could hold warm.
POOL_SIZE: Final = 20_000
# Above this share of sends that were a millisecond late, the figures are of the generator.
LATE_SHARE_MAX: Final = 0.02


@dataclass(frozen=True, slots=True)
class Options:
    """What `rtb exchange` was asked for. `seconds` 0 runs until interrupted."""

    url: str
    rate: float = 1000.0
    seconds: float = 10.0
    connections: int = 64
    processes: int = 1
    seed: int = 1
    requests: Path | None = None
    keep_ids: bool = False
    data: Path | None = None
    pool_size: int = POOL_SIZE

    def check(self) -> None:
        """Raises: ConfigError for what cannot be."""
        Target.of(self.url)
        if not 0 < self.rate <= 1e6:
            raise ConfigError(f"rate: expected requests a second, got {self.rate}")
        if self.seconds < 0:
            raise ConfigError(f"seconds: expected 0 or more, got {self.seconds}")
        if not 1 <= self.processes <= 64:
            raise ConfigError(f"processes: expected 1 to 64, got {self.processes}")
        if self.connections < self.processes:
            raise ConfigError(f"connections: expected one a process or more: {self.connections}")


# Who is told how it goes: (total, of the last second or so, its seconds, seconds since the start).
Watcher = Callable[[Tally, Tally, float, float], None]


class _Message(msgspec.Struct):
    """From a load process: `kind` is "ready", "tally", "done" or "error"."""

    kind: str
    tally: TallyRecord | None = None
    seconds: float = 0.0
    error: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Message).decode


# -- the process that sends -----------------------------------------------------------------------


def bodies(options: Options, share: int) -> Iterator[bytes]:
    """The requests of one process: from the file, or generated."""
    if options.requests is not None:
        try:
            with options.requests.open("rb") as file:
                lines = [line.strip() for line in file]
        except OSError as error:
            raise ConfigError(f"{options.requests}: {error}") from error
        # Each process begins elsewhere, so that together they do not send everything twice at once.
        start = share * len(lines) // options.processes
        yield from lines[start:] + lines[:start]
        return
    traffic = Traffic(options.seed + share, people_count(options.data))
    count = options.pool_size
    if options.seconds:
        # No more than will be sent: a short run starts sooner.
        sent = options.rate * options.seconds / options.processes
        count = min(count, max(1, math.ceil(sent * 1.1)))
    yield from traffic.bodies(count)


def _child(options: Options, share: int, pipe: Connection) -> None:
    """Entry point of a load process. Interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target = Target.of(options.url)
        pool = pool_of(bodies(options, share), target, share, keep_ids=options.keep_ids)
        pace = Pace(
            rate=options.rate / options.processes,
            seconds=options.seconds,
            connections=max(1, options.connections // options.processes),
            seed=options.seed + share,
        )
        pipe.send_bytes(_encode(_Message("ready")))
        pipe.recv_bytes()  # all are ready: go
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_load(Load(target, pool, pace), pipe))
    except ConfigError as error:
        pipe.send_bytes(_encode(_Message("error", error=str(error))))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone


async def _load(load: Load, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    # Any word from the parent, or its end, means stop.
    loop.add_reader(pipe.fileno(), load.stop)
    reporter = asyncio.create_task(_report(load, pipe))
    try:
        seconds = await load.run()
    finally:
        loop.remove_reader(pipe.fileno())
        reporter.cancel()
    pipe.send_bytes(_encode(_Message("done", load.tally.record(), seconds)))


async def _report(load: Load, pipe: Connection) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        pipe.send_bytes(_encode(_Message("tally", load.tally.record())))


# -- the process that watches ---------------------------------------------------------------------


class _Children:
    """The load processes and the last word of each."""

    def __init__(self, options: Options) -> None:
        context = mp.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        self.tallies = [Tally() for _ in range(options.processes)]
        self.seconds = 0.0
        for share in range(options.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(options, share, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.running = set(range(options.processes))

    def start(self) -> None:
        """Waits until all have their requests, then lets them go. Raises: ConfigError."""
        for pipe in self.pipes:
            self._read(pipe, "ready")
        for pipe in self.pipes:
            pipe.send_bytes(b"go")

    def poll(self, timeout_s: float) -> None:
        """Takes what has been reported. Raises: ConfigError when a process failed."""
        pipes = [self.pipes[number] for number in self.running]
        for ready in wait(pipes, timeout_s):
            number = next(n for n in self.running if self.pipes[n] is ready)
            message = self._read(self.pipes[number], "tally")
            if message.tally is not None:
                self.tallies[number] = Tally.of(message.tally)
            if message.kind == "done":
                self.seconds = max(self.seconds, message.seconds)
                self.running.discard(number)

    def _read(self, pipe: Connection, expected: str) -> _Message:
        try:
            message = _decode(pipe.recv_bytes())
        except EOFError as error:
            raise ConfigError("a load process ended without a word") from error
        if message.kind == "error":
            raise ConfigError(message.error)
        if expected == "ready" and message.kind != "ready":
            raise ConfigError(f"a load process said {message.kind!r} before it was ready")
        return message

    def total(self) -> Tally:
        total = self.tallies[0]
        for each in self.tallies[1:]:
            total = total.plus(each)
        return total

    def stop(self) -> None:
        """Asks all to end; they wait for their last answers."""
        for number in self.running:
            try:
                self.pipes[number].send_bytes(b"stop")
            except OSError:
                continue

    def close(self) -> None:
        """Makes sure that nothing is left."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
                process.join()


def run(options: Options, watch: Watcher | None = None) -> Summary:
    """Runs an exchange to its end, or to an interrupt (Ctrl-C), and sums it up.

    Raises: ConfigError for options that cannot be, requests that are none, or nobody listening.
    """
    options.check()
    children = _Children(options)
    try:
        children.start()
        _watch(children, watch)
        return summary(children.total(), children.seconds)
    finally:
        children.close()


def _watch(children: _Children, watch: Watcher | None) -> None:
    started = last_s = time.monotonic()
    before = Tally()
    stopped = False
    while children.running:
        try:
            children.poll(REPORT_S)
            now_s = time.monotonic()
            if watch is not None and now_s - last_s >= 2 * REPORT_S:
                total = children.total()
                watch(total, total.since(before), now_s - last_s, now_s - started)
                before, last_s = total, now_s
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            children.stop()


# -- for people -----------------------------------------------------------------------------------


def table(total: Tally, recent: Tally, recent_s: float, elapsed_s: float) -> Group:
    """The live view: the last second beside the whole, and why bids do not win."""
    grid = Table(title=f"simulated exchange, {elapsed_s:.0f} s", min_width=64)
    for name in ("", "now", "all"):
        grid.add_column(name, justify="right" if name else "left")
    columns = ((recent, recent_s), (total, elapsed_s))
    grid.add_row("requests/s", *(f"{t.counts['requests'] / max(s, 1e-9):,.0f}" for t, s in columns))
    grid.add_row("bid rate", *(f"{t.ratio('bids', 'requests'):.1%}" for t, _ in columns))
    grid.add_row("win rate", *(f"{t.ratio('wins', 'valid_bids'):.1%}" for t, _ in columns))
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        cells = (f"{t.latency.quantile_ms(share):.2f} ms" for t, _ in columns)
        grid.add_row(name, *cells)
    for name in ("timeouts", "errors", "invalid", "no_bids", "wins"):
        grid.add_row(name.replace("_", " "), *(f"{t.counts[name]:,}" for t, _ in columns))
    grid.add_row("spend", *(f"${t.counts['spend_micros'] / 1e6:,.2f}" for t, _ in columns))
    reasons = sorted(total.reasons.items(), key=lambda item: -item[1])[:6]
    words = ", ".join(f"{name} {count:,}" for name, count in reasons) or "none"
    return Group(grid, Text(f"why not: {words}"))


def lagging(found: Summary) -> str:
    """A warning when the generator was the bottleneck; "" when it kept its schedule."""
    if not found.requests or found.late_sends / found.requests <= LATE_SHARE_MAX:
        return ""
    return (
        f"the generator was late with {found.late_sends / found.requests:.1%} of its requests "
        f"(p99 {found.lag_p99_ms} ms): lower the rate, add --processes, or use another machine; "
        "latencies include that lateness"
    )


def lines(found: Summary) -> Iterator[str]:
    """The summary for people."""
    yield (
        f"{found.requests:,} requests in {found.seconds:g} s ({found.rate:,.0f}/s): "
        f"{found.bids:,} bid on ({found.bid_rate:.1%}), {found.no_bids:,} no bid, "
        f"{found.wins:,} wins ({found.win_rate:.1%} of bids), ${found.spend:,.2f} spent"
    )
    yield (
        f"latency p50 {found.p50_ms} ms, p99 {found.p99_ms} ms, p99.9 {found.p999_ms} ms, "
        f"max {found.max_ms} ms; {found.timeouts:,} timeouts, {found.errors:,} errors, "
        f"{found.invalid:,} invalid"
    )
    if found.reasons:
        words = ", ".join(f"{name} {count:,}" for name, count in list(found.reasons.items())[:8])
        yield f"why not: {words}"


def watched(show: bool, console: Console) -> "_Screen":
    """A live table on a terminal; nothing elsewhere."""
    return _Screen(show, console)


class _Screen:
    """Draws the live table while it is open."""

    def __init__(self, show: bool, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True) if show else None

    def __enter__(self) -> Watcher | None:
        if self._live is None:
            return None
        self._live.__enter__()
        return self._draw

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def _draw(self, total: Tally, recent: Tally, recent_s: float, elapsed_s: float) -> None:
        assert self._live is not None
        self._live.update(table(total, recent, recent_s, elapsed_s), refresh=True)


def is_terminal() -> bool:
    """Whether people look at standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
