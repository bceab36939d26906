"""`rtb import`: all or nothing, in part on demand, and exit codes that scripts can trust."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rtb.cli.import_ import APPLIED, IN_PART, NO_STORE, REFUSED, command, run
from rtb.stores.artifacts import current, open_snapshot

GOOD = {
    "advertisers": [{"id": "a", "domains": ["shop.example"]}],
    "campaigns": [{"id": "c", "advertiser": "a"}],
    "creatives": [{"id": "cr", "advertiser": "a", "type": "html", "html": "<b>x</b>",
                   "categories": {"1": ["IAB1"]}}],
    "line_items": [{"id": "li", "campaign": "c", "goal": {"type": "cpm", "amount": "2"},
                    "creatives": ["cr"]}],
}  # fmt: skip
BAD = {"line_items": [{"id": "bad", "campaign": "c", "goal": {"type": "cpm"}, "creatives": ["cr"]}]}


@pytest.fixture(name="directory")
def directory_fixture(tmp_path: Path) -> Path:
    directory = tmp_path / "catalogue"
    directory.mkdir()
    (directory / "good.json").write_text(json.dumps(GOOD))
    return directory


def spoil(directory: Path) -> None:
    (directory / "spoilt.json").write_text(json.dumps(BAD))


def served(data: Path) -> list[str]:
    """Ids of the line items that workers would serve."""
    path = current(data / "snapshots", "snapshot")
    if path is None:
        return []
    snapshot = open_snapshot(path)
    return [snapshot.id_of("line_items", n) for n in range(len(snapshot["line_items"]))]


def test_good_catalogue_is_published(directory: Path, tmp_path: Path) -> None:
    """The snapshot is current, and holds the line items."""
    report = run(directory, tmp_path / "state")
    assert (report.applied, report.exit_code, report.problems) == (True, APPLIED, [])
    assert served(tmp_path / "state") == ["li"]


def test_any_error_stops_it_and_the_last_good_stays(directory: Path, tmp_path: Path) -> None:
    """All or nothing."""
    run(directory, tmp_path / "state")
    spoil(directory)
    report = run(directory, tmp_path / "state")
    assert (report.applied, report.exit_code, report.snapshot) == (False, REFUSED, None)
    assert [problem.field for problem in report.problems] == ["goal.amount"]
    assert served(tmp_path / "state") == ["li"]


def test_partial_leaves_out_the_bad(directory: Path, tmp_path: Path) -> None:
    """The sound part goes live, and the report names the rest."""
    spoil(directory)
    report = run(directory, tmp_path / "state", partial=True)
    assert (report.applied, report.exit_code) == (True, IN_PART)
    assert report.left_out == ["line_items/bad"]
    assert served(tmp_path / "state") == ["li"]


def test_dry_run_writes_nothing(directory: Path, tmp_path: Path) -> None:
    """Checks alone."""
    report = run(directory, tmp_path / "state", dry_run=True)
    assert (report.applied, report.exit_code) == (False, APPLIED)
    assert not (tmp_path / "state").exists()


def test_unwritable_state_is_told(directory: Path, tmp_path: Path) -> None:
    """A disk that refuses has its own exit code."""
    (tmp_path / "state").write_text("a file, not a directory")
    report = run(directory, tmp_path / "state")
    assert (report.applied, report.exit_code) == (False, NO_STORE)


def test_importing_again_changes_nothing(directory: Path, tmp_path: Path) -> None:
    """Equal catalogues are one file: workers have nothing to swap."""
    first = run(directory, tmp_path / "state")
    assert first.snapshot == run(directory, tmp_path / "state").snapshot


@pytest.fixture(name="app")
def app_fixture() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def test_command_prints_for_machines(app: typer.Typer, directory: Path, tmp_path: Path) -> None:
    """One JSON object, and the exit code of the report."""
    spoil(directory)
    result = CliRunner().invoke(app, [str(directory), "--data", str(tmp_path / "s"), "--json"])
    report = json.loads(result.stdout)
    assert (result.exit_code, report["applied"]) == (REFUSED, False)
    assert report["problems"][0]["file"] == "spoilt.json"


def test_command_prints_for_people(app: typer.Typer, directory: Path, tmp_path: Path) -> None:
    """A table of problems in which words from files are not markup."""
    (directory / "odd.json").write_text('{"[red]":[]}')
    result = CliRunner().invoke(app, [str(directory), "--data", str(tmp_path / "s"), "--dry-run"])
    assert result.exit_code == REFUSED
    assert "[red]" in result.stdout
    assert "1 errors, 0 warnings" in result.stdout
