"""Dead letters: records that cannot be booked, kept with their place for a person to look at.

One JSON document a line, on the disk before the batch that leaves the record out is committed. So
a kill in between leaves a letter twice, never not at all; `read` shows each place once. The record
itself also stays in its journal, for as long as that is kept.
"""

import json
import os
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from rtb.base.errors import StoreError

# Beyond this, letters are only counted: a flood of poison must not fill the disk of the books.
BYTES_MAX: Final = 64 << 20


class Reason(IntEnum):
    """Why a record cannot be booked. Numbers are stored."""

    UNKNOWN_KIND = 1
    BROKEN_BODY = 2  # a length or a version that we do not know
    UNKNOWN_EXCHANGE = 3
    UNKNOWN_LINE_ITEM = 4  # never enrolled; one that left the catalogue keeps its books
    OUT_OF_RANGE = 5  # an amount or an id
    TOO_OLD = 6  # the books have forgotten whether it was booked
    ABOVE_BID = 7
    PRICE_IN_DOUBT = 8  # money is owed, but how much: `notices.settle`
    OTHER_LINE_ITEM = 9
    OTHER_PRICE = 10  # booked before at another price, which stands


class Letter(NamedTuple):
    """A record and why it is here; `journal` and `sequence` are its place."""

    journal: str
    sequence: int
    kind: int
    reason: Reason
    body: bytes


class Letters:
    """The file, for its one writer."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self.counts: dict[Reason, int] = {}
        self.dropped = 0  # counted, but not kept

    def add(self, letters: list[Letter]) -> None:
        """Keeps letters; they survive a power cut on return. Raises: StoreError."""
        if not letters:
            return
        text = "".join(_line(letter) for letter in letters).encode()
        try:
            self._append(text, len(letters))
        except OSError as error:
            raise StoreError(f"cannot keep dead letters: {error} - at `{self._path}`") from error
        for letter in letters:
            self.counts[letter.reason] = self.counts.get(letter.reason, 0) + 1

    def _append(self, text: bytes, count: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            size = file.tell()
            if size + len(text) > self._bytes_max:
                self.dropped += count
                return
            file.seek(max(size - 1, 0))
            torn = file.read() not in {b"", b"\n"}  # by a power cut
            file.write(b"\n" + text if torn else text)
            file.flush()
            os.fsync(file.fileno())


def _line(letter: Letter) -> str:
    fields = {**letter._asdict(), "reason": letter.reason.name, "body": letter.body.hex()}
    return json.dumps(fields) + "\n"


def read(path: Path) -> list[Letter]:
    """All letters, each place once; a torn line is left out."""
    found: dict[tuple[str, int], Letter] = {}
    if not path.exists():
        return []
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        fields |= {"reason": Reason[fields["reason"]], "body": bytes.fromhex(fields["body"])}
        letter = Letter(**fields)
        found[letter.journal, letter.sequence] = letter
    return list(found.values())
