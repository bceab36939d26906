"""The exchange as a whole: processes, pool, summary, warning, table."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rtb.base.errors import ConfigError
from rtb.cli.main import gathered
from rtb.sim import exchange
from rtb.sim.child import bodies
from rtb.sim.exchange import Options, lagging, lines, run, table
from rtb.sim.histogram import Histogram
from rtb.sim.tally import Tally, summary

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _NoBids(asyncio.Protocol):
    """Answers whole requests with 204."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if end:
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            if len(rest) >= length:
                self._buffer = rest[length:]
                self._transport.write(ANSWER)  # type: ignore[attr-defined]


@pytest.fixture
def bidder() -> Iterator[str]:
    """The URL of a bidder in a thread that never bids."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(_NoBids, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/openrtb2/generic/bid"
    server.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_processes_share_the_rate(bidder: str) -> None:
    """Two processes send the rate together, report while they do, and end by themselves."""
    heard: list[int] = []

    def watch(total: Tally, recent: Tally, recent_s: float, elapsed_s: float) -> None:
        heard.append(total.counts["requests"])
        assert recent.counts["requests"] <= total.counts["requests"]

    options = Options(url=bidder, rate=200, seconds=2.2, connections=8, processes=2)
    found = run(options, watch)

    assert 300 < found.requests < 600
    assert found.requests == found.no_bids == found.answers
    assert (0, 0, 0.0) == (found.errors, found.bids, found.bid_rate)
    assert heard


def test_the_command_prints_json_last(bidder: str, tmp_path: Path) -> None:
    """`rtb exchange --json` replays a file and ends with one object."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'{"id":"1","imp":[{"id":"1"}]}\n\n{"id":"2","imp":[{"id":"1"}]}\n')
    arguments = ["exchange", "--url", bidder, "--rate", "100", "--seconds", "0.5",
                 "--requests", str(path), "--json"]  # fmt: skip
    result = CliRunner().invoke(gathered(), arguments)

    assert 0 == result.exit_code, result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert {"requests", "bids", "wins", "no_bids", "errors", "bid_rate", "win_rate", "p50_ms",
            "p99_ms", "p999_ms", "max_ms", "timeouts", "invalid", "spend", "rate",
            "seconds"} <= set(found)  # fmt: skip
    assert 0.5 == found["seconds"]


def test_nobody_listens() -> None:
    """A bidder that is not there is told as such, not measured."""
    with pytest.raises(ConfigError, match="nobody listens"):
        run(Options(url="http://127.0.0.1:1/openrtb2/generic/bid", rate=10, seconds=1))


@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0.0}, {"seconds": -1.0}, {"processes": 0}, {"connections": 1, "processes": 2},
     {"url": "ftp://x/y"}],
)  # fmt: skip
def test_impossible_options(wrong: dict[str, object]) -> None:
    """Options that cannot be are refused at once."""
    options = msgspec.convert({"url": "http://h/p"} | wrong, Options)
    with pytest.raises(ConfigError):
        options.check()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Requests that cannot be read are a fault of the caller."""
    options = Options(url="http://h/p", requests=tmp_path / "none")
    with pytest.raises(ConfigError, match="none"):
        list(bodies(options, 0, []))


def test_processes_start_elsewhere(tmp_path: Path) -> None:
    """Processes replay one file from different places."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"a\nb\nc\nd\n")
    options = Options(url="http://h/p", processes=2, requests=path)

    assert [b"a", b"b", b"c", b"d"] == list(bodies(options, 0, []))
    assert [b"c", b"d", b"a", b"b"] == list(bodies(options, 1, []))


def test_short_runs_generate_little() -> None:
    """A run generates no more requests than it will send."""
    options = Options(url="http://h/p", rate=100, seconds=1, processes=2)

    assert 56 == len(list(bodies(options, 0, [])))


def test_lateness_is_told() -> None:
    """A generator that was itself the bottleneck says so."""
    tally = Tally()
    tally.count("requests", 100)
    assert "" == lagging(summary(tally, 1.0))

    tally.count("late_sends", 3)
    assert "3.0%" in lagging(summary(tally, 1.0))


def test_the_table_and_the_summary_show_it_all() -> None:
    """People see rates, latencies and reasons."""
    tally = Tally()
    for name, count in {"requests": 1000, "bids": 900, "valid_bids": 900, "wins": 300}.items():
        tally.count(name, count)
    tally.reason("outbid")
    tally.latency = Histogram()
    tally.latency.add(1500)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table(tally, tally.since(Tally()), 1.0, 10.0))
    text = capture.get()

    for word in ("1,000", "90.0%", "33.3%", "1.50 ms", "outbid 1"):
        assert word in text
    assert any("33.3% of bids" in line for line in lines(summary(tally, 10.0)))


def test_tallies_add_and_travel() -> None:
    """A tally survives the pipe, adds up, and gives back what came since."""
    one = Tally()
    one.count("requests", 5)
    one.reason("outbid")
    one.latency.add(100)
    copy = Tally.of(msgspec.msgpack.decode(msgspec.msgpack.encode(one.record()),
                                           type=type(one.record())))  # fmt: skip

    assert one.counts == copy.counts
    assert {"outbid": 2} == one.plus(copy).reasons
    assert 5 == one.plus(copy).since(one).counts["requests"]
    assert one.latency.counts == copy.latency.counts


def test_no_table_without_a_terminal() -> None:
    """Programs get no control characters."""
    with exchange.watched(False, Console()) as watch:
        assert watch is None
