"""What an exchange counted: mergeable over processes, subtractable over time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from rtb.base.money import ceil_div
from rtb.ledger.amounts import nanos_text
from rtb.sim.currencies import in_dollars
from rtb.sim.histogram import Histogram


class TallyRecord(msgspec.Struct):
    """A tally on its way from one process to another."""

    counts: dict[str, int]
    reasons: dict[str, int]
    latency: list[int]
    latency_max_us: int
    service: list[int]
    service_max_us: int
    lag: list[int]
    lag_max_us: int
    billed: dict[str, int]
    ordered: dict[str, int]


# What is counted, in the order in which it is shown.
COUNTS = (
    "requests",  # scheduled
    "answers",  # came back, in time or late
    "bids",  # answers with a valid bid, in time
    "no_bids",
    "errors",  # other statuses, broken connections, connections refused
    "timeouts",  # no answer within tmax, or none at all
    "invalid",  # answers with a fault
    "valid_bids",  # single bids; an answer may hold several
    "wins",
    "unsent",  # of the timeouts: no connection became free in time
    "late_sends",  # the generator itself was late by more than a millisecond
    "won_micros",  # of a dollar: what was sold, at the price that it cleared at
    "connects",
    "billed",  # impressions on the invoice
    "impressions",  # pixels, views, clicks and video events that were delivered, copies left out
    "views",
    "clicks",
    "video_events",
    "orders",  # of people who clicked and got to the shop: orders and sign-ups
    "conversions",  # those of them that the shop reported and the bidder took, copies left out
    "notices_sent",  # requests that went out, again or for the first time
    "notices_delivered",  # answered 2xx or 3xx
    "notices_refused",  # genuine ones that were answered 4xx
    "notices_failed",  # given up: answered 5xx, or not at all, however often
    "notices_retried",
    "notices_dropped",  # more than may wait, or still waiting when the run was over
    "notices_unsendable",  # what is there is no URL of plain HTTP
    "notices_lost",  # by fault, from here on: never sent
    "notices_duplicated",
    "notices_reordered",
    "notices_elsewhere",  # sent to the other node
    "notices_forged",
    "forged_refused",  # of the forged: must be all
    "forged_accepted",  # must be none
    "notices_altered",  # sent besides with a price above the bid
    "notices_replayed",
    "notices_late",  # kept back until after the bidder gave the money back
)


@dataclass(slots=True)
class Tally:
    """Counters, reasons and three histograms.

    latency: from the time a request was due, so that a stalled server is charged for all that
    should have been sent meanwhile (no coordinated omission); service: from the time it was sent;
    lag: how late the generator sent; billed: the invoice's total by currency, in nanos;
    ordered: the value of conversions by currency, in micros.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    reasons: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    billed: dict[str, int] = field(default_factory=dict)
    ordered: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, more: int = 1) -> None:
        self.counts[name] += more

    def reason(self, name: str) -> None:
        self.reasons[name] = self.reasons.get(name, 0) + 1

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        names = self.reasons | other.reasons
        return Tally(
            {name: self.counts[name] + other.counts[name] for name in COUNTS},
            {name: self.reasons.get(name, 0) + other.reasons.get(name, 0) for name in names},
            self.latency.plus(other.latency),
            self.service.plus(other.service),
            self.lag.plus(other.lag),
            _plus(self.billed, other.billed),
            _plus(self.ordered, other.ordered),
        )

    def since(self, earlier: "Tally") -> "Tally":
        """What came after an earlier copy."""
        return Tally(
            {name: self.counts[name] - earlier.counts[name] for name in COUNTS},
            {name: n - earlier.reasons.get(name, 0) for name, n in self.reasons.items()},
            self.latency.since(earlier.latency),
            self.service.since(earlier.service),
            self.lag.since(earlier.lag),
            {name: n - earlier.billed.get(name, 0) for name, n in self.billed.items()},
            {name: n - earlier.ordered.get(name, 0) for name, n in self.ordered.items()},
        )

    def record(self) -> TallyRecord:
        """A copy to send."""
        return TallyRecord(
            dict(self.counts), dict(self.reasons),
            self.latency.counts, self.latency.max_us,
            self.service.counts, self.service.max_us,
            self.lag.counts, self.lag.max_us,
            dict(self.billed),
            dict(self.ordered),
        )  # fmt: skip

    @classmethod
    def of(cls, record: TallyRecord) -> "Tally":
        """The inverse of `record`."""
        return cls(
            record.counts, record.reasons,
            Histogram(record.latency, record.latency_max_us),
            Histogram(record.service, record.service_max_us),
            Histogram(record.lag, record.lag_max_us),
            record.billed,
            record.ordered,
        )  # fmt: skip

    def ratio(self, part: str, whole: str) -> float:
        """One count as a share of another; 0 when there is nothing to share."""
        return self.counts[part] / self.counts[whole] if self.counts[whole] else 0.0


def _plus(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Sums by currency."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


class Summary(msgspec.Struct):
    """What `--json` prints, and the demo."""

    requests: int
    bids: int
    wins: int
    no_bids: int
    errors: int
    timeouts: int
    invalid: int
    bid_rate: float
    win_rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    service_p99_ms: float
    spend: float
    rate: float
    seconds: float
    answers: int
    valid_bids: int
    unsent: int
    late_sends: int
    lag_p99_ms: float
    reasons: dict[str, int]
    won_value: float
    billed: int
    billed_nanos: dict[str, int]
    billed_micros: dict[str, int]
    invoice_total: dict[str, str]
    impressions: int
    views: int
    clicks: int
    orders: int
    conversions: int
    order_micros: dict[str, int]
    notices: dict[str, int]


def summary(tally: Tally, seconds: float) -> Summary:
    """A tally over a time as the figures that people ask for; `spend` is in dollars."""
    counts = tally.counts
    return Summary(
        requests=counts["requests"],
        bids=counts["bids"],
        wins=counts["wins"],
        no_bids=counts["no_bids"],
        errors=counts["errors"],
        timeouts=counts["timeouts"],
        invalid=counts["invalid"],
        bid_rate=round(tally.ratio("bids", "requests"), 4),
        win_rate=round(tally.ratio("wins", "valid_bids"), 4),
        p50_ms=round(tally.latency.quantile_ms(0.50), 3),
        p99_ms=round(tally.latency.quantile_ms(0.99), 3),
        p999_ms=round(tally.latency.quantile_ms(0.999), 3),
        max_ms=round(tally.latency.max_us / 1000, 3),
        service_p99_ms=round(tally.service.quantile_ms(0.99), 3),
        spend=round(in_dollars(tally.billed), 6),
        rate=round(counts["requests"] / seconds, 1) if seconds else 0.0,
        seconds=round(seconds, 2),
        answers=counts["answers"],
        valid_bids=counts["valid_bids"],
        unsent=counts["unsent"],
        late_sends=counts["late_sends"],
        lag_p99_ms=round(tally.lag.quantile_ms(0.99), 3),
        reasons=dict(sorted(tally.reasons.items(), key=lambda item: -item[1])),
        won_value=round(counts["won_micros"] / 1e6, 6),
        billed=counts["billed"],
        billed_nanos=dict(tally.billed),
        billed_micros={name: ceil_div(n, 1000) for name, n in tally.billed.items()},
        invoice_total={name: nanos_text(n) for name, n in tally.billed.items()},
        impressions=counts["impressions"],
        views=counts["views"],
        clicks=counts["clicks"],
        orders=counts["orders"],
        conversions=counts["conversions"],
        order_micros=dict(tally.ordered),
        notices=notices_of(counts),
    )


def notices_of(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of notices by their short names."""
    found = {
        name.removeprefix("notices_"): counts[name]
        for name in COUNTS if name.startswith("notices_")
    }  # fmt: skip
    return found | {name: counts[name] for name in ("forged_refused", "forged_accepted")}
