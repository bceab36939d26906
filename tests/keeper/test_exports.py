"""No segment goes before it is exported, and an export that is behind is told."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rtb.base.events import NOTICE, Kind
from rtb.keeper import exports
from rtb.keeper.process import Options, Process
from rtb.stores import events_export, journal_read
from rtb.stores.board import Board
from rtb.stores.board_money import MoneyBoard
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.journal_write import Journal
from rtb.stores.serving import StatePaths
from tests.keeper.records import ADX, claims
from tests.stores.journals import COMPILED, SMALL, Disk

T = 1_790_000_000
EXCHANGES = {"adx": ADX}


@pytest.fixture(name="paths")
def paths_fixture(tmp_path: Path) -> StatePaths:
    """A node with two whole segments and one that is being written, an hour ago."""
    paths = StatePaths(tmp_path)
    paths.board.parent.mkdir()
    Board.create(paths.board, 1, 8)
    MoneyBoard.create(paths.money_board, 1, 8)
    CapsBoard.create(paths.caps_board, 1, Sizes(64, 1 << 16))
    click = np.zeros(1, NOTICE)
    click["claims"], click["time_ms"] = claims(T << 32, 7), T * 1000
    for _ in range(3):
        with Journal.open(paths.journals, 0, SMALL, COMPILED, Disk().world()) as journal:
            for _ in range(3):
                journal.append(Kind.CLICK, click.tobytes())
            journal.turn()
    for path in segments(paths):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return paths


def segments(paths: StatePaths) -> list[Path]:
    """Of the one worker."""
    return [path for _, path in journal_read.segments(paths.journals / "0")]


@pytest.fixture(name="keeper")
def keeper_fixture(paths: StatePaths, request: pytest.FixtureRequest) -> Iterator[Process]:
    """The keeper's process, here; it keeps nothing longer than it must."""
    options = Options(paths.ledger_url, keep_s=0, export_every_s=request.param)
    process = Process(options, paths, EXCHANGES, COMPILED)
    yield process
    process.close()


def turned(keeper: Process, *moments_s: float) -> None:
    """Turns so far from each other that old segments are looked for in each."""
    for now_s in moments_s:
        keeper.turn(now_s)


@pytest.mark.parametrize("keeper", [10], indirect=True)
def test_segments_wait_for_their_export(
    paths: StatePaths, keeper: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Booked and counted is not enough; what waits is on the board and, when it is late, in the
    log. Once it is exported it goes, but for the segment that is being written."""
    row = Board.open(paths.board).keeper[0]
    with caplog.at_level(logging.ERROR):
        turned(keeper, 100.0, 200.0)
    assert (3, 2) == (len(segments(paths)), row["export_segments"])
    assert 3_590_000 <= row["export_lag_ms"] < 3_700_000
    assert "2 segments wait to be exported, the oldest for 3" in caplog.text

    exports.main(paths, 0, EXCHANGES, COMPILED)
    turned(keeper, 300.0)

    assert 1 == len(segments(paths))
    assert (0, 0, 0) == tuple(
        row[name] for name in ("export_segments", "export_lag_ms", "export_damaged")
    )
    assert 6 == events_export.progress_of(paths.events, 0).exported


@pytest.mark.parametrize("keeper", [0], indirect=True)
def test_without_an_export_nobody_waits(paths: StatePaths, keeper: Process) -> None:
    """Then segments go as before."""
    turned(keeper, 100.0, 200.0)

    assert 1 == len(segments(paths))
    assert 0 == Board.open(paths.board).keeper[0]["export_segments"]


@pytest.mark.parametrize("keeper", [10], indirect=True)
def test_nothing_goes_while_nobody_knows(
    paths: StatePaths, keeper: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A progress that cannot be read is no reason to remove what it may not name."""
    exports.main(paths, 0, EXCHANGES, COMPILED)
    (paths.events / "progress" / "0.json").write_text("{")
    turned(keeper, 100.0, 200.0)

    assert 3 == len(segments(paths))
    assert "nothing is removed" in caplog.text


def test_damage_is_said(paths: StatePaths, caplog: pytest.LogCaptureFixture) -> None:
    """By worker, once; the metric has the sum."""
    path = segments(paths)[0]
    data = bytearray(path.read_bytes())
    data[1024 + 20] ^= 1
    path.write_bytes(data)
    exports.main(paths, 0, EXCHANGES, COMPILED)
    exports.main(paths, 0, EXCHANGES, COMPILED)
    row = Board.open(paths.board).keeper[0]
    exports.Watch(paths, COMPILED, row, 10).look(T)

    assert 1 == caplog.text.count("worker 0: 1 damaged records are not in the export")
    assert 1 == row["export_damaged"]


def test_without_a_snapshot_there_are_no_names(
    paths: StatePaths, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be opened is said, and keeps no record back."""
    paths.serving.write_text("{")
    exports.main(paths, 0, EXCHANGES, COMPILED)

    assert "events are exported without names" in caplog.text
    assert 6 == events_export.progress_of(paths.events, 0).rows
