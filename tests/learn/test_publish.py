"""Models as files: published, opened, refused; and the command that makes them."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rtb.base.errors import CatalogueError, StoreCorrupt
from rtb.cli import train as command
from rtb.decide.model import MODEL_KIND
from rtb.learn import publish
from rtb.learn.dataset import Reader
from rtb.learn.train import Fitted, Settings, fit
from rtb.stores import artifacts


def log_rows(rows: int, appeal: float) -> list[dict[str, str]]:
    """A log in which one of two creatives is clicked more, by `appeal` in logits."""
    chance = np.random.default_rng(3)
    result = []
    for _ in range(rows):
        ad, site = int(chance.integers(2)), int(chance.integers(5))
        click = chance.random() < 1 / (1 + np.exp(2.0 - appeal * ad))
        result.append(
            {"creative": f"c{ad}", "domain": f"s{site}.example", "click": str(int(click))}
        )
    return result


def fitted(rows: int = 4_000, appeal: float = 1.5) -> Fitted:
    reader = Reader()
    for row in log_rows(rows, appeal):
        reader.add(row, "row")
    return fit(reader.dataset(), Settings(form="lr", bits=10))


def test_publish_and_load(tmp_path: Path) -> None:
    """What is opened scores as what was fitted, and the same fit gives the same file."""
    found = fitted()
    path, _ = publish.publish(tmp_path, found)
    model = publish.load_current(tmp_path)
    assert model is not None
    assert model.content_hash.startswith(path.stem.removeprefix("model-"))
    expected = found.heads["ctr"].head
    assert (expected.bias, expected.slope, expected.shift) == (
        model.ctr.bias, model.ctr.slope, model.ctr.shift,
    )  # fmt: skip
    assert expected.table.tobytes() == model.ctr.table.tobytes()
    assert publish.publish(tmp_path / "again", fitted())[0].name == path.name


def test_nothing_published_yet(tmp_path: Path) -> None:
    """An empty directory has no model, which is no error."""
    assert publish.load_current(tmp_path) is None


def test_worse_than_the_base_rate_is_refused(tmp_path: Path) -> None:
    """A click model that knows nothing is not published unless forced."""
    found = fitted()
    head = found.heads["ctr"]
    worse = msgspec.structs.replace(head.metrics, gain=0.0)
    weak = Fitted({"ctr": msgspec.structs.replace(head, metrics=worse)}, found.settings, ())
    with pytest.raises(CatalogueError, match="base rate"):
        publish.publish(tmp_path, weak)
    assert publish.load_current(tmp_path) is None
    publish.publish(tmp_path, weak, force=True)
    assert publish.load_current(tmp_path) is not None


def test_weak_conversions_are_left_out(tmp_path: Path) -> None:
    """A conversion head that knows nothing is left out; clicks are published."""
    found = fitted()
    head = found.heads["ctr"]
    worse = msgspec.structs.replace(head.metrics, gain=1.9, gain_error=1.0)
    weak = msgspec.structs.replace(head, metrics=worse)
    _, kept = publish.publish(tmp_path, Fitted({"ctr": head, "cvr": weak}, found.settings, ()))
    assert list(kept.heads) == ["ctr"]
    assert "cvr left out: its log loss beats the base rate's by 1.9" in kept.notes[-1]
    model = publish.load_current(tmp_path)
    assert model is not None
    assert model.cvr is None


def test_damage_is_refused(tmp_path: Path) -> None:
    """A cut or changed file, NaN weights and other versions are refused; nothing else happens."""
    path, found = publish.publish(tmp_path, fitted())
    whole = path.read_bytes()
    for size in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreCorrupt):
            publish.load(path)
    for place in range(0, len(whole), 4_001):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreCorrupt):
            publish.load(path)
    table = found.heads["ctr"].head.table.copy()
    table[17, 3] = np.nan
    meta = publish.meta_of(found)
    for arrays, change in (
        ({"ctr_table": table}, {}),
        ({"ctr_table": found.heads["ctr"].head.table}, {"model_version": 99}),
        ({"ctr_table": found.heads["ctr"].head.table[:7]}, {}),
    ):
        bad = artifacts.write(tmp_path / "bad", MODEL_KIND, arrays, meta | change)
        with pytest.raises(CatalogueError):
            publish.load(bad)


@pytest.fixture
def app() -> typer.Typer:
    """The command alone."""
    result = typer.Typer()
    result.command()(command.command)
    return result


def write_log(path: Path, appeal: float) -> Path:
    rows = log_rows(4_000, appeal)
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def test_command(tmp_path: Path, app: typer.Typer) -> None:
    """`rtb train` prints the measures and publishes; --dry-run publishes nothing."""
    log = write_log(tmp_path / "log.csv", 1.5)
    arguments = ["--log", str(log), "--data", str(tmp_path), "--form", "lr", "--bits", "10"]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not (tmp_path / "models").exists()
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["heads"]["ctr"]["log_loss"] < printed["heads"]["ctr"]["base_log_loss"]
    assert Path(printed["published"]).parent == tmp_path / "models"
    table = CliRunner().invoke(app, arguments)
    assert "log loss of the base rate" in table.stdout
    assert publish.load_current(tmp_path / "models") is not None


def test_command_refuses(tmp_path: Path, app: typer.Typer) -> None:
    """Exit code 2 for a bad log or setting, 1 for a model that knows nothing."""
    (tmp_path / "bad.csv").write_text("click\n7\n")
    where = ["--data", str(tmp_path)]
    bad = CliRunner().invoke(app, ["--log", str(tmp_path / "bad.csv"), *where])
    assert bad.exit_code == 2
    assert "bad.csv row 1 field click" in bad.stderr
    log = str(write_log(tmp_path / "log.csv", 1.5))
    assert CliRunner().invoke(app, ["--log", log, "--bits", "99", *where]).exit_code == 2
    noise = write_log(tmp_path / "noise.csv", 0.0)
    arguments = ["--log", str(noise), *where, "--form", "fm", "--epochs", "60", "--bits", "10"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    printed = json.loads(result.stdout)
    assert 1 == result.exit_code
    assert printed["published"] is None
    assert "model not published" in printed["refused"]


def test_what_chance_explains_is_refused(tmp_path: Path, app: typer.Typer) -> None:
    """A gain on held-out rows within two of its standard errors is no gain: exit code 1."""
    log = write_log(tmp_path / "log.csv", 0.25)
    arguments = ["--log", str(log), "--data", str(tmp_path), "--bits", "10", "--dry-run"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    printed = json.loads(result.stdout)
    found = printed["heads"]["ctr"]
    assert 0 < found["gain"] < 2 * found["gain_error"]
    assert 1 == result.exit_code
    assert "may be chance" in printed["refused"]
    table = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert f"│ gain │ {found['gain']:.5f} │" in table
    assert f"│ standard error of the gain │ {found['gain_error']:.5f} │" in table
