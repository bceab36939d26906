"""Exchange settings: strict, documented, and the same defaults in code and reference file."""

from pathlib import Path

import msgspec
import pytest

from rtb.base.errors import ConfigError
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.exchanges.settings import Exchange, load, load_all

FOLDER = Path(__file__).parents[2] / "configs" / "exchanges"


def written(tmp_path: Path, text: str, name: str = "x.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_shipped_files_load_by_path():
    """Every shipped exchange is found under its URL name."""
    exchanges = load_all(FOLDER)
    assert {"euro", "first-price", "generic", "nbr-body", "tight"} == set(exchanges)
    assert ("EUR",) == exchanges["euro"].currencies
    assert 1 == exchanges["first-price"].auction_type_default
    assert "nbr" == exchanges["nbr-body"].no_bid


def test_generic_names_every_key_with_its_default():
    """The reference file holds each key once, with the default of the code and a comment above."""
    text = (FOLDER / "generic.toml").read_text()
    keys = [line.partition(" = ")[0] for line in text.splitlines() if " = " in line[:40]]
    keys = [key for key in keys if not key.startswith("#")]
    assert list(Exchange.__struct_fields__) == keys
    assert Exchange(name="generic", path="generic") == load(FOLDER / "generic.toml")
    lines = text.splitlines()
    for key in keys:
        index = next(i for i, line in enumerate(lines) if line.startswith(f"{key} ="))
        assert lines[index - 1].startswith("#"), key


def test_token_is_the_targeting_value():
    """An exchange is targeted by the hash of its name."""
    assert token_hash(Dim.EXCHANGE, b"generic") == load(FOLDER / "generic.toml").token


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour = 1", "unknown field `colour`"),
        ("seat = 3", r"\$\.seat"),
        ("no_bid = 'maybe'", r"\$\.no_bid"),
        ("body_bytes_max = 10000000", r"\$\.body_bytes_max"),
        ("imps_max = 33", r"\$\.imps_max"),
        ("deals_max = 0", r"\$\.deals_max"),
        ("block_tokens_max = 4000", r"\$\.block_tokens_max"),
        ("default_currency = 'usd'", r"\$\.default_currency"),
        ("currencies = ['EUR', 'euro']", r"\$\.currencies"),
        ("currencies = ['EUR']", r"\$\.default_currency"),
        ('seat = "a\\nb"', r"\$\.seat"),
        ("tmax_ms_default = 0", r"\$\.tmax_ms_default"),
        ("deadline_ms_max = 25\ntmax_margin_ms = 25", r"\$\.tmax_margin_ms"),
        ("tmax_ms_default = 20\ntmax_margin_ms = 30", r"\$\.tmax_margin_ms"),
        ("name = [", "x.toml"),
    ],
)
def test_refuses(tmp_path: Path, line: str, message: str):
    """A wrong setting stops the start, and the message names file and key."""
    path = written(tmp_path, f"name = 'x'\npath = 'x'\n{line}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert "x.toml" in str(caught.value)


@pytest.mark.parametrize("path", ["", "A", "a/b", "a b", "-a"])
def test_path_stands_in_a_url(tmp_path: Path, path: str):
    """A path that would need escaping in a URL is refused."""
    with pytest.raises(ConfigError, match="path"):
        load(written(tmp_path, f"name = 'x'\npath = '{path}'"))


def test_two_files_may_not_share_a_path(tmp_path: Path):
    """Two exchanges under one URL would steal each other's traffic."""
    written(tmp_path, "name = 'a'\npath = 'x'", "a.toml")
    written(tmp_path, "name = 'b'\npath = 'x'", "b.toml")
    with pytest.raises(ConfigError, match=r"b\.toml"):
        load_all(tmp_path)


def test_a_folder_needs_an_exchange(tmp_path: Path):
    """A bidder without exchanges refuses to start."""
    with pytest.raises(ConfigError, match="no exchange settings"):
        load_all(tmp_path)


def test_a_missing_file_is_a_config_error(tmp_path: Path):
    """Reading what is not there is our fault, not a crash."""
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml")


def test_settings_are_frozen(generic: Exchange):
    """Nothing changes an exchange under a running request."""
    with pytest.raises(AttributeError):
        generic.seat = "x"  # type: ignore[misc]
    assert generic == msgspec.structs.replace(generic)
