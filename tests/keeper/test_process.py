"""The keeper's process: what goes on when its books cannot be written."""

import pytest

from rtb.base.errors import StoreError
from rtb.base.events import Kind
from rtb.keeper.process import Options, Process
from rtb.pacing.goal import Law
from rtb.stores.board import Board, NoticeResult
from rtb.stores.serving import StatePaths
from tests.keeper import test_exports
from tests.keeper.records import EXCHANGES
from tests.stores.journals import COMPILED

paths = test_exports.paths_fixture
keeper = test_exports.keeper_fixture


@pytest.mark.parametrize("keeper", [0], indirect=True)
def test_a_full_disk_stops_no_turn(
    paths: StatePaths, keeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is wrong, waits, and goes on with the same batch; nobody starts it anew."""

    def full(*_: object) -> None:
        raise StoreError("no room on the disk")

    monkeypatch.setattr(type(keeper.keeper._books), "_write", full)
    for now_s in (100.0, 200.0, 300.0):
        keeper.turn(now_s)
    row = Board.open(paths.board).keeper[0]
    assert ("no room on the disk", 1) == (keeper.keeper.fault, row["waits"])
    monkeypatch.undo()
    keeper.turn(400.0)

    assert ("", 0) == (keeper.keeper.fault, row["waits"])
    assert 9 == row["records"]


@pytest.mark.parametrize("law", Law)
def test_the_law_of_pacing_is_chosen(paths: StatePaths, law: Law) -> None:
    """By its name in the settings; the other is there to fall back on."""
    process = Process(
        Options(paths.ledger_url, pacing_law=law.name.lower()), paths, EXCHANGES, COMPILED
    )
    try:
        assert law is process.pacers._settings.tuning.law
    finally:
        process.close()


def test_counters_go_on_where_the_last_keeper_ended(paths: StatePaths) -> None:
    """Of nine clicks on one bid all but the first are copies; a new keeper forgets no count."""
    for _ in range(2):
        process = Process(Options(paths.ledger_url), paths, EXCHANGES, COMPILED)
        try:
            process.turn(100.0)
        finally:
            process.close()
        row = Board.open(paths.board).keeper[0]
        clicks = row["notices"][Kind.CLICK]

        assert (9, 0) == (row["records"], row["wins"])
        assert (1, 8) == (clicks[NoticeResult.OK], clicks[NoticeResult.DUPLICATE])
