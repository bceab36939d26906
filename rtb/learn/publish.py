"""Fitted heads -> a versioned artefact that workers swap to, and back."""

from pathlib import Path

import msgspec

from rtb.base.errors import CatalogueError
from rtb.base.hashing import HASH_VERSION
from rtb.decide.model import MODEL_KIND, MODEL_VERSION, Array, Model
from rtb.decide.score import FACTORS
from rtb.learn.evaluate import GAIN_ERRORS_MIN, Metrics
from rtb.learn.train import Fitted
from rtb.stores import artifacts


def meta_of(fitted: Fitted) -> dict[str, object]:
    """The meta table: what serving needs (`decide.model.ModelMeta`), settings and metrics."""
    return {
        "model_version": MODEL_VERSION,
        "hash_version": HASH_VERSION,
        "form": fitted.settings.form,
        "bits": fitted.settings.bits,
        "factors": FACTORS,
        "heads": {
            name: {"bias": found.head.bias, "slope": found.head.slope, "shift": found.head.shift}
            for name, found in fitted.heads.items()
        },
        "settings": msgspec.to_builtins(fitted.settings),
        "metrics": {
            name: msgspec.to_builtins(found.metrics) for name, found in fitted.heads.items()
        },
        "notes": list(fitted.notes),
    }


def accepted(fitted: Fitted, *, force: bool = False) -> Fitted:
    """What may be published: heads that beat the base rate on held-out rows, and not by chance.

    A conversion head that does not is left out, with a note; `force` keeps everything.
    Raises: CatalogueError when the click head does not.
    """
    weak = [name for name, found in fitted.heads.items() if not found.metrics.beats_base_rate]
    if force or not weak:
        return fitted
    if "ctr" in weak:
        raise CatalogueError(f"model not published: {_weakness(fitted.heads['ctr'].metrics)}")
    kept = {name: found for name, found in fitted.heads.items() if name not in weak}
    notes = [f"{name} left out: {_weakness(fitted.heads[name].metrics)}" for name in weak]
    return Fitted(kept, fitted.settings, (*fitted.notes, *notes))


def _weakness(metrics: Metrics) -> str:
    """Why a head is no better than the base rate."""
    if metrics.gain <= 0:
        return (
            f"its log loss {metrics.log_loss:.5f} does not beat the base rate's"
            f" {metrics.base_log_loss:.5f}"
        )
    return (
        f"its log loss beats the base rate's by {metrics.gain:.6f}, with a standard error of"
        f" {metrics.gain_error:.6f}: less than {GAIN_ERRORS_MIN:g} of them may be chance; more rows"
        " would tell"
    )


def publish(directory: Path, fitted: Fitted, *, force: bool = False) -> tuple[Path, Fitted]:
    """Writes the accepted heads as the directory's current model; the path, and what is in it.

    The same logs, settings and seed give the same file.
    Raises: CatalogueError when the model may not be served; StoreError when the disk refuses.
    """
    fitted = accepted(fitted, force=force)
    arrays: dict[str, Array] = {
        f"{name}_table": found.head.table for name, found in fitted.heads.items()
    }
    meta = meta_of(fitted)
    Model.of(arrays, meta, "to publish")
    return artifacts.write(directory, MODEL_KIND, arrays, meta), fitted


def load(path: Path) -> Model:
    """Opens and verifies a model.

    Raises: StoreCorrupt when the file is damaged; CatalogueError when it may not be served.
    """
    arrays, meta, content_hash = artifacts.open_artifact(path, MODEL_KIND)
    return Model.of(arrays, meta, content_hash)


def load_current(directory: Path) -> Model | None:
    """The directory's current model; None before the first. Raises: as `load`."""
    path = artifacts.current(directory, MODEL_KIND)
    return None if path is None else load(path)
