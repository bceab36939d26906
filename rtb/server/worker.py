"""One bid worker: a loop, a socket, the bid path, and what it follows while it serves.

It follows two things by looking a few times a second: the generation file that the supervisor
writes (snapshot and model), and the tables beside the settings (currency rates, clocks). Both are
made ready aside, in a thread, and then swapped in between two requests.
"""

import asyncio
import ctypes
import logging
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop

from rtb.base import memory
from rtb.base.errors import ConfigError, InputError, RtbError, StoreError
from rtb.base.events import ClaimFlag
from rtb.base.links import Sheets
from rtb.base.money import currency_code
from rtb.base.records import Decision, Opportunity, Terms
from rtb.decide.model import MODEL_KIND, Model
from rtb.notices import reading
from rtb.server import connections, lane, settings
from rtb.server.app import Application
from rtb.server.bid import NS_PER_MS, Bidder, Endpoint, Serving
from rtb.server.kernels import Kernels, decode_reference
from rtb.server.money import Money
from rtb.server.notices import NoticeDesk
from rtb.server.settings import Settings
from rtb.stores import artifacts
from rtb.stores.board import Board, Gauge
from rtb.stores.caps_table import CapsTable
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.serving import ServingFile, StatePaths, read_serving, stamp

if TYPE_CHECKING:
    from rtb.stores.profiles_redis import RedisProfiles

log = logging.getLogger("rtb.worker")

ZONES_EVERY_S: Final = 600  # daylight saving time begins on the hour; ten minutes late is fine
# A thread that reads metrics or opens a snapshot must not hold the interpreter for 5 ms.
SWITCH_INTERVAL_S: Final = 0.0005
BACKLOG: Final = 4096
DAY_MS: Final = 86_400_000
TURN_NS: Final = 100_000  # the shortest that there is
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")
# A worker that was not lent all by then is ready all the same: it answers, if only with no bid.
FIRST_LEASES_S: Final = 5.0
READY_LOOK_S: Final = 0.01  # between two looks whether that is so
# A round trip and a little, for the first request of connections accepted last.
LAST_REQUESTS_S: Final = 0.1
USD: Final = currency_code("USD")
WARM_ROUNDS: Final = 50
WARM_REQUEST: Final = (
    b'{"id":"warm","at":1,"tmax":1000,"imp":[{"id":"1","bidfloor":0.01,"banner":{"format":'
    b'[{"w":300,"h":250}]}},{"id":"2","video":{"mimes":["video/mp4"],"protocols":[2,3],'
    b'"minduration":5,"maxduration":30,"w":640,"h":360}}],"site":{"domain":"example.com",'
    b'"cat":["IAB1"]},"device":{"ua":"Mozilla/5.0","geo":{"country":"USA"}},"test":1}'
)


def _now_ms() -> int:
    return time.time_ns() // NS_PER_MS


def _read_warm_request(endpoint: Endpoint, opportunity: Opportunity) -> None:
    try:
        decode_reference(WARM_REQUEST, 0, endpoint.exchange, opportunity)
    except InputError as error:
        raise StoreError(f"the warm-up request was refused: {error}") from error


def newest(paths: StatePaths) -> ServingFile | None:
    """What a server started now would serve; None without a snapshot.

    Raises: StoreCorrupt, StoreError.
    """
    snapshot = artifacts.current(paths.snapshots, artifacts.SNAPSHOT)
    model = artifacts.current(paths.models, MODEL_KIND)
    if snapshot is None:
        return None
    return ServingFile(
        generation=0,
        snapshot=str(snapshot.relative_to(paths.root)),
        snapshot_hash=snapshot.stem,
        model=str(model.relative_to(paths.root)) if model else "",
        model_hash=model.stem if model else "",
    )


def open_serving(paths: StatePaths, file: ServingFile, kernels: Kernels) -> Serving:
    """What a generation file names, ready to serve. The supervisor has verified it.

    Raises: RtbError when it cannot be opened.
    """
    snapshot = artifacts.open_snapshot(paths.root / file.snapshot, verify=False)
    model = None
    if file.model:
        parts = artifacts.open_artifact(paths.root / file.model, MODEL_KIND, verify=False)
        model = Model.of(*parts).bind(snapshot["creatives"], snapshot["features"])
    engine = kernels.engine(snapshot, model)
    return Serving(
        snapshot, engine, snapshot.arrays, file.generation, file.snapshot_hash, file.model_hash
    )


class Worker:
    """The state of one worker process."""

    def __init__(
        self, number: int, config: Settings, configs: Path, paths: StatePaths, kernels: Kernels
    ) -> None:
        self.number = number
        self.config = config
        self.configs = configs
        self.paths = paths
        self.kernels = kernels
        self.notices: NoticeDesk | None = None
        self.board = Board.open(paths.board)
        self.meter = kernels.meter(self.board, number)
        self.exchanges = settings.load_exchanges(configs / config.files.exchanges)
        self.warm = self._lent = False
        self._started_s = time.monotonic()
        self.draining = self._journal_failed = False
        self._tables_stamp: tuple[Any, ...] = ()
        self._zones_at = 0.0
        self._serving_stamp: tuple[int, int, int] = (0, 0, 0)
        self._redis: RedisProfiles | None = None
        self._store: ProfileStore | None = None

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until SIGTERM."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        loop = asyncio.get_running_loop()
        await self._open_profiles()
        self.money = Money(
            self.number,
            self.config,
            self.paths,
            self.exchanges,
            self.kernels,
            os.environ,
            self._store.counts if self._store is not None else None,
        )
        self._refresh()
        self.money.start(loop)
        self.notices = NoticeDesk(
            self.money.journal,
            self.money.keyring,
            self.money.terms,
            reading.Limits(age_ms_max=self.config.notices.age_days_max * DAY_MS),
            self.config.notices.waiting_max,
            self.meter,
            self.money,
        )
        self.bidder = Bidder(
            self.config.bid,
            self.exchanges,
            self.kernels,
            self.meter,
            self.money,
            local=self._store,
            remote=self._redis,
            profile_budget_ms=self.config.profiles.budget_ms,
        )
        self._follow_tables(time.time())
        self._follow_serving_now()
        shared = lane.Shared(self.config.server, self.bidder, self.notices, loop)
        app = Application(self.bidder, self.notices, self.board, self.missing, self.status)
        server = self._uvicorn(app, shared)
        sweeper = connections.Sweeper(shared, loop)
        sweeper.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: loop.create_task(self._drain(server)))
        acceptor = self._acceptor = connections.Acceptor(
            self._listen(),
            shared,
            lambda: shared.protocol(server.config, server.server_state, {}),
            loop,
        )
        follower = asyncio.create_task(self._follow())
        self.meter.gauge(Gauge.PID, os.getpid())
        self.meter.gauge(Gauge.STARTED_MS, _now_ms())
        self._gauges()
        acceptor.open()
        try:
            # uvicorn's public `serve` would take the signals, which belong to `_drain`.
            await server._serve([])
        finally:
            acceptor.close()
            follower.cancel()
            sweeper.stop()
            await self._close_profiles()
            self.money.close()

    def _uvicorn(self, app: Application, shared: lane.Shared) -> uvicorn.Server:
        # A line for each request that is no HTTP would let anybody fill the disk: it is counted.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = uvicorn.Config(
            app.asgi,
            http=shared.protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self.config.server.keep_alive_s,
            timeout_graceful_shutdown=max(self.config.server.drain_timeout_ms // 1000, 1),
        )
        return uvicorn.Server(config)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.config.server.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((self.config.server.host, self.config.server.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    async def _drain(self, server: uvicorn.Server) -> None:
        """Not ready first, so that probes see it; then no new connections; then the end."""
        if self.draining:
            return
        self.draining = self.bidder.draining = True
        self.meter.gauge(Gauge.READY, 0)
        await asyncio.sleep(self.config.server.drain_notice_ms / 1000)
        self._acceptor.shut()
        # Who connected a moment ago has a request on the way.
        await asyncio.sleep(LAST_REQUESTS_S)
        self._acceptor.close()
        server.should_exit = True

    # -- profiles ---------------------------------------------------------------------------------

    async def _open_profiles(self) -> None:
        source = self.config.profiles.source
        if source == "lmdb":
            if not self.paths.profiles.exists():
                ProfileStore.open(self.paths.profiles, readonly=False).close()
            self._store = ProfileStore.open(self.paths.profiles, readonly=True)
            return
        settings.check_profiles(source)
        # Its libraries take 20 MB of every process, so only nodes that read Redis have them.
        from rtb.stores.profiles_redis import RedisProfiles

        self._redis = RedisProfiles(source, budget_ms=self.config.profiles.budget_ms)
        await self._redis.start()

    async def _close_profiles(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._redis is not None:
            await self._redis.close()

    # -- following --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Looks for what changed, for as long as the worker lives."""
        every_s = self.config.profiles.refresh_ms / 1000
        polls = max(self.config.files.poll_ms // self.config.profiles.refresh_ms, 1)
        count = 0
        while True:
            await self._pause(every_s)
            count += 1
            try:
                self._refresh()
                self._say_ready()
                self._tell_journal()
                if count % polls == 0:
                    self._follow_tables(time.time())
                    await self._follow_serving()
                    self._gauges()
            except RtbError as error:
                log.warning("worker %d: %s", self.number, error)

    async def _pause(self, seconds: float) -> None:
        """Waits; as long as the worker is not ready it says at once when it is."""
        until_s = time.monotonic() + seconds
        while self.missing() and time.monotonic() < until_s:
            await asyncio.sleep(READY_LOOK_S)
            self._say_ready()
        await asyncio.sleep(until_s - time.monotonic())

    def _say_ready(self) -> None:
        self.meter.gauge(Gauge.READY, 0 if self.missing() else 1)

    def _tell_journal(self) -> None:
        """Says that paid bidding stopped, and that it goes on: once each."""
        fault = self.money.journal.fault
        if bool(fault) != self._journal_failed:
            self._journal_failed = bool(fault)
            if fault:
                log.error("worker %d makes no paid bids: its journal: %s", self.number, fault)
            else:
                log.warning("worker %d makes paid bids again", self.number)

    def _refresh(self) -> None:
        """Sees profiles and counts as they are now; caps must know when that was."""
        caps, now_ms = self.money.caps, _now_ms()
        if self._store is not None:
            caps.refresh(now_ms, self._store.refresh)
        else:
            caps.refresh(now_ms)
        caps.tidy(now_ms)

    def _gauges(self) -> None:
        self.meter.gauge(Gauge.RSS_BYTES, _rss_bytes())
        breaker = self._redis is not None and not self._redis.up
        self.meter.gauge(Gauge.BREAKER, int(breaker))

    def _follow_tables(self, now_s: float) -> None:
        """Rates and clocks; a bad file leaves the last good ones in force."""
        files = self.config.files
        rates_path, zones_path = self.configs / files.rates, self.configs / files.zones
        changed = (stamp(rates_path), stamp(zones_path))
        if changed == self._tables_stamp and now_s - self._zones_at < ZONES_EVERY_S:
            return
        first = not self._tables_stamp
        self._tables_stamp, self._zones_at = changed, now_s
        try:
            rates = settings.load_rates(rates_path)
            zones = settings.load_zones(zones_path, int(now_s * 1000))
        except ConfigError as error:
            if first:
                raise
            log.error("worker %d keeps its tables: %s", self.number, error)
            return
        self.bidder.price_by(rates, zones)

    def _follow_serving_now(self) -> None:
        """The first generation, before the socket opens."""
        self._serving_stamp = stamp(self.paths.serving)
        file = read_serving(self.paths)
        if file is not None:
            self._serve(*self._prepare(file))

    async def _follow_serving(self) -> None:
        changed = stamp(self.paths.serving)
        if changed == self._serving_stamp:
            return
        self._serving_stamp = changed
        file = read_serving(self.paths)
        if file is None:
            return
        loop = asyncio.get_running_loop()
        self._serve(*await loop.run_in_executor(None, self._prepare, file))

    def _prepare(self, file: ServingFile) -> tuple[Serving, CapsTable]:
        """All of a new generation that takes time, in a thread where requests are served."""
        serving = open_serving(self.paths, file, self.kernels)
        table = self.money.table_of(serving.arrays)
        endpoint = next(iter(self.bidder.endpoints.values()))
        opportunity, decision = Opportunity(), Decision()
        _read_warm_request(endpoint, opportunity)
        terms = self._terms(endpoint, serving)
        serving.engine.decide(opportunity, None, terms, None, _now_ms(), decision)
        return serving, table

    def _serve(self, serving: Serving, table: CapsTable) -> None:
        """Puts a new generation in service, between two requests."""
        self.money.serve(serving.arrays, table)
        if not self.warm:
            self._warm_up(serving)
            self.warm = True
            memory.settle()
        self.bidder.serve(serving)
        self.meter.gauge(Gauge.GENERATION, serving.generation)
        log.info("worker %d serves generation %d", self.number, serving.generation)

    def _warm_up(self, serving: Serving) -> None:
        """Runs the whole path on a request of our own, so that the first real one is not slow."""
        endpoint = next(iter(self.bidder.endpoints.values()))
        opportunity, decision, sheets = Opportunity(), Decision(), Sheets()
        terms = self._terms(endpoint, serving)
        rounds = WARM_ROUNDS if self.kernels.name == "compiled" else 1
        for _ in range(rounds):
            _read_warm_request(endpoint, opportunity)
            self.kernels.decode(WARM_REQUEST, 0, endpoint.exchange, opportunity)
            now_ms = _now_ms()
            serving.engine.decide(opportunity, None, terms, None, now_ms, decision)
            if decision.data["head"]["nobid"][0] == 0:
                self.bidder.money.commit.pay(
                    opportunity, decision, serving.engine, endpoint.payment, 0, ClaimFlag.TEST,
                    now_ms, sheets,
                )  # fmt: skip
                links = self.money.links(endpoint.exchange.path, USD)
                self.kernels.encode(
                    opportunity, decision, serving.arrays, endpoint.exchange, links, sheets
                )

    def _terms(self, endpoint: Endpoint, serving: Serving) -> Terms:
        """For requests of our own."""
        rates, zones = self.bidder.rates, self.bidder.zones
        return settings.terms_of(endpoint.exchange, rates, zones, 100, serving.generation)

    # -- looked at from outside -------------------------------------------------------------------

    def missing(self) -> str:
        """What keeps the worker from being ready; "" when nothing does."""
        if self.draining:
            return "draining"
        if self.bidder.serving is None:
            return "no snapshot: run `rtb import` or `rtb seed`"
        if not self.warm:
            return "kernels are not warm"
        return "" if self._has_money() else "the keeper is still lending"

    def _has_money(self) -> bool:
        """Whether the keeper has lent all it lends ahead; a worker does not wait for ever."""
        late = time.monotonic() - self._started_s > FIRST_LEASES_S
        self._lent = self._lent or late or self.money.purse.served
        return self._lent

    def _money_status(self) -> dict[str, Any]:
        """Whether bids can be paid, and how far behind the books are."""
        keeper = self.board.keeper[0]
        now_ms = _now_ms()
        return {
            "bids_are_paid": self.money.writable and self.money.purse.ready,
            "journal_fault": self.money.journal.fault,
            "notices_waiting": self.notices.waiting if self.notices else 0,
            "keeper_pid": int(keeper["pid"]),
            "keeper_turn_age_ms": now_ms - int(keeper["beat_ms"]) if keeper["beat_ms"] else None,
            "keeper_lag_ms": int(keeper["lag_ms"]),
            "keeper_waits": bool(keeper["waits"]),
        }

    def status(self) -> dict[str, Any]:
        """The body of /status."""
        serving = self.bidder.serving
        gauges = self.board.columns["gauges"]
        return {
            "ready": not self.missing(),
            "missing": self.missing(),
            "kernels": self.kernels.name,
            "worker": self.number,
            "profiles": _without_password(self.config.profiles.source),
            "generation": serving.generation if serving else None,
            "snapshot": serving.snapshot_hash if serving else None,
            "model": (serving.model_hash or None) if serving else None,
            "counts": serving.snapshot.meta.get("counts") if serving else None,
            "exchanges": sorted(self.exchanges),
            "money": self._money_status(),
            "limits": {
                "candidates_max": self.config.bid.candidates_max,
                "shed_after_ms": self.config.bid.shed_after_ms,
                "connections_max": self.config.server.connections_max,
            },
            "workers": [
                {
                    "pid": int(row[Gauge.PID]),
                    "ready": bool(row[Gauge.READY]),
                    "generation": int(row[Gauge.GENERATION]),
                    "connections": int(row[Gauge.CONNECTIONS]),
                    "rss_bytes": int(row[Gauge.RSS_BYTES]),
                }
                for row in gauges
            ],
        }


def _without_password(source: str) -> str:
    head, at, tail = source.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else source


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def prefer_quick_turns() -> None:
    """Asks the scheduler for short turns, so that bids need not wait for the end of somebody's long
    one where the worker shares a core, as with the keeper.

    A hint: Linux 6.12 and later take it (`sched_setattr(2)`, the slice of a fair task); others, and
    machines whose number of the call we do not know, leave everything as it is.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, 0, os.nice(0), 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def main(number: int, config: Settings, configs: Path, paths: StatePaths, kernels: Kernels) -> None:
    """The body of a worker process."""
    prefer_quick_turns()
    worker = Worker(number, config, configs, paths, kernels)
    uvloop.run(worker.run())
