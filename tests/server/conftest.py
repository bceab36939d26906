"""A real node: `rtb serve` as a process, on a catalogue that uses every rule."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rtb.catalogue.snapshot import Snapshot
from rtb.stores import artifacts
from rtb.stores.board import Board, Gauge
from tests.decide import worlds

ROOT = Path(__file__).parents[2]
READY_S = 60.0


# Tests of what is answered must not depend on how fast this machine is just now.
PATIENT_EXCHANGE = {"tmax_ms_default": 20_000, "deadline_ms_max": 10_000}
SMALL_JOURNAL = "[journal]\nsegment_mb = 16\n"
PATIENT_BID = "[bid]\nshed_after_ms = 10000\n"


def _patient_configs(folder: Path) -> Path:
    """The shipped settings with long deadlines."""
    configs = folder / "configs"
    shutil.copytree(ROOT / "configs", configs, dirs_exist_ok=True)
    for path in (configs / "exchanges").glob("*.toml"):
        lines = [
            line
            for line in path.read_text().splitlines()
            if line.partition(" ")[0] not in PATIENT_EXCHANGE
        ]
        lines += [f"{key} = {value}" for key, value in PATIENT_EXCHANGE.items()]
        path.write_text("\n".join(lines) + "\n")
    return configs


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Node:
    """One running `rtb serve`."""

    data: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    snapshot: Snapshot | None = None
    arguments: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_ready(self, seconds: float = READY_S) -> None:
        """Returns when /readyz says so; fails with the log when it does not."""
        self.wait_for(lambda: self.get("/readyz")[0] == 200, seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Returns when the condition holds; refused connections count as not yet."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if condition():
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s:\n{self.log.read_text()}")

    def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What comes back for raw bytes, until the connection closes or nothing more comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            return read_answer(connection)

    def post(self, body: bytes, path: str = "/openrtb2/generic/bid") -> tuple[int, bytes]:
        """Status and body of one plain POST on a connection of its own."""
        return split_answer(self.raw(plain(body, path)))

    def metric(self, name: str) -> float:
        """Sum of one metric over its labels, from /metrics."""
        lines = self.get("/metrics")[1].decode().splitlines()
        values = [
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition(" ")[0].partition("{")[0] == name or line.startswith(name)
        ]
        return sum(values)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""
        board = Board.open(self.data / "run" / "board")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        living = {int(pid) for pid in children.read_text().split()}
        return [pid for row in board.columns["gauges"] if (pid := int(row[Gauge.PID])) in living]

    def keeper_pid(self) -> int:
        """Process id of the keeper; 0 before its first turn."""
        return int(Board.open(self.data / "run" / "board").keeper["pid"][0])

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def plain(body: bytes, path: str = "/openrtb2/generic/bid") -> bytes:
    """A whole plain POST."""
    return (
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


def read_answer(connection: socket.socket) -> bytes:
    """One whole answer by its content-length, or all until the end."""
    received = b""
    while True:
        head, end, rest = received.partition(b"\r\n\r\n")
        if end:
            lengths = [
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            if b" 204 " in head[:20] or (lengths and len(rest) >= lengths[0]):
                return received
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not more:
            return received
        received += more


def split_answer(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an answer; (0, b"") when there was none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]), body) if len(words) > 1 else (0, b"")


StartNode = Callable[..., Node]


@pytest.fixture(scope="session")
def nodes() -> Iterator[list[Node]]:
    """All nodes that run; stops them at the end."""
    found: list[Node] = []
    yield found
    _stop(found)


def _stop(nodes: list[Node]) -> None:
    for node in nodes:
        if node.process.poll() is None:
            node.process.terminate()
    for node in nodes:
        try:
            node.process.wait(15)
        except subprocess.TimeoutExpired:
            node.process.kill()


@pytest.fixture(autouse=True)
def _nodes_of_a_test(nodes: list[Node]) -> Iterator[None]:
    """A node that a test starts for itself ends with it; those of wider fixtures go on.

    Wider fixtures are made before this one. Twenty nodes at rest are a loaded machine.
    """
    before = len(nodes)
    yield
    _stop(nodes[before:])
    del nodes[before:]


@pytest.fixture(scope="session")
def start_node(tmp_path_factory: pytest.TempPathFactory, nodes: list[Node]) -> StartNode:
    """Starts nodes."""

    def start(
        *arguments: str,
        line_items: int = 300,
        data: Path | None = None,
        config: str = "",
        wait: bool = True,
        patient: bool = True,
    ) -> Node:
        folder = data or tmp_path_factory.mktemp("node")
        snapshot = None
        if line_items:
            snapshot = worlds.snapshot(1, line_items)
            artifacts.write_snapshot(folder / "snapshots", snapshot.arrays, snapshot.meta)
        options = [*arguments]
        if patient:
            options += ["--configs", str(_patient_configs(folder))]
            config += PATIENT_BID
        if "[journal]" not in config:
            config += SMALL_JOURNAL
        (folder / "bidder.toml").write_text(config)
        options += ["--config", str(folder / "bidder.toml")]
        port, log = free_port(), folder / "log"
        command = [sys.executable, "-m", "rtb.cli.main", "serve", "--data", str(folder)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port), *options],
                cwd=ROOT, stdout=output, stderr=output,
            )  # fmt: skip
        node = Node(folder, port, process, log, snapshot, options)
        nodes.append(node)
        if wait:
            node.wait_ready()
        return node

    return start


@pytest.fixture(scope="session")
def node(start_node: StartNode) -> Node:
    """The node that most tests share: they only ask."""
    return start_node()
