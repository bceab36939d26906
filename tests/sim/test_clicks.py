"""The hidden truth, and logs of it that training reads."""

from itertools import islice
from pathlib import Path

import orjson
import pytest

from rtb.base.errors import ConfigError
from rtb.base.records import Dim
from rtb.learn.dataset import read_logs
from rtb.sim import world
from rtb.sim.clicks import Ad, click_odds, conversion_odds, log_lines, normal
from rtb.sim.seed import build_catalogue
from rtb.sim.shelves import VERTICALS
from rtb.sim.traffic import Traffic
from tests.sim.conftest import NOW_S, SMALL


def test_names_have_their_number() -> None:
    """The effect of a name is its own, and over many names they scatter around nothing."""
    values = [normal(Dim.AD, f"name {number}") for number in range(2000)]

    assert normal(Dim.AD, "x") == normal(Dim.AD, "x")
    assert abs(sum(values) / 2000) < 0.1
    assert 0.9 < (sum(value**2 for value in values) / 2000) ** 0.5 < 1.1


def test_interest_makes_clicks() -> None:
    """People click what they are interested in, and buy it, more often."""
    _, catalogue = build_catalogue(SMALL, NOW_S)
    people = world.people(500)
    visit = Traffic(1, 500).visit()
    creative = next(iter(catalogue.creatives.values()))
    line_item = next(iter(catalogue.line_items.values()))
    own = VERTICALS[people.interest[visit.person]]
    used = {people.interest[visit.person], people.interest2[visit.person]}
    other = next(each for number, each in enumerate(VERTICALS) if number not in used)
    liked = Ad(creative, own, line_item, "c", None)
    strange = Ad(creative, other, line_item, "c", None)

    assert click_odds(people, visit, liked, 12) > 1.5 * click_odds(people, visit, strange, 12)
    assert conversion_odds(people, visit, liked) > conversion_odds(people, visit, strange)
    assert 0.0 < click_odds(people, visit, strange, 12) < 0.2


def test_logs_are_read_by_training(seeded: Path, tmp_path: Path) -> None:
    """A log has clicks, and every column is one that the bidder knows when it bids."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in log_lines(seeded, 3000, 2)))
    found = read_logs([path])

    assert 3000 == found.rows_count
    assert 3 < int(found.clicks.sum()) < 120
    assert ((), ()) == (found.ignored, found.unseen)
    assert found.times_s is not None
    assert (found.times_s[1:] >= found.times_s[:-1]).all()


def test_a_seed_repeats(seeded: Path) -> None:
    """The same seed logs the same impressions, apart from the day."""

    def rows(seed: int) -> list[dict[str, object]]:
        lines = islice(log_lines(seeded, 1000, seed), 100)
        return [orjson.loads(line) | {"time": 0} for line in lines]

    assert rows(2) == rows(2)
    assert rows(2) != rows(3)


def test_only_seeded_directories_have_a_truth(tmp_path: Path) -> None:
    """Without a stamp nobody knows which ads there are."""
    with pytest.raises(ConfigError, match="not a seeded directory"):
        log_lines(tmp_path, 10, 1)
