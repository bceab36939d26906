"""Notices on a real node: answered once they are durable, booked once, from any sender."""

import json
import re
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import pytest

from rtb.base.events import Kind
from rtb.base.links import CONVERSION_MACRO
from rtb.ledger.pages import PAGE_SHIFT, number_of, page_of
from rtb.notices.conversions import Conversions, Total
from rtb.sim.auction import Bid, Offer, Verdict, Won
from rtb.sim.feedback import Courier, Route, now_ms
from rtb.sim.notices import Auction, Faults, Habits, Teller, Waits
from rtb.sim.tally import Tally
from rtb.stores.journal import READABLE
from rtb.stores.journal_kept import Records, kept_in
from rtb.stores.ledger_pages import decode
from rtb.stores.serving import StatePaths
from tests.server.conftest import Node, StartNode
from tests.server.test_answers import REQUEST, read_answer, split_answer

MACROS = {
    "PRICE": "1.25", "CURRENCY": "USD", "MULTIPLIER": "", "MIN_TO_WIN": "1.1", "LOSS": "102",
}  # fmt: skip


@pytest.fixture(scope="module")
def node(start_node: StartNode) -> Node:
    """A node with a small catalogue."""
    return start_node(line_items=60)


def bid_on(node: Node, **fields: Any) -> dict[str, Any]:
    """A bid of the node."""
    for number in range(50):
        body = REQUEST | {"id": f"n{time.monotonic_ns()}-{number}"} | fields
        status, answer = node.post(json.dumps(body).encode())
        if status == 200:
            found: dict[str, Any] = json.loads(answer)["seatbid"][0]["bid"][0]
            return found
    raise AssertionError("nobody bids")


def filled(url: str, **values: str) -> str:
    """A notice URL as an exchange calls it."""
    for name, value in (MACROS | values).items():
        url = url.replace(f"${{AUCTION_{name}}}", value)
    return url


def path_of(url: str, **values: str) -> str:
    """The part of a notice URL behind the host."""
    parts = urlsplit(filled(url, **values))
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def rows(node: Node, query: str) -> list[tuple[Any, ...]]:
    """What the books on disk say."""
    books = sqlite3.connect(f"file:{node.data / 'ledger' / 'ledger.db'}?mode=ro", uri=True)
    try:
        return books.execute(query).fetchall()
    finally:
        books.close()


def settled(node: Node, bid: dict[str, Any]) -> list[tuple[Any, ...]]:
    """How a bid was settled: (mark, nanos)."""
    number = int(bid["id"], 16)
    return rows(node, f"select mark, nanos from settled where bid = {number}")


def is_lost(node: Node, bid: dict[str, Any]) -> bool:
    """Whether the books closed a bid: on its page, or, if the loss was read first, by a mark."""
    number = int(bid["id"], 16)
    page = f"select body from losses where first >> {PAGE_SHIFT} = {page_of(number)}"
    closed = [decode(body, np.dtype("u2"), "losses") for (body,) in rows(node, page)]
    marked = [nanos for _, nanos in settled(node, bid)]
    return marked == [0] or any(number_of(number) in numbers for numbers in closed)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_bill_is_booked_once(node: Node) -> None:
    """However often it comes, and on whichever way; its price is what is booked."""
    bid = bid_on(node)
    target = path_of(bid["burl"], PRICE=str(bid["price"] / 2))
    answers = [node.get(target)[0] for _ in range(5)]
    answers.append(split_answer(node.raw(_get(target, b"te: trailers")))[0])

    assert [204] * 6 == answers
    ((_, nanos),) = until(lambda: settled(node, bid))
    assert round(bid["price"] / 2 * 1e6) == nanos
    until(lambda: node.metric("rtb_records_applied_total") >= 6)
    assert 1 == len(settled(node, bid))


def _get(target: str, *headers: bytes) -> bytes:
    lines = [b"GET %b HTTP/1.1" % target.encode(), b"host: x", *headers, b"", b""]
    return b"\r\n".join(lines)


def test_a_loss_frees_the_money(node: Node) -> None:
    """After a loss notice nothing is held for the bid."""
    bid = bid_on(node)
    assert 204 == node.get(path_of(bid["lurl"]))[0]

    until(lambda: is_lost(node, bid))


def test_lane_and_route_answer_notices_alike(node: Node) -> None:
    """Pixels, wins and forged tokens: same status, headers and body on both ways."""
    bid = bid_on(node)
    targets = [path_of(bid["nurl"]), path_of(bid["nurl"])[:-90], "/n/imp/x", "/n/nothing"]
    targets.append(urlsplit(re.findall(r'https?://[^"]*/n/imp/[^"?]+', bid["adm"])[0]).path)
    for target in targets:
        lane = node.raw(_get(target))
        route = node.raw(_get(target, b"te: trailers"))
        assert split_answer(lane) == split_answer(route), target


def test_a_pixel_is_a_picture(node: Node) -> None:
    """The impression is an image that no cache may keep."""
    bid = bid_on(node)
    (pixel,) = re.findall(r'https?://[^"]*/n/imp/[^"?]+', bid["adm"])[:1]
    answer = node.raw(_get(urlsplit(pixel).path))

    assert b"\r\ncontent-type: image/gif\r\n" in answer
    assert b"\r\ncache-control: no-store" in answer
    assert answer.endswith(b";")
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"GIF89a")


def test_a_click_goes_to_the_landing_page_only(node: Node) -> None:
    """The signed target is where a click is sent; another one is refused, without a redirect."""
    bid = bid_on(node)
    (click,) = re.findall(r'https?://[^"]*/n/click/[^"]+', bid["adm"])[:1]
    landing = parse_qs(urlsplit(click).query)["to"][0].partition(CONVERSION_MACRO)[0]
    target = path_of(click)
    answer = node.raw(_get(target))
    other = node.raw(_get(target.partition("?")[0] + "?to=https%3A%2F%2Fevil.example%2F"))

    assert answer.startswith(b"HTTP/1.1 302 ")
    assert f"\r\nlocation: {landing}".encode() in answer
    assert other.startswith(b"HTTP/1.1 403 ")
    assert b"location" not in other.lower()


def conversion_of(node: Node, bid: dict[str, Any], query: str = "") -> str:
    """What a shop calls after a click on a bid, with the token that its landing page got."""
    (click,) = re.findall(r'https?://[^"]*/n/click/[^"]+', bid["adm"])[:1]
    head = node.raw(_get(path_of(click)))
    (token,) = re.findall(rb"\r\nlocation: [^\r]*[?&]rtb=([A-Za-z0-9_-]{107})\r\n", head)
    return f"/n/conversion/{token.decode()}{query}"


def conversions_in(node: Node) -> dict[int, Total]:
    """What the journals add up to."""
    paths, found = StatePaths(node.data), Conversions()
    for kept in kept_in(paths.journals, READABLE):
        for _, kind, body in Records(paths.journals, kept, kept.last, READABLE):
            if kind in (Kind.CONVERSION, Kind.ORDER):
                found.add(body)
    return found.by_line_item


def test_conversions_are_kept_once_they_are_answered(node: Node) -> None:
    """On either way, the click's token reports them: durable when answered, each counted once."""
    before = sum(each.conversions for each in conversions_in(node).values())
    order = conversion_of(node, bid_on(node), "?order=A-1&value=59.90&currency=EUR")
    other = order.replace("A-1", "A-2")
    assert [200] * 3 == [node.get(order)[0] for _ in range(3)]
    assert split_answer(node.raw(_get(other))) == split_answer(
        node.raw(_get(other, b"te: trailers"))
    )
    found = conversions_in(node).values()

    assert 2 == sum(each.conversions for each in found) - before
    assert 2 * 59_900_000 == sum(each.value_micros[0x455552] for each in found)
    assert 403 == node.get(order.replace("/conversion/", "/bill/"))[0]


class Buyer:
    """Everybody clicks and buys."""

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        return 1.0, 1.0


async def test_the_simulated_shops_are_believed(node: Node) -> None:
    """Behind the real redirects they report, with copies and forgeries, what the journals count."""
    before, tally = conversions_in(node), Tally()
    faults = Faults(duplicated=0.5, forged=0.5, replayed=0.5)
    waits = Waits(5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, replay_ms=30)
    teller = Teller(Kind.BILL, 1, Buyer(), tally.count, faults, waits, Habits(shown=1.0))
    courier = Courier(
        tally, lambda notice: None, Route(node.url),
        landed=lambda click, page: teller.landed(click, page, now_ms()),
    )  # fmt: skip
    courier.start()
    for serial in range(12):
        offer = Offer(msgspec.convert(bid_on(node), Bid), "s")
        verdict = Verdict(won=[Won(1000, "USD", 0, offer)])
        courier.take(teller.notices(Auction(serial, 0, "r", "b", "USD"), verdict, now_ms()))
    await courier.drain()
    courier.close()
    found = Counter[str]()
    for key, total in conversions_in(node).items():
        old = before.get(key, Total())
        found["conversions"] += total.conversions - old.conversions
        found["micros"] += total.value_micros[0x555344] - old.value_micros[0x555344]

    assert tally.counts["clicks"] == tally.counts["orders"] == tally.counts["conversions"] > 5
    assert {"conversions": tally.counts["conversions"], "micros": tally.ordered["USD"]} == found
    assert 0 == tally.counts["forged_accepted"] + tally.counts["notices_dropped"]


def test_a_conversion_that_says_nonsense_counts(node: Node) -> None:
    """Without its value, which an operator is told of."""
    said = 'rtb_notices_total{kind="conversion",result="bad_value"}'
    before = node.metric(said)

    assert 200 == node.get(conversion_of(node, bid_on(node), "?value=much&currency=EUR"))[0]
    assert 1 == node.metric(said) - before


def test_a_conversion_may_be_a_form(node: Node) -> None:
    """Fields may stand in the body of a POST, which comes when it comes; the connection goes on.
    An order is the same one however its space is written."""
    before = conversions_in(node)
    target = conversion_of(node, bid_on(node), "")
    head = (
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        b"content-length: %d\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        for order in (b"F+1", b"F%201"):
            form = b"order=" + order + b"&value=9.75&currency=CHF"
            connection.sendall(head % (target.encode(), len(form)))
            time.sleep(0.05)
            connection.sendall(form)
            assert 200 == split_answer(read_answer(connection))[0]
    found = [
        each.value_micros[0x434846] - before.get(key, Total()).value_micros[0x434846]
        for key, each in conversions_in(node).items()
    ]

    assert 9_750_000 == sum(found)


def test_conversions_of_tests_do_not_count(node: Node) -> None:
    """They are answered, so that an integration can be tried, and leave nothing."""
    before = conversions_in(node)

    assert 200 == node.get(conversion_of(node, bid_on(node, test=1), "?order=1"))[0]
    assert before == conversions_in(node)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda target: target.replace("/n/bill/", "/n/win/"), 403),
        (lambda target: target.replace("/n/bill/AQ", "/n/bill/BQ"), 400),
        (lambda target: target[:40] + ("A" if target[40] != "A" else "B") + target[41:], 403),
        (lambda target: "/n/bill/", 400),
        (lambda target: "/n/", 400),
        (lambda target: "/n/bill/" + "A" * 107, 400),
    ],
)
def test_what_is_not_genuine_is_refused(
    node: Node, change: Callable[[str], str], status: int
) -> None:
    """A token for another kind, a changed one, or none: told so, counted, never booked."""
    bid = bid_on(node)
    refused = change(path_of(bid["burl"]))

    assert status == node.get(refused)[0]
    assert [] == settled(node, bid)


@pytest.mark.parametrize("price", ["AUDIT", "${AUCTION_PRICE}", "", "nonsense", "1e9"])
def test_prices_that_are_none_book_nothing(node: Node, price: str) -> None:
    """They are taken and counted, and kept for a person to look at where money may be owed."""
    bid, later = bid_on(node), bid_on(node)

    assert 204 == node.get(path_of(bid["burl"], PRICE=price))[0]
    assert 204 == node.get(path_of(later["burl"]))[0]
    until(lambda: settled(node, later))
    assert [] == settled(node, bid)


def test_a_test_is_answered_and_not_booked(node: Node) -> None:
    """The notices of a test request are genuine, and count for nothing: one that came after them
    is booked, and they are not."""
    test, later = bid_on(node, test=1), bid_on(node)

    assert 204 == node.get(path_of(test["burl"]))[0]
    assert 204 == node.get(path_of(later["burl"]))[0]
    until(lambda: settled(node, later))
    assert [] == settled(node, test)


def test_a_head_request_is_no_notice(node: Node) -> None:
    """Whoever looks before he calls has not called."""
    bid = bid_on(node)
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(_get(path_of(bid["burl"])).replace(b"GET", b"HEAD", 1))
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
    assert [] == settled(node, bid)


def test_a_restarted_node_accepts_old_notices(start_node: StartNode) -> None:
    """Notices need no memory of the process that bid: the books go on where they were."""
    node = start_node(line_items=60)
    bid, other = bid_on(node), bid_on(node)
    assert 204 == node.get(path_of(other["burl"]))[0]
    assert 0 == node.stop()
    node = start_node(data=node.data, line_items=0)

    assert 204 == node.get(path_of(bid["burl"]))[0]
    assert 204 == node.get(path_of(other["burl"]))[0]
    until(lambda: settled(node, bid))
    assert (1, 1) == (len(settled(node, bid)), len(settled(node, other)))


def test_data_directory_holds_its_secret(node: Node) -> None:
    """The secret that signs is the owner's alone to read."""
    path = Path(node.data, "secrets", "notices")

    assert 0o600 == path.stat().st_mode & 0o777
    assert len(path.read_bytes()) >= 32


def test_status_says_whether_bids_are_paid(node: Node) -> None:
    """An operator sees at a glance whether journal and keeper do their work."""
    money = json.loads(node.get("/status")[1])["money"]

    assert money["bids_are_paid"]
    assert "" == money["journal_fault"]
    assert node.keeper_pid() == money["keeper_pid"]
    assert 0 <= money["keeper_turn_age_ms"] < 60_000
