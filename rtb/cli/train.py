"""`rtb train`: fits click and conversion models from logs, and publishes them to workers.

Exit codes: 0 published (or measured, with --dry-run), 1 refused: the model is no better than the
base rate, or by no more than chance explains, or the disk failed; 2 a log or a setting is wrong.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from rtb.base.errors import CatalogueError, ConfigError, InputError, StoreError
from rtb.cli.console import console
from rtb.learn.dataset import read_logs
from rtb.learn.publish import accepted, publish
from rtb.learn.train import Fitted, Settings, fit

MODELS = "models"  # in the state directory


class Form(StrEnum):
    """Logistic regression, or a factorisation machine."""

    LR = "lr"
    FM = "fm"


DEFAULTS = Settings()


def command(
    log: Annotated[list[Path], typer.Option(help="A log: .csv, .tsv or .jsonl, also .gz. Repeat.")],
    data: Annotated[Path, typer.Option(help="State directory; models go to its `models`.")],
    form: Annotated[
        Form, typer.Option(help="lr: weights only; fm: weights and factors.")
    ] = Form.LR,
    epochs: Annotated[int, typer.Option(help="Passes over the log.")] = DEFAULTS.epochs,
    bits: Annotated[int, typer.Option(help="Tables of 2^bits rows.")] = DEFAULTS.bits,
    seed: Annotated[int, typer.Option(help="Same logs and seed, same model.")] = DEFAULTS.seed,
    holdout: Annotated[
        float, typer.Option(help="Share of rows kept back to calibrate and measure.")
    ] = DEFAULTS.holdout,
    sampling_rate: Annotated[
        float, typer.Option(help="Share of rows without a click that the log kept.")
    ] = DEFAULTS.sampling_rate,
    request_columns: Annotated[
        str, typer.Option(help="More columns of the request side, comma separated.")
    ] = "",
    ad_columns: Annotated[
        str, typer.Option(help="More columns of the ad side, comma separated.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Publish even what is no better than the base rate.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and measure only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit models of clicks and conversions from logs of impressions, and publish them."""
    settings = Settings(
        form=form.value, epochs=epochs, bits=bits, seed=seed, holdout=holdout,
        sampling_rate=sampling_rate,
    )  # fmt: skip
    path: Path | None = None
    refusal = ""
    try:
        settings.check()
        for each in log:
            _must_exist(each)
        fitted = fit(read_logs(log, _names(request_columns), _names(ad_columns)), settings)
        try:
            if dry_run:
                fitted = accepted(fitted, force=force)
            else:
                path, fitted = publish(data / MODELS, fitted, force=force)
        except (CatalogueError, StoreError) as error:
            refusal = str(error)
    except (InputError, ConfigError) as error:
        typer.echo(f"rtb: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(summary(fitted, path, refusal)))
    else:
        _print(fitted, path, refusal)
    if refusal:
        raise typer.Exit(1)


def _must_exist(path: Path) -> None:
    """Told apart from a file of another format, whose name is judged first."""
    if not path.exists():
        raise InputError("no such file", str(path))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def summary(fitted: Fitted, path: Path | None, refusal: str) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "published": None if path is None else str(path),
        "refused": refusal or None,
        "settings": msgspec.to_builtins(fitted.settings),
        "heads": {
            name: msgspec.to_builtins(found.metrics)
            | {
                "train_rows": found.train_rows,
                "progressive_log_loss": found.progressive_log_loss,
            }
            for name, found in fitted.heads.items()
        },
        "notes": list(fitted.notes),
    }


def _print(fitted: Fitted, path: Path | None, refusal: str) -> None:
    printed = console()
    table = Table(title="On rows that the model has not seen")
    table.add_column("measure")
    for name in fitted.heads:
        table.add_column({"ctr": "click", "cvr": "conversion"}[name], justify="right")
    measures = [found.metrics for found in fitted.heads.values()]
    rows = {
        "rows": [f"{m.rows:,}" for m in measures],
        "positives": [f"{m.positives:,}" for m in measures],
        "log loss": [f"{m.log_loss:.5f}" for m in measures],
        "log loss of the base rate": [f"{m.base_log_loss:.5f}" for m in measures],
        "gain": [f"{m.gain:.5f}" for m in measures],
        "standard error of the gain": [f"{m.gain_error:.5f}" for m in measures],
        "AUC": ["-" if m.auc is None else f"{m.auc:.4f}" for m in measures],
        "predicted / observed": [
            "-" if m.calibration is None else f"{m.calibration:.3f}" for m in measures
        ],
        "calibration error": [f"{m.ece:.5f}" for m in measures],
    }
    for label, cells in rows.items():
        table.add_row(label, *cells)
    printed.print(table)
    for note in fitted.notes:
        printed.print(f"note: {note}", highlight=False, markup=False)
    if refusal:
        printed.print(f"refused: {refusal}", highlight=False, markup=False)
    elif path is not None:
        printed.print(f"published {path}", highlight=False, markup=False, soft_wrap=True)
