"""`rtb journal export`, as a command and as the child of a node, also when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from rtb.base.errors import StoreError
from rtb.base.events import Kind
from rtb.cli.main import gathered
from rtb.stores.journal_write import Journal, Limits
from rtb.stores.serving import StatePaths
from tests.cli.books import Laid, bill, configs_of
from tests.keeper.node import SIZES, line
from tests.keeper.records import bid_body, claims
from tests.stores.journals import COMPILED, Disk

ROOT = Path(__file__).parents[2]


def ran(folder: Path, *arguments: str) -> Result:
    """The command's result."""
    return CliRunner().invoke(gathered(), ["journal", "export", "--data", str(folder), *arguments])


def test_two_workers_of_a_node(tmp_path: Path) -> None:
    """Bids and bills join on one id; what a worker still writes waits for its next start."""
    node = Laid(tmp_path / "state")
    node.offer(line(1, 10_000_000))
    node.start_all()
    for worker in node.workers:
        assert worker is not None
        bill(node, worker, 1, 3)
    node.close()
    configs = ("--configs", str(configs_of(tmp_path)))
    before = json.loads(ran(node.folder, "--json", *configs).stdout)
    for number in (0, 1):
        Journal.open(node.journals, number, SIZES, COMPILED, Disk().world()).close()
    result = ran(node.folder, *configs)
    table = pq.read_table(sorted(node.paths.events.glob("*/*.parquet")))
    bids = table.filter(table.column("kind").to_numpy() == "bid").column("bid").to_pylist()
    bills = table.filter(table.column("kind").to_numpy() == "bill")

    assert [(0, 0), (1, 0)] == [(one["worker"], one["rows"]) for one in before]
    assert all(one["waits"] >= 6 for one in before)
    assert 0 == result.exit_code, result.output
    assert "worker 0: 1 segments, " in result.stdout
    assert sorted(bids) == sorted(bills.column("bid").to_pylist())
    assert 6 == len(set(bids))
    assert {700} == set(bills.column("charged_nanos").to_pylist())
    assert {"adx"} == set(bills.column("exchange").to_pylist())


def test_a_directory_without_journals(tmp_path: Path) -> None:
    """It is told as such, and stays empty."""
    result = ran(tmp_path)

    assert isinstance(result.exception, StoreError)
    assert [] == list(tmp_path.iterdir())


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """`kill -9` leaves no half file under a good name; the next one does all of it."""
    paths = StatePaths(tmp_path / "state")
    body = bid_body(claims(9 << 32, 7), 5, 1_790_000_000_000)
    limits = Limits(segment_bytes=32 << 20)
    records = 150_000
    for count in (records, 0):
        with Journal.open(paths.journals, 0, limits, COMPILED, Disk().world()) as journal:
            for number in range(count):
                journal.append(Kind.BID, body)
                if number % 10_000 == 0:
                    journal.turn()
    command = [sys.executable, "-m", "rtb.cli.main", "journal", "export", "--data", str(paths.root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        while not list(paths.events.glob("*/*.new")):
            assert child.poll() is None, "it was done before it could be killed"
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
    left = list(paths.events.glob("*/*.parquet"))
    result = ran(paths.root, "--json")
    (done,) = json.loads(result.stdout)

    assert [] == left
    assert (records, 1, 0) == (done["rows"], done["segments"], done["waits"])
    assert [] == list(paths.events.rglob("*.new"))
    assert records == sum(
        pq.read_metadata(path).num_rows for path in paths.events.glob("*/*.parquet")
    )


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure is named, by the command and before a node starts."""
    (tmp_path / "journals").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert "pip install rtb[export]" in str(ran(tmp_path).exception)
