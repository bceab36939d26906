"""Reads a catalogue from a directory, and says of everything wrong in it where it stands.

    *.toml *.json       tables by name: advertisers, campaigns, line_items, creatives, products, ...
    <table>*.jsonl      one object a line: line_items.jsonl, line_items-2.jsonl
    products*.csv .tsv  a Google Merchant feed; the advertiser is a column, or in the name of the
                        file (products-<advertiser>.csv), or the only one there is

Nothing here raises for what a file says: a bad row becomes a `Problem` and reading goes on. Files
are hostile until read: sizes, columns and rows are bounded, and feeds are read as a stream.
"""

import csv
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, BinaryIO, Final, Protocol, get_args, get_origin

import msgspec

from rtb.catalogue.check import NOTHING_KNOWN, Finding, Outside, check, check_entity
from rtb.catalogue.check_parts import Severity
from rtb.catalogue.model import KINDS, Catalogue, Creative, Entity, Product, key_of

# A TOML or JSON file is held in memory; bigger catalogues are JSON lines and feeds.
FILE_BYTES_MAX: Final = 64 << 20
LINE_BYTES_MAX: Final = 4 << 20
FEED_BYTES_MAX: Final = 4 << 30
FEED_COLUMNS_MAX: Final = 256
FEED_ROWS_MAX: Final = 5_000_000
# A broken file repeats itself; the rest of its problems say nothing new.
PROBLEMS_PER_FILE_MAX: Final = 10_000

UNKNOWN: Final = "unknown field"
# What stands for a required field that cannot be read, while the rest of its object is checked.
STAND_INS: Final[Mapping[str, object]] = {
    "id": "?", "advertiser": "?", "campaign": "?", "exchange": "?", "creatives": (),
    "goal": {"type": "cpm", "amount": "1"},
}  # fmt: skip
CREATIVE_TYPES: Final[tuple[str, ...]] = get_args(Creative.__annotations__["type"])

# Columns of the feed format that say nothing about how to advertise.
FEED_IGNORED: Final = frozenset({
    "age_group", "gender", "material", "pattern", "availability_date", "expiration_date",
    "additional_image_link", "mobile_link", "sale_price_effective_date", "adult", "multipack",
    "is_bundle", "identifier_exists", "tax", "shipping", "shipping_weight", "shipping_label",
    "custom_label_0", "custom_label_1", "custom_label_2", "custom_label_3", "custom_label_4",
    "excluded_destination", "included_destination", "size_type", "size_system", "pause",
})  # fmt: skip


class Problem(msgspec.Struct, frozen=True):
    """One fault: the file, the row (a line of a feed or of JSON lines, else the number of the
    object in its table, from 1; 0 for the file as a whole), the field, what is wrong, and the table
    of the object ("" where no object is meant): a file may hold several."""

    file: str
    row: int
    field: str
    message: str
    severity: Severity = "error"
    table: str = ""


class _Rows(Protocol):
    """A `csv.reader`: rows, and the line that the last of them ended on."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...


@dataclass(frozen=True, slots=True)
class _Refused:
    """An object that is refused, but may have more to say than why.

    `guesses` are what it may have meant, by what stands in for its `wrong` fields.
    """

    kind: str
    guesses: tuple[Entity, ...]
    wrong: frozenset[str]
    file: str
    row: int

    def findings(self, catalogue: Catalogue, outside: Outside) -> list[Finding]:
        """What is wrong with the rest of it, whatever the wrong fields were meant to say."""
        first, *others = [
            list(check_entity(self.kind, each, catalogue, outside)) for each in self.guesses
        ]
        return [
            finding
            for finding in first
            if _root(finding.field) not in self.wrong and all(finding in each for each in others)
        ]


@dataclass(slots=True)
class _Reading:
    """What was read so far."""

    catalogue: Catalogue = field(default_factory=Catalogue)
    problems: list[Problem] = field(default_factory=list)
    places: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    # Where the ids of refused objects stand.
    claims: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    refused: list[_Refused] = field(default_factory=list)
    in_file: int = 0

    def problem(
        self,
        file: str,
        row: int,
        name: str,
        message: str,
        severity: Severity = "error",
        *,
        table: str = "",
    ) -> None:
        self.in_file += 1
        if self.in_file < PROBLEMS_PER_FILE_MAX:
            self.problems.append(Problem(file, row, name, message, severity, table))
        elif self.in_file == PROBLEMS_PER_FILE_MAX:
            self.problems.append(Problem(file, row, "", "too many problems: the rest is not shown"))

    def add(self, kind: str, entity: Entity, file: str, row: int) -> None:
        self.claim(kind, entity, file, row)
        if self.catalogue.add(entity):
            self.places[kind, key_of(entity)] = file, row
        else:
            self.refuse(_Refused(kind, (entity,), frozenset(), file, row))

    def claim(self, kind: str, entity: Entity, file: str, row: int) -> None:
        """An id may be there once, be its object refused or not."""
        key = kind, key_of(entity)
        first = self.places.get(key) or self.claims.get(key)
        if first is not None:
            taken = f"{entity.id!r} is taken: {first[0]} row {first[1]}"
            self.problem(file, row, "id", taken, table=kind)

    def refuse(self, refused: _Refused) -> None:
        # What would not be shown need not be kept.
        if self.in_file < PROBLEMS_PER_FILE_MAX:
            self.refused.append(refused)


def load(directory: Path, outside: Outside = NOTHING_KNOWN) -> tuple[Catalogue, list[Problem]]:
    """All objects that could be read, and all problems: unreadable rows, and broken rules.

    outside: what rules compare the catalogue with. With any problem of severity "error" it must
    not be compiled as it is; see `check.sound_part`.
    Raises: nothing for what files say; OSError when the directory is none.
    """
    reading = _Reading()
    files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    # Feeds last: they may need to know the advertisers.
    for path in sorted(files, key=lambda path: path.suffix in {".csv", ".tsv"}):
        reading.in_file = 0
        _read_file(reading, path)
    reading.in_file = 0
    for finding in check(reading.catalogue, outside):
        file, row = reading.places[finding.kind, finding.key]
        _tell(reading, file, row, finding)
    for each in reading.refused:
        for finding in each.findings(reading.catalogue, outside):
            _tell(reading, each.file, each.row, finding)
    return reading.catalogue, reading.problems


def _tell(reading: _Reading, file: str, row: int, finding: Finding) -> None:
    reading.problem(file, row, finding.field, finding.message, finding.severity, table=finding.kind)


def _read_file(reading: _Reading, path: Path) -> None:
    readers = {
        ".toml": _read_tables,
        ".json": _read_tables,
        ".jsonl": _read_lines,
        ".csv": _read_feed,
        ".tsv": _read_feed,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        reading.problem(path.name, 0, "", "not read: no catalogue file by its name", "warning")
        return
    try:
        reader(reading, path)
    except UnicodeDecodeError as error:
        reading.problem(path.name, 0, "", f"not UTF-8: {error.reason} at byte {error.start}")
    except OSError as error:
        reading.problem(path.name, 0, "", f"cannot be read: {error.strerror}")


# -- TOML and JSON --------------------------------------------------------------------------------


def _read_tables(reading: _Reading, path: Path) -> None:
    if path.stat().st_size > FILE_BYTES_MAX:
        reading.problem(path.name, 0, "", f"over {FILE_BYTES_MAX} bytes: split it, or use .jsonl")
        return
    data = path.read_bytes()
    try:
        tables = _decode(path, data)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, RecursionError) as error:
        reading.problem(path.name, 0, "", f"cannot be parsed: {error}")
        return
    if not isinstance(tables, dict):
        reading.problem(path.name, 0, "", "expected an object of tables")
        return
    for kind, rows in tables.items():
        if kind not in KINDS:
            known = ", ".join(KINDS)
            reading.problem(path.name, 0, kind, f"unknown table; tables are {known}")
        elif not isinstance(rows, list):
            reading.problem(path.name, 0, kind, "expected a list of objects")
        else:
            for row, value in enumerate(rows, 1):
                _read_object(reading, kind, value, path.name, row)


def _decode(path: Path, data: bytes) -> object:
    if path.suffix.lower() == ".toml":
        return _plain(tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n")))
    return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))


def _plain(value: object) -> object:
    """TOML's dates as the text that JSON would have."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


def _read_lines(reading: _Reading, path: Path) -> None:
    kind = next((kind for kind in KINDS if path.name.startswith(kind)), None)
    if kind is None:
        reading.problem(path.name, 0, "", f"name it after a table: {', '.join(KINDS)}")
        return
    decoder = msgspec.json.Decoder(KINDS[kind])
    with path.open("rb") as file:
        for row, line in _bounded_lines(file):
            if len(line) > LINE_BYTES_MAX:
                told = f"line over {LINE_BYTES_MAX} bytes"
                reading.problem(path.name, row, "", told, table=kind)
                return
            if not line.strip():
                continue
            try:
                reading.add(kind, decoder.decode(line), path.name, row)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                _read_line_again(reading, kind, line, path.name, row)


def _bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; one over the limit comes cut, just over it."""
    row = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        row += 1
        yield row, line.removeprefix(b"\xef\xbb\xbf") if row == 1 else line


def _read_line_again(reading: _Reading, kind: str, line: bytes, file: str, row: int) -> None:
    """Every fault of a line that did not decode at once."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reading.problem(file, row, "", f"no JSON: {error}", table=kind)
        return
    _read_object(reading, kind, value, file, row)


def _read_object(reading: _Reading, kind: str, value: object, file: str, row: int) -> None:
    """One object of a table; if it is wrong, each of its fields tells its own fault."""
    if not isinstance(value, dict):
        told = f"expected an object, got `{type(value).__name__}`"
        reading.problem(file, row, "", told, table=kind)
        return
    try:
        entity = msgspec.convert(value, KINDS[kind])
    except (msgspec.ValidationError, RecursionError) as error:
        faults = list(islice(_faults(KINDS[kind], value), PROBLEMS_PER_FILE_MAX))
        for name, message in faults or [("", str(error))]:
            reading.problem(file, row, name, message, table=kind)
        _look_again(reading, kind, value, frozenset(_root(name) for name, _ in faults), file, row)
    else:
        reading.add(kind, entity, file, row)


def _root(name: str) -> str:
    """The field of an object that a path leads into."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _look_again(
    reading: _Reading,
    kind: str,
    value: Mapping[str, object],
    wrong: frozenset[str],
    file: str,
    row: int,
) -> None:
    """Keeps a wrong object without its wrong fields for the rules: one look then tells all."""
    fields = {each.name: each.required for each in msgspec.structs.fields(KINDS[kind])}
    rest = {name: each for name, each in value.items() if name in fields and name not in wrong}
    needed = [name for name in wrong if fields.get(name)]
    rest |= {name: STAND_INS[name] for name in needed if name in STAND_INS}
    choices = CREATIVE_TYPES if kind == "creatives" and "type" in needed else ("",)
    try:
        guesses = tuple(
            msgspec.convert(rest | ({"type": each} if each else {}), KINDS[kind])
            for each in choices
        )
    except (msgspec.ValidationError, RecursionError):
        return
    entity = guesses[0]
    if wrong.isdisjoint({"id", "advertiser"} if kind == "products" else {"id"}):
        reading.claim(kind, entity, file, row)
        reading.claims.setdefault((kind, key_of(entity)), (file, row))
    reading.refuse(_Refused(kind, guesses, wrong, file, row))


def _faults(kind: Any, value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(field, message) of everything that keeps a value from being of a type."""
    found = False
    for fault in _inner_faults(_present(kind), value, path):
        found = True
        yield fault
    if found:
        return
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, place = str(error).partition(" - at `$")
        if isinstance(value, float) and "got `float`" in message:
            message = f'an amount is text, so that no digit is lost: write "{value}"'
        yield (path + place.rstrip("`")).removeprefix("."), message


def _present(kind: Any) -> Any:
    """The type of a field that may be left out, when it is not."""
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if isinstance(kind, UnionType) and len(others) == 1 else kind


def _inner_faults(kind: Any, value: object, path: str) -> Iterator[tuple[str, str]]:
    if get_origin(kind) is tuple and isinstance(value, list):
        for index, each in enumerate(value):
            yield from _faults(get_args(kind)[0], each, f"{path}[{index}]")
    elif get_origin(kind) is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from _faults(get_args(kind)[1], each, f"{path}.{name}")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from _field_faults(kind, value, path)


def _field_faults(
    kind: type[msgspec.Struct], value: Mapping[str, object], path: str
) -> Iterator[tuple[str, str]]:
    fields = {each.name: each for each in msgspec.structs.fields(kind)}
    start = f"{path}." if path else ""
    for name in value:
        if name not in fields:
            yield start + name, UNKNOWN
    for name, each in fields.items():
        if name in value:
            yield from _faults(each.type, value[name], start + name)
        elif each.required:
            yield start + name, "missing"


# -- feeds ----------------------------------------------------------------------------------------


def _read_feed(reading: _Reading, path: Path) -> None:
    if not path.name.lower().startswith("products"):
        reading.problem(path.name, 0, "", "only feeds, products*.csv, are tables of this format")
        return
    if path.stat().st_size > FEED_BYTES_MAX:
        reading.problem(path.name, 0, "", f"over {FEED_BYTES_MAX} bytes")
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            columns = _columns(reading, path.name, next(rows, []))
            if columns:
                _read_feed_rows(reading, path, rows, columns)
        except csv.Error as error:
            # After a broken quote nobody knows where the next row begins.
            reading.problem(path.name, rows.line_num, "", f"{error}; the rest is not read")


def _columns(reading: _Reading, file: str, header: list[str]) -> list[str]:
    """The field of each column, "" where it is of no use; [] when the header cannot be."""
    if not header or len(header) > FEED_COLUMNS_MAX:
        reading.problem(file, 1, "", f"expected a header of 1 to {FEED_COLUMNS_MAX} columns")
        return []
    known = {each.name for each in msgspec.structs.fields(Product)}
    columns = []
    for text in header:
        name = text.strip().lower().removeprefix("g:").replace(" ", "_").replace("-", "_")
        if name in columns and name in known:
            reading.problem(file, 1, name, "two columns of this name")
            return []
        if name not in known and name not in FEED_IGNORED:
            reading.problem(file, 1, text[:80], "unknown column, ignored", "warning")
        columns.append(name if name in known else "")
    return columns


def _read_feed_rows(reading: _Reading, path: Path, rows: _Rows, columns: list[str]) -> None:
    default = _feed_advertiser(reading.catalogue, path)
    start = rows.line_num + 1
    for count, cells in enumerate(rows):
        row, start = start, rows.line_num + 1
        if count >= FEED_ROWS_MAX:
            reading.problem(path.name, row, "", f"over {FEED_ROWS_MAX} rows; the rest is not read")
            return
        if not any(cells):
            continue
        if len(cells) > len(columns):
            told = f"{len(cells)} cells for {len(columns)} columns"
            reading.problem(path.name, row, "", told, table="products")
            continue
        found = zip(columns, cells, strict=False)
        value = {name: cell.strip() for name, cell in found if name and cell.strip()}
        if default is not None:
            value.setdefault("advertiser", default)
        _read_object(reading, "products", value, path.name, row)


def _feed_advertiser(catalogue: Catalogue, path: Path) -> str | None:
    """Whose feed this is, when its rows do not say."""
    _, dash, name = path.stem.partition("-")
    if dash:
        return name
    return next(iter(catalogue.advertisers)) if len(catalogue.advertisers) == 1 else None
