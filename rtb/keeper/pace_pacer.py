"""One budget under its controller: what was seen of it, what it allows, what the books say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rtb.keeper.pace_budgets import Aim, Budget, Name
from rtb.ledger.accounts import Balance, State
from rtb.ledger.commands import Scope
from rtb.pacing import controller
from rtb.pacing.estimate import Observed
from rtb.pacing.goal import Control, tightest
from rtb.pacing.schedule import ONE_E6, pacing_error_e6

# Only the last few accounts of a line item, days or flights, have money lent or in flight.
RECENT_ACCOUNTS: Final = 4
Key = tuple[Name, int]  # a budget, and the day of a daily one


@dataclass
class Pacer:
    """One budget and its controller.

    keys     of its line items
    control  what its controller said; that of `state` is what its line item did, if it has others
    stepped  whether it ever was
    error_e6 (spent - target) / budget at the last step
    """

    budget: Budget
    keys: tuple[int, ...]
    aim: Aim
    state: controller.State
    seen: Observed
    control: Control
    stepped: bool = False
    error_e6: int = 0

    def measure(self) -> None:
        """Notes the pacing error of what was seen; more than planned is positive."""
        target, spent = self.target(), self.seen.spent_nanos
        error = min(pacing_error_e6(spent, target, self.budget.amount), 1000 * ONE_E6)
        self.error_e6 = error if spent >= target else -error

    def target(self) -> int:
        """What should have been spent by now."""
        return self.aim.goal.schedule.target_nanos(self.budget.amount, self.seen.now_s)


def control_of(pacers: Sequence[Pacer]) -> Control:
    """What all budgets of a line item allow."""
    control = pacers[0].control
    for pacer in pacers[1:]:
        control = tightest(control, pacer.control)
    return control


def spent_of(budget: Budget, day: int, keys: Sequence[int], state: State) -> tuple[int, int, int]:
    """(posted, pending, impressions) of a budget on a day; day 0 is all days."""
    name = budget.name
    posted = pending = wins = lent = lent_units = 0
    for place in budget.members:
        line = state.lines.get(keys[place])
        for number in line.numbers[-RECENT_ACCOUNTS:] if line else ():
            account = state.accounts[number]
            if (day and account.day != day) or (
                name.scope is Scope.FLIGHT and account.flight != name.key
            ):
                continue
            own = account.units if name.units else account.nanos
            posted += own[Balance.POSTED]
            pending += own[Balance.PENDING]
            lent += own[Balance.GRANTED]
            wins += account.units[Balance.POSTED]
            lent_units += account.units[Balance.GRANTED] + account.units[Balance.PENDING]
    drawn = state.drawn.get((name.scope, name.key, 0))
    if not day and drawn is not None:  # older accounts, too: nothing is lent of them
        posted = (drawn.units if name.units else drawn.nanos) - lent - pending
        wins = drawn.units - lent_units
    return posted, pending, wins
