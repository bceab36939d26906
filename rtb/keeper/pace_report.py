"""What pacing tells people: a row of each line item, and how all budgets go together. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
from rtb.keeper.chart import Plan
from rtb.keeper.pace_budgets import Budget, Name
from rtb.keeper.pace_pacer import Pacer, control_of, spent_of
from rtb.ledger.accounts import State
from rtb.ledger.commands import Scope
from rtb.pacing.goal import Mode

# Of a report in one turn, some 8 ms.
ROWS_A_TURN: Final = 500


class Row(msgspec.Struct, frozen=True):
    """How one line item is paced, for people. Amounts in nanos, or impressions where it says so.

    scope     of the budget that holds it back most; "" where no budget is paced: then `budget` and
              `target` are 0, and `spent` is all that it ever spent
    error_e6  (spent - target) / budget
    """

    line_item: str
    name: str
    mode: str
    scope: str
    impressions: bool
    spent: int
    pending: int
    target: int
    budget: int
    error_e6: int
    multiplier_e6: int
    participation_e4: int


@dataclass(frozen=True)
class Summary:
    """All of them: how many in each mode, and pacing errors in millionths of the budget."""

    modes: dict[Mode, int]
    worst_e6: int
    mean_e6: int


Plans = Sequence[tuple[int, Plan]]  # line items by key, as `chart.plans_of` has them
PacersOf = Sequence[Sequence[Pacer]]  # of each of these line items


def parts(plans: Plans, pacers: PacersOf, state: State) -> Iterator[bytes]:
    """Lists of `Row`, encoded: of some line items each."""
    for first in range(0, len(plans), ROWS_A_TURN):
        some = slice(first, first + ROWS_A_TURN)
        yield msgspec.json.encode(
            [_row(*plan, its, state) for plan, its in zip(plans[some], pacers[some], strict=True)]
        )


def _row(key: int, plan: Plan, pacers: Sequence[Pacer], state: State) -> Row:
    item = f"{key:016x}"
    if not pacers:
        name = Name(Scope.LINE_ITEM, key, False)
        whole = Budget(name, 0, plan.zone, plan.shape, (), (0,), 0)
        spent, pending, _ = spent_of(whole, 0, (key,), state)
        return Row(item, plan.name, "unpaced", "", False, spent, pending, 0, 0, 0,
                   MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL)  # fmt: skip
    pacer, control = _deciding(pacers), control_of(pacers)
    scope, _, units = pacer.budget.name
    return Row(
        item, plan.name, pacer.control.mode.name.lower(), scope.name.lower(), units,
        pacer.seen.spent_nanos, pacer.seen.pending_nanos, pacer.target(), pacer.budget.amount,
        pacer.error_e6, control.multiplier_e6, control.participation_e6 // 100,
    )  # fmt: skip


def _deciding(pacers: Sequence[Pacer]) -> Pacer:
    """The budget that holds a line item back most."""
    controls = ((one.control.participation_e6, one.control.multiplier_e6, number)
                for number, one in enumerate(pacers))  # fmt: skip
    return pacers[min(controls)[2]]


def errors(plans: Plans, pacers: PacersOf) -> dict[int, int]:
    """Of each paced line item (spent - target) / budget, in millionths, by key."""
    return {
        key: _deciding(its).error_e6 for (key, _), its in zip(plans, pacers, strict=True) if its
    }


def summary(pacers: Sequence[Pacer]) -> Summary:
    """How the budgets of a node go, all together."""
    found = [abs(pacer.error_e6) for pacer in pacers]
    return Summary(
        modes=dict(Counter(pacer.control.mode for pacer in pacers)),
        worst_e6=max(found, default=0),
        mean_e6=sum(found) // max(len(found), 1),
    )
