"""Notices on their way: a bidder that loses answers, is slow to come back, or refuses."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from rtb.base.errors import ConfigError, InputError
from rtb.base.events import Kind
from rtb.base.money import format_micros
from rtb.cli.main import gathered
from rtb.ledger.amounts import nanos_text
from rtb.notices.conversions import Conversions
from rtb.sim.auction import Bid, Offer, Verdict, Won
from rtb.sim.audience import Anybody, Audience, Seeded, seeded_ads
from rtb.sim.exchange import Options, run
from rtb.sim.feedback import Courier, Limits, Route, now_ms
from rtb.sim.invoice import Entry, Invoice, join, part_of
from rtb.sim.notices import Auction, Faults, Habits, Notice, Sale, Teller, Waits
from rtb.sim.tally import Tally
from rtb.sim.traffic import Traffic
from rtb.sim.world import people
from rtb.stores.invoice_read import read
from tests.sim.bidder import BROKEN, FORBIDDEN, Bidder, Served

SOON = Waits(5.0, 10.0, 5.0, 10.0, 10.0, 5.0, late_ms=60, replay_ms=40)
ALWAYS = Habits(shown=1.0, viewed=1.0, stays=1.0)
NONE, PATIENT, ANYBODY = Faults(), Limits(drain_s=3.0), Anybody()
REQUEST = b'{"id":"r","tmax":200,"cur":["USD"],"at":1,"imp":[{"id":"1"}]}'


class Sent:
    """What a courier did."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.invoice: dict[str, int] = {}

    def billed(self, notice: Notice) -> None:
        """Every sale once."""
        assert notice.sale is not None
        assert notice.sale.bid not in self.invoice
        self.invoice[notice.sale.bid] = notice.sale.price_micros


async def deliver(
    bidder: Bidder, faults: Faults = NONE, count: int = 20, other: str = "",
    limits: Limits = PATIENT, base: str = "", people: Audience = ANYBODY,
) -> Sent:  # fmt: skip
    """All notices of `count` won auctions, to the end."""
    sent = Sent()
    teller = Teller(Kind.BILL, 3, people, sent.tally.count, faults, SOON, ALWAYS)

    def landed(click: Notice, page: str) -> Iterable[Notice]:
        return teller.landed(click, page, now_ms())

    courier = Courier(sent.tally, sent.billed, Route(base, other), limits, landed)
    courier.start()
    for serial in range(count):
        offer = Offer(msgspec.convert(bidder.bid(), Bid), "s")
        verdict = Verdict(won=[Won(2_000_000 + serial, "USD", 1_000_000, offer)])
        moment_ms = asyncio.get_running_loop().time() * 1000
        courier.take(teller.notices(Auction(serial, 0, "r", "b", "USD"), verdict, int(moment_ms)))
    await courier.drain()
    courier.close()
    return sent


def in_hex(booked: dict[int, int]) -> dict[str, int]:
    """As an invoice names them."""
    return {f"{bid:016x}": micros for bid, micros in booked.items()}


async def test_everything_arrives() -> None:
    """What the bidder booked is the invoice, and everything is counted."""
    bidder = Bidder()
    with Served(bidder):
        sent = await deliver(bidder)
    counts = sent.tally.counts

    assert 20 == len(sent.invoice)
    assert in_hex(bidder.booked()) == sent.invoice
    assert counts["notices_sent"] == counts["notices_delivered"] == len(bidder.notices) >= 80
    assert (20, 20) == (counts["impressions"], counts["views"])
    assert 0 == counts["notices_retried"] + counts["notices_refused"] + counts["notices_dropped"]


class Buyer:
    """Everybody clicks and buys."""

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        return 1.0, 1.0


@pytest.mark.parametrize("faults", [NONE, Faults(duplicated=0.5, forged=0.5, replayed=0.5)])
async def test_conversions_are_reported_once(faults: Faults) -> None:
    """Who clicked buys behind the redirect; what the bidder has, once each, is what was told."""
    bidder = Bidder(hang_up=lambda number: number % 7 == 0)
    with Served(bidder):
        sent = await deliver(bidder, faults, people=Buyer())
    counts = sent.tally.counts
    books = Conversions()
    for each in bidder.notices:
        if each.kind in (Kind.CONVERSION, Kind.ORDER):
            books.add(each.record())
    (total,) = books.by_line_item.values()

    assert (20, 20, 20) == (counts["clicks"], counts["orders"], counts["conversions"])
    assert 20 == total.conversions
    assert sent.tally.ordered == {"USD": sum(total.value_micros.values())}
    assert 0 == counts["forged_accepted"]


async def test_lost_bills_are_not_on_the_invoice() -> None:
    """What was never delivered is not billed; copies and replays of the rest bill once."""
    bidder = Bidder()
    faults = Faults(lost=0.3, duplicated=0.5, reordered=0.5, forged=0.5, altered=0.5, replayed=0.5)
    with Served(bidder):
        sent = await deliver(bidder, faults, 40)
    counts = sent.tally.counts

    assert in_hex(bidder.booked()) == sent.invoice
    assert 0 < len(sent.invoice) < 40
    assert counts["notices_forged"] == sum(bidder.refused.values()) > 10
    assert counts["notices_forged"] == counts["forged_refused"]
    assert 0 == counts["forged_accepted"] + counts["notices_refused"]
    assert counts["notices_altered"] > 10


async def test_a_notice_without_an_answer_is_tried_again() -> None:
    """A connection that dies after the bidder has read: it hears the notice again, bills once."""
    bidder = Bidder(hang_up=lambda number: number % 5 == 0)
    with Served(bidder):
        sent = await deliver(bidder)
    counts = sent.tally.counts

    assert 20 == len(sent.invoice)
    assert in_hex(bidder.booked()) == sent.invoice
    assert counts["notices_retried"] > 5
    assert counts["notices_delivered"] + counts["notices_retried"] == counts["notices_sent"]


async def test_a_bidder_that_cannot_take_it_is_asked_again() -> None:
    """503 is not a no: the disk may be full for a while."""
    bidder = Bidder(status=lambda number: BROKEN if number < 30 else None)
    with Served(bidder):
        sent = await deliver(bidder)

    assert 20 == len(sent.invoice)
    assert 29 == sent.tally.counts["notices_retried"]


async def test_tries_are_bounded() -> None:
    """Who never takes it is given up, and nothing of it is billed."""
    bidder = Bidder(status=lambda number: BROKEN)
    with Served(bidder):
        sent = await deliver(bidder, count=3, limits=Limits(tries_max=2, drain_s=3.0))
    counts = sent.tally.counts

    assert {} == sent.invoice
    assert counts["notices_failed"] == counts["notices_retried"] == counts["notices_sent"] // 2 > 9


async def test_refusals_are_final() -> None:
    """4xx is a no; it is counted by kind and not repeated."""
    bidder = Bidder(status=lambda number: FORBIDDEN)
    with Served(bidder):
        sent = await deliver(bidder, count=3)

    assert sent.tally.counts["notices_refused"] == sent.tally.counts["notices_sent"] > 9
    assert 3 == sent.tally.reasons["notice bill status 403"]


async def test_nobody_is_there() -> None:
    """Notices wait for a dead bidder no longer than the drain, and are then dropped."""
    sent = await deliver(Bidder(base="http://127.0.0.1:1"), limits=Limits(drain_s=0.1))

    assert 0 == sent.tally.counts["notices_sent"]
    assert sent.tally.counts["notices_dropped"] >= 80


async def test_what_waits_is_bounded() -> None:
    """More than may wait is dropped at once, and counted."""
    limits = Limits(waiting_max=10, drain_s=0.1)
    sent = await deliver(Bidder(base="http://127.0.0.1:1"), limits=limits)

    assert sent.tally.counts["notices_dropped"] >= 80


async def test_the_other_node_hears_a_share() -> None:
    """Notices are stateless: any node takes them, and the invoice is of both."""
    here, there = Bidder(), Bidder()
    with Served(here, there):
        sent = await deliver(here, Faults(elsewhere=0.5), 40, other=there.base)
    booked = in_hex(here.booked() | there.booked())

    assert booked == sent.invoice
    assert len(there.notices) == sent.tally.counts["notices_elsewhere"] > 40
    assert set(here.booked()).isdisjoint(there.booked())


async def test_another_base() -> None:
    """URLs of a public host reach the bidder that stands in for it; https is not spoken here."""
    bidder = Bidder()
    with Served(bidder):
        base, bidder.base = bidder.base, "https://bid.example"
        unsendable = await deliver(bidder, count=2)
        sent = await deliver(bidder, count=2, base=base)

    assert ({}, 2) == (unsendable.invoice, len(sent.invoice))
    assert unsendable.tally.counts["notices_unsendable"] >= 8


async def test_late_bills_are_waited_for() -> None:
    """The drain hurries what is under way, and waits for what is late on purpose."""
    bidder = Bidder()
    with Served(bidder):
        sent = await deliver(bidder, Faults(late=1.0), 5)
    kinds = [each.kind for each in bidder.notices]

    assert (5, 5) == (len(sent.invoice), sent.tally.counts["notices_late"])
    assert [Kind.BILL] * 5 == kinds[-5:]


# -- the whole exchange ----------------------------------------------------------------------------


def test_a_run_with_an_invoice(tmp_path: Path) -> None:
    """Two processes, faults of all kinds: the joined invoice is what the bidder booked."""
    requests, path = tmp_path / "requests.jsonl", tmp_path / "invoice.csv"
    requests.write_bytes(REQUEST)
    bidder = Bidder(price=60.0)
    with Served(bidder):
        options = Options(
            url=f"{bidder.base}/openrtb2/generic/bid", rate=100, seconds=0.6, connections=4,
            processes=2, requests=requests, invoice=path, waits=SOON, habits=ALWAYS,
            faults=Faults(lost=0.2, duplicated=0.2, reordered=0.1, forged=0.1),
        )  # fmt: skip
        found = run(options)
    lines = list(read(path))
    nanos = sum(line.nanos for line in lines)

    assert found.wins > found.billed == len(lines) > 10
    assert bidder.booked() == {line.bid: line.price_micros for line in lines}
    assert {"USD": nanos} == found.billed_nanos
    assert {"USD": -(-nanos // 1000)} == found.billed_micros
    assert {"USD": nanos_text(nanos)} == found.invoice_total
    assert {"generic"} == {line.exchange for line in lines}
    assert found.notices["forged"] == sum(bidder.refused.values())
    assert [path.name] == [each.name for each in tmp_path.glob("invoice*")]


def test_the_command_tells_of_notices(tmp_path: Path) -> None:
    """Shares are options; the last line has the invoice and the counts of notices."""
    requests, path = tmp_path / "requests.jsonl", tmp_path / "invoice.csv"
    requests.write_bytes(REQUEST)
    bidder = Bidder(price=60.0)
    with Served(bidder):
        arguments = ["exchange", "--url", f"{bidder.base}/openrtb2/generic/bid", "--rate", "50",
                     "--seconds", "0.4", "--requests", str(requests), "--invoice", str(path),
                     "--lost", "0.1", "--duplicated", "0.2", "--win-ms", "5", "--show-ms", "5",
                     "--json"]  # fmt: skip
        result = CliRunner().invoke(gathered(), arguments)

    assert 0 == result.exit_code, result.output
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert len(list(read(path))) == found["billed"] > 5
    assert found["notices"]["duplicated"] > 0
    assert any(line.startswith("invoice: ") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    "wrong",
    [
        {"settle": "lurl"}, {"faults": Faults(lost=1.5)}, {"waits": Waits(win_ms=-1.0)},
        {"faults": Faults(elsewhere=0.1)}, {"route": Route(other="https://x")},
        {"limits": Limits(tries_max=0)}, {"limits": Limits(drain_s=-1.0)},
        {"habits": Habits(shown=2.0)},
    ],
)  # fmt: skip
def test_impossible_notices(wrong: dict[str, object]) -> None:
    """Shares are shares, and another node needs its URL."""
    with pytest.raises(ConfigError):
        Options(url="http://h/p", **wrong).check()  # type: ignore[arg-type]


# -- invoices --------------------------------------------------------------------------------------


def test_invoices_are_joined(tmp_path: Path) -> None:
    """Parts become one file with one header; what is read is what was written."""
    path = tmp_path / "invoice.csv"
    for share in range(2):
        part = Invoice(part_of(path, share))
        part.add(Entry(f"{share + 10:016x}", "1", 1_234_567 + share, "USD", 1_700_000_000_123, "x"))
        part.close()
    join(path, 3)

    assert [10, 11] == [line.bid for line in read(path)]
    join(path, 3)  # there is nothing more: the file stays
    first = path.read_text().splitlines()[1]
    text = f"000000000000000a,1,{format_micros(1_234_567)},USD,0.001234567,"
    assert first == text + "2023-11-14T22:13:20.123Z,x"


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("xyz,1,1,USD,1,2023-01-01T00:00:00Z,x", "row 2 field bid"),
        ("a,1,1,USD,1.0000000001,2023-01-01T00:00:00Z,x", "row 2 field cost"),
        ("a,1,1,DOLLAR,1,2023-01-01T00:00:00Z,x", "row 2 field currency"),
        ("a,1,1,USD,1,2023-01-01T00:00:00,x", "row 2 field time"),
        ("a,1,nan,USD,1,2023-01-01T00:00:00Z,x", "row 2 field price"),
    ],
)
def test_invoices_are_read_strictly(tmp_path: Path, row: str, place: str) -> None:
    """What is wrong is told with its place."""
    path = tmp_path / "invoice.csv"
    path.write_text(f"bid,imp,price,currency,cost,time,exchange\n{row}\n")
    with pytest.raises(InputError, match=place):
        list(read(path))


def test_an_invoice_needs_its_columns(tmp_path: Path) -> None:
    """A file of something else is told as such, and so is none."""
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column bid, price"):
        list(read(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read(tmp_path / "none.csv"))


# -- the audience ----------------------------------------------------------------------------------


def test_the_seeded_people_click_by_their_truth(seeded: Path) -> None:
    """Odds depend on the person and the ad; an unknown ad has the average of its medium."""
    ads = seeded_ads(seeded)
    traffic = Traffic(1, 500)
    visits = [traffic.visit() for _ in range(50)]
    truth = Seeded(people(500), visits, ads)
    known = Bid("1", 1.0, crid=next(iter(ads)))
    odds = {truth.odds(number, known)[0] for number in range(50)}

    assert len(ads) > 100
    assert len(odds) > 10
    assert all(0.0 < each < 0.2 for each in odds)
    assert Anybody().odds(0, known) == truth.odds(0, Bid("1", 1.0, crid="?"))
    assert {} == seeded_ads(seeded / "none")


def test_a_sale_is_billed_once() -> None:
    """Sales are told apart by what they are, not by what they say."""
    assert Sale("a", "1", 1, "USD") != Sale("a", "1", 1, "USD")
