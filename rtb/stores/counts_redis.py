"""The write side of counts in Redis: impressions and journal positions, in one transaction.

Keys are those of `rtb.stores.counts_lmdb`. Keepers of several nodes may count the same person: each
watches what it reads and begins again when somebody else was faster. Counts end by themselves
(EXPIREAT), so there is nothing to sweep; what is linked to counts ends with them at the earliest
(EXPIREAT GT: Redis 7.0).

Redis may lose its last second when it dies, positions and counts alike. Its writer remembers the
positions, and refuses to go on from others: a new keeper then counts again what was lost. A
transaction of which no answer came may have been done all the same: its positions tell.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.profiles.record import counts_key
from rtb.profiles.reducers import MEMORY, Memory, count_impressions, links_of, spent_s
from rtb.stores.counts_lmdb import POSITION_PREFIX
from rtb.stores.profiles import Links, Shown

# Other keepers were faster so many times in a row: the batch is tried again at the next turn.
TRIES_MAX: Final = 16
# Of one answer. The keeper lends money in the same turn, and leases last for two seconds.
TIMEOUT_S: Final = 0.25
_POSITION: Final = struct.Struct("<Q")


class RedisCounts:
    """Counts in Redis or Valkey, for the keeper of one node."""

    def __init__(self, url: str, memory: Memory = MEMORY) -> None:
        self._redis: redis.Redis = redis.Redis.from_url(
            url, protocol=2, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self._memory = memory
        self._positions: dict[str, int] = {}
        self._unsure: dict[str, int] = {}  # of a transaction of which no answer came

    def positions(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """How far each journal is counted, or those of some names; without names all keys of the
        store are gone through. Raises: StoreError, StoreCorrupt.
        """
        try:
            if names is None:
                keys = sorted(self._redis.scan_iter(POSITION_PREFIX + b"*"))
            else:
                keys = [POSITION_PREFIX + name.encode() for name in names]
            values = self._redis.mget(keys) if keys else []
        except redis.RedisError as error:
            raise StoreError(f"counts: {error}") from error
        found = {}
        for key, value in zip(keys, values, strict=True):
            name = key[len(POSITION_PREFIX) :].decode()
            if value is not None:
                found[name] = _position(name, value)
        self._positions, self._unsure = dict(found), {}
        return found

    def count(self, shown: Shown, positions: Mapping[str, int], links: Links | None = None) -> int:
        """Counts impressions by person, links persons, and moves positions, all or none.

        Returns: how many persons' counts changed. Raises: StoreError when nothing was written; not
            transient when the store's positions are not those that were written last.
        """
        try:
            for _ in range(TRIES_MAX):
                with self._redis.pipeline(transaction=True) as pipeline:
                    try:
                        return self._try(pipeline, shown, positions, links or {})
                    except redis.WatchError:
                        continue
        except redis.RedisError as error:
            raise StoreError(f"counts not written: {error}") from error
        raise StoreError("counts not written: other keepers were faster")

    def _try(self, pipeline: Any, shown: Shown, positions: Mapping[str, int], links: Links) -> int:
        persons = sorted(shown.keys() | links.keys())
        keys = [*map(counts_key, persons), *(POSITION_PREFIX + name.encode() for name in positions)]
        if not keys:
            return 0
        pipeline.watch(*keys)
        values = pipeline.mget(keys)
        stored = {
            name: 0 if value is None else _position(name, value)
            for name, value in zip(positions, values[len(persons) :], strict=True)
        }
        if stored and stored == self._unsure == dict(positions):
            return self._done(positions, 0)
        self._check(stored)
        changed = {}
        for person, record in zip(persons, values, strict=False):
            counts = count_impressions(
                record, shown.get(person, ()), self._memory, links.get(person, ())
            )
            if counts is not None:
                changed[person] = counts
        pipeline.multi()
        self._put(pipeline, changed)
        for name, sequence in positions.items():
            pipeline.set(POSITION_PREFIX + name.encode(), _POSITION.pack(sequence))
        self._unsure = dict(positions)
        pipeline.execute()
        return self._done(positions, len(changed))

    def _done(self, positions: Mapping[str, int], changed: int) -> int:
        self._positions |= positions
        self._unsure = {}
        return changed

    def _put(self, pipeline: Any, changed: Mapping[int, bytes]) -> None:
        """Writes counts with their ends, and then moves the ends of what is linked to them."""
        ends_s = {person: spent_s(counts, self._memory) for person, counts in changed.items()}
        for person, counts in changed.items():
            pipeline.set(counts_key(person), counts, exat=ends_s[person])
        for person, counts in changed.items():
            for other in links_of(counts):
                pipeline.expireat(counts_key(other), ends_s[person], gt=True)

    def _check(self, stored: Mapping[str, int]) -> None:
        for name, position in stored.items():
            if position != self._positions.get(name, 0):
                raise StoreError(
                    f"position {position} of journal `{name}`, where "
                    f"{self._positions.get(name, 0)} was written: counts were lost",
                    transient=False,
                )

    def sweep(self, low: int, high: int, now_s: int) -> list[int]:
        """Nothing: counts end by themselves, and come with each record, so no filter is needed."""
        return []

    def close(self) -> None:
        """Ends the connections."""
        self._redis.close()


def _position(name: str, value: Any) -> int:
    if not isinstance(value, bytes) or len(value) != _POSITION.size:
        raise StoreCorrupt(f"no position of a journal - at key `{name}`")
    return int(_POSITION.unpack(value)[0])
