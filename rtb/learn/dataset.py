"""Logs of impressions -> token hashes, as the bidder makes them of requests and creatives.

One row is one impression. Its columns are

    click, conversion   labels: 0 or 1, true or false; conversion counts only after a click
    time                epoch seconds or ISO 8601; splits hold-out data by time
    weight              how many impressions the row stands for, 1 by default
    a `Dim` in lower case (country, domain, device_type, ...)     request side
    creative, line_item, campaign, advertiser, product, category  ad side; `ad_media`, `ad_size`
    others              left out, unless named as columns of a side

A cell may hold several values: a list in JSON, `|` between them in CSV; an empty cell says nothing.
How values become tokens is in `rtb.learn.columns`. Each side is a set: a token counts once.
"""

import csv
import gzip
import io
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import InputError
from rtb.decide.features import FEATURES_MAX
from rtb.learn.columns import Cell, Column, make_column

Row = Mapping[str, Cell]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

RESERVED: Final = frozenset({"click", "conversion", "weight", "time", "timestamp"})
LABELS: Final = {"0": 0, "1": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1}


@dataclass(slots=True)
class Dataset:
    """Impressions as ranges of hashes: tokens of row i are `hashes[starts[i]:starts[i + 1]]`."""

    request_starts: Offsets  # (n + 1,)
    request_hashes: Hashes
    ad_starts: Offsets  # (n + 1,)
    ad_hashes: Hashes
    clicks: npt.NDArray[np.uint8]  # (n,)
    conversions: npt.NDArray[np.uint8] | None  # (n,), None when no log has the column
    weights: npt.NDArray[np.float64]  # (n,)
    times_s: npt.NDArray[np.float64] | None  # (n,), None unless every row has one
    ignored: tuple[str, ...] = ()  # columns that were left out
    unseen: tuple[str, ...] = ()  # columns that the bidder does not know when it bids

    @property
    def rows_count(self) -> int:
        return len(self.clicks)


@dataclass(slots=True)
class _Side:
    """Ranges of hashes, growing."""

    starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    hashes: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, hashes: list[int]) -> None:
        self.hashes.extend(hashes)
        self.starts.append(len(self.hashes))

    def arrays(self) -> tuple[Offsets, Hashes]:
        return np.array(self.starts, np.int64), np.array(self.hashes, np.uint64)


@dataclass(slots=True)
class Reader:
    """Collects rows; `columns` are made once a column, hashes once a value."""

    request_columns: Sequence[str] = ()
    ad_columns: Sequence[str] = ()
    _columns: dict[str, Column | None] = field(default_factory=dict)
    _request: _Side = field(default_factory=_Side)
    _ad: _Side = field(default_factory=_Side)
    _clicks: "array[int]" = field(default_factory=lambda: array("B"))
    _conversions: "array[int]" = field(default_factory=lambda: array("B"))
    _weights: "array[float]" = field(default_factory=lambda: array("d"))
    _times_s: "array[float]" = field(default_factory=lambda: array("d"))
    _converting: bool = False

    def add(self, row: Row, place: str) -> None:
        """One impression. Raises: InputError, with `place` and the field."""
        request: dict[int, None] = {}
        ad: dict[int, None] = {}
        for name, cell in row.items():
            if cell is None or cell == "":
                continue
            column = self._columns[name] if name in self._columns else self._column(name)
            if column is not None:
                into = ad if column.is_ad else request
                for hash_ in column.hashes(cell):
                    into[hash_] = None
        if "click" not in row:
            raise InputError("a row needs `click`", place)
        self._request.add(list(request)[:FEATURES_MAX])
        self._ad.add(list(ad))
        self._clicks.append(_label(row["click"], f"{place} field click"))
        self._converting |= row.get("conversion") not in (None, "")
        self._conversions.append(_label(row.get("conversion"), f"{place} field conversion"))
        self._weights.append(_weight(row.get("weight"), f"{place} field weight"))
        time = row.get("time", row.get("timestamp"))
        if time not in (None, ""):
            self._times_s.append(_time_s(time, f"{place} field time"))

    def dataset(self) -> Dataset:
        """What was added. Raises: InputError when there is nothing to learn from."""
        if not self._clicks:
            raise InputError("the logs hold no rows", "log")
        known = {name: column for name, column in self._columns.items() if column is not None}
        timed = len(self._times_s) == len(self._clicks)
        return Dataset(
            *self._request.arrays(),
            *self._ad.arrays(),
            clicks=np.array(self._clicks, dtype=np.uint8),
            conversions=np.array(self._conversions, dtype=np.uint8) if self._converting else None,
            weights=np.array(self._weights, dtype=np.float64),
            times_s=np.array(self._times_s, dtype=np.float64) if timed else None,
            ignored=tuple(
                name
                for name, column in self._columns.items()
                if column is None and name not in RESERVED
            ),
            unseen=tuple(name for name, column in known.items() if column.unseen),
        )

    def _column(self, name: str) -> Column | None:
        column = self._columns[name] = make_column(name, self.request_columns, self.ad_columns)
        return column


def _label(cell: Cell, place: str) -> int:
    if cell is None or cell == "":
        return 0
    label = LABELS.get(str(cell).lower())
    if label is None:
        raise InputError(f"expected 0 or 1, got {cell!r}", place)
    return label


def _weight(cell: Cell, place: str) -> float:
    if cell is None or cell == "":
        return 1.0
    weight = _number(cell, place)
    if not 0.0 < weight < 1e6:
        raise InputError(f"expected a weight above 0, got {cell!r}", place)
    return weight


def _time_s(cell: Cell, place: str) -> float:
    if isinstance(cell, str) and not cell.replace(".", "", 1).isdigit():
        try:
            moment = datetime.fromisoformat(cell)
        except ValueError as error:
            raise InputError(f"expected a time, got {cell!r}", place) from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return _number(cell, place)


def _number(cell: Cell, place: str) -> float:
    try:
        number = float(str(cell))
    except ValueError as error:
        raise InputError(f"expected a number, got {cell!r}", place) from error
    if not np.isfinite(number):
        raise InputError(f"expected a finite number, got {cell!r}", place)
    return number


def read_logs(
    paths: Iterable[Path], request_columns: Sequence[str] = (), ad_columns: Sequence[str] = ()
) -> Dataset:
    """Reads logs: .csv, .tsv (with a header line) or .jsonl, each also as .gz.

    Raises: InputError with file, row and field.
    """
    reader = Reader(request_columns, ad_columns)
    for path in paths:
        try:
            for number, row in _rows(path):
                reader.add(row, f"{path.name} row {number}")
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot read: {error}", str(path)) from error
    return reader.dataset()


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows of one file with their numbers, the first after a header being 1."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise InputError("expected .csv, .tsv or .jsonl, perhaps .gz", str(path))
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        if kind == ".jsonl":
            yield from _json_rows(path, text)
            return
        table = csv.DictReader(text, delimiter="\t" if kind == ".tsv" else ",")
        for number, cells in enumerate(table, 1):
            if None in cells or None in cells.values():
                raise InputError("more or fewer cells than the header", f"{path.name} row {number}")
            yield number, cells


def _json_rows(path: Path, text: io.TextIOWrapper) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", f"{path.name} row {number}") from error
        if not isinstance(row, dict) or any(isinstance(cell, dict) for cell in row.values()):
            raise InputError("expected a flat object", f"{path.name} row {number}")
        yield number, row
