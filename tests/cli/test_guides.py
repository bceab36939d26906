"""The guides' examples: what they show as answered with a bid is."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest

from rtb.cli.explain import decide
from rtb.cli.import_ import run
from rtb.server.settings import CONFIGS
from rtb.sim.seed import Parameters, seed
from rtb.sim.traffic import Traffic

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
# Years apart, and at any hour: an example must not run out.
MOMENTS_MS = (1_800_000_000_000, 1_900_000_000_000, 2_000_012_345_000)


def _blocks(guide: str, language: str) -> str:
    text = (GUIDES / guide).read_text(encoding="utf-8")
    return "".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


def test_catalogue_of_the_guide_answers_its_request(tmp_path: Path) -> None:
    """Today and for years."""
    directory = tmp_path / "catalogue"
    directory.mkdir()
    (directory / "all.toml").write_text(_blocks("catalogue.md", "toml"))
    assert run(directory, tmp_path / "state").applied
    body = _blocks("catalogue.md", "json").encode()
    for at_ms in (None, *MOMENTS_MS):
        report = decide(body, tmp_path / "state", "generic", None, at_ms, CONFIGS)
        assert "bid" == report.outcome
        assert ["trail-deal"] == [line.line_item for line in report.imps[0].bids]


@pytest.fixture(name="configs")
def configs_fixture(tmp_path: Path) -> Path:
    """The settings of the checkout, and the exchange of the guide."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    text = (GUIDES / "exchanges.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?:^    \w+ = .*\n)+", text, re.MULTILINE)
    path = tmp_path / "configs" / "exchanges" / "example.toml"
    path.write_text(textwrap.dedent(block))
    return tmp_path / "configs"


def test_exchange_of_the_guide_bids_on_the_first_request(tmp_path: Path, configs: Path) -> None:
    """A newcomer's first request is not refused for its currency."""
    seed(tmp_path / "state", Parameters(line_items=2000, products=2000, profiles=2000))
    (body,) = Traffic(1, 2000).bodies(1)
    report = decide(body, tmp_path / "state", "example", None, None, configs)
    assert "bid" == report.outcome
