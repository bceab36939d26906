"""The commit step: pays, records and signs the bids of a decision.

For each bid that goes out, in one turn of the loop and in this order:

    1. its cost is compared with the line item's lease (`rtb.stores.board_money`), and it is counted
       for the person's frequency caps (`rtb.stores.caps`)
    2. its record is appended to the worker's journal, from where it survives a kill
    3. the lease is charged
    4. its claims are signed into a sheet, from which the answer's notice URLs are made

A bid whose lease refuses it, or a cap that the request's own bids have filled, gives its place to
the next of its short list. An impression of which the exchange would bill more exposures than its
`multiplier_max` gets no bid: what it costs would be owed, and set aside. A request with test=1 is
signed and nothing else, under a number that depends on the request alone, so that the same test
always has the same answer.

`ext/commit.pyx` is the compiled twin of `Commit`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from rtb.base.errors import StoreError
from rtb.base.events import (
    BID,
    BIDS_PER_SECOND_MAX,
    CLAIMS_VERSION,
    MULTIPLIER_ONE,
    RATE_ONE,
    ClaimFlag,
    Kind,
    bid_id,
    cost_nanos,
)
from rtb.base.hashing import mix64
from rtb.base.links import Sheets
from rtb.base.money import ceil_div
from rtb.base.reasons import Reject
from rtb.base.records import Decision, Hole, Media, Opportunity
from rtb.exchanges.response import landing_page
from rtb.notices.tokens import Keyring, target_hash
from rtb.openrtb.lists import AssetKind
from rtb.stores.board_money import GRANTED_MAX, NO_SLOT, RESERVE_E6_ALL, Purse

Arrays = Any  # a snapshot's, by name
# No two currencies are further apart: a rate of more would overflow what claims can hold.
RATE_E9_MAX: Final = 10**15


@dataclass(frozen=True)
class Payment:
    """What one exchange adds to a bid's claims and costs.

    rates: rows of dtype RATE, as the exchange's terms have them
    """

    exchange: int
    multiplier_max: int
    rates: npt.NDArray[np.void]


class Signs(Protocol):
    """`rtb.notices.tokens.Signer`, or its compiled twin."""

    def sign(self, claims: bytes, events: bool = False, /) -> bytes: ...


class CountsBids(Protocol):
    """What the commit asks of `rtb.stores.caps.Caps`, or its compiled twin."""

    def allows(self, line_item: int, creative: int, now_ms: int, /) -> bool: ...

    def bid(self, person: int, bid: int, line_item: int, creative: int, now_ms: int, /) -> bool: ...

    def lost(self, person: int, bid: int, now_ms: int, /) -> None: ...


class FallsBack(Protocol):
    """What the commit asks of an engine."""

    def fall_back(
        self, opportunity: Opportunity, decision: Decision, refused: int, reason: int
    ) -> None: ...


def rate_e9(source: int, target: int, rates: npt.NDArray[np.void]) -> int:
    """Units of `target` for one of `source`, times 1e9 and rounded up; 0 without both rates."""
    if source == target:
        return RATE_ONE
    known = {int(row["cur"]): float(row["rate"]) for row in rates}
    if source not in known or target not in known:
        return 0
    found = known[source] / known[target] * RATE_ONE
    return int(np.ceil(found)) if found < RATE_E9_MAX else 0


def landing_text(arrays: Arrays, creative: int) -> bytes:
    """The landing page of a creative as its frame has it, percent-encoded; b"" for none."""
    row = arrays["creatives"][creative]
    start = int(row["frame_start"])
    for piece in arrays["pieces"][start : start + int(row["frame_count"])]:
        if piece["hole"] == Hole.CLICK_URL and piece["text_count"]:
            return _text(arrays, piece)
    start = int(row["assets_start"])
    for asset in arrays["assets"][start : start + int(row["assets_count"])]:
        if asset["kind"] == AssetKind.LINK:
            return _text(arrays, asset)
    return b""


def _text(arrays: Arrays, row: np.void) -> bytes:
    start = int(row["text_start"])
    return bytes(arrays["text"][start : start + int(row["text_count"])].tobytes())


def target_of(
    arrays: Arrays,
    opportunity: Opportunity,
    decision: Decision,
    number: int,
    bid: int,
    keyring: Keyring,
) -> int:
    """The claim of where a click on a bid of the decision may go; 0: nowhere.

    number: of the bid in the decision; bid: its id
    """
    row = decision.data["bids"][0, number]
    text = landing_text(arrays, int(row["creative"]))
    if not text:
        return 0
    imp = opportunity.facts[0]["imps"][row["imp"]]
    page = landing_page(text, bid, row, imp, opportunity)
    return target_hash(unquote(page.decode()), keyring.current, keyring)


class Commit:
    """One worker's hand on money. One thread, the loop's, calls all methods.

    append        of the worker's journal
    not_before_s  seconds before this one may have given ids away in an earlier life of the worker
    caps          counts bids in flight; None: nobody has caps
    stopped       the journal refused a record of the last `pay`: it takes no more bids
    """

    def __init__(
        self,
        purse: Purse,
        append: Callable[[int, bytes], int],
        signer: Signs,
        keyring: Keyring,
        node: int,
        worker: int,
        not_before_s: int = 0,
        caps: CountsBids | None = None,
    ) -> None:
        self._caps = caps
        self._purse, self._append, self._signer = purse, append, signer
        self._keyring, self._node, self._worker = keyring, node, worker
        self._not_before_s = not_before_s
        self._second, self._number = 0, 0
        self.stopped = False
        self._arrays: Arrays = {}

    def serve(self, arrays: Arrays) -> None:
        """Bids on a snapshot from now on."""
        self._arrays = arrays
        self._purse.bind(np.ascontiguousarray(arrays["line_items"]["key"], np.uint64))

    def pay(
        self,
        opportunity: Opportunity,
        decision: Decision,
        engine: FallsBack,
        payment: Payment,
        person: int,
        flags: int,
        now_ms: int,
        sheets: Sheets,
    ) -> int:
        """Pays what is chosen, or what may stand for it; returns how many bids go out.

        engine: that made the decision; person: of the claims, 0 for nobody
        flags: `ClaimFlag` of all bids; with TEST nothing is paid
        sheets: is filled for every bid that goes out
        """
        self.stopped = False
        head, bids = decision.data["head"][0], decision.data["bids"][0]
        count = 0
        for number in range(head["bids_count"]):
            if not bids[number]["chosen"]:
                continue
            body = self._body(decision, number, payment, person, flags)
            if count and not self._fits(body["claims"], now_ms):
                reason = Reject.FREQUENCY_CAP
            else:
                reason = self._one(opportunity, decision, number, payment, body, now_ms, sheets)
            if reason:
                engine.fall_back(opportunity, decision, number, reason)
            else:
                count += 1
        return count

    def _body(
        self, decision: Decision, number: int, payment: Payment, person: int, flags: int
    ) -> np.void:
        row = decision.data["bids"][0, number]
        line_item = self._arrays["line_items"][row["line_item"]]
        creative = self._arrays["creatives"][row["creative"]]
        cur = int(decision.data["head"][0]["cur"])
        body: np.void = np.zeros(1, BID)[0]
        claims = body["claims"]
        claims["version"], claims["key"] = CLAIMS_VERSION, self._keyring.current
        claims["flags"], claims["media"] = flags, row["media"]
        claims["exchange"], claims["person"] = payment.exchange, person
        claims["line_item"], claims["creative"] = line_item["key"], creative["key"]
        claims["product"] = creative["item"]
        claims["price_micros"] = row["price_micros"]
        claims["rate_e9"] = rate_e9(cur, int(line_item["currency"]), payment.rates)
        body["worker"], body["at"] = self._worker, row["at"]
        return body

    def _one(
        self,
        opportunity: Opportunity,
        decision: Decision,
        number: int,
        payment: Payment,
        body: np.void,
        now_ms: int,
        sheets: Sheets,
    ) -> Reject:
        """Pays one bid, records and signs it; or why it may not go out."""
        claims = body["claims"]
        imp = opportunity.facts[0]["imps"][decision.data["bids"][0, number]["imp"]]
        if imp["multiplier"] > payment.multiplier_max:
            return Reject.MULTIPLIER
        if claims["flags"] & ClaimFlag.TEST:
            seed = int(opportunity.facts[0]["head"]["id_hash"]) ^ number
            claims["bid"] = mix64(seed) >> 32 | 1
            slot = NO_SLOT
        else:
            now_ms = max(now_ms, self._second * 1000)  # the clock may step back: ids do not
            slot = int(self._purse.slots()[decision.data["bids"][0, number]["line_item"]])
            if not self._affords(slot, body, payment, now_ms):
                return Reject.BUDGET
            if not self._counts(claims, now_ms):
                return Reject.FREQUENCY_CAP
        claims["target"] = target_of(
            self._arrays, opportunity, decision, number, int(claims["bid"]), self._keyring
        )
        if slot != NO_SLOT:
            try:
                self._append(Kind.BID, body.tobytes())
            except StoreError:
                self.stopped = True
                if self._caps is not None:
                    self._caps.lost(int(claims["person"]), int(claims["bid"]), now_ms)
                return Reject.BUDGET
            self._purse.take(slot, int(body["reserve_nanos"]))
        events = int(claims["media"]) in (Media.VIDEO, Media.AUDIO)
        sheet = self._signer.sign(claims.tobytes(), events)
        sheets.put(number, int(claims["bid"]), sheet)
        return Reject.NONE

    def _fits(self, claims: np.void, now_ms: int) -> bool:
        """Whether caps have room for a bid beside those that went out on the same request."""
        if self._caps is None or not claims["person"] or claims["flags"] & ClaimFlag.TEST:
            return True
        return self._caps.allows(int(claims["line_item"]), int(claims["creative"]), now_ms)

    def _counts(self, claims: np.void, now_ms: int) -> bool:
        """Counts a bid as in flight for its person's caps; False where there is no room for it."""
        if self._caps is None or not claims["person"]:
            return True
        person, bid = int(claims["person"]), int(claims["bid"])
        line_item, creative = int(claims["line_item"]), int(claims["creative"])
        return self._caps.bid(person, bid, line_item, creative, now_ms)

    def _affords(self, slot: int, body: np.void, payment: Payment, now_ms: int) -> bool:
        """Whether a lease has the cost of a bid; if so its id, cost and time are filled in."""
        claims = body["claims"]
        price_micros, rate = int(claims["price_micros"]), int(claims["rate_e9"])
        if slot == NO_SLOT or not rate or now_ms // 1000 < self._not_before_s:
            return False
        nanos = cost_nanos(price_micros, rate, payment.multiplier_max * MULTIPLIER_ONE)
        share_e6 = self._purse.reserve_e6(slot)
        if share_e6 != RESERVE_E6_ALL:
            claims["flags"] |= ClaimFlag.EXPECTED
            nanos = ceil_div(nanos * share_e6, RESERVE_E6_ALL)
        nanos = min(nanos, GRANTED_MAX)
        if not self._purse.affords(slot, int(claims["line_item"]), nanos, now_ms):
            return False
        bid = self._next_id(now_ms // 1000)
        claims["bid"], body["reserve_nanos"], body["time_ms"] = bid, nanos, now_ms
        return bid != 0

    def _next_id(self, second: int) -> int:
        """The id of the next bid; 0 when a second has no more."""
        if second != self._second:
            self._second, self._number = second, 0
        if self._number >= BIDS_PER_SECOND_MAX:
            return 0
        self._number += 1
        return bid_id(second, self._node, self._worker, self._number - 1)
