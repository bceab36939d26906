"""The write side of counts in LMDB: impressions and journal positions, in one transaction.

h:<person>    the counts of a person and its links (`rtb.profiles.record`)
p:<journal>   sequence of the last record of a journal that is counted
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import lmdb

from rtb.base.errors import StoreCorrupt
from rtb.profiles.record import PERSON_PREFIX, counts_key
from rtb.profiles.reducers import (
    MEMORY,
    Memory,
    count_impressions,
    is_looked_at,
    links_of,
    spent_s,
)
from rtb.stores.profiles import Links, Record, Shown
from rtb.stores.profiles_lmdb import ProfileStore

POSITION_PREFIX: Final = b"p:"
_POSITION: Final = struct.Struct("<Q")


class CountsStore:
    """Counts in the embedded profile store, for their one writer: the keeper."""

    def __init__(self, store: ProfileStore, memory: Memory = MEMORY) -> None:
        self._store, self._memory = store, memory

    def positions(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """How far each journal is counted, or those of some names. Raises: StoreCorrupt."""

        def read(transaction: lmdb.Transaction) -> dict[str, int]:
            found = {}
            with transaction.cursor() as cursor:
                more = cursor.set_range(POSITION_PREFIX)
                while more and bytes(cursor.key()).startswith(POSITION_PREFIX):
                    name = bytes(cursor.key())[len(POSITION_PREFIX) :].decode()
                    if len(cursor.value()) != _POSITION.size:
                        raise StoreCorrupt(f"no position of a journal - at key `{name}`")
                    found[name] = int(_POSITION.unpack(cursor.value())[0])
                    more = cursor.next()
            return found if names is None else {one: found[one] for one in names if one in found}

        return self._store.write(read)

    def count(self, shown: Shown, positions: Mapping[str, int], links: Links | None = None) -> int:
        """Counts impressions by person, links persons, and moves positions, all or none.

        Returns: how many persons' counts changed. Raises: StoreError when nothing was written.
        """
        linked = links or {}

        def write(transaction: lmdb.Transaction) -> int:
            changed = 0
            for person in sorted(shown.keys() | linked.keys()):  # pages are met in order
                key = counts_key(person)
                counts = count_impressions(
                    transaction.get(key),
                    shown.get(person, ()),
                    self._memory,
                    linked.get(person, ()),
                )
                if counts is not None:
                    transaction.put(key, counts)
                    changed += 1
            for name, sequence in positions.items():
                transaction.put(POSITION_PREFIX + name.encode(), _POSITION.pack(sequence))
            return changed

        return self._store.write(write)

    def sweep(self, low: int, high: int, now_s: int) -> list[int]:
        """Drops counts of the persons [low, high) that are spent; returns those others, in order,
        that requests look at.
        """

        def drop(transaction: lmdb.Transaction) -> list[int]:
            kept, end = [], counts_key(high) if high < 1 << 64 else PERSON_PREFIX + b"\xff" * 9
            with transaction.cursor() as cursor:
                more = cursor.set_range(counts_key(low))
                while more and bytes(cursor.key()) < end:
                    if self._is_spent(transaction, cursor.value(), now_s):
                        cursor.delete()
                        # The cursor stands on the next key now, or on none.
                        more = bool(cursor.key())
                        continue
                    if is_looked_at(cursor.value()):
                        kept.append(int.from_bytes(cursor.key()[len(PERSON_PREFIX) :], "big"))
                    more = cursor.next()
            return kept

        return self._store.write(drop)

    def _is_spent(self, transaction: lmdb.Transaction, record: Record, now_s: int) -> bool:
        """Whether neither a person's own counts matter any more nor those it is linked to."""
        if spent_s(record, self._memory) > now_s:
            return False
        others = (transaction.get(counts_key(one)) for one in links_of(record))
        return all(one is None or spent_s(one, self._memory) <= now_s for one in others)
