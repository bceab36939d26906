"""The load generator counts what a server answers, and the clock goes on when it stalls.

Rates are low and sums are compared, never times: these tests hold on a busy machine.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import servers
from bench.latency import recovery_s

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("taskset")), reason="no C compiler, or no taskset"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Start = Callable[[bytes], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers that answer each request with the same bytes; yields their ports."""
    listeners: list[socket.socket] = []

    def serve(connection: socket.socket, answer: bytes) -> None:
        with connection:
            while connection.recv(65_536):
                if answer:
                    connection.sendall(answer)
                if b"close" in answer:
                    return

    def accept(listener: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection, answer), daemon=True).start()

    def begin(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
        return int(listener.getsockname()[1])

    yield begin
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    """Two bodies, one with a tmax."""
    path = tmp_path / "bodies.jsonl"
    path.write_text('{"id":"1","tmax":5000}\n\n{"id":"2"}\n')
    return path


def load(port: int, bodies: Path, *options: str) -> dict[str, object]:
    """The load generator on any core."""
    core = max(os.sched_getaffinity(0))
    return servers.load(port, bodies, core, "--connections=2", "--tmax-ms=5000", *options)


@pytest.mark.parametrize(
    ("answer", "counted"),
    [(OK, "bids"), (NO_CONTENT, "nobids"), (BAD, "refused"), (BROKEN, "failed")],
)
def test_answers_are_counted_by_status(
    start: Start, bodies: Path, answer: bytes, counted: str
) -> None:
    """All requests of an open loop are sent, and each answer counts once, by its status."""
    phase = load(start(answer), bodies, "--phase=200:0.2")["phases"][0]  # type: ignore[index]

    kinds = ("bids", "nobids", "refused", "failed", "other", "unsent", "errors", "unanswered")
    assert {kind: 40 if kind == counted else 0 for kind in kinds} == {
        kind: phase[kind] for kind in kinds
    }


def test_a_silent_server_does_not_stop_the_clock(start: Start, bodies: Path) -> None:
    """What finds no connection in time is dropped and counted; what was sent is unanswered."""
    options = ("--phase=200:0.2", "--connections-max=4", "--give-up-ms=20")
    phase = load(start(b""), bodies, *options)["phases"][0]  # type: ignore[index]

    assert (4, 36, 4) == (phase["sent"], phase["unsent"], phase["unanswered"])


def test_windows_add_up_to_the_phases(start: Start, bodies: Path) -> None:
    """Every request is in one window of the time at which it should have left."""
    found = load(start(OK), bodies, "--phase=100:0.2", "--phase=0:0.1", "--window-ms=50")
    phases, windows = found["phases"], found["windows"]

    for name in ("sent", "bids"):
        assert sum(row[name] for row in phases) == sum(  # type: ignore[attr-defined]
            row[name]
            for row in windows  # type: ignore[attr-defined]
        )


def test_the_floor_answers_what_comes_in_parts(bodies: Path) -> None:
    """A request is answered when it is whole, however it was cut, and two at once are two."""
    with servers.floor_server(max(os.sched_getaffinity(0))) as (_, port):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            for part in (b"POST / HTTP/1.1\r\nContent-", b"Length: 3\r\n\r\nab"):
                client.sendall(part)
            client.sendall(b"cGET / HTTP/1.1\r\n\r\n")
            received = b""
            while received.count(b"200 OK") < 2 or not received.endswith(b'"}'):
                received += client.recv(65_536)
        head, _, body = received.partition(b"\r\n\r\n")

    assert b"content-length: 700" in head
    assert 2 == received.count(b"HTTP/1.1 200 OK")
    assert "id" in json.loads(body[:700])


def test_cost_counts_children() -> None:
    """The cost of a tree is that of the process and of what it started."""
    child = "sum(range(3_000_000)); input()"
    parent = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
        " stdin=subprocess.PIPE); print(p.pid, flush=True); input(); p.communicate(b'\\n')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert [process.pid, grandchild] == servers.tree(process.pid)
        end_s = time.monotonic() + 20
        while servers.cpu_s(grandchild) < 0.02 and time.monotonic() < end_s:
            time.sleep(0.02)
        assert servers.cpu_s(process.pid) >= servers.cpu_s(grandchild) > 0
        process.communicate(b"\n")


def test_recovery_is_the_end_of_the_last_troubled_window() -> None:
    """Trouble is a p99 that is over the promise and worse than before, or a request unsent."""
    calm = {"p99_ms": 1.0, "unsent": 0}
    windows = [
        {"at_s": 0.0, "p99_ms": 3.0, "unsent": 0},
        {"at_s": 1.0, "p99_ms": 90.0, "unsent": 5},
        {"at_s": 2.0, "p99_ms": 90.0, "unsent": 0},
        {"at_s": 2.1, "p99_ms": 2.5, "unsent": 0},
        {"at_s": 2.2} | calm,
    ]

    assert pytest.approx(0.1) == recovery_s(windows, 1.0, 2.0)
    assert 0.0 == recovery_s([{"at_s": 0.0} | calm, {"at_s": 2.0} | calm], 1.0, 2.0)


def test_counters_are_summed_by_label() -> None:
    """Series of one metric are told apart by their labels, and not by names that begin alike."""
    before = {'a_total{k="x"}': 1.0}
    after = {'a_total{k="x"}': 3.0, 'a_total{k="y"}': 4.0, "a_total_other": 9.0}
    grown = servers.difference(after, before)

    assert (6.0, 2.0) == (servers.total(grown, "a_total"), servers.total(grown, "a_total", '"x"'))
