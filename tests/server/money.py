"""Money without a keeper, for tests of one worker in process: everything is lent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtb.base.links import Links
from rtb.base.money import currency_name
from rtb.base.records import MULTIPLIER_E6_ONE, OVERLAY, PARTICIPATION_E4_ALL
from rtb.exchanges.settings import Exchange
from rtb.notices.tokens import Keyring
from rtb.notices.urls import Urls
from rtb.server.kernels import Kernels
from rtb.stores.board_money import MoneyBoard, Purse
from rtb.stores.caps_board import CapsBoard, Sizes

KEYS = Keyring(0, {0: b"a secret for tests only"})
PLENTY = 1 << 60


class LentMoney:
    """What the bid path needs; `records` are what it would have journalled."""

    def __init__(self, folder: Path, exchanges: Mapping[str, Exchange], kernels: Kernels) -> None:
        self.writable = True
        self.records: list[tuple[int, bytes]] = []
        self.overlay = np.zeros(0, OVERLAY)
        self.board = MoneyBoard.create(folder / "money", 1, 4096)
        self._urls = {name: Urls("http://bid.test", one) for name, one in exchanges.items()}
        purse = Purse(self.board, 0, lambda: len(self.records))
        self.board.keeper["incarnation"][0] = purse.incarnation
        signer = kernels.signer(KEYS)
        caps_board = CapsBoard.create(folder / "caps", 1, Sizes(64, 1 << 16))
        self.caps: Any = kernels.caps(caps_board, 0, 0, 1)
        self.commit: Any = kernels.commit(purse, self._append, signer, KEYS, 0, 0)

    def _append(self, kind: int, body: bytes) -> int:
        self.records.append((kind, body))
        return len(self.records)

    def links(self, exchange: str, currency: int) -> Links:
        """As `rtb.server.money.Money.links`."""
        return self._urls[exchange].links(currency_name(currency))

    def serve(self, arrays: Mapping[str, Any]) -> None:
        """Lends everything to the line items of a snapshot."""
        keys = arrays["line_items"]["key"]
        self.board.keys[: len(keys)] = keys
        self.board.header["generation"] += 1
        self.board.until_ms[:] = self.board.granted[:] = self.board.granted_units[:] = PLENTY
        self.overlay = np.zeros(len(keys), OVERLAY)
        self.overlay["multiplier_e6"] = MULTIPLIER_E6_ONE
        self.overlay["participation_e4"] = PARTICIPATION_E4_ALL
        self.commit.serve(arrays)
