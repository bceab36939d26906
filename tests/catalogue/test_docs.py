"""Documentation: the guide's catalogue imports, and the reference names every key."""

import re
from pathlib import Path

from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.load import load
from rtb.catalogue.model import Budget, Creative, Pacing
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
