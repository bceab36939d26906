"""The exchange's own invoice: a line for each impression whose billing notice was accepted, once.

Accepted is what the bidder answered with 2xx or 3xx. `rtb.stores.invoice_read` says what the
columns mean, and reads them.
"""

import csv
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rtb.base.errors import ConfigError
from rtb.base.money import format_micros
from rtb.ledger.amounts import nanos_text
from rtb.stores.invoice_read import HEADER


class Entry(NamedTuple):
    """A line of an invoice."""

    bid: str
    imp: str
    price_micros: int  # CPM
    currency: str
    time_ms: int
    exchange: str

    @property
    def nanos(self) -> int:
        """What the impression costs: a CPM of n micros is n nanos."""
        return self.price_micros


class Invoice:
    """A file that is being written. `path` None: none is wanted."""

    def __init__(self, path: Path | None) -> None:
        """Raises: ConfigError when the file cannot be made."""
        self._files = ExitStack()
        self._write = None
        if path is None:
            return
        try:
            file = self._files.enter_context(path.open("w", newline="", encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error}") from error
        self._file = file
        self._write = csv.writer(file, lineterminator="\n").writerow
        self._write(HEADER)

    def add(self, entry: Entry) -> None:
        """One more line."""
        if self._write is not None:
            self._write(row_of(entry))

    def flush(self) -> None:
        """What was added so far is in the file: it outlives this process."""
        if self._write is not None:
            self._file.flush()

    def close(self) -> None:
        """No more lines."""
        self._write = None
        self._files.close()


def row_of(entry: Entry) -> tuple[str, ...]:
    """A line as text."""
    moment = datetime.fromtimestamp(entry.time_ms // 1000, UTC)
    time = f"{moment:%Y-%m-%dT%H:%M:%S}.{entry.time_ms % 1000:03d}Z"
    return (
        entry.bid, entry.imp, format_micros(entry.price_micros), entry.currency,
        nanos_text(entry.nanos), time, entry.exchange,
    )  # fmt: skip


def part_of(path: Path, share: int) -> Path:
    """The file of one process."""
    return path.with_name(f"{path.name}.part{share}")


def join(path: Path, shares: int) -> None:
    """Makes one file of the parts, which are gone then; none of none. Raises: ConfigError."""
    parts = [part for part in (part_of(path, share) for share in range(shares)) if part.exists()]
    if not parts:
        return
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            file.write(",".join(HEADER) + "\n")
            for part in parts:
                with part.open(newline="", encoding="utf-8") as lines:
                    next(lines, None)
                    file.writelines(lines)
        for part in parts:
            part.unlink()
    except OSError as error:
        raise ConfigError(f"{path}: {error}") from error
