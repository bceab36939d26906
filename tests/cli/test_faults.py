"""Faults of commands: one line on standard error that says why, and an exit code that tells."""

import sys
from pathlib import Path

import pytest

from rtb.base.events import Kind, bid_id
from rtb.cli import main
from rtb.sim.seed import Parameters, seed
from rtb.stores.journal_write import Journal
from rtb.stores.ledger_sql import LedgerStore
from rtb.stores.serving import StatePaths
from tests.keeper.node import SIZES
from tests.keeper.records import bid_body, claims
from tests.stores.journals import COMPILED, Disk


@pytest.fixture(name="rtb")
def rtb_fixture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `rtb` as a shell would: the exit code, and the lines of standard error."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["rtb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), capsys.readouterr().err.splitlines()

    return run


def test_seed_where_no_directory_can_be(rtb, tmp_path: Path) -> None:
    """A path through a file is told in one line."""
    (tmp_path / "file").write_text("")
    code, lines = rtb("seed", "--data", tmp_path / "file" / "x", "--line-items", 10)
    assert (1, 1) == (code, len(lines))
    assert lines[0].startswith(f"rtb: {tmp_path}/file/x: cannot seed: ")


@pytest.mark.parametrize("options", [(), ("--log", 5)])
def test_traffic_of_a_directory_that_is_not_seeded(rtb, tmp_path: Path, options) -> None:
    """Nothing is written, and a file that is there stays as it is."""
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    code, lines = rtb("traffic", "--data", tmp_path / "none", "--out", out, *options)
    assert (1, 1) == (code, len(lines))
    assert lines[0].startswith(f"rtb: {tmp_path}/none: not a seeded directory")
    assert "precious" == out.read_text()


def test_log_needs_a_directory(rtb, tmp_path: Path) -> None:
    """Wrong usage has its own exit code, and leaves the file alone too."""
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    code, _ = rtb("traffic", "--log", 5, "--out", out)
    assert (2, "precious") == (code, out.read_text())


def test_traffic_of_a_seeded_directory(rtb, tmp_path: Path) -> None:
    """What is seeded is served: as many lines as were asked for."""
    seed(tmp_path / "state", Parameters(line_items=10, products=10, profiles=50))
    out = tmp_path / "out.jsonl"
    code, lines = rtb("traffic", "--data", tmp_path / "state", "--count", 3, "--out", out)
    assert (0, []) == (code, lines)
    assert 3 == len(out.read_text().splitlines())


def test_train_on_a_log_that_is_not_there(rtb, tmp_path: Path) -> None:
    """A missing file is told as missing, whatever its name ends with."""
    for name in ("nofile", "nofile.csv"):
        code, lines = rtb("train", "--log", tmp_path / name, "--data", tmp_path)
        assert 2 == code
        assert [f"rtb: no such file - at `{tmp_path / name}`"] == lines


def test_serve_where_nothing_is(rtb, tmp_path: Path) -> None:
    """A mistyped directory is said, and not made."""
    code, lines = rtb("serve", "--data", tmp_path / "sate")
    assert (1, 1) == (code, len(lines))
    assert "no such directory" in lines[0]
    assert not (tmp_path / "sate").exists()


def test_serve_with_the_journal_of_another_node(rtb, tmp_path: Path) -> None:
    """A copied journal is named before any worker could write into it."""
    paths = StatePaths(tmp_path / "state")
    body = bid_body(claims(bid_id(9, 3, 0, 0), 7), 5, 4_000)
    with Journal.open(paths.journals, 0, SIZES, COMPILED, Disk().world()) as journal:
        journal.append(Kind.BID, body)
    code, lines = rtb("serve", "--data", tmp_path / "state", "--node", 4)
    assert (1, 1) == (code, len(lines))
    assert f"rtb: a journal of node 3, not of node 4 - at `{paths.journals / '0'}`" == lines[0]


def test_serve_with_the_books_of_another_node(rtb, tmp_path: Path) -> None:
    """Two nodes on the same books would take them from each other."""
    paths = StatePaths(tmp_path / "state")
    paths.ledger.parent.mkdir(parents=True)
    with LedgerStore.open(paths.ledger_url) as books:
        books.load(3)
    code, lines = rtb("serve", "--data", tmp_path / "state", "--node", 4)
    assert (1, 1) == (code, len(lines))
    assert lines[0].startswith("rtb: these are the books of node 3")
