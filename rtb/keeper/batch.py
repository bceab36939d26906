"""From the records of a batch to what the books are told. Pure.

Bids come first, and together: most records are bids of which nothing is to be said but what they
took, and a bill then finds its bid. What that changes is only which of two records of one batch
comes first, and all orders of a bid, its bill and its loss end alike. `apply.booking` judges every
record by itself; here only those bids are put together of which it would say `Take`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.events import (
    BID,
    BID_SECOND_SHIFT,
    CLAIMS_VERSION,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
)
from rtb.keeper.apply import REFUSED, Exchange, booking
from rtb.keeper.letters import Letter, Reason
from rtb.keeper.tail import Read
from rtb.ledger.accounts import State
from rtb.ledger.commands import AMOUNT_MAX, BID_MAX, TAKE, Command, Outcome, Takes
from rtb.notices.settle import settles
from rtb.stores.journal import Record
from rtb.stores.ledger_sql import Applied

Place = tuple[str, Record]  # journal, record
_BID_KIND: Final = int(Kind.BID)
_SHOWN: Final = (Kind.WIN, Kind.BILL, Kind.IMPRESSION)
_STATES: Final = list(map(int, PriceState))
_TEST: Final = int(ClaimFlag.TEST)


@dataclass
class Batch:
    """What a batch of records tells the books.

    commands: `Takes` of the bids at `taken`, if there are any, then one of each record at `places`
    dead: what cannot be booked
    away: what another node books
    idle: what moves no money
    """

    commands: list[Command] = field(default_factory=list)
    taken: list[Place] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    dead: list[Letter] = field(default_factory=list)
    away: list[Place] = field(default_factory=list)
    idle: list[Record] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.taken) + len(self.places)

    def count(self, applied: Applied) -> Counter[Outcome]:
        """How often each outcome was given."""
        found = Counter(applied.outcomes[bool(self.taken) :])
        found.update(applied.apart.values())
        found[Outcome.TAKEN] += len(self.taken) - len(applied.apart)
        return found

    def refused(self, applied: Applied) -> list[Letter]:
        """What only the books could refuse."""
        outcomes = applied.outcomes[bool(self.taken) :]
        found = list(zip(self.places, outcomes, strict=False))
        found += [(self.taken[index], outcome) for index, outcome in applied.apart.items()]
        return [_letter(place, REFUSED[outcome]) for place, outcome in found if outcome in REFUSED]


def _letter(place: Place, reason: Reason) -> Letter:
    name, (sequence, kind, body) = place
    return Letter(name, sequence, kind, reason, body)


def is_never_away(kind: int, body: bytes) -> bool:
    """Where nobody else books: nothing goes away."""
    return False


def batch_of(
    reads: Iterable[Read],
    exchanges: Mapping[int, Exchange],
    state: State,
    is_away: Callable[[int, bytes], bool] = is_never_away,
) -> Batch:
    """The batch of some records; exchanges and state as in `apply.booking`.

    is_away: whether another node books a record, by its kind and body
    """
    places = [(tail.name, record) for tail, records, *_ in reads for record in records]
    found = Batch()
    if not places:  # most turns of a node at rest
        return found
    taken = _take_together(found, places, exchanges, state)
    idle = _idle(places, exchanges)
    for index, place in enumerate(places):
        if index in taken:
            continue
        if index in idle:
            found.idle.append(place[1])
            continue
        _, (_, kind, body) = place
        if is_away(kind, body):
            found.away.append(place)
            continue
        command = booking(kind, body, exchanges, state)
        if isinstance(command, Reason):
            found.dead.append(_letter(place, command))
        elif command is not None:
            found.commands.append(command)
            found.places.append(place)
        else:
            found.idle.append(place[1])
    return found


def _take_together(
    batch: Batch, places: Sequence[Place], exchanges: Mapping[int, Exchange], state: State
) -> set[int]:
    """Begins the batch with the bids that are taken; returns the indices of their places."""
    bids = [
        index for index, (_, (_, kind, body)) in enumerate(places)
        if kind == _BID_KIND and len(body) == BID.itemsize
    ]  # fmt: skip
    if not bids:
        return set()
    takes, good = takes_of(b"".join(places[one][1][2] for one in bids), exchanges, state)
    taken = list(compress(bids, good))
    if taken:
        batch.commands.append(Takes(takes))
        batch.taken = [places[one] for one in taken]
    return set(taken)


def _idle(places: Sequence[Place], exchanges: Mapping[int, Exchange]) -> set[int]:
    """The indices of well-formed notices that settle nothing on their exchange: most of all."""
    indices = [
        index for index, (_, (_, kind, body)) in enumerate(places)
        if kind in _SHOWN and len(body) == NOTICE.itemsize
    ]  # fmt: skip
    if not indices:
        return set()
    notices = np.frombuffer(b"".join(places[one][1][2] for one in indices), NOTICE)
    kinds = np.array([places[one][1][1] for one in indices], np.uint8)
    said, idle = notices["claims"], np.zeros(len(indices), np.bool_)
    for key in set(said["exchange"].tolist()) & exchanges.keys():
        others = [int(kind) for kind in _SHOWN if not settles(kind, exchanges[key])]
        idle |= (said["exchange"] == key) & np.isin(kinds, others)
    idle &= (said["version"] == CLAIMS_VERSION) & np.isin(notices["price_state"], _STATES)
    return set(compress(indices, idle.tolist()))


def takes_of(
    bodies: bytes, exchanges: Mapping[int, Exchange], state: State
) -> tuple[npt.NDArray[np.void], list[bool]]:
    """What bids took, and which of them: those of which `apply.booking` would say `Take`.

    Shapes: bodies (n,) of events.BID; takes (m,) of TAKE; which (n,)
    """
    bids = np.frombuffer(bodies, BID)
    said = bids["claims"]
    seconds = (said["bid"] >> BID_SECOND_SHIFT).astype(np.int64)
    ttl_s = _ttl_s(said["exchange"], exchanges)
    nanos = bids["reserve_nanos"]
    good = (said["version"] == CLAIMS_VERSION) & (said["flags"] & _TEST == 0) & (ttl_s >= 0)
    good &= (said["bid"] > 0) & (said["bid"] < BID_MAX) & (seconds >= state.forgotten_s)
    good &= (nanos >= 0) & (nanos <= AMOUNT_MAX)
    unknown = set(said["line_item"].tolist()) - state.lines.keys()
    if unknown:
        good &= ~np.isin(said["line_item"], np.array(list(unknown), np.uint64))
    takes = np.zeros(len(bids), TAKE)
    takes["bid"], takes["line_item"] = said["bid"], said["line_item"]
    takes["nanos"], takes["units"], takes["deadline_s"] = nanos, 1, seconds + ttl_s
    return takes[good], good.tolist()


def _ttl_s(
    keys: npt.NDArray[np.uint32], exchanges: Mapping[int, Exchange]
) -> npt.NDArray[np.int64]:
    """How long the money of each bid is held; -1 for an exchange that nobody knows."""
    found = np.full(len(keys), -1, np.int64)
    for key in set(keys.tolist()) & exchanges.keys():
        found[keys == key] = exchanges[key].reservation_ttl_s
    return found
