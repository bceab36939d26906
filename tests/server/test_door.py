"""The door: what is verified gets in, what is not stays out, and nobody waits for it."""

import logging
import os
import signal
import time
from pathlib import Path

import pytest

from rtb.server.door import Door
from rtb.stores import artifacts
from rtb.stores.serving import StatePaths, read_serving
from tests.decide import worlds

WAIT_S = 20


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    """A state directory with one snapshot."""
    publish(StatePaths(tmp_path), 1)
    return StatePaths(tmp_path)


def publish(paths: StatePaths, seed: int) -> Path:
    """Writes a snapshot and points to it."""
    snapshot = worlds.snapshot(seed, 5)
    return artifacts.write_snapshot(paths.snapshots, snapshot.arrays, snapshot.meta)


def poll_until_idle(door: Door) -> None:
    """Polls until nothing is being verified."""
    door.poll()
    limit_s = time.monotonic() + WAIT_S
    while door.verifying and time.monotonic() < limit_s:
        time.sleep(0.01)
        door.poll()

    assert not door.verifying


def test_start_verifies_at_once(paths: StatePaths) -> None:
    """Before there are workers, the first generation is let in without a child."""
    Door(paths).look()

    serving = read_serving(paths)
    assert serving is not None
    assert 1 == serving.generation


def test_a_new_snapshot_is_let_in(paths: StatePaths) -> None:
    """What is published while serving becomes the next generation."""
    door = Door(paths, nice=5)
    door.look()
    path = publish(paths, 2)
    poll_until_idle(door)

    serving = read_serving(paths)
    assert serving is not None
    assert (2, f"snapshots/{path.name}") == (serving.generation, serving.snapshot)


def test_a_bad_snapshot_is_refused(paths: StatePaths, capfd: pytest.CaptureFixture[str]) -> None:
    """A flipped bit keeps the last good generation in service, and the log says why."""
    door = Door(paths)
    door.look()
    path = publish(paths, 3)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    logging.getLogger("rtb.door").addHandler(handler := logging.StreamHandler())
    try:
        poll_until_idle(door)
    finally:
        logging.getLogger("rtb.door").removeHandler(handler)

    serving = read_serving(paths)
    assert serving is not None
    assert 1 == serving.generation
    assert "snapshot refused" in capfd.readouterr().err


def test_a_file_that_kills_its_reader_kills_nobody_else(
    paths: StatePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When verifying dies, the last good generation stays, and the next publication is seen."""
    door = Door(paths)
    door.look()
    publish(paths, 4)
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "open_snapshot", lambda *_, **__: os.kill(os.getpid(), 9))
        poll_until_idle(door)
    before = read_serving(paths)
    path = publish(paths, 5)
    poll_until_idle(door)

    after = read_serving(paths)
    assert before is not None
    assert after is not None
    assert (1, 2) == (before.generation, after.generation)
    assert f"snapshots/{path.name}" == after.snapshot


def test_closing_ends_what_is_being_verified(
    paths: StatePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that stops leaves no child behind."""
    door = Door(paths)
    door.look()
    publish(paths, 6)
    monkeypatch.setattr(artifacts, "open_snapshot", lambda *_, **__: signal.pause())
    door.poll()
    child = door.verifying
    door.close()

    assert child
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
