"""Generations that the keeper reads aside: what a turn waits for, and what it does not."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt
from rtb.catalogue.model import Budget
from rtb.catalogue.snapshot import Snapshot
from rtb.keeper.follow import RETRY_MS, Follower
from rtb.stores import artifacts
from rtb.stores.serving import ServingFile, StatePaths, write_serving
from tests.keeper.pacing_node import snapshot_of

PACED = {"pacing": "traffic", "budget": Budget(daily="10")}
WAIT_S = 20.0  # for a thread that is done at once, unless it is broken


@dataclass
class Followed:
    """A follower over a folder, whose reading can be held up."""

    paths: StatePaths
    go_on: threading.Event = field(default_factory=threading.Event)
    opened: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.go_on.set()
        self.follower = Follower(self.paths, self._open, lambda: HeldUp(self.go_on))

    def _open(self, snapshot: Snapshot) -> None:
        self.opened.append(len(snapshot["line_items"]))

    def publish(self, generation: int, *line_items: str) -> None:
        made = snapshot_of(dict.fromkeys(line_items, PACED))
        path = artifacts.write_snapshot(self.paths.snapshots, made.arrays, made.meta)
        name = str(path.relative_to(self.paths.root))
        write_serving(self.paths, ServingFile(generation, name, ""))

    def held_up_by_the_second(self) -> None:
        """Its first generation is in force at 0 ms, its second is being read at 1000 ms."""
        self.publish(1, "shoes")
        self.follower.look(0)
        self.go_on.clear()
        self.publish(2, "shoes", "hats")
        assert self.follower.look(1000) is None

    def done(self) -> None:
        """Waits for what is being read, as turns do not."""
        reading = self.follower._reading
        assert reading is not None
        reading.exception(WAIT_S)


class HeldUp(Mapping[str, Sequence[int]]):
    """Weights of no zone, which whoever asks for one has to wait for."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def __getitem__(self, zone: str) -> Sequence[int]:
        assert self._go_on.wait(WAIT_S)
        raise KeyError(zone)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.fixture(name="followed")
def followed_fixture(tmp_path: Path) -> Iterator[Followed]:
    found = Followed(StatePaths(tmp_path))
    yield found
    found.go_on.set()
    found.follower.close()


def test_nothing_is_served_yet(followed: Followed) -> None:
    """A keeper without a catalogue goes on without one."""
    assert followed.follower.look(0) is None


def test_the_first_generation_is_waited_for(followed: Followed) -> None:
    """Nothing is lent before it: a restarted keeper has its budgets in its first turn."""
    followed.publish(1, "shoes", "hats")
    found = followed.follower.look(0)
    assert found is not None
    assert (1, 2, 2) == (found.generation, len(found.plans), len(found.chart.line_items))
    assert 2 == len(found.aimed.budgets)
    assert followed.follower.look(50) is None


def test_turns_go_on_while_a_generation_is_read(followed: Followed) -> None:
    """Caps are known at once, budgets when they have been read; each is handed over once."""
    followed.held_up_by_the_second()
    assert [1, 2] == followed.opened

    followed.go_on.set()
    followed.done()
    found = followed.follower.look(1050)
    assert found is not None
    assert 2 == found.generation
    assert followed.follower.look(1100) is None


def test_a_generation_that_comes_meanwhile_is_read_next(followed: Followed) -> None:
    """One at a time, and none is forgotten; its caps are known at once."""
    followed.held_up_by_the_second()
    followed.publish(3, "shoes", "hats", "gloves")
    followed.follower.look(1010)
    assert [1, 2, 3] == followed.opened
    followed.go_on.set()
    followed.done()
    second = followed.follower.look(1050)
    followed.follower.look(1100)
    followed.done()
    third = followed.follower.look(1150)
    assert second is not None
    assert third is not None
    assert [2, 3] == [second.generation, third.generation]


def test_a_broken_generation_is_looked_at_again_in_a_while(followed: Followed) -> None:
    """It is said once a second, not in each turn, and a good one is taken up."""
    followed.publish(1, "shoes")
    followed.follower.look(0)
    followed.paths.serving.write_bytes(b"{")
    with pytest.raises(StoreCorrupt):
        followed.follower.look(1000)
    followed.follower.try_again(1000)
    assert followed.follower.look(1000 + RETRY_MS // 2) is None
    with pytest.raises(StoreCorrupt):
        followed.follower.look(1000 + RETRY_MS)
    followed.follower.try_again(1000 + RETRY_MS)

    followed.publish(2, "shoes")
    followed.follower.look(1001 + RETRY_MS)
    assert [1, 1] == followed.opened
    followed.follower.look(1000 + 2 * RETRY_MS)
    followed.done()
    found = followed.follower.look(1050 + 2 * RETRY_MS)
    assert found is not None
    assert 2 == found.generation


def test_budgets_that_the_books_did_not_take_come_again(followed: Followed) -> None:
    """Who could not put them in force says so, and gets the same anew."""
    followed.publish(1, "shoes")
    followed.follower.look(0)
    followed.follower.try_again(1000)
    assert followed.follower.look(1100) is None
    followed.follower.look(1000 + RETRY_MS)
    followed.done()
    found = followed.follower.look(1000 + 2 * RETRY_MS)
    assert found is not None
    assert 1 == found.generation
