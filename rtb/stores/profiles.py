"""Profile stores: what the gather step may ask of them, and what they may answer.

Two kinds: a local one answers in the call (LMDB), a remote one by callback before a deadline
(Redis). Both take the keys of one person, most trusted first, and hand out the stored bytes; whose
layout is `rtb.profiles.record`. Neither waits longer than it was told, neither raises on the bid
path for a fault of the store: that is an outcome, and the bid goes on without a profile.

A person may have records under several of the keys. The most trusted one is the person; of the
others nothing counts but a no: whoever opted out under one of his ids has opted out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, Protocol

from rtb.profiles.reducers import Impression, Together

Record = bytes | memoryview
Shown = dict[int, list[Impression]]  # by person
Links = dict[int, list[Together]]  # by person
PERSON_BYTES: Final = 8  # of a person's hash, little-endian, before counts that name it


def link(links: Links, person: int, other: int, time_ms: int, follow: bool) -> None:
    """Puts one whom a person came together with to that person's links."""
    links.setdefault(person, []).append(Together(other, time_ms, follow))


class Lookup(IntEnum):
    """Outcome of one look-up; counted as `rtb_profile_lookup_total{result}`."""

    HIT = 0
    MISS = 1
    TIMEOUT = 2  # no answer within the budget of the call
    BUSY = 3  # too many look-ups in flight: refused at once
    DOWN = 4  # no healthy connection: refused at once
    ERROR = 5  # the store answered with an error, or with bytes that are no record

    @property
    def transient(self) -> bool:
        """Whether the same look-up may have another outcome a moment later."""
        return self > Lookup.MISS


class LocalProfiles(Protocol):
    """A store that answers within the call."""

    def find(self, keys: Sequence[bytes]) -> Record | None:
        """The record that decides, links followed: the first that opts out, else the first known.

        The view is valid until the next `refresh`.
        """

    def find_key(self, keys: Sequence[bytes]) -> tuple[Record | None, bytes | None]:
        """`find`, and the key under which the record itself lies: it names the person."""

    def counts(self, person: int) -> Record | None:
        """What was shown to a person; None when nothing was. As `find`."""

    def refresh(self) -> None:
        """Sees what was written since; called between requests, a few times a second."""

    def close(self) -> None: ...


Answer = Callable[[Lookup, bytes | None], None]
# Outcome, record, the key that it lies under, and what was shown: under that key, if there is one,
# then under each key that was asked for; then those that they are linked to, each behind its
# person's hash.
CountsAnswer = Callable[[Lookup, bytes | None, bytes | None, Sequence[bytes | None]], None]


class Cancellable(Protocol):
    """A look-up in flight."""

    def cancel(self) -> None:
        """Forgets the caller: its answer will not be called."""


class RemoteProfiles(Protocol):
    """A store that answers by callback."""

    def find(self, keys: Sequence[bytes], deadline_ns: int, answer: Answer) -> Cancellable | None:
        """Calls `answer` exactly once, at the latest at `deadline_ns` of `time.monotonic_ns`.

        It may be called before `find` returns; then None is returned.
        """

    def find_counts(
        self, keys: Sequence[bytes], deadline_ns: int, answer: CountsAnswer
    ) -> Cancellable | None:
        """As `find`, with what was shown to the person, known or not; nothing where the store did
        not answer.
        """

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class ProfileWriter(Protocol):
    """The write side, used by imports and the keeper."""

    def put_many(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Writes (key, record or link; None erases) all or none; returns how many."""


class CountsWriter(Protocol):
    """The write side of what was shown to whom, used by the keeper."""

    def positions(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """How far each journal is counted, or those of some names. Raises: StoreError."""

    def count(self, shown: Shown, positions: Mapping[str, int], links: Links | None = None) -> int:
        """Counts impressions, links persons and moves positions, all or none; each bid counts once.

        Returns: how many persons' counts changed. Raises: StoreError when nothing was written.
        """

    def sweep(self, low: int, high: int, now_s: int) -> list[int]:
        """Drops counts of the persons [low, high) that are spent; returns those others, in order,
        that requests look at.
        """
