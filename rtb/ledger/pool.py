"""The pool: one budget over the books of several nodes. Pure.

A *pot* is what is lent from: one scope of one day. A node draws on its *share* of a pot as if that
were the budget. It says what it has drawn and what it needs, and is answered with a new share.
Rules, for money and units alike:

1. The shares of a pot are together at most its budget. Only what was spent without having been
   lent, or a budget that was lowered, breaks it; then nobody gets more until it holds again.
2. A share is never below what its node has drawn, spent beyond the budget included: so overspend
   of one node is taken from what is left for the others.
3. Who is alone has all. Otherwise a share is what a node needs ahead, at most half of what is free.
4. A node keeps what it has while nobody else wants of that pot; then it keeps what it needs.
5. Who cannot have enough for one impression has nothing: two splinters together may make one.
6. Where nodes serve different catalogues the lowest budget holds.

Whoever calls this sees to it that no two answers for one pot are made at the same time, and that a
node draws on a share only after it was written down.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from rtb.ledger.accounts import NO_LIMIT, Balance, Pot, State, scope_keys


class Amount(NamedTuple):
    """Money and impressions; as a budget, NO_LIMIT for none."""

    nanos: int
    units: int


NOTHING = Amount(0, 0)
UNLIMITED = Amount(NO_LIMIT, NO_LIMIT)


class Wants(IntEnum):
    """What a node could not have. Numbers are stored, the greater one counts."""

    NOTHING = 0
    MORE = 1  # the others shall keep what they need
    ALL = 2  # more is drawn than there is: the others shall call back what they can


class Share(NamedTuple):
    """What one node has of a pot.

    lent    counts against the budget
    bound   what it may draw: less than was lent where some was overspent
    budget  as its own catalogue says
    wants   what the others are asked for
    """

    lent: Amount
    bound: Amount
    budget: Amount
    wants: Wants = Wants.NOTHING


class Ask(NamedTuple):
    """What a node says of a pot.

    drawn   lent to workers, in flight or spent, also what was overspent
    least   that makes one impression; nothing where it asks for none
    ahead   that it would like to have beyond what is drawn
    budget  as its own catalogue says
    """

    pot: Pot
    drawn: Amount
    least: Amount
    ahead: Amount
    budget: Amount


class _Part(NamedTuple):
    """One of the two amounts of a share."""

    lent: int
    bound: int
    wants: Wants


def answer(
    ask: Ask, mine: Share | None, others: Sequence[Share], *, alone: bool, leaves: bool = False
) -> Share:
    """The new share of a node.

    mine: what it has by now; alone: there are no other nodes
    leaves: it gives back what it can, and has no say any more until it is back
    """
    wanted = leaves or any(other.wants for other in others)
    nanos, units = (
        _part(
            drawn=ask.drawn[place],
            least=ask.least[place],
            ahead=ask.ahead[place],
            budget=min(ask.budget[place], *(other.budget[place] for other in others), NO_LIMIT),
            others=sum(other.lent[place] for other in others),
            have=mine.lent[place] if mine is not None else 0,
            alone=alone and not leaves,
            wanted=wanted,
        )
        for place in (0, 1)
    )
    lent, bound = Amount(nanos.lent, units.lent), Amount(nanos.bound, units.bound)
    if leaves:
        return Share(lent, bound, UNLIMITED, Wants.NOTHING)
    return Share(lent, bound, ask.budget, max(nanos.wants, units.wants))


def _part(
    *, drawn: int, least: int, ahead: int, budget: int, others: int, have: int, alone: bool,
    wanted: bool,
) -> _Part:  # fmt: skip
    if budget == NO_LIMIT:
        return _Part(drawn, NO_LIMIT, Wants.NOTHING)
    most = budget - others
    if most < drawn:
        return _Part(drawn, max(most, 0), Wants.ALL)
    if alone:
        return _Part(most, most, Wants.NOTHING)
    free = most - drawn
    part = 0 if free < least else max(least, min(ahead, free // 2))
    lent = drawn + (part if wanted else min(max(part, have - drawn), free))
    wants = least > 0 and lent - drawn < max(least, ahead // 2)
    return _Part(lent, lent, Wants.MORE if wants else Wants.NOTHING)


# -- what a node says of itself --------------------------------------------------------------------


def overspent(state: State, accounts: Iterable[int]) -> dict[Pot, Amount]:
    """What some accounts have spent beyond their budgets, by pot; nothing for most."""
    found: dict[Pot, Amount] = {}
    for number in accounts:
        account = state.accounts[number]
        nanos, units = account.nanos[Balance.OVER], account.units[Balance.OVER]
        if nanos or units:
            for pot in pots_of(state, account.line_item, account.flight, account.day):
                before = found.get(pot, NOTHING)
                found[pot] = Amount(before.nanos + nanos, before.units + units)
    return found


def pots_of(state: State, line_item: int, flight: int, day: int) -> list[Pot]:
    """The pots that a line item draws on, those that have a budget."""
    keys = scope_keys(state.lines[line_item], flight, day)
    return [pot for pot in keys if budget_of(state, pot) != UNLIMITED]


def budget_of(state: State, pot: Pot) -> Amount:
    """The whole budget of a pot, as the node's own catalogue says."""
    limit = state.limits.get(pot[:2])
    return UNLIMITED if limit is None else Amount(limit.nanos, limit.units)


def ask_for(
    state: State, pot: Pot, over: Mapping[Pot, Amount], least: Amount = NOTHING,
    ahead: Amount = NOTHING,
) -> Ask:  # fmt: skip
    """What a node says of a pot; over: see `overspent`."""
    drawn, beyond = state.drawn.get(pot), over.get(pot, NOTHING)
    nanos, units = (drawn.nanos, drawn.units) if drawn is not None else NOTHING
    total = Amount(nanos + beyond.nanos, units + beyond.units)
    return Ask(pot, total, least, ahead, budget_of(state, pot))
