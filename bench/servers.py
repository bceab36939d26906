"""Processes that benchmarks start, and what they cost.

CPU time is user + system of a process and all its descendants, from /proc. It holds on a busy
machine, where wall time does not.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.record import ROOT
from rtb.stores.board import Board
from rtb.stores.serving import StatePaths

BUILD: Final = ROOT / "build" / "bench"
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S: Final = 60.0
_CORES: Final = sorted(os.sched_getaffinity(0))  # before a benchmark pins itself


class BenchError(Exception):
    """A benchmark cannot go on; the message says why, and what would help."""


# -- building and running --------------------------------------------------------------------------


def program(name: str) -> Path:
    """The compiled `bench/<name>.c`. Raises: BenchError without a compiler."""
    source, target = ROOT / "bench" / f"{name}.c", BUILD / name
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return target
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler: install gcc")
    BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-O2", "-std=c11", "-o", str(target), str(source)], check=True)
    return target


def cores() -> tuple[int, int]:
    """(core of the server, core of the client); the same where there is only one."""
    return _CORES[0], _CORES[-1]


def third_core() -> int:
    """For what is neither server nor client; the client's where there are only two."""
    return _CORES[1] if len(_CORES) > 2 else _CORES[-1]


def pinned(arguments: Sequence[str | Path], core: int) -> list[str]:
    """A command line that keeps to one core; `taskset` becomes the program, so pids stay."""
    return ["taskset", "-c", str(core), *(str(argument) for argument in arguments)]


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    arguments: Sequence[str | Path], core: int, log: Path, environment: Mapping[str, str] = {}
) -> Iterator[int]:
    """Starts a process pinned to a core and yields its pid; ends it, and says so when it failed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(arguments, core),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise BenchError(f"{arguments[0]} ended on its own; see {log}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def floor_server(core: int, burn_us: int = 0) -> Iterator[tuple[int, int]]:
    """(pid, port) of the C floor; `burn_us`: CPU time that it spends on every request."""
    port = free_port()
    arguments = [str(program("floor")), str(port), str(burn_us)]
    with running(arguments, core, BUILD / "floor.log") as pid:
        _await_port(port)
        yield pid, port


def _await_port(port: int) -> None:
    limit_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < limit_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise BenchError(f"nothing listens on port {port}")


def rtb_command(*arguments: str | Path) -> list[str]:
    """A command line of `rtb` in this interpreter."""
    return [sys.executable, "-m", "rtb.cli.main", *(str(argument) for argument in arguments)]


@contextlib.contextmanager
def bidder(
    data: Path, core: int, options: Sequence[str] = (), name: str = "rtb"
) -> Iterator[tuple[int, int]]:
    """(pid of the supervisor, port) of `rtb serve --workers 1`, ready."""
    port = free_port()
    arguments = rtb_command(
        "serve", "--data", data, "--port", str(port), "--workers", "1", "--quiet", *options
    )
    log = BUILD / f"{name}.log"
    with running(arguments, core, log) as pid:
        await_ready(port, pid, log)
        yield pid, port


@contextlib.contextmanager
def redis_server(core: int) -> Iterator[tuple[int, str]]:
    """(pid, URL) of an empty Redis without persistence. Raises: BenchError without Redis."""
    executable = shutil.which("redis-server") or shutil.which("valkey-server")
    if executable is None:
        raise BenchError("no redis-server")
    port = free_port()
    arguments = [executable, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running(arguments, core, BUILD / "redis.log") as pid:
        _await_port(port)
        yield pid, f"redis://127.0.0.1:{port}/0"


def await_ready(port: int, pid: int, log: Path) -> None:
    """Returns when /readyz says 200. Raises: BenchError."""
    limit_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < limit_s:
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            fetch(port, "/readyz")
            return
        if not Path(f"/proc/{pid}").exists() or _state(pid) == "Z":
            raise BenchError(f"rtb serve ended before it was ready; see {log}")
        time.sleep(0.02)
    raise BenchError(f"rtb serve was not ready in {READY_TIMEOUT_S:.0f} s; see {log}")


def fetch(port: int, path: str) -> bytes:
    """One GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


# -- load ------------------------------------------------------------------------------------------


def load(port: int, bodies: Path, core: int, *options: str) -> dict[str, object]:
    """Runs `bench/load.c` on a core; its JSON. Raises: BenchError when it fails."""
    arguments = [str(program("load")), "--port", str(port), "--bodies", str(bodies), *options]
    return dict(json.loads(_run(arguments, core)))


def wrk(
    port: int, bodies: Path, core: int, seconds: float, connections: int, header: str = ""
) -> dict[str, float]:
    """Runs wrk with bodies in turn; requests, seconds, errors, quantiles in ms.

    header: "name: value" of one more header.
    Raises: BenchError without wrk, or when it fails.
    """
    executable = shutil.which("wrk")
    if executable is None:
        raise BenchError("no wrk: install the package wrk")
    arguments = [
        executable, "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency",
        "-s", str(ROOT / "bench" / "bodies.lua"),
        f"http://127.0.0.1:{port}/openrtb2/generic/bid", "--", str(bodies), header,
    ]  # fmt: skip
    last = _run(arguments, core).strip().splitlines()[-1]
    return {str(key): float(value) for key, value in json.loads(last).items()}


def _run(arguments: Sequence[str], core: int) -> str:
    found = subprocess.run(pinned(arguments, core), capture_output=True, text=True, check=False)
    if found.returncode:
        raise BenchError(f"{arguments[0]}: {found.stderr.strip() or found.returncode}")
    return found.stdout


# -- what it cost ----------------------------------------------------------------------------------


def keeper_pid(data: Path) -> int:
    """The keeper of the node that serves a state directory."""
    return int(Board.open(StatePaths(data.resolve()).board).keeper["pid"][0])


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def cpu_s(pid: int) -> float:
    """User + system time of a tree so far, those of children that ended included."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            # After the name, which may hold spaces: utime stime cutime cstime are fields 12-15.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICKS_PER_S


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory of one process: whole, proportional, own, and by what is mapped.

    Keys: rss, pss, anonymous, and rss of the maps of a state directory: snapshot, model, profiles,
    board.
    """
    found = dict.fromkeys(("rss", "pss", "anonymous", "snapshot", "model", "profiles", "board"), 0)
    kinds = {"/snapshots/": "snapshot", "/models/": "model", "/profiles/": "profiles",
             "/run/board": "board"}  # fmt: skip
    mapped = ""
    for row in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = row.partition(":")
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", row):
            mapped = next((kind for part, kind in kinds.items() if part in row), "")
        elif key in ("Rss", "Pss", "Anonymous"):
            kilobytes = int(rest.split()[0])
            found[key.lower()] += kilobytes
            if key == "Rss" and mapped:
                found[mapped] += kilobytes
    return {name: round(value / 1024, 1) for name, value in found.items()}


def metrics(port: int) -> dict[str, float]:
    """/metrics as {name with labels: value}."""
    found = {}
    for row in fetch(port, "/metrics").decode().splitlines():
        if row and not row.startswith("#"):
            name, _, value = row.rpartition(" ")
            found[name] = float(value)
    return found


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What counters grew by."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def total(counters: Mapping[str, float], name: str, label: str = "") -> float:
    """The sum of a metric's series whose labels contain `label`."""
    return sum(
        value
        for key, value in counters.items()
        if key.partition("{")[0] == name and label in key.partition("{")[2]
    )
