"""Measures and calibration, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.learn import evaluate
from rtb.learn.calibrate import platt

ROWS = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]), st.booleans(), st.integers(1, 3)),
    min_size=1,
    max_size=40,
)


@given(ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool, int]]) -> None:
    """Weighted pairs of a positive and a negative, ties counting half."""
    pairs = [
        (weight * other, 1.0 if p > q else 0.5 if p == q else 0.0)
        for p, label, weight in rows
        if label
        for q, other_label, other in rows
        if not other_label
    ]
    expected = sum(w * won for w, won in pairs) / sum(w for w, _ in pairs) if pairs else None
    p, labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = evaluate.auc(p, labels.astype(np.uint8), weights.astype(float))
    assert expected == (None if found is None else pytest.approx(found))


def test_metrics_of_a_small_table() -> None:
    """Log loss, calibration and base rate as one computes them by hand."""
    p = np.array([0.8, 0.4, 0.4, 0.4])
    labels = np.array([1, 0, 0, 1], np.uint8)
    found = evaluate.evaluate(p, labels, np.ones(4), 0.5)
    assert not found.beats_base_rate
    assert found.log_loss == pytest.approx(-(np.log(0.8) + 2 * np.log(0.6) + np.log(0.4)) / 4)
    assert found.base_log_loss == pytest.approx(np.log(2))
    assert found.calibration == pytest.approx(1.0)
    assert found.auc == pytest.approx(0.75)
    assert found.positives == 2


def test_gain_and_its_error_by_hand() -> None:
    """The error is that of the paired differences; who stands for many rows is one observation."""
    labels, p = np.array([1, 0, 0, 1], np.uint8), np.array([0.8, 0.4, 0.4, 0.4])
    gains = np.log(np.array([0.8, 0.6, 0.6, 0.4]) / 0.5)
    found = evaluate.evaluate(p, labels, np.ones(4), 0.5)
    assert found.gain == pytest.approx(found.base_log_loss - found.log_loss)
    assert found.gain == pytest.approx(gains.mean())
    assert found.gain_error == pytest.approx(gains.std(ddof=1) / 2)
    heavy = evaluate.evaluate(p, labels, np.array([1.0, 1.0, 1.0, 1e9]), 0.5)
    assert heavy.gain == pytest.approx(gains[3])
    assert evaluate.evaluate(p, labels, np.full(4, 7.0), 0.5).gain_error == pytest.approx(
        found.gain_error
    )


def test_chance_seldom_beats_the_base_rate() -> None:
    """Predictions that know nothing gain by luck in many samples, and are believed in few."""
    chance = np.random.default_rng(5)
    lucky = believed = 0
    for _ in range(400):
        labels = (chance.random(500) < 0.3).astype(np.uint8)
        p = np.full(500, 0.3) * np.exp(chance.normal(0, 0.01, 500))
        found = evaluate.evaluate(p, labels, np.ones(500), 0.3)
        lucky += found.gain > 0
        believed += found.beats_base_rate
    assert lucky > 120
    assert believed < 20


def test_calibration_error_sees_what_the_ratio_hides() -> None:
    """Too high for half of the rows and too low for the others: ratio 1, error large."""
    labels = np.tile(np.array([0, 1], np.uint8), 1000)
    p = np.where(labels > 0, 0.6, 0.4)
    found = evaluate.evaluate(p, labels, np.ones(2000), 0.5)
    assert found.calibration == pytest.approx(1.0)
    assert found.ece == pytest.approx(0.4, abs=1e-9)


def test_platt_recovers_slope_and_shift() -> None:
    """Logits that are twice too large and shifted are put right."""
    chance = np.random.default_rng(3)
    truth = chance.normal(-2.0, 1.0, 200_000)
    labels = (chance.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.uint8)
    slope, shift = platt(2.0 * truth + 1.0, labels, np.ones(len(truth)))
    assert slope == pytest.approx(0.5, abs=0.01)
    assert shift == pytest.approx(-0.5, abs=0.02)


def test_platt_without_evidence_changes_nothing() -> None:
    """No rows, and few rows, leave the model as it is or nearly so."""
    nothing = np.array([])
    assert platt(nothing, nothing.astype(np.uint8), nothing) == (1.0, 0.0)
    few = np.array([-3.0, -2.0, -4.0])
    slope, shift = platt(few, np.array([0, 1, 0], np.uint8), np.ones(3))
    assert slope == pytest.approx(1.0, abs=0.3)
    assert slope * -3.0 + shift == pytest.approx(-3.0, abs=0.1)
