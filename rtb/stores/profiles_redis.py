"""Profiles in Redis: reads over one multiplexed link a worker, management through redis-py.

redis-py costs 130-200 us of CPU a read; the link of `rtb.stores.redis_link` about 4. What is here
is its life: connect, prove that look-ups are answered within their budget, serve, and when the link
is lost (the breaker opens) begin again after a pause that grows and is random, so that workers do
not return in step. While there is no link, look-ups are refused at once and bids go on without
profiles.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.connection import parse_url

from rtb.base.errors import ConfigError, StoreError
from rtb.base.records import Dim
from rtb.catalogue.tokens import token_hash
from rtb.profiles.record import RECORD_BYTES_MAX, counts_key, opts_out
from rtb.profiles.reducers import links_of, unlinked
from rtb.stores.profiles import Answer, CountsAnswer, Lookup
from rtb.stores.redis_link import MS, Counts, Link, Pending

BUDGET_MS: Final = 3.0
# Commands on the link without a reply yet. At 20,000 look-ups a second it is 50 ms of hanging.
IN_FLIGHT_MAX: Final = 1024
CONNECT_S: Final = 1.0  # TCP, TLS, login and probes together
PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 1.0
# A link that lived so long ends a row of failures: the next pause is the shortest again.
HEALTHY_S: Final = 5.0
PROBES: Final = 3
PROBE_KEY: Final = b"probe:"
LOAD_BATCH: Final = 1_000
TRIES_MAX: Final = 16  # of a write while keepers count the same persons

Changed = Callable[[bool, str], None]


class RedisProfiles:
    """A profile store in Redis or Valkey.

    url: redis://[[user]:password@]host[:port][/db], rediss:// (TLS) or unix:///path?db=n
    budget_ms: the longest that one look-up may take
    changed: told (up, reason) when the breaker closes or opens
    Raises: ConfigError for a URL that is none of these.
    """

    def __init__(
        self,
        url: str,
        *,
        budget_ms: float = BUDGET_MS,
        in_flight_max: int = IN_FLIGHT_MAX,
        changed: Changed | None = None,
    ) -> None:
        try:
            self._options: Mapping[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigError(f"profiles: {error}") from error
        self._url = url
        self._scheme = urlsplit(url).scheme
        self._budget_ns = int(budget_ms * MS)
        self._in_flight_max = in_flight_max
        self._changed = changed
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._was_up: bool | None = None
        self._manager: redis.asyncio.Redis | None = None
        self.counts = Counts()
        self.links_count = 0  # that were ever made
        self.reason = "not started"  # why there is no link

    # -- the bid path -----------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether look-ups are sent at all (the breaker is closed)."""
        return self._link is not None

    def find(self, keys: Sequence[bytes], deadline_ns: int, answer: Answer) -> Pending | None:
        """The record that decides for `keys`, as `LocalProfiles.find`, by callback.

        deadline_ns: of `time.monotonic_ns`; the budget ends the look-up earlier.
        answer: called exactly once unless cancelled, perhaps before `find` returns (then None is
            returned): with HIT and the bytes, or another outcome and None.
        """
        link = self._link
        if link is not None and keys:
            return link.find(keys, deadline_ns, answer)
        answer(self._unasked(), None)
        return None

    def find_counts(
        self, keys: Sequence[bytes], deadline_ns: int, answer: CountsAnswer
    ) -> Pending | None:
        """As `find`, with what was shown to the person: still one command, two over links."""
        link = self._link
        if link is not None and keys:
            return link.find_counts(keys, deadline_ns, answer)
        answer(self._unasked(), None, None, [])
        return None

    def _unasked(self) -> Lookup:
        """Counts a look-up that is not sent."""
        outcome = Lookup.MISS if self._link is not None else Lookup.DOWN
        self.counts.lookups[outcome] += 1
        return outcome

    def get(self, key: bytes, deadline_ns: int, answer: Answer) -> Pending | None:
        """`find` with one key."""
        return self.find((key,), deadline_ns, answer)

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to keep a link; returns when the first attempt succeeded or failed."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        await self._tried.wait()

    async def close(self) -> None:
        """Ends the link; who waits is answered DOWN."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        link, self._link = self._link, None
        if link is not None:
            link.fail("closed", Lookup.DOWN)
        if self._manager is not None:
            await self._manager.aclose()
            self._manager = None

    async def _keep(self) -> None:
        """Makes links, one after the other, for ever."""
        pause_s = PAUSE_S_MIN
        while True:
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(CONNECT_S):
                    link = await self._connect()
            except (OSError, StoreError) as error:  # TimeoutError is an OSError
                self._went(False, str(error) or "no answer in time")
            else:
                self._link = link
                self.links_count += 1
                self._went(True, "")
                reason = await link.lost
                self._link = None
                self._went(False, reason)
                if time.monotonic() - began_s > HEALTHY_S:
                    pause_s = PAUSE_S_MIN
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _went(self, up: bool, reason: str) -> None:
        self.reason = reason
        if self._changed is not None and up != self._was_up:
            self._changed(up, reason)
        self._was_up = up
        self._tried.set()

    async def _connect(self) -> Link:
        """A link that has logged in and answered probes within the budget.

        Raises: OSError, StoreError.
        """
        loop = asyncio.get_running_loop()

        def make() -> Link:
            return Link(self.counts, self._budget_ns, self._in_flight_max)

        if self._scheme == "unix":
            _, link = await loop.create_unix_connection(make, self._options["path"])
        else:
            host = self._options.get("host", "localhost")
            context = ssl.create_default_context() if self._scheme == "rediss" else None
            _, link = await loop.create_connection(
                make, host, self._options.get("port", 6379), ssl=context
            )
        try:
            await self._greet(link)
            await self._probe(link)
        except BaseException:
            link.fail("refused", Lookup.DOWN)
            raise
        return link

    async def _greet(self, link: Link) -> None:
        """Login and choice of database."""
        password = self._options.get("password")
        if password:
            user = self._options.get("username")
            words = [b"AUTH", *([user.encode()] if user else []), password.encode()]
            await self._must(link, *words)
        if self._options.get("db"):
            await self._must(link, b"SELECT", b"%d" % self._options["db"])

    async def _must(self, link: Link, *words: bytes) -> None:
        outcome, text = await link.command(*words, timeout_s=CONNECT_S)
        if outcome is Lookup.ERROR:
            raise StoreError(f"{words[0].decode()}: {(text or b'').decode(errors='replace')}")

    async def _probe(self, link: Link) -> None:
        """Refuses a server that answers, but too late to be of use.

        The best of PROBES counts: one look-up may be slow because we are.
        """
        best_ns = self._budget_ns + 1
        for _ in range(PROBES):
            began_ns = time.monotonic_ns()
            await self._must(link, b"GET", PROBE_KEY)
            best_ns = min(best_ns, time.monotonic_ns() - began_ns)
        if best_ns > self._budget_ns:
            raise StoreError("answers later than the budget of a look-up")

    # -- management -------------------------------------------------------------------------------

    def _redis(self) -> redis.asyncio.Redis:
        if self._manager is None:
            self._manager = redis.asyncio.Redis.from_url(self._url, protocol=2)
        return self._manager

    async def ping(self) -> float:
        """Round trip in seconds through redis-py. Raises: StoreError."""
        began_s = time.monotonic()
        try:
            await self._redis().execute_command("PING")  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise StoreError(f"profiles: {error}") from error
        return time.monotonic() - began_s

    async def info(self) -> dict[str, str]:
        """The server's own account of itself (INFO). Raises: StoreError."""
        try:
            found = await self._redis().info()
        except redis.RedisError as error:
            raise StoreError(f"profiles: {error}") from error
        return {str(key): str(value) for key, value in found.items()}

    async def count(self) -> int:
        """Keys in the database. Raises: StoreError."""
        try:
            size = await self._redis().execute_command("DBSIZE")  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise StoreError(f"profiles: {error}") from error
        return int(size)

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Writes pairs (key, record or link; None erases) in one transaction; returns how many.

        Erasing a key erases what was shown to the person that it names, and links with others; so
        does a record that opts out. Writing another one does not.
        Raises: StoreError; ValueError for a record over its limit.
        """
        batch = list(pairs)
        for key, record in batch:
            if record is not None and len(record) > RECORD_BYTES_MAX:
                raise ValueError(f"profile {key!r}: {len(record)} bytes, limit {RECORD_BYTES_MAX}")
        gone = [
            token_hash(int(Dim.PERSON), key)
            for key, record in batch
            if record is None or opts_out(record)
        ]
        try:
            for _ in range(TRIES_MAX):
                with contextlib.suppress(redis.WatchError):  # the keeper was faster
                    await self._put(batch, gone)
                    return len(batch)
        except redis.RedisError as error:
            raise StoreError(f"profiles not written: {error}") from error
        raise StoreError("profiles not written: keepers were faster")

    async def _put(self, batch: Sequence[tuple[bytes, bytes | None]], gone: Sequence[int]) -> None:
        """Writes pairs; forgets the counts of these persons, and their links at both ends."""
        async with self._redis().pipeline(transaction=True) as pipeline:
            counts = await self._watched(pipeline, gone)
            linked = {other for record in counts for other in links_of(record)} - {*gone}
            others = sorted(linked)
            records = await self._watched(pipeline, others)
            pipeline.multi()  # type: ignore[no-untyped-call]
            for key, record in batch:
                if record is None:
                    pipeline.delete(key)
                else:
                    pipeline.set(key, record)
            for person in gone:
                pipeline.delete(counts_key(person))
            for other, record in zip(others, records, strict=True):
                left = None if record is None else unlinked(record, gone)
                if left is None:
                    pipeline.delete(counts_key(other))
                else:
                    pipeline.set(counts_key(other), left, keepttl=True)
            await pipeline.execute()

    async def _watched(self, pipeline: Any, persons: Sequence[int]) -> list[bytes | None]:
        """Counts of persons, which nobody else may change before they are written."""
        if not persons:
            return []
        keys = [counts_key(person) for person in persons]
        await pipeline.watch(*keys)
        found: list[bytes | None] = await pipeline.mget(keys)
        return found

    async def load(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Bulk load in batches of LOAD_BATCH; a load that breaks off leaves those before it."""
        count = 0
        batch: list[tuple[bytes, bytes | None]] = []
        for pair in pairs:
            batch.append(pair)
            if len(batch) >= LOAD_BATCH:
                count += await self.put_many(batch)
                batch.clear()
        return count + (await self.put_many(batch) if batch else 0)
