"""Fitting, on data whose truth is known and on real logs."""

from pathlib import Path

import numpy as np
import pytest

from rtb.base.errors import ConfigError
from rtb.decide import score
from rtb.learn import evaluate, train
from rtb.learn.dataset import Dataset, Reader, read_logs
from rtb.learn.train import Settings, fit

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")

SITES, CREATIVES = 40, 25


def synthetic(
    rows: int, *, interaction: float, base: float = -2.0, seed: int = 11
) -> tuple[Dataset, np.ndarray]:
    """A log of random sites and creatives, and the true click probability of each row.

    interaction: how much the taste of a site (a vector of 2) for a creative counts, beside the
    plain appeal of each.
    """
    chance = np.random.default_rng(seed)
    site_appeal, ad_appeal = chance.normal(0, 0.6, SITES), chance.normal(0, 0.6, CREATIVES)
    tastes = chance.normal(0, 1, (SITES, 2)) @ chance.normal(0, 1, (2, CREATIVES))
    sites, ads = chance.integers(0, SITES, rows), chance.integers(0, CREATIVES, rows)
    logits = base + site_appeal[sites] + ad_appeal[ads] + interaction * tastes[sites, ads]
    truth = 1 / (1 + np.exp(-logits))
    clicks = chance.random(rows) < truth
    reader = Reader()
    for site, ad, click in zip(sites, ads, clicks, strict=True):
        reader.add({"domain": f"s{site}.example", "creative": f"c{ad}", "click": int(click)}, "row")
    return reader.dataset(), truth


def oracle_auc(data: Dataset, truth: np.ndarray, settings: Settings) -> float:
    """AUC of the true probabilities on the rows that the fit is measured on."""
    _, _, test = train.split(data, np.arange(data.rows_count), settings)
    found = evaluate.auc(truth[test], data.clicks[test], data.weights[test])
    assert found is not None
    return found


def test_regression_comes_near_the_oracle() -> None:
    """Without interactions, weights alone recover the truth, calibrated."""
    data, truth = synthetic(60_000, interaction=0.0)
    settings = Settings(form="lr", bits=12)
    metrics = fit(data, settings).heads["ctr"].metrics
    assert metrics.auc is not None
    assert metrics.auc > oracle_auc(data, truth, settings) - 0.01
    assert metrics.beats_base_rate
    assert metrics.calibration == pytest.approx(1.0, abs=0.08)
    assert metrics.ece < 0.02


def test_factors_learn_what_weights_cannot() -> None:
    """With interactions, the factorisation machine beats regression and nears the oracle."""
    data, truth = synthetic(60_000, interaction=1.0)
    metrics = {
        form: fit(data, Settings(form=form, bits=12)).heads["ctr"].metrics for form in ("lr", "fm")
    }
    lr, fm = metrics["lr"].auc, metrics["fm"].auc
    assert lr is not None
    assert fm is not None
    assert fm > lr + 0.05
    assert fm > oracle_auc(data, truth, Settings(bits=12)) - 0.03
    assert metrics["fm"].log_loss < metrics["lr"].log_loss < metrics["lr"].base_log_loss
    assert metrics["fm"].calibration == pytest.approx(1.0, abs=0.08)


def test_training_and_serving_agree_bit_for_bit() -> None:
    """What evaluation predicts for a row is what the C entry points' kernels give a bid."""
    data, _ = synthetic(5_000, interaction=1.0)
    fitted = fit(data, Settings(bits=12))
    head = fitted.heads["ctr"].head
    rows = np.arange(200)
    predicted = train.predict(data, head, rows)
    ad_rows = head.ad_rows(data.ad_starts[:200], np.diff(data.ad_starts[:201]), data.ad_hashes)
    served = [
        head.score(
            ad_rows,
            head.request_vector(
                data.request_hashes[data.request_starts[i] : data.request_starts[i + 1]]
            ),
            np.array([i], np.int32),
        )[0]
        for i in rows
    ]
    assert predicted.tolist() == served


def test_same_seed_same_model() -> None:
    """A fit is a function of logs, settings and seed."""
    data, _ = synthetic(3_000, interaction=1.0)
    first, again, other = (
        fit(data, Settings(bits=10, seed=seed)).heads["ctr"].head for seed in (1, 1, 2)
    )
    assert first.table.tobytes() == again.table.tobytes()
    assert (first.bias, first.slope, first.shift) == (again.bias, again.slope, again.shift)
    assert first.table.tobytes() != other.table.tobytes()


def test_rows_never_seen_are_zero() -> None:
    """Unknown tokens add nothing to a bid: no random factors are left in the table."""
    data, _ = synthetic(2_000, interaction=0.0)
    table = fit(data, Settings(bits=14)).heads["ctr"].head.table
    seen = np.zeros(1 << 14, dtype=bool)
    for hashes in (data.request_hashes, data.ad_hashes):
        seen[hashes & np.uint64((1 << 14) - 1)] = True
    assert not table[~seen].any()
    assert not table[:, score.FACTORS + 1 :].any()


def test_sampled_negatives_are_corrected() -> None:
    """A log that kept a tenth of the rows without a click still gives true probabilities."""
    data, _ = synthetic(80_000, interaction=0.0, base=-4.0)
    kept = np.flatnonzero((data.clicks > 0) | (np.random.default_rng(1).random(80_000) < 0.1))
    full_rate = float(data.clicks.mean())
    counts = np.diff(data.request_starts)[kept], np.diff(data.ad_starts)[kept]
    sampled = Dataset(
        np.concatenate([[0], np.cumsum(counts[0])]),
        np.concatenate([data.request_hashes[data.request_starts[i] : data.request_starts[i + 1]]
                        for i in kept]),
        np.concatenate([[0], np.cumsum(counts[1])]),
        np.concatenate([data.ad_hashes[data.ad_starts[i] : data.ad_starts[i + 1]] for i in kept]),
        data.clicks[kept], None, data.weights[kept], None,
    )  # fmt: skip
    fitted = fit(sampled, Settings(form="lr", bits=12, sampling_rate=0.1)).heads["ctr"]
    everything = train.predict(data, fitted.head, np.arange(data.rows_count))
    assert fitted.metrics.calibration == pytest.approx(1.0, abs=0.15)
    assert float(everything.mean()) == pytest.approx(full_rate, rel=0.12)


def test_time_splits_the_latest_off() -> None:
    """With times, what is held out comes after everything that is learned from."""
    data, _ = synthetic(2_000, interaction=0.0)
    data.times_s = np.random.default_rng(2).random(2_000)
    parts = train.split(data, np.arange(2_000), Settings(holdout=0.25))
    learned, held = parts[0], np.concatenate(parts[1:])
    assert len(held) == 500
    assert data.times_s[learned].max() < data.times_s[held].min()
    assert sorted([*learned, *held]) == list(range(2_000))


def test_conversions_are_a_second_head() -> None:
    """Conversions are learned from clicked rows only, and left out when there are too few."""
    data, _ = synthetic(20_000, interaction=0.0, base=-1.0)
    chance = np.random.default_rng(4)
    converted = (chance.random(20_000) < 0.3) & (data.clicks > 0)
    data.conversions = converted.astype(np.uint8)
    fitted = fit(data, Settings(form="lr", bits=12))
    assert set(fitted.heads) == {"ctr", "cvr"}
    assert fitted.heads["cvr"].metrics.base_rate == pytest.approx(0.3, abs=0.05)
    data.conversions = np.zeros(20_000, np.uint8)
    fitted = fit(data, Settings(form="lr", bits=12))
    assert set(fitted.heads) == {"ctr"}
    assert any("too few" in note for note in fitted.notes)


@pytest.mark.parametrize(
    "change", [{"bits": 40}, {"epochs": 0}, {"holdout": 1.0}, {"sampling_rate": 0.0}]
)
def test_settings_have_limits(change: dict[str, int]) -> None:
    """A setting out of range is named."""
    data, _ = synthetic(500, interaction=0.0)
    with pytest.raises(ConfigError, match=next(iter(change))):
        fit(data, Settings(**change))


def test_a_log_without_clicks_is_refused() -> None:
    """Nothing to learn from is an error with its numbers, not a model."""
    data, _ = synthetic(500, interaction=0.0)
    data.clicks[:] = 0
    with pytest.raises(ConfigError, match="0 positives"):
        fit(data, Settings(bits=10))


@needs_data
def test_fashion_shop() -> None:
    """Zozotown's logs (0.5 % clicks) are read as they are, and a fit on them stays calibrated."""
    data = read_logs(
        sorted((SHARED / "zozotown").rglob("*.csv.gz")),
        request_columns=[f"user_feature_{number}" for number in range(4)],
        ad_columns=["item_id"],
    )
    assert data.rows_count == 60_000
    metrics = fit(data, Settings(form="lr")).heads["ctr"].metrics
    assert metrics.log_loss < 1.02 * metrics.base_log_loss
    assert metrics.calibration is not None
    assert 0.6 < metrics.calibration < 1.6


@needs_data
def test_criteo() -> None:
    """On Criteo's log both forms beat the base rate by 5 % of log loss, calibrated within 3 %."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is a dev dependency")
    names = ["cat1", "cat4", "cat6", "cat8", "cat9", "click"]
    reader = Reader(request_columns=names[:3], ad_columns=names[3:5])
    table = parquet.read_table(SHARED / "criteo-attribution" / "small_train.parquet")
    for row in table.select(names).slice(0, 60_000).to_pylist():
        reader.add(row, "row")
    for form in ("lr", "fm"):
        metrics = fit(reader.dataset(), Settings(form=form)).heads["ctr"].metrics
        assert metrics.log_loss < 0.96 * metrics.base_log_loss
        assert metrics.auc is not None
        assert metrics.auc > 0.63
        assert metrics.calibration == pytest.approx(1.0, abs=0.03)
