"""Reads notices: from the target of an HTTP request to what it says, without any state.

Who holds a signed URL can change its query but not its token. So money is bounded by the claims: a
price over the bid, in another currency, or for more impressions than allowed is not a price. Any
bytes are read, nothing raises; method, headers and body mean nothing here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from rtb.base.events import MULTIPLIER_ONE, NO_PRICE, Kind, PriceState, bid_time_s
from rtb.notices import conversions
from rtb.notices.notice import Claims, Notice, Refusal, Refused, Terms
from rtb.notices.settle import is_priced
from rtb.notices.tokens import Keyring, opened, slot_of, target_hash
from rtb.notices.urls import PATHS, PREFIX

Fields = dict[bytes, str]
Money = tuple[PriceState, int, int]

_MILLION: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_PREFIX: Final = PREFIX.encode()
_ROUTES: Final = {
    path.encode(): (kind, event, slot_of(kind, event)) for (kind, event), path in PATHS.items()
}
_PRICE, _CURRENCY, _BID_CURRENCY, _MULTIPLIER = b"p", b"c", b"b", b"m"
_MIN_TO_WIN, _LOSS, _DISCOUNT, _SHOWN, _TARGET = b"w", b"l", b"d", b"t", b"to"
_KNOWN: Final = {
    _PRICE,
    _CURRENCY,
    _BID_CURRENCY,
    _MULTIPLIER,
    _MIN_TO_WIN,
    _LOSS,
    _DISCOUNT,
    _SHOWN,
    _TARGET,
    *conversions.FIELDS,
}
# In an audit of a creative all macros become this word. Where only others than the price did, a
# bill may be meant: it is set aside, not dropped.
_AUDIT: Final = "AUDIT"
_MACROS: Final = (_PRICE, _CURRENCY, _MULTIPLIER, _MIN_TO_WIN, _LOSS, _DISCOUNT)
# States in which money may be owed: an empty price may mean the bid.
_PAID: Final = (PriceState.OK, PriceState.EMPTY)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_LOSS_MAX: Final = 0xFFFF
# A line break in a Location header begins somebody's second header.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Limits:
    """How much is looked at."""

    target_bytes_max: int = 8192  # as much as a URL may have anywhere
    fields_max: int = 32  # ours are nine; the exchange may add some
    age_ms_max: int = 30 * _DAY_MS  # later notices are dead letters: the books of then are closed


LIMITS: Final = Limits()


def read(
    target: bytes,
    now_ms: int,
    keyring: Keyring,
    terms: Mapping[int, Terms],
    limits: Limits = LIMITS,
) -> Notice | Refused:
    """The notice in a request target ("/n/win/<token>?p=1.2"), or why it is refused.

    terms: by `claims.exchange`.
    """
    if len(target) > limits.target_bytes_max:
        return Refused(Refusal.MALFORMED)
    path, _, query = target.partition(b"#")[0].partition(b"?")
    name, _, token = path.removeprefix(_PREFIX).rpartition(b"/")
    route = _ROUTES.get(name)
    if route is None or not path.startswith(_PREFIX):
        return Refused(Refusal.MALFORMED)
    kind, event, slot = route
    signed = opened(token, slot, keyring)
    if isinstance(signed, Refusal):
        return Refused(signed)
    claims = Claims.unpack(signed)
    if kind == Kind.CONVERSION:
        # Shops write forms, where a plus is a space; in the prices of exchanges it is a plus.
        fields = _fields(query.replace(b"+", b" "), limits.fields_max)
        notice = conversions.notice(signed, claims, fields, now_ms)
        return Refused(Refusal.EXPIRED, notice) if _is_old(notice, limits) else notice
    fields = _fields(query, limits.fields_max)
    known = terms.get(claims.exchange)
    if known is None:
        state = PriceState.GARBAGE if _PRICE in fields else PriceState.NONE
        notice = Notice(kind, signed, claims, now_ms, price_state=state, detail=event)
        return Refused(Refusal.UNKNOWN_EXCHANGE, notice)
    notice = _notice(kind, event, signed, claims, fields, known, now_ms)
    if _is_old(notice, limits):
        return Refused(Refusal.EXPIRED, notice)
    if kind == Kind.CLICK and not _is_promised(notice.target, claims, keyring):
        return Refused(Refusal.TARGET, notice)
    return notice


def _is_old(notice: Notice, limits: Limits) -> bool:
    """Whether the bid is too long ago; a test's bid has no time."""
    age_ms = notice.time_ms - bid_time_s(notice.claims.bid) * 1000
    return age_ms > limits.age_ms_max and not notice.is_test


def _notice(
    kind: Kind,
    event: int,
    signed: bytes,
    claims: Claims,
    fields: Fields,
    terms: Terms,
    now_ms: int,
) -> Notice:
    state, price_micros, multiplier_e6 = _money(kind, claims, fields, terms, now_ms)
    # In another currency these say nothing that could be compared with the bid.
    comparable = _is_currency_of_bid(fields)
    return Notice(
        kind,
        signed,
        claims,
        now_ms,
        price_micros=price_micros,
        min_to_win_micros=_micros(fields, _MIN_TO_WIN, terms) if comparable else NO_PRICE,
        multiplier_e6=multiplier_e6,
        loss=_loss(fields),
        price_state=state,
        detail=event,
        discount_micros=_micros(fields, _DISCOUNT, terms) if comparable else NO_PRICE,
        shown_ms=_number(fields, _SHOWN),
        target=fields.get(_TARGET, "") if kind == Kind.CLICK else "",
    )


def _fields(query: bytes, count_max: int) -> Fields:
    """The query keys that we know, decoded; the first of each, as ours come first."""
    found: Fields = {}
    for pair in query.split(b"&", count_max)[:count_max]:
        name, _, value = pair.partition(b"=")
        name = name.removeprefix(b"amp;")  # somebody escaped for HTML once too often
        if name in _KNOWN and name not in found:
            found[name] = unquote_to_bytes(value).decode("utf-8", "replace")
    return found


# -- money -----------------------------------------------------------------------------------------


def _money(kind: Kind, claims: Claims, fields: Fields, terms: Terms, now_ms: int) -> Money:
    """State, price and multiplier of a notice; the price is NO_PRICE unless the state is OK."""
    price = fields.get(_PRICE)
    audited = any(fields.get(name) == _AUDIT for name in _MACROS)
    if audited and price in (None, _AUDIT):
        return PriceState.AUDIT, NO_PRICE, MULTIPLIER_ONE
    if not is_priced(kind, terms.settings):
        return PriceState.NONE, NO_PRICE, MULTIPLIER_ONE
    if price is None:  # our URLs have one: an empty price is there, and empty
        return PriceState.UNSUBSTITUTED, NO_PRICE, MULTIPLIER_ONE
    state, price_micros = terms.prices.price(price, now_ms)
    multiplier_e6 = _multiplier_e6(fields, terms)
    if audited or not multiplier_e6 or not _is_currency_of_bid(fields):
        state = PriceState.GARBAGE
    elif _is_above_bid(price_micros, claims, terms) or _is_too_many(multiplier_e6, terms):
        state = PriceState.ABOVE_BID
    if state not in _PAID:
        return state, NO_PRICE, MULTIPLIER_ONE
    return state, price_micros, multiplier_e6


def _is_too_many(multiplier_e6: int, terms: Terms) -> bool:
    """Whether an exposure stands for more impressions than may be: it costs more than was bid."""
    return multiplier_e6 > terms.settings.multiplier_max * MULTIPLIER_ONE


def _is_above_bid(price_micros: int, claims: Claims, terms: Terms) -> bool:
    tolerance_e6 = terms.settings.price_above_bid_tolerance_e6
    return price_micros * _MILLION > claims.price_micros * (_MILLION + tolerance_e6)


def _is_currency_of_bid(fields: Fields) -> bool:
    """Whether prices are in the bid's currency, as they are where nothing else is said.

    The bid's currency is not signed. It needs not be: who could change it could as well change the
    exchange's word about its own, which stands beside it.
    """
    said = _said(fields, _CURRENCY)
    return said is None or said.upper() == fields.get(_BID_CURRENCY, "")


def _multiplier_e6(fields: Fields, terms: Terms) -> int:
    """Impressions of the exposure times 1e6: one where nothing is said, 0 for what cannot be."""
    said = _said(fields, _MULTIPLIER)
    return MULTIPLIER_ONE if said is None else terms.prices.decimal_e6(said) or 0


def _micros(fields: Fields, name: bytes, terms: Terms) -> int:
    value = terms.prices.decimal_e6(fields.get(name, ""))
    return NO_PRICE if value is None else value


def _said(fields: Fields, name: bytes) -> str | None:
    """What the exchange filled in; None where it left nothing, or the macro itself."""
    text = fields.get(name, "").strip()
    return None if not text or "{" in text or "%7B" in text.upper() else text


# -- the rest --------------------------------------------------------------------------------------


def _number(fields: Fields, name: bytes) -> int:
    text = fields.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _loss(fields: Fields) -> int:
    """The loss reason (OpenRTB 2.6 section 5.25); 0 where not said."""
    code = _number(fields, _LOSS)
    return code if code <= _LOSS_MAX else 0


def _is_promised(target: str, claims: Claims, keyring: Keyring) -> bool:
    """Whether a click goes to the landing page that was signed, or, only counted, nowhere."""
    if not target:
        return True
    if _CONTROL.search(target):
        return False
    return target_hash(target, claims.key, keyring) == claims.target
