"""The bid path in this process, without sockets: what the server calls, on a seeded state.

Times are CPU time of this thread. A loop over many different requests is timed as a whole, so that
caches and branch predictors meet the variety that they meet in a server.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import rtb.cli.main  # noqa: F401  (names the kernel cache; before anything imports Numba)
from bench.lent import LentMoney
from bench.servers import BenchError
from rtb.base.errors import InputError
from rtb.base.links import Sheets
from rtb.base.records import Decision, Opportunity, Terms
from rtb.exchanges.settings import Exchange
from rtb.server import kernels, settings, worker
from rtb.server.bid import Bidder, Serving
from rtb.stores.board import Board
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.serving import StatePaths

EXCHANGE: Final = "generic"
NS_PER_MS: Final = 1_000_000
FUNNEL_LINE_ITEMS: Final = 16_384


@dataclass(frozen=True)
class Spread:
    """CPU time of one operation, a value a round."""

    rounds_ns: tuple[float, ...]

    @property
    def median_ns(self) -> float:
        """Half of the rounds took longer."""
        return statistics.median(self.rounds_ns)

    @property
    def best_ns(self) -> float:
        """The round that was disturbed least."""
        return min(self.rounds_ns)

    @property
    def us(self) -> float:
        """The median in microseconds."""
        return self.median_ns / 1000

    def __sub__(self, other: "Spread") -> "Spread":
        """What this does beyond `other`, measured in the same rounds."""
        pairs = zip(self.rounds_ns, other.rounds_ns, strict=True)
        return Spread(tuple(ours - theirs for ours, theirs in pairs))


def timed(passes: Sequence[Callable[[], int]], rounds: int) -> list[Spread]:
    """CPU time of one operation of each pass; a pass returns how many operations it made.

    Passes take turns, so that a slow moment of the machine meets all of them alike. The first
    round warms up and does not count.
    """
    found: list[list[float]] = [[] for _ in passes]
    for turn in range(rounds + 1):
        for number, one in enumerate(passes):
            start_ns = time.thread_time_ns()
            count = one()
            took_ns = time.thread_time_ns() - start_ns
            if turn:
                found[number].append(took_ns / max(count, 1))
    return [Spread(tuple(values)) for values in found]


@dataclass(frozen=True)
class Case:
    """One request, decoded, with the person's record."""

    opportunity: Opportunity
    profile: Any


class Local:
    """One generation, opened like a worker opens it."""

    def __init__(self, data: Path) -> None:
        self._exit = ExitStack()
        config = settings.load()
        self.kernels = kernels.load()
        paths = StatePaths(data.resolve())
        file = worker.newest(paths)
        if file is None:
            raise BenchError(f"{data}: no snapshot")
        self.serving: Serving = worker.open_serving(paths, file, self.kernels)
        self.engine = self.serving.engine
        self.exchange: Exchange = settings.load_exchanges(settings.CONFIGS / "exchanges")[EXCHANGE]
        self.store = ProfileStore.open(paths.profiles, readonly=True)
        self._exit.callback(self.store.close)
        now_ms = time.time_ns() // NS_PER_MS
        self.rates = settings.load_rates(settings.CONFIGS / config.files.rates)
        self.zones = settings.load_zones(settings.CONFIGS / config.files.zones, now_ms)
        self.terms: Terms = settings.terms_of(
            self.exchange, self.rates, self.zones, config.bid.candidates_max, 1
        )
        folder = self._exit.enter_context(tempfile.TemporaryDirectory())
        board = Board.create(Path(folder) / "board", 1, FUNNEL_LINE_ITEMS)
        exchanges = {EXCHANGE: self.exchange}
        self.money = LentMoney(
            Path(folder), exchanges, self.kernels, self.line_items_count, self.store.counts
        )
        self._exit.callback(self.money.close)
        self.money.caps.refresh(now_ms, self.store.refresh)
        self.bidder = Bidder(
            config.bid, exchanges, self.kernels, self.kernels.meter(board, 0), self.money,
            local=self.store,
        )  # fmt: skip
        self.bidder.price_by(self.rates, self.zones)
        self.bidder.serve(self.serving)
        self.endpoint = self.bidder.endpoints[EXCHANGE.encode()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    @property
    def line_items_count(self) -> int:
        """Line items of the snapshot."""
        return len(self.serving.snapshot["line_items"])

    def person(self, opportunity: Opportunity) -> Any:
        """The stored record of a request's person, as the server reads it; None without one."""
        if opportunity.facts["head"]["privacy"][0]:
            return None
        keys = self.kernels.keys(opportunity, EXCHANGE.encode())
        return self.store.find(keys) if keys else None

    def cases(self, bodies: Sequence[bytes]) -> list[Case]:
        """Requests decoded once, each with its person; those that are refused are left out."""
        found = []
        for body in bodies:
            opportunity = Opportunity()
            try:
                if not self.kernels.decode(body, 0, self.exchange, opportunity):
                    kernels.decode_reference(body, 0, self.exchange, opportunity)
            except InputError:
                continue
            found.append(Case(opportunity, self.person(opportunity)))
        return found

    def steps(self, bodies: Sequence[bytes], depth: int) -> Callable[[], int]:
        """A pass of `timed`: takes every body `depth` steps far.

        1 decode, 2 gather, 3 counts of the person for caps, 4 decide, 5 pay, 6 encode. Each body
        goes its whole way before the next, as in the server: what a step reads, the one before has
        just written.
        """
        opportunity, decision = Opportunity(), Decision()
        decode, exchange, terms = self.kernels.decode, self.exchange, self.terms
        keys_of, find, name = self.kernels.keys, self.store.find_key, EXCHANGE.encode()
        decide, encode, arrays = self.engine.decide, self.kernels.encode, self.serving.arrays
        pay, view, sheets = self.money.commit.pay, self.money.caps.view, Sheets()
        caps, engine, overlay = self.money.caps, self.engine, self.money.overlay
        payment, links = self.endpoint.payment, self.bidder.links_of
        currency = decision.data["head"]["cur"].data
        nobid = decision.data["head"]["nobid"].data
        privacy = opportunity.facts["head"]["privacy"].data

        def run() -> int:
            now_ms = time.time_ns() // NS_PER_MS  # bids of a second have so many ids
            for body in bodies:
                decode(body, 0, exchange, opportunity)
                if depth < 2:
                    continue
                profile, person = None, 0
                if not privacy[0]:
                    keys = keys_of(opportunity, name)
                    if keys:
                        profile, key = find(keys)
                        if depth >= 3:
                            profile = view(keys, key, profile, now_ms)
                            person = caps.person
                if depth < 4:
                    continue
                decide(opportunity, profile, terms, overlay, now_ms, decision)
                if depth < 5 or nobid[0]:
                    continue
                if (
                    not pay(opportunity, decision, engine, payment, person, 0, now_ms, sheets)
                    or depth < 6
                ):
                    continue
                encode(
                    opportunity, decision, arrays, exchange,
                    links(self.endpoint, currency[0]), sheets,
                )  # fmt: skip
            self.money.flush()
            return len(bodies)

        return run

    def heads(self, cases: Sequence[Case]) -> dict[str, float]:
        """Means over cases: line items that the index leaves, creatives that may run, and how many
        of those are scored (the rest has no chance); the share of cases with a bid."""
        decision = Decision()
        whole = Terms()
        whole.data[:] = self.terms.data
        whole.data["exhaustive"] = 1
        eligible = fit = scored = bids = 0
        now_ms = time.time_ns() // NS_PER_MS
        for case in cases:
            self.engine.decide(case.opportunity, case.profile, whole, None, now_ms, decision)
            fit += int(decision.data["head"]["scored_count"][0])
            self.engine.decide(case.opportunity, case.profile, self.terms, None, now_ms, decision)
            head = decision.data["head"][0]
            eligible += int(head["eligible_count"])
            scored += int(head["scored_count"])
            bids += int(head["nobid"]) == 0
        count = max(len(cases), 1)
        return {
            "eligible_mean": eligible / count,
            "fit_mean": fit / count,
            "scored_mean": scored / count,
            "bid_share": bids / count,
        }
