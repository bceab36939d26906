"""Whom a request may mean, for frequency caps: who is counted, and who is to be linked to whom.

The rules stand in `rtb.stores.caps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rtb.base.errors import ProfileError
from rtb.base.events import LINK_OTHERS_MAX, Way
from rtb.base.records import Dim
from rtb.catalogue.tokens import token_hash
from rtb.profiles import codec
from rtb.stores.profiles import PERSON_BYTES, Record

PERSON: Final = int(Dim.PERSON)
ALIASES_MAX: Final = 12  # keys of one request, that of its record, and what they are linked to
# Keys of a request that are counted and linked; others would leave no place for whom those lead to.
KEYS_COUNTED: Final = 8
NO_BID: Final = 0  # of an entry that is a link: its `line_item` is who it leads to


class Found(NamedTuple):
    """An entry of the board; with NO_BID a link."""

    sequence: int
    bid: int
    line_item: int
    creative: int
    time_ms: int
    worker: int


@dataclass(slots=True)
class Known:
    """One whom a request may mean; links: those whose counts are to be looked at too."""

    person: int
    stored: codec.Counts | None
    bids: list[Found] = field(default_factory=list)
    links: list[int] = field(default_factory=list)

    @property
    def is_crowd(self) -> bool:
        """Whether it came together with too many to be anybody's own."""
        return self.stored is not None and self.stored.crowd

    @property
    def has_counts(self) -> bool:
        """Whether something was shown, or is in flight."""
        stored = self.stored
        return bool(self.bids) or (stored is not None and bool(stored.counts or stored.bids))

    def leads(self, person: int) -> bool:
        """Whether there is more to find here than that person's counts."""
        return self.has_counts or any(link != person for link in self.links)


def aliases(keys: Sequence[bytes], key: bytes | None) -> list[int]:
    """The hashes under which a person may have counts, the record's first."""
    every = [*([key] if key is not None else []), *keys[:KEYS_COUNTED]]
    return list(dict.fromkeys(token_hash(PERSON, one) for one in every))


def usable(people: list[Known], has_record: bool) -> list[Known]:
    """All but crowds; the record's own person in any case, or the first where there is no other."""
    own = people[:1] if has_record else []
    return own + [one for one in people[len(own) :] if not one.is_crowd] or people[:1]


def chosen(people: list[Known], aliases: list[int]) -> Known:
    """Who of those without a record is counted."""
    with_counts = (one for one in people if one.has_counts)
    linked = (one for one in people if one.person not in aliases)
    return next(with_counts, None) or next(linked, None) or people[0]


def apart(people: list[Known], chosen: Known) -> list[tuple[int, Way]]:
    """Who is not linked to the person, and in which way."""
    found = []
    for one in people:
        if one is chosen:
            continue
        ways = Way(0)
        if chosen.person not in one.links:
            ways |= Way.TO_PERSON
        if one.leads(chosen.person) and one.person not in chosen.links:
            ways |= Way.FROM_PERSON
        if ways:
            found.append((one.person, ways))
    return found[:LINK_OTHERS_MAX]


def given(
    keys: Sequence[bytes], key: bytes | None, counts: Sequence[Record | None]
) -> dict[int, codec.Counts | None]:
    """Counts that came with the record, by person."""
    every = [*([key] if key is not None else []), *keys]
    found: dict[int, codec.Counts | None] = {}
    for one, record in zip(every, counts, strict=False):
        found.setdefault(token_hash(PERSON, one), opened(record))
    for linked in counts[len(every) :]:
        if linked is not None and len(linked) >= PERSON_BYTES:
            person = int.from_bytes(linked[:PERSON_BYTES], "little")
            found.setdefault(person, opened(linked[PERSON_BYTES:]))
    return found


def opened(counts: Record | None) -> codec.Counts | None:
    """Counts of the store; None where it has none, or broken ones."""
    if counts is not None:
        try:
            return codec.decode_counts(counts)
        except ProfileError:
            pass  # the keeper begins it anew
    return None
