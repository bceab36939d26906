"""What an exchange tells a bidder of its bids, and what goes wrong on the way. Pure.

A sold bid: its win notice at once; then the ad is shown, or not; when it is, its pixel, the billing
notice, perhaps a view, a click, the events of a video. A lost bid: its loss notice. Macros are
replaced as OpenRTB 2.6 section 4.4 says, in clear decimals; of an encrypted price nothing is known
here, and such macros become empty like any other unknown one.

Every chance belongs to the auction and the bid: the same seed and the same bids give the same
notices and faults, in whatever order answers come. Times are milliseconds of the caller's clock.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from rtb.base.events import Kind, VideoEvent
from rtb.base.money import MICROS, format_micros
from rtb.notices.urls import PATHS, PREFIX
from rtb.sim.auction import Bid, Lost, Verdict, Won
from rtb.sim.audience import Audience
from rtb.sim.dice import Dice
from rtb.sim.shop import Order, Shopper, order_of, report_url

_TAG_CHARS: Final = 11  # of a token; what stands before is the claims
SETTLING: Final[Mapping[str, Kind]] = {
    "burl": Kind.BILL, "impression": Kind.IMPRESSION, "nurl": Kind.WIN,
}  # fmt: skip


class Part(IntEnum):
    """What a request is: the notice itself, or something made of it."""

    GENUINE = 0
    COPY = 1  # the same again, soon or much later
    FORGED = 2
    ALTERED = 3


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of notices, 0 to 1, to which something happens."""

    lost: float = 0.0
    duplicated: float = 0.0
    reordered: float = 0.0  # of bids: their notices come in the opposite order
    elsewhere: float = 0.0
    forged: float = 0.0
    altered: float = 0.0  # of those with a price
    replayed: float = 0.0
    late: float = 0.0  # of those that settle


@dataclass(frozen=True, slots=True)
class Waits:
    """Mean waits in ms; `late_ms` and `replay_ms` are exact.

    win_ms       from the auction to the win or loss notice
    show_ms      from there until the ad is shown
    bill_ms      from there to the billing notice, and to each pixel
    view_ms, click_ms   from showing to being in view, and to a click
    order_ms     from getting to the shop to the conversion that it reports
    late_ms      more than the bidder's `reservation_ttl_s`, 600 s by default
    """

    win_ms: float = 200.0
    show_ms: float = 1_000.0
    bill_ms: float = 100.0
    view_ms: float = 1_000.0
    click_ms: float = 3_000.0
    order_ms: float = 5_000.0
    again_ms: float = 300.0
    late_ms: int = 610_000
    replay_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Habits:
    """What people and pages do: shares. `clicked` and `bought` (of clicks): None goes by the people
    that an `Audience` knows."""

    shown: float = 0.95  # of sold ads; the rest is never loaded
    viewed: float = 0.6  # of shown ads
    stays: float = 0.9  # of those who watch a quarter of a video, for the next
    clicked: float | None = None
    bought: float | None = None


@dataclass(slots=True, eq=False)
class Sale:
    """A sold impression as it will stand on the invoice, once."""

    bid: str
    imp: str
    price_micros: int
    currency: str
    billed: bool = False


@dataclass(slots=True, eq=False)
class Notice:
    """A request to send.

    sale      what it bills
    shopper   who clicked; order: what a conversion reports
    held_ms   how much of its wait is on purpose
    """

    due_ms: int
    kind: Kind
    url: str
    sale: Sale | None = None
    part: Part = Part.GENUINE
    elsewhere: bool = False
    held_ms: int = 0
    tries: int = 0
    shopper: Shopper | None = None
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Auction:
    """What the macros say of an auction as a whole."""

    serial: int
    number: int  # of the request in the pool
    id: str
    bidid: str
    currency: str


# -- URLs ------------------------------------------------------------------------------------------

_MACRO = re.compile(r"\$\{AUCTION_([A-Z_]+)(:[A-Za-z0-9_]+)?\}")
_NUMBERS: Final = frozenset({"PRICE", "MIN_TO_WIN", "LOSS", "MBR", "MULTIPLIER"})
_KINDS: Final = {path: key for key, path in PATHS.items()}
# Bills and losses stand beside the markup; a conversion is reported by the shop.
_ELSEWHERE: Final = (Kind.BILL, Kind.LOSS, Kind.CONVERSION)
_NAMES = "|".join(path for (kind, _), path in PATHS.items() if kind not in _ELSEWHERE)
_PLAIN = re.compile(
    rf"https?://[^\s\"'<>\\\]]+?{PREFIX}({_NAMES})/[A-Za-z0-9_\-]{{100,}}[^\s\"'<>\\\]]*"
)
# Behind an exchange's click macro our URL is encoded once more.
_CODED = re.compile(
    rf"https?%3A%2F%2F[A-Za-z0-9%._~\-]+?{quote(PREFIX, safe='')}(click)%2F[A-Za-z0-9%._~\-]+"
)


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")


def filled(url: str, values: Mapping[str, str]) -> str:
    """A URL with its macros replaced; what is unknown, or encrypted, becomes empty."""

    def value(match: re.Match[str]) -> str:
        text = "" if match[2] else values.get(match[1], "")
        return text if match[1] in _NUMBERS else _quoted(text)

    return _MACRO.sub(value, url)


def urls_in(markup: str, mtype: int) -> dict[tuple[Kind, int], str]:
    """The bidder's own URLs in an ad: the first of each kind and video event."""
    found: dict[tuple[Kind, int], str] = {}
    for match in _PLAIN.finditer(markup):
        url = html.unescape(match[0]) if mtype == 1 else match[0]
        found.setdefault(_KINDS[match[1]], url)
    if (Kind.CLICK, 0) not in found and "%2Fclick%2F" in markup:
        coded = _CODED.search(markup)
        if coded is not None:
            found[Kind.CLICK, 0] = unquote(coded[0])
    return found


def forged(url: str) -> str:
    """The same URL with another tag: who has no secret cannot do better."""
    head, _, query = url.partition("?")
    at = len(head) - _TAG_CHARS
    other = "A" if head[at : at + 1] != "A" else "B"
    return head[:at] + other + head[at + 1 :] + (f"?{query}" if query else "")


# -- what is told ----------------------------------------------------------------------------------


class Teller:
    """Makes the notices of auctions; `count` hears what becomes of them here."""

    def __init__(
        self,
        settle: Kind,
        seed: int,
        audience: Audience,
        count: Callable[[str], None],
        faults: Faults = Faults(),
        waits: Waits = Waits(),
        habits: Habits = Habits(),
    ) -> None:
        self._settle, self._seed, self._audience, self._count = settle, seed, audience, count
        self._faults, self._waits, self._habits = faults, waits, habits

    def notices(self, auction: Auction, verdict: Verdict, now_ms: int) -> Iterator[Notice]:
        """Everything that will be sent for an auction that is over, in no order."""
        for index, won in enumerate(verdict.won):
            dice = Dice(self._seed, auction.serial, index)
            told = self._won(auction, won, index, dice, now_ms)
            yield from self._with_faults(told, dice)
        for index, lost in enumerate(verdict.lost, len(verdict.won)):
            if lost.offer.bid.lurl:
                dice = Dice(self._seed, auction.serial, index)
                yield from self._with_faults([self._lost(auction, lost, dice, now_ms)], dice)

    def landed(self, click: Notice, page: str, now_ms: int) -> Iterator[Notice]:
        """What comes of a click that was sent on to a page: perhaps the report of a conversion."""
        assert click.shopper is not None
        order = order_of(click.shopper)
        if order is None:
            return
        self._count("orders")
        url = report_url(click.url, page, order)
        if url:
            dice = click.shopper.dice
            due_ms = now_ms + dice.wait_ms(self._waits.order_ms)
            yield from self._fault(Notice(due_ms, Kind.CONVERSION, url, order=order), dice)

    def _lost(self, auction: Auction, lost: Lost, dice: Dice, now_ms: int) -> Notice:
        enough = lost.min_to_win_micros
        values = _values(auction, lost) | {
            "LOSS": str(lost.code),
            "MIN_TO_WIN": format_micros(enough) if enough else "",
        }
        due_ms = now_ms + dice.wait_ms(self._waits.win_ms)
        return Notice(due_ms, Kind.LOSS, filled(lost.offer.bid.lurl or "", values))

    def _won(self, auction: Auction, won: Won, index: int, dice: Dice, now_ms: int) -> list[Notice]:
        """The notices of a sold bid as they would be without faults."""
        bid, waits = won.offer.bid, self._waits
        sale = Sale(bid.id, bid.impid, won.price_micros, won.currency)
        values = _values(auction, won) | _price(won)
        told_ms = now_ms + dice.wait_ms(waits.win_ms)
        found: list[tuple[int, Kind, str]] = []
        if bid.nurl:
            found.append((told_ms, Kind.WIN, bid.nurl))
        if bid.adm and dice.hits(self._habits.shown):
            shown_ms = told_ms + dice.wait_ms(waits.show_ms)
            urls = urls_in(bid.adm, bid.mtype)
            if bid.burl:
                found.append((shown_ms + dice.wait_ms(waits.bill_ms), Kind.BILL, bid.burl))
            click, bought = self._odds(auction.number, bid)
            found += self._behaviour(urls, bid.dur, click, dice, shown_ms)
        # In the shop he has dice of his own: what happens there changes nothing here.
        there = Dice(self._seed ^ _SHOPS, auction.serial, index)
        return [
            Notice(
                due_ms, kind, filled(url, values), sale if kind is self._settle else None,
                shopper=Shopper(bid.id, bought, auction.currency, there)
                if kind is Kind.CLICK else None,
            )
            for due_ms, kind, url in found
        ]  # fmt: skip

    def _odds(self, number: int, bid: Bid) -> tuple[float, float]:
        click, bought = self._audience.odds(number, bid)
        habits = self._habits
        return (
            click if habits.clicked is None else habits.clicked,
            bought if habits.bought is None else habits.bought,
        )

    def _behaviour(
        self,
        urls: Mapping[tuple[Kind, int], str],
        duration_s: int,
        click_odds: float,
        dice: Dice,
        shown_ms: int,
    ) -> Iterator[tuple[int, Kind, str]]:
        """What page and person make of an ad that is shown."""
        waits = self._waits
        if (Kind.IMPRESSION, 0) in urls:
            due_ms = shown_ms + dice.wait_ms(waits.bill_ms)
            yield due_ms, Kind.IMPRESSION, urls[Kind.IMPRESSION, 0]
        if dice.hits(self._habits.viewed) and (Kind.VIEW, 0) in urls:
            yield shown_ms + dice.wait_ms(waits.view_ms), Kind.VIEW, urls[Kind.VIEW, 0]
        if dice.hits(click_odds) and (Kind.CLICK, 0) in urls:
            yield shown_ms + dice.wait_ms(waits.click_ms), Kind.CLICK, urls[Kind.CLICK, 0]
        yield from self._watched(urls, duration_s, dice, shown_ms)

    def _watched(
        self, urls: Mapping[tuple[Kind, int], str], duration_s: int, dice: Dice, shown_ms: int
    ) -> Iterator[tuple[int, Kind, str]]:
        """The events of a video, until somebody has seen enough."""
        for quarter, event in enumerate(_QUARTERS):
            due_ms = shown_ms + duration_s * 250 * quarter
            if quarter and not dice.hits(self._habits.stays):
                if (Kind.VIDEO, VideoEvent.SKIP) in urls:
                    yield due_ms, Kind.VIDEO, urls[Kind.VIDEO, VideoEvent.SKIP]
                return
            if (Kind.VIDEO, event) not in urls:
                return
            yield due_ms, Kind.VIDEO, urls[Kind.VIDEO, event]

    # -- what goes wrong ---------------------------------------------------------------------------

    def _with_faults(self, told: list[Notice], dice: Dice) -> Iterator[Notice]:
        if len(told) > 1 and dice.hits(self._faults.reordered):
            times = sorted((notice.due_ms for notice in told), reverse=True)
            for notice, due_ms in zip(told, times, strict=True):
                notice.due_ms = due_ms
                self._count("notices_reordered")
        for notice in told:
            yield from self._fault(notice, dice)

    def _fault(self, notice: Notice, dice: Dice) -> Iterator[Notice]:
        """A notice as it leaves: not at all, once, or in company."""
        faults = self._faults
        if dice.hits(faults.lost):
            self._count("notices_lost")
            return
        if notice.sale is not None and dice.hits(faults.late):
            self._count("notices_late")
            notice = _held(notice, self._waits.late_ms)
        for each in (notice, *self._company(notice, dice)):
            if dice.hits(faults.elsewhere):
                self._count("notices_elsewhere")
                each.elsewhere = True
            yield each

    def _company(self, notice: Notice, dice: Dice) -> Iterator[Notice]:
        """What is sent besides a notice: the same again, and what others make of it."""
        faults, due_ms = self._faults, notice.due_ms
        if dice.hits(faults.duplicated):
            self._count("notices_duplicated")
            again_ms = due_ms + dice.wait_ms(self._waits.again_ms)
            yield replace(notice, due_ms=again_ms, part=Part.COPY)
        if dice.hits(faults.replayed):
            self._count("notices_replayed")
            yield replace(_held(notice, self._waits.replay_ms), part=Part.COPY)
        if dice.hits(faults.forged):
            self._count("notices_forged")
            yield replace(notice, url=forged(notice.url), part=Part.FORGED, sale=None, shopper=None)
        if _PRICE_FIELD.search(notice.url) and dice.hits(faults.altered):
            self._count("notices_altered")
            url = _PRICE_FIELD.sub(_raised, notice.url)
            yield replace(notice, url=url, part=Part.ALTERED, sale=None)


_SHOPS: Final = 0x5348_4F50
_QUARTERS: Final = (
    VideoEvent.START, VideoEvent.FIRST_QUARTILE, VideoEvent.MIDPOINT, VideoEvent.THIRD_QUARTILE,
    VideoEvent.COMPLETE,
)  # fmt: skip
_PRICE_FIELD = re.compile(r"(?<=[?&]p=)[0-9.]+")


def _held(notice: Notice, ms: int) -> Notice:
    """A notice that is kept back."""
    return replace(notice, due_ms=notice.due_ms + ms, held_ms=notice.held_ms + ms)


def _raised(match: re.Match[str]) -> str:
    """A price above any bid that could have cleared at it."""
    return f"1000{match[0]}"


def _values(auction: Auction, fate: Won | Lost) -> dict[str, str]:
    """The macros that have nothing to do with prices."""
    bid, seat = fate.offer
    return {
        "ID": auction.id,
        "BID_ID": auction.bidid,
        "IMP_ID": bid.impid,
        "SEAT_ID": seat,
        "AD_ID": bid.adid,
        "CURRENCY": auction.currency,
        "MULTIPLIER": "1",
    }


def _price(won: Won) -> dict[str, str]:
    """The macros of a price; MBR is what was paid as a share of what was bid."""
    bid_micros = max(round(won.offer.bid.price * MICROS), 1)
    return {
        "PRICE": format_micros(won.price_micros),
        "MBR": format_micros(won.price_micros * MICROS // bid_micros),
        "MIN_TO_WIN": format_micros(won.min_to_win_micros),
        "LOSS": "0",
    }
