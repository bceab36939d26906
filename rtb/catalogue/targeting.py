"""Targeting expressions: the tree that people write, parsed, normalised and evaluated.

    {"all": [...]}  {"any": [...]}  {"not": ...}          nodes
    {"key": "country", "in": ["USA", "CAN"]}               a leaf: the request has one of the values
    {"key": "os_version", "at_least": "15.0"}              numbers: os_version, viewability
    {"key": "distance", "within_km": 10, "of": [[lat, lon]]}
    {"key": "hour", "days": ["mon-fri"], "hours": ["8-20"]}
    {"key": "key_value.section", "in": ["sport"]}          publisher's own keys

`"is": value` is short for `"in": [value]`. What a request does not say satisfies no leaf, so it
satisfies every `not` of one. This file owns the meaning: `matches` is the reference that the index
and the compiled engine are tested against. `docs/reference/targeting.md` lists the keys.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from rtb.base.errors import InputError
from rtb.base.records import Dim, pack_version
from rtb.catalogue.tokens import hash_of

# A tree is written by people or by a console: these are far above both.
DEPTH_MAX: Final = 24
VALUES_MAX: Final = 100_000  # of one leaf: a list of domains or postcodes
POINTS_MAX: Final = 1_000


class TargetingError(InputError):
    """An expression that cannot be read; `.path` leads from the root of the tree to the fault."""


@dataclass(frozen=True, slots=True)
class In:
    """The request has one of the values of a dimension. Empty: never."""

    dim: Dim
    hashes: frozenset[int]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A known number of the request is at least `value`."""

    dim: Dim
    value: float


@dataclass(frozen=True, slots=True)
class AtMost:
    """A known number of the request is at most `value`."""

    dim: Dim
    value: float


@dataclass(frozen=True, slots=True)
class Within:
    """The device is within `km` of one of the points (latitude, longitude)."""

    km: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Not:
    child: "Node"


@dataclass(frozen=True, slots=True)
class All:
    """True when every child is; without children, true."""

    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when a child is; without children, false."""

    children: tuple["Node", ...]


Node = In | AtLeast | AtMost | Within | Not | All | AnyOf
EVERYTHING: Final = All(())

EARTH_RADIUS_KM: Final = 6371.0088


def distance_km(lat: float, lon: float, lat2: float, lon2: float) -> float:
    """Great-circle distance (haversine). Degrees in, kilometres out."""
    a, b = math.radians(lat), math.radians(lat2)
    half_lat = math.sin((b - a) / 2) ** 2
    half_lon = math.sin(math.radians(lon2 - lon) / 2) ** 2
    return (
        2
        * EARTH_RADIUS_KM
        * math.asin(math.sqrt(min(1.0, half_lat + math.cos(a) * math.cos(b) * half_lon)))
    )


def matches(
    node: Node,
    tokens: Mapping[Dim, Set[int]],
    numbers: Mapping[Dim, float],
    place: tuple[float, float] | None,
) -> bool:
    """Does a request satisfy the expression: the slow, plain definition.

    `tokens`: hashes by dimension; `numbers`: known OS_VERSION and VIEWABILITY; `place`: latitude
    and longitude, when known.
    """
    match node:
        case In(dim, hashes):
            return not hashes.isdisjoint(tokens.get(dim, frozenset()))
        case AtLeast(dim, value):
            return dim in numbers and numbers[dim] >= value
        case AtMost(dim, value):
            return dim in numbers and numbers[dim] <= value
        case Within(km, points):
            return place is not None and any(distance_km(*place, *p) <= km for p in points)
        case Not(child):
            return not matches(child, tokens, numbers, place)
        case All(children):
            return all(matches(child, tokens, numbers, place) for child in children)
        case AnyOf(children):
            return any(matches(child, tokens, numbers, place) for child in children)


# -- values: spelled as the decoder spells tokens -------------------------------------------------

DEVICE_TYPES: Final = {
    "mobile": "1", "pc": "2", "desktop": "2", "ctv": "3", "tv": "3", "phone": "4", "tablet": "5",
    "connected_device": "6", "set_top_box": "7", "ooh": "8",
}  # fmt: skip
CONNECTIONS: Final = {
    "ethernet": "1", "wired": "1", "wifi": "2", "cellular": "3", "2g": "4", "3g": "5", "4g": "6",
    "5g": "7",
}  # fmt: skip
POSITIONS: Final = {
    "unknown": "0", "above_the_fold": "1", "atf": "1", "locked": "2", "below_the_fold": "3",
    "btf": "3", "header": "4", "footer": "5", "sidebar": "6", "full_screen": "7",
}  # fmt: skip
OS_NAMES: Final = {
    "iphone os": "ios", "iphone": "ios", "ipad": "ios", "ipados": "ios", "mac os x": "macos",
    "mac os": "macos", "osx": "macos", "os x": "macos", "chrome os": "chromeos", "apple tv": "tvos",
}  # fmt: skip
_BITS: Final = {"true": "1", "false": "0"}
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_SIZE = re.compile(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
_CATEGORY = re.compile(r"[0-9]{1,4}:[0-9A-Za-z._-]{1,64}")
_REGION = re.compile(r"[a-z]{3}-[0-9a-z]{1,8}")
_HOST = re.compile(r"(?=.{1,253}$)[^\s/:@?#.]{1,63}(\.[^\s/:@?#.]{1,63})*")


def _number(names: Mapping[str, str], top: int) -> Callable[[str], str]:
    """Values of a numbered list, by number or by name."""

    def normalise(text: str) -> str:
        text = names.get(text.lower().replace(" ", "_").replace("-", "_"), text)
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= top):
            known = f", or one of {', '.join(names)}" if names else ""
            raise ValueError(f"expected a number up to {top}{known}")
        return str(int(text))

    return normalise


def _one_of(*values: str) -> Callable[[str], str]:
    def normalise(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return text.lower()

    return normalise


def _text(text: str) -> str:
    return text


def _country(text: str) -> str:
    if not (len(text) == 3 and text.isascii() and text.isalpha()):
        raise ValueError("expected an ISO 3166-1 alpha-3 country such as USA")
    return text.lower()


def _region(text: str) -> str:
    if not _REGION.fullmatch(text.lower()):
        raise ValueError("expected country-region such as USA-CA")
    return text.lower()


def _size(text: str) -> str:
    text = text.lower().replace(" ", "").replace("×", "x")
    if not _SIZE.fullmatch(text):
        raise ValueError("expected a size such as 300x250")
    return text


def category_text(text: str) -> str:
    """A category with its taxonomy, "1:IAB1-2" or "6:123"; "IAB1-2" alone is of taxonomy 1.

    Raises: ValueError.
    """
    if ":" not in text and text[:3].upper() == "IAB":
        text = f"1:{text}"
    if not _CATEGORY.fullmatch(text):
        raise ValueError("expected taxonomy:code such as 6:123, or IAB1-2")
    return text


def host_text(text: str) -> str:
    """A host name, lower case: "https://*.Shop.Example:80/x" gives "shop.example".

    Raises: ValueError.
    """
    host = text.lower().split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]
    host = host.removeprefix("*.").rstrip(".")
    if not _HOST.fullmatch(host):
        raise ValueError("expected a domain such as shop.example")
    return host


def language_text(text: str) -> str:
    """The primary subtag of a language tag: "pt-BR" gives "pt". Raises: ValueError."""
    subtag = text.replace("_", "-").split("-", 1)[0].lower()
    if not (2 <= len(subtag) <= 3 and subtag.isascii() and subtag.isalpha()):
        raise ValueError("expected a language such as en")
    return subtag


def _os(text: str) -> str:
    return OS_NAMES.get(text.lower(), text.lower())


def _placement(text: str) -> str:
    kind, _, number = text.lower().partition(":")
    if kind not in {"plcmt", "placement", "native"} or not (number.isascii() and number.isdigit()):
        raise ValueError("expected plcmt:1, placement:3 or native:2")
    return f"{kind}:{int(number)}"


def _bit(text: str) -> str:
    text = _BITS.get(text.lower(), text)
    if text not in {"0", "1"}:
        raise ValueError("expected true or false")
    return text


def _pair(separator: str, example: str) -> Callable[[str], str]:
    def normalise(text: str) -> str:
        if separator not in text:
            raise ValueError(f"expected {example}")
        return text

    return normalise


# Key as people write it -> dimension and how its values are spelled.
KEYS: Final[Mapping[str, tuple[Dim, Callable[[str], str]]]] = {
    "exchange": (Dim.EXCHANGE, _text),
    "channel": (Dim.CHANNEL, _one_of("site", "app", "dooh")),
    "media": (Dim.MEDIA, _one_of("banner", "video", "audio", "native")),
    "size": (Dim.SIZE, _size),
    "country": (Dim.COUNTRY, _country),
    "region": (Dim.REGION, _region),
    "city": (Dim.CITY, _text),
    "postcode": (Dim.POSTCODE, _text),
    "metro": (Dim.METRO, _text),
    "device_type": (Dim.DEVICE_TYPE, _number(DEVICE_TYPES, 99)),
    "os": (Dim.OS, _os),
    "browser": (Dim.BROWSER, str.lower),
    "connection": (Dim.CONNECTION, _number(CONNECTIONS, 99)),
    "carrier": (Dim.CARRIER, _text),
    "language": (Dim.LANGUAGE, language_text),
    "publisher": (Dim.PUBLISHER, _text),
    "domain": (Dim.DOMAIN, host_text),
    "bundle": (Dim.BUNDLE, _text),
    "category": (Dim.PAGE_CATEGORY, category_text),
    "keyword": (Dim.KEYWORD, _text),
    "content_language": (Dim.CONTENT_LANGUAGE, language_text),
    "content_genre": (Dim.CONTENT_GENRE, _text),
    "content_rating": (Dim.CONTENT_RATING, _text),
    "audience": (Dim.AUDIENCE, _text),
    "data_segment": (Dim.DATA_SEGMENT, _pair(":", "provider:segment or :segment")),
    "key_value": (Dim.KEY_VALUE, _pair("=", "key=value")),
    "hour_of_week": (Dim.HOUR_OF_WEEK, _number({}, 167)),
    "position": (Dim.POSITION, _number(POSITIONS, 99)),
    "placement": (Dim.PLACEMENT, _placement),
    "tag": (Dim.TAG, _text),
    "interstitial": (Dim.INTERSTITIAL, _bit),
    "rewarded": (Dim.REWARDED, _bit),
    "deal": (Dim.DEAL, _text),
    "venue": (Dim.VENUE, _text),
    "make": (Dim.MAKE, _text),
    "model": (Dim.MODEL, _text),
    "content_channel": (Dim.CONTENT_CHANNEL, _text),
    "user_keyword": (Dim.USER_KEYWORD, _text),
}
ALIASES: Final = {"page_category": "category", "segment": "audience", "zip": "postcode"}
NUMBERS: Final[Mapping[str, Dim]] = {
    "os_version": Dim.OS_VERSION,
    "viewability": Dim.VIEWABILITY,
}
SPECIAL: Final = ("hour", "distance")


def token_text(key: str, value: str) -> tuple[Dim, str]:
    """The dimension and the spelling of one value of a key.

    Raises: ValueError for a key that is none or a value that the key cannot have.
    """
    text = value.strip()
    name = ALIASES.get(key, key)
    if name.startswith("key_value."):
        return Dim.KEY_VALUE, f"{name.removeprefix('key_value.')}={text}"
    if name not in KEYS:
        raise ValueError(f"unknown key {key!r}")
    if not text or any(char < " " for char in text):
        raise ValueError("expected a text that is not empty, without control characters")
    dim, normalise = KEYS[name]
    return dim, normalise(text)


# -- parsing --------------------------------------------------------------------------------------


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


# -- normal form ----------------------------------------------------------------------------------


def simplify(node: Node) -> Node:
    """The same condition with `not` only on leaves, nothing nested in its own kind, and values of
    one dimension united where that is exact.

    Leaves of a dimension under `any` unite; so do negated leaves under `all`. Nothing else may:
    a request can have several values of a dimension.
    """
    return _simplify(node, False)


def _simplify(node: Node, negate: bool) -> Node:
    match node:
        case Not(child):
            return _simplify(child, not negate)
        case All(children):
            return _join([_simplify(child, negate) for child in children], conjunction=not negate)
        case AnyOf(children):
            return _join([_simplify(child, negate) for child in children], conjunction=negate)
        case _:
            return Not(node) if negate else node


def _join(parts: list[Node], conjunction: bool) -> Node:
    kind = All if conjunction else AnyOf
    united: dict[Dim, frozenset[int]] = {}
    rest: dict[Node, None] = {}
    for part in parts:
        for child in part.children if isinstance(part, kind) else (part,):
            leaf = child.child if conjunction and isinstance(child, Not) else child
            if isinstance(leaf, In) and isinstance(child, Not) == conjunction:
                united[leaf.dim] = united.get(leaf.dim, frozenset()) | leaf.hashes
            else:
                rest[child] = None
    leaves: list[Node] = [In(dim, hashes) for dim, hashes in united.items()]
    if conjunction:
        leaves = [Not(leaf) for leaf in leaves]
    children = (*leaves, *rest)
    return children[0] if len(children) == 1 else kind(children)
