"""What a bid's notice URLs are made of: links, the same for many bids, and sheets, one a bid.

A *link* is a URL but for its token. An exchange and a currency have one of each kind (`Place`). A
*sheet* is a signed bid: the text of its claims and, slot by slot, of its tags. A URL is

    head | claims | tag of the slot | tail | text

where only clicks have a text: their landing page. So an encoder splices, and formats nothing.
"""

from enum import IntEnum
from typing import Final, NamedTuple
from urllib.parse import quote

import numpy as np

from rtb.base.errors import InvariantError
from rtb.base.events import CLAIMS, VideoEvent
from rtb.base.records import BIDS_MAX, Escape

CLAIMS_CHARS: Final = CLAIMS.itemsize // 3 * 4  # 72 is divisible by 3: base64 without padding
TAG_CHARS: Final = 11  # of 8 bytes
SLOTS_MAX: Final = 16
SHEET_CHARS_MAX: Final = CLAIMS_CHARS + SLOTS_MAX * TAG_CHARS


def token_of(sheet: bytes, slot: int) -> bytes:
    """One token of a signed bid. Raises: InvariantError when the sheet has no such tag."""
    start = CLAIMS_CHARS + slot * TAG_CHARS
    if len(sheet) < start + TAG_CHARS:
        raise InvariantError(f"signed without the tag of slot {slot}")
    return sheet[:CLAIMS_CHARS] + sheet[start : start + TAG_CHARS]


class Place(IntEnum):
    """Where each kind of notice stands among the links of an exchange."""

    WIN = 0
    BILL = 1
    LOSS = 2
    IMPRESSION = 3
    VIEW = 4
    CLICK = 5
    VIDEO = 6  # and one for each VideoEvent from here on


# Stands in a landing page; whoever clicks gets there with the token that reports a conversion.
CONVERSION_MACRO: Final = "{conversion_token}"
LINKS_COUNT: Final = Place.VIDEO + len(VideoEvent)


class Link(NamedTuple):
    """One kind of notice URL. Its characters need no escaping in JSON, whatever the settings say.

    slot: of its tag; landing: how often the landing page that follows is percent-encoded, once or
    twice; 0 where none follows
    """

    head: bytes
    slot: int
    tail: bytes
    landing: int = 0

    def url(self, sheet: bytes, text: bytes = b"", escape: int = Escape.NONE) -> bytes:
        """The URL of a signed bid; `text` is the landing page of a click, percent-encoded.

        A click without a landing page has no tail. Raises: InvariantError when the bid was signed
        without the tag.
        """
        token = token_of(sheet, self.slot)
        tail = self.tail
        if self.landing and text:
            tail += text.replace(b"%", b"%25") if self.landing == 2 else text
        elif self.landing:
            tail = b""
        return escaped(self.head + token + tail, escape)


Links = tuple[Link, ...]


def escaped(url: bytes, escape: int) -> bytes:
    """A URL as it stands in its place of the markup."""
    if escape == Escape.HTML:
        return url.replace(b"&", b"&amp;")
    return quote(url, safe="").encode() if escape == Escape.URL else url


# One signed bid: its id and its sheet.
SHEET: Final = np.dtype([("bid", "u8"), ("chars", "u8"), ("text", "u1", (SHEET_CHARS_MAX,))])


class Sheets:
    """The signed bids of one decision, row by row as it has them; reused like it."""

    __slots__ = ("address", "data")

    def __init__(self) -> None:
        self.data = np.zeros(BIDS_MAX, SHEET)
        self.address = self.data.ctypes.data

    def put(self, number: int, bid: int, sheet: bytes) -> None:
        """Signs a bid of the decision."""
        row = self.data[number]
        row["bid"], row["chars"] = bid, len(sheet)
        row["text"][: len(sheet)] = np.frombuffer(sheet, np.uint8)

    def sheet(self, number: int) -> bytes:
        """The sheet of a bid."""
        row = self.data[number]
        return bytes(row["text"][: row["chars"]].tobytes())
