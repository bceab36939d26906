"""Profiles in LMDB: many readers in many processes, one writer, one read of about a microsecond.

A reader keeps one read transaction open and renews it on `refresh`, because beginning one costs as
much as half a read. Until then it sees one frozen version and hands out views into the map itself:
nothing is copied, and a view is valid until the next `refresh` or `close`. The price of an old
transaction is that the writer may not reuse pages freed since; refresh a few times a second.

Open after a fork, once a process: LMDB allows neither a second environment on the same file in
one process nor one that crossed a fork.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import lmdb

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.records import Dim
from rtb.catalogue.tokens import token_hash
from rtb.profiles.record import LINK_BYTES, OPT_OUT, RECORD_BYTES_MAX, counts_key, opts_out
from rtb.profiles.reducers import links_of, unlinked

# Address space, not disk: the file grows as it fills. Large, so that readers need no new map.
MAP_BYTES: Final = 64 << 30
READERS_MAX: Final = 512
# One transaction of a bulk load: bounds the dirty pages it holds.
BATCH_PAIRS: Final = 50_000

_LINK_SECOND_BYTE: Final = ord("L")
_FLAGS_BYTE: Final = 3

Made = TypeVar("Made")


class ProfileStore:
    """The embedded profile store: `find` and `get` for readers, `put_many` for the one writer."""

    def __init__(self, environment: lmdb.Environment, *, readonly: bool) -> None:
        self._environment = environment
        self._readonly = readonly
        self._transaction: lmdb.Transaction | None = None
        self._get: Callable[[bytes], memoryview | None] = _nothing
        self._begin()

    @classmethod
    def open(cls, path: Path, *, readonly: bool = True, map_size: int = MAP_BYTES) -> Self:
        """Opens the store in directory `path`; a writer creates it.

        map_size: bytes of address space; a writer doubles it when the store outgrows it.
        Raises: StoreError when it cannot be opened, StoreCorrupt when it is no LMDB file.
        """
        try:
            environment = lmdb.open(
                str(path),
                map_size=map_size,
                readonly=readonly,
                create=not readonly,
                readahead=False,  # random reads: reading ahead evicts what is hot
                max_readers=READERS_MAX,
                max_spare_txns=2,
            )
            if not readonly:
                environment.reader_check()  # frees the slots of readers that died
            return cls(environment, readonly=readonly)
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            raise StoreCorrupt(f"not a profile store: {path}: {error}") from error
        except lmdb.Error as error:
            raise StoreError(f"cannot open profiles at {path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, key: bytes) -> memoryview | None:
        """The record under `key`, one link followed; None when there is none.

        The view is valid until the next `refresh`. Its bytes are not checked here: the engine
        verifies counts and size before it reads.
        """
        return self.find((key,))

    def find(self, keys: Sequence[bytes]) -> memoryview | None:
        """The record that decides for `keys`, as `find_key`. As `get`."""
        return self.find_key(keys)[0]

    def find_key(self, keys: Sequence[bytes]) -> tuple[memoryview | None, bytes | None]:
        """The first record of `keys` that opts out, else the first one; and the key it lies under.

        Each key is read, for a no under the last of them is one, too. As `get`.
        """
        get = self._get  # most of the cost is this call: 0.5-1 us a key
        first: memoryview | None = None
        first_key: bytes | None = None
        for key in keys:
            if key == first_key:
                continue
            record = get(key)
            if record is None:
                continue
            if len(record) > LINK_BYTES and record[1] == _LINK_SECOND_BYTE:
                key = bytes(record[LINK_BYTES:])
                if key == first_key:
                    continue  # most ids of a person lead to the record that is found already
                record = self._follow(record)
                if record is None:
                    continue
            if len(record) > _FLAGS_BYTE and record[_FLAGS_BYTE] & OPT_OUT and opts_out(record):
                return record, key
            if first is None:
                first, first_key = record, key
        return first, first_key

    def counts(self, person: int) -> memoryview | None:
        """What was shown to a person, as `reducers` keeps it; None when nothing was. As `get`."""
        return self._get(counts_key(person))

    def _follow(self, link: memoryview) -> memoryview | None:
        """The record that a link names. A link to a link is a broken store, and a miss to a bid."""
        record = self._get(bytes(link[LINK_BYTES:]))
        if record is not None and len(record) > 1 and record[1] == _LINK_SECOND_BYTE:
            return None
        return record

    def refresh(self) -> None:
        """Sees what was written since; ends the life of every view handed out.

        Costs about 0.7 us. Raises: StoreError when no transaction can begin; every look-up misses
        until a later `refresh` succeeds.
        """
        self._end()
        self._begin()

    def _end(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
        self._transaction, self._get = None, _nothing

    def _begin(self) -> None:
        try:
            try:
                transaction = self._environment.begin(buffers=True)
            except lmdb.MapResizedError:
                # The writer outgrew our map. No transaction of ours is open, so we may take the
                # new size; 0 means "what the file says".
                self._environment.set_mapsize(0)
                transaction = self._environment.begin(buffers=True)
        except lmdb.Error as error:
            raise StoreError(f"cannot read profiles: {error}") from error
        self._transaction = transaction
        # Every value is a view, since the transaction was begun with buffers.
        self._get = cast("Callable[[bytes], memoryview | None]", transaction.get)

    def put_many(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Writes pairs (key, record or link) in one transaction; None erases the key.

        Erasing a key erases what was shown to the person that it names, and links with others; so
        does a record that opts out. Writing another one does not.
        Returns how many pairs there were. Ends the life of views, as `refresh` does.
        Raises: StoreError when nothing was written; ValueError for a record over its limit.
        """
        batch = list(pairs)
        for key, record in batch:
            if record is not None and len(record) > RECORD_BYTES_MAX:
                raise ValueError(f"profile {key!r}: {len(record)} bytes, limit {RECORD_BYTES_MAX}")

        def put(transaction: lmdb.Transaction) -> None:
            for key, record in batch:
                if record is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, record)
                if record is None or opts_out(record):
                    _forget(transaction, token_hash(int(Dim.PERSON), key))

        self.write(put)
        return len(batch)

    def write(self, work: Callable[[lmdb.Transaction], Made]) -> Made:
        """Does `work` in one transaction, all or none; ends the life of views.

        work: may be called again from the start, when the store had to grow for it.
        Raises: StoreError when nothing was written; what `work` raises, likewise.
        """
        if self._readonly:
            raise StoreError("profiles were opened for reading", transient=False)
        # Our own reader would keep the writer from reusing pages, and from resizing.
        self._end()
        try:
            while True:
                try:
                    with self._environment.begin(write=True, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                except lmdb.MapResizedError:
                    self._environment.set_mapsize(0)  # another process made it larger
        except lmdb.Error as error:
            raise StoreError(f"profiles not written: {error}") from error
        finally:
            self._begin()

    def load(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Bulk load, in transactions of BATCH_PAIRS; returns how many pairs were written.

        A load that breaks off leaves the batches before it.
        """
        count = 0
        batch: list[tuple[bytes, bytes | None]] = []
        for pair in pairs:
            batch.append(pair)
            if len(batch) >= BATCH_PAIRS:
                batch.sort(key=_key_of)  # pages fill in order
                count += self.put_many(batch)
                batch.clear()
        batch.sort(key=_key_of)
        return count + (self.put_many(batch) if batch else 0)

    def count(self) -> int:
        """Keys in the store: records, links, counts, and positions of journals."""
        return int(self._environment.stat()["entries"])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with what lies under it, as one version of the store has them."""
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor.iternext()

    def readers(self) -> str:
        """LMDB's table of open readers, a line each: process, thread, version."""
        return str(self._environment.readers())

    def close(self) -> None:
        """Ends the transaction and the map: touching an old view afterwards would crash."""
        self._end()
        self._environment.close()


def _forget(transaction: lmdb.Transaction, person: int) -> None:
    """Erases counts of a person, and its links at both ends."""
    key = counts_key(person)
    for other in links_of(transaction.get(key)):
        counts = transaction.get(counts_key(other))
        left = None if counts is None else unlinked(counts, (person,))
        if left is not None:
            transaction.put(counts_key(other), left)
        else:
            transaction.delete(counts_key(other))
    transaction.delete(key)


def _nothing(key: bytes) -> None:
    """The look-up of a store that has no transaction."""


def _key_of(pair: tuple[bytes, bytes | None]) -> bytes:
    return pair[0]
