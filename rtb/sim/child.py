"""A load process of the simulated exchange: sends requests, auctions answers, tells the outcome.

It says to its parent by pipe that it is ready, and twice a second what it counted.
"""

import asyncio
import math
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import orjson
import uvloop

from rtb.base.errors import ConfigError
from rtb.sim import world
from rtb.sim.audience import Anybody, Audience, Seeded, seeded_ads
from rtb.sim.feedback import Courier, now_ms
from rtb.sim.invoice import Entry, Invoice, part_of
from rtb.sim.load import Heard, Load, Pace
from rtb.sim.notices import SETTLING, Auction, Notice, Teller
from rtb.sim.options import Options
from rtb.sim.pool import Pool, Target, pool_of
from rtb.sim.seed import people_count
from rtb.sim.tally import Tally, TallyRecord
from rtb.sim.traffic import Traffic, Visit

REPORT_S: Final = 0.5


class Message(msgspec.Struct):
    """From a load process: `kind` is "ready", "tally", "done" or "error"."""

    kind: str
    tally: TallyRecord | None = None
    seconds: float = 0.0
    error: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
decode_message: Final = msgspec.msgpack.Decoder(Message).decode


def bodies(options: Options, share: int, visits: list[Visit]) -> Iterator[bytes]:
    """The requests of one process, from the file, or generated: then `visits` gets who they are."""
    if options.requests is not None:
        try:
            with options.requests.open("rb") as file:
                lines = [line.strip() for line in file]
        except OSError as error:
            raise ConfigError(f"{options.requests}: {error}") from error
        # Each process begins elsewhere, so that together they do not send everything twice at once.
        start = share * len(lines) // options.processes
        yield from lines[start:] + lines[:start]
        return
    traffic = Traffic(options.seed + share, people_count(options.data))
    count = options.pool_size
    if options.seconds:
        # No more than will be sent: a short run starts sooner.
        sent = options.rate * options.seconds / options.processes
        count = min(count, max(1, math.ceil(sent * 1.1)))
    for _ in range(count):
        visits.append(traffic.visit())
        yield orjson.dumps(traffic.request(visits[-1]))


def audience(options: Options, visits: list[Visit]) -> Audience:
    """The seeded people where they come by, else anybody."""
    if options.data is None or not visits:
        return Anybody()
    ads = seeded_ads(options.data)
    return Seeded(world.people(people_count(options.data)), visits, ads)


class Outcomes:
    """Tells the bidder what became of its bids, and writes the invoice."""

    def __init__(
        self, options: Options, share: int, exchange: str, people: Audience, tally: Tally
    ) -> None:
        """Raises: ConfigError."""
        path = options.invoice and part_of(options.invoice, share)
        self.invoice = Invoice(path)
        self.courier = Courier(tally, self._billed, options.route, options.limits, self._landed)
        self._tally, self._exchange, self._telling = tally, exchange, options.notices
        self._teller = Teller(
            SETTLING[options.settle], options.seed + share, people, tally.count,
            options.faults, options.waits, options.habits,
        )  # fmt: skip

    def heard(self, heard: Heard) -> None:
        """Has all notices of an auction sent."""
        if not self._telling:
            return
        answer = heard.answer
        auction = Auction(heard.serial, heard.number, heard.sent_id, answer.bidid, answer.cur)
        self.courier.take(self._teller.notices(auction, heard.verdict, now_ms()))

    def _landed(self, click: Notice, page: str) -> Iterator[Notice]:
        return self._teller.landed(click, page, now_ms())

    def _billed(self, notice: Notice) -> None:
        sale = notice.sale
        assert sale is not None
        moment_ms = time.time_ns() // 1_000_000
        entry = Entry(
            sale.bid, sale.imp, sale.price_micros, sale.currency, moment_ms, self._exchange
        )
        self.invoice.add(entry)
        self._tally.count("billed")
        billed = self._tally.billed
        billed[entry.currency] = billed.get(entry.currency, 0) + entry.nanos

    def close(self) -> None:
        """Ends it all."""
        self.courier.close()
        self.invoice.close()


def main(options: Options, share: int, pipe: Connection) -> None:
    """Entry point of a load process. Interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target = Target.of(options.url)
        visits: list[Visit] = []
        requests = bodies(options, share, visits)
        pool = pool_of(requests, target, share, keep_ids=options.keep_ids)
        people = audience(options, visits)
        pipe.send_bytes(_encode(Message("ready")))
        pipe.recv_bytes()  # all are ready: go
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options, share, target, pool, people, pipe))
    except ConfigError as error:
        pipe.send_bytes(_encode(Message("error", error=str(error))))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone


async def _run(
    options: Options, share: int, target: Target, pool: Pool, people: Audience, pipe: Connection
) -> None:
    tally = Tally()
    outcomes = Outcomes(options, share, target.exchange, people, tally)
    load = Load(target, pool, _pace(options, share), outcomes.heard, tally)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(pipe.fileno())  # nobody reads the word: it would be heard for ever
        load.stop()

    # Any word from the parent, or its end, means stop.
    loop.add_reader(pipe.fileno(), stop)
    reporter = asyncio.create_task(_report(tally, outcomes.invoice, pipe))
    try:
        outcomes.courier.start()
        seconds = await load.run()
        await outcomes.courier.drain()
    finally:
        loop.remove_reader(pipe.fileno())
        reporter.cancel()
        outcomes.close()
    pipe.send_bytes(_encode(Message("done", tally.record(), seconds)))


def _pace(options: Options, share: int) -> Pace:
    return Pace(
        rate=options.rate / options.processes,
        seconds=options.seconds,
        connections=max(1, options.connections // options.processes),
        seed=options.seed + share,
    )


async def _report(tally: Tally, invoice: Invoice, pipe: Connection) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        invoice.flush()
        pipe.send_bytes(_encode(Message("tally", tally.record())))
