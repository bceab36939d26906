"""Conversions: what advertisers may say, what is made of it, and that each counts once."""

from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import InvariantError
from rtb.base.events import CONVERSION, NO_PRICE, ClaimFlag, Kind, PriceState, record_time_ms
from rtb.base.money import currency_code
from rtb.notices.conversions import ORDERS_OF_BID_MAX, Conversions
from rtb.notices.notice import Claims, Notice, Refusal, Refused
from rtb.notices.tokens import conversion_token
from tests.notices import bids

NONE, OK, GARBAGE = PriceState.NONE, PriceState.OK, PriceState.GARBAGE
EUR = currency_code("EUR")
DAY_MS = 86_400_000


def url_of(made: Claims | None = None, **said: str) -> bytes:
    """What a shop calls."""
    token = conversion_token((made or bids.claims()).pack(), bids.KEYS)
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in said.items())
    return b"/n/conversion/" + token + (f"?{query}".encode() if query else b"")


def told(made: Claims | None = None, **said: str) -> Notice:
    """A conversion, which must be genuine."""
    found = bids.received(url_of(made, **said))
    assert isinstance(found, Notice), found
    return found


def test_a_click_that_led_to_something() -> None:
    """Without a word it is a conversion of the bid."""
    found = told()

    assert (Kind.CONVERSION, NONE) == (found.kind, found.price_state)
    assert (0, NO_PRICE, 0) == found.order
    assert bids.claims() == found.claims


def test_an_order() -> None:
    """With the id of an order, its value and currency."""
    found = told(order="A-1001", value="59.90", currency="eur")
    same, other = told(order=" A-1001 "), told(order="a-1001")

    assert (Kind.ORDER, OK) == (found.kind, found.price_state)
    assert (59_900_000, EUR) == found.order[1:]
    assert 0 != found.order.id == same.order.id != other.order.id


@pytest.mark.parametrize(
    ("value", "currency", "state", "micros"),
    [
        ("59.9", "EUR", OK, 59_900_000),
        ("0", "EUR", OK, 0),
        ("0.000001", "EUR", OK, 1),
        ("999999999999.999999", "EUR", OK, 999_999_999_999_999_999),
        ("", "EUR", NONE, NO_PRICE),
        ("", "", NONE, NO_PRICE),
        ("1", "", GARBAGE, NO_PRICE),
        ("1", "EURO", GARBAGE, NO_PRICE),
        ("1", "978", GARBAGE, NO_PRICE),
        ("1000000000000", "EUR", GARBAGE, NO_PRICE),
        ("0.0000001", "EUR", GARBAGE, NO_PRICE),
        ("1,234", "EUR", GARBAGE, NO_PRICE),
        ("-1", "EUR", GARBAGE, NO_PRICE),
        ("1e3", "EUR", GARBAGE, NO_PRICE),
        ("NaN", "EUR", GARBAGE, NO_PRICE),
        ("١", "EUR", GARBAGE, NO_PRICE),
        ("{order_total}", "EUR", GARBAGE, NO_PRICE),
    ],
)
def test_values(value: str, currency: str, state: PriceState, micros: int) -> None:
    """A plain decimal of a currency; what is none is left out, and the conversion counts."""
    found = told(order="1", value=value, currency=currency)

    assert (Kind.ORDER, state, micros) == (found.kind, found.price_state, found.order.value_micros)
    assert (EUR if state is OK else 0) == found.order.currency


@pytest.mark.parametrize("order", ["x" * 65, "a\nb", "{order_id}", "\x7f"])
def test_ids_that_are_none(order: str) -> None:
    """They are said to be wrong; the conversion counts as one without."""
    found = told(order=order, value="5", currency="EUR")

    assert (Kind.CONVERSION, GARBAGE) == (found.kind, found.price_state)
    assert (0, 5_000_000, EUR) == found.order


def test_a_plus_is_a_space_and_an_escaped_one_is_a_plus() -> None:
    """Forms are encoded so: both ways to write an id are the same order."""
    written = bids.received(url_of() + b"?order=A+10%2B1&value=+59.90+&currency=eur+")
    meant = told(order="A 10+1", value="59.90", currency="EUR")

    assert isinstance(written, Notice)
    assert (Kind.ORDER, OK) == (written.kind, written.price_state)
    assert meant.order == written.order


@given(st.binary(max_size=80))
def test_any_query_is_read(query: bytes) -> None:
    """No bytes raise, and whatever they say fits the record."""
    found = bids.received(url_of() + b"?" + query.replace(b"#", b""))

    assert isinstance(found, Notice)
    assert CONVERSION.itemsize == len(found.record())


def test_other_urls_are_no_conversions() -> None:
    """The token of a click, or of any other notice, reports none, and the other way round."""
    for kind, event in bids.ALL:
        token = bids.url_of(kind, event).rpartition("/n/")[2].rpartition("/")[2].partition("?")[0]
        if kind is Kind.CLICK:
            token = bids.url_of(kind).partition("/n/click/")[2].partition("?")[0]
        found = bids.received(b"/n/conversion/" + token.encode())
        assert isinstance(found, Refused), kind
        assert Refusal.WRONG_KIND == found.reason, kind
    turned = bids.received(url_of().replace(b"/conversion/", b"/bill/") + b"?p=1")

    assert isinstance(turned, Refused)
    assert Refusal.WRONG_KIND == turned.reason


def test_thirty_days() -> None:
    """A conversion may come for as long as any notice; of a test's bid no time is known."""
    for days, made, is_read in (
        (29, bids.claims(), True),
        (31, bids.claims(), False),
        (31, bids.claims(flags=ClaimFlag.TEST, bid=1), True),
    ):
        found = bids.received(url_of(made), bids.NOW_MS + days * DAY_MS)
        assert is_read == isinstance(found, Notice)
        assert is_read or (isinstance(found, Refused) and Refusal.EXPIRED == found.reason)


def test_no_settings_are_needed() -> None:
    """The exchange of the bid may be gone: a conversion is the advertiser's."""
    assert isinstance(bids.received(url_of(bids.claims(exchange=5))), Notice)


def test_the_record() -> None:
    """What is journalled says all of it, and when."""
    found = told(order="7", value="1.5", currency="EUR")
    row = np.frombuffer(found.record(), CONVERSION)[0]

    assert found.signed == row["claims"].tobytes()
    assert (bids.NOW_MS, 1_500_000, found.order.id, EUR, OK) == (
        row["time_ms"], row["value_micros"], row["order"], row["currency"], row["value_state"],
    )  # fmt: skip
    assert bids.NOW_MS == record_time_ms(Kind.ORDER, found.record())


# -- counting --------------------------------------------------------------------------------------


def counted(*found: Notice, since_s: int = 0) -> Conversions:
    conversions = Conversions(since_s)
    for each in found:
        conversions.add(each.record())
    return conversions


def test_each_counts_once() -> None:
    """A reloaded page is no second order; another order is, and so is one without an id."""
    one = told(order="1", value="10", currency="EUR")
    again = told(order="1", value="99", currency="EUR")
    other = told(order="2", value="5", currency="USD")
    found = counted(one, again, other, told(), told(), told(value="1", currency="EUR"))
    (total,) = found.by_line_item.values()

    assert (3, 2) == (total.conversions, total.orders)
    assert {EUR: 10_000_000, currency_code("USD"): 5_000_000} == total.value_micros
    assert {"duplicate conversion": 3} == found.left_out


def test_tests_and_older_bids_do_not_count() -> None:
    """`test=1` never does; bids before a run are not the run's."""
    old = told(bids.claims(bid=(bids.NOW_S - 7200) << 32))
    found = counted(told(), old, told(bids.claims(flags=ClaimFlag.TEST)), since_s=bids.NOW_S - 3600)

    assert [1] == [total.conversions for total in found.by_line_item.values()]
    assert {"test": 1} == found.left_out


def test_one_click_has_so_many_orders() -> None:
    """Beyond them somebody is trying out his token."""
    found = counted(*(told(order=str(number)) for number in range(ORDERS_OF_BID_MAX + 5)))

    assert [ORDERS_OF_BID_MAX] == [total.orders for total in found.by_line_item.values()]


def test_line_items_have_their_own() -> None:
    """Conversions are a line item's."""
    found = counted(
        *(told(bids.claims(line_item=each, bid=(bids.NOW_S - each) << 32)) for each in (4, 4, 5))
    )

    assert {4: 1, 5: 1} == {key: one.conversions for key, one in found.by_line_item.items()}


def test_a_record_of_another_size_is_a_bug() -> None:
    """Who adds records has looked at their size."""
    with pytest.raises(InvariantError):
        Conversions().add(b"short")
