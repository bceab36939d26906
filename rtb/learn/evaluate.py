"""How good probabilities are: log loss, AUC and calibration, beside the base rate's.

All measures are weighted. A model that does not beat the base rate's log loss by more than chance
explains knows nothing.
"""

import math
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

ECE_BINS: Final = 20
# A certain prediction that is wrong costs this much of log loss at most.
PROBABILITY_MIN: Final = 1e-12
# A gain over the base rate counts from so many of its standard errors on: of models that know
# nothing some three in a hundred get there, and one that knows something with a few times the rows.
GAIN_ERRORS_MIN: Final = 2.0


class Metrics(msgspec.Struct, frozen=True):
    """Measures of one head on rows that it has not seen.

    auc is None with one class only; calibration is predicted over observed, None without positives.
    gain: the base rate's log loss less the model's, in the mean of rows; gain_error: its standard
    error, from how that difference varies from row to row
    """

    rows: int
    positives: int
    base_rate: float  # of the rows that it learned from: what is predicted without a model
    log_loss: float
    base_log_loss: float
    gain: float
    gain_error: float
    auc: float | None
    calibration: float | None
    ece: float

    @property
    def beats_base_rate(self) -> bool:
        """Whether the gain is more than chance explains."""
        return self.gain > GAIN_ERRORS_MIN * self.gain_error


def losses_of(predicted: Doubles, labels: Labels) -> Doubles:
    """Negative log likelihood of each row, in nats."""
    p = np.clip(predicted, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    losses: Doubles = np.where(labels > 0, -np.log(p), -np.log1p(-p))
    return losses


def log_loss(predicted: Doubles, labels: Labels, weights: Doubles) -> float:
    """Mean negative log likelihood, in nats."""
    return float(np.average(losses_of(predicted, labels), weights=weights))


def mean_and_error(values: Doubles, weights: Doubles) -> tuple[float, float]:
    """Weighted mean and its standard error; a row is one observation, whatever it weighs.

    Shapes: (n,) each, n > 1.
    """
    count = len(values)
    mean = float(np.average(values, weights=weights))
    squares = float(((weights * (values - mean)) ** 2).sum())
    return mean, math.sqrt(squares * count / (count - 1)) / float(weights.sum())


def auc(predicted: Doubles, labels: Labels, weights: Doubles) -> float | None:
    """Chance that a positive is ranked above a negative; ties count half."""
    positive = np.where(labels > 0, weights, 0.0)
    negative = weights - positive
    if positive.sum() == 0 or negative.sum() == 0:
        return None
    order = np.argsort(predicted, kind="stable")
    _, groups = np.unique(predicted[order], return_inverse=True)
    positive_at = np.bincount(groups, positive[order])
    negative_at = np.bincount(groups, negative[order])
    below = np.cumsum(negative_at) - negative_at
    wins = float((positive_at * (below + negative_at / 2)).sum())
    return wins / float(positive.sum() * negative.sum())


def expected_calibration_error(predicted: Doubles, labels: Labels, weights: Doubles) -> float:
    """Mean gap between predicted and observed rate over ECE_BINS bins of equal weight."""
    order = np.argsort(predicted, kind="stable")
    middle = np.cumsum(weights[order]) - weights[order] / 2
    share = middle / weights.sum()
    bins = np.minimum((share * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, (weights * (predicted - labels))[order], minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def evaluate(predicted: Doubles, labels: Labels, weights: Doubles, base_rate: float) -> Metrics:
    """All measures. Shapes: (n,) each, n > 1."""
    observed = float((weights * labels).sum())
    constant = np.full(len(labels), base_rate)
    gain, gain_error = mean_and_error(
        losses_of(constant, labels) - losses_of(predicted, labels), weights
    )
    return Metrics(
        rows=len(labels),
        positives=int(labels.sum()),
        base_rate=base_rate,
        log_loss=log_loss(predicted, labels, weights),
        base_log_loss=log_loss(constant, labels, weights),
        gain=gain,
        gain_error=gain_error,
        auc=auc(predicted, labels, weights),
        calibration=float((weights * predicted).sum()) / observed if observed else None,
        ece=expected_calibration_error(predicted, labels, weights),
    )
