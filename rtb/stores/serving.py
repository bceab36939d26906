"""What a node serves: the generation file that the supervisor writes and every worker follows.

Publishing a snapshot or a model (`stores.artifacts`) only moves a `current` pointer. The supervisor
is the door: it verifies what the pointers name, whole, and only then writes `run/serving.json`.
Workers open what that file names without verifying it again, so that a swap costs them a map and
an index, not a read of the whole file; what fails at the door never reaches them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rtb.base.errors import StoreCorrupt, StoreError


class ServingFile(msgspec.Struct, frozen=True):
    """One generation: file names relative to the state directory; "" = no model."""

    generation: int
    snapshot: str
    snapshot_hash: str
    model: str = ""
    model_hash: str = ""


@dataclass(frozen=True)
class StatePaths:
    """Where things lie in a state directory."""

    root: Path

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def board(self) -> Path:
        return self.root / "run" / "board"

    @property
    def serving(self) -> Path:
        return self.root / "run" / "serving.json"

    @property
    def money_board(self) -> Path:
        return self.root / "run" / "money"

    @property
    def caps_board(self) -> Path:
        return self.root / "run" / "caps"

    @property
    def journals(self) -> Path:
        return self.root / "journals"

    @property
    def events(self) -> Path:
        """Journals as Parquet."""
        return self.root / "events"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger" / "ledger.db"

    @property
    def ledger_url(self) -> str:
        """Of the embedded ledger."""
        return f"sqlite:///{self.ledger}"

    @property
    def letters(self) -> Path:
        """Records that could not be booked."""
        return self.root / "ledger" / "dead-letters.jsonl"

    @property
    def pacing(self) -> Path:
        """What pacing has learned, for the next start."""
        return self.root / "ledger" / "pacing.json"

    @property
    def pacing_report(self) -> Path:
        """How each line item is paced just now."""
        return self.root / "run" / "pacing.json"

    @property
    def notice_secret(self) -> Path:
        return self.root / "secrets" / "notices"

    @property
    def kernels(self) -> Path:
        return self.root / "run" / "kernels"


def write_serving(paths: StatePaths, serving: ServingFile) -> None:
    """Replaces the generation file, whole.

    Raises: StoreError when it cannot be written.
    """
    fresh = paths.serving.with_suffix(".new")
    try:
        paths.serving.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(msgspec.json.encode(serving))
        fresh.replace(paths.serving)
    except OSError as error:
        raise StoreError(f"{paths.serving}: {error}") from error


def read_serving(paths: StatePaths) -> ServingFile | None:
    """The generation file, None before the first.

    Raises: StoreCorrupt when it cannot be read.
    """
    try:
        return msgspec.json.decode(paths.serving.read_bytes(), type=ServingFile)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreCorrupt(f"{paths.serving}: {error}") from error


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced: (inode, size, mtime); zeros when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)
