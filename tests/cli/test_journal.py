"""`rtb journal`: an operator looks at a damaged journal, gives up what is lost, and goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rtb.base.errors import ConfigError, StoreError
from rtb.base.events import Kind
from rtb.cli.main import gathered
from rtb.keeper.reconcile import audit_of
from rtb.ledger.accounts import Balance
from rtb.server.claim import claim_state
from tests.cli.books import Laid, bill, configs_of
from tests.keeper.node import Bid, line


def ran(node: Laid, *arguments: str) -> Result:
    """The command's result."""
    return CliRunner().invoke(
        gathered(), ["journal", arguments[0], "--data", str(node.folder), *arguments[1:]]
    )


@pytest.fixture(name="node")
def node_fixture(tmp_path: Path) -> Iterator[Laid]:
    """The disk loses a bill before the keeper has read it; others stand behind it."""
    node = Laid(tmp_path / "state")
    node.offer(line(1, 10_000_000))
    node.start_all()
    worker = node.workers[0]
    assert worker is not None
    bill(node, worker, 1, 2)
    bids: list[Bid] = []
    while len(bids) < 3:
        bid = worker.bid(1)
        bids += [bid] if bid is not None else []
        node.turn()
    for bid in bids:
        worker.notice(Kind.BILL, bid, 700)
    node.commit()
    segment = worker.journal._segment.map
    lost = (worker.journal.last_sequence - 2).to_bytes(8, "little")
    segment[segment.find(lost, 1024) + 40] ^= 1
    for _ in range(4):
        node.turn()
    yield node
    node.close()


def booked(node: Laid) -> int:
    """What was billed to the line item."""
    return node.balance(Balance.POSTED, 1)


def test_the_keeper_goes_on_behind_what_is_given_up(node: Laid) -> None:
    """The damage is named; with the operator's word the rest is booked, and the audit agrees."""
    assert node.keeper.tails.faults()
    assert 2 * 700 == booked(node)
    seen = ran(node, "check", "--json")
    (lost,) = json.loads(seen.stdout)
    for worker in node.workers:
        if worker is not None:
            worker.kill()
    asked = ran(node, "give-up")
    done = ran(node, "give-up", "--yes")
    again = ran(node, "give-up", "--yes")
    node.keeper.close()
    node.start_keeper()
    node.turns(4)
    with node.view() as view:
        report = audit_of(view, node.audited)

    assert (1, 0, lost["first"]) == (seen.exit_code, lost["worker"], lost["last"])
    assert lost["after"] <= lost["before"]
    assert not lost["given_up"]
    assert (1, 0, 0) == (asked.exit_code, done.exit_code, again.exit_code), done.output
    assert "say --yes" in asked.output
    assert "are lost (1)" in done.output
    assert "given up" in done.output
    assert "nothing to give up" in again.output
    assert 4 * 700 == booked(node)
    assert {} == node.keeper.tails.faults()
    assert report.agrees
    assert any("1 damaged records are missing" in note for note in report.notes)
    assert 0 == ran(node, "check").exit_code


def test_an_audit_does_not_pass_over_damage(node: Laid) -> None:
    """What the disk loses before the keeper or behind it is no agreement until somebody has given
    it up."""
    worker = node.workers[1]
    assert worker is not None
    first = worker.bid(1)
    while first is None:
        node.turn()
        first = worker.bid(1)
    node.turns(3)
    with node.view() as view:
        before = audit_of(view, node.audited)
    segment = worker.journal._segment.map
    segment[segment.find((1).to_bytes(8, "little"), 1024) + 40] ^= 1
    with node.view() as view:
        after = audit_of(view, node.audited)

    for report, count in ((before, 1), (after, 2)):
        assert not report.agrees
        assert 0 == report.difference_micros
        assert count == sum("rtb journal check" in note for note in report.notes)


def test_an_audit_looks_to_the_end_of_what_was_answered(tmp_path: Path) -> None:
    """The last segment is cut off inside its last record, which the keeper has not read."""
    node = Laid(tmp_path / "state")
    node.offer(line(1, 10_000_000))
    node.start_all()
    worker = node.workers[0]
    assert worker is not None
    (bid,) = bill(node, worker, 1, 1)
    worker.notice(Kind.BILL, bid, 700)
    node.commit()
    with node.view() as view:
        before = audit_of(view, node.audited)
    path = worker.journal._segment.path
    os.truncate(path, len(path.read_bytes().rstrip(b"\0")) - 5)
    seen, audited = (
        ran(node, "check"),
        CliRunner().invoke(
            gathered(),
            ["audit", "--data", str(node.folder), "--configs", str(configs_of(tmp_path)), "--json"],
        ),
    )
    report = json.loads(audited.stdout)

    assert before.agrees
    assert 1 == before.not_applied
    assert (1, 1) == (seen.exit_code, audited.exit_code)
    assert not report["agrees"]
    assert 0 == report["difference_micros"]
    assert [
        "1 damaged records are missing", "look at it with `rtb journal check`",
    ] == [note.split(": ")[1] for note in report["notes"]]  # fmt: skip
    node.close()


def test_a_running_node_is_left_alone(node: Laid) -> None:
    """Neither the supervisor's directory nor a living worker's journal is touched."""
    alive = ran(node, "give-up", "--yes")
    lock = claim_state(node.paths, 0.0)
    running = ran(node, "give-up", "--yes")
    os.close(lock)

    assert isinstance(alive.exception, StoreError)
    assert "a worker writes this journal" in str(alive.exception)
    assert isinstance(running.exception, ConfigError)
    assert "another `rtb serve` runs there" in str(running.exception)
    assert 1 == ran(node, "check").exit_code


def test_a_directory_without_journals(tmp_path: Path) -> None:
    """It is told as such, and stays empty."""
    for command in ("check", "give-up"):
        result = CliRunner().invoke(gathered(), ["journal", command, "--data", str(tmp_path)])
        assert isinstance(result.exception, StoreError)
    assert [] == list(tmp_path.iterdir())
