"""What a journal has lost, and an operator's word that he gives it up.

Whoever reads a journal stops at a record that is damaged or missing, for a bill may stand there. An
operator who has no better copy of the file accepts the loss: the file `given-up` in the journal's
folder names the records, and readers step over those and no others. It is written while nobody has
the journal open, and stays as long as the journal: the audit goes on saying how many are missing.

    <identity> <first> <last>       a line for each loss
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.events import record_time_ms
from rtb.stores.journal import Kernel
from rtb.stores.journal_kept import Kept
from rtb.stores.journal_read import GIVEN_UP, Reader, Span, folder_of, given_up

_BATCH: int = 10_000


class Damage(NamedTuple):
    """Records that cannot be read.

    place         file and byte, for people
    from_ms, to_ms  when the records before and behind were written; None where nobody says
    is_given_up   whether readers step over it
    """

    worker: int
    span: Span
    place: str
    from_ms: int | None
    to_ms: int | None
    is_given_up: bool


def damages(directory: Path, kept: Kept, kernel: Kernel) -> Iterator[Damage]:
    """All that one journal has lost, in order. Raises: StoreError when it cannot be looked."""
    known = given_up(folder_of(directory, kept.worker), kept.identity)
    time_ms: int | None = None
    open_: Damage | None = None
    with Reader(
        directory, kept.worker, kept.first - 1, kernel, kept.identity, strict=True
    ) as reader:
        while reader.position < kept.last:
            try:
                records = reader.read(_BATCH)
            except StoreCorrupt as error:
                before = reader.position
                if not reader.skip_damage():
                    raise
                span = Span(before + 1, reader.position)
                if open_ is not None:
                    yield open_
                open_ = Damage(kept.worker, span, str(error), time_ms, None, span in known)
                continue
            if not records:
                break
            times = [record_time_ms(kind, body) for _, kind, body in (records[0], records[-1])]
            if open_ is not None:
                yield open_._replace(to_ms=times[0])
                open_ = None
            time_ms = times[1] or time_ms
    if open_ is not None:
        yield open_


def give_up(directory: Path, kept: Kept, spans: list[Span]) -> None:
    """Has readers step over these records from now on.

    Raises: StoreError when somebody writes the journal, or the disk fails.
    """
    folder = folder_of(directory, kept.worker)
    try:
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(folder, kept.identity, spans)
        os.fsync(file)
    except BlockingIOError as error:
        raise StoreError(f"a worker writes this journal - at `{folder}`") from error
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error
    finally:
        os.close(file)


def _write(folder: Path, identity: int, spans: list[Span]) -> None:
    path = folder / GIVEN_UP
    fresh = path.with_suffix(".new")
    before = path.read_text() if path.exists() else ""
    with fresh.open("w") as out:
        out.write(before + "".join(f"{identity:016x} {one.first} {one.last}\n" for one in spans))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
