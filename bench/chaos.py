"""Does money hold when processes die: kill -9, every second, under load, with notices gone astray.

    python bench/chaos.py --seconds 60 --seed 7 --json

A node (workers, keeper) bids on a seeded catalogue whose budgets are small beside the traffic; a
simulated exchange loses, repeats and reorders notices. Every second a random process is killed, or
stopped for a while and let go on. Then everything settles, and the books are compared with their
own rows, the journals and the exchange's invoice of what was delivered.

The exchange itself is not killed: what it still has to send lives in its memory, so a killed
exchange would forget bills that nobody else knows of. What a bidder sees of its death, broken
connections and notices that never come, is among the faults.

Seeded are the catalogue, the traffic, the faults and whom the kills hit; when exactly a process
dies is the machine's. The last line is one JSON object; 0: zeros are where zeros belong.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # as a script, too
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import ROOT
from bench.servers import BenchError, free_port, rtb_command
from rtb.base.money import ceil_div
from rtb.cli import audit
from rtb.keeper.reconcile import Report
from rtb.ledger.accounts import Balance
from rtb.stores.board import Board, Gauge
from rtb.stores.ledger_sql import LedgerStore
from rtb.stores.serving import StatePaths

POLL_S: Final = 0.005
READY_S_MAX: Final = 30.0
# After the last auction: notices under way, then records that the keeper has not read.
DRAIN_S: Final = 20
SETTLE_S_MAX: Final = 15.0
# A process that is not back by then is given up, and the run with it.
BACK_S_MAX: Final = 15.0
# One in so many is stopped and let go on, instead of killed.
STOPS: Final = 6
STOP_S: Final = (0.2, 1.5)
FAULTS: Final = ("--lost", "0.3", "--duplicated", "0.2", "--reordered", "0.1")
KEEPER: Final = "keeper"
NANOS_PER_MICRO: Final = 1000
# Dollars of a day: of a third of the line items gone in seconds, of another third in a minute.
TINY: Final = (0.005, 0.05)
SMALL: Final = (0.05, 0.5)
GONE_PERCENT: Final = 95
ZEROS: Final = ("overspend_micros", "booked_twice", "lost", "audit_difference_micros")


@dataclass(frozen=True)
class Chosen:
    """What was asked for."""

    seconds: int = 60
    seed: int = 7
    workers: int = 2
    rate: int = 400
    line_items: int = 150
    keep: Path | None = None


@dataclass
class Found:
    """What came of it; the first four must be zero.

    overspend_micros         drawn beyond any budget, and booked without one
    booked_twice             impressions in the books beyond the bids that were billed
    lost                     billing notices that were answered and are not in the books
    audit_difference_micros  books against journals, and against the invoice
    restart_ms_max           from a kill until the process works again
    exhausted                budgets that are all but gone: the stop was put to the test
    pending_micros           held for bids whose end nobody told: those notices were lost
    """

    overspend_micros: int = 0
    booked_twice: int = 0
    lost: int = 0
    audit_difference_micros: int = 0
    kills: int = 0
    stops: int = 0
    bids: int = 0
    billed: int = 0
    restart_ms_max: int = 0
    restart_ms_median: int = 0
    restart_ms_worker: int = 0
    restart_ms_keeper: int = 0
    pending_micros: int = 0
    posted_micros: int = 0
    exhausted: int = 0
    requests: int = 0
    notices: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether zeros are where zeros belong, and something happened at all."""
        zero = not any(getattr(self, name) for name in ZEROS) and not self.wrong
        return zero and self.kills > 0 and self.billed > 0


# -- the node --------------------------------------------------------------------------------------


class Node:
    """`rtb serve` in a folder of its own, and the pids of what it started."""

    def __init__(self, folder: Path, chosen: Chosen) -> None:
        self.paths = StatePaths(folder / "state")
        self.port = free_port()
        self._log = (folder / "serve.log").open("wb")
        base = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            rtb_command(
                "serve", "--data", self.paths.root, "--port", str(self.port), "--workers",
                str(chosen.workers), "--base-url", base,
            ),
            stdout=self._log, stderr=subprocess.STDOUT, cwd=ROOT,
        )  # fmt: skip
        self.names = [KEEPER, *(f"worker {number}" for number in range(chosen.workers))]
        self._board: Board | None = None

    def ready(self) -> bool:
        """Whether all processes work; opens the board once it is there."""
        if self._process.poll() is not None:
            raise BenchError("rtb serve ended on its own: see serve.log")
        if self._board is None:
            with contextlib.suppress(OSError):
                if self.paths.serving.exists():
                    self._board = Board.open(self.paths.board)
            return False
        return all(self.works(name, 0, 0) for name in self.names)

    def pid(self, name: str) -> int:
        """The pid that a process says of itself; 0 before it did."""
        assert self._board is not None
        if name == KEEPER:
            return int(self._board.keeper[0]["pid"])
        gauges = self._board.columns["gauges"][int(name.split()[1])]
        return int(gauges[Gauge.PID])

    def works(self, name: str, before: int, killed_ms: int) -> bool:
        """Whether another process than `before` is at work."""
        assert self._board is not None
        pid = self.pid(name)
        if not pid or pid == before:
            return False
        if name == KEEPER:
            return int(self._board.keeper[0]["beat_ms"]) > killed_ms
        return bool(self._board.columns["gauges"][int(name.split()[1])][Gauge.READY])

    def answered(self) -> int:
        """Requests so far."""
        assert self._board is not None
        return int(self._board.total("requests").sum())

    def is_behind(self) -> bool:
        """Whether the keeper has records to read."""
        found = audit.run([self.paths.root], "", [], [], ROOT / "configs")
        return found.not_applied > 0

    def stop(self) -> int:
        """SIGTERM: drains, books what is left, ends."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(SETTLE_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._log.close()


def until(condition: Callable[[], bool], limit_s: float, why: str) -> float:
    """Polls until something is so; how long it took. Raises: BenchError."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > limit_s:
            raise BenchError(f"{why}: not after {limit_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - began_s


# -- what goes wrong -------------------------------------------------------------------------------


@dataclass
class _Down:
    """A process that was killed or stopped."""

    name: str
    pid: int
    at_s: float
    at_ms: int
    resume_s: float = 0.0  # of a stopped one


class Chaos:
    """Kills and stops, one a second, and watches who comes back."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node, self._chance = node, random.Random(seed)
        self._down: dict[str, _Down] = {}
        self.kills = self.stops = 0
        self.restarts_ms: dict[str, list[int]] = {name: [] for name in node.names}

    def run(self, seconds: int) -> None:
        """Raises: BenchError when a process does not come back."""
        begin_s = time.monotonic()
        next_s = begin_s + 1
        while (now_s := time.monotonic()) < begin_s + seconds or self._down:
            self._watch(now_s)
            if next_s <= now_s < begin_s + seconds:
                next_s += 1
                self._strike(now_s)
            time.sleep(POLL_S)

    def _strike(self, now_s: float) -> None:
        """Hits one that is up. Always draws the same numbers, so that one seed is one story."""
        draws = [self._chance.random() for _ in range(3)]
        names = [name for name in self._node.names if name not in self._down]
        if not names:
            return
        name = names[int(draws[0] * len(names))]
        down = _Down(name, self._node.pid(name), now_s, time.time_ns() // 1_000_000)
        stops = draws[1] < 1 / STOPS
        try:
            os.kill(down.pid, signal.SIGSTOP if stops else signal.SIGKILL)
        except ProcessLookupError:
            return  # it died by itself, or by the supervisor's hand
        if stops:
            self.stops += 1
            down.resume_s = now_s + STOP_S[0] + draws[2] * (STOP_S[1] - STOP_S[0])
        else:
            self.kills += 1
        self._down[name] = down

    def _watch(self, now_s: float) -> None:
        """Who is back; who was stopped for long enough goes on."""
        for down in list(self._down.values()):
            if down.resume_s:
                if now_s >= down.resume_s:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(down.pid, signal.SIGCONT)
                    del self._down[down.name]
            elif self._node.works(down.name, down.pid, down.at_ms):
                self.restarts_ms[down.name].append(round((now_s - down.at_s) * 1000))
                del self._down[down.name]
            elif now_s - down.at_s > BACK_S_MAX:
                raise BenchError(f"{down.name} is not back after {BACK_S_MAX:g} s")


# -- the run ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def folder_of(chosen: Chosen) -> Iterator[Path]:
    """Where all lies: a folder of its own, gone at the end unless it was named."""
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
        yield chosen.keep
        return
    with tempfile.TemporaryDirectory(prefix="rtb-chaos-") as name:
        yield Path(name)


def run(chosen: Chosen) -> Found:
    """The whole of it. Raises: BenchError when it could not be done."""
    with folder_of(chosen) as folder:
        _seed(folder, chosen)
        node = Node(folder, chosen)
        try:
            until(node.ready, READY_S_MAX, "rtb serve is ready")
            chaos, sold = _play(node, folder, chosen)
            until(lambda: not node.is_behind(), SETTLE_S_MAX, "the keeper has read all")
        finally:
            code = node.stop()
        found = _found(node, folder, chaos, sold)
        if code:
            found.wrong.append(f"rtb serve ended with {code}")
        return found


def _seed(folder: Path, chosen: Chosen) -> None:
    _checked(
        "seed", "--data", folder / "state", "--line-items", chosen.line_items, "--products", 500,
        "--profiles", 2_000, "--seed", chosen.seed,
    )  # fmt: skip
    _tighten(folder / "state" / "catalogue" / "line_items.jsonl", chosen.seed)
    _checked("import", folder / "state" / "catalogue", "--data", folder / "state")


def _tighten(path: Path, seed: int) -> None:
    """Makes budgets that end while one looks on: money and impressions, at once and paced."""
    chance = random.Random(seed)
    lines = []
    for line in path.read_text().splitlines():
        item = json.loads(line)
        kind, share, impressions = chance.random(), chance.random(), chance.random() < 0.25
        if kind < 2 / 3:
            low, high = TINY if kind < 1 / 3 else SMALL
            item["budget"] = {"daily": f"{low + share * (high - low):.4f}"}
            if impressions:
                item["budget"]["impressions"] = 3 + int(share * 30)
            item["pacing"] = "asap" if chance.random() < 0.7 else "even"
        lines.append(json.dumps(item))
    path.write_text("\n".join(lines) + "\n")


def _play(node: Node, folder: Path, chosen: Chosen) -> tuple[Chaos, dict[str, object]]:
    """The exchange at load, and chaos beside it; what was killed, and what the exchange says."""
    url = f"http://127.0.0.1:{node.port}/openrtb2/generic/bid"
    output = folder / "exchange.json"
    with output.open("wb") as file:
        exchange = subprocess.Popen(
            rtb_command(
                "exchange", "--url", url, "--rate", str(chosen.rate), "--seconds",
                str(chosen.seconds), "--seed", str(chosen.seed), "--data", node.paths.root,
                "--invoice", folder / "invoice.csv", "--tries", "200", "--drain-seconds",
                str(DRAIN_S), *FAULTS, "--json",
            ),
            stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
        )  # fmt: skip
        chaos = Chaos(node, chosen.seed)
        try:
            until(lambda: node.answered() > 0, READY_S_MAX, "the exchange has begun")
            chaos.run(chosen.seconds)
            exchange.wait(DRAIN_S + READY_S_MAX)
        finally:
            exchange.kill()
            exchange.wait()
    lines = output.read_text().strip().splitlines()
    if exchange.returncode or not lines:
        raise BenchError(f"rtb exchange ended with {exchange.returncode}: {lines[-1:]}")
    return chaos, dict(json.loads(lines[-1]))


def _checked(*arguments: object) -> None:
    done = subprocess.run(
        rtb_command(*(str(argument) for argument in arguments)), cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"rtb {arguments[0]}: {done.stderr.strip()[-500:]}")


# -- the audit -------------------------------------------------------------------------------------


def _found(node: Node, folder: Path, chaos: Chaos, sold: dict[str, object]) -> Found:
    found = Found(kills=chaos.kills, stops=chaos.stops)
    times = sorted(each for one in chaos.restarts_ms.values() for each in one)
    if times:
        found.restart_ms_max, found.restart_ms_median = times[-1], times[len(times) // 2]
    workers = [each for name, one in chaos.restarts_ms.items() if name != KEEPER for each in one]
    found.restart_ms_worker = max(workers, default=0)
    found.restart_ms_keeper = max(chaos.restarts_ms[KEEPER], default=0)
    report = audit.run([node.paths.root], "", [], [folder / "invoice.csv"], ROOT / "configs")
    _compare(found, report)
    _books(found, node, report)
    _exchange(found, sold)
    return found


def _compare(found: Found, report: Report) -> None:
    """Books, journals and invoice."""
    found.audit_difference_micros = report.difference_micros
    found.wrong += report.books
    found.billed = report.bills
    if report.not_applied:
        found.wrong.append(f"{report.not_applied} records were not read")
    for one in report.invoices:
        found.lost += one.counts["missing_here"]
        found.wrong += [
            f"invoice: {finding.verdict} {finding.bid}" for finding in one.findings[:10]
        ]


def _books(found: Found, node: Node, report: Report) -> None:
    """What the books themselves say of their budgets."""
    books = LedgerStore.open(node.paths.ledger_url)
    state, _ = books.load()
    beyond = [
        max(drawn.nanos - drawn.limit.nanos, 0) + max(drawn.units - drawn.limit.units, 0)
        for drawn in state.drawn.values()
    ]
    found.exhausted = sum(
        drawn.nanos * 100 >= drawn.limit.nanos * GONE_PERCENT or drawn.units >= drawn.limit.units
        for drawn in state.drawn.values()
    )
    accounts = state.accounts.values()
    over = sum(account.nanos[Balance.OVER] for account in accounts)
    found.overspend_micros = ceil_div(sum(beyond) + over, NANOS_PER_MICRO)
    pending = sum(account.nanos[Balance.PENDING] for account in accounts)
    posted = sum(account.nanos[Balance.POSTED] for account in accounts)
    found.pending_micros = ceil_div(pending, NANOS_PER_MICRO)
    found.posted_micros = ceil_div(posted, NANOS_PER_MICRO)
    booked = sum(
        account.units[Balance.POSTED] + account.units[Balance.OVER] for account in accounts
    )
    found.booked_twice = max(booked - report.bills, 0)
    found.lost += max(report.bills - booked, 0)
    books.close()


def _exchange(found: Found, sold: dict[str, object]) -> None:
    """What the exchange saw."""
    counts = {name: int(value) for name, value in sold.items() if isinstance(value, int)}
    found.bids, found.requests = counts.get("bids", 0), counts.get("requests", 0)
    told = sold.get("notices")
    found.notices = {str(k): int(v) for k, v in told.items()} if isinstance(told, dict) else {}
    if counts.get("billed", 0) != found.billed:
        found.wrong.append(f"the exchange billed {counts.get('billed')}, the books {found.billed}")


# -- the command -----------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> tuple[Chosen, bool]:
    """What was asked for, and whether only the JSON is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = Chosen()
    parser.add_argument("--seconds", type=int, default=given.seconds, help="of load and kills")
    parser.add_argument("--seed", type=int, default=given.seed)
    parser.add_argument("--workers", type=int, default=given.workers)
    parser.add_argument("--rate", type=int, default=given.rate, help="requests a second")
    parser.add_argument("--line-items", type=int, default=given.line_items)
    parser.add_argument("--keep", type=Path, help="a folder to work in, and to leave as it is")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    found = vars(parser.parse_args(arguments))
    as_json = bool(found.pop("json"))
    return Chosen(**found), as_json


def main() -> None:
    """The command."""
    chosen, as_json = parse()
    try:
        found = run(chosen)
    except BenchError as error:
        print(f"chaos: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if not as_json:
        for name, value in asdict(found).items():
            print(f"{name:24} {value}")
    print(json.dumps({**asdict(found), "holds": found.holds}))
    raise SystemExit(0 if found.holds else 1)


if __name__ == "__main__":
    main()
