"""What a scrape of a real node says of what was done to it: every name that operators expect."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rtb import __version__
from rtb.base.records import Privacy
from rtb.stores.board import PRICE_BUCKETS, Outcome, Stage
from rtb.stores.profiles import Lookup
from tests.server.conftest import Node, StartNode
from tests.server.test_answers import REQUEST, TEST_BODY
from tests.server.test_notices import bid_on, path_of, until

REQUESTS = 64
Labels = dict[str, str]


class Scrape:
    """The samples of one scrape, to ask for by name and labels."""

    def __init__(self, node: Node, path: str = "/metrics") -> None:
        self.types: dict[str, str] = {}
        self.samples: list[tuple[str, Labels, float]] = []
        for family in text_string_to_metric_families(node.get(path)[1].decode()):
            for name, labels, value, *_ in family.samples:
                self.types[name] = family.type
                self.samples.append((name, labels, value))

    def labels(self, name: str) -> list[Labels]:
        """Of all samples of a name."""
        return [labels for found, labels, _ in self.samples if found == name]

    def values(self, name: str, label: str) -> set[str]:
        """Of a label, over all samples of a name."""
        return {labels[label] for labels in self.labels(name)}

    def sum(self, metric: str, **wanted: str) -> float:
        """Over the samples that carry some labels."""
        return sum(
            value
            for name, labels, value in self.samples
            if name == metric and wanted.items() <= labels.items()
        )


@pytest.fixture(scope="module")
def node(start_node: StartNode) -> Node:
    """A node with a small catalogue."""
    return start_node(line_items=60)


@pytest.fixture(scope="module")
def bids(node: Node) -> list[dict[str, Any]]:
    """Two bids of a node that has had bad requests, tests and people who refuse as well.

    Its notices: of the first bid a win and a bill, each three times, its token for another kind,
    and a forged one; of the second a loss, and a bill with a bad price.
    """
    found = [bid_on(node, user={"id": "somebody"}) for _ in range(2)]
    first, second = found
    for number in range(REQUESTS):
        body = REQUEST | {"id": f"s{number}", "user": {"id": "somebody"}}
        node.post(json.dumps(body).encode())
    node.post(json.dumps(REQUEST | {"regs": {"coppa": 1, "gpp": "DBABMA"}}).encode())
    node.post(json.dumps(REQUEST | {"cur": ["XXX"]}).encode())
    node.post(b'{"id":')
    node.post(TEST_BODY)
    bill = path_of(first["burl"], PRICE=str(first["price"] / 2))
    for _ in range(3):
        assert 204 == node.get(path_of(first["nurl"]))[0]
        assert 204 == node.get(bill)[0]
    assert 204 == node.get(path_of(second["lurl"]))[0]
    assert 204 == node.get(path_of(second["burl"], PRICE="nonsense"))[0]
    assert 403 == node.get(bill.replace("/n/bill/", "/n/win/"))[0]
    changed = bill[:40] + ("A" if bill[40] != "A" else "B") + bill[41:]
    assert 403 == node.get(changed)[0]
    return found


@pytest.fixture(scope="module")
def scrape(node: Node, bids: list[dict[str, Any]]) -> Scrape:
    """What the node says once its keeper has booked all that, and added its accounts up."""
    return until_scrape(
        node,
        lambda one: (
            one.sum("rtb_spend_micros_total") > 0
            and one.sum("rtb_notices_answered_total")
            == sum(one.sum("rtb_notices_total", result=result) for result in ("ok", "duplicate"))
        ),
    )


def until_scrape(node: Node, condition: Callable[[Scrape], bool]) -> Scrape:
    """The first scrape of which something holds."""
    found: list[Scrape] = []

    def holds() -> bool:
        found.append(Scrape(node))
        return condition(found[-1])

    until(holds, 20.0)
    return found[-1]


def test_requests(scrape: Scrape) -> None:
    """How each ended, how long it took, and why there was no bid."""
    name = "rtb_requests_total"
    outcomes = {
        one.name: scrape.sum(name, exchange="generic", outcome=one.name.lower()) for one in Outcome
    }
    buckets = scrape.labels("rtb_request_duration_seconds_bucket")
    bounds = [float(one["le"]) for one in buckets if one["exchange"] == "generic"]

    assert {"bid", "nobid", "shed", "bad", "late", "test"} == scrape.values(name, "outcome")
    assert (1, 1, 0, 0) == tuple(outcomes[one] for one in ("BAD", "TEST", "SHED", "LATE"))
    assert min(outcomes["BID"], outcomes["NOBID"]) >= 1
    assert sum(outcomes.values()) == scrape.sum("rtb_request_duration_seconds_count")
    assert (0.0005, 0.2) == (bounds[0], bounds[-2])
    assert 1 == scrape.sum("rtb_nobid_total", reason="malformed")
    assert 1 == scrape.sum("rtb_nobid_total", reason="unsupported_currency")
    assert outcomes["NOBID"] + 1 == scrape.sum("rtb_nobid_total")
    assert {one.name.lower() for one in Stage} == scrape.values(
        "rtb_stage_duration_seconds_count", "stage"
    )
    assert 0 < scrape.sum("rtb_stage_duration_seconds_count", stage="decode") < REQUESTS


def test_bids(scrape: Scrape, bids: list[dict[str, Any]]) -> None:
    """As many prices as bids, that add up to more than the two that are known."""
    count = scrape.sum("rtb_bids_total", exchange="generic")
    buckets = scrape.labels("rtb_bid_price_micros_bucket")

    assert {"banner", "video", "audio", "native"} == scrape.values("rtb_bids_total", "media")
    assert count == scrape.sum("rtb_bid_price_micros_count", exchange="generic") > 2
    assert count == scrape.sum("rtb_bid_price_micros_bucket", exchange="generic", le="+Inf")
    assert PRICE_BUCKETS == len([one for one in buckets if one["exchange"] == "generic"])
    assert scrape.sum("rtb_bid_price_micros_sum") >= 1e6 * sum(one["price"] for one in bids)
    assert "histogram" == scrape.types["rtb_bid_price_micros_sum"]


def test_notices(scrape: Scrape) -> None:
    """What came before is told from what is new, and both from what is not genuine."""
    name = "rtb_notices_total"
    found = {
        (labels["kind"], labels["result"]): value
        for sample, labels, value in scrape.samples
        if sample == name
    }
    recorded = {
        labels["kind"]: value
        for sample, labels, value in scrape.samples
        if sample == "rtb_notices_answered_total"
    }

    assert {
        ("win", "ok"): 1, ("win", "duplicate"): 2, ("bill", "ok"): 1, ("bill", "duplicate"): 2,
        ("loss", "ok"): 1, ("bill", "bad_price"): 1, ("unreadable", "forged"): 1,
        ("unreadable", "wrong_kind"): 1,
    } == found  # fmt: skip
    assert {"win": 3, "bill": 3, "loss": 1} == recorded
    assert 1 == scrape.sum("rtb_wins_total")
    assert 1 == scrape.sum("rtb_billed_impressions_total")


def test_money(scrape: Scrape, bids: list[dict[str, Any]]) -> None:
    """Half of the first bid was billed, the rest is lent or in flight."""
    spent = scrape.sum("rtb_spend_micros_total", currency="USD")

    assert pytest.approx(bids[0]["price"] / 2 * 1e3, abs=1) == spent
    assert {"pending", "granted"} == scrape.values("rtb_budget_reserved_micros", "state")
    assert 0 < scrape.sum("rtb_budget_reserved_micros", currency="USD")
    assert 0 == scrape.sum("rtb_overspend_micros", currency="USD")
    assert "USD" in scrape.values("rtb_overspend_micros", "currency")


def test_persons(scrape: Scrape) -> None:
    """Look-ups by result and time, and what forbade personal data."""
    looked_up = scrape.sum("rtb_profile_lookup_total")
    denied = {one.name.lower() for one in Privacy if one.name} | {"record"}

    assert {one.name.lower() for one in Lookup} == scrape.values(
        "rtb_profile_lookup_total", "result"
    )
    assert looked_up == scrape.sum("rtb_profile_lookup_total", result="miss") >= REQUESTS
    assert 0 < scrape.sum("rtb_profile_lookup_seconds_count") < looked_up
    assert 0 < scrape.sum("rtb_profile_lookup_seconds_sum") < 1
    assert denied | {"none"} == scrape.values("rtb_consent_total", "framework")
    assert 1 == scrape.sum("rtb_consent_total", framework="coppa", result="denied")
    assert 1 == scrape.sum("rtb_consent_total", framework="gpp", result="denied")
    assert 2 == scrape.sum("rtb_consent_total", result="denied")
    read = sum(
        scrape.sum("rtb_requests_total", outcome=outcome) for outcome in ("bid", "nobid", "late")
    )
    assert read - 1 == scrape.sum("rtb_consent_total", framework="none", result="allowed")


def test_the_process(scrape: Scrape, node: Node) -> None:
    """What runs, how loaded it is, and how far behind the books are."""
    for name in ("rtb_inflight", "rtb_concurrency_limit", "rtb_loop_lag_seconds",
                 "rtb_config_generation"):  # fmt: skip
        assert [{"worker": "0"}] == scrape.labels(name)

    assert (0, 1024) == (scrape.sum("rtb_inflight"), scrape.sum("rtb_concurrency_limit"))
    assert 1 == scrape.sum("rtb_config_generation")
    assert 0 <= scrape.sum("rtb_loop_lag_seconds") < 10
    assert 0 <= scrape.sum("rtb_event_log_lag_seconds") < 10
    assert [{"dep": "profiles"}] == scrape.labels("rtb_breaker_state")
    assert 0 == scrape.sum("rtb_breaker_state")
    assert [{"version": __version__}] == scrape.labels("rtb_build_info")
    assert "gauge" == Scrape(node, "/metrics/detail").types.get("rtb_line_items_left_out")
    assert b"# TYPE rtb_pacing_index gauge" in node.get("/metrics/detail")[1]
