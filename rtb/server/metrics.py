"""The board as Prometheus text: one scrape of any worker shows all of them.

Names carry their units; labels are bounded (exchanges, reasons, kinds), never line items.
`docs/reference/metrics.md` lists them; a test holds the two together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from rtb import __version__
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import Dim, Media, Privacy, Quirk
from rtb.server import metrics_money
from rtb.stores.board import (
    BUCKETS,
    CONSENT_NONE,
    CONSENT_RECORD,
    PRICE_BOUNDS_MICROS,
    STAGE_SAMPLE,
    Board,
    Gauge,
    Http,
    Outcome,
    Stage,
    bucket_start_us,
)
from rtb.stores.profiles import Lookup

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BOUNDS_S: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2,
)  # fmt: skip
STAGE_BOUNDS_S: Final = (
    0.000002, 0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.01,
)  # fmt: skip
_STARTS_S: Final = np.array([bucket_start_us(bucket) for bucket in range(BUCKETS)]) / 1e6


def exposition(board: Board, exchanges: Sequence[str]) -> bytes:
    """The text of one scrape. `exchanges`: names by number of their column."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, exchanges))
    return generate_latest(registry)


def reject_name(number: int) -> str:
    """A `Reject` as a label: targeting drops carry the dimension's name."""
    if 0 < number < 64:
        return f"targeting_{Dim(number).name.lower()}" if number in set(Dim) else "targeting"
    return Reject(number).name.lower()


class BoardCollector(Collector):
    """Reads every counter of the board once per scrape."""

    def __init__(self, board: Board, exchanges: Sequence[str]) -> None:
        self._board = board
        self._exchanges = exchanges

    def collect(self) -> Iterable[Metric]:
        yield from self._requests()
        yield from self._reasons()
        yield from self._latencies()
        yield from self._bids()
        yield from self._persons()
        yield from self._http()
        yield from metrics_money.notices(self._board)
        yield from metrics_money.ledger(self._board)
        yield from metrics_money.keeper(self._board)
        yield from self._workers()
        build = InfoMetricFamily("rtb_build", "What runs here")
        build.add_metric([], {"version": __version__})
        yield build

    def _requests(self) -> Iterator[Metric]:
        totals = self._board.total("requests")
        family = CounterMetricFamily(
            "rtb_requests", "Bid requests by outcome", labels=["exchange", "outcome"]
        )
        for number, exchange in enumerate(self._exchanges):
            for outcome in Outcome:
                family.add_metric([exchange, outcome.name.lower()], int(totals[number, outcome]))
        yield family

    def _reasons(self) -> Iterator[Metric]:
        yield _counter(
            "rtb_nobid", "Requests without a bid, by reason", "reason",
            {NoBid(n).name.lower(): v for n, v in _present(self._board.total("nobids"))},
        )  # fmt: skip
        yield _counter(
            "rtb_rejects", "Candidates dropped, by the first rule that failed", "reason",
            {reject_name(n): v for n, v in _present(self._board.total("rejects"))},
        )  # fmt: skip
        quirks = self._board.total("quirks")
        family = CounterMetricFamily(
            "rtb_quirks", "Deviations from the protocol that were accepted",
            labels=["exchange", "quirk"],
        )  # fmt: skip
        for number, exchange in enumerate(self._exchanges):
            for quirk in Quirk:
                count = int(quirks[number, int(quirk).bit_length() - 1])
                if count:
                    family.add_metric([exchange, str(quirk.name).lower()], count)
        yield family

    def _latencies(self) -> Iterator[Metric]:
        buckets, sums = self._board.total("latency_us"), self._board.total("latency_sum_us")
        family = HistogramMetricFamily(
            "rtb_request_duration_seconds", "From first byte to answer", labels=["exchange"]
        )
        for number, exchange in enumerate(self._exchanges):
            family.add_metric(
                [exchange], _cumulative(buckets[number], LATENCY_BOUNDS_S), sums[number] / 1e6
            )
        yield family
        buckets, sums = self._board.total("stages_us"), self._board.total("stages_sum_us")
        family = HistogramMetricFamily(
            "rtb_stage_duration_seconds",
            f"Stages of one request in {STAGE_SAMPLE}",
            labels=["stage"],
        )
        for stage in Stage:
            family.add_metric(
                [stage.name.lower()], _cumulative(buckets[stage], STAGE_BOUNDS_S), sums[stage] / 1e6
            )
        yield family

    def _bids(self) -> Iterator[Metric]:
        counts, prices = self._board.total("bids"), self._board.total("bid_prices")
        sums = self._board.total("bid_price_micros")
        family = CounterMetricFamily("rtb_bids", "Bids sent", labels=["exchange", "media"])
        price = HistogramMetricFamily(
            "rtb_bid_price_micros", "CPM prices of bids sent, in response currency",
            labels=["exchange"],
        )  # fmt: skip
        for number, exchange in enumerate(self._exchanges):
            for media in Media:
                if media:
                    family.add_metric([exchange, media.name.lower()], int(counts[number, media]))
            price.add_metric([exchange], _price_buckets(prices[number]), int(sums[number]))
        yield family
        yield price
        for name, help_text in (
            ("eligible", "Line items past the index, over impressions"),
            ("scored", "Creatives scored"),
        ):
            yield CounterMetricFamily(f"rtb_{name}", help_text, int(self._board.total(name)))

    def _persons(self) -> Iterator[Metric]:
        yield _counter(
            "rtb_profile_lookup", "Profile look-ups by result", "result",
            {Lookup(n).name.lower(): int(v) for n, v in enumerate(self._board.total("lookups"))
             if n in set(Lookup)},
        )  # fmt: skip
        family = HistogramMetricFamily(
            "rtb_profile_lookup_seconds",
            "From asking for a profile to what the decision knows of the person: of all look-ups "
            f"over the network, of one request in {STAGE_SAMPLE} where profiles are local",
        )  # fmt: skip
        times, sums = self._board.total("lookup_us"), self._board.total("lookup_sum_us")
        family.add_metric([], _cumulative(times, STAGE_BOUNDS_S), float(sums) / 1e6)
        yield family
        yield self._consent()
        decided = self._board.total("contextual")
        yield _counter(
            "rtb_decisions", "Decisions with a known person and without", "kind",
            {"personal": int(decided[0]), "contextual": int(decided[1])},
        )  # fmt: skip

    def _consent(self) -> Metric:
        totals = self._board.total("consent")
        family = CounterMetricFamily(
            "rtb_consent",
            "Requests that were read, by what forbids personal data on them: signals of the "
            "request (several may), the person's record, or none",
            labels=["framework", "result"],
        )
        for signal in Privacy:
            count = int(totals[int(signal).bit_length() - 1])
            family.add_metric([str(signal.name).lower(), "denied"], count)
        family.add_metric(["record", "denied"], int(totals[CONSENT_RECORD]))
        family.add_metric(["none", "allowed"], int(totals[CONSENT_NONE]))
        return family

    def _http(self) -> Iterator[Metric]:
        totals = self._board.total("http")
        yield _counter(
            "rtb_http", "What the HTTP layer did", "event",
            {kind.name.lower(): int(totals[kind]) for kind in Http},
        )  # fmt: skip

    def _workers(self) -> Iterator[Metric]:
        gauges = self._board.columns["gauges"]
        for name, gauge, scale, help_text in (
            ("rtb_inflight", Gauge.INFLIGHT, 1, "Requests that wait for a profile"),
            (
                "rtb_concurrency_limit",
                Gauge.INFLIGHT_MAX,
                1,
                "How many may wait for a profile at once: `bid.inflight_max`; more go without",
            ),
            ("rtb_connections", Gauge.CONNECTIONS, 1, "Open connections"),
            ("rtb_loop_lag_seconds", Gauge.LOOP_LAG_US, 1e6, "Longest loop turn, last 250 ms"),
            ("rtb_config_generation", Gauge.GENERATION, 1, "Generation served"),
            ("rtb_worker_ready", Gauge.READY, 1, "1 when the worker answers bids"),
            ("rtb_worker_memory_bytes", Gauge.RSS_BYTES, 1, "Resident memory"),
            ("rtb_worker_start_time_seconds", Gauge.STARTED_MS, 1e3, "Start of the worker"),
        ):
            family = GaugeMetricFamily(name, help_text, labels=["worker"])
            for worker in range(self._board.workers_count):
                family.add_metric([str(worker)], float(gauges[worker, gauge]) / scale)
            yield family
        family = GaugeMetricFamily(
            "rtb_breaker_state", "1 when a dependency is cut off", labels=["dep"]
        )
        family.add_metric(["profiles"], float(gauges[:, Gauge.BREAKER].max()))
        yield family


def _present(totals: np.ndarray) -> list[tuple[int, int]]:
    return [(int(number), int(totals[number])) for number in np.flatnonzero(totals)]


def _counter(name: str, help_text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _price_buckets(counts: np.ndarray) -> list[tuple[str, float]]:
    """Prometheus buckets of prices, whose bounds are ours."""
    running = np.cumsum(counts).tolist()
    return list(zip([*map(str, PRICE_BOUNDS_MICROS), "+Inf"], running, strict=True))


def _cumulative(buckets: np.ndarray, bounds_s: Sequence[float]) -> list[tuple[str, float]]:
    """Prometheus buckets from ours: a bucket counts below a bound when it starts below it."""
    running = np.cumsum(buckets)
    found = [
        (repr(bound), float(running[np.searchsorted(_STARTS_S, bound) - 1])) for bound in bounds_s
    ]
    return [*found, ("+Inf", float(running[-1]))]
