"""The index: targeting as bitsets, and as a program for what bitsets cannot say.

A plan says, for one line item and each dimension, which values it needs and which it must not meet.
Everything in a plan is a necessary condition; together with the program it is also sufficient. Of
the conjuncts of an expression

    a leaf                     is indexed exactly, one a dimension; a second one is necessary too,
                               but "meets A and meets B" is no set of values, so the program has it
    a negated leaf             is indexed exactly
    leaves joined by "any"     are indexed exactly where their dimensions have a union
                               (`records.UNIONS`), one a union
    anything else              goes to the program, and what it implies is indexed besides; a
                               distance implies one of the grid cells around its points

No row allocates by value: members come as (row, line item) pairs and numpy does the rest.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtb.base.hashing import CELLS_PER_DEGREE, cell_hash, cell_of, union_hash
from rtb.base.records import PER_IMP_DIMS, UNIONS, Dim
from rtb.catalogue import snapshot
from rtb.catalogue.targeting import (
    EARTH_RADIUS_KM,
    All,
    AnyOf,
    AtLeast,
    AtMost,
    In,
    Node,
    Not,
    Within,
    simplify,
)

Values = frozenset[int]
Ints = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

# A list is walked a member at a time, a bitset eight words at a time; a dense row costs at most
# this many words a member, which bounds the file.
SPARSE_WORDS: Final = 8
# A distance that reaches further is left to the program alone.
CELLS_MAX: Final = 4096
CELL_MARGIN: Final = 1.0001

# Line items are laid out by these first: a request has one country and one kind of place, so that
# whole blocks of line items fall at once.
CLUSTER: Final = (Dim.COUNTRY, Dim.MEDIA)
# Those that are alike so far are laid out by value, in so many tiers, since the engine looks into
# the most valuable blocks first and seldom needs the rest. No tier is smaller than a block.
TIERS: Final = 8
# Within a tier by these, in this order. What has many values a request comes last.
CLUSTER_TIER: Final = (
    Dim.SIZE, Dim.REGION, Dim.DEVICE_TYPE, Dim.CITY, Dim.GEO_CELL, Dim.EXCHANGE, Dim.CHANNEL,
    Dim.OS, Dim.PUBLISHER, Dim.DOMAIN, Dim.BUNDLE, Dim.AUDIENCE,
)  # fmt: skip


# -- plans ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Plan:
    """What the index holds of one expression, and the rest of it for the program."""

    includes: dict[Dim, Values] = field(default_factory=dict)
    excludes: dict[Dim, Values] = field(default_factory=dict)
    program: Node | None = None

    def need(self, dim: Dim, values: Values) -> None:
        """Adds a condition that is checked elsewhere too: it may sharpen the index, or not.

        Exact: where the new values contain the old, the old say more; where the old contain the
        new, the new imply the old; else either one alone would do, and the old stay.
        """
        known = self.includes.get(dim)
        if known is None or values <= known:
            self.includes[dim] = values


def plan(expression: Node) -> Plan:
    """The plan of an expression (see the top of the file)."""
    root = simplify(expression)
    result = Plan()
    exact: dict[Dim, list[In]] = {}
    rest: list[Node] = []
    for conjunct in root.children if isinstance(root, All) else (root,):
        if isinstance(conjunct, In):
            exact.setdefault(conjunct.dim, []).append(conjunct)
        elif isinstance(conjunct, Not) and isinstance(conjunct.child, In):
            result.excludes[conjunct.child.dim] = conjunct.child.hashes
        elif not _is_union(conjunct, result):
            rest.append(conjunct)
    for dim, leaves in exact.items():
        leaves.sort(key=lambda leaf: (len(leaf.hashes), sorted(leaf.hashes)))
        result.includes[dim] = leaves[0].hashes
        rest += leaves[1:]
    for conjunct in rest:
        needed, refused = implied(conjunct)
        for dim, values in needed.items():
            if dim not in exact:
                known = result.includes.get(dim)
                if known is None or len(values) < len(known):
                    result.includes[dim] = values
        for dim, values in refused.items():
            result.excludes[dim] = result.excludes.get(dim, frozenset()) | values
    if rest:
        result.program = rest[0] if len(rest) == 1 else All(tuple(rest))
    return result


def _is_union(node: Node, result: Plan) -> bool:
    """Indexes an alternative between leaves as one value of a union, where that says all of it."""
    if not isinstance(node, AnyOf):
        return False
    leaves = [child for child in node.children if isinstance(child, In)]
    unions = {UNIONS.get(leaf.dim) for leaf in leaves}
    union = unions.pop() if len(unions) == 1 else None
    if union is None or len(leaves) < len(node.children) or union in result.includes:
        return False
    result.includes[union] = frozenset(
        union_hash(union, value) for leaf in leaves for value in leaf.hashes
    )
    return True


def cells_around(area: Within) -> Values | None:
    """Tokens of all grid cells that a place within the area can lie in; None when too many."""
    found: set[int] = set()
    for lat, lon in area.points:
        # A little more than the radius, so that rounding never loses a place at the rim.
        angle = area.km * CELL_MARGIN / EARTH_RADIUS_KM
        low, high = lat - math.degrees(angle), lat + math.degrees(angle)
        rim = math.sin(min(angle, math.pi / 2)) / max(math.cos(math.radians(lat)), 1e-9)
        around = rim >= 1 or low <= -90 or high >= 90
        wide = 180.0 if around else math.degrees(math.asin(rim)) * CELL_MARGIN
        first, _ = cell_of(max(low, -90.0), 0)
        last, _ = cell_of(min(high, 90.0), 0)
        west = math.floor((lon - wide) * CELLS_PER_DEGREE)
        east = math.floor((lon + wide) * CELLS_PER_DEGREE)
        if (last - first + 1) * (east - west + 1) > CELLS_MAX:
            return None
        for row in range(first, last + 1):
            for column in range(west, east + 1):
                found.add(cell_hash(row, column % (360 * CELLS_PER_DEGREE)))
        if len(found) > CELLS_MAX:
            return None
    return frozenset(found)


def implied(node: Node) -> tuple[dict[Dim, Values], dict[Dim, Values]]:
    """Necessary conditions of a simplified expression: values of which a request must have one,
    and values of which it must have none."""
    match node:
        case In(dim, hashes):
            return {dim: hashes}, {}
        case Not(In(dim, hashes)):
            return {}, {dim: hashes}
        case Within():
            cells = cells_around(node)
            return ({}, {}) if cells is None else ({Dim.GEO_CELL: cells}, {})
        case All(children):
            return _implied_by_all([implied(child) for child in children])
        case AnyOf(children) if children:
            return _implied_by_any([implied(child) for child in children])
        case _:
            return {}, {}


_Implied = tuple[dict[Dim, Values], dict[Dim, Values]]


def _implied_by_all(parts: Sequence[_Implied]) -> _Implied:
    needed: dict[Dim, Values] = {}
    refused: dict[Dim, Values] = {}
    for includes, excludes in parts:
        for dim, values in includes.items():
            if dim not in needed or len(values) < len(needed[dim]):
                needed[dim] = values
        for dim, values in excludes.items():
            refused[dim] = refused.get(dim, frozenset()) | values
    return needed, refused


def _implied_by_any(parts: Sequence[_Implied]) -> _Implied:
    needed = dict(parts[0][0])
    refused = dict(parts[0][1])
    for includes, excludes in parts[1:]:
        needed = {dim: values | includes[dim] for dim, values in needed.items() if dim in includes}
        refused = {
            dim: values & excludes[dim] for dim, values in refused.items() if dim in excludes
        }
    return needed, {dim: values for dim, values in refused.items() if values}


# -- programs -------------------------------------------------------------------------------------


class Programs:
    """Postfix programs of all line items; equal ones are stored once."""

    def __init__(self) -> None:
        self._ops: list[tuple[int, int, int, int]] = []
        self._hashes: list[int] = []
        self._numbers: list[float] = []
        self._ranges: dict[Node, tuple[int, int]] = {}
        self._hash_starts: dict[Values, int] = {}

    def add(self, node: Node | None) -> tuple[int, int]:
        """Start and count of the program of an expression; (0, 0) when there is none to run."""
        if node is None:
            return 0, 0
        if node not in self._ranges:
            start = len(self._ops)
            self._emit(node)
            self._ranges[node] = start, len(self._ops) - start
        return self._ranges[node]

    def arrays(self) -> Arrays:
        """The arrays `programs`, `program_hashes`, `program_numbers`."""
        return {
            "programs": snapshot.table_of(self._ops, snapshot.OP),
            "program_hashes": np.array(self._hashes, dtype=np.uint64),
            "program_numbers": np.array(self._numbers, dtype=np.float64),
        }

    def _emit(self, node: Node) -> None:
        match node:
            case In(dim, hashes):
                start = self._hash_starts.setdefault(hashes, len(self._hashes))
                if start == len(self._hashes):
                    self._hashes += sorted(hashes)
                self._ops.append((snapshot.OP_IN, dim, start, len(hashes)))
            case AtLeast(dim, value):
                self._number(snapshot.OP_AT_LEAST, dim, (value,))
            case AtMost(dim, value):
                self._number(snapshot.OP_AT_MOST, dim, (value,))
            case Within(km, points):
                flat = (km, *(number for point in points for number in point))
                self._number(snapshot.OP_WITHIN_KM, Dim.DISTANCE, flat)
            case Not(child):
                self._emit(child)
                self._ops.append((snapshot.OP_NOT, 0, 0, 1))
            case All(children):
                self._fold(snapshot.OP_ALL, children, empty=1)
            case AnyOf(children):
                self._fold(snapshot.OP_ANY, children, empty=0)

    def _number(self, op: int, dim: Dim, numbers: Sequence[float]) -> None:
        self._ops.append((op, dim, len(self._numbers), len(numbers)))
        self._numbers += numbers

    def _fold(self, op: int, children: Sequence[Node], empty: int) -> None:
        """Two by two, so that the stack stays as deep as the tree, not as wide."""
        if not children:
            self._ops.append((snapshot.OP_CONST, 0, 0, empty))
            return
        self._emit(children[0])
        for child in children[1:]:
            self._emit(child)
            self._ops.append((op, 0, 0, 2))


# -- order ----------------------------------------------------------------------------------------


def cluster(plans: Sequence[Plan], values_cpm: Sequence[int]) -> Ints:
    """The layout of line items: position -> input index, alike ones side by side.

    Within equal targeting the most valuable come first. Stable, so that equal catalogues in equal
    order give equal snapshots.
    """
    falling = -np.asarray(values_cpm, dtype=np.int64)
    groups = [_ranks([each.includes.get(dim) for each in plans]) for dim in reversed(CLUSTER)]
    order = np.lexsort([falling, *groups])
    keys = [falling]
    for dim in reversed(CLUSTER_TIER):
        keys.append(_ranks([each.includes.get(dim) for each in plans]))
    return np.lexsort([*keys, _tiers(order, groups), *groups]).astype(np.int64)


def _tiers(order: Ints, groups: Sequence[Ints]) -> Ints:
    """The tier of each line item within its group, by an order that has groups in one piece."""
    tiers = np.zeros(len(order), dtype=np.int64)
    if not len(order):
        return tiers
    ordered = np.stack([each[order] for each in groups])
    starts = np.flatnonzero(np.r_[True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)])
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        size = max(-(-int(end - start) // TIERS), snapshot.BLOCK_WORDS * 64)
        tiers[order[start:end]] = np.arange(end - start) // size
    return tiers


def _ranks(signatures: Sequence[Values | None]) -> Ints:
    """A number for each signature, the most frequent first, those that do not care last."""
    counts = Counter(each for each in signatures if each is not None)
    ordered = sorted(counts, key=lambda each: (-counts[each], min(each, default=0), len(each)))
    rank: dict[Values | None, int] = {each: number for number, each in enumerate(ordered)}
    rank[None] = len(rank)
    return np.array([rank[each] for each in signatures], dtype=np.int64)


# -- bitsets --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ordinal:
    """A value with a number in its dimension, for block lists and deals."""

    dim: Dim
    hash: int
    ordinal: int


def build(plans: Sequence[Plan], order: Ints, ordinals: Sequence[Ordinal]) -> Arrays:
    """The arrays `dims values value_slots rows words summaries members` for line items that are
    laid out in `order`."""
    positions = np.empty(len(order), dtype=np.int64)
    positions[order] = np.arange(len(order))
    includes = _Pairs("includes", plans, positions)
    excludes = _Pairs("excludes", plans, positions)
    rows = _Rows(len(plans))
    include_rows = rows.add(includes.values, includes.line_items, len(includes.keys))
    exclude_rows = rows.add(excludes.values, excludes.line_items, len(excludes.keys))
    dims = _dims(includes, excludes, rows, len(plans))
    values = _values(includes, excludes, include_rows, exclude_rows, ordinals)
    return {"dims": dims, "values": values, "value_slots": slots(values["hash"]), **rows.arrays()}


class _Pairs:
    """(value, line item) pairs of all plans; values by number, `keys` says dimension and hash."""

    def __init__(self, side: str, plans: Sequence[Plan], positions: Ints) -> None:
        self.keys: dict[tuple[Dim, int], int] = {}
        # Positions of the line items that say something about a dimension.
        self.carers: dict[Dim, list[int]] = {}
        known: dict[tuple[Dim, Values], Ints] = {}
        parts: list[Ints] = []
        owners: list[int] = []
        for position, each in zip(positions.tolist(), plans, strict=True):
            by_dim: Mapping[Dim, Values] = getattr(each, side)
            for dim, hashes in by_dim.items():
                self.carers.setdefault(dim, []).append(position)
                numbers = known.get((dim, hashes))
                if numbers is None:
                    numbers = known[dim, hashes] = self._numbers(dim, hashes)
                parts.append(numbers)
                owners.append(position)
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        empty = np.empty(0, dtype=np.int64)
        self.values = np.concatenate(parts) if parts else empty
        self.line_items = np.repeat(np.array(owners, dtype=np.int64), lengths)

    def _numbers(self, dim: Dim, hashes: Values) -> Ints:
        keys = self.keys
        # A set has no order of its own, and the same catalogue must give the same bytes.
        ordered = sorted(hashes)
        return np.array([keys.setdefault((dim, h), len(keys)) for h in ordered], dtype=np.int64)

    def counts(self) -> dict[Dim, Ints]:
        """Line items of each value, by dimension."""
        of_value = np.bincount(self.values, minlength=len(self.keys))
        numbers: dict[Dim, list[int]] = {}
        for (dim, _), number in self.keys.items():
            numbers.setdefault(dim, []).append(number)
        return {dim: of_value[np.array(each)] for dim, each in numbers.items()}


class _Rows:
    """Collects sets of line items and stores each as a bitset or a list, with its summary."""

    def __init__(self, line_items_count: int) -> None:
        self._count = line_items_count
        self._rows: list[Ints] = []
        self._members: list[Ints] = []
        self._rows_count = 0

    def add(self, rows: Ints, members: Ints, rows_count: int) -> int:
        """Adds `rows_count` rows by (row, member) pairs; the number of the first."""
        first = self._rows_count
        self._rows.append(rows + first)
        self._members.append(members)
        self._rows_count += rows_count
        return first

    def arrays(self) -> Arrays:
        """The arrays `rows words summaries members`. A list is chosen where a bitset has at least
        as many words as the list has members: it is then smaller, and shorter to walk."""
        pairs = np.concatenate(self._rows) * max(self._count, 1) + np.concatenate(self._members)
        pairs = np.unique(pairs)
        row, member = np.divmod(pairs, max(self._count, 1))
        counts = np.bincount(row, minlength=self._rows_count).astype(np.int64)
        words_count = snapshot.words_count(self._count)
        sparse = counts * SPARSE_WORDS <= words_count
        dense = (~sparse).astype(np.int64)
        table = np.zeros(self._rows_count, dtype=snapshot.ROW)
        table["count"] = counts
        table["sparse"] = sparse
        list_starts = _starts(np.where(sparse, counts, 0))
        word_starts = _starts(dense * words_count)
        table["start"] = np.where(sparse, list_starts, word_starts)
        listed = sparse[row]
        words = np.zeros(int(dense.sum()) * words_count, dtype=np.uint64)
        dense_row, dense_member = row[~listed], member[~listed]
        _set_bits(words, word_starts[dense_row] * 64 + dense_member)
        summary_words = snapshot.summary_words_count(self._count)
        table["summary"] = np.arange(self._rows_count) * summary_words
        summaries = np.zeros(self._rows_count * summary_words, dtype=np.uint64)
        _set_bits(summaries, row * summary_words * 64 + member // (64 * snapshot.BLOCK_WORDS))
        return {
            "rows": table,
            "words": words,
            "summaries": summaries,
            "members": member[listed].astype(np.uint32),
        }


def _starts(counts: Ints) -> Ints:
    """Where each of consecutive ranges begins."""
    return np.cumsum(counts, dtype=np.int64) - counts


def _set_bits(words: npt.NDArray[np.uint64], bits: Ints) -> None:
    one = np.uint64(1)
    np.bitwise_or.at(words, bits >> 6, one << (bits & 63).astype(np.uint64))


def _dims(
    includes: _Pairs, excludes: _Pairs, rows: _Rows, line_items_count: int
) -> npt.NDArray[Any]:
    """One row a dimension that any line item speaks of, the most selective first."""
    counts = includes.counts()
    dims = sorted(includes.carers.keys() | excludes.carers.keys())
    dims.sort(key=lambda dim: _survivors(counts.get(dim), includes, dim, line_items_count))
    table = np.zeros(len(dims), dtype=snapshot.DIM)
    everyone = np.arange(line_items_count, dtype=np.int64)
    for index, dim in enumerate(dims):
        free_row = -1
        if dim in includes.carers:
            cares = np.zeros(line_items_count, dtype=bool)
            cares[includes.carers[dim]] = True
            free = everyone[~cares]
            free_row = rows.add(np.zeros(len(free), dtype=np.int64), free, 1)
        table[index] = (dim, free_row, dim in excludes.carers, dim in PER_IMP_DIMS)
    return table


def _survivors(counts: Ints | None, includes: _Pairs, dim: Dim, line_items_count: int) -> float:
    """The share of line items that one request's value leaves, if requests ask for values as often
    as line items do. Exclusions alone leave nearly all."""
    if counts is None or not counts.sum():
        return 1.0
    free = line_items_count - len(includes.carers[dim])
    return float(free + (counts * counts).sum() / counts.sum()) / line_items_count


def _values(
    includes: _Pairs,
    excludes: _Pairs,
    include_rows: int,
    exclude_rows: int,
    ordinals: Sequence[Ordinal],
) -> npt.NDArray[Any]:
    """One row a value that is targeted or has an ordinal, ordered by dimension and hash."""
    found: dict[tuple[Dim, int], list[int]] = {}
    for pairs, column, first in ((includes, 0, include_rows), (excludes, 1, exclude_rows)):
        for key, number in pairs.keys.items():
            found.setdefault(key, [-1, -1, -1])[column] = first + number
    for each in ordinals:
        found.setdefault((each.dim, each.hash), [-1, -1, -1])[2] = each.ordinal
    rows = [(value, dim, *found[dim, value]) for dim, value in sorted(found)]
    table = snapshot.table_of(rows, snapshot.VALUE)
    if len(np.unique(table["hash"])) != len(table):
        raise ValueError("two values share a token hash; rename one of them")
    return table


def slots(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """An open-addressing table over hashes: at least half of it stays empty, so a probe ends.

    Vectorised insertion: in each round every homeless value tries its slot, one of each slot's
    applicants gets it, the others move on by one. No slot is ever freed, so a probe for any value
    meets only taken slots before its own.
    """
    size = 2
    while size < 2 * max(len(hashes), 1):
        size *= 2
    table = np.full(size, -1, dtype=np.int32)
    waiting = np.arange(len(hashes), dtype=np.int64)
    wanted = (hashes & np.uint64(size - 1)).astype(np.int64)
    while len(waiting):
        free = np.flatnonzero(table[wanted] < 0)
        _, first = np.unique(wanted[free], return_index=True)
        winners = free[first]
        table[wanted[winners]] = waiting[winners]
        left = np.ones(len(waiting), dtype=bool)
        left[winners] = False
        waiting, wanted = waiting[left], (wanted[left] + 1) & (size - 1)
    return table


def members_of(arrays: Mapping[str, npt.NDArray[Any]], row: int) -> Iterator[int]:
    """The line items of a row, in order: for tests, explain and checks, not for bids."""
    entry = arrays["rows"][row]
    start, count = int(entry["start"]), int(entry["count"])
    if entry["sparse"]:
        yield from arrays["members"][start : start + count].tolist()
        return
    words = arrays["words"][start : start + snapshot.words_count(len(arrays["line_items"]))]
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    yield from np.flatnonzero(bits).tolist()
