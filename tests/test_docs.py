"""The documentation says what the code does: references are generated, links lead somewhere."""

import importlib.util
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from rtb import __version__
from rtb.exchanges.settings import Exchange
from rtb.server import settings

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
]


def _generator():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["reasons", "metrics", "config", "cli"])
def test_reference_pages_are_current(name: str) -> None:
    """`python docs/reference.py` would change nothing."""
    made = _generator().PAGES[name]()

    assert made == (ROOT / "docs" / "reference" / f"{name}.md").read_text()


def test_bidder_toml_is_the_reference() -> None:
    """The file holds every key of the settings with the default that the code has."""
    text = (ROOT / "configs" / "bidder.toml").read_text()
    expected = msgspec.to_builtins(settings.Settings())

    assert expected == tomllib.loads(text)


def test_every_key_is_explained() -> None:
    """Each key of the reference files stands under a comment."""
    for path in (ROOT / "configs" / "bidder.toml", ROOT / "configs" / "exchanges" / "generic.toml"):
        above = ""
        for line in path.read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                assert above.startswith("#"), f"{path.name}: {line}"
            above = line


def test_generic_exchange_is_the_reference() -> None:
    """generic.toml holds every key of an exchange, with its default."""
    values = tomllib.loads((ROOT / "configs" / "exchanges" / "generic.toml").read_text())
    defaults = msgspec.json.decode(msgspec.json.encode(Exchange(name="generic", path="generic")))

    assert defaults == values


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links and paths in code spans that look like files of ours exist."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:rtb|ext|configs|docs|tests|bench)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_versions_agree() -> None:
    """The package, its metadata and the changelog speak of the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert __version__ == project["version"]
    assert (
        f"[{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        or "[Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_readme_names_what_a_newcomer_needs() -> None:
    """The README begins with the two commands, and names every command of `rtb`."""
    text = (ROOT / "README.md").read_text()

    assert text.index("make demo") < 1500
    assert text.index("make test") < 1500
    for name in ("import", "seed", "serve", "explain", "train", "traffic", "exchange"):
        assert f"rtb {name}" in text, name


def test_nothing_names_a_registry_or_a_machine() -> None:
    """Lock file and documents hold no address of an index and no path of somebody's machine."""
    lock = (ROOT / "requirements.lock").read_text()

    assert "://" not in lock
    assert "--hash=sha256:" in lock
