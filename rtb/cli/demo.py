"""`make demo`: a seeded retailer, a bidder and an exchange on this machine, from nothing.

    seed      .demo/: 10,000 line items, 50,000 products, 100,000 people; once
    serve     one worker on a free port, as a process of its own
    exchange  traffic and notices until Ctrl-C, or for DEMO_SECONDS
    explain   one request, candidate by candidate
    money     what line items spent, how they are paced, how often they were billed
    audit     the books against their rows, the journals and the exchange's invoice

Books are kept from run to run, as those of a node are: budgets are of the day. An invoice is of one
run, and compared with the bids of that run.

The last line of standard output is one JSON object. Exit code 0, also after Ctrl-C; 1 where the
audit differs, and 1 with the server's log when something failed.

    DEMO_SECONDS      how long; 0, the default, goes on until Ctrl-C
    DEMO_RATE         requests a second
    DEMO_DIR          state directory
    DEMO_LINE_ITEMS, DEMO_PRODUCTS, DEMO_PROFILES
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec
from rich.console import Console
from rich.table import Table

from rtb.base.errors import ConfigError, RtbError
from rtb.base.money import format_amounts
from rtb.cli import demo_books as books
from rtb.cli.audit import node_of, show
from rtb.cli.console import console as wide_console
from rtb.cli.explain import decide
from rtb.decide.explain import ImpressionReport, Report
from rtb.ledger.amounts import NANOS
from rtb.server import settings
from rtb.sim import exchange
from rtb.sim.exchange import Options
from rtb.sim.feedback import Limits
from rtb.sim.seed import Parameters, people_count, read_stamp, seed
from rtb.sim.tally import Summary
from rtb.sim.traffic import Traffic

EXCHANGE: Final = "generic"
# Kernels may have to be compiled on a machine that never ran us.
READY_S: Final = 60.0
STOP_S: Final = 15.0
_LOG_LINES: Final = 40
_CANDIDATES: Final = 5
_LINE_ITEMS: Final = 12
# A notice is answered when it is on the disk: enough connections, and time until all have been.
# What is given up unanswered may be booked all the same, and is on no invoice.
_NOTICES: Final = Limits(connections=48, drain_s=120.0)
_REJECTS = re.compile(rb'^rtb_rejects_total\{reason="([a-z_]+)"\} ([0-9.e+]+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the environment asks for."""

    seconds: float
    rate: float
    data: Path
    parameters: Parameters

    @property
    def invoice(self) -> Path:
        """What the exchange bills for the run."""
        return self.data / "invoice.csv"

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Demo":
        """Raises: ConfigError for what is no number."""
        defaults = Parameters()
        return cls(
            seconds=_number(environ, "DEMO_SECONDS", 0),
            rate=_number(environ, "DEMO_RATE", 1000),
            data=Path(environ.get("DEMO_DIR", ".demo")),
            parameters=Parameters(
                line_items=int(_number(environ, "DEMO_LINE_ITEMS", defaults.line_items)),
                products=int(_number(environ, "DEMO_PRODUCTS", defaults.products)),
                profiles=int(_number(environ, "DEMO_PROFILES", defaults.profiles)),
            ),
        )


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environ.get(name) or default)
    except ValueError as error:
        raise ConfigError(f"{name}: expected a number, got {environ[name]!r}") from error


class Server:
    """`rtb serve` as a process, with its log in a file."""

    def __init__(self, data: Path) -> None:
        self.port = _free_port()
        # Closed by `close`, after the log was read.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        command = [
            sys.executable, "-m", "rtb.cli.main", "serve", "--data", str(data),
            "--port", str(self.port), "--workers", "1",
        ]  # fmt: skip
        # A session of its own: Ctrl-C is for us, who then stop it in order.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/openrtb2/{EXCHANGE}/bid"

    def wait_ready(self) -> float:
        """Seconds until /readyz said yes. Raises: ConfigError when it does not."""
        started = time.monotonic()
        while time.monotonic() - started < READY_S:
            if self._process.poll() is not None:
                raise ConfigError(f"the server ended with code {self._process.returncode}")
            if self.get("/readyz") is not None:
                return time.monotonic() - started
            time.sleep(0.1)
        raise ConfigError(f"the server was not ready within {READY_S:g} s")

    def get(self, path: str) -> bytes | None:
        """The body of a page; None unless it answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as page:
                body: bytes = page.read()
                return body if page.status == 200 else None
        except (urllib.error.URLError, OSError):
            return None

    def stop(self) -> int:
        """SIGTERM, a time to drain, and the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                # Its workers too: the session is the server's alone.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        return self._process.returncode

    def close(self) -> None:
        """Stops it, and forgets its log."""
        self.stop()
        self._log.close()

    def log(self) -> str:
        """The end of what it wrote."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Found(Summary):
    """The last line: what the exchange saw, and what the books say.

    pending, granted, overspend  of the node's books, in dollars
    booked                       bills of the run, each on the invoice once
    recorded                     conversions of the run in the journals, each once
    """

    pending: float
    granted: float
    overspend: float
    booked: int
    recorded: int
    audit_agrees: bool
    audit_difference_micros: int


def main() -> int:
    """The demonstration from start to end; the exit code."""
    # Who ends us in another way than Ctrl-C means the same: stop all that was started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = wide_console()
    server: Server | None = None
    try:
        demo = Demo.of(os.environ)
        _seed(console, demo)
        server = Server(demo.data)
        started_s = int(time.time())
        found = _show(console, demo, server)
        code = server.stop()
        if code != 0:
            raise ConfigError(f"the server ended with code {code}")
        whole = _money(console, demo, found, started_s)
    except RtbError as error:
        print(f"demo: {error}", file=sys.stderr)
        if server is not None:
            server.stop()
            print(f"--- server log\n{server.log()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # before there was anything to show
    finally:
        if server is not None:
            server.close()
    console.file.flush()
    print(msgspec.json.encode(whole).decode(), flush=True)
    return 0 if whole.audit_agrees else 1


def _seed(console: Console, demo: Demo) -> None:
    size = demo.parameters
    console.print(
        f"[bold]seed[/]      {demo.data}: {size.line_items:,} line items, {size.products:,} "
        f"products, {size.profiles:,} people",
        highlight=False,
    )
    before = read_stamp(demo.data)
    # A directory of its own: where the world is another than last time, its books are of no use.
    stamp, done = seed(demo.data, size, force=before is None or before.parameters != size)
    how = f"done in {stamp.seconds:.1f} s" if done else "there already"
    console.print(f"          {how}", highlight=False)


def _show(console: Console, demo: Demo, server: Server) -> Summary:
    """Everything between the start of the server and its end."""
    ready_s = server.wait_ready()
    console.print(
        f"[bold]serve[/]     one worker at {server.url}, ready in {ready_s:.1f} s", highlight=False
    )
    until = f"for {demo.seconds:g} s" if demo.seconds else "until Ctrl-C"
    console.print(f"[bold]exchange[/]  {demo.rate:,.0f} requests a second {until}", highlight=False)
    options = Options(
        url=server.url, rate=demo.rate, seconds=demo.seconds, data=demo.data, seed=1,
        invoice=demo.invoice, limits=_NOTICES,
    )  # fmt: skip
    with exchange.watched(exchange.is_terminal(), console) as watch:
        found = exchange.run(options, watch)
    for line in exchange.lines(found):
        console.print(f"          {line}", highlight=False, markup=False)
    warning = exchange.lagging(found)
    if warning:
        console.print(f"          note: {warning}", highlight=False, markup=False)
    drops = _drops(server.get("/metrics") or b"")
    if drops:
        console.print(f"          candidates dropped for: {drops}", highlight=False, markup=False)
    _explain(console, demo)
    return found


def _drops(metrics: bytes) -> str:
    """The most frequent reasons for which candidates were dropped, from the server's counters."""
    counts = {name.decode(): float(count) for name, count in _REJECTS.findall(metrics)}
    best = sorted(counts.items(), key=lambda item: -item[1])[:6]
    return ", ".join(f"{name} {count:,.0f}" for name, count in best)


def _explain(console: Console, demo: Demo) -> None:
    """One request through `rtb explain`: the first that is bid on."""
    traffic = Traffic(1, people_count(demo.data))
    for body in traffic.bodies(20):
        report = decide(body, demo.data, EXCHANGE, None, None, settings.CONFIGS)
        if report.outcome == "bid":
            _print_report(console, demo, report)
            return


def _print_report(console: Console, demo: Demo, report: Report) -> None:
    person = "without a profile" if report.contextual else "with a profile"
    console.print(
        f"[bold]explain[/]   rtb explain REQUEST.json --data {demo.data}: one request, {person}",
        highlight=False,
    )
    imp = next(imp for imp in report.imps if imp.bids)
    table = Table("line item", "creative", "", "ctr", "value", "price", "floor", box=None)
    for line in imp.bids[:_CANDIDATES]:
        table.add_row(
            line.line_item, line.creative, line.outcome, f"{line.ctr:.5f}",
            line.value_cpm, line.price_cpm, line.floor_cpm,
        )  # fmt: skip
    console.print(table)
    console.print(f"          dropped: {_counts(imp)}", highlight=False, markup=False)


def _counts(imp: ImpressionReport) -> str:
    shown = list(imp.counts().items())[:8]
    return ", ".join(f"{reason} {count:,}" for reason, count in shown)


# -- money -----------------------------------------------------------------------------------------


def _money(console: Console, demo: Demo, found: Summary, started_s: int) -> Found:
    """Line items, sums and the audit, once the server has booked everything."""
    node = node_of(demo.data, settings.CONFIGS)
    rates = books.Rates(settings.CONFIGS / settings.Files().rates)
    money = books.money_of(node, rates, demo.invoice, started_s, int(time.time()), _LINE_ITEMS)
    _print_items(console, money.items)
    totals, audit = money.totals, money.audit
    console.print(
        f"          the node's books, about, in dollars: {totals.spent:,.2f} spent, "
        f"{totals.pending:,.2f} pending, {totals.granted:,.2f} lent to workers, "
        f"{totals.overspend:,.2f} overspent",
        highlight=False,
    )
    console.print(_conversion_line(found, money.converted), highlight=False)
    for line in _audit_lines(demo, found, audit):
        console.print(line, highlight=False)
    if not audit.agrees:
        show(audit.report, wide_console())
    return Found(
        **msgspec.structs.asdict(found),
        pending=round(totals.pending, 6),
        granted=round(totals.granted, 6),
        overspend=round(totals.overspend, 6),
        booked=audit.matched,
        recorded=money.converted.conversions,
        audit_agrees=audit.agrees,
        audit_difference_micros=audit.difference_micros,
    )


def _conversion_line(found: Summary, ours: books.Converted) -> str:
    """What shops reported against what the journals have."""
    agrees = (ours.conversions, ours.micros) == (found.conversions, found.order_micros)
    verdict = "[green]as reported[/]" if agrees else f"of {found.conversions:,} reported"
    value = format_amounts(ours.micros) or "0"
    return f"          conversions in the journals: {ours.conversions:,} {verdict}, {value}"


def _print_items(console: Console, items: Sequence[books.Item]) -> None:
    console.print(
        "[bold]money[/]     line items that spent most, ran out or are held back; spend and budget "
        "are of the day, bids of the run",
        highlight=False,
    )
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right")
    for item in items:
        table.add_row(*_cells(item))
    console.print(table)


_COLUMNS: Final = (
    "line item", "spent", "pending", "budget", "", "pacing", "multiplier", "takes", "off plan",
    "bids", "billed", "win rate",
)  # fmt: skip
_LEFT: Final = frozenset({"line item", "", "pacing"})


def _cells(item: books.Item) -> tuple[str, ...]:
    rate = f"{item.billed / item.bids:.0%}" if item.bids else "-"
    return (
        item.name, _amount(item.spent_nanos), _amount(item.pending_nanos),
        "-" if item.budget_nanos is None else _amount(item.budget_nanos), item.currency,
        *_pacing_cells(item), f"{item.bids:,}", f"{item.billed:,}", rate,
    )  # fmt: skip


def _pacing_cells(item: books.Item) -> tuple[str, ...]:
    """How it is paced; an item that has run out says so first."""
    pacing = item.pacing
    mode = pacing.mode if pacing is not None else "-"
    words = f"{mode}, out of budget" if item.is_exhausted else mode
    if pacing is None or pacing.mode == books.UNPACED:
        return words, "-", "-", "-"
    return (
        words, f"{pacing.multiplier_e6 / 1e6:.3f}", f"{pacing.participation_e4 / 1e4:.0%}",
        f"{pacing.error_e6 / 1e6:+.1%}",
    )  # fmt: skip


def _amount(nanos: int) -> str:
    return f"{nanos / NANOS:,.4f}"


def _audit_lines(demo: Demo, found: Summary, audit: books.Audited) -> Iterator[str]:
    total = (
        " and ".join(f"{text} {name}" for name, text in found.invoice_total.items()) or "nothing"
    )
    if audit.agrees:
        yield (
            f"[bold]audit[/]     [green]agrees to the micro[/]: {audit.matched:,} bills, {total}; "
            f"books = rows = journals ({audit.books.records:,} records) = the exchange's invoice"
        )
    else:
        yield (
            f"[bold]audit[/]     [red]differs by {audit.difference_micros:,} micros[/]: "
            f"{audit.lines:,} lines on the invoice, {total}"
        )
    yield f"          rtb ledger show --data {demo.data}; rtb audit --data {demo.data}"


if __name__ == "__main__":
    sys.exit(main())
