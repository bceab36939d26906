"""The auction: which answers are valid, who wins, what is paid."""

import msgspec
import pytest

from rtb.sim.auction import (
    Answer,
    Ask,
    Bid,
    Invalid,
    Landscape,
    Loss,
    Offer,
    SeatBid,
    Slot,
    Won,
    ask_of,
    clearing_micros,
    decode_answer,
    judge,
    spend_micros,
    too_late,
)


class Fixed(Landscape):
    """Rivals that always pay the same."""

    def __init__(self, micros: int) -> None:
        super().__init__(1)
        self.micros = micros

    def rival_micros(self, mtype: int, country: str, currency: str) -> int:
        return self.micros


SLOT = Slot(floor_micros=1_000_000, pod=False, deals={"d1": (2_000_000, 3), "d2": (0, 1)})
POD = Slot(floor_micros=1_000_000, pod=True, deals={})
ASK = Ask("r1", 100, 1, ["USD"], "USA", {"1": SLOT, "2": SLOT, "p": POD})


def answer(*bids: Bid, cur: str = "USD", request_id: str | None = "r1") -> Answer:
    return Answer(id=request_id, seatbid=[SeatBid(list(bids))], cur=cur)


def bid(impid: str = "1", price: float = 3.0, **rest: object) -> Bid:
    return msgspec.convert({"impid": impid, "price": price, "adm": "<a>"} | rest, Bid)


@pytest.mark.parametrize(
    ("price", "rival", "floor", "at", "paid"),
    [
        (3_000_000, 2_000_000, 1_000_000, 1, 3_000_000),
        (3_000_000, 2_000_000, 1_000_000, 2, 2_010_000),
        (3_000_000, 500_000, 1_000_000, 2, 1_000_000),
        (3_000_000, 2_999_999, 1_000_000, 2, 3_000_000),
        (3_000_000, 3_000_000, 1_000_000, 1, None),
        (900_000, 0, 1_000_000, 1, None),
        (3_000_000, 9_000_000, 1_000_000, 3, 1_000_000),
        (0, 0, 0, 1, None),
        (3_000_000, 2_000_000, 0, 501, 2_010_000),
    ],
)
def test_what_a_winner_pays(price: int, rival: int, floor: int, at: int, paid: int | None) -> None:
    """First price pays its bid, second the next plus a cent, fixed the floor; a tie loses."""
    assert paid == clearing_micros(price, rival, floor, at)


def test_a_good_bid_wins() -> None:
    """The better price takes the impression at its own price."""
    verdict = judge(ASK, answer(bid()), Fixed(2_000_000), "r1")

    assert [Won(3_000_000, "USD", 2_000_000, Offer(bid()))] == verdict.won
    assert (1, [], []) == (verdict.bids, verdict.losses, verdict.faults)


def test_an_outbid_bid_loses() -> None:
    """A rival who pays more takes the impression."""
    verdict = judge(ASK, answer(bid()), Fixed(4_000_000), "r1")

    assert [Loss.OUTBID] == verdict.losses
    assert [(102, 4_000_000)] == [(each.code, each.min_to_win_micros) for each in verdict.lost]


def test_a_deal_comes_first() -> None:
    """A deal bid at its floor is preferred to a higher open bid of ours, and pays its floor."""
    both = answer(bid(price=9.0), bid(price=2.0, dealid="d1"))
    verdict = judge(ASK, both, Fixed(1), "r1")

    assert [(2_000_000, 2_000_000)] == [
        (each.price_micros, each.min_to_win_micros) for each in verdict.won
    ]
    assert [Loss.OWN_BID] == verdict.losses


def test_a_pod_takes_several() -> None:
    """Each bid on a dynamic pod has its own slot."""
    verdict = judge(ASK, answer(bid("p"), bid("p", 2.5)), Fixed(1), "r1")

    assert 2 == len(verdict.won)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (answer(bid(), request_id="other"), Invalid.ID),
        (answer(bid(), cur="EUR"), Invalid.CURRENCY),
        (answer(bid("9")), Invalid.IMPRESSION),
        (answer(bid(price=0.5)), Invalid.FLOOR),
        (answer(bid(price=-1.0)), Invalid.PRICE),
        (answer(bid(dealid="none")), Invalid.DEAL),
        (answer(bid(price=1.5, dealid="d1")), Invalid.FLOOR),
        (answer(bid(price=0.5, dealid="d2")), Invalid.FLOOR),
        (answer(bid(adm="")), Invalid.EMPTY),
    ],
)
def test_faults(found: Answer, fault: Invalid) -> None:
    """Each rule of an answer is checked, and its breach neither counts as a bid nor wins."""
    verdict = judge(ASK, found, Fixed(1), "r1")

    assert [fault] == verdict.faults
    assert (0, []) == (verdict.bids, verdict.won)
    assert [fault] == [each.why for each in verdict.lost]


@pytest.mark.parametrize(
    ("found", "code"),
    [(bid(price=0.5), 100), (bid(price=1.5, dealid="d1"), 101), (bid(dealid="none"), 4),
     (bid(adm=""), 7), (bid("9"), 3)],
)  # fmt: skip
def test_what_a_faulty_bid_is_told(found: Bid, code: int) -> None:
    """Each fault has its loss code (OpenRTB 2.6 section 5.25)."""
    assert [code] == [each.code for each in judge(ASK, answer(found), Fixed(1), "r1").lost]


def test_a_second_price_auction_tells_what_was_enough() -> None:
    """The loser of a second-price auction is told what it clears at (the example of 4.4.1)."""
    ask = Ask("r1", 100, 2, ["USD"], "USA", {"1": Slot(850_000, False, {})})
    verdict = judge(ask, answer(bid(price=0.9)), Fixed(1_000_000), "r1")

    assert [910_000] == [each.min_to_win_micros for each in verdict.lost]


def test_late_bids_are_lost() -> None:
    """Nothing of a late answer is judged, and every bid of it is told so."""
    verdict = too_late(answer(bid(), bid("9")))

    assert ([2, 2], 0) == ([each.code for each in verdict.lost], verdict.bids)


def test_what_is_remembered_of_a_request() -> None:
    """Floors, deals, pods and the country are read; a floor by duration is not judged."""
    body = b"""{"id":"x","at":1,"tmax":80,"cur":["EUR"],"device":{"geo":{"country":"DEU"}},"imp":[
        {"id":"1","bidfloor":0.5,"bidfloorcur":"EUR","pmp":{"deals":[{"id":"d","bidfloor":2}]}},
        {"id":"2","bidfloor":0.7,"bidfloorcur":"USD"},
        {"id":"3","bidfloor":9,"bidfloorcur":"EUR","video":{"poddur":60,"durfloors":[{}]}}]}"""
    ask = ask_of(body)

    assert ("x", 80, 1, ["EUR"], "DEU") == (
        ask.id, ask.tmax_ms, ask.at, list(ask.currencies), ask.country,
    )  # fmt: skip
    assert {
        "1": Slot(500_000, False, {"d": (2_000_000, 1)}),
        "2": Slot(0, False, {}),
        "3": Slot(0, True, {}),
    } == ask.slots


def test_rivals_repeat() -> None:
    """The same seed gives the same landscape, another seed another."""
    one, same, other = Landscape(5), Landscape(5), Landscape(6)

    assert [one.rival_micros(1, "USA", "USD") for _ in range(20)] == [
        same.rival_micros(1, "USA", "USD") for _ in range(20)
    ]
    assert one.rival_micros(1, "USA", "USD") != other.rival_micros(1, "USA", "USD")


def test_rivals_belong_to_their_auction() -> None:
    """Auctions meet the same rivals in whatever order they end."""

    def rivals(order: list[int]) -> dict[int, int]:
        landscape, found = Landscape(5), {}
        for serial in order:
            landscape.begin(serial)
            found[serial] = landscape.rival_micros(1, "USA", "USD")
        return found

    assert rivals([1, 2, 3]) == rivals([3, 1, 2])
    assert 3 == len(set(rivals([1, 2, 3]).values()))


def won(micros: int, currency: str) -> Won:
    return Won(micros, currency, 0, Offer(bid()))


def test_spend_is_of_single_impressions() -> None:
    """A CPM of 3 costs 3,000 micros an impression; euros count as dollars; parts round up."""
    assert 3_000 == spend_micros([won(3_000_000, "USD")])
    assert 2_000 == spend_micros([won(1_800_000, "EUR")])
    assert 1 == spend_micros([won(1, "USD")])


def test_an_answer_is_read_as_the_bidder_writes_it() -> None:
    """Unknown fields are no matter; a no-bid with a reason is an answer without bids."""
    found = decode_answer(b'{"id":"r1","nbr":2,"ext":{"a":1}}')

    assert (2, []) == (found.nbr, found.seatbid)
