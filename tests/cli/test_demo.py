"""The demonstration: from nothing to a summary and an audit, and no process left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rtb.base.errors import ConfigError
from rtb.cli import demo
from rtb.cli.demo import Demo, _drops
from rtb.cli.demo_books import Money, Rates
from rtb.keeper.reconcile import Node

ROOT = Path(__file__).parents[2]
TINY = {"DEMO_LINE_ITEMS": "200", "DEMO_PRODUCTS": "200", "DEMO_PROFILES": "300"}


def start(data: Path, **environ: str) -> "subprocess.Popen[str]":
    environment = os.environ | TINY | {"DEMO_DIR": str(data), "DEMO_RATE": "50"} | environ
    # A suite that runs in the background of a shell has inherited that interrupts are ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "rtb.cli.demo"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.server
def test_it_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With DEMO_SECONDS it ends with code 0, an explained request, an audit that agrees, a JSON
    line, no server left. A second run whose invoice lacks a line ends with 1, and what the first
    run spent is not missing on it.
    """
    process = start(tmp_path, DEMO_SECONDS="1.5")
    out, err = process.communicate(timeout=120)

    assert 0 == process.returncode, out + err
    found = json.loads(out.strip().splitlines()[-1])
    assert {"requests", "bids", "wins", "p50_ms", "p99_ms", "timeouts", "spend"} <= set(found)
    assert (True, 0) == (found["audit_agrees"], found["audit_difference_micros"])
    assert found["billed"] == found["booked"] > 0
    assert "explain" in out
    assert f"agrees to the micro: {found['booked']:,} bills" in out
    port = re.search(r":([0-9]+)/openrtb2", out)
    assert port is not None
    assert is_free(int(port[1]))

    set_environ(monkeypatch, tmp_path)
    monkeypatch.setattr(demo.books, "money_of", without_last_line(demo.books.money_of))

    assert 1 == demo.main()
    out = capsys.readouterr().out
    spoilt = json.loads(out.strip().splitlines()[-1])
    assert (False, spoilt["billed"] - 1) == (spoilt["audit_agrees"], spoilt["booked"])
    assert spoilt["audit_difference_micros"] > 0
    assert ["1"] == re.findall(r"missing there ([0-9,]+)", out)


def set_environ(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """A short run of a few requests."""
    said = TINY | {"DEMO_DIR": str(data), "DEMO_RATE": "50", "DEMO_SECONDS": "1.5"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)


def without_last_line(money_of: Callable[..., Money]) -> Callable[..., Money]:
    """The same with an invoice that lacks a bill."""

    def spoilt(node: Node, rates: Rates, invoice: Path, *more: int) -> Money:
        lines = invoice.read_text().splitlines(keepends=True)
        invoice.write_text("".join(lines[:-1]))
        return money_of(node, rates, invoice, *more)

    return spoilt


@pytest.mark.server
def test_interrupted_it_still_sums_up(tmp_path: Path) -> None:
    """Ctrl-C ends the exchange, and what was seen is still told."""
    process = start(tmp_path, DEMO_SECONDS="0")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("exchange"):
            break
    # The load processes start now; wherever the interrupt meets them, nothing may be left.
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode in {0, 130}, err
    if process.returncode == 0:
        assert json.loads(out.strip().splitlines()[-1])["requests"] > 0


@pytest.mark.server
def test_a_server_that_fails_shows_its_log(tmp_path: Path) -> None:
    """When the server cannot start, the demo fails with what the server said."""
    run = tmp_path / "run"
    run.write_text("a file where a directory belongs")
    process = start(tmp_path, DEMO_SECONDS="1")
    _, err = process.communicate(timeout=120)

    assert 1 == process.returncode
    assert "server log" in err
    assert "run" in err


def test_settings_come_from_the_environment() -> None:
    """Defaults, numbers, and nonsense that is refused by name."""
    assert (0.0, 1000.0, Path(".demo")) == (
        Demo.of({}).seconds, Demo.of({}).rate, Demo.of({}).data,
    )  # fmt: skip
    assert 10_000 == Demo.of({}).parameters.line_items
    assert 20.0 == Demo.of({"DEMO_SECONDS": "20"}).seconds
    with pytest.raises(ConfigError, match="DEMO_RATE"):
        Demo.of({"DEMO_RATE": "fast"})


def test_reasons_are_read_from_the_metrics() -> None:
    """The most frequent reasons come first."""
    text = (
        b'# TYPE x\nrtb_rejects_total{reason="size"} 5.0\nrtb_rejects_total{reason="floor"} 1e3\n'
    )

    assert "floor 1,000, size 5" == _drops(text)
    assert "" == _drops(b"")
