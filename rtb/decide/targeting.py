"""Which line items fit: the snapshot's index, then the expressions that it cannot hold.

Readable twin of `ext/engine/tokens.pxi`, `index.pxi` and `expressions.pxi`. A set of line items is
one Python integer, bit i for line item i.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Final

import numpy as np

from rtb.base.hashing import cell_hash, cell_of, token_hash, union_hash
from rtb.base.records import (
    PER_IMP_DIMS,
    PERSONAL_DIMS,
    UNIONS,
    Dim,
    Flag,
    ImpFlag,
    as_values,
)
from rtb.catalogue import snapshot as snap
from rtb.catalogue.snapshot import Snapshot
from rtb.catalogue.targeting import distance_km

Tokens = Mapping[int, list[int]]  # dim -> hashes

HOURS_OF_WEEK: Final = tuple(
    token_hash(Dim.HOUR_OF_WEEK, str(hour).encode()) for hour in range(168)
)
MS_PER_HOUR: Final = 3_600_000
# 1970-01-01 was a Thursday: 72 hours after a Monday 00:00.
EPOCH_HOUR_OF_WEEK: Final = 72


class Index:
    """Look-ups over a snapshot, for the readable engine."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.line_items_count = len(snapshot["line_items"])
        self.everyone = (1 << self.line_items_count) - 1
        self.dims = [as_values(row) for row in snapshot["dims"]]
        self._rows: dict[int, int] = {}

    def value(self, token: int) -> SimpleNamespace | None:
        """The `VALUE` of a token, or None when no line item mentions it."""
        slots, values = self.snapshot["value_slots"], self.snapshot["values"]
        mask = len(slots) - 1
        slot = token & mask
        while (found := int(slots[slot])) >= 0:
            if int(values[found]["hash"]) == token:
                return as_values(values[found])
            slot = slot + 1 & mask
        return None

    def row(self, number: int) -> int:
        """A row as a set of line items."""
        if number < 0:
            return 0
        if number not in self._rows:
            self._rows[number] = self._read_row(as_values(self.snapshot["rows"][number]))
        return self._rows[number]

    def _read_row(self, row: SimpleNamespace) -> int:
        if row.sparse:
            members = self.snapshot["members"][row.start : row.start + row.count]
            return sum(1 << int(member) for member in members)
        words = snap.words_count(self.line_items_count)
        dense = self.snapshot["words"][row.start : row.start + words]
        return int.from_bytes(dense.astype("<u8").tobytes(), "little")


def hour_of_week(now_ms: int, utcoffset_min: int) -> int:
    """0..167 on a clock that is `utcoffset_min` ahead of UTC; Monday 00:00 is 0."""
    hours = (now_ms + utcoffset_min * 60_000) // MS_PER_HOUR
    return (hours + EPOCH_HOUR_OF_WEEK) % 168


def utcoffset_min(head: SimpleNamespace, tokens: Tokens, terms: SimpleNamespace) -> int:
    """The user's clock: said by the request, else that of the region, of the country, or UTC."""
    if head.flags & Flag.HAS_UTCOFFSET:
        return int(head.utcoffset_min)
    zones = {int(zone["hash"]): int(zone["utcoffset_min"]) for zone in terms.zones}
    for dim in (Dim.REGION, Dim.COUNTRY):
        for token in tokens.get(dim, ()):
            if token in zones:
                return zones[token]
    return 0


def tokens_of(
    facts: SimpleNamespace,
    tokens: np.ndarray,
    terms: SimpleNamespace,
    segments: Iterable[int],
    now_ms: int,
) -> dict[int, list[int]]:
    """The request's own tokens by dimension, those of exchange, person and clock included."""
    found: dict[int, list[int]] = {Dim.EXCHANGE: [terms.exchange]}
    for token in tokens:
        dim = int(token["dim"])
        if token["imp"] >= 0 or dim > 63:
            continue
        if facts.privacy and dim in PERSONAL_DIMS:
            continue
        found.setdefault(dim, []).append(int(token["hash"]))
    found[Dim.AUDIENCE] = list(segments)
    hour = hour_of_week(now_ms, utcoffset_min(facts, found, terms))
    found[Dim.HOUR_OF_WEEK] = [HOURS_OF_WEEK[hour]]
    has_place = facts.flags & Flag.HAS_GEO and not facts.privacy
    derive(found, (facts.lat, facts.lon) if has_place else None)
    return found


def derive(tokens: dict[int, list[int]], place: tuple[float, float] | None) -> None:
    """Adds the tokens that only the index knows: the grid cell, and values of unions."""
    if place is not None:
        tokens[Dim.GEO_CELL] = [cell_hash(*cell_of(*place))]
    for dim, union in UNIONS.items():
        found = [union_hash(union, token) for token in tokens.get(dim, ())]
        tokens.setdefault(union, []).extend(found)


def imp_tokens_of(tokens: np.ndarray, imp: int) -> dict[int, list[int]]:
    """The tokens that belong to one impression alone."""
    found: dict[int, list[int]] = {}
    for token in tokens[tokens["imp"] == imp]:
        if token["dim"] <= 63:
            found.setdefault(int(token["dim"]), []).append(int(token["hash"]))
    return found


def dim_set(index: Index, dim: SimpleNamespace, hashes: Iterable[int]) -> int:
    """The line items that one dimension lets pass."""
    passing = index.everyone if dim.free_row < 0 else index.row(dim.free_row)
    excluded = 0
    for token in hashes:
        value = index.value(token)
        if value is not None:
            passing |= index.row(value.include_row)
            excluded |= index.row(value.exclude_row)
    return passing & ~excluded


def dim_sets(index: Index, request: Tokens, imp: Tokens) -> Iterator[tuple[int, int]]:
    """(dimension, line items that pass) in the order in which rules are applied.

    The request's dimensions come first: their AND is shared by all impressions.
    """
    for dim in index.dims:
        if dim.dim not in PER_IMP_DIMS:
            yield dim.dim, dim_set(index, dim, request.get(dim.dim, ()))
    for dim in index.dims:
        if dim.dim in PER_IMP_DIMS:
            both = [*request.get(dim.dim, ()), *imp.get(dim.dim, ())]
            yield dim.dim, dim_set(index, dim, both)


def eligible(index: Index, request: Tokens, imp: Tokens) -> int:
    """The line items that no dimension of the index drops."""
    passing = index.everyone
    for _dim, allowed in dim_sets(index, request, imp):
        passing &= allowed
    return passing


def members(line_items: int) -> Iterator[int]:
    """The members of a set, ascending."""
    while line_items:
        lowest = line_items & -line_items
        yield lowest.bit_length() - 1
        line_items ^= lowest


def number_of(dim: int, head: SimpleNamespace, imp: SimpleNamespace) -> float | None:
    """The value of a numeric dimension, None when the request does not say."""
    if dim == Dim.OS_VERSION:
        return float(head.os_version) if head.os_version > 0 else None
    if dim == Dim.VIEWABILITY:
        return float(imp.viewability) if imp.flags & ImpFlag.HAS_VIEWABILITY else None
    return None


def fits(
    index: Index,
    line_item: SimpleNamespace,
    head: SimpleNamespace,
    imp: SimpleNamespace,
    request: Tokens,
    of_imp: Tokens,
) -> bool:
    """Runs the line item's expression on one impression. An unknown number fits no comparison."""
    stack: list[bool] = []
    start = line_item.program_start
    for raw in index.snapshot["programs"][start : start + line_item.program_count]:
        op = as_values(raw)
        if op.op == snap.OP_IN:
            wanted = index.snapshot["program_hashes"][op.start : op.start + op.count].tolist()
            seen = [*request.get(op.dim, ()), *of_imp.get(op.dim, ())]
            stack.append(any(token in wanted for token in seen))
        elif op.op in (snap.OP_ALL, snap.OP_ANY):
            operands = stack[len(stack) - op.count :]
            del stack[len(stack) - op.count :]
            stack.append(all(operands) if op.op == snap.OP_ALL else any(operands))
        elif op.op == snap.OP_NOT:
            stack.append(not stack.pop())
        elif op.op == snap.OP_CONST:
            stack.append(bool(op.count))
        else:
            params = index.snapshot["program_numbers"][op.start : op.start + op.count].tolist()
            stack.append(_compare(op, params, head, imp))
    return stack[-1] if stack else True


def _compare(
    op: SimpleNamespace, params: list[float], head: SimpleNamespace, imp: SimpleNamespace
) -> bool:
    if op.op == snap.OP_WITHIN_KM:
        if not head.flags & Flag.HAS_GEO or head.privacy:
            return False
        points = zip(params[1::2], params[2::2], strict=True)
        return any(distance_km(head.lat, head.lon, lat, lon) <= params[0] for lat, lon in points)
    number = number_of(op.dim, head, imp)
    if number is None:
        return False
    return number >= params[0] if op.op == snap.OP_AT_LEAST else number <= params[0]
