"""The parent of a node: starts keeper and workers, restarts them, and keeps the door for what they
serve.

It serves no request and starts no thread, so it may fork at any time. Kernels are compiled and
cached here once, before the first worker, since processes that fill an empty Numba cache together
can crash. Workers die with it (parent-death signal), so a killed supervisor leaves no orphans.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtb.base.errors import RtbError, StoreError
from rtb.decide import score
from rtb.server import worker
from rtb.server.claim import claim_address, claim_state
from rtb.server.door import Door
from rtb.server.kernels import Kernels
from rtb.server.settings import Settings
from rtb.stores import artifacts, board_funnel
from rtb.stores.board import Board, Gauge
from rtb.stores.board_money import SLOTS_STEP, MoneyBoard
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.serving import StatePaths, read_serving

log = logging.getLogger("rtb.supervise")

TICK_S: Final = 0.05
# A worker whose loop has not turned for this long is stuck: report, then replace it.
STALL_MS: Final = 1_000
STUCK_MS: Final = 10_000
# The keeper's turns are longer, the longest when it takes a large catalogue's budgets.
KEEPER_STALL_MS: Final = 3_000
KEEPER_STUCK_MS: Final = 30_000
# A process that dies before it was ready is not started again at once.
YOUNG_S: Final = 2.0
BACKOFF_S_MAX: Final = 5.0
# Line items that the funnel has room for beyond today's catalogue.
FUNNEL_ROOM: Final = 2
FUNNEL_LINE_ITEMS_MIN: Final = 16_384
FUNNEL_LINE_ITEMS_MAX: Final = 131_072

# Workers of a supervisor that was killed listen until their notice is over (`drain_notice_ms`).
CLAIM_S: Final = 2.0

_PR_SET_PDEATHSIG: Final = 1


KEEPER: Final = -1  # its number among the children
EXPORTER: Final = -2
# The keeper books for up to two seconds what stopped workers have left.
KEEPER_ENDS_S: Final = 3.0


@dataclass
class Child:
    """One worker process, the keeper, or the exporter, which runs now and then."""

    number: int
    pid: int = 0
    started_s: float = 0.0
    failures: int = 0
    start_at_s: float = 0.0
    stalled: bool = False
    beat_ms: int = 0
    beat_s: float = 0.0

    def silent_ms(self, beat_ms: int, now_s: float) -> int:
        """Since when it has said the same; beat_ms: by a clock that may be set, now_s: by one that
        may not, or nobody would have turned for as long as it was set forward.
        """
        if beat_ms != self.beat_ms:
            self.beat_ms, self.beat_s = beat_ms, now_s
        return int((now_s - self.beat_s) * 1000)


class Supervisor:
    """Runs the workers of a node until it is told to stop."""

    def __init__(
        self,
        config: Settings,
        configs: Path,
        paths: StatePaths,
        kernels: Kernels,
        be_keeper: Callable[[], None],
        be_exporter: Callable[[], None],
    ) -> None:
        """be_keeper, be_exporter: the bodies of their processes."""
        self._config = config
        self._configs = configs
        self._paths = paths
        self._kernels = kernels
        self._be_keeper, self._be_exporter = be_keeper, be_exporter
        self._door = Door(paths, config.server.verify_nice)
        self._workers = [Child(number) for number in range(config.server.workers)]
        self._keeper = Child(KEEPER)
        self._exporter = Child(EXPORTER)
        self._children = [self._keeper, *self._workers]
        if config.journal.export:
            self._children.append(self._exporter)
        self._stopping = False
        self._lock = -1

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit code.

        Raises: ConfigError when the state directory or the address is not to be had.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # Who sends it wants files read again: all that can be is followed anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._lock = claim_state(self._paths, CLAIM_S)
        claim_address(self._config.server, CLAIM_S)
        score.warm()
        if self._config.profiles.source == "lmdb" and not self._paths.profiles.exists():
            # Workers that began at the same moment would look for it in vain.
            ProfileStore.open(self._paths.profiles, readonly=False).close()
        self._door.look()
        if read_serving(self._paths) is None:
            log.warning("%s: no snapshot yet: run `rtb import` or `rtb seed`", self._paths.root)
        board_funnel.forget(self._paths.board.parent)
        self._board = Board.create(self._paths.board, len(self._workers), self._funnel_line_items())
        self._door.before = self._begin
        caps = self._config.caps
        CapsBoard.create(
            self._paths.caps_board, len(self._workers), Sizes(caps.sets, caps.filter_bits)
        )
        MoneyBoard.create(self._paths.money_board, len(self._workers), self._places())
        # What is here now is never garbage, and children need not look at it again: a start is
        # mostly that.
        gc.collect()
        gc.freeze()
        polls = max(self._config.files.poll_ms / 1000, TICK_S)
        next_look_s = 0.0
        while not self._stopping:
            now_s = time.monotonic()
            self._reap()
            for child in self._children:
                if not child.pid and now_s >= child.start_at_s:
                    self._start(child)
            self._watch()
            if now_s >= next_look_s:
                next_look_s = now_s + polls
                self._look()
            time.sleep(TICK_S)
        return self._finish()

    def _begin(self, generation: int) -> None:
        """A new catalogue: what the funnel counts is of other line items from now on."""
        try:
            board_funnel.begin(self._board, generation)
        except StoreError as error:
            log.error("the funnel mixes two catalogues: %s", error)

    def _look(self) -> None:
        try:
            self._door.poll()
        except RtbError as error:
            log.error("%s", error)

    def _funnel_line_items(self) -> int:
        file = read_serving(self._paths)
        count = 0
        if file is not None:
            snapshot = artifacts.open_snapshot(self._paths.root / file.snapshot, verify=False)
            count = len(snapshot["line_items"]) * FUNNEL_ROOM
        return min(max(count, FUNNEL_LINE_ITEMS_MIN), FUNNEL_LINE_ITEMS_MAX)

    def _places(self) -> int:
        """Of the money board: in steps that no two workers share a cache line of."""
        most = self._config.money.line_items_max
        return min(max(self._funnel_line_items(), SLOTS_STEP), most) // SLOTS_STEP * SLOTS_STEP

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    # -- children ---------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        if child is self._keeper:
            self._board.keeper["beat_ms"] = 0
        elif child is not self._exporter:
            # A stale heartbeat would look like a stall of the newcomer.
            self._board.columns["gauges"][child.number, Gauge.HEARTBEAT_MS] = 0
            self._board.columns["gauges"][child.number, Gauge.READY] = 0
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be(child.number, parent)
        child.pid, child.started_s, child.stalled = pid, time.monotonic(), False

    def _be(self, number: int, parent: int) -> None:
        """The forked child: never returns."""
        code = 1
        try:
            os.close(self._lock)  # the node's, and it ends with the supervisor
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() == parent:
                self._serve(number)
                code = 0
        except RtbError as error:
            log.error("%s: %s", _name(number), error)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _serve(self, number: int) -> None:
        if number == KEEPER:
            self._be_keeper()
        elif number == EXPORTER:
            self._be_exporter()
        else:
            worker.main(number, self._config, self._configs, self._paths, self._kernels)

    def _reap(self) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        if child is self._exporter:
            every_s = self._config.journal.export_every_s
            child.pid, child.start_at_s = 0, time.monotonic() + every_s
            if code and not self._stopping:
                log.error("the export ended with %d, again in %d s", code, every_s)
            return
        age_s = time.monotonic() - child.started_s
        failed = age_s < YOUNG_S and not self._was_ready(child)
        child.failures = child.failures + 1 if failed else 0
        wait_s = min(0.1 * 2**child.failures, BACKOFF_S_MAX) if child.failures else 0.0
        child.pid, child.start_at_s = 0, time.monotonic() + wait_s
        if child is not self._keeper:
            self._board.columns["gauges"][child.number, Gauge.READY] = 0
        if not self._stopping:
            log.warning(
                "%s ended with %d after %.1f s, again in %.1f s",
                _name(child.number), code, age_s, wait_s,
            )  # fmt: skip

    def _was_ready(self, child: Child) -> bool:
        """Whether a process did its work before it ended: then it may start again at once."""
        if child is self._keeper:
            return bool(self._board.keeper["beat_ms"][0])
        return bool(self._board.columns["gauges"][child.number, Gauge.READY])

    def _watch(self) -> None:
        """The watchdog: who does not turn is reported, then replaced."""
        beats = self._board.columns["gauges"][:, Gauge.HEARTBEAT_MS]
        for child in self._workers:
            self._look_after(child, beats, child.number, STALL_MS, STUCK_MS)
        beat = self._board.keeper["beat_ms"]
        self._look_after(self._keeper, beat, 0, KEEPER_STALL_MS, KEEPER_STUCK_MS)

    def _look_after(
        self, child: Child, beats: Any, number: int, stall_ms: int, stuck_ms: int
    ) -> None:
        """beats: when each was last seen, epoch; 0: not since its start."""
        beat_ms = int(beats[number])
        if not child.pid or not beat_ms:
            return
        silent_ms = child.silent_ms(beat_ms, time.monotonic())
        name = _name(child.number)
        if silent_ms > stuck_ms:
            log.error("%s is stuck for %d ms: killed", name, silent_ms)
            os.kill(child.pid, signal.SIGKILL)
            beats[number] = 0
        elif silent_ms > stall_ms and not child.stalled:
            child.stalled = True
            log.warning("%s stalls: no turn for %d ms", name, silent_ms)
        elif silent_ms <= stall_ms:
            child.stalled = False

    def _finish(self) -> int:
        """Drains the workers, then lets the keeper book what they left; who is late is killed."""
        self._door.close()
        self._end([self._exporter], 0)  # what it had not finished is done again
        server = self._config.server
        drain_s = (server.drain_timeout_ms + server.drain_notice_ms) / 1000 + 1
        late = self._end(self._workers, drain_s)
        late += self._end([self._keeper], KEEPER_ENDS_S)
        if late:
            log.error("%s did not end in time", ", ".join(late))
        return 1 if late else 0

    def _end(self, children: list[Child], limit_s: float) -> list[str]:
        """Ends children in order; the names of those that had to be killed."""
        _signal(children, signal.SIGTERM)
        until_s = time.monotonic() + limit_s
        while any(child.pid for child in children) and time.monotonic() < until_s:
            self._reap()
            time.sleep(TICK_S)
        late = [_name(child.number) for child in children if child.pid]
        _signal(children, signal.SIGKILL)
        return late


def _name(number: int) -> str:
    return {KEEPER: "the keeper", EXPORTER: "the export"}.get(number, f"worker {number}")


def _signal(children: list[Child], number: int) -> None:
    for child in children:
        if child.pid:
            os.kill(child.pid, number)
