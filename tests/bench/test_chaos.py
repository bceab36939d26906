"""The chaos run: whom it hits, what it makes of budgets, and when it says that money holds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import chaos
from bench.chaos import KEEPER, ZEROS, Chaos, Chosen, Found, parse

ROOT = Path(__file__).parents[2]


class Processes:
    """A node whose processes are numbers, and come back after some looks."""

    def __init__(self, looks: int = 3) -> None:
        self.names = [KEEPER, "worker 0", "worker 1"]
        self._looks, self._left = looks, dict.fromkeys(self.names, 0)

    def pid(self, name: str) -> int:
        return 100 + self.names.index(name)

    def works(self, name: str, before: int, killed_ms: int) -> bool:
        self._left[name] += 1
        return self._left[name] % self._looks == 0


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was sent to whom; nobody gets it."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


def strikes(seed: int, count: int, looks: int = 1) -> Chaos:
    """A second after the other, each with a look in between."""
    found = Chaos(Processes(looks), seed)  # type: ignore[arg-type]
    now_s = time.monotonic()
    for number in range(count):
        found._strike(now_s + number)
        found._watch(now_s + number + 0.999)
    return found


def test_one_seed_is_one_story(signals: list[tuple[int, int]]) -> None:
    """The same seed hits the same processes with the same; another seed others."""
    strikes(7, 60)
    first = [one for one in signals if one[1] != signal.SIGCONT]
    signals.clear()
    strikes(7, 60)
    second = [one for one in signals if one[1] != signal.SIGCONT]
    signals.clear()
    strikes(8, 60)

    assert first == second
    assert first != [one for one in signals if one[1] != signal.SIGCONT]
    assert {100, 101, 102} == {pid for pid, _ in first}
    assert {signal.SIGKILL, signal.SIGSTOP} == {number for _, number in first}


def test_who_is_stopped_goes_on(signals: list[tuple[int, int]]) -> None:
    """Every stop is followed by its end, and a stopped process is not hit again before."""
    found = strikes(7, 60)
    found._watch(time.monotonic() + 1000)
    numbers = [number for _, number in signals]

    assert found.stops == numbers.count(signal.SIGSTOP) == numbers.count(signal.SIGCONT) > 0
    assert found.kills == numbers.count(signal.SIGKILL)
    assert found.kills == sum(len(one) for one in found.restarts_ms.values())


def test_who_does_not_come_back(signals: list[tuple[int, int]]) -> None:
    """A process that stays away ends the run."""
    with pytest.raises(chaos.BenchError, match="not back"):
        strikes(7, 60, looks=1000)


def test_budgets_are_made_small(tmp_path: Path) -> None:
    """Two thirds of the line items get budgets that end; the same ones for the same seed."""
    path = tmp_path / "line_items.jsonl"
    source = "".join(json.dumps({"id": f"li{number}"}) + "\n" for number in range(300))
    path.write_text(source)
    chaos._tighten(path, 7)
    first = path.read_text()
    path.write_text(source)
    chaos._tighten(path, 7)
    items = [json.loads(line) for line in first.splitlines()]
    small = [item for item in items if "budget" in item]

    assert first == path.read_text()
    assert 150 < len(small) < 250
    assert {"asap", "even"} == {item["pacing"] for item in small}
    assert any("impressions" in item["budget"] for item in small)


@pytest.mark.parametrize("name", ZEROS)
def test_what_holds(name: str) -> None:
    """One unit where zero belongs is a failure, and so is a run in which nothing happened."""
    good = Found(kills=3, billed=5)

    assert good.holds
    assert not Found(kills=3, billed=5, **{name: 1}).holds
    assert not Found(kills=3, billed=5, wrong=["a difference"]).holds
    assert not Found(kills=0, billed=5).holds
    assert not Found(kills=3, billed=0).holds


def test_options() -> None:
    """The command line of the issue is understood."""
    assert (Chosen(seconds=9, seed=3), True) == parse(["--seconds", "9", "--seed", "3", "--json"])


def test_a_short_run_holds() -> None:
    """The real thing for some seconds: processes die under load, and money stays exact."""
    command = [sys.executable, "bench/chaos.py", "--seconds", "5", "--seed", "3", "--json"]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.stdout, found.stderr
    summary = json.loads(found.stdout.splitlines()[-1])

    assert dict.fromkeys(ZEROS, 0) == {name: summary[name] for name in ZEROS}
    assert summary["kills"] > 0
    assert summary["billed"] > 0
