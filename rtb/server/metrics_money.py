"""The metrics of notices, the ledger and the keeper, for `rtb.server.metrics`."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rtb.base.events import Kind
from rtb.base.money import currency_name
from rtb.ledger.commands import Outcome
from rtb.stores.board import Board, NoticeResult

# `rtb.pacing.goal.Mode`, which the data plane does not know; a test holds them together.
PACING_MODES: Final = ("waiting", "probe", "paced", "finish", "spent")
REMEMBER_S: Final = 600  # `rtb.keeper.tally.REMEMBER_S`, likewise
_NANOS_PER_MICRO: Final = 1000
_BILLED: Final = (
    Outcome.POSTED,
    Outcome.POSTED_UNSEEN,
    Outcome.POSTED_OVER,
    Outcome.LATE,
    Outcome.LATE_OVER,
)


def notices(board: Board) -> Iterator[Metric]:
    """What became of notices: workers know what is wrong with one, the keeper what came before."""
    totals, judged = board.total("notices"), board.keeper[0]["notices"]
    answered = CounterMetricFamily(
        "rtb_notices_answered",
        "Notices that workers recorded and found nothing wrong with, copies among them",
        labels=["kind"],
    )
    for kind in np.flatnonzero(totals[:, NoticeResult.OK]).tolist():
        answered.add_metric([Kind(kind).name.lower()], int(totals[kind, NoticeResult.OK]))
    family = CounterMetricFamily(
        "rtb_notices",
        "Notices by kind and what became of each; ok, duplicate, late and unbooked as the keeper "
        f"finds in what was recorded. Kinds that move no money are told apart for {REMEMBER_S} s "
        "after their bid, and late from then on; a keeper that starts again has forgotten them",
        labels=["kind", "result"],
    )
    totals[:, NoticeResult.OK] = 0
    totals += judged
    for kind, result in np.argwhere(totals).tolist():
        name = Kind(kind).name.lower() if kind else "unreadable"
        family.add_metric([name, NoticeResult(result).name.lower()], int(totals[kind, result]))
    yield answered
    yield family
    yield CounterMetricFamily(
        "rtb_wins",
        f"Bids that a win notice named within {REMEMBER_S} s, each once",
        int(board.keeper[0]["wins"]),
    )


def ledger(board: Board) -> Iterator[Metric]:
    """What the books say."""
    keeper = board.keeper[0]
    family = CounterMetricFamily(
        "rtb_ledger_outcomes", "Answers of the books to commands", labels=["outcome"]
    )
    for number in np.flatnonzero(keeper["outcomes"]):
        family.add_metric([Outcome(int(number)).name.lower()], int(keeper["outcomes"][number]))
    yield family
    billed = sum(int(keeper["outcomes"][outcome]) for outcome in _BILLED)
    yield CounterMetricFamily("rtb_billed_impressions", "Bills that were booked", billed)
    yield from _sums(keeper)


def _sums(keeper: np.void) -> Iterator[Metric]:
    spend = CounterMetricFamily("rtb_spend_micros", "Booked spend", labels=["currency"])
    reserved = GaugeMetricFamily(
        "rtb_budget_reserved_micros",
        "Budget that bids in flight hold, and that is lent to workers",
        labels=["currency", "state"],
    )
    over = GaugeMetricFamily(
        "rtb_overspend_micros", "Spend that no budget covered", labels=["currency"]
    )
    for place in np.flatnonzero(keeper["currencies"]).tolist():
        name = currency_name(int(keeper["currencies"][place]))
        spend.add_metric([name], _micros(keeper, "posted_nanos", place))
        for state in ("pending", "granted"):
            reserved.add_metric([name, state], _micros(keeper, f"{state}_nanos", place))
        over.add_metric([name], _micros(keeper, "over_nanos", place))
    yield from (spend, reserved, over)


def _micros(keeper: np.void, name: str, place: int) -> float:
    return int(keeper[name][place]) / _NANOS_PER_MICRO


def keeper(board: Board) -> Iterator[Metric]:
    """How the keeper fares."""
    row = board.keeper[0]
    letters = int(row["letters"].sum())
    modes = GaugeMetricFamily("rtb_pacing_budgets", "Paced budgets by mode", labels=["mode"])
    for number, name in enumerate(PACING_MODES):
        modes.add_metric([name], int(row["pacing_modes"][number]))
    yield modes
    yield CounterMetricFamily("rtb_records_applied", "Journal records read", int(row["records"]))
    yield CounterMetricFamily("rtb_dead_letters", "Records that cannot be booked", letters)
    yield CounterMetricFamily(
        "rtb_export_damaged_records",
        "Records that damage kept out of the exports",
        int(row["export_damaged"]),
    )
    for name, field, scale, help_text in (
        ("rtb_event_log_lag_seconds", "lag_ms", 1e3, "Age of the oldest record not booked yet"),
        ("rtb_keeper_waits", "waits", 1, "1 while books or journals keep it from going on"),
        ("rtb_keeper_turn_time_seconds", "beat_ms", 1e3, "When its last turn ended"),
        ("rtb_pacing_error_worst_ratio", "pacing_worst_e6", 1e6, "Furthest from its plan"),
        ("rtb_pacing_error_mean_ratio", "pacing_mean_e6", 1e6, "Mean distance from the plan"),
        (
            "rtb_export_lag_seconds",
            "export_lag_ms",
            1e3,
            "Age of the oldest whole segment that waits to be exported; 0: none does",
        ),
        ("rtb_export_waiting_segments", "export_segments", 1, "Whole segments that wait"),
    ):
        yield GaugeMetricFamily(name, help_text, float(row[field]) / scale)
