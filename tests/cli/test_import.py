"""`rtb import`: all or nothing, in part on demand, and exit codes that scripts can trust."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rtb.cli.import_ import APPLIED, IN_PART, NO_STORE, REFUSED, command, run
from rtb.keeper.chart import chart_of, plans_of
from rtb.ledger.chart import changes_to
from rtb.stores.artifacts import current, open_snapshot
from rtb.stores.ledger_sql import LedgerStore
from rtb.stores.serving import StatePaths

GOOD: dict[str, Any] = {
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


def book(data: Path) -> None:
    """Opens books for what is served, as a keeper does."""
    paths = StatePaths(data)
    paths.ledger.parent.mkdir(exist_ok=True)
    snapshot = open_snapshot(current(data / "snapshots", "snapshot") or data)
    with LedgerStore.open(paths.ledger_url) as books:
        state, _ = books.load(0)
        books.apply(changes_to(chart_of(snapshot, plans_of(snapshot)), state, 1_790_000_000))


def test_a_catalogue_with_books_is_imported_again(directory: Path, tmp_path: Path) -> None:
    """Day after day the same one, with whatever may change."""
    data = tmp_path / "state"
    run(directory, data)
    book(data)
    assert ([], APPLIED) == (run(directory, data).problems, run(directory, data).exit_code)
    more = GOOD | {"advertisers": [{"id": "a", "domains": ["other.example"], "name": "Shop"}]}
    (directory / "good.json").write_text(json.dumps(more))
    assert [] == run(directory, data).problems


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"advertisers": [{"id": "a", "domains": ["s.example"], "currency": "EUR"}]}, "currency"),
        ({"campaigns": [{"id": "c", "advertiser": "other"}]}, "advertiser"),
        ({"line_items": [GOOD["line_items"][0] | {"campaign": "of another"}]}, "campaign"),
    ],
)
def test_a_line_item_that_has_books_keeps_its_owner(
    directory: Path, tmp_path: Path, changed: dict[str, Any], field: str
) -> None:
    """Once there are books: refused with file, row and field. Before, all may change."""
    data = tmp_path / "state"
    others = {
        "advertisers": [{"id": "other", "domains": ["o.example"]}],
        "campaigns": [{"id": "of another", "advertiser": "a"}],
    }
    (directory / "others.json").write_text(json.dumps(others))
    run(directory, data)
    creatives = [GOOD["creatives"][0] | {"advertiser": "other" if field == "advertiser" else "a"}]
    (directory / "good.json").write_text(json.dumps(GOOD | {"creatives": creatives} | changed))
    assert [] == run(directory, data, dry_run=True).problems

    book(data)
    report = run(directory, data)
    (problem, *_) = report.problems
    assert ("good.json", 1, field) == (problem.file, problem.row, problem.field)
    assert "new id" in problem.message
    assert (["li"], REFUSED) == (served(data), report.exit_code)


def test_any_error_stops_it_and_the_last_good_stays(directory: Path, tmp_path: Path) -> None:
    """All or nothing."""
    run(directory, tmp_path / "state")
    spoil(directory)
    report = run(directory, tmp_path / "state")
    assert (report.applied, report.exit_code, report.snapshot) == (False, REFUSED, None)
    assert [problem.field for problem in report.problems] == ["goal.amount"]
    assert served(tmp_path / "state") == ["li"]


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_problems_name_the_table(
    app: typer.Typer, directory: Path, tmp_path: Path, option: list[str]
) -> None:
    """Objects are numbered by table, and a file may hold several."""
    spoil(directory)
    result = CliRunner().invoke(app, [str(directory), "--data", str(tmp_path / "s"), *option])
    if option:
        assert ["line_items"] == [each["table"] for each in json.loads(result.stdout)["problems"]]
    else:
        (line,) = [text for text in result.stdout.splitlines() if "spoilt.json" in text]
        assert ["error", "spoilt.json", "line_items", "1", "goal.amount"] == line.split()[:5]


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


PAUSED = GOOD | {"line_items": [GOOD["line_items"][0] | {"status": "paused"}]}


def test_empty_directory_takes_nothing_off_the_air(directory: Path, tmp_path: Path) -> None:
    """A path that is wrong is an error, whatever is published, and no option allows it."""
    run(directory, tmp_path / "state")
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "none", directory / "good.json"):
        for options in ({}, {"allow_empty": True}, {"partial": True, "allow_empty": True}):
            report = run(wrong, tmp_path / "state", **options)
            assert (False, REFUSED) == (report.applied, report.exit_code)
            assert "error" in [problem.severity for problem in report.problems]
    assert ["li"] == served(tmp_path / "state")


def test_last_line_item_ends_only_on_demand(directory: Path, tmp_path: Path) -> None:
    """A catalogue that serves nothing replaces one that does only if that is said."""
    run(directory, tmp_path / "state")
    (directory / "good.json").write_text(json.dumps(PAUSED))
    for options in ({}, {"dry_run": True}):
        report = run(directory, tmp_path / "state", **options)
        assert (False, REFUSED) == (report.applied, report.exit_code)
        assert "--allow-empty" in report.problems[-1].message
    assert ["li"] == served(tmp_path / "state")

    report = run(directory, tmp_path / "state", allow_empty=True)
    assert (True, APPLIED) == (report.applied, report.exit_code)
    assert [] == served(tmp_path / "state")


def test_partial_import_of_nothing_sound_is_refused(directory: Path, tmp_path: Path) -> None:
    """When errors take every line item along, the last good snapshot stays."""
    run(directory, tmp_path / "state")
    (directory / "good.json").write_text(json.dumps(GOOD | BAD))
    report = run(directory, tmp_path / "state", partial=True)
    assert (False, REFUSED) == (report.applied, report.exit_code)
    assert ["li"] == served(tmp_path / "state")


def test_first_import_may_serve_nothing(directory: Path, tmp_path: Path) -> None:
    """Where nothing is published nothing is lost: a warning is enough."""
    (directory / "good.json").write_text(json.dumps(PAUSED))
    report = run(directory, tmp_path / "state")
    assert (True, APPLIED) == (report.applied, report.exit_code)
    assert ["warning"] == [problem.severity for problem in report.problems]


def test_unreadable_pointer_is_told(directory: Path, tmp_path: Path) -> None:
    """Whether something is served cannot be known: nothing is replaced by nothing."""
    run(directory, tmp_path / "state")
    (tmp_path / "state" / "snapshots" / "current").write_text("../elsewhere")
    (directory / "good.json").write_text(json.dumps(PAUSED))
    report = run(directory, tmp_path / "state")
    assert (False, NO_STORE) == (report.applied, report.exit_code)


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


def test_command_refuses_a_path_that_is_none(app: typer.Typer, tmp_path: Path) -> None:
    """The exit code of errors, and the path in the report."""
    result = CliRunner().invoke(app, [str(tmp_path / "x"), "--data", str(tmp_path / "s"), "--json"])
    assert REFUSED == result.exit_code
    assert "No such file or directory" in json.loads(result.stdout)["problems"][0]["message"]
    assert not (tmp_path / "s").exists()


def test_values_that_no_request_has_are_warned_of(directory: Path, tmp_path: Path) -> None:
    """Countries and systems are checked against the lists of the decoder."""
    tree = {"all": [
        {"key": "country", "in": ["DEU", "xkx", "ZZZ"]},
        {"key": "os", "in": ["iPadOS", "Windows", "tvos", "nonsense"]},
    ]}  # fmt: skip
    line_items = [GOOD["line_items"][0] | {"targeting": tree}]
    (directory / "good.json").write_text(json.dumps(GOOD | {"line_items": line_items}))
    report = run(directory, tmp_path / "state")
    assert (True, APPLIED) == (report.applied, report.exit_code)
    expected = [("warning", "targeting.all[0].in[2]"), ("warning", "targeting.all[1].in[3]")]
    assert expected == [(problem.severity, problem.field) for problem in report.problems]
