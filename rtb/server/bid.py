"""A bid request in four steps, one way: decode -> gather -> decide -> commit.

    decode  bytes to facts                                  pure, `kernels.decode`
    gather  the only I/O: one profile read, within a budget
    decide  facts, profile, snapshot, model -> decision     pure, `kernels.engine`
    commit  pay, record, sign (`rtb.server.commit`), encode, count

The fast lane and the Starlette route both end here, so they answer the same bytes. Time runs from
the first byte of the request. As it runs out a request gives up, in this order: candidates, the
profile, the bid. "No bid" is always in time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, Protocol

import numpy as np

from rtb.base.errors import InputError, OpenRTBError
from rtb.base.links import Links, Sheets
from rtb.base.reasons import NoBid
from rtb.base.records import DECISION_HEAD, FACTS, HEAD, RATE, Decision, Flag, Opportunity, Terms
from rtb.catalogue.snapshot import Snapshot
from rtb.exchanges.response import no_bid
from rtb.exchanges.settings import Exchange
from rtb.profiles.record import UNANSWERED
from rtb.server.commit import Payment
from rtb.server.kernels import Kernels, decode_reference
from rtb.server.settings import Bid, terms_of
from rtb.stores.board import FUNNEL_SAMPLE, NO_LOOKUP, STAGE_SAMPLE, Outcome, Stage
from rtb.stores.profiles import LocalProfiles, Lookup, RemoteProfiles

NS_PER_MS: Final = 1_000_000
NS_PER_US: Final = 1_000

Reply = tuple[int, bytes]  # HTTP status, body
NO_CONTENT: Final[Reply] = (204, b"")
# Members of enums as the numbers they are: an enum costs a call where a number costs nothing.
LOOKUP_HIT, LOOKUP_MISS = int(Lookup.HIT), int(Lookup.MISS)
OUTCOME_BID = int(Outcome.BID)
FLAG_TEST = int(Flag.TEST)
NO_COUNTS: Final = ()  # they do not come with the record
Later = Callable[[Reply], None]

# The few facts of a request that the server itself looks at, in one read.
_GLANCE: Final = Struct("<Q24xii4xiIII")
_GLANCE_FIELDS: Final = ("id_hash", "id_off", "id_len", "tmax_ms", "flags", "privacy", "quirks")
_NOBID_WORD: Final = DECISION_HEAD.fields["nobid"][1] // 4  # type: ignore[index]
_CURRENCY_WORD: Final = DECISION_HEAD.fields["cur"][1] // 4  # type: ignore[index]


def _check_glance() -> None:
    """The struct above against the layout it reads."""
    facts = np.zeros(1, FACTS)
    for number, field in enumerate(_GLANCE_FIELDS, start=1):
        facts["head"][field] = number
    if _GLANCE.unpack_from(facts.view("u1").data) != tuple(range(1, len(_GLANCE_FIELDS) + 1)):
        raise AssertionError(f"the glance does not read {HEAD}")


_check_glance()


class Money(Protocol):
    """What the bid path needs of `rtb.server.money.Money`."""

    commit: Any
    caps: Any
    overlay: np.ndarray

    @property
    def writable(self) -> bool: ...
    def links(self, exchange: str, currency: int) -> Links: ...
    def serve(self, arrays: Mapping[str, Any]) -> None: ...


class Swift(Protocol):
    """What the bid path needs of `ext/path.pyx`: the usual request, in one compiled step."""

    def serve(self) -> None: ...
    def set_clock(self, wall_offset_ns: int) -> None: ...
    def answer(
        self, endpoint: Any, data: bytes, start: int, started_ns: int, turn_ns: int
    ) -> Reply | None: ...


class Workspace:
    """The records of one request in flight, reused."""

    __slots__ = ("currency", "decision", "facts_bytes", "nobid", "opportunity", "sheets")

    def __init__(self) -> None:
        self.opportunity = Opportunity()
        self.decision = Decision()
        self.facts_bytes = self.opportunity.facts.view("u1").data
        self.sheets = Sheets()
        self.nobid = self.decision.data.view("i4").data
        self.currency = self.decision.data.view("u4").data


@dataclass(frozen=True)
class Serving:
    """One generation of what is served: swapped whole, never mixed."""

    snapshot: Snapshot
    engine: Any
    arrays: Mapping[str, Any]
    generation: int
    snapshot_hash: str
    model_hash: str


class Endpoint:
    """One exchange as this worker answers it."""

    def __init__(self, number: int, exchange: Exchange) -> None:
        self.number = number
        self.exchange = exchange
        self.name = exchange.name.encode()
        self.terms = Terms()
        self.terms_late = Terms()
        self.terms_whole = Terms()  # looks at everybody, for the funnel
        self.payment = Payment(exchange.claim_key, exchange.multiplier_max, np.zeros(0, RATE))
        self.links: dict[int, Links] = {}  # by the answer's currency
        self.cap_ns = (exchange.deadline_ms_max - exchange.tmax_margin_ms) * NS_PER_MS
        self.margin_ns = exchange.tmax_margin_ms * NS_PER_MS
        self.default_ns = exchange.tmax_ms_default * NS_PER_MS

    def budget_ns(self, tmax_ms: int) -> int:
        """Time for one request: min(tmax, the exchange's cap) less the network's margin."""
        tmax_ns = tmax_ms * NS_PER_MS if tmax_ms else self.default_ns
        return min(tmax_ns - self.margin_ns, self.cap_ns)


class Bidder:
    """One worker's bid path. Not thread-safe; one event loop drives it."""

    def __init__(
        self,
        settings: Bid,
        exchanges: Mapping[str, Exchange],
        kernels: Kernels,
        meter: Any,
        money: Money,
        local: LocalProfiles | None = None,
        remote: RemoteProfiles | None = None,
        profile_budget_ms: int = 3,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings
        self.kernels = kernels
        self.meter = meter
        self.money = money
        self.local, self.remote = local, remote
        self.endpoints = {
            name.encode(): Endpoint(number, exchange)
            for number, (name, exchange) in enumerate(exchanges.items())
        }
        self.serving: Serving | None = None
        self.draining = False
        self.inflight = 0
        self.rates = np.zeros(0)
        self.zones = np.zeros(0)
        self._profile_budget_ns = profile_budget_ms * NS_PER_MS
        self._shed_after_ns = settings.shed_after_ms * NS_PER_MS
        self._late_ns = settings.late_ms * NS_PER_MS
        self._profile_min_ns = settings.profile_min_ms * NS_PER_MS
        self._bid_min_ns = settings.bid_min_ms * NS_PER_MS
        self._free: list[Workspace] = [Workspace()]
        # What every request calls, looked up once.
        self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns
        self._decode, self._keys, self._encode = kernels.decode, kernels.keys, kernels.encode
        self._count, self._pay = meter.request, money.commit.pay
        self._find = local.find_key if local is not None else None
        self._view = money.caps.view
        # Profiles that are asked for over the network need the reference, which can wait.
        make_swift = kernels.path if local is not None else None
        self.swift: Swift | None = make_swift(self) if make_swift is not None else None
        self.set_clock()

    def set_clock(self) -> None:
        """Sets our wall clock by the system's; called a few times a second, to follow its steps."""
        self._wall_offset_ns = self._wall_ns() - self._monotonic_ns()
        if self.swift is not None:
            self.swift.set_clock(self._wall_offset_ns)

    # -- what changes while serving ---------------------------------------------------------------

    def serve(self, serving: Serving) -> None:
        """Puts a new generation in service, whole."""
        self._set_terms(self.rates, self.zones, serving.generation)
        self.money.serve(serving.arrays)
        self.serving = serving
        if self.swift is not None:
            self.swift.serve()

    def price_by(self, rates: np.ndarray, zones: np.ndarray) -> None:
        """Puts new currency rates and clocks in force."""
        generation = self.serving.generation if self.serving else 0
        self._set_terms(rates, zones, generation)
        if self.swift is not None:
            self.swift.serve()

    def _set_terms(self, rates: np.ndarray, zones: np.ndarray, generation: int) -> None:
        self.rates, self.zones = rates, zones
        most, late = self.settings.candidates_max, self.settings.candidates_late_max
        for endpoint in self.endpoints.values():
            exchange = endpoint.exchange
            endpoint.terms = terms_of(exchange, rates, zones, most, generation)
            endpoint.terms_late = terms_of(exchange, rates, zones, min(most, late), generation)
            endpoint.terms_whole = terms_of(exchange, rates, zones, most, generation)
            endpoint.terms_whole.data["exhaustive"] = 1
            endpoint.payment = Payment(exchange.claim_key, exchange.multiplier_max, rates)

    # -- one request ------------------------------------------------------------------------------

    def answer(
        self,
        endpoint: Endpoint,
        data: bytes,
        start: int,
        started_ns: int,
        turn_ns: int,
        later: Later,
    ) -> Reply | None:
        """The answer to the request in `data[start:]`; None when `later` is called with it.

        started_ns: `monotonic_ns` of the first byte, from which the deadline counts.
        turn_ns: when the loop turn that holds it began: a turn that lasts is overload.
        """
        if self.swift is not None:
            reply = self.swift.answer(endpoint, data, start, started_ns, turn_ns)
            if reply is not None:
                return reply
        return self.answer_by_steps(endpoint, data, start, started_ns, turn_ns, later)

    def answer_by_steps(
        self,
        endpoint: Endpoint,
        data: bytes,
        start: int,
        started_ns: int,
        turn_ns: int,
        later: Later,
    ) -> Reply | None:
        """As `answer`; the reference, which knows every case."""
        now_ns = self._monotonic_ns()
        if now_ns - turn_ns > self._shed_after_ns:
            return self._unread(endpoint, NoBid.SHED, started_ns)
        if self.serving is None:
            return self._unread(endpoint, NoBid.NO_SNAPSHOT, started_ns)
        work = self._free.pop() if self._free else Workspace()
        opportunity = work.opportunity
        try:
            if not self._decode(data, start, endpoint.exchange, opportunity):
                decode_reference(data, start, endpoint.exchange, opportunity)
        except InputError as error:
            self._free.append(work)
            return self._malformed(endpoint, error, started_ns)
        glance = _GLANCE.unpack_from(work.facts_bytes)
        timed = glance[0] % STAGE_SAMPLE == 1
        if timed:
            now_ns = self._timed(Stage.DECODE, now_ns)
        deadline_ns = started_ns + endpoint.budget_ns(glance[3])
        left_ns = deadline_ns - now_ns
        if left_ns < self._bid_min_ns:
            # Too little from the start is the exchange's choice; used up on the way is our fault.
            early = deadline_ns - started_ns < self._bid_min_ns
            reason = NoBid.TMAX_TOO_SHORT if early else NoBid.TIMEOUT
            return self._finish_nobid(endpoint, work, glance, reason, started_ns, NO_LOOKUP)
        if not self.money.writable and not glance[4] & FLAG_TEST:
            stopped = NoBid.PAID_BIDDING_STOPPED
            return self._finish_nobid(endpoint, work, glance, stopped, started_ns, NO_LOOKUP)
        profile: bytes | memoryview | None = None
        person, lookup = 0, NO_LOOKUP
        if not glance[5]:
            keys = self._keys(opportunity, endpoint.name)
            if keys and left_ns < self._profile_min_ns:
                profile = UNANSWERED
            elif keys:
                if self._find is None:
                    return self._gather(
                        endpoint, work, glance, keys, started_ns, deadline_ns, later
                    )
                record, key = self._find(keys)
                lookup = LOOKUP_MISS if record is None else LOOKUP_HIT
                wall_ms = (now_ns + self._wall_offset_ns) // NS_PER_MS
                profile = self._view(keys, key, record, wall_ms, NO_COUNTS, glance[4] & FLAG_TEST)
                person = self.money.caps.person
                if timed:
                    since_ns, now_ns = now_ns, self._timed(Stage.GATHER, now_ns)
                    self.meter.looked_up((now_ns - since_ns) // NS_PER_US)
        return self._finish(
            endpoint, work, glance, profile, person, lookup, started_ns, deadline_ns
        )

    def _gather(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        keys: list[bytes],
        started_ns: int,
        deadline_ns: int,
        later: Later,
    ) -> Reply | None:
        """Asks the remote store; the answer to the exchange follows from its callback."""
        assert self.remote is not None
        if self.inflight >= self.settings.inflight_max:
            return self._finish(
                endpoint, work, glance, UNANSWERED, 0, Lookup.BUSY, started_ns, deadline_ns
            )
        at_once: list[Reply] = []
        asked = False
        asked_ns = self._monotonic_ns()

        def answered(
            outcome: Lookup,
            record: bytes | None,
            key: bytes | None,
            counts: Sequence[bytes | None],
        ) -> None:
            self.inflight -= 1
            if asked:
                self._looked_up(glance, asked_ns)
            # He may have opted out: without an answer nobody is named, linked or counted.
            profile: bytes | memoryview | None = UNANSWERED
            person = 0
            if not outcome.transient:
                # Valid until the next look: it is decided on in this very turn.
                now_ms, is_test = self._wall_ns() // NS_PER_MS, glance[4] & FLAG_TEST
                profile = self._view(keys, key, record, now_ms, counts, is_test)
                person = self.money.caps.person
            reply = self._finish(
                endpoint, work, glance, profile, person, outcome, started_ns, deadline_ns
            )
            if asked:
                later(reply)
            else:
                at_once.append(reply)

        self.inflight += 1
        end_ns = min(asked_ns + self._profile_budget_ns, deadline_ns - self._bid_min_ns)
        self.remote.find_counts(keys, end_ns, answered)
        asked = True
        return at_once[0] if at_once else None

    def _finish(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        profile: bytes | memoryview | None,
        person: int,
        lookup: int,
        started_ns: int,
        deadline_ns: int,
    ) -> Reply:
        """Decides and commits, with whatever time is left."""
        now_ns = self._monotonic_ns()
        left_ns = deadline_ns - now_ns
        if left_ns < self._bid_min_ns:
            return self._finish_nobid(endpoint, work, glance, NoBid.TIMEOUT, started_ns, lookup)
        serving = self.serving
        assert serving is not None
        sampled = glance[0] % FUNNEL_SAMPLE == 0
        if left_ns < self._late_ns:
            terms, sampled = endpoint.terms_late, False
        else:
            terms = endpoint.terms_whole if sampled else endpoint.terms
        opportunity, decision = work.opportunity, work.decision
        now_ms = (now_ns + self._wall_offset_ns) // NS_PER_MS
        serving.engine.decide(opportunity, profile, terms, self.money.overlay, now_ms, decision)
        timed = glance[0] % STAGE_SAMPLE == 1
        if timed:
            now_ns = self._timed(Stage.DECIDE, now_ns)
        reason = work.nobid[_NOBID_WORD]
        if reason:
            return self._finish_nobid(
                endpoint, work, glance, reason, started_ns, lookup, decision, sampled
            )
        if not self._pay(
            opportunity, decision, serving.engine, endpoint.payment, person,
            glance[4] & FLAG_TEST, now_ms, work.sheets,
        ):  # fmt: skip
            stopped = self.money.commit.stopped
            reason = NoBid.PAID_BIDDING_STOPPED if stopped else NoBid.NO_CANDIDATE
            return self._finish_nobid(
                endpoint, work, glance, reason, started_ns, lookup, decision, sampled
            )
        if timed:
            now_ns = self._timed(Stage.COMMIT, now_ns)
        currency = work.currency[_CURRENCY_WORD]
        links = self.links_of(endpoint, currency)
        body = self._encode(
            opportunity, decision, serving.arrays, endpoint.exchange, links, work.sheets
        )
        self._free.append(work)
        end_ns = self._monotonic_ns()
        if timed:
            self._timed(Stage.ENCODE, now_ns)
            self.meter.stage(Stage.TOTAL, (end_ns - started_ns) // NS_PER_US)
        late = end_ns > deadline_ns
        if glance[4] & FLAG_TEST:
            self._count_test(endpoint, started_ns)
        else:
            outcome, nobid = (Outcome.LATE, NoBid.TIMEOUT) if late else (OUTCOME_BID, 0)
            self._count(
                endpoint.number, outcome, nobid, glance[6], (end_ns - started_ns) // NS_PER_US,
                lookup, decision, sampled, glance[5],
            )  # fmt: skip
        if late:
            return no_bid(_request_id(work, glance), NoBid.TIMEOUT, endpoint.exchange)
        return 200, body

    def links_of(self, endpoint: Endpoint, currency: int) -> Links:
        """The notice links of answers in a currency."""
        found = endpoint.links.get(currency)
        if found is None:
            found = endpoint.links[currency] = self.money.links(endpoint.exchange.path, currency)
        return found

    # -- endings without a bid --------------------------------------------------------------------

    def _finish_nobid(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        reason: int,
        started_ns: int,
        lookup: int,
        counted: Decision | None = None,
        sampled: bool = False,
    ) -> Reply:
        self._free.append(work)
        if glance[4] & FLAG_TEST:
            self._count_test(endpoint, started_ns)
        else:
            outcome = Outcome.LATE if reason == NoBid.TIMEOUT else Outcome.NOBID
            duration_us = (self._monotonic_ns() - started_ns) // NS_PER_US
            self._count(
                endpoint.number, outcome, reason, glance[6], duration_us, lookup, counted, sampled,
                glance[5],
            )  # fmt: skip
        if endpoint.exchange.no_bid == "204":
            return NO_CONTENT
        return no_bid(_request_id(work, glance), NoBid(reason), endpoint.exchange)

    def _count_test(self, endpoint: Endpoint, started_ns: int) -> None:
        """A request with test=1 is one more test, and nothing else."""
        duration_us = (self._monotonic_ns() - started_ns) // NS_PER_US
        self._count(endpoint.number, Outcome.TEST, 0, 0, duration_us)

    def _unread(self, endpoint: Endpoint, reason: NoBid, started_ns: int) -> Reply:
        """No bid before the body was looked at: without its id there is nothing to say but 204."""
        self._ended(endpoint, Outcome.SHED, reason, started_ns)
        return NO_CONTENT

    def _malformed(self, endpoint: Endpoint, error: InputError, started_ns: int) -> Reply:
        version = isinstance(error, OpenRTBError) and error.path == "$.openrtb"
        reason = NoBid.UNSUPPORTED_VERSION if version else NoBid.MALFORMED
        self._ended(endpoint, Outcome.BAD, reason, started_ns)
        return 400, error_body(error)

    def refuse(self, endpoint: Endpoint, started_ns: int) -> None:
        """Counts a request whose body never became readable."""
        self._ended(endpoint, Outcome.BAD, NoBid.TOO_LARGE, started_ns)

    def _ended(self, endpoint: Endpoint, outcome: Outcome, reason: NoBid, started_ns: int) -> None:
        duration_us = (self._monotonic_ns() - started_ns) // NS_PER_US
        self._count(endpoint.number, outcome, reason, 0, duration_us)

    def _looked_up(self, glance: tuple[int, ...], asked_ns: int) -> None:
        """Counts the time of a look-up that the store was asked for over the network."""
        duration_us = (self._monotonic_ns() - asked_ns) // NS_PER_US
        self.meter.looked_up(duration_us)
        if glance[0] % STAGE_SAMPLE == 1:
            self.meter.stage(Stage.GATHER, duration_us)

    def _timed(self, stage: Stage, since_ns: int) -> int:
        """Counts a stage's time and returns the clock."""
        now_ns = self._monotonic_ns()
        self.meter.stage(stage, (now_ns - since_ns) // NS_PER_US)
        return now_ns


def error_body(error: InputError) -> bytes:
    """What the sender of a refused request reads: what is wrong and where."""
    # Reasons are our words, but a path may hold the sender's keys.
    quoted = str(error).translate(_PLAIN)
    return b'{"error":"' + quoted.encode() + b'"}'


_PLAIN: Final = dict.fromkeys(range(32), " ") | {ord('"'): "'", ord("\\"): "/", 127: " "}


def _request_id(work: Workspace, glance: tuple[int, ...]) -> bytes:
    return work.opportunity.slice(glance[1], glance[2])
