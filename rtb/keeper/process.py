"""The keeper as a process: opens what it needs, does its turns, follows the served snapshot.

A turn books first, then counts impressions for frequency caps, then paces. The first two read the
journals each for itself and keep their own positions, so neither waits for a fault of the other.

It ends at SIGTERM once the journals that are left have been booked, and at any fault that only a
new start can cure; the supervisor starts it again. Until then workers spend what they were lent.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtb.base import memory
from rtb.base.errors import ConfigError, RtbError, StoreError
from rtb.exchanges.settings import Exchange
from rtb.keeper import exports
from rtb.keeper.apply import REFUSED
from rtb.keeper.caps import Settings as CapsSettings
from rtb.keeper.counting import Counting
from rtb.keeper.elsewhere import Elsewhere
from rtb.keeper.expect import Expected
from rtb.keeper.follow import Budgets, Follower
from rtb.keeper.leases import Limits
from rtb.keeper.letters import Letters
from rtb.keeper.pace import Pacers, tuning_of
from rtb.keeper.pace import Settings as PaceSettings
from rtb.keeper.report import Report
from rtb.keeper.run import Keeper, Settings
from rtb.ledger.commands import Outcome
from rtb.stores import journal_read
from rtb.stores.board import Board
from rtb.stores.board_money import MoneyBoard
from rtb.stores.caps_board import CapsBoard
from rtb.stores.counts_lmdb import CountsStore
from rtb.stores.journal import Kernel
from rtb.stores.ledger_pool import PooledStore, open_books
from rtb.stores.profiles import CountsWriter
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.serving import StatePaths

log = logging.getLogger("rtb.keeper")

# After SIGTERM: how long the keeper goes on booking what stopped workers have left.
LAST_TURNS_S: Final = 2.0
RETIRE_EVERY_S: Final = 60.0
# Turns call SQLite again and again, and each time wait so long for a thread that reads budgets.
SWITCH_S: Final = 0.000_5
ALARM_EVERY_S: Final = 5.0
# Booked, but not as it should be: a bill after its money was given back, or beyond its budget.
# What is refused has its letter.
NAMES_LOGGED_MAX: Final = 10
ALARMING: Final = tuple(one for one in Outcome if one.alarming and one not in REFUSED)


@dataclass(frozen=True)
class Options:
    """What settings say of the keeper.

    ledger: URL of the books; profiles: "lmdb" or a redis URL, where impressions are counted
    keep_s: of journal segments whose records were all booked and counted
    export_every_s: how often journals are exported, before which no segment goes; 0: never
    """

    ledger: str
    profiles: str = "lmdb"
    node: int = 0
    turn_ms: int = 50
    lease_ms: int = 2_000
    batch_records: int = 5_000
    remember_s: int = 90_000
    pace_ms: int = 1_000
    pacing_law: str = "dual"
    nice: int = 5
    keep_s: int = 8 * 86_400
    export_every_s: int = 0

    def settings(self) -> Settings:
        """Of the turns."""
        return Settings(
            node=self.node,
            batch_records=self.batch_records,
            remember_s=self.remember_s,
            leases=Limits(lease_ms=self.lease_ms),
        )


class Process:
    """The one keeper of a node, with its clock."""

    def __init__(
        self,
        options: Options,
        paths: StatePaths,
        exchanges: Mapping[str, Exchange],
        kernel: Kernel,
    ) -> None:
        """Raises: StoreError when books or board cannot be opened, ConfigError for a bad URL."""
        self._options, self._paths, self._kernel = options, paths, kernel
        paths.ledger.parent.mkdir(parents=True, exist_ok=True)
        self._books = open_books(options.ledger, options.node)
        self._board = MoneyBoard.open(paths.money_board)
        counters = Board.open(paths.board)
        self._page = Report(counters)
        self._export = exports.Watch(paths, kernel, counters.keeper[0], options.export_every_s)
        self.pacers = Pacers(
            counters,
            self._board,
            paths.pacing,
            paths.pacing_report,
            PaceSettings(pace_ms=options.pace_ms, tuning=tuning_of(options.pacing_law)),
        )
        by_key = {one.claim_key: one for one in exchanges.values()}
        self._letters = Letters(paths.letters)
        self.keeper = Keeper(
            self._books,
            self._board,
            paths.journals,
            self._letters,
            by_key,
            kernel,
            options.settings(),
        )
        self.expected = Expected(self._board)
        self._elsewhere: Elsewhere | None = None
        if isinstance(self._books, PooledStore):
            self._elsewhere = Elsewhere(self._books)
        self.counting = self._open_counting()
        self._follower = Follower(paths, self.counting.serve, lambda: self.pacers.weights)
        self._retired_s = self._alarmed_s = 0.0
        self._alarmed: dict[str, int] = {}
        self._stopping_s = 0.0
        self.faults = 0

    def _open_counting(self) -> Counting:
        options, paths = self._options, self._paths
        store: CountsWriter
        if options.profiles == "lmdb":
            self._profiles = ProfileStore.open(paths.profiles, readonly=False)
            store = CountsStore(self._profiles)
        else:
            # Its libraries take 20 MB of every process, so only nodes that write Redis have them.
            from rtb.stores.counts_redis import RedisCounts

            store = RedisCounts(options.profiles)
        board = CapsBoard.open(paths.caps_board)
        return Counting(store, board, paths.journals, self._kernel, CapsSettings(options.node))

    def run(self) -> None:
        """Turns until SIGTERM. Raises: StoreError, InvariantError: only a new start helps."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        turn_s = self._options.turn_ms / 1000
        while not self._is_over():
            started_s = time.monotonic()
            busy = self.turn(started_s)
            if not busy:
                time.sleep(max(turn_s - (time.monotonic() - started_s), 0.001))
        self.close()

    def turn(self, now_s: float) -> bool:
        """Books and counts what there is; whether there is more at once.

        now_s: monotonic
        """
        self._look(now_s)
        most = self._options.batch_records
        booked = self.keeper.step(_now_ms(), time.monotonic_ns() // 1_000_000)
        counted = self.counting.turn(int(now_s * 1000))
        self._hear()
        if not self.keeper.fault:  # else the books are not known
            self.pacers.turn(self.keeper.state, _now_ms())
            self.expected.turn(self.keeper.state, _now_ms())
        self._report()
        return booked >= most or counted >= most or self.keeper.has_more

    def _hear(self) -> None:
        """What pacers of other nodes have seen; without it each goes on with what it knew."""
        if self._elsewhere is None:
            return
        try:
            self._elsewhere.turn(self.pacers, self.keeper.nodes, _now_ms())
        except StoreError as error:
            log.warning("pacing does not hear of other nodes: %s", error)

    def close(self) -> None:
        """Lets go of journals, books and counts."""
        self._follower.close()
        self.pacers.save(_now_ms() // 1000)
        try:
            self.keeper.give_back()
        except StoreError as error:
            log.warning("other nodes wait for what this one was lent: %s", error)
        self.keeper.close()
        self.counting.close()
        self._books.close()
        if self._options.profiles == "lmdb":
            self._profiles.close()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping_s = self._stopping_s or time.monotonic()

    def _is_over(self) -> bool:
        if not self._stopping_s:
            return False
        late = time.monotonic() - self._stopping_s > LAST_TURNS_S
        return late or (self.keeper.is_idle() and self.counting.is_read())

    # -- following --------------------------------------------------------------------------------

    def _look(self, now_s: float) -> None:
        """Budgets and caps of a new generation, and journals that are old.

        The generation is looked at before every turn: caps of a line item must be known before an
        impression of it is read.
        """
        try:
            budgets = self._follower.look(int(now_s * 1000))
            if budgets is not None:
                self._serve(budgets)
        except RtbError as error:
            self._follower.try_again(int(now_s * 1000))
            log.error("the keeper keeps its budgets: %s", error)
        if now_s - self._retired_s > RETIRE_EVERY_S:
            self._retired_s = now_s
            self._retire()

    def _serve(self, new: Budgets) -> None:
        """Puts budgets in force. Raises: StoreError, CatalogueError."""
        now_ms = _now_ms()
        with memory.building():  # looking through all that is new would hold up a turn
            self.keeper.chart(new.chart, now_ms, new.costs)
            slots = self.keeper.slots.slot
            self.pacers.serve(new.aimed, self.keeper.state, slots, now_ms)
            self.expected.serve(new.plans, slots)
        log.info("the keeper has the budgets of generation %d", new.generation)
        if self.keeper.unbooked:
            log.error(
                "%d line items do not bid, as their books are of another campaign, advertiser or "
                "currency, and money cannot move; give them new ids: %s",
                len(self.keeper.unbooked),
                ", ".join([*self.keeper.unbooked.values()][:NAMES_LOGGED_MAX]),
            )

    def _retire(self) -> None:
        """Removes mail that is old and was booked, and segments that are old and were booked,
        counted and, if so wished, exported."""
        now_s, keep_s = int(time.time()), self._options.keep_s
        self.counting.settle(int(time.monotonic() * 1000))
        counted, exported = self.counting.positions(), self._exported(now_s)
        for worker, booked in self.keeper.positions().items():
            position = min(booked, counted.get(worker, 0))
            if exported is not None:
                position = exports.may_remove(exported, worker, position)
            try:
                journal_read.retire(self._paths.journals, worker, position, keep_s, now_s)
            except (StoreError, OSError) as error:
                log.error("journal %d is not retired: %s", worker, error)
        try:
            self.keeper.tidy_mail(now_s - keep_s)
        except StoreError as error:
            log.error("mail is not tidied: %s", error)

    def _exported(self, now_s: int) -> dict[int, int] | None:
        """Up to where each journal is exported; None where that is not wished."""
        if not self._options.export_every_s:
            return None
        try:
            return self._export.look(now_s)
        except (StoreError, OSError) as error:
            log.error("nothing is removed: what is exported cannot be told: %s", error)
            return {}

    # -- telling ----------------------------------------------------------------------------------

    def _report(self) -> None:
        keeper = self.keeper
        self._page.write(keeper, self.pacers, self._letters, _now_ms())
        faults = keeper.tails.faults()
        self._alarm()
        if keeper.fault or faults:
            self.faults += 1
            if self.faults % 200 == 1:
                log.error("the keeper waits: %s %s", keeper.fault, faults or "")
        else:
            self.faults = 0

    def _alarm(self) -> None:
        """Says once in a while what a person should look at: see the guide on operating."""
        now_s = time.monotonic()
        if now_s - self._alarmed_s < ALARM_EVERY_S:
            return
        self._alarmed_s = now_s
        outcomes = {one.name: self.keeper.outcomes[one] for one in ALARMING}
        letters = {reason.name: count for reason, count in self._letters.counts.items()}
        seen = outcomes | letters
        news = [
            f"{name} +{count - self._alarmed.get(name, 0)}"
            for name, count in seen.items()
            if count > self._alarmed.get(name, 0)
        ]
        self._alarmed = seen
        if news:
            log.warning("to look at: %s", ", ".join(news))


def check(options: Options) -> None:
    """Finds books that are another node's before anything starts. Books that cannot be reached now
    may be later. Raises: ConfigError.
    """
    try:
        with open_books(options.ledger, options.node) as books:
            owner = books.owner()
    except StoreError as error:
        log.warning("the books are not there yet: %s", error)
        return
    if owner not in (None, options.node):
        raise ConfigError(
            f"these are the books of node {owner}; nodes share PostgreSQL only - at `money.ledger`"
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(
    options: Options, paths: StatePaths, exchanges: Mapping[str, Exchange], kernel: Kernel
) -> None:
    """The body of the keeper's process."""
    if not paths.money_board.exists():
        raise ConfigError(f"no money board: the supervisor makes it - at `{paths.money_board}`")
    os.nice(options.nice)
    sys.setswitchinterval(SWITCH_S)
    with memory.building():
        process = Process(options, paths, exchanges, kernel)
    process.run()
