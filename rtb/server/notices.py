"""A notice in three steps: read -> record -> answer, the last only once the record is durable.

    GET /n/win/<token>?...     204      win, bill and loss notices
    GET /n/imp|view|video/...  a GIF    what markup calls
    GET /n/click/<token>?to=   302      to the landing page that was signed, or a GIF without one
    GET /n/conversion/<token>  a GIF    what an advertiser's page or server calls

Who asks with a token that is not genuine, not for this, or of no exchange that we know is told so
(4xx). A journal that cannot record makes it a 503, after which exchanges come again; but a person
who clicked is sent on, whatever our disk does. Notices of tests are answered and never recorded.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from rtb.base.errors import StoreError
from rtb.base.events import Kind, PriceState
from rtb.base.links import CONVERSION_MACRO
from rtb.notices.notice import CONVERSIONS, Notice, Refusal, Refused, Terms
from rtb.notices.reading import Limits, read
from rtb.notices.tokens import Keyring, conversion_token
from rtb.stores.board import NoticeResult

# One transparent pixel, the smallest that all browsers take.
GIF: Final = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
CALLED_BY_MARKUP: Final = (Kind.IMPRESSION, Kind.VIEW, Kind.VIDEO, Kind.CLICK, *CONVERSIONS)
_STATUS: Final = {
    Refusal.MALFORMED: 400,
    Refusal.FORGED: 403,
    Refusal.WRONG_KIND: 403,
    Refusal.UNKNOWN_EXCHANGE: 410,
    Refusal.EXPIRED: 410,
    Refusal.TARGET: 403,
}


class Answer(NamedTuple):
    """An HTTP answer: status, what a client needs besides, and the body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


_BY_PRICE: Final = {
    PriceState.EMPTY: NoticeResult.EMPTY_PRICE,
    PriceState.AUDIT: NoticeResult.AUDIT,
    PriceState.UNSUBSTITUTED: NoticeResult.BAD_PRICE,
    PriceState.GARBAGE: NoticeResult.BAD_PRICE,
    PriceState.ABOVE_BID: NoticeResult.BAD_PRICE,
}
# What may stand in a URL (RFC 3986); the rest of a landing page is percent-encoded.
_IN_URLS: Final = "%/:?#[]@!$&'()*+,;=-._~"
_NO_STORE: Final = (b"cache-control", b"no-store")
DONE: Final = Answer(204)
PIXEL: Final = Answer(200, ((b"content-type", b"image/gif"), _NO_STORE), GIF)
AGAIN: Final = Answer(503, ((b"retry-after", b"1"),))
Later = Callable[[Answer], None]


def refused(reason: Refusal) -> Answer:
    """What the sender of a refused notice is told."""
    return Answer(
        _STATUS[reason], ((b"content-type", b"text/plain"),), reason.name.lower().encode()
    )


def _result(notice: Notice) -> NoticeResult:
    if notice.is_test:
        return NoticeResult.TEST
    if notice.kind in CONVERSIONS:
        is_bad = notice.price_state == PriceState.GARBAGE
        return NoticeResult.BAD_VALUE if is_bad else NoticeResult.OK
    return _BY_PRICE.get(notice.price_state, NoticeResult.OK)


class Journal(Protocol):
    """What notices need of `rtb.stores.journal_write.Journal`."""

    append: Callable[[int, bytes], int]

    def when_durable(self, sequence: int, callback: Callable[[bool], object]) -> None: ...


class Counted(Protocol):
    """What happens to notices, for those who keep counts of impressions."""

    def noted(self, notice: Notice, sequence: int) -> None:
        """A notice was recorded; it is not answered yet."""


class NoticeDesk:
    """One worker's notices. One event loop drives it.

    terms: of exchanges, by their key in claims; waiting_max: that may wait for the disk at once
    """

    def __init__(
        self,
        journal: Journal,
        keyring: Keyring,
        terms: Mapping[int, Terms],
        limits: Limits,
        waiting_max: int,
        meter: Any,
        counted: Counted | None = None,
    ) -> None:
        self._journal, self._keyring, self._terms = journal, keyring, terms
        self._limits, self._waiting_max = limits, waiting_max
        self._meter, self._counted = meter, counted
        self.waiting = 0

    def answer(self, target: bytes, now_ms: int, later: Later) -> Answer | None:
        """The answer to a request target; None when `later` is called with it."""
        found = read(target, now_ms, self._keyring, self._terms, self._limits)
        if isinstance(found, Refused):
            return self._refuse(found, later)
        result = _result(found)
        if result in (NoticeResult.TEST, NoticeResult.AUDIT):
            self._meter.notice(found.kind, result)
            return self._thanks(found)
        return self._record(found, result, self._thanks(found), later)

    def _refuse(self, found: Refused, later: Later) -> Answer | None:
        notice, answer, result = found.notice, refused(found.reason), NoticeResult(found.reason)
        if notice is None or found.reason == Refusal.TARGET or notice.kind in CONVERSIONS:
            # Of conversions, all that a journal holds count.
            self._meter.notice(notice.kind if notice else 0, result)
            return answer
        # Genuine, but nothing to book it by: it is kept for a person to look at.
        return self._record(notice, result, answer, later)

    def _thanks(self, notice: Notice) -> Answer:
        if notice.target:
            location = (b"location", quote(self._page(notice), safe=_IN_URLS).encode())
            return Answer(302, (location, _NO_STORE))
        return PIXEL if notice.kind in CALLED_BY_MARKUP else DONE

    def _page(self, notice: Notice) -> str:
        """Where a click goes, with the token that the landing page asks for."""
        if CONVERSION_MACRO not in notice.target:
            return notice.target
        token = conversion_token(notice.signed, self._keyring).decode()
        return notice.target.replace(CONVERSION_MACRO, token)

    def _unrecorded(self, notice: Notice, answer: Answer) -> Answer:
        self._meter.notice(notice.kind, NoticeResult.NOT_RECORDED)
        return answer

    def _record(
        self, notice: Notice, result: NoticeResult, answer: Answer, later: Later
    ) -> Answer | None:
        """Answers once it is on the disk, and counts it then: each notice has one result."""
        failed = answer if notice.kind == Kind.CLICK else AGAIN
        if self.waiting >= self._waiting_max:
            return self._unrecorded(notice, failed)
        try:
            sequence = self._journal.append(notice.kind, notice.record())
        except StoreError:
            return self._unrecorded(notice, failed)
        if self._counted is not None:
            self._counted.noted(notice, sequence)
        self.waiting += 1

        def durable(is_durable: bool) -> None:
            self.waiting -= 1
            if is_durable:
                self._meter.notice(notice.kind, result)
            later(answer if is_durable else self._unrecorded(notice, failed))

        self._journal.when_durable(sequence, durable)
        return None
