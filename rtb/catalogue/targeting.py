"""Targeting expressions: the condition as nodes, what it means, and its normal form.

What a request does not say satisfies no leaf, so it satisfies every `not` of one. This file owns
the meaning: `matches` is the reference that the index and the compiled engine are tested against.
`targeting_parse` reads the tree that people write, `targeting_values` the values in it.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from rtb.base.records import Dim


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
