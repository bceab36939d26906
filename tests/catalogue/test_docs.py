"""Documentation: the guide's catalogue imports, and the reference names every key."""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.load import load
from rtb.catalogue.model import (
    KINDS,
    Budget,
    Creative,
    ExcludePurchased,
    Flight,
    FrequencyCap,
    Goal,
    Image,
    MediaFile,
    Native,
    Pacing,
    Priors,
    Transparency,
)
from rtb.catalogue.render import HOLES, NOTICES, PRODUCT_FIELDS
from rtb.catalogue.targeting_parse import DEPTH_MAX
from rtb.catalogue.targeting_values import KEYS, NUMBERS, SPECIAL

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides" / "catalogue.md").read_text(encoding="utf-8")
TARGETING = (DOCS / "reference" / "targeting.md").read_text(encoding="utf-8")


def test_guides_catalogue_imports(tmp_path: Path) -> None:
    """What the guide shows can be copied."""
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "all.toml").write_text("".join(blocks))
    catalogue, problems = load(tmp_path)
    assert problems == []
    arrays, _ = compile_snapshot(catalogue)
    assert len(arrays["line_items"]) == 2


def test_every_key_is_documented() -> None:
    """A key that nobody can look up is none."""
    missing = [key for key in (*KEYS, *NUMBERS, *SPECIAL) if f"`{key}`" not in TARGETING]
    assert [key for key in missing if f'"{key}"' not in TARGETING] == []
    assert f"nest up to {DEPTH_MAX} deep" in TARGETING


def test_every_macro_and_type_is_documented() -> None:
    """The guide names what markup may hold and what creatives there are."""
    assert [name for name in HOLES if f"`{{{name}}}`" not in GUIDE] == []
    notices = {name.partition(".")[0] for name in NOTICES}
    assert [name for name in notices if f"`{{{name}" not in GUIDE] == []
    assert [name for name in PRODUCT_FIELDS if name not in GUIDE] == []
    types = Creative.__annotations__["type"].__args__
    assert [name for name in types if f"`{name}`" not in GUIDE] == []


def test_every_limit_and_pacing_is_documented() -> None:
    """The guide says what a budget can hold and how it can be spent."""
    assert [name for name in Budget.__struct_fields__ if f"`{name}`" not in GUIDE] == []
    assert [name for name in Pacing.__args__ if f"`{name}`" not in GUIDE] == []


WITHIN: dict[str, type[msgspec.Struct]] = {
    "budget": Budget, "flights": Flight, "frequency_caps": FrequencyCap, "dsa": Transparency,
    "goal": Goal, "exclude_purchased": ExcludePurchased, "priors": Priors, "native": Native,
    "images": Image, "media_files": MediaFile,
}  # fmt: skip


def _section(title: str) -> str:
    return GUIDE.partition(f"\n### {title}\n")[2].partition("\n##")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_table_is_in_the_guide(kind: str) -> None:
    """Each key has a row in the table of its object, and no row names another."""
    rows = re.findall(r"^\| (`.*?`) \|", _section(f"`{kind}`"), re.MULTILINE)
    keys = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(KINDS[kind].__struct_fields__) == sorted(keys)


def test_every_key_within_is_in_the_guide() -> None:
    """What objects hold is named in the row of its key, and no such object is left out."""
    for name, kind in WITHIN.items():
        row = re.search(rf"^\| `{name}` \|(.*)$", _section("Within them"), re.MULTILINE)
        assert row is not None
        assert set(kind.__struct_fields__) <= set(re.findall(r"`(\w+)`", row[1]))
    held = [
        each.type
        for kind in (*KINDS.values(), *WITHIN.values())
        for each in msgspec.structs.fields(kind)
    ]
    assert set(WITHIN.values()) == {kind for each in held for kind in _structs(each)}


def _structs(kind: Any) -> set[type]:
    """The objects that a field may hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {kind}
    return {found for each in get_args(kind) for found in _structs(each)}
