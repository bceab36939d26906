"""Reading notices: every macro in every state, and bytes by anybody."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import MULTIPLIER_ONE, NOTICE, Kind, PriceState
from rtb.notices.notice import Notice, Refusal, Refused
from rtb.notices.reading import LIMITS, Limits, read
from rtb.notices.tokens import target_hash
from tests.notices import bids

BILL = bids.url_of(Kind.BILL)
OK, ABOVE = PriceState.OK, PriceState.ABOVE_BID
EMPTY, GARBAGE = PriceState.EMPTY, PriceState.GARBAGE


def refused(target: bytes, now_ms: int = bids.NOW_MS, **keys: Any) -> Refused:
    found = bids.received(target, now_ms, **keys)
    assert isinstance(found, Refused), found
    return found


# -- macros, row by row ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "state", "micros"),
    [
        ("1.23", OK, 1_230_000),
        ("0.000451", OK, 451),
        ("1e-05", OK, 10),
        ("1,23", OK, 1_230_000),
        ("1%2C23", OK, 1_230_000),
        ("2", OK, 2_000_000),
        ("2.000001", ABOVE, -1),
        ("6", ABOVE, -1),
        ("1e9", GARBAGE, -1),
        ("-1", GARBAGE, -1),
        ("NaN", GARBAGE, -1),
        ("inf", GARBAGE, -1),
        ("", EMPTY, -1),
        ("AUDIT", PriceState.AUDIT, -1),
        ("${AUCTION_PRICE}", PriceState.UNSUBSTITUTED, -1),
        ("%24%7BAUCTION_PRICE%7D", PriceState.UNSUBSTITUTED, -1),
        ("%2524%257BAUCTION_PRICE%257D", PriceState.UNSUBSTITUTED, -1),
        ("OG46wAAMCggBI0VniavN7-mNy0VTKPbB3o5CMQ", GARBAGE, -1),
        ("%ff%fe", GARBAGE, -1),
    ],
)
@pytest.mark.parametrize("kind", [Kind.WIN, Kind.BILL])
def test_prices(kind: Kind, text: str, state: PriceState, micros: int) -> None:
    """A price has a state, and a value only when it is one that was bid."""
    notice = bids.arrived(kind, PRICE=text)

    assert (state, micros) == (notice.price_state, notice.price_micros)


@pytest.mark.parametrize(
    ("text", "code"),
    [("102", 102), ("0", 0), ("", 0), ("65535", 65535), ("65536", 0), ("-1", 0), ("x", 0)],
)
def test_losses(text: str, code: int) -> None:
    """A loss has its reason; 0 where it is not said."""
    notice = bids.arrived(Kind.LOSS, LOSS=text)

    assert (code, PriceState.NONE, -1) == (notice.loss, notice.price_state, notice.price_micros)


@pytest.mark.parametrize(
    ("text", "state", "multiplier_e6"),
    [
        ("", OK, MULTIPLIER_ONE),
        ("${AUCTION_MULTIPLIER}", OK, MULTIPLIER_ONE),
        ("1", OK, MULTIPLIER_ONE),
        ("0.25", OK, 250_000),
        ("12.2", OK, 12_200_000),
        ("12.200001", ABOVE, MULTIPLIER_ONE),
        ("99999", ABOVE, MULTIPLIER_ONE),
        ("0", GARBAGE, MULTIPLIER_ONE),
        ("-3", GARBAGE, MULTIPLIER_ONE),
        ("many", GARBAGE, MULTIPLIER_ONE),
    ],
)
def test_multipliers(text: str, state: PriceState, multiplier_e6: int) -> None:
    """One exposure stands for some impressions; more than allowed, or none, is no price."""
    keys = {"multiplier_max": 13 if text != "12.200001" else 12}
    notice = bids.arrived(Kind.BILL, keys, PRICE="1", MULTIPLIER=text)

    assert (state, multiplier_e6) == (notice.price_state, notice.multiplier_e6)


def test_a_multiplier_needs_a_setting() -> None:
    """By default an exposure is one impression: two would cost twice the bid."""
    assert ABOVE == bids.arrived(Kind.BILL, PRICE="1", MULTIPLIER="2").price_state
    assert ABOVE == bids.arrived(Kind.BILL, PRICE="", MULTIPLIER="2").price_state


@pytest.mark.parametrize(
    ("text", "shown_ms"), [("1800000000123", 1_800_000_000_123), ("", 0), ("soon", 0), ("-1", 0)]
)
def test_when_it_was_shown(text: str, shown_ms: int) -> None:
    """The exchange's own time of the exposure is kept where it is said."""
    notice = bids.arrived(Kind.BILL, {"notice_macros": ("shown",)}, PRICE="1", IMP_TS=text)

    assert shown_ms == notice.shown_ms


@pytest.mark.parametrize(
    ("price", "min_to_win", "micros"),
    [
        ("1.00", ".90", 900_000),
        ("", "1.00", 1_000_000),
        (".91", ".90", 900_000),
        ("", ".91", 910_000),
    ],
)
def test_min_to_win(price: str, min_to_win: str, micros: int) -> None:
    """What it took to win is kept, for winners and losers."""
    kind = Kind.WIN if price else Kind.LOSS
    notice = bids.arrived(kind, PRICE=price, MIN_TO_WIN=min_to_win)

    assert micros == notice.min_to_win_micros
    assert -1 == bids.arrived(kind, MIN_TO_WIN="").min_to_win_micros
    assert -1 == bids.arrived(kind, MIN_TO_WIN="${AUCTION_MIN_TO_WIN}").min_to_win_micros


def test_discounts() -> None:
    """A price is already net of the seller's discount, which is kept beside it."""
    keys = {"notice_macros": ("discount",), "price_above_bid_tolerance_e6": 0}
    notice = bids.arrived(Kind.BILL, keys, PRICE="1.6", DISCOUNT_CPM="0.4")

    assert (1_600_000, 400_000) == (notice.price_micros, notice.discount_micros)
    assert -1 == bids.arrived(Kind.BILL, PRICE="1").discount_micros


def test_audits() -> None:
    """A price that is AUDIT, or any macro where there is no price, is of an audit."""
    notice = bids.arrived(Kind.BILL, PRICE="AUDIT", CURRENCY="AUDIT")

    assert (PriceState.AUDIT, -1) == (notice.price_state, notice.price_micros)
    assert PriceState.AUDIT == bids.arrived(Kind.LOSS, LOSS="AUDIT").price_state


@pytest.mark.parametrize("name", ["CURRENCY", "MULTIPLIER", "MIN_TO_WIN"])
def test_a_price_beside_a_macro_of_an_audit_is_in_doubt(name: str) -> None:
    """Dropped as an audit's a bill would be lost: it is set aside with what it said."""
    notice = bids.arrived(Kind.BILL, **{"PRICE": "1", name: "AUDIT"})

    assert (GARBAGE, -1) == (notice.price_state, notice.price_micros)


@pytest.mark.parametrize(
    "query", [b"", b"?", b"?%70=1", b"?P=1", b"??p=1", b"?" + b"a=1&" * 40 + b"p=1"]
)
def test_a_bill_without_a_price_is_not_one_with_an_empty_price(query: bytes) -> None:
    """Who cut off the query, or hid its key, does not owe the whole bid for it."""
    target = bids.sent(BILL).partition(b"?")[0] + query
    found = bids.received(target)
    assert isinstance(found, Notice)
    assert PriceState.UNSUBSTITUTED == found.price_state


# -- money -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("USD", OK),
        ("usd", OK),
        ("", OK),
        ("${AUCTION_CURRENCY}", OK),
        ("%24%7BAUCTION_CURRENCY%7D", OK),
        ("EUR", GARBAGE),
        ("USDX", GARBAGE),
    ],
)
def test_currencies(text: str, state: PriceState) -> None:
    """A price in another currency than the bid's is not a price, nor is what stands beside it."""
    notice = bids.arrived(Kind.BILL, PRICE="1", CURRENCY=text, MIN_TO_WIN="0.5")

    assert state == notice.price_state
    assert (500_000 if state == OK else -1) == notice.min_to_win_micros


def test_a_currency_that_cannot_be_compared() -> None:
    """Where somebody cut the bid's own currency away, a price with a currency is in doubt."""
    target = bids.sent(BILL, PRICE="1", CURRENCY="USD").replace(b"&b=USD", b"")
    found = bids.received(target)

    assert isinstance(found, Notice)
    assert GARBAGE == found.price_state


@pytest.mark.parametrize(("text", "state"), [("2.02", OK), ("2.020001", ABOVE)])
def test_tolerance(text: str, state: PriceState) -> None:
    """An exchange that rounds up may be given a little room."""
    keys = {"price_above_bid_tolerance_e6": 10_000}

    assert state == bids.arrived(Kind.BILL, keys, PRICE=text).price_state


def test_pixels_have_a_price_where_they_settle() -> None:
    """A pixel's price is read where it books, and nowhere else."""
    keys = {"settle_on": "impression"}

    assert 1_000_000 == bids.arrived(Kind.IMPRESSION, keys, PRICE="1").price_micros
    assert EMPTY == bids.arrived(Kind.IMPRESSION, keys).price_state
    assert PriceState.NONE == bids.arrived(Kind.IMPRESSION, PRICE="1").price_state
    pixel = bids.received(bids.sent(bids.url_of(Kind.IMPRESSION)) + b"?p=1")
    assert isinstance(pixel, Notice)
    assert (PriceState.NONE, -1) == (pixel.price_state, pixel.price_micros)


# -- tolerance -------------------------------------------------------------------------------------


def test_what_others_do_to_queries() -> None:
    """HTML escapes, fragments, strange keys and repetitions leave our values as they were."""
    target = bids.sent(BILL, PRICE="1.5", MIN_TO_WIN="1")
    for changed in (
        target.replace(b"&", b"&amp;"),
        target + b"#top",
        target + b"&p=9&gclid=%zz&&=&p",
        target.replace(b"?", b"?\xff=1&x&"),
    ):
        found = bids.received(changed)

        assert isinstance(found, Notice)
        assert (1_500_000, 1_000_000) == (found.price_micros, found.min_to_win_micros)


def test_values_beyond_the_limit_are_not_looked_at() -> None:
    """A query is cut, not a reason to refuse what came first."""
    terms = bids.terms_of(bids.exchange())
    target = bids.sent(BILL, PRICE="1", MIN_TO_WIN="1")
    found = read(target, bids.NOW_MS, bids.KEYS, terms, Limits(fields_max=1))

    assert isinstance(found, Notice)
    assert (1_000_000, -1) == (found.price_micros, found.min_to_win_micros)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"/",
        b"/n/",
        b"/n/win",
        b"/n/win/",
        b"/n/order/" + b"A" * 107,
        b"/n/video/unmute/" + b"A" * 107,
        b"/n/video/" + b"A" * 107,
        b"/n/bill/" + b"A" * 107,
        BILL.encode(),
        bids.sent(BILL).replace(b"/n/", b"/N/"),
        bids.sent(BILL).removeprefix(b"/n/"),
        bids.sent(BILL) + b"&x=" + b"x" * LIMITS.target_bytes_max,
    ],
)
def test_malformed(target: bytes) -> None:
    """What has no path, kind or token of ours, or is too long, is no notice."""
    assert Refused(Refusal.MALFORMED) == refused(target)


def test_another_version_is_malformed() -> None:
    """Claims of a version that we cannot read are not guessed at."""
    url = bids.url_of(Kind.BILL, made=bids.claims(version=2))

    assert Refused(Refusal.MALFORMED) == refused(bids.sent(url))


@pytest.mark.parametrize("other", ["win", "loss", "imp", "click", "view", "video/complete"])
def test_wrong_kinds(other: str) -> None:
    """A bill that is sent to another path is refused."""
    target = bids.sent(BILL).replace(b"/bill/", f"/{other}/".encode())

    assert Refused(Refusal.WRONG_KIND) == refused(target)


def test_late_notices_are_dead_letters() -> None:
    """Past the limit a notice is refused, with all that it says."""
    target = bids.sent(BILL, PRICE="1")
    last_ms = (bids.NOW_S - 60) * 1000 + LIMITS.age_ms_max
    late = refused(target, last_ms + 1)

    assert isinstance(bids.received(target, last_ms), Notice)
    assert Refusal.EXPIRED == late.reason
    assert late.notice is not None
    assert (1_000_000, last_ms + 1) == (late.notice.price_micros, late.notice.time_ms)


def test_unknown_exchanges_are_dead_letters() -> None:
    """Without settings a genuine notice cannot be priced, but is kept."""
    for kind, state in ((Kind.BILL, GARBAGE), (Kind.VIEW, PriceState.NONE)):
        found = refused(bids.sent(bids.url_of(kind), PRICE="1"), name="another")

        assert Refusal.UNKNOWN_EXCHANGE == found.reason
        assert found.notice is not None
        assert (kind, state, -1) == (
            found.notice.kind,
            found.notice.price_state,
            found.notice.price_micros,
        )


# -- clicks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        bids.LANDING + "x",
        bids.LANDING[:-1],
        quote(bids.LANDING),
        bids.LANDING.replace("ä", "a"),
    ],
)
def test_clicks_go_nowhere_else(to: str) -> None:
    """A target that was not signed, by as little as a letter, is refused."""
    path = bids.sent(bids.url_of(Kind.CLICK)).partition(b"?")[0]

    assert Refusal.TARGET == refused(path + f"?to={quote(to, safe='')}".encode()).reason


def test_clicks_that_only_count() -> None:
    """A click that says no landing page, as players send theirs, is counted and goes nowhere."""
    path = bids.sent(bids.url_of(Kind.CLICK)).partition(b"?")[0]

    for target in (path, path + b"?to="):
        found = bids.received(target)
        assert isinstance(found, Notice)
        assert "" == found.target


def test_clicks_of_bids_without_a_landing_page() -> None:
    """Where nothing was promised nothing is redirected."""
    url = bids.url_of(Kind.CLICK, made=bids.claims(target=0))

    assert Refusal.TARGET == refused(bids.sent(url)).reason


@pytest.mark.parametrize(
    "landing", ["https://a.example/\r\nset-cookie:x", "https://a.example/\x7f"]
)
def test_targets_fit_into_a_header(landing: str) -> None:
    """Even a signed page is refused when it would break out of its header."""
    made = bids.claims(target=target_hash(landing, 2, bids.KEYS))
    path = bids.sent(bids.url_of(Kind.CLICK, made=made)).partition(b"?")[0]

    assert Refusal.TARGET == refused(path + f"?to={quote(landing)}".encode()).reason


# -- anything --------------------------------------------------------------------------------------

TARGETS = [bids.sent(bids.url_of(*which)) for which in bids.ALL]


@given(st.sampled_from(TARGETS), st.binary(max_size=60), st.integers(0, 400), st.integers(0, 400))
def test_any_bytes_are_read(target: bytes, junk: bytes, start: int, end: int) -> None:
    """Bytes pasted anywhere into a notice never raise, and never book more than was bid."""
    found = bids.received(target[:start] + junk + target[end:])
    if isinstance(found, Notice):
        assert bids.claims() == found.claims
        assert -1 <= found.price_micros <= bids.BID_MICROS
        assert 0 < found.multiplier_e6 <= MULTIPLIER_ONE
        assert NOTICE.itemsize == len(found.record())


@given(st.sampled_from(["p", "c", "b", "m", "w", "l", "d", "t", "to"]), st.text(max_size=150))
def test_any_value_is_read(name: str, text: str) -> None:
    """No value of any key raises, in any kind, and every record can be written."""
    value = quote(text, safe="").encode()
    for target in TARGETS:
        path = target.partition(b"?")[0]
        found = bids.received(path + b"?p=1&".replace(b"p", b"p" if name != "p" else b"x")
                              + name.encode() + b"=" + value)  # fmt: skip
        notice = found.notice if isinstance(found, Refused) else found

        assert notice is not None
        assert NOTICE.itemsize == len(notice.record())
        assert notice.price_micros <= bids.BID_MICROS


@given(st.binary(max_size=300))
def test_bytes_of_strangers_are_no_notice(data: bytes) -> None:
    """Nothing that we did not sign is read."""
    for target in (data, b"/n/win/" + data, b"/n/click/" + data):
        assert isinstance(bids.received(target), Refused)
