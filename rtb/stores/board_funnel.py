"""The funnel of line items as one catalogue has them.

The board counts by row, for as long as the node runs, and another snapshot has other rows. So the
supervisor keeps what was counted before it let a generation in, and whoever shows the funnel takes
that off. Workers go over some tenths of a second later: what they count meanwhile is of the row's
former line item. The counts are samples, of one request in `board.FUNNEL_SAMPLE`.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import StoreError
from rtb.stores.board import Board

_PREFIX: Final = "funnel-"
_COUNT: Final = np.dtype([("row", "u4"), ("reason", "u4"), ("count", "i8")])
Funnel = npt.NDArray[np.int64]


def begin(board: Board, generation: int) -> None:
    """From here on, what is counted is of this generation. Raises: StoreError."""
    total = _total(board)
    rows, reasons = np.nonzero(total)
    kept = np.zeros(len(rows), _COUNT)
    kept["row"], kept["reason"], kept["count"] = rows, reasons, total[rows, reasons]
    path = _path(board, generation)
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            np.save(file, kept)
        forget(board.path.parent)
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error


def forget(folder: Path) -> None:
    """A board that begins with zeros has nothing to take off."""
    for path in folder.glob(f"{_PREFIX}*.npy"):
        path.unlink(missing_ok=True)


def since(board: Board, generation: int) -> Funnel:
    """What was counted of a generation.

    Shapes: (line items, reasons) as `Board.funnel`. Raises: StoreError.
    """
    total = _total(board)
    path = _path(board, generation)
    try:
        before = np.load(path)
    except FileNotFoundError:
        return total
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
    total[before["row"], before["reason"]] -= before["count"]
    return np.maximum(total, 0)


def _total(board: Board) -> Funnel:
    return np.asarray(board.funnel.sum(axis=0, dtype=np.int64))


def _path(board: Board, generation: int) -> Path:
    return board.path.with_name(f"{_PREFIX}{generation}.npy")
