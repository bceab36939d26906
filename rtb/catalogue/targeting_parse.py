"""The tree that people write, to the nodes of `rtb.catalogue.targeting`.

    {"all": [...]}  {"any": [...]}  {"not": ...}          nodes
    {"key": "country", "in": ["USA", "CAN"]}               a leaf: the request has one of the values
    {"key": "os_version", "at_least": "15.0"}              numbers: os_version, viewability
    {"key": "distance", "within_km": 10, "of": [[lat, lon]]}
    {"key": "hour", "days": ["mon-fri"], "hours": ["8-20"]}
    {"key": "key_value.section", "in": ["sport"]}          publisher's own keys

`"is": value` is short for `"in": [value]`. `docs/reference/targeting.md` lists the keys.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Final

from rtb.base.errors import InputError
from rtb.base.records import Dim, pack_version
from rtb.catalogue.targeting import EVERYTHING, All, AnyOf, AtLeast, AtMost, In, Node, Not, Within
from rtb.catalogue.targeting_values import ALIASES, DAYS, KEYS, NUMBERS, token_text
from rtb.catalogue.tokens import hash_of

# A tree is written by people or by a console: these are far above both.
DEPTH_MAX: Final = 24
VALUES_MAX: Final = 100_000  # of one leaf: a list of domains or postcodes
POINTS_MAX: Final = 1_000


class TargetingError(InputError):
    """An expression that cannot be read; `.path` leads from the root of the tree to the fault."""


def parse(tree: object, path: str = "targeting") -> Node:
    """Reads a tree of plain JSON values.

    Raises: TargetingError at the first fault, with its path. None and {} target everything.
    """
    if tree is None or tree == {}:
        return EVERYTHING
    return _parse(tree, path, 0)


def faults(tree: object, path: str = "targeting") -> Iterator[TargetingError]:
    """Every fault of a tree: the first one of each leaf, and of each node that holds none."""
    children: list[tuple[str, object]] = []
    if isinstance(tree, dict) and "key" not in tree and len(tree) == 1:
        (word, body), *_ = tree.items()
        if word == "not":
            children = [(f"{path}.not", body)]
        elif word in {"all", "any"} and isinstance(body, list | tuple):
            children = [(f"{path}.{word}[{n}]", child) for n, child in enumerate(body)]
    found = False
    # Deeper trees are refused as a whole, below.
    if path.count("[") + path.count(".not") <= DEPTH_MAX:
        for place, child in children:
            for fault in faults(child, place):
                found = True
                yield fault
    if not found:
        try:
            parse(tree, path)
        except TargetingError as error:
            yield error


def _parse(tree: object, path: str, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise TargetingError(f"nested deeper than {DEPTH_MAX}", path)
    if not isinstance(tree, dict):
        raise TargetingError(f"expected an object, got `{type(tree).__name__}`", path)
    if "key" in tree:
        return _parse_leaf(tree, path)
    if len(tree) != 1:
        raise TargetingError("expected exactly one of all, any, not, or a leaf with key", path)
    (word, body), *_ = tree.items()
    if word == "not":
        return Not(_parse(body, f"{path}.not", depth + 1))
    if word not in {"all", "any"}:
        raise TargetingError(f"unknown operator {word!r}", path)
    if not isinstance(body, list | tuple):
        raise TargetingError("expected a list", f"{path}.{word}")
    if not body:
        raise TargetingError("expected at least one condition", f"{path}.{word}")
    children = tuple(
        _parse(child, f"{path}.{word}[{index}]", depth + 1) for index, child in enumerate(body)
    )
    return All(children) if word == "all" else AnyOf(children)


def _parse_leaf(leaf: dict[str, object], path: str) -> Node:
    key = leaf["key"]
    if not isinstance(key, str):
        raise TargetingError("expected a text", f"{path}.key")
    if key in NUMBERS:
        return _parse_number(key, leaf, path)
    if key == "distance":
        return _parse_distance(leaf, path)
    if key == "hour":
        return _parse_hour(leaf, path)
    return _parse_in(key, leaf, path)


def _only(leaf: Mapping[str, object], allowed: Set[str], path: str) -> None:
    """Refuses fields beside the allowed ones, and a leaf that has none of them."""
    for name in leaf:
        if name != "key" and name not in allowed:
            raise TargetingError(f"unknown field {name!r} for key {leaf['key']!r}", path)
    if len(leaf) < 2:
        raise TargetingError(f"expected {' or '.join(sorted(allowed))}", path)


def _parse_in(key: str, leaf: Mapping[str, object], path: str) -> In:
    name = ALIASES.get(key, key)
    if name not in KEYS and not (name.startswith("key_value.") and len(name) > len("key_value.")):
        raise TargetingError(f"unknown key {key!r}", f"{path}.key")
    _only(leaf, {"in", "is"}, path)
    if len(leaf) != 2:
        raise TargetingError("expected either in or is", path)
    values = leaf["in"] if "in" in leaf else [leaf["is"]]
    if not isinstance(values, list | tuple):
        raise TargetingError("expected a list", f"{path}.in")
    if not 0 < len(values) <= VALUES_MAX:
        raise TargetingError(f"expected 1 to {VALUES_MAX} values", f"{path}.in")
    hashes = set()
    dim = Dim.KEY_VALUE
    for index, value in enumerate(values):
        try:
            dim, text = token_text(name, _scalar(value))
        except ValueError as error:
            raise TargetingError(f"{error}, got {value!r}", f"{path}.in[{index}]") from error
        hashes.add(hash_of(dim, text))
    return In(dim, frozenset(hashes))


def _scalar(value: object) -> str:
    """A value as text: numbers and truth values may be written as such."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise ValueError("expected a text or an integer")


def _parse_number(key: str, leaf: Mapping[str, object], path: str) -> Node:
    _only(leaf, {"at_least", "at_most"}, path)
    bounds: list[Node] = []
    for word, node in (("at_least", AtLeast), ("at_most", AtMost)):
        if word in leaf:
            bounds.append(node(NUMBERS[key], _bound(key, leaf[word], f"{path}.{word}")))
    return bounds[0] if len(bounds) == 1 else All(tuple(bounds))


def _bound(key: str, value: object, path: str) -> float:
    if key == "os_version":
        packed = pack_version(value) if isinstance(value, str) else 0
        if packed <= 0:
            raise TargetingError('expected a version as text, such as "15.0"', path)
        return float(packed)
    return _float(value, 0.0, 1.0, path)


def _float(value: object, low: float, high: float, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise TargetingError(f"expected a number from {low:g} to {high:g}, got {value!r}", path)
    return float(value)


def _parse_distance(leaf: Mapping[str, object], path: str) -> Within:
    _only(leaf, {"within_km", "of"}, path)
    km = _float(leaf.get("within_km"), 0.001, 20_016.0, f"{path}.within_km")
    of = leaf.get("of")
    if not isinstance(of, list | tuple) or not 0 < len(of) <= POINTS_MAX:
        raise TargetingError(f"expected 1 to {POINTS_MAX} points [lat, lon]", f"{path}.of")
    points = []
    for index, point in enumerate(of):
        where = f"{path}.of[{index}]"
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise TargetingError("expected [lat, lon]", where)
        points.append((_float(point[0], -90, 90, where), _float(point[1], -180, 180, where)))
    return Within(km, tuple(points))


def _parse_hour(leaf: Mapping[str, object], path: str) -> In:
    """Days and hours in the user's zone, each a list of values and ranges; absent means all."""
    _only(leaf, {"days", "hours", "in"}, path)
    if "in" in leaf:
        _only(leaf, {"in"}, path)
        return _parse_in("hour_of_week", {"key": "hour_of_week", "in": leaf["in"]}, path)
    days = set(_spans(leaf.get("days", ["mon-sun"]), _day, 7, True, f"{path}.days"))
    hours = set(_spans(leaf.get("hours", ["0-24"]), _hour, 24, False, f"{path}.hours"))
    return In(
        Dim.HOUR_OF_WEEK,
        frozenset(hash_of(Dim.HOUR_OF_WEEK, str(d * 24 + h)) for d in days for h in hours),
    )


def _day(text: str) -> int:
    return DAYS.index(text.strip().lower()[:3])


def _hour(text: str) -> int:
    hour = int(text)
    if not 0 <= hour <= 24:
        raise ValueError
    return hour


def _spans(
    spans: object, read: Callable[[str], int], size: int, closed: bool, path: str
) -> Iterator[int]:
    """Numbers of a cycle of `size` from values and ranges such as "fri-mon", "22-6".

    Ranges of hours end before their second hour ("8-20" is 8:00 to 20:00), ranges of days with it.
    """
    if isinstance(spans, str | int):
        spans = [spans]
    if not isinstance(spans, list | tuple) or not spans:
        raise TargetingError("expected a list that is not empty", path)
    for index, span in enumerate(spans):
        try:
            first, dash, last = str(span).partition("-")
            start = read(first)
            stop = read(last) + closed if dash else start + 1
            if start >= size or (start == stop and not closed):
                raise ValueError
        except ValueError as error:
            raise TargetingError(f"cannot read {span!r}", f"{path}[{index}]") from error
        for number in range(start, stop if stop > start else stop + size):
            yield number % size


def audiences(tree: object, path: str = "targeting") -> Iterator[tuple[str, str]]:
    """(path, segment id) of every audience that a readable tree names."""
    if not isinstance(tree, dict):
        return
    if "key" in tree:
        if ALIASES.get(str(tree["key"]), tree["key"]) == "audience":
            values = tree["in"] if "in" in tree else [tree.get("is")]
            for index, value in enumerate(values if isinstance(values, list | tuple) else ()):
                yield f"{path}.in[{index}]", str(value).strip()
        return
    for word, body in tree.items():
        if word == "not":
            yield from audiences(body, f"{path}.not")
        elif isinstance(body, list | tuple):
            for index, child in enumerate(body):
                yield from audiences(child, f"{path}.{word}[{index}]")
