"""Notice URLs: which path and which macros each kind has on each exchange.

    /n/win/<token>?p=..&c=..&b=..&m=..&w=..      nurl
    /n/bill/<token>?p=..                         burl
    /n/loss/<token>?l=..&w=..&c=..&b=..          lurl
    /n/imp/<token>                               our pixel; with a price where it settles
    /n/view/<token>                              viewability
    /n/click/<token>?to=<landing page>           redirects there, and nowhere else
    /n/video/<event>/<token>                     VAST events, by their names in VAST
    /n/conversion/<token>?order=..&value=..&currency=..
                                                 the advertiser's, who got the token by a click

    p price   c currency of the price, as the exchange says   b currency of the bid, as we bid
    m multiplier   w min to win   l loss   d discount CPM   t when it was shown, epoch ms

Macros stay as they are, `${..}`: percent-encoded ones are not replaced. Everything else is encoded.
What is the same for all bids of an exchange and a currency is a `base.links.Link`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

from rtb.base.errors import ConfigError
from rtb.base.events import VIDEO_NAMES, Kind, VideoEvent
from rtb.base.links import Link, Links
from rtb.notices.notice import Settings
from rtb.notices.settle import is_priced
from rtb.notices.tokens import slot_of

PREFIX: Final = "/n/"
PATHS: Final[Mapping[tuple[Kind, int], str]] = {
    (Kind.WIN, 0): "win",
    (Kind.BILL, 0): "bill",
    (Kind.LOSS, 0): "loss",
    (Kind.IMPRESSION, 0): "imp",
    (Kind.CLICK, 0): "click",
    (Kind.VIEW, 0): "view",
    (Kind.CONVERSION, 0): "conversion",
} | {(Kind.VIDEO, event): f"video/{name}" for event, name in VIDEO_NAMES.items()}

# Query key and macro of what `notice_macros` names (OpenRTB 2.6 section 4.4).
_MACROS: Final = {
    "currency": "c=${AUCTION_CURRENCY}",
    "multiplier": "m=${AUCTION_MULTIPLIER}",
    "min_to_win": "w=${AUCTION_MIN_TO_WIN}",
    "loss": "l=${AUCTION_LOSS}",
    "discount": "d=${AUCTION_DISCOUNT_CPM}",
    "shown": "t=${AUCTION_IMP_TS}",
}
# Which of them an exchange can know by then.
_WIN: Final = {"currency", "multiplier", "min_to_win", "discount", "shown"}
_KNOWN: Final[Mapping[Kind, set[str]]] = {
    Kind.WIN: _WIN,
    Kind.BILL: _WIN,
    Kind.LOSS: {"loss", "min_to_win", "currency"},
    Kind.IMPRESSION: _WIN - {"min_to_win"},
}

_BASE = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+(?:/[A-Za-z0-9._~\-]+)*")


class Urls:
    """The notice URLs of one exchange.

    base: where the world reaches our workers, "https://bid.example", without a slash at its end.
    """

    def __init__(self, base: str, settings: Settings) -> None:
        """Raises: ConfigError for a base that cannot begin a URL."""
        if not _BASE.fullmatch(base):
            told = f"expected http(s)://host[:port][/path], got `{base}`"
            raise ConfigError(f"{told} - at `$.notices.base_url`")
        self._base = base
        self._settings = settings

    def links(self, currency: str) -> Links:
        """The links of bids in a currency, in the order of `base.links.Place`."""
        kinds = (Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.VIEW)
        events = (self._link(Kind.VIDEO, currency, event) for event in VideoEvent)
        return (*(self._link(kind, currency) for kind in kinds), self._click(), *events)

    def _link(self, kind: Kind, currency: str, event: int = 0) -> Link:
        tail = "&".join(self._query(kind, currency))
        head = f"{self._base}{PREFIX}{PATHS[kind, event]}/"
        return Link(head.encode(), slot_of(kind, event), f"?{tail}".encode() if tail else b"")

    def _click(self) -> Link:
        """Clicks stand behind the exchange's click macro where it has one.

        The claims must hold `target_hash` of the landing page.
        """
        head = f"{self._base}{PREFIX}{PATHS[Kind.CLICK, 0]}/"
        tail = "?to="
        macro = self._settings.click_macro
        encoded = bool(macro) and self._settings.click_url_encoded
        if encoded:
            head, tail = quote(head, safe=""), quote(tail, safe="")
        return Link((macro + head).encode(), slot_of(Kind.CLICK), tail.encode(), 1 + encoded)

    def _query(self, kind: Kind, currency: str) -> Iterator[str]:
        settings = self._settings
        if is_priced(kind, settings):
            if kind == Kind.IMPRESSION and not settings.markup_macros:
                return
            yield f"p={settings.price_macro}"
        elif kind != Kind.LOSS:
            return
        for name in settings.notice_macros:
            if name in _KNOWN[kind]:
                yield _MACROS[name]
        if "currency" in settings.notice_macros:
            yield f"b={currency}"
