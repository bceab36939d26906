"""Profiles in Redis: replies to their owners, in time or not at all, through every fault."""

import asyncio
import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rtb.base.errors import ConfigError, StoreError
from rtb.profiles import codec
from rtb.stores.profiles import Lookup
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.redis_link import MS, Window

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(REDIS is None, reason="no redis-server in PATH")
pytestmark = pytest.mark.server

Outcome = tuple[Lookup, bytes | None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real redis-server without persistence."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory, self.options = directory, options
        self.port = free_port()
        self.socket_path = directory / "redis.sock"
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert REDIS is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--unixsocket", str(self.socket_path)]  # fmt: skip
        command = [REDIS, *options, *self.options]
        self.process = subprocess.Popen(
            command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        limit_s = time.monotonic() + 10
        while time.monotonic() < limit_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    redis = Server(tmp_path)
    yield redis
    redis.kill()


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[RedisProfiles]:
    """A started store; the generous budget keeps a busy test machine from being the fault."""
    store = RedisProfiles(
        url,
        budget_ms=options.get("budget_ms", 250.0),
        in_flight_max=int(options.get("in_flight_max", 1024)),
    )
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def find(store: RedisProfiles, *keys: bytes, budget_ms: float = 1e4) -> Outcome:
    """One look-up as a coroutine."""
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def answer(outcome: Lookup, value: bytes | None) -> None:
        done.set_result((outcome, value))

    store.find(keys, time.monotonic_ns() + int(budget_ms * MS), answer)
    return await asyncio.wait_for(done, 10)


async def until(condition: Callable[[], bool], limit_s: float) -> float:
    """Waits for a condition; seconds it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < limit_s, "took too long"
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s


def record(number: int) -> bytes:
    """A value that contains its key's number."""
    return b"RP" + b"%d" % number + bytes(30)


@needs_redis
async def test_first_known_key_and_links(server: Server) -> None:
    """The first known key answers; a link is followed once, and a link to a link is a miss."""
    async with opened(server.url) as store:
        link = codec.encode_link
        await store.load([(b"b:1", record(1)), (b"u:x:2", record(2)), (b"i:a", link(b"b:1")),
                          (b"i:b", link(b"i:a")), (b"i:c", link(b"b:none"))])  # fmt: skip
        hit, miss = Lookup.HIT, Lookup.MISS
        assert (hit, record(1)) == await find(store, b"b:1")
        assert (miss, None) == await find(store, b"b:2")
        assert (hit, record(2)) == await find(store, b"b:2", b"u:x:2", b"b:1")
        assert (hit, record(1)) == await find(store, b"i:a")
        assert (hit, record(1)) == await find(store, b"b:2", b"i:a")
        assert (miss, None) == await find(store, b"i:b")
        assert (miss, None) == await find(store, b"i:c")
        assert (miss, None) == await find(store, b"b:2", b"b:3")
        assert (miss, None) == await find(store)
        assert store.counts.lookups == [4, 5, 0, 0, 0, 0]


@needs_redis
async def test_login_database_and_unix_socket(tmp_path: Path) -> None:
    """Password, database number and a unix socket come from the URL; a bad password is told."""
    server = Server(tmp_path, "--requirepass", "s:cret")
    try:
        writer = RedisProfiles(f"redis://:s%3Acret@127.0.0.1:{server.port}/3")
        await writer.put_many([(b"b:1", record(1))])
        await writer.close()
        for url in (f"redis://:s%3Acret@127.0.0.1:{server.port}/3",
                    f"redis://default:s%3Acret@127.0.0.1:{server.port}/3",
                    f"unix://:s%3Acret@{server.socket_path}?db=3"):  # fmt: skip
            async with opened(url) as store:
                assert (Lookup.HIT, record(1)) == await find(store, b"b:1")
        async with opened(f"redis://:wrong@127.0.0.1:{server.port}/3") as store:
            assert await find(store, b"b:1") == (Lookup.DOWN, None)
            assert "WRONGPASS" in store.reason
        async with opened(f"redis://127.0.0.1:{server.port}/3") as store:
            assert await find(store, b"b:1") == (Lookup.DOWN, None)
            assert "NOAUTH" in store.reason
    finally:
        server.kill()


@needs_redis
async def test_management(server: Server) -> None:
    """Ping, info, count, erase and the limit of a record, through redis-py."""
    async with opened(server.url) as store:
        assert await store.load((b"b:%d" % n, record(n)) for n in range(2_500)) == 2_500
        assert await store.count() == 2_500
        assert await store.put_many([(b"b:1", None)]) == 1
        assert await find(store, b"b:1") == (Lookup.MISS, None)
        assert "redis_version" in await store.info()
        assert await store.ping() > 0
        with pytest.raises(ValueError, match="limit"):
            await store.put_many([(b"b:1", bytes(50_000))])
        server.kill()
        for call in (store.ping, store.info, store.count):
            with pytest.raises(StoreError):
                await call()
        with pytest.raises(StoreError):
            await store.put_many([(b"b:1", record(1))])


@needs_redis
async def test_cancels_under_load(server: Server) -> None:
    """Of 20,000 look-ups half are cancelled at any moment; no reply reaches the wrong owner."""
    chance = random.Random(5)
    async with opened(server.url, in_flight_max=50_000) as store:
        await store.load((b"b:%d" % n, record(n)) for n in range(500))
        seen: Counter[str] = Counter()

        def owner(number: int, cancelled: set[int], call: int) -> Callable[..., None]:
            def answer(outcome: Lookup, value: bytes | None) -> None:
                if call in cancelled:
                    seen["answered after cancel"] += 1
                elif outcome is Lookup.HIT:
                    seen["right" if value == record(number) else "wrong"] += 1
                else:
                    seen[outcome.name] += 1

            return answer

        calls, cancelled = 20_000, set[int]()
        for start in range(0, calls, 200):
            flying = []
            for call in range(start, start + 200):
                number = chance.randrange(500)
                deadline_ns = time.monotonic_ns() + 5_000 * MS
                pending = store.get(b"b:%d" % number, deadline_ns, owner(number, cancelled, call))
                flying.append((call, pending))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            for call, pending in flying:
                if call % 2 and pending is not None and pending.answer is not None:
                    cancelled.add(call)
                    pending.cancel()
            if chance.random() < 0.1:
                await asyncio.sleep(0.002)
        await until(lambda: seen.total() + len(cancelled) == calls, 10)
        # A machine that stalls may cost answers, by design; it may not mix them or lose one.
        assert {"right", "TIMEOUT", "DOWN"} >= set(seen)
        assert calls - len(cancelled) == seen.total()
        assert seen["right"]


@needs_redis
async def test_hung_server(server: Server) -> None:
    """SIGSTOP: look-ups time out, the breaker opens within 1 s and closes within 5 s of SIGCONT."""
    async with opened(server.url, budget_ms=20) as store:
        await store.load([(b"b:1", record(1))])
        server.signal(signal.SIGSTOP)
        outcomes = Counter[Lookup]()
        began_s = time.monotonic()
        while store.up:
            assert time.monotonic() - began_s < 1.0
            outcomes[(await find(store, b"b:1"))[0]] += 1
        assert set(outcomes) <= {Lookup.TIMEOUT}
        assert await find(store, b"b:1") == (Lookup.DOWN, None)
        server.signal(signal.SIGCONT)
        await until(lambda: store.up, 5)
        assert (Lookup.HIT, record(1)) == await find(store, b"b:1", budget_ms=1e3)


@needs_redis
async def test_killed_server(server: Server) -> None:
    """A killed server opens the breaker at once; back on its port, look-ups return within 5 s."""
    async with opened(server.url) as store:
        server.kill()
        await until(lambda: not store.up, 1)
        assert await find(store, b"b:1") == (Lookup.DOWN, None)
        server.start()
        await until(lambda: store.up, 5)
        assert await find(store, b"b:1") == (Lookup.MISS, None)
        assert store.links_count == 2


class Proxy:
    """A TCP proxy that delays what the server says."""

    def __init__(self, port: int) -> None:
        self.target, self.delay_s = port, 0.0
        self.tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.close()
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink, slow in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self.pump(source, sink, slow))
            self.tasks.add(task)

    async def pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, slow: bool
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if slow and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@needs_redis
async def test_slow_server(server: Server) -> None:
    """Replies 50 ms late are dropped, never given to the next; the breaker opens, and closes."""
    proxy = Proxy(server.port)
    async with proxy.running() as url, opened(url, budget_ms=20) as store:
        await store.load((b"b:%d" % n, record(n)) for n in range(100))
        assert (Lookup.HIT, record(7)) == await find(store, b"b:7")
        proxy.delay_s = 0.05
        took_s: list[float] = []
        number = 0
        while store.up:
            number = (number + 1) % 100
            began_s = time.monotonic()
            outcome, value = await find(store, b"b:%d" % number)
            took_s.append(time.monotonic() - began_s)
            assert (outcome, value) == (Lookup.TIMEOUT, None)
            assert len(took_s) < 100
        assert sorted(took_s)[len(took_s) // 2] < 0.05
        assert store.counts.late > 0
        proxy.delay_s = 0.0
        await until(lambda: store.up, 5)
        outcome, value = await find(store, b"b:7")
        assert (Lookup.HIT, record(7)) == (outcome, value)


Script = Callable[[list[bytes]], bytes | None]


@asynccontextmanager
async def fake(script: Script) -> AsyncIterator[str]:
    """A server that speaks RESP and answers each command by `script`; None says nothing."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                reply = b"$-1\r\n" if words[1:] == [b"probe:"] else script(words)
                if reply is not None:
                    writer.write(reply)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "text",
    ["LOADING Redis is loading", "READONLY replica", "OOM command not allowed", "NOAUTH required",
     "MOVED 866 10.0.0.1:6379", "CLUSTERDOWN hash slot", "MASTERDOWN link", "BUSY script",
     "WRONGTYPE list", "ERR unknown", "NOSCRIPT none"],
)  # fmt: skip
async def test_error_replies_are_outcomes(text: str) -> None:
    """Every error reply becomes ERROR, counted by its name, and the next look-up goes on."""
    replies = [b"-%b\r\n" % text.encode(), b"$2\r\nok\r\n"]
    async with fake(lambda words: replies.pop(0)) as url, opened(url) as store:
        assert await find(store, b"b:1") == (Lookup.ERROR, None)
        assert await find(store, b"b:2") == (Lookup.HIT, b"ok")
        name = text.split()[0]
        assert {name if name != "NOSCRIPT" else "OTHER": 1} == dict(store.counts.errors)


async def test_errors_without_end_open_the_breaker() -> None:
    """A server that only errs is left alone, and asked again later."""
    async with fake(lambda words: b"-LOADING\r\n") as url, opened(url) as store:
        began_s = time.monotonic()
        while store.up:
            assert time.monotonic() - began_s < 1.5
            await find(store, b"b:1")
            await asyncio.sleep(0.02)
        await until(lambda: store.links_count > 1, 5)


@pytest.mark.parametrize(
    "reply",
    [b":5\r\n", b"*1\r\n$1\r\na\r\n", b"$1\r\na\r\n$1\r\nb\r\n", b"@what\r\n", b"$9\r\nab\r\n",
     b"$99999999\r\n" + bytes(5 << 20), b"\x00" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["integer", "list", "two", "noise", "cut", "huge", "zeros", "http"],
)  # fmt: skip
async def test_a_server_that_is_no_redis(reply: bytes) -> None:
    """Replies of the wrong kind, in excess or without sense close the link; nobody gets them."""
    asked = []

    def script(words: list[bytes]) -> bytes | None:
        asked.append(words)
        return reply if len(asked) == 1 else b"$2\r\nok\r\n"

    async with fake(script) as url, opened(url) as store:
        outcome, value = await find(store, b"b:1")
        assert value in (None, b"a")  # "a" is a good reply; the excess comes after it
        assert outcome in (Lookup.DOWN, Lookup.TIMEOUT, Lookup.HIT)
        await until(lambda: store.links_count > 1 and store.up, 5)
        assert await find(store, b"b:2") == (Lookup.HIT, b"ok")


async def test_backpressure_and_no_time_left() -> None:
    """Too many in flight are refused at once, and so is a look-up whose deadline is here."""
    async with fake(lambda words: None) as url, opened(url, in_flight_max=8) as store:
        outcomes: list[Lookup] = []
        for _ in range(10):
            store.get(
                b"b:1", time.monotonic_ns() + 100 * MS, lambda outcome, _: outcomes.append(outcome)
            )
        assert outcomes == [Lookup.BUSY] * 2
        assert await find(store, b"b:1", budget_ms=0.1) == (Lookup.TIMEOUT, None)


async def test_an_owner_that_fails_hurts_nobody_else() -> None:
    """An exception in one callback goes to the loop's handler; the next owner is answered."""
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))

    def broken(outcome: Lookup, value: bytes | None) -> None:
        raise RuntimeError("owner")

    def echo(words: list[bytes]) -> bytes:
        return b"$%d\r\n%b\r\n" % (len(words[1]), words[1])

    async with fake(echo) as url, opened(url) as store:
        store.get(b"b:1", time.monotonic_ns() + 1_000 * MS, broken)
        assert await find(store, b"b:2") == (Lookup.HIT, b"b:2")
        assert len(seen) == 1


async def test_nobody_there() -> None:
    """A store that never was up refuses at once and says why."""
    changes: list[tuple[bool, str]] = []
    port = free_port()
    store = RedisProfiles(
        f"redis://127.0.0.1:{port}", changed=lambda up, why: changes.append((up, why))
    )
    assert await find(store, b"b:1") == (Lookup.DOWN, None)
    await store.start()
    assert await find(store, b"b:1") == (Lookup.DOWN, None)
    await asyncio.sleep(0.3)
    await store.close()
    assert [up for up, _ in changes] == [False]
    assert str(errno.ECONNREFUSED) in store.reason


def test_bad_urls_are_refused() -> None:
    """A URL of another scheme is a mistake in the configuration."""
    with pytest.raises(ConfigError):
        RedisProfiles("http://127.0.0.1")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(False, 0), (False, 100), (False, 260)], True),
        ([(False, 0), (True, 100), (True, 260)], False),
        ([(False, 0), (False, 300)], False),  # too few to judge yet
        ([(False, 0), (False, 1000)], True),
        ([(False, 0)] * 1000 + [(True, 10)] * 900 + [(False, 249)], False),  # still open
        ([(False, 0)] * 1000 + [(True, 10)] * 900 + [(False, 250)], True),
        ([(False, 0)] * 5 + [(True, 250)] * 5, True),
        ([(True, 0)] * 5 + [(False, 250)], False),
    ],
)
def test_breaker_window(samples: list[tuple[bool, int]], expected: bool) -> None:
    """A window trips at its end when most look-ups in it failed."""
    window = Window()
    trips = [window.trips(good, at_ms * MS) for good, at_ms in samples]
    assert expected is any(trips)
