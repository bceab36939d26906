"""What is told of a bid, and what goes wrong on the way: no network, no clock."""

from collections import Counter
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec
import pytest

from rtb.base.events import Kind, PriceState, VideoEvent
from rtb.base.records import Media
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Notice as Read
from rtb.notices.notice import Refused
from rtb.notices.reading import read
from rtb.sim.auction import Bid, Loss, Lost, Offer, Verdict, Won
from rtb.sim.dice import Dice
from rtb.sim.notices import (
    Auction,
    Faults,
    Habits,
    Notice,
    Part,
    Teller,
    Waits,
    filled,
    urls_in,
)
from rtb.sim.shop import Order, Shopper, order_of, report_url
from tests.sim.bidder import KEYS, TIME_S, Bidder, page_of

AUCTION = Auction(7, 0, "r 1", "b", "USD")
ALWAYS = Habits(shown=1.0, viewed=1.0, stays=1.0)
NONE = Faults()
NOW_MS = 1_000_000


class Clicker:
    """Everybody clicks and buys."""

    def odds(self, number: int, bid: Bid) -> tuple[float, float]:
        return 1.0, 1.0


def told(
    bidder: Bidder, faults: Faults = NONE, habits: Habits = ALWAYS, seed: int = 1,
    settle: Kind = Kind.BILL, wins: int = 1, losses: int = 0,
) -> tuple[list[Notice], Counter[str]]:  # fmt: skip
    """The notices of an auction where all bids won, or lost, and what was counted."""
    counted: Counter[str] = Counter()
    teller = Teller(settle, seed, Clicker(), lambda name: counted.update([name]), faults,
                    habits=habits)  # fmt: skip
    verdict = Verdict()
    for _ in range(wins):
        offer = Offer(msgspec.convert(bidder.bid(), Bid), "s")
        verdict.won.append(Won(3_250_000, "USD", 1_500_000, offer))
    for _ in range(losses):
        offer = Offer(msgspec.convert(bidder.bid(), Bid), "s")
        verdict.lost.append(Lost(Loss.OUTBID, 9_000_000, offer))
    return list(teller.notices(AUCTION, verdict, NOW_MS)), counted


def heard(bidder: Bidder, notice: Notice) -> Read | Refused:
    """What the bidder makes of it."""
    parts = urlsplit(notice.url)
    target = f"{parts.path}?{parts.query}".encode()
    return read(target, TIME_S * 1000, KEYS, bidder.terms)


def test_what_a_winner_hears() -> None:
    """Win, bill, impression, view and click, each once, all genuine, with the cleared price."""
    bidder = Bidder()
    found, counted = told(bidder)
    read_back = {each.kind: each for each in (heard(bidder, one) for one in found)}  # type: ignore[union-attr]

    assert {Kind.WIN, Kind.BILL, Kind.IMPRESSION, Kind.VIEW, Kind.CLICK} == set(read_back)
    assert 5 == len(found)
    bill = read_back[Kind.BILL]
    assert isinstance(bill, Read)
    assert (PriceState.OK, 3_250_000, 1_500_000) == (
        bill.price_state, bill.price_micros, bill.min_to_win_micros,
    )  # fmt: skip
    assert {} == counted
    assert [Kind.CLICK] == [one.kind for one in found if one.shopper is not None]
    assert all(one.due_ms >= NOW_MS and not one.held_ms for one in found)
    assert [Kind.BILL] == [one.kind for one in found if one.sale is not None]


@pytest.mark.parametrize(
    ("settle_on", "kind"),
    [("burl", Kind.BILL), ("impression", Kind.IMPRESSION), ("nurl", Kind.WIN)],
)
def test_who_settles(settle_on: str, kind: Kind) -> None:
    """The invoice follows the one kind that the exchange settles on, which brings the price."""
    bidder = Bidder(settle_on=settle_on)
    found, _ = told(bidder, settle=kind)
    (sold,) = [one for one in found if one.sale is not None]
    notice = heard(bidder, sold)

    assert isinstance(notice, Read)
    assert (kind, 3_250_000) == (notice.kind, notice.price_micros)


def test_what_a_loser_hears() -> None:
    """A loss notice with its reason and what would have won."""
    bidder = Bidder()
    (found,) = told(bidder, wins=0, losses=1)[0]
    notice = heard(bidder, found)

    assert isinstance(notice, Read)
    assert (Kind.LOSS, 102, 9_000_000) == (notice.kind, notice.loss, notice.min_to_win_micros)
    assert found.sale is None


def test_an_ad_that_is_not_shown_is_not_billed() -> None:
    """The win notice comes, and nothing else."""
    found, _ = told(Bidder(), habits=Habits(shown=0.0))

    assert [Kind.WIN] == [one.kind for one in found]


@pytest.mark.parametrize(("stays", "events"), [(1.0, [0, 1, 2, 3, 4]), (0.0, [0, 7])])
def test_videos_are_watched(stays: float, events: list[int]) -> None:
    """Quarter after quarter in time, until the end or a skip."""
    bidder = Bidder(media=Media.VIDEO)
    found, _ = told(bidder, habits=Habits(1.0, 0.0, stays))
    video = [one for one in found if one.kind is Kind.VIDEO]

    assert events == [heard(bidder, one).detail for one in video]  # type: ignore[union-attr]
    assert sorted(one.due_ms for one in video) == [one.due_ms for one in video]
    assert VideoEvent.SKIP == 7


def test_clicks_behind_a_macro_are_found() -> None:
    """An exchange that counts clicks by a macro encodes our URL behind it."""
    macro = Exchange(name="x", path="x", click_macro="https://ads.example/c?u=")
    bidder = Bidder()
    bidder.exchange = macro
    click = told(bidder)[0][-1]

    assert Kind.CLICK is click.kind
    assert click.url.startswith("http://bid.example/n/click/")


def test_native_markup() -> None:
    """A native ad is JSON; its URLs end where their strings do."""
    url = f"https://bid.example/n/imp/{'x' * 107}?p=${{AUCTION_PRICE}}"
    found = urls_in(msgspec.json.encode({"native": {"imptrackers": [url]}}).decode(), 4)

    assert {(Kind.IMPRESSION, 0): url} == found


def test_macros() -> None:
    """Values are encoded; what is unknown or encrypted becomes empty."""
    url = "http://x/?a=${AUCTION_ID}&b=${AUCTION_PRICE:BF}&c=${AUCTION_NEW}&d=${OTHER}"

    assert "http://x/?a=r%201&b=&c=&d=${OTHER}" == filled(url, {"ID": "r 1", "PRICE": "1"})


def test_the_same_seed_tells_the_same() -> None:
    """Faults and waits belong to the auction, not to the order of calls."""
    mixed = Faults(lost=0.3, duplicated=0.3, reordered=0.3, forged=0.3, altered=0.3, replayed=0.3)
    runs = [
        [(one.due_ms, one.kind, one.part) for one in told(Bidder(), mixed, seed=seed, wins=9)[0]]
        for seed in (4, 4, 5)
    ]

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_lost_notices() -> None:
    """All lost: nothing is sent, everything is counted."""
    found, counted = told(Bidder(), Faults(lost=1.0), losses=1)

    assert ([], 6) == (found, counted["notices_lost"])


def test_copies() -> None:
    """A copy soon after, a replay later, and both may still bill if the first was lost."""
    found, counted = told(Bidder(), Faults(duplicated=1.0, replayed=1.0))
    bills = [one for one in found if one.kind is Kind.BILL]

    assert [Part.GENUINE, Part.COPY, Part.COPY] == [one.part for one in bills]
    assert 1 == len({id(one.sale) for one in bills})
    assert [0, 0, Waits().replay_ms] == [one.held_ms for one in bills]
    assert (5, 5) == (counted["notices_duplicated"], counted["notices_replayed"])


def test_late_bills() -> None:
    """Only what settles is kept back, for longer than the reservation lives."""
    found, counted = told(Bidder(), Faults(late=1.0))
    (bill,) = [one for one in found if one.kind is Kind.BILL]

    assert bill.due_ms >= NOW_MS + Waits().late_ms
    assert Waits().late_ms == bill.held_ms
    assert {"notices_late": 1} == counted


def test_reordered_notices() -> None:
    """The last comes first."""
    straight, _ = told(Bidder())
    found, counted = told(Bidder(), Faults(reordered=1.0))

    assert sorted(one.due_ms for one in straight) == sorted(one.due_ms for one in found)
    assert max(one.due_ms for one in found) == found[0].due_ms
    assert 5 == counted["notices_reordered"]


def test_forged_notices_are_refused() -> None:
    """A changed tag opens nothing, and the genuine notice comes besides."""
    bidder = Bidder()
    found, counted = told(bidder, Faults(forged=1.0), losses=1)
    false = [one for one in found if one.part is Part.FORGED]

    assert counted["notices_forged"] == len(false) == len(found) // 2 == 6
    assert all(isinstance(heard(bidder, one), Refused) for one in false)
    assert all(one.sale is None for one in false)


def test_altered_prices_are_quarantined() -> None:
    """A raised price is above the bid, and bills nothing here."""
    bidder = Bidder()
    found, counted = told(bidder, Faults(altered=1.0))
    raised = [one for one in found if one.part is Part.ALTERED]
    states = {heard(bidder, one).price_state for one in raised}  # type: ignore[union-attr]

    assert counted["notices_altered"] == len(raised) == 2  # win and bill
    assert {PriceState.ABOVE_BID} == states
    assert all(one.sale is None for one in raised)


def test_shares_of_clicks_and_orders_may_be_set() -> None:
    """Whatever people like, then: all of them, or nobody."""
    click = [one for one in told(Bidder(), habits=replace(ALWAYS, bought=0.0))[0] if one.shopper]

    assert [0.0] == [one.shopper.odds for one in click if one.shopper is not None]
    assert Kind.CLICK not in {
        one.kind for one in told(Bidder(), habits=replace(ALWAYS, clicked=0.0))[0]
    }


# -- conversions -----------------------------------------------------------------------------------


def landed(bidder: Bidder, faults: Faults = NONE) -> tuple[list[Notice], Counter[str]]:
    """What comes of a click that was sent on, by somebody who always buys."""
    click = next(one for one in told(bidder)[0] if one.kind is Kind.CLICK)
    read_back = heard(bidder, click)
    assert isinstance(read_back, Read)
    counted: Counter[str] = Counter()
    teller = Teller(Kind.BILL, 1, Clicker(), lambda name: counted.update([name]), faults)
    return list(teller.landed(click, page_of(read_back), NOW_MS)), counted


def test_who_clicked_may_buy() -> None:
    """The shop reports it with the token of the landing page; what it says is what was drawn."""
    bidder = Bidder()
    ((report,), counted) = landed(bidder)
    found, order = heard(bidder, report), report.order

    assert isinstance(found, Read)
    assert order is not None
    assert {"orders": 1} == counted
    assert report.due_ms >= NOW_MS
    assert (Kind.ORDER if order.id else Kind.CONVERSION) == found.kind
    assert order.value_micros == max(found.order.value_micros, 0)
    assert bool(order.id) == (found.price_state is PriceState.OK)


def test_nobody_buys_twice_with_one_click() -> None:
    """A click that is sent again leads to the same person."""
    shopper = Shopper("b", 1.0, "USD", Dice(1, 2, 3))

    assert order_of(shopper) is not None
    assert order_of(shopper) is None


def test_orders_and_sign_ups() -> None:
    """Most conversions are orders with an id and a value of whole cents; chance is the bid's."""
    drawn = [order_of(Shopper(f"{n}", 1.0, "EUR", Dice(1, n, 0))) for n in range(500)]
    orders = [each for each in drawn if each is not None and each.id]

    assert 0 == sum(each is None for each in drawn)
    assert 0.7 < len(orders) / 500 < 0.9
    assert all(0 < each.value_micros <= 200_000_000 for each in orders)
    assert all(each.value_micros % 10_000 == 0 for each in orders)
    assert order_of(Shopper("b", 0.0, "EUR", Dice(1, 2, 3))) is None


def test_a_page_without_a_token_reports_nothing() -> None:
    """The advertiser was not told which click it is."""
    order = Order("1", 1, "EUR")

    for page in ("", "https://shop.example/", f"https://shop.example/?rtb={'x' * 106}"):
        assert "" == report_url("http://bid.example/n/click/t", page, order)


def test_faults_of_reports() -> None:
    """They get lost and forged like anything else."""
    assert ([], 1) == (landed(Bidder(), Faults(lost=1.0))[0], 1)
    found, counted = landed(Bidder(), Faults(forged=1.0, duplicated=1.0))

    assert [Part.GENUINE, Part.COPY, Part.FORGED] == [one.part for one in found]
    assert 1 == len({id(one.order) for one in found})
    assert isinstance(heard(Bidder(), found[2]), Refused)
    assert 1 == counted["orders"]


def test_dice() -> None:
    """Numbers are in [0, 1), differ, and belong to auction and bid."""
    one, same, other = Dice(1, 2, 3), Dice(1, 2, 3), Dice(1, 2, 4)
    numbers = [one.unit() for _ in range(1000)]

    assert all(0.0 <= each < 1.0 for each in numbers)
    assert 0.45 < sum(numbers) / 1000 < 0.55
    assert numbers[:5] == [same.unit() for _ in range(5)] != [other.unit() for _ in range(5)]
    assert max(one.wait_ms(100.0) for _ in range(1000)) <= 500
