"""Money without a keeper, for one worker in process: everything is lent to it.

The journal is real and on a disk, but committed by hand (`flush`); board, caps and signatures are
those of a node.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from rtb.base.links import Links
from rtb.base.money import currency_name
from rtb.base.records import MULTIPLIER_E6_ONE, OVERLAY, PARTICIPATION_E4_ALL
from rtb.exchanges.settings import Exchange
from rtb.notices.tokens import Keyring
from rtb.notices.urls import Urls
from rtb.server.kernels import Kernels
from rtb.stores.board_money import SLOTS_STEP, MoneyBoard, Purse
from rtb.stores.caps import Limits, Stored
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.caps_table import CapsTable
from rtb.stores.journal_write import Journal

KEYS: Final = Keyring(0, {0: b"a secret that signs nothing real"})
PLENTY: Final = 1 << 60
# An identity that no journal has: nothing of another process is read.
_IDENTITY: Final = 1


class LentMoney:
    """What the bid path needs of `rtb.server.money.Money`."""

    def __init__(
        self,
        folder: Path,
        exchanges: Mapping[str, Exchange],
        kernels: Kernels,
        line_items_max: int,
        stored: Stored | None = None,
        in_flight_ms: int = 1,
    ) -> None:
        """stored: where counts of impressions are read.

        in_flight_ms: how long caps count a bid. The same few requests come round and round here;
            in a server persons come back much later, so not for long by default.
        """
        self.writable = True
        self.overlay = np.zeros(0, OVERLAY)
        self.journal = Journal.open(folder / "journals", 0, kernel=kernels.journal)
        slots = -(-line_items_max // SLOTS_STEP) * SLOTS_STEP
        self.board = MoneyBoard.create(folder / "money", 1, slots)
        caps_board = CapsBoard.create(folder / "caps", 1, Sizes())
        caps_board.header["ready"] = 1
        limits = Limits(in_flight_ms=in_flight_ms)
        self.caps: Any = kernels.caps(
            caps_board, 0, 0, _IDENTITY, limits, stored, self.journal.append
        )
        self._urls = {name: Urls("https://bid.example", one) for name, one in exchanges.items()}
        purse = Purse(self.board, 0, lambda: self.journal.last_sequence)
        self.board.keeper["incarnation"][0] = purse.incarnation
        self.commit: Any = kernels.commit(
            purse, self.journal.append, kernels.signer(KEYS), KEYS, 0, 0, 0, self.caps
        )

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
        self.caps.serve(CapsTable.of(arrays))
        self.commit.serve(arrays)

    def flush(self) -> None:
        """Commits the journal, as its thread does a few hundred times a second."""
        self.journal.turn()

    def close(self) -> None:
        """Lets go of the journal."""
        self.journal.close()
