"""The simulated exchange: processes that send and auction, one that watches and sums up.

The load runs in processes of its own (`rtb.sim.child`), because a live table takes milliseconds to
draw, and a generator that draws is late. They report by pipe twice a second.
"""

import multiprocessing as mp
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rtb.base.errors import ConfigError
from rtb.base.money import format_amounts
from rtb.sim import child, invoice
from rtb.sim.child import REPORT_S, Message
from rtb.sim.currencies import in_dollars
from rtb.sim.options import Options as Options
from rtb.sim.tally import Summary, Tally, summary

# Above this share of sends that were a millisecond late, the figures are of the generator.
LATE_SHARE_MAX: Final = 0.02


# Who is told how it goes: (total, of the last second or so, its seconds, seconds since the start).
Watcher = Callable[[Tally, Tally, float, float], None]


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
            process = context.Process(target=child.main, args=(options, share, theirs), daemon=True)
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

    def _read(self, pipe: Connection, expected: str) -> Message:
        try:
            message = child.decode_message(pipe.recv_bytes())
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
        if options.invoice is not None:
            invoice.join(options.invoice, options.processes)


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
    for name in _SHOWN:
        grid.add_row(name.replace("_", " "), *(f"{t.counts[name]:,}" for t, _ in columns))
    grid.add_row("spend", *(f"${in_dollars(t.billed):,.2f}" for t, _ in columns))
    reasons = sorted(total.reasons.items(), key=lambda item: -item[1])[:6]
    words = ", ".join(f"{name} {count:,}" for name, count in reasons) or "none"
    return Group(grid, Text(f"why not: {words}"))


_SHOWN: Final = (
    "timeouts", "errors", "invalid", "no_bids", "wins", "impressions", "clicks", "billed",
    "notices_delivered", "notices_refused", "notices_failed",
)  # fmt: skip


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
    if found.notices["sent"]:
        yield from _notice_lines(found)
    yield (
        f"latency p50 {found.p50_ms} ms, p99 {found.p99_ms} ms, p99.9 {found.p999_ms} ms, "
        f"max {found.max_ms} ms; {found.timeouts:,} timeouts, {found.errors:,} errors, "
        f"{found.invalid:,} invalid"
    )
    if found.reasons:
        words = ", ".join(f"{name} {count:,}" for name, count in list(found.reasons.items())[:8])
        yield f"why not: {words}"


def _notice_lines(found: Summary) -> Iterator[str]:
    total = ", ".join(f"{text} {name}" for name, text in found.invoice_total.items()) or "nothing"
    yield (
        f"invoice: {found.billed:,} impressions, {total}; shown {found.impressions:,}, "
        f"in view {found.views:,}, clicked {found.clicks:,}"
    )
    if found.orders:
        value = format_amounts(found.order_micros)
        yield (
            f"shops: {found.orders:,} conversions, {found.conversions:,} of them reported"
            f"{f', worth {value}' if value else ''}"
        )
    words = ", ".join(f"{name} {count:,}" for name, count in found.notices.items() if count)
    yield f"notices: {words}"


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
