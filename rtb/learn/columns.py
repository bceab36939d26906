"""Columns of a log -> token hashes, spelled as the decoder and the compiler spell them.

A column with the name of a `Dim` in lower case is a fact of the request, so are columns named for
the request side (hashed like a custom key-value, "column=value"). Columns of AD_COLUMNS and those
named for the ad side are facts of the creative ("column:value" in `Dim.AD`). Values that imply
others (parents of a domain, of a category) bring them along.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rtb.base.hosts import ascii_host
from rtb.base.records import Dim
from rtb.catalogue.model import category_prefixes
from rtb.catalogue.tokens import hash_of
from rtb.decide.features import MODEL_DIMS

Cell = str | int | float | bool | None | Sequence["Cell"]

AD_COLUMNS: Final = ("creative", "line_item", "campaign", "advertiser", "product", "category")
AD_ALIASES: Final = {"ad_media": "media", "ad_size": "size"}
# What decide adds to the tokens of a request, besides MODEL_DIMS.
ADDED_DIMS: Final = frozenset({Dim.EXCHANGE, Dim.HOUR_OF_WEEK, Dim.AUDIENCE})
# Dimensions that hold numbers to compare, and those beyond targeting, are no model tokens.
DIM_COLUMNS: Final = {dim.name.lower(): dim for dim in Dim if dim < Dim.OS_VERSION}
SEPARATOR: Final = "|"


@dataclass(slots=True)
class Column:
    """How cells of one column become tokens."""

    dim: Dim
    spell: Callable[[str], list[str]]
    unseen: bool
    known: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_ad(self) -> bool:
        return self.dim is Dim.AD

    def hashes(self, cell: Cell) -> Iterable[int]:
        """Token hashes of all values in a cell."""
        if isinstance(cell, str) and SEPARATOR not in cell:
            return self._of(cell)
        return [hash_ for value in values_of(cell) for hash_ in self._of(value)]

    def _of(self, value: str) -> tuple[int, ...]:
        found = self.known.get(value)
        if found is None:
            found = tuple(hash_of(self.dim, token) for token in self.spell(value))
            self.known[value] = found
        return found


def make_column(
    name: str, request_columns: Sequence[str], ad_columns: Sequence[str]
) -> Column | None:
    """The rules of one column by its name; None for one that is left out."""
    if name in ad_columns:
        return Column(Dim.AD, lambda value: [f"{name}:{value}"], unseen=False)
    if name in request_columns:
        return Column(Dim.KEY_VALUE, lambda value: [f"{name}={value}"], unseen=True)
    if name == "category":
        return Column(
            Dim.AD, lambda value: [f"category:{part}" for part in _categories(value)], unseen=False
        )
    if name in AD_COLUMNS or name in AD_ALIASES:
        kind = AD_ALIASES.get(name, name)
        return Column(Dim.AD, lambda value: [f"{kind}:{value}"], unseen=False)
    dim = DIM_COLUMNS.get(name)
    if dim is None:
        return None
    spell = {Dim.DOMAIN: _domains, Dim.PAGE_CATEGORY: _page_categories}.get(dim, _as_it_is)
    return Column(dim, spell, unseen=dim not in MODEL_DIMS | ADDED_DIMS)


def _as_it_is(value: str) -> list[str]:
    return [value]


def _domains(value: str) -> list[str]:
    """A host and its parents, as the decoder spells them."""
    labels = ascii_host(value.lower().strip(".")).split(".")
    if labels[-1][:1].isdigit():
        return [".".join(labels)]
    return [".".join(labels[start:]) for start in range(max(len(labels) - 1, 1))]


def _page_categories(value: str) -> list[str]:
    """ "1:IAB1-2" brings "1:IAB1"; a bare code is of taxonomy 1."""
    code = value if ":" in value else f"1:{value}"
    tier1, dash, _ = code.partition("-")
    return [code, tier1] if dash and code.startswith("1:") else [code]


def _categories(value: str) -> list[str]:
    """A product's category path and its prefixes; a content category ("1:IAB1-2") as it is."""
    return [value] if ":" in value else list(category_prefixes(value))


def values_of(cell: Cell) -> Iterator[str]:
    if isinstance(cell, str):
        yield from (part for part in cell.split(SEPARATOR) if part)
    elif isinstance(cell, bool):
        yield "1" if cell else "0"
    elif isinstance(cell, float) and cell.is_integer():
        yield str(int(cell))
    elif isinstance(cell, Sequence):
        for value in cell:
            yield from values_of(value)
    elif cell is not None:
        yield str(cell)
