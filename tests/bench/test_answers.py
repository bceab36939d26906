"""Checks of answers and of service levels, as the Locust file makes them."""

import json

import pytest

from bench.answers import Body, fault, missed

REQUEST = {
    "id": "1",
    "tmax": 120,
    "cur": ["USD"],
    "imp": [
        {"id": "a", "banner": {"w": 300, "h": 250}, "bidfloor": 1.5},
        {"id": "b", "banner": {"w": 300, "h": 250}, "bidfloor": 2, "bidfloorcur": "EUR"},
    ],
}
BODY = Body.of(json.dumps(REQUEST).encode())


def answer(impid: str, price: float) -> bytes:
    """A bid response with one bid."""
    return json.dumps({"seatbid": [{"bid": [{"impid": impid, "price": price}]}]}).encode()


def test_body_knows_its_kind_time_and_floors() -> None:
    """A line is read once, into what its answer is checked against."""
    assert ("banner", 120.0, {"a": 1.5, "b": 0.0}) == (BODY.kind, BODY.tmax_ms, BODY.floors)


def test_several_formats_are_mixed() -> None:
    """A request for several kinds of media is named so."""
    request = {"id": "1", "imp": [{"id": "a", "banner": {}, "video": {}}]}

    assert "mixed" == Body.of(json.dumps(request).encode()).kind


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (204, b"", ""),
        (204, b"{}", "204 with a body"),
        (200, answer("a", 1.5), ""),
        (200, answer("b", 0.1), ""),
        (200, answer("a", 1.49), "below the floor"),
        (200, answer("c", 9.0), "unknown impression"),
        (200, b"<html>", "no JSON"),
        (503, b"", "status 503"),
    ],
)
def test_fault_of_an_answer(status: int, content: bytes, expected: str) -> None:
    """An answer is no bid, or JSON with bids on impressions that were offered, at their floor."""
    assert expected == fault(BODY, status, content)


def test_missed_limits_are_told() -> None:
    """Limits bound from above or below, and only what is missed is told."""
    found = {"p99_ms": 12.0, "in_time": 0.99, "requests": 500.0}
    limits = {"p99_ms_max": 10.0, "in_time_min": 0.995, "requests_min": 100.0}

    lines = missed(found, limits)

    assert ["p99_ms is 12, p99_ms_max is 10", "in_time is 0.99, in_time_min is 0.995"] == lines


def test_a_limit_on_nothing_is_refused() -> None:
    """A misspelled limit would never be missed, so it is an error."""
    with pytest.raises(ValueError, match="unknown limit p99_max"):
        missed({"p99_ms": 1.0}, {"p99_max": 1.0})
