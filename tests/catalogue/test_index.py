"""The index: together with the programs it says what the expressions say, in any layout."""

import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.base.hashing import cell_hash, cell_of
from rtb.base.records import Dim
from rtb.catalogue import snapshot
from rtb.catalogue.index import (
    EARTH_RADIUS_KM,
    Ordinal,
    Plan,
    Programs,
    build,
    cells_around,
    cluster,
    members_of,
    plan,
    slots,
)
from rtb.catalogue.targeting import (
    All,
    AnyOf,
    AtLeast,
    AtMost,
    Node,
    Not,
    Within,
    distance_km,
    matches,
)
from rtb.catalogue.tokens import hash_of
from rtb.decide.targeting import derive
from tests.catalogue.trees import one_of, tokens, trees

Arrays = dict[str, npt.NDArray[Any]]
Tokens = Mapping[Dim, Set[int]]
Place = tuple[float, float] | None

BERLIN, PARIS = (52.52, 13.405), (48.8566, 2.3522)
# Region shares a union with country, and none with audience.
DIMS = (Dim.COUNTRY, Dim.REGION, Dim.SIZE, Dim.AUDIENCE)


TREES = trees(
    DIMS,
    st.builds(AtLeast, st.just(Dim.OS_VERSION), st.sampled_from([12.0, 15.0])),
    st.builds(AtMost, st.just(Dim.VIEWABILITY), st.just(0.5)),
    st.just(Within(100.0, (BERLIN, PARIS))),
    parts_max=4,
    leaves_max=10,
)
TOKENS = tokens(DIMS)
NUMBERS = st.dictionaries(
    st.sampled_from([Dim.OS_VERSION, Dim.VIEWABILITY]), st.sampled_from([0.3, 14.0, 16.0])
)
PLACES = st.sampled_from([None, BERLIN, (0.0, 0.0)])


def indexed(trees: list[Node], order: list[int] | None = None) -> tuple[Arrays, list[int]]:
    """Arrays for expressions, and the layout: position -> index in `trees`."""
    plans = [plan(tree) for tree in trees]
    layout = cluster(plans, [1] * len(plans)) if order is None else np.array(order, dtype=np.int64)
    programs = Programs()
    ranges = [programs.add(plans[number].program) for number in layout.tolist()]
    arrays = build(plans, layout, [Ordinal(Dim.BADV, hash_of(Dim.BADV, "x.example"), 0)])
    arrays |= programs.arrays()
    arrays["line_items"] = np.zeros(len(plans), dtype=snapshot.LINE_ITEM)
    for position, (start, count) in enumerate(ranges):
        arrays["line_items"][position]["program_start"] = start
        arrays["line_items"][position]["program_count"] = count
    return arrays, layout.tolist()


def value_of(arrays: Arrays, token: int) -> np.void | None:
    """The row of a token, by the probe that the engine makes."""
    table = arrays["value_slots"]
    slot = token & (len(table) - 1)
    while (found := int(table[slot])) >= 0:
        if int(arrays["values"][found]["hash"]) == token:
            return arrays["values"][found]
        slot = (slot + 1) & (len(table) - 1)
    return None


def survivors(arrays: Arrays, tokens: Tokens, place: Place = None) -> set[int]:
    """Positions that the index lets pass: the rule in the docstring of `snapshot`, literally."""
    seen = {int(dim): list(hashes) for dim, hashes in tokens.items()}
    derive(seen, place)
    everyone = set(range(len(arrays["line_items"])))
    passing = set(everyone)
    for dim in arrays["dims"]:
        free = int(dim["free_row"])
        included = set(everyone) if free < 0 else set(members_of(arrays, free))
        excluded: set[int] = set()
        for token in seen.get(int(dim["dim"]), ()):
            value = value_of(arrays, token)
            if value is not None and value["include_row"] >= 0:
                included |= set(members_of(arrays, int(value["include_row"])))
            if value is not None and value["exclude_row"] >= 0:
                excluded |= set(members_of(arrays, int(value["exclude_row"])))
        passing &= included - excluded
    return passing


def runs(
    arrays: Arrays, position: int, tokens: Tokens, numbers: Mapping[Dim, float], place: Place
) -> bool:
    """The program of one line item, on a stack that stays within its limit."""
    start = int(arrays["line_items"][position]["program_start"])
    count = int(arrays["line_items"][position]["program_count"])
    stack: list[bool] = []
    for op, dim, first, size in arrays["programs"][start : start + count].tolist():
        operands = arrays["program_numbers"][first : first + size].tolist()
        if op == snapshot.OP_IN:
            hashes = arrays["program_hashes"][first : first + size].tolist()
            assert sorted(hashes) == hashes
            stack.append(not tokens.get(Dim(dim), set()).isdisjoint(hashes))
        elif op == snapshot.OP_NOT:
            stack.append(not stack.pop())
        elif op == snapshot.OP_CONST:
            stack.append(bool(size))
        elif op in (snapshot.OP_ALL, snapshot.OP_ANY):
            popped = [stack.pop() for _ in range(size)]
            stack.append(all(popped) if op == snapshot.OP_ALL else any(popped))
        elif op == snapshot.OP_WITHIN_KM:
            points = zip(operands[1::2], operands[2::2], strict=True)
            near = place and any(distance_km(*place, *point) <= operands[0] for point in points)
            stack.append(bool(near))
        else:
            number = numbers.get(Dim(dim))
            at_least = op == snapshot.OP_AT_LEAST
            stack.append(
                number is not None
                and (number >= operands[0] if at_least else number <= operands[0])
            )
        assert len(stack) <= snapshot.STACK_MAX
    return stack.pop() if stack else True


def eligible(
    trees: list[Node],
    tokens: Tokens,
    numbers: Mapping[Dim, float],
    place: Place,
    order: list[int] | None = None,
) -> set[int]:
    arrays, layout = indexed(trees, order)
    return {
        layout[position]
        for position in survivors(arrays, tokens, place)
        if runs(arrays, position, tokens, numbers, place)
    }


@settings(max_examples=300)
@given(st.lists(TREES, min_size=1, max_size=6), TOKENS, NUMBERS, PLACES)
def test_index_and_program_say_what_the_tree_says(
    trees: list[Node], tokens: Tokens, numbers: Mapping[Dim, float], place: Place
) -> None:
    """Exactly those line items are eligible whose expression holds."""
    expected = {n for n, tree in enumerate(trees) if matches(tree, tokens, numbers, place)}
    assert expected == eligible(trees, tokens, numbers, place)


@given(st.lists(TREES, min_size=2, max_size=6), TOKENS, st.randoms(use_true_random=False))
def test_layout_changes_no_answer(trees: list[Node], tokens: Tokens, chance: Any) -> None:
    """Clustering moves line items, never eligibility."""
    shuffled = list(range(len(trees)))
    chance.shuffle(shuffled)
    expected = eligible(trees, tokens, {}, None)
    assert expected == eligible(trees, tokens, {}, None, shuffled)


@given(TREES, TOKENS, NUMBERS, PLACES)
def test_index_alone_never_drops_an_eligible_line_item(
    tree: Node, tokens: Tokens, numbers: Mapping[Dim, float], place: Place
) -> None:
    """What the index holds is necessary."""
    arrays, _ = indexed([tree])
    if matches(tree, tokens, numbers, place):
        assert {0} == survivors(arrays, tokens, place)


def test_conjunction_of_leaves_needs_no_program() -> None:
    """What the index says exactly is not said twice."""
    tree = All((one_of(Dim.COUNTRY, "usa"), Not(one_of(Dim.SIZE, "1x1")), one_of(Dim.OS, "ios")))
    assert plan(tree).program is None


def test_second_leaf_of_a_dimension_goes_to_the_program() -> None:
    """A request may have both segments, so "a and b" is no set of values."""
    both = All((one_of(Dim.AUDIENCE, "a", "c"), one_of(Dim.AUDIENCE, "b")))
    expected = Plan({Dim.AUDIENCE: one_of(Dim.AUDIENCE, "b").hashes}, {}, both.children[0])
    assert expected == plan(both)


def test_alternatives_imply_what_they_share() -> None:
    """Either country will do, and neither branch may meet the excluded size."""
    bad = Not(one_of(Dim.SIZE, "1x1"))
    tree = AnyOf(
        (
            All((one_of(Dim.COUNTRY, "usa"), bad)),
            All((one_of(Dim.COUNTRY, "can"), bad, one_of(Dim.OS, "ios"))),
        )
    )
    result = plan(tree)
    assert result.includes == {Dim.COUNTRY: one_of(Dim.COUNTRY, "usa", "can").hashes}
    assert result.excludes == {Dim.SIZE: bad.child.hashes}  # type: ignore[union-attr]
    assert result.program is not None


NEEDS = [
    # known, needed besides, held by the index
    (None, "ab", "ab"),
    ("abc", "ab", "ab"),
    ("a", "ab", "a"),
    ("ac", "ab", "ac"),
]


def test_needs_sharpen_the_index_only_where_that_is_sound() -> None:
    """Overlapping sets are not intersected: a request may meet each in another value."""
    for known, needed, expected in NEEDS:
        result = Plan()
        if known is not None:
            result.includes[Dim.MEDIA] = one_of(Dim.MEDIA, *known).hashes
        result.need(Dim.MEDIA, one_of(Dim.MEDIA, *needed).hashes)
        assert one_of(Dim.MEDIA, *expected).hashes == result.includes[Dim.MEDIA]


def test_short_rows_are_lists_and_long_ones_bitsets() -> None:
    """Both forms hold the same members, and summaries have a bit for every block that is used."""
    trees: list[Node] = [one_of(Dim.COUNTRY, "usa") for _ in range(2000)]
    trees[1500] = one_of(Dim.COUNTRY, "fra")
    arrays, layout = indexed(trees)
    usa = value_of(arrays, hash_of(Dim.COUNTRY, "usa"))
    france = value_of(arrays, hash_of(Dim.COUNTRY, "fra"))
    assert usa is not None
    assert france is not None
    rows = arrays["rows"]
    assert (rows[usa["include_row"]]["sparse"], rows[france["include_row"]]["sparse"]) == (0, 1)
    assert {1500} == {layout[n] for n in members_of(arrays, int(france["include_row"]))}
    assert list(members_of(arrays, int(usa["include_row"]))) == list(range(1999))
    summary = arrays["summaries"][rows[usa["include_row"]]["summary"]]
    assert int(summary) == 0b1111


def test_cluster_puts_equal_targeting_side_by_side() -> None:
    """Line items of one country are neighbours, dear ones first."""
    trees = [one_of(Dim.COUNTRY, country) for country in ("usa", "fra", "usa", "fra", "usa")]
    layout = cluster([plan(tree) for tree in trees], [1, 1, 3, 2, 2]).tolist()
    assert layout == [2, 4, 0, 3, 1]


def test_selective_dimensions_come_first() -> None:
    """The engine ANDs first what leaves least."""
    trees: list[Node] = [
        All((one_of(Dim.COUNTRY, f"c{n % 20}"), one_of(Dim.OS, "ios"))) for n in range(100)
    ]
    arrays, _ = indexed(trees)
    assert arrays["dims"]["dim"].tolist() == [Dim.COUNTRY, Dim.OS]


@given(st.sets(st.integers(1, 2**64 - 1), max_size=200), st.sets(st.integers(1, 2**64 - 1)))
def test_every_value_is_found_and_no_other(present: set[int], absent: set[int]) -> None:
    """The hash table is a dictionary."""
    hashes = np.array(sorted(present), dtype=np.uint64)
    values = np.zeros(len(hashes), dtype=snapshot.VALUE)
    values["hash"] = hashes
    arrays = {"values": values, "value_slots": slots(hashes)}
    for token in present | absent:
        assert (token in present) == (value_of(arrays, token) is not None)


def test_values_that_crowd_one_slot_are_all_found() -> None:
    """Probing survives collisions, and wraps around the end."""
    hashes = np.array([7 + 16 * n for n in range(6)] + [15, 31], dtype=np.uint64)
    values = np.zeros(len(hashes), dtype=snapshot.VALUE)
    values["hash"] = hashes
    arrays = {"values": values, "value_slots": slots(hashes)}
    found = [value_of(arrays, int(token)) for token in hashes]
    assert hashes.tolist() == [int(value["hash"]) for value in found if value is not None]


def test_empty_catalogue_has_an_index() -> None:
    """A snapshot of nothing can be served."""
    arrays = build([], np.empty(0, dtype=np.int64), [])
    assert (len(arrays["dims"]), len(arrays["values"])) == (0, 0)


@given(
    st.floats(-89.9, 89.9),
    st.floats(-180, 180),
    st.floats(0.1, 400),
    st.floats(0, 2 * math.pi),
    st.floats(0, 1),
)
def test_cells_cover_their_circle(
    lat: float, lon: float, km: float, bearing: float, share: float
) -> None:
    """Every place within the radius lies in one of the cells, at poles and date line too."""
    cells = cells_around(Within(km, ((lat, lon),)))
    angle, phi = km * share / EARTH_RADIUS_KM, math.radians(lat)
    there = math.asin(
        math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(bearing)
    )
    east = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(phi),
        math.cos(angle) - math.sin(phi) * math.sin(there),
    )
    place = math.degrees(there), (lon + math.degrees(east) + 540) % 360 - 180

    assert cells is None or cell_hash(*cell_of(*place)) in cells
