"""One connection to Redis that many look-ups share: the rules that keep replies with their owners.

1. Redis answers in order. Every command written adds one entry to a queue, every reply takes the
   oldest; an entry leaves the queue by its reply or with the connection, in no other way. A look-up
   that timed out or was cancelled leaves its entry behind without its owner, so a late reply meets
   that entry and is dropped.
2. A reply that does not fit its command (a list for GET, anything for nothing) means that rule 1 is
   broken. The connection is closed; nothing from it is believed any more.
3. An owner is answered exactly once, by the deadline: with the reply, or TIMEOUT, or DOWN.
4. No task, future or timer a look-up: commands of one loop iteration leave in one write, and one
   timer watches all deadlines. Timers tick in milliseconds, so a look-up may time out up to
   SLACK_NS early, rather than late.
5. A link is used until it is lost: by the peer, by a broken rule, by a reply overdue for STALL_NS,
   or by its breaker, when most look-ups fail. Whoever owns links decides when to make the next.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, cast

import hiredis

from rtb.base.records import Dim
from rtb.catalogue.tokens import token_hash
from rtb.profiles.record import (
    LINK_BYTES,
    LINK_MAGIC,
    RECORD_BYTES_MAX,
    counts_key,
    opts_out,
)
from rtb.profiles.reducers import followed
from rtb.stores.profiles import PERSON_BYTES, Answer, CountsAnswer, Lookup

MS: Final = 1_000_000
SLACK_NS: Final = 1 * MS
_PERSON: Final = int(Dim.PERSON)
# No reply for so long while one is due: the server hangs, or the path to it does.
STALL_NS: Final = 150 * MS
# The breaker looks at windows of this length with at least so many look-ups in them...
WINDOW_NS: Final = 250 * MS
WINDOW_COUNT: Final = 3
# ...or of this length with any.
WINDOW_NS_MAX: Final = 1_000 * MS
# Our own loop ran this late: timeouts say nothing about the server.
LAG_NS: Final = 5 * MS
# Unparsed bytes of one reply: records are far smaller, so this is no profile store.
BUFFER_BYTES_MAX: Final = 4 << 20

# Error replies that are counted by name; others count as OTHER, so that names stay few.
ERRORS: Final = frozenset(
    {"ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "ERR", "LOADING", "MASTERDOWN", "MISCONF", "MOVED",
     "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN", "WRONGPASS", "WRONGTYPE"}
)  # fmt: skip
# Counts that keys are linked to are asked for with so many further commands: most keys lead to
# their person at once, some by way of another one.
HOPS_MAX: Final = 2
LINKED_MAX: Final = 8  # of one look-up: caps look at no more
# The one error that is about the key, not the server.
KEY_ERRORS: Final = frozenset({"WRONGTYPE"})

Reply = bytes | int | None | list["Reply"] | hiredis.HiredisError


class Counts:
    """What happened to look-ups over all links of one store; read by metrics."""

    __slots__ = ("errors", "late", "lookups")

    def __init__(self) -> None:
        self.lookups = [0] * len(Lookup)
        self.errors: Counter[str] = Counter()
        self.late = 0  # replies dropped because their owner had been answered


class Pending:
    """A command in flight: its owner, until it is answered or forgotten."""

    __slots__ = (
        "answer", "asked", "counts", "deadline_ns", "expired", "followed", "found", "hops", "key",
        "keys", "linked", "linked_count", "outcome", "own", "record", "sent_ns", "with_counts",
    )  # fmt: skip

    def __init__(
        self,
        answer: Answer,
        sent_ns: int,
        deadline_ns: int,
        keys: Sequence[bytes] = (),
        with_counts: bool = False,
    ) -> None:
        self.answer: Answer | None = answer
        self.asked = keys  # none: a command that is no look-up
        self.sent_ns = sent_ns
        self.deadline_ns = deadline_ns
        self.expired = False
        # What the command in flight asks for: first those keys, then what their links name.
        self.keys = keys
        self.followed = False
        self.found: dict[bytes, bytes | None] = {}  # records and links by key
        self.own: dict[bytes, bytes | None] = {}  # counts by key
        # Of a look-up with counts: the key that decides, and what the answer says of counts.
        self.with_counts = with_counts
        self.key: bytes | None = None
        self.counts: list[bytes | None] = []
        # Then whom those counts are linked to, while outcome and record wait.
        self.linked: list[int] = []
        self.linked_count = self.hops = 0
        self.outcome = Lookup.MISS
        self.record: bytes | None = None

    def cancel(self) -> None:
        """Forgets the owner; the reply will be dropped."""
        self.answer = None


class Window:
    """The breaker's memory: look-ups answered in time and not, since the window began."""

    __slots__ = ("bad", "good", "start_ns")

    def __init__(self) -> None:
        self.good = self.bad = self.start_ns = 0

    def trips(self, good: bool, now_ns: int) -> bool:
        """Counts one look-up; True when a window ends in which most failed."""
        if not self.good and not self.bad:
            self.start_ns = now_ns
        self.good += good
        self.bad += not good
        age_ns = now_ns - self.start_ns
        if age_ns < WINDOW_NS or (age_ns < WINDOW_NS_MAX and self.good + self.bad < WINDOW_COUNT):
            return False
        tripped = self.bad > self.good
        self.good = self.bad = 0
        return tripped


def pack(*words: bytes) -> bytes:
    """A command in RESP."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


class Link(asyncio.Protocol):
    """A connection that answers look-ups by callback. The rules are at the top of this file."""

    def __init__(self, counts: Counts, budget_ns: int, in_flight_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._counts = counts
        self._budget_ns = budget_ns
        self._in_flight_max = in_flight_max
        self._queue: deque[Pending] = deque()
        self._batch: list[bytes] = []
        self._reader = hiredis.Reader()
        self._unparsed = 0
        self._window = Window()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0
        self._writable = True
        self._transport: asyncio.Transport | None = None
        # Done with the reason when the link is lost.
        self.lost: asyncio.Future[str] = self._loop.create_future()

    # -- asking -----------------------------------------------------------------------------------

    def find(self, keys: Sequence[bytes], deadline_ns: int, answer: Answer) -> Pending | None:
        """Asks for what decides for `keys` (at least one); see `profiles.RemoteProfiles`."""
        now_ns = time.monotonic_ns()
        deadline_ns = min(deadline_ns, now_ns + self._budget_ns)
        refusal = self._refusal(deadline_ns - now_ns)
        if refusal is not None:
            self._counts.lookups[refusal] += 1
            self._call(answer, refusal, None)
            return None
        pending = Pending(answer, now_ns, deadline_ns, keys)
        self._send(_command(pending), pending)
        return pending

    def find_counts(
        self, keys: Sequence[bytes], deadline_ns: int, answer: CountsAnswer
    ) -> Pending | None:
        """As `find`, with counts, in the same command: see `profiles.RemoteProfiles`."""
        now_ns = time.monotonic_ns()
        deadline_ns = min(deadline_ns, now_ns + self._budget_ns)

        def found(outcome: Lookup, record: bytes | None) -> None:
            answer(outcome, record, pending.key, pending.counts)

        pending = Pending(found, now_ns, deadline_ns, keys, with_counts=True)
        refusal = self._refusal(deadline_ns - now_ns)
        if refusal is not None:
            self._counts.lookups[refusal] += 1
            self._call(found, refusal, None)
            return None
        self._send(_command(pending), pending)
        return pending

    def _refusal(self, left_ns: int) -> Lookup | None:
        """Why a look-up with so much time left is not even sent; None when it is."""
        if self._transport is None:
            return Lookup.DOWN
        if left_ns < SLACK_NS:
            return Lookup.TIMEOUT
        if len(self._queue) >= self._in_flight_max or not self._writable:
            return Lookup.BUSY
        return None

    async def command(self, *words: bytes, timeout_s: float) -> tuple[Lookup, bytes | None]:
        """One command of the handshake: (HIT, reply) or (ERROR, its text).

        Raises: ConnectionError when there is no reply in time.
        """
        done: asyncio.Future[tuple[Lookup, bytes | None]] = self._loop.create_future()

        def answer(outcome: Lookup, value: bytes | None) -> None:
            if not done.done():
                done.set_result((outcome, value))

        now_ns = time.monotonic_ns()
        pending = Pending(answer, now_ns, now_ns + int(timeout_s * 1e9))
        self._send(pack(*words), pending)
        try:
            outcome, value = await done
        finally:
            pending.cancel()
        if outcome in (Lookup.TIMEOUT, Lookup.DOWN):
            raise ConnectionError("no reply")
        return outcome, value

    def _send(self, data: bytes, pending: Pending) -> None:
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(data)
        self._queue.append(pending)
        if self._timer is None or pending.deadline_ns < self._due_ns:
            self._arm(pending.deadline_ns, pending.sent_ns)

    def _flush(self) -> None:
        if self._transport is not None and self._batch:
            self._transport.write(b"".join(self._batch))
        self._batch.clear()

    # -- replies ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are such, but do not say so.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        reader, queue = self._reader, self._queue
        reader.feed(data)
        self._unparsed += len(data)
        try:
            while self._transport is not None:
                reply = reader.gets()
                if reply is False:
                    break
                self._unparsed = 0
                if not queue:
                    self.fail("a reply to nothing", Lookup.DOWN)
                    return
                self._settle(queue.popleft(), reply, now_ns)
        except hiredis.ProtocolError as error:
            self.fail(f"not RESP: {error}", Lookup.DOWN)
        if self._unparsed > BUFFER_BYTES_MAX:
            self.fail("a reply too large", Lookup.DOWN)

    def _settle(self, pending: Pending, reply: Reply, now_ns: int) -> None:
        """Gives one reply to the look-up it belongs to, if that one still waits."""
        if isinstance(reply, hiredis.HiredisError):
            self._settle_error(pending, str(reply), now_ns)
            return
        if pending.linked:
            self._add_linked(pending, reply)
            return
        if not pending.asked:
            self._finish(pending, Lookup.HIT, reply if isinstance(reply, bytes) else None)
            return
        if not _take(pending, reply):
            self._broken(pending, "no values for GET or MGET")
            return
        if pending.expired:
            self._counts.late += 1
            return
        if now_ns < pending.deadline_ns:
            self._sample(True, now_ns)
        self._decide(pending)

    def _decide(self, pending: Pending) -> None:
        """Answers with what decides, once what links name is there, too."""
        key, record = _deciding(pending)
        targets = _targets(pending)
        if targets and not pending.followed and not (record and opts_out(record)):
            self._follow(pending, targets)
            return
        if record is not None and len(record) > RECORD_BYTES_MAX:
            self._counts.errors["TOO_LARGE"] += 1
            self._finish(pending, Lookup.ERROR, None)
            return
        if key is not None and pending.with_counts:
            pending.key, pending.counts = key, [pending.own[key], *pending.counts]
        self._complete(pending, Lookup.MISS if record is None else Lookup.HIT, record)

    def _complete(self, pending: Pending, outcome: Lookup, record: bytes | None) -> None:
        """Answers, once the counts are there of all whom the person is linked to."""
        pending.outcome, pending.record = outcome, record
        news = _news(pending) if any(pending.counts) and pending.hops < HOPS_MAX else []
        if record is not None and opts_out(record):  # nothing is counted for him
            news = []
        if not news or pending.answer is None:
            self._finish(pending, outcome, record)
            return
        pending.linked, pending.linked_count = news, pending.linked_count + len(news)
        pending.hops += 1
        pending.sent_ns = time.monotonic_ns()
        self._send(pack(b"MGET", *map(counts_key, news)), pending)

    def _add_linked(self, pending: Pending, reply: Reply) -> None:
        """Takes the counts of those whom a person is linked to."""
        if not isinstance(reply, list) or len(reply) != len(pending.linked):
            self._broken(pending, "no list of values for MGET")
            return
        if pending.expired:
            self._counts.late += 1
            return
        for person, value in zip(pending.linked, reply, strict=True):
            own = value if isinstance(value, bytes) else b""
            pending.counts.append(person.to_bytes(PERSON_BYTES, "little") + own)
        self._complete(pending, pending.outcome, pending.record)

    def _follow(self, pending: Pending, targets: Sequence[bytes]) -> None:
        """Asks for what links name, in the time that is left."""
        if pending.answer is None:
            return
        pending.followed, pending.sent_ns = True, time.monotonic_ns()
        pending.keys = targets
        self._send(_command(pending), pending)

    def _settle_error(self, pending: Pending, text: str, now_ns: int) -> None:
        name = text.split(" ", 1)[0]
        self._counts.errors[name if name in ERRORS else "OTHER"] += 1
        if pending.asked:
            self._sample(name in KEY_ERRORS, now_ns)
        self._finish(pending, Lookup.ERROR, text.encode() if not pending.asked else None)

    def _broken(self, pending: Pending, reason: str) -> None:
        self._queue.appendleft(pending)  # so that `fail` answers it too
        self.fail(reason, Lookup.DOWN)

    def _finish(self, pending: Pending, outcome: Lookup, value: bytes | None) -> None:
        answer, pending.answer = pending.answer, None
        if answer is None:
            return
        if pending.asked:
            self._counts.lookups[outcome] += 1
        self._call(answer, outcome, value)

    def _call(self, answer: Answer, outcome: Lookup, value: bytes | None) -> None:
        """Calls an owner, whose fault must not stop the replies of the others."""
        try:
            answer(outcome, value)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a profile look-up's owner failed", "exception": error}
            )

    # -- time -------------------------------------------------------------------------------------

    def _arm(self, due_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        self._timer = self._loop.call_later(max(due_ns - now_ns, MS) / 1e9, self._tick)

    def _tick(self) -> None:
        """Answers who is due, and looks for a server that hangs."""
        self._timer = None
        now_ns = time.monotonic_ns()
        lagged = now_ns > self._due_ns + LAG_NS
        limit_ns = now_ns + SLACK_NS
        next_ns = 0
        for pending in list(self._queue):
            if pending.expired:
                continue
            if pending.deadline_ns <= limit_ns:
                self._expire(pending, lagged, now_ns)
            elif next_ns == 0 or pending.deadline_ns < next_ns:
                next_ns = pending.deadline_ns
        if self._queue and self._transport is not None:
            stalled_ns = self._queue[0].sent_ns + STALL_NS
            if stalled_ns <= now_ns and not lagged:
                self.fail("no reply: the server hangs", Lookup.TIMEOUT)
                return
            # When we lagged, replies may lie unread in the socket: look again soon.
            next_ns = min(next_ns or stalled_ns, stalled_ns)
            self._arm(max(next_ns, now_ns + MS), now_ns)

    def _expire(self, pending: Pending, lagged: bool, now_ns: int) -> None:
        pending.expired = True
        if not lagged and pending.asked:
            self._sample(False, now_ns)
        self._finish(pending, Lookup.TIMEOUT, None)

    def _sample(self, good: bool, now_ns: int) -> None:
        if self._window.trips(good, now_ns) and self._transport is not None:
            self._loop.call_soon(self.fail, "most look-ups fail", Lookup.TIMEOUT)

    # -- the end ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(f"connection lost: {error or 'closed by the server'}", Lookup.DOWN)

    def fail(self, reason: str, outcome: Lookup) -> None:
        """Ends the link; everybody who still waits gets `outcome`. Harmless when repeated."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._batch.clear()
        while self._queue:
            self._finish(self._queue.popleft(), outcome, None)
        if not self.lost.done():
            self.lost.set_result(reason)


def _command(pending: Pending) -> bytes:
    """Asks for the records of a look-up, and for counts of the persons that their keys name."""
    keys = pending.keys
    if pending.with_counts:
        persons = (token_hash(_PERSON, key) for key in keys)
        return pack(b"MGET", *keys, *map(counts_key, persons))
    return pack(b"GET" if len(keys) == 1 else b"MGET", *keys)


def _take(pending: Pending, reply: Reply) -> bool:
    """Puts the values of a reply to their look-up; False when they do not fit its command."""
    keys = pending.keys
    values = reply if pending.with_counts or len(keys) > 1 else [reply]
    if not isinstance(values, list) or len(values) != len(keys) * (1 + pending.with_counts):
        return False
    for key, value in zip(keys, values, strict=False):
        if value is not None and not isinstance(value, bytes):
            return False
        pending.found[key] = value
    counts = [value if isinstance(value, bytes) else None for value in values[len(keys) :]]
    pending.own.update(zip(keys, counts, strict=False))
    if not pending.followed:
        pending.counts = counts
    return True


def _targets(pending: Pending) -> list[bytes]:
    """What the links of a look-up name and was not asked for."""
    links = (value for key in pending.asked if (value := pending.found[key]) is not None)
    targets = dict.fromkeys(link[LINK_BYTES:] for link in links if link[:2] == LINK_MAGIC)
    return [target for target in targets if target and target not in pending.found]


def _deciding(pending: Pending) -> tuple[bytes | None, bytes | None]:
    """Key and record: the first that opts out, else the first known; a link to a link is none."""
    found = pending.found
    first: tuple[bytes | None, bytes | None] = None, None
    for key in pending.asked:
        record = found[key]
        if record is not None and record[:2] == LINK_MAGIC:
            key = record[LINK_BYTES:]
            record = found.get(key)
        if record is None or record[:2] == LINK_MAGIC:
            continue
        if opts_out(record):
            return key, record
        if first[1] is None:
            first = key, record
    return first


def _news(pending: Pending) -> list[int]:
    """Whom the counts of a look-up lead to and who was not asked for yet."""
    own = [pending.key] if pending.key is not None else []
    known = {token_hash(_PERSON, key) for key in (*own, *pending.asked)}
    records = pending.counts[: len(own) + len(pending.asked)]
    for linked in pending.counts[len(records) :]:
        assert linked is not None
        known.add(int.from_bytes(linked[:PERSON_BYTES], "little"))
        records.append(linked[PERSON_BYTES:])
    links = (person for record in records if record for person in followed(record))
    news = dict.fromkeys(person for person in links if person not in known)
    return [*news][: LINKED_MAX - pending.linked_count]
