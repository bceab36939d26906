"""What the keeper says of itself on the node's board, for metrics and status."""

import os
from typing import Final

import numpy as np

from rtb.keeper.letters import Letters
from rtb.keeper.pace import Pacers
from rtb.keeper.run import Keeper
from rtb.ledger.accounts import Balance
from rtb.pacing.goal import Mode
from rtb.stores.board import CURRENCIES_MAX, Board

# Sums over all accounts hold up a turn by some ms where there are 10,000: seldom is often enough
# for metrics, which are looked at four times a minute.
SUMS_EVERY_MS: Final = 5_000
_SUMS: Final = {
    "posted_nanos": Balance.POSTED,
    "pending_nanos": Balance.PENDING,
    "granted_nanos": Balance.GRANTED,
    "over_nanos": Balance.OVER,
}


class Report:
    """Writes the keeper's part of the board."""

    def __init__(self, board: Board) -> None:
        self._row = board.keeper[0]
        # Its counters go on where those of the last keeper ended: the board outlives it.
        self._before = board.keeper[0].copy()
        self._summed_ms = 0
        self._row["pid"] = os.getpid()

    def write(self, keeper: Keeper, pacers: Pacers, letters: Letters, now_ms: int) -> None:
        """The figures after a turn."""
        row = self._row
        row["lag_ms"] = keeper.lag_ms(now_ms)
        row["records"] = self._before["records"] + keeper.records
        row["notices"] = self._before["notices"] + keeper.tally.counts.astype(np.uint64)
        row["wins"] = self._before["wins"] + keeper.tally.wins
        row["waits"] = bool(keeper.fault or keeper.tails.faults())
        for outcome, count in keeper.outcomes.items():
            row["outcomes"][outcome] = self._before["outcomes"][outcome] + count
        for reason, count in letters.counts.items():
            row["letters"][reason] = self._before["letters"][reason] + count
        if not 0 <= now_ms - self._summed_ms < SUMS_EVERY_MS and not keeper.fault:
            self._summed_ms = now_ms
            self._sum(keeper)
            self._pace(pacers)
        row["beat_ms"] = now_ms

    def _pace(self, pacers: Pacers) -> None:
        summary = pacers.summary()
        for mode in Mode:
            self._row["pacing_modes"][mode] = summary.modes.get(mode, 0)
        self._row["pacing_worst_e6"] = summary.worst_e6
        self._row["pacing_mean_e6"] = summary.mean_e6

    def _sum(self, keeper: Keeper) -> None:
        """Balances by currency; a currency beyond the room of the board is left out."""
        lines = keeper.state.lines
        # A new keeper leaves the accounts of past days on the disk: their spend goes on to count.
        balances = {currency: [nanos] for currency, nanos in keeper.state.rest.items()}
        for account in keeper.state.accounts.values():
            balances.setdefault(lines[account.line_item].currency, []).append(account.nanos)
        for place, (currency, found) in enumerate(sorted(balances.items())[:CURRENCIES_MAX]):
            self._row["currencies"][place] = currency
            for name, balance in _SUMS.items():
                self._row[name][place] = sum([nanos[balance] for nanos in found])
