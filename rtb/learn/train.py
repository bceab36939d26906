"""Fitting a head: FTRL-Proximal for weights, AdaGrad for factors, one pass after the other.

FTRL keeps z and n a weight (McMahan et al. 2013): rare tokens keep large steps, useless ones stay
exactly 0. The forward pass is the serving kernel (`rtb.decide.score`) on the table as it stands, so
every prediction is the one that a bid would have got.
"""

from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from rtb.base.errors import ConfigError
from rtb.decide.model import BITS_MAX, BITS_MIN, Head
from rtb.decide.score import (
    FACTORS,
    ROW,
    Doubles,
    Floats,
    Hashes,
    kernel,
    logit,
    probability,
    request_vector,
)
from rtb.learn.calibrate import platt
from rtb.learn.dataset import Dataset, Offsets
from rtb.learn.evaluate import Metrics, evaluate, log_loss

Labels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

# Fewer positives than this teach nothing that lasts.
POSITIVES_MIN: Final = 20


class Settings(msgspec.Struct, frozen=True):
    """What shapes a fit. The defaults suit logs of 10^4 to 10^7 rows.

    form: "lr" weights only, "fm" weights and factors
    bits: the table has 2^bits rows; 2^18 is 16 MB a head
    holdout: share of rows kept back, half for calibration, half for the metrics
    sampling_rate: share of rows without a click that the log kept; predictions are corrected for it
    weight_rate, weight_smoothing, l1, l2: FTRL's alpha, beta, lambda1, lambda2
    factor_rate, factor_l2, factor_scale: AdaGrad's step, decay and first size of factors
    """

    form: Literal["lr", "fm"] = "fm"
    bits: int = 18
    epochs: int = 3
    seed: int = 1
    holdout: float = 0.2
    sampling_rate: float = 1.0
    weight_rate: float = 0.1
    weight_smoothing: float = 1.0
    l1: float = 0.05
    l2: float = 1.0
    factor_rate: float = 0.1
    factor_l2: float = 1e-3
    factor_scale: float = 0.05

    def check(self) -> None:
        """Raises: ConfigError, naming the setting."""
        ranges = {
            "bits": (BITS_MIN, BITS_MAX), "epochs": (1, 100), "holdout": (0.01, 0.9),
            "sampling_rate": (1e-6, 1.0), "weight_rate": (1e-6, 10.0),
            "weight_smoothing": (1e-6, 100.0), "l1": (0.0, 100.0), "l2": (0.0, 1000.0),
            "factor_rate": (1e-6, 10.0), "factor_l2": (0.0, 1.0), "factor_scale": (0.0, 1.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"train: {name} = {value}, expected {low} to {high}")


class FittedHead(msgspec.Struct, frozen=True):
    """A head and how it did.

    progressive_log_loss: on training rows, each predicted before it was learned from.
    """

    head: Head
    metrics: Metrics
    progressive_log_loss: float
    train_rows: int


@kernel
def train_epoch(
    table: Floats,
    z: Floats,
    n: Floats,
    factor_squares: Floats,
    bias: Doubles,
    request_starts: Offsets,
    request_hashes: Hashes,
    ad_starts: Offsets,
    ad_hashes: Hashes,
    labels: Labels,
    weights: Doubles,
    order: Rows,
    steps: Doubles,
    learn_factors: bool,
    predicted: Doubles,
) -> None:
    """One pass over rows in `order`, updating the tables in place.

    Shapes: table (2^bits, ROW); z, n (2^bits,); factor_squares (2^bits, FACTORS); bias (3,): value,
        z, n; labels, weights (rows,); order (m,); steps (6,): weight_rate, weight_smoothing, l1,
        l2, factor_rate, factor_l2; predicted (rows,): written for rows in `order`, before learning.
    """
    q = np.zeros(ROW, dtype=np.float32)
    a = np.zeros(ROW, dtype=np.float32)
    sums = np.zeros(ROW, dtype=np.float32)
    for i in order:
        request = request_hashes[request_starts[i] : request_starts[i + 1]]
        ad = ad_hashes[ad_starts[i] : ad_starts[i + 1]]
        request_vector(table, request, request.shape[0], q)
        request_vector(table, ad, ad.shape[0], a)
        predicted[i] = probability(logit(q, a, bias[0]), 1.0, 0.0)
        gradient = (predicted[i] - labels[i]) * weights[i]
        for column in range(1, FACTORS + 1):
            sums[column] = q[column] + a[column]
        learn_bias(bias, gradient, steps)
        learn_side(table, z, n, factor_squares, request, gradient, sums, steps, learn_factors)
        learn_side(table, z, n, factor_squares, ad, gradient, sums, steps, learn_factors)


@kernel
def learn_bias(bias: Doubles, gradient: float, steps: Doubles) -> None:
    """FTRL without penalties on the feature that every row has."""
    root = np.sqrt(bias[2] + gradient * gradient)
    bias[1] += gradient - (root - np.sqrt(bias[2])) / steps[0] * bias[0]
    bias[2] += gradient * gradient
    bias[0] = -bias[1] / ((steps[1] + root) / steps[0])


@kernel
def learn_side(
    table: Floats,
    z: Floats,
    n: Floats,
    factor_squares: Floats,
    hashes: Hashes,
    gradient: float,
    sums: Floats,
    steps: Doubles,
    learn_factors: bool,
) -> None:
    """The update of one side's tokens; `sums` are the factor sums of the whole row."""
    mask = np.uint64(table.shape[0] - 1)
    for hash_ in hashes:
        row = hash_ & mask
        if learn_factors:
            for column in range(1, FACTORS + 1):
                factor = table[row, column]
                slope = gradient * (sums[column] - factor) + steps[5] * factor
                factor_squares[row, column - 1] += slope * slope
                step = steps[4] / (1e-6 + np.sqrt(factor_squares[row, column - 1]))
                table[row, column] = factor - step * slope
        square = gradient * gradient
        before, after = np.sqrt(n[row]), np.sqrt(n[row] + square)
        z[row] += gradient - (after - before) / steps[0] * table[row, 0]
        n[row] += square
        if abs(z[row]) <= steps[2]:
            table[row, 0] = 0.0
        else:
            shrunk = z[row] - steps[2] if z[row] > 0 else z[row] + steps[2]
            table[row, 0] = -shrunk / ((steps[1] + after) / steps[0] + steps[3])


@kernel
def logits_of(
    table: Floats,
    bias: float,
    request_starts: Offsets,
    request_hashes: Hashes,
    ad_starts: Offsets,
    ad_hashes: Hashes,
    order: Rows,
    out: Doubles,
) -> None:
    """Uncalibrated scores of some rows, by the serving kernels. Shapes: order, out (m,)."""
    q = np.zeros(ROW, dtype=np.float32)
    a = np.zeros(ROW, dtype=np.float32)
    for place in range(order.shape[0]):
        i = order[place]
        request = request_hashes[request_starts[i] : request_starts[i + 1]]
        ad = ad_hashes[ad_starts[i] : ad_starts[i + 1]]
        request_vector(table, request, request.shape[0], q)
        request_vector(table, ad, ad.shape[0], a)
        out[place] = logit(q, a, bias)


def fit_head(data: Dataset, labels: Labels, rows: Rows, settings: Settings) -> FittedHead:
    """Fits one head on some rows of a dataset, calibrates and measures it on those held out.

    Raises: ConfigError when there are too few positives or negatives to learn from or to measure.
    """
    train, calibration, test = split(data, rows, settings)
    for part, name in ((train, "training"), (calibration, "calibration"), (test, "test")):
        positives = int(labels[part].sum())
        needed = POSITIVES_MIN if part is train else 1
        if positives < needed or len(part) - positives < needed:
            raise ConfigError(f"train: {positives} positives of {len(part)} {name} rows: too few")
    base_rate = float(np.average(labels[train], weights=data.weights[train]))
    table, bias, predicted = _learn(data, labels, train, base_rate, settings)
    # The log kept only a share of the negatives: odds of the true population are that much lower.
    bias += float(np.log(settings.sampling_rate))
    weights = np.where(labels > 0, data.weights, data.weights / settings.sampling_rate)
    base_rate = float(np.average(labels[train], weights=weights[train]))
    slope, shift = platt(
        logits(data, table, bias, calibration), labels[calibration], weights[calibration]
    )
    head = Head(table, settings.bits, bias, slope, shift)
    found = predict(data, head, test)
    return FittedHead(
        head,
        evaluate(found, labels[test], weights[test], base_rate),
        log_loss(predicted[train], labels[train], data.weights[train]),
        len(train),
    )


def _learn(
    data: Dataset, labels: Labels, train: Rows, base_rate: float, settings: Settings
) -> tuple[Floats, float, Doubles]:
    """Table, bias, and the first pass's predictions (rows,)."""
    size = 1 << settings.bits
    chance = np.random.default_rng(settings.seed)
    table = np.zeros((size, ROW), dtype=np.float32)
    if settings.form == "fm":
        scale = settings.factor_scale
        table[:, 1 : FACTORS + 1] = chance.normal(0.0, scale, (size, FACTORS))
    z, n = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    squares = np.zeros((size, FACTORS), dtype=np.float32)
    start = float(np.log(base_rate / (1.0 - base_rate)))
    bias = np.array([start, -start * settings.weight_smoothing / settings.weight_rate, 0.0])
    steps = np.array(
        [settings.weight_rate, settings.weight_smoothing, settings.l1, settings.l2,
         settings.factor_rate, settings.factor_l2]
    )  # fmt: skip
    first, later = np.zeros(data.rows_count), np.zeros(data.rows_count)
    for epoch in range(settings.epochs):
        # Time order is kept: the last rows are the most like tomorrow's. Without times the order
        # of the log may mean anything, for example all clicks first.
        order = train if data.times_s is not None else chance.permutation(train)
        train_epoch(
            table, z, n, squares, bias,
            data.request_starts, data.request_hashes, data.ad_starts, data.ad_hashes,
            labels, data.weights, order, steps, settings.form == "fm",
            first if epoch == 0 else later,
        )  # fmt: skip
    # Tokens never seen keep random factors, which would add noise to a bid.
    table[n == 0] = 0.0
    return table, float(bias[0]), first


def split(data: Dataset, rows: Rows, settings: Settings) -> tuple[Rows, Rows, Rows]:
    """Rows to learn from, to calibrate on and to measure on.

    With times, the latest rows are held out, as in life; without, rows are drawn by a seeded hash.
    The held-out ones are halved by that hash.
    """
    draw = _uniform(rows, settings.seed)
    if data.times_s is not None:
        rows = rows[np.argsort(data.times_s[rows], kind="stable")]
        first = len(rows) - round(len(rows) * settings.holdout)
        train, held = rows[:first], rows[first:]
    else:
        train, held = rows[draw >= settings.holdout], rows[draw < settings.holdout]
    half = _uniform(held, settings.seed + 1) < 0.5
    return train, held[half], held[~half]


def _uniform(rows: Rows, seed: int) -> Doubles:
    """A number in [0, 1) for each row number, the same for the same seed."""
    value = rows.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return np.asarray((value >> np.uint64(11)) / float(1 << 53), dtype=np.float64)


def logits(data: Dataset, table: Floats, bias: float, rows: Rows) -> Doubles:
    """Uncalibrated scores of some rows, (m,)."""
    out = np.zeros(len(rows))
    logits_of(
        table, bias, data.request_starts, data.request_hashes, data.ad_starts, data.ad_hashes,
        rows, out,
    )  # fmt: skip
    return out


def predict(data: Dataset, head: Head, rows: Rows) -> Doubles:
    """Calibrated probabilities of some rows, (m,): what a bid on them would have got."""
    scores = logits(data, head.table, head.bias, rows)
    return np.array([head.probability(float(score)) for score in scores])


class Fitted(msgspec.Struct, frozen=True):
    """Fitted heads by name, and why others are missing."""

    heads: dict[str, FittedHead]
    settings: Settings
    notes: tuple[str, ...]


def fit(data: Dataset, settings: Settings) -> Fitted:
    """Fits clicks, and conversions after a click where they were logged.

    Raises: ConfigError for settings out of range, or too few clicks.
    """
    settings.check()
    everything = np.arange(data.rows_count, dtype=np.int64)
    heads = {"ctr": fit_head(data, data.clicks, everything, settings)}
    notes = [f"column {name}: left out" for name in data.ignored]
    notes += [f"column {name}: the bidder does not use it when it bids" for name in data.unseen]
    if data.conversions is None:
        notes.append("no conversions in the logs: line items keep their own rate")
        return Fitted(heads, settings, tuple(notes))
    clicked = everything[data.clicks > 0]
    try:
        # Clicks are never sampled down, so conversions after them need no correction.
        plain = msgspec.structs.replace(settings, sampling_rate=1.0)
        heads["cvr"] = fit_head(data, data.conversions, clicked, plain)
    except ConfigError as error:
        notes.append(f"conversions: {error}")
    return Fitted(heads, settings, tuple(notes))
