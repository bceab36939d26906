"""The facts of one request while they are collected, and how they get into an `Opportunity`.

Lists grow here freely up to the exchange's limits; past a limit the overflow is a flag or a quirk,
as `rtb.base.records` says. Block values and values that can be targeted have a limit each, so a
page with a thousand keywords never costs us a block list. Nor does it cost us the sizes: values of
lists without an end (OPEN) wait until the rest has its room, which is bounded by the impressions,
formats and deals of a request.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from rtb.base import records
from rtb.base.hashing import token_hash
from rtb.base.records import Dim, Flag, Opportunity, Quirk
from rtb.exchanges.settings import Exchange
from rtb.openrtb.hosts import blocked_host
from rtb.openrtb.reading import Json, Number, Object, Reader, escape, plain

Value: TypeAlias = "int | float | list[int] | Row"
Row: TypeAlias = "dict[str, Value]"
Slice = tuple[int, int]

WHOLE: Final = -1  # `Token.imp` of what belongs to the request as a whole


# Lists of any length; what is cut from them leaves the rest of a request as good as it was.
OPEN: Final = frozenset(
    {
        Dim.KEYWORD, Dim.USER_KEYWORD, Dim.DATA_SEGMENT, Dim.KEY_VALUE, Dim.PAGE_CATEGORY,
        Dim.CONTENT_GENRE, Dim.VENUE,
    }
)  # fmt: skip

# Hosts of other scripts in the lists of one request: to encode one may take a millisecond.
FOREIGN_HOSTS_MAX: Final = 64


class Sheet:
    """Rows of every list of FACTS by field name; what is not named is 0."""

    __slots__ = (
        "_blocks_left", "_foreign_left", "_open", "_reader", "_targets_left", "_text", "assets",
        "blocks", "deals", "durfloors", "exchange", "flags", "formats", "head", "ids", "imps",
        "tokens",
    )  # fmt: skip

    def __init__(self, reader: Reader, exchange: Exchange) -> None:
        self._reader = reader
        self._text = bytearray()
        self._open: list[tuple[Dim, str, int]] = []
        self._blocks_left = exchange.block_tokens_max
        self._targets_left = exchange.target_tokens_max
        self._foreign_left = FOREIGN_HOSTS_MAX
        self.exchange = exchange
        self.flags = 0
        self.blocks = 0
        self.head: Row = {}
        self.ids: list[Row] = []
        self.imps: list[Row] = []
        self.deals: list[Row] = []
        self.formats: list[Row] = []
        self.durfloors: list[Row] = []
        self.assets: list[Row] = []
        self.tokens: list[tuple[int, int, int, int, int]] = []

    def slice(self, raw: str) -> Slice:
        """Keeps raw string contents; offset and length in `Opportunity.text`."""
        start = len(self._text)
        self._text += raw.encode()
        return start, len(self._text) - start

    def target(self, dim: Dim, value: str, imp: int = WHOLE) -> None:
        """Adds a value that line items may be targeted at; an empty one is none."""
        if not value:
            return
        if dim in OPEN:
            self._open.append((dim, value, imp))
        else:
            self._keep_target(dim, value, imp)

    def block(self, dim: Dim, value: str, imp: int = WHOLE) -> None:
        """Adds a value of a block or allow list."""
        if self._blocks_left == 0:
            self.flags |= Flag.BLOCKS_OVERFLOW
            self._reader.note(Quirk.LIST_TRUNCATED)
            return
        self._blocks_left -= 1
        self._token(dim, value, imp)

    def block_host(self, dim: Dim, text: str, imp: int = WHOLE) -> None:
        """Adds a host of a block or allow list; of other scripts only some, as they take long."""
        if not text.isascii():
            if self._foreign_left == 0:
                self.flags |= Flag.BLOCKS_OVERFLOW
                self._reader.note(Quirk.LIST_TRUNCATED)
                return
            self._foreign_left -= 1
        host = blocked_host(text)
        if host:
            self.block(dim, host, imp)

    def mark(self) -> tuple[int, ...]:
        """Where all lists end now, for `rollback`."""
        counts = (len(rows) for rows in self._lists())
        return (len(self.tokens), self._blocks_left, self._targets_left, len(self._open), *counts)

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Takes back every row and token since `mark`; flags and quirks stay."""
        tokens, self._blocks_left, self._targets_left, waiting, *counts = mark
        del self.tokens[tokens:]
        del self._open[waiting:]
        for rows, count in zip(self._lists(), counts, strict=True):
            del rows[count:]

    def _lists(self) -> tuple[list[Row], ...]:
        return self.formats, self.deals, self.durfloors, self.assets

    def add_rows(self, into: list[Row], rows: Sequence[Row], capacity: int) -> Slice:
        """Appends rows to a list of limited size; start and count of what went in."""
        start = len(into)
        fitting = rows[: capacity - start]
        if len(fitting) < len(rows):
            self._reader.note(Quirk.LIST_TRUNCATED)
        into.extend(fitting)
        return start, len(fitting)

    def write(self, opportunity: Opportunity) -> None:
        """Overwrites an opportunity with what was collected."""
        facts = opportunity.facts
        facts.view(np.uint8)[:] = 0
        for dim, value, imp in self._open:
            self._keep_target(dim, value, imp)
        opportunity.text = bytes(self._text)
        self.head |= {
            "flags": self.flags,
            "quirks": self._reader.quirks,
            "blocks": self.blocks,
            "tokens_count": len(self.tokens),
        }
        facts["tokens"][0][: len(self.tokens)] = np.array(self.tokens, dtype=records.TOKEN)
        for name, dtype, rows in (
            ("ids", records.IDENTIFIER, self.ids),
            ("imps", records.IMP, self.imps),
            ("deals", records.DEAL, self.deals),
            ("formats", records.FORMAT, self.formats),
            ("durfloors", records.DURFLOOR, self.durfloors),
            ("assets", records.ASSET, self.assets),
        ):
            self.head[f"{name}_count"] = len(rows)
            packed = np.array([_packed(row, dtype) for row in rows], dtype=dtype)
            facts[name][0][: len(rows)] = packed
        facts["head"][0] = _packed(self.head, records.HEAD)

    def _keep_target(self, dim: Dim, value: str, imp: int) -> None:
        if self._targets_left == 0:
            self.flags |= Flag.TOKENS_OVERFLOW
            self._reader.note(Quirk.LIST_TRUNCATED)
            return
        self._targets_left -= 1
        self._token(dim, value, imp)

    def _token(self, dim: Dim, value: str, imp: int) -> None:
        off, length = self.slice(escape(value))
        self.tokens.append((token_hash(dim, value.encode()), off, length, dim, imp))


def key_values(reader: Reader, sheet: Sheet, ext: Object, imp: int = WHOLE) -> None:
    """KEY_VALUE tokens "key=value" of the members of `ext.data` that are scalars or lists of them.

    Numbers stand as they were written, booleans as "true" and "false"; deeper values have no token.
    """
    for key, value in reader.object(ext, "data").items():
        for item in value if isinstance(value, list) else [value]:
            text = _scalar(item)
            if text:
                sheet.target(Dim.KEY_VALUE, f"{key}={text}", imp)


def _scalar(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Number):
        return plain(value).strip(" \t\r\n")
    return str(value) if isinstance(value, str | int) else ""


def _packed(values: Row, dtype: np.dtype[np.void]) -> tuple[object, ...]:
    """Named values as a tuple in the order of a structured dtype; names that miss are 0."""
    unknown = values.keys() - set(dtype.names or ())
    if unknown:
        raise KeyError(f"no such fact: {sorted(unknown)}")
    return tuple(_field(values.get(name, 0), dtype[name]) for name in dtype.names or ())


def _field(value: Value, dtype: np.dtype[np.void]) -> object:
    if dtype.names:
        return _packed(value if isinstance(value, dict) else {}, dtype)
    if dtype.subdtype and isinstance(value, list):
        return (value + [0] * dtype.shape[0])[: dtype.shape[0]]
    return value
