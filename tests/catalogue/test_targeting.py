"""Targeting expressions: reading them, their errors, and that simplifying changes no answer."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.records import Dim
from rtb.catalogue.targeting import (
    EVERYTHING,
    All,
    AnyOf,
    AtLeast,
    AtMost,
    Node,
    Not,
    Within,
    distance_km,
    matches,
    simplify,
)
from rtb.catalogue.targeting_parse import TargetingError, audiences, parse
from tests.catalogue.trees import one_of, tokens, trees

LEAVES = [
    ({"key": "country", "in": ["USA", "can"]}, one_of(Dim.COUNTRY, "usa", "can")),
    ({"key": "country", "is": "USA"}, one_of(Dim.COUNTRY, "usa")),
    ({"key": "region", "in": ["USA-CA"]}, one_of(Dim.REGION, "usa-ca")),
    ({"key": "size", "in": ["300 x 250"]}, one_of(Dim.SIZE, "300x250")),
    ({"key": "category", "in": ["IAB1-2"]}, one_of(Dim.PAGE_CATEGORY, "1:IAB1-2")),
    ({"key": "category", "in": ["6:123"]}, one_of(Dim.PAGE_CATEGORY, "6:123")),
    ({"key": "domain", "is": "https://*.News.Example:443/x"}, one_of(Dim.DOMAIN, "news.example")),
    ({"key": "device_type", "in": ["phone", 5]}, one_of(Dim.DEVICE_TYPE, "4", "5")),
    ({"key": "connection", "is": "wifi"}, one_of(Dim.CONNECTION, "2")),
    ({"key": "os", "in": ["iPadOS", "Mac OS X"]}, one_of(Dim.OS, "ios", "macos")),
    ({"key": "language", "is": "pt-BR"}, one_of(Dim.LANGUAGE, "pt")),
    ({"key": "interstitial", "is": True}, one_of(Dim.INTERSTITIAL, "1")),
    ({"key": "rewarded", "is": 0}, one_of(Dim.REWARDED, "0")),
    ({"key": "placement", "is": "plcmt:1"}, one_of(Dim.PLACEMENT, "plcmt:1")),
    ({"key": "position", "is": "atf"}, one_of(Dim.POSITION, "1")),
    ({"key": "key_value.section", "in": ["sport"]}, one_of(Dim.KEY_VALUE, "section=sport")),
    ({"key": "key_value", "in": ["section=sport"]}, one_of(Dim.KEY_VALUE, "section=sport")),
    ({"key": "data_segment", "is": "dmp:7"}, one_of(Dim.DATA_SEGMENT, "dmp:7")),
    ({"key": "zip", "is": "94110"}, one_of(Dim.POSTCODE, "94110")),
    ({"key": "os_version", "at_least": "15.0"}, AtLeast(Dim.OS_VERSION, 15_000_000)),
    ({"key": "viewability", "at_most": 0.5}, AtMost(Dim.VIEWABILITY, 0.5)),
    (
        {"key": "viewability", "at_least": 0.2, "at_most": 0.5},
        All((AtLeast(Dim.VIEWABILITY, 0.2), AtMost(Dim.VIEWABILITY, 0.5))),
    ),
    ({"key": "distance", "within_km": 10, "of": [[52.5, 13.4]]}, Within(10.0, ((52.5, 13.4),))),
    ({"key": "hour", "days": ["tue"], "hours": [3]}, one_of(Dim.HOUR_OF_WEEK, "27")),
    ({"key": "hour", "days": "sun-mon", "hours": "23-1"}, one_of(
        Dim.HOUR_OF_WEEK, "167", "144", "23", "0")),
    ({"key": "hour", "in": [0, 167]}, one_of(Dim.HOUR_OF_WEEK, "0", "167")),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "expected"), LEAVES, ids=lambda value: str(value)[:50])
def test_leaf_means_the_tokens_that_the_decoder_spells(
    tree: dict[str, object], expected: Node
) -> None:
    """People write values loosely; the hash is that of the decoder's spelling."""
    assert expected == parse(tree)


def test_tree_nests() -> None:
    """Nodes keep their order and nesting."""
    leaf = {"key": "os", "is": "ios"}
    node = one_of(Dim.OS, "ios")
    expected = All((node, AnyOf((Not(node), node))))
    assert expected == parse({"all": [leaf, {"any": [{"not": leaf}, leaf]}]})


@pytest.mark.parametrize("tree", [None, {}])
def test_nothing_targets_everything(tree: object) -> None:
    """No expression and an empty one are the same."""
    assert parse(tree) == EVERYTHING


FAULTS = [
    ([], "targeting"),
    ({"all": []}, "targeting.all"),
    ({"some": [{}]}, "targeting"),
    ({"all": {"key": "os", "is": "ios"}}, "targeting.all"),
    ({"all": [{"key": "os", "is": "ios"}, {}]}, "targeting.all[1]"),
    ({"all": [{}], "any": [{}]}, "targeting"),
    ({"not": {"key": "colour", "in": ["red"]}}, "targeting.not.key"),
    ({"key": 7, "in": ["x"]}, "targeting.key"),
    ({"key": "key_value.", "in": ["x"]}, "targeting.key"),
    ({"key": "country"}, "targeting"),
    ({"key": "country", "in": []}, "targeting.in"),
    ({"key": "country", "in": "USA"}, "targeting.in"),
    ({"key": "country", "in": ["USA", "US"]}, "targeting.in[1]"),
    ({"key": "country", "in": ["USA"], "is": "USA"}, "targeting"),
    ({"key": "country", "at_least": 3}, "targeting"),
    ({"key": "country", "in": [["USA"]]}, "targeting.in[0]"),
    ({"key": "region", "in": ["CA"]}, "targeting.in[0]"),
    ({"key": "size", "in": ["300x0"]}, "targeting.in[0]"),
    ({"key": "device_type", "in": ["toaster"]}, "targeting.in[0]"),
    ({"key": "keyword", "in": ["  "]}, "targeting.in[0]"),
    ({"key": "keyword", "in": ["a\x00b"]}, "targeting.in[0]"),
    ({"key": "domain", "in": ["no spaces.example"]}, "targeting.in[0]"),
    ({"key": "data_segment", "in": ["7"]}, "targeting.in[0]"),
    ({"key": "os_version", "at_least": 15}, "targeting.at_least"),
    ({"key": "os_version", "at_least": "new"}, "targeting.at_least"),
    ({"key": "os_version", "in": ["15"]}, "targeting"),
    ({"key": "viewability", "at_least": 50}, "targeting.at_least"),
    ({"key": "viewability", "at_least": float("nan")}, "targeting.at_least"),
    ({"key": "distance", "of": [[1, 2]]}, "targeting.within_km"),
    ({"key": "distance", "within_km": 1}, "targeting.of"),
    ({"key": "distance", "within_km": 1, "of": [[91, 2]]}, "targeting.of[0]"),
    ({"key": "distance", "within_km": 1, "of": [[1, 2], [3]]}, "targeting.of[1]"),
    ({"key": "hour", "hours": ["8-25"]}, "targeting.hours[0]"),
    ({"key": "hour", "hours": ["8-8"]}, "targeting.hours[0]"),
    ({"key": "hour", "days": ["mon", "someday"]}, "targeting.days[1]"),
    ({"key": "hour", "days": []}, "targeting.days"),
    ({"key": "hour", "in": [1], "days": ["mon"]}, "targeting"),
    ({"key": "hour_of_week", "in": [168]}, "targeting.in[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "path"), FAULTS, ids=lambda value: str(value)[:50])
def test_fault_is_named_with_its_place(tree: object, path: str) -> None:
    """Whoever wrote the tree is told where it goes wrong."""
    with pytest.raises(TargetingError) as error:
        parse(tree)
    assert path == error.value.path


def test_deep_tree_is_refused() -> None:
    """A tree deeper than people write is refused before it exhausts anything."""
    tree: dict[str, object] = {"key": "os", "is": "ios"}
    for _ in range(3000):
        tree = {"not": tree}
    with pytest.raises(TargetingError, match="nested deeper"):
        parse(tree)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["all", "any", "not", "key", "in", "is", "at_least", "days"])
            | st.text(),
            inner | st.sampled_from(["os", "hour", "distance", "domain", "key_value.x"]),
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_parses_or_is_refused(tree: object) -> None:
    """No JSON value raises anything but TargetingError."""
    with contextlib.suppress(TargetingError):
        parse(tree)


def test_audiences_are_found_with_their_places() -> None:
    """References to segments can be checked."""
    tree = {"all": [{"not": {"key": "audience", "in": ["a", "b"]}}, {"key": "segment", "is": "c"}]}
    expected = [
        ("targeting.all[0].not.in[0]", "a"),
        ("targeting.all[0].not.in[1]", "b"),
        ("targeting.all[1].in[0]", "c"),
    ]
    assert expected == list(audiences(tree))


def test_distance_is_that_of_the_globe() -> None:
    """Berlin to Paris is 878 km."""
    assert round(distance_km(52.52, 13.405, 48.8566, 2.3522)) == 877


def test_unknown_numbers_satisfy_no_comparison() -> None:
    """Neither bound holds for a request that does not say."""
    for node in (
        AtLeast(Dim.VIEWABILITY, 0.0),
        AtMost(Dim.VIEWABILITY, 1.0),
        Within(20_000, ((0, 0),)),
    ):
        assert not matches(node, {}, {}, None)
        assert matches(Not(node), {}, {}, None)


DIMS = (Dim.COUNTRY, Dim.AUDIENCE, Dim.KEYWORD)
TREES = trees(
    DIMS,
    st.builds(AtLeast, st.just(Dim.VIEWABILITY), st.sampled_from([0.2, 0.7])),
    parts_max=3,
    leaves_max=8,
)
TOKENS = tokens(DIMS)
NUMBERS = st.sampled_from([{}, {Dim.VIEWABILITY: 0.1}, {Dim.VIEWABILITY: 0.9}])


@given(TREES, TOKENS, NUMBERS)
def test_simplify_changes_no_answer(
    tree: Node, tokens: dict[Dim, set[int]], numbers: dict[Dim, float]
) -> None:
    """The normal form means what the tree meant."""
    expected = matches(tree, tokens, numbers, None)
    assert expected == matches(simplify(tree), tokens, numbers, None)
