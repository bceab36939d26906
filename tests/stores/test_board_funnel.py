"""The funnel of one generation: what was counted before is taken off."""

from pathlib import Path

import numpy as np
import pytest

from rtb.base.errors import StoreError
from rtb.stores import board_funnel
from rtb.stores.board import Board


@pytest.fixture(name="board")
def board_fixture(tmp_path: Path) -> Board:
    """A board of two workers that have counted."""
    board = Board.create(tmp_path / "board", 2, 8)
    board.funnel[0, 3, 1], board.funnel[1, 3, 1], board.funnel[1, 7, 63] = 5, 2, 1
    return board


def test_a_generation_begins_with_nothing(board: Board) -> None:
    """Of all workers together; a later one takes off all that was counted before it."""
    assert 8 == board_funnel.since(board, 1).sum()
    board_funnel.begin(board, 2)
    assert 0 == board_funnel.since(board, 2).sum()
    board.funnel[0, 3, 1] += 4
    board.funnel[1, 0, 0] += 1
    expected = np.zeros((8, 64), np.int64)
    expected[3, 1], expected[0, 0] = 4, 1

    assert (expected == board_funnel.since(board, 2)).all()
    board_funnel.begin(board, 3)
    assert 0 == board_funnel.since(board, 3).sum()
    assert ["funnel-3.npy"] == [path.name for path in board.path.parent.glob("funnel*")]


def test_a_new_board_has_nothing_to_take_off(board: Board) -> None:
    """A node that starts again counts from zero under the generation that it had."""
    board_funnel.begin(board, 2)
    board_funnel.forget(board.path.parent)

    assert 8 == board_funnel.since(board, 2).sum()


def test_a_broken_file_is_told(board: Board) -> None:
    """It is a fault, not a funnel of zeros."""
    board_funnel.begin(board, 2)
    (board.path.parent / "funnel-2.npy").write_bytes(b"x")
    with pytest.raises(StoreError, match="funnel-2"):
        board_funnel.since(board, 2)
