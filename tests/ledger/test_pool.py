"""The pool of a budget over several nodes: what is lent is never more than there is."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.ledger.accounts import NO_LIMIT
from rtb.ledger.commands import Scope
from rtb.ledger.pool import NOTHING, Amount, Ask, Share, Wants, answer

NONE, MORE, ALL = Wants
POT = (Scope.CAMPAIGN_DAY, 7, 739_000)


def asked(drawn: int, least: int = 0, ahead: int = 0, budget: int = 100) -> Ask:
    """An ask for money; impressions are unlimited."""
    whole = Amount(budget, NO_LIMIT)
    return Ask(POT, Amount(drawn, 0), Amount(least, 0), Amount(ahead, 0), whole)


def has(lent: int, *, wants: Wants = NONE, budget: int = 100) -> Share:
    """What another node has."""
    amount = Amount(lent, 0)
    return Share(amount, amount, Amount(budget, NO_LIMIT), wants)


@pytest.mark.parametrize(
    ("ask", "mine", "others", "alone", "expected"),
    [
        (asked(0, 1, 1), None, [], True, (100, 100, NONE)),  # alone: everything
        (asked(0, 5, 30), None, [], False, (30, 30, NONE)),  # what it needs
        (asked(10, 5, 80), None, [has(10)], False, (50, 50, NONE)),  # half of what is free
        (asked(10, 5, 8), has(90), [has(10)], False, (90, 90, NONE)),  # keeps, for nobody wants
        (asked(10, 5, 8), has(90), [has(10, wants=MORE)], False, (18, 18, NONE)),
        (asked(10), has(90), [has(10, wants=MORE)], False, (10, 10, NONE)),
        (asked(10, 5, 8), None, [has(88)], False, (10, 10, MORE)),  # a splinter serves nobody
        (asked(10, 5, 8), has(18), [has(85)], False, (15, 15, NONE)),  # lowered meanwhile
        (asked(40), has(40), [has(70)], False, (40, 30, ALL)),  # overspent: no more, and told
        (asked(120), has(40), [], True, (120, 100, ALL)),
        (asked(0, 5, 50), None, [has(0, budget=20)], False, (10, 10, MORE)),  # the lowest holds
    ],
)
def test_shares(
    ask: Ask, mine: Share | None, others: list[Share], alone: bool, expected: tuple[int, int, Wants]
) -> None:
    """What is answered, by the rules."""
    found = answer(ask, mine, others, alone=alone)

    assert expected == (found.lent.nanos, found.bound.nanos, found.wants)
    assert found.bound.units == NO_LIMIT


@dataclass
class World:
    """Nodes, what they believe, and what is written down of them."""

    budget: int
    nodes: int
    rows: dict[int, Share] = field(default_factory=dict)
    bound: dict[int, int] = field(default_factory=dict)
    drawn: dict[int, int] = field(default_factory=dict)

    def ask(self, node: int, least: int, ahead: int, dies: int) -> None:
        """dies: 1 before the share is written down, 2 after it and before the node knows."""
        others = [share for other, share in self.rows.items() if other != node]
        said = Ask(POT, self._both(self.drawn.get(node, 0)), self._both(least), self._both(ahead),
                   Amount(self.budget, self.budget))  # fmt: skip
        found = answer(said, self.rows.get(node), others, alone=self.nodes == 1)
        before = self.bound.get(node, 0)
        if dies != 1:
            self.rows[node] = found
        # A node that is told less believes it before it is written down, more only after.
        self.bound[node] = min(before, found.bound.nanos) if dies else found.bound.nanos
        if dies == 2:  # its next start reads what is written down
            self.bound[node] = found.bound.nanos

    def spend(self, node: int, amount: int) -> None:
        """As far as the share goes."""
        room = self.bound.get(node, 0) - self.drawn.get(node, 0)
        self.drawn[node] = self.drawn.get(node, 0) + max(min(amount, room), 0)

    def give_back(self, node: int, amount: int) -> None:
        """A loss, or the rest of a lease."""
        self.drawn[node] = max(self.drawn.get(node, 0) - amount, 0)

    @staticmethod
    def _both(amount: int) -> Amount:
        return Amount(amount, amount)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "spend", "give"]), st.integers(0, 3), st.integers(0, 40),
        st.integers(0, 60), st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=60,
)  # fmt: skip


@given(st.integers(0, 100), STEPS)
def test_never_more_than_the_budget(
    budget: int, steps: list[tuple[str, int, int, int, int]]
) -> None:
    """Nodes ask, spend, return and die in any order: shares are at most the budget, nobody draws
    beyond his, and when all have come to rest one node can have all that was not spent."""
    world = World(budget, nodes=4)
    for what, node, least, ahead, dies in steps:
        if what == "ask":
            world.ask(node, least, ahead, dies)
        elif what == "spend":
            world.spend(node, ahead)
        else:
            world.give_back(node, least)
        assert sum(share.lent.nanos for share in world.rows.values()) <= budget
        assert all(world.drawn.get(one, 0) <= share.lent.nanos for one, share in world.rows.items())
        assert all(world.bound[one] <= share.lent.nanos for one, share in world.rows.items())

    left = budget - sum(world.drawn.values())
    for _ in range(2):  # the others learn that node 0 wants all that is left, then it asks again
        world.ask(0, left, left, 0)
        for node in range(1, 4):
            world.ask(node, 0, 0, 0)
    world.ask(0, left, left, 0)

    assert world.drawn.get(0, 0) + left == world.bound[0]


@given(
    st.integers(0, 200), st.integers(0, 100), st.integers(0, 50), st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(Wants)), max_size=4),
)  # fmt: skip
def test_overspend_counts_for_all(
    drawn: int, budget: int, least: int, ahead: int, others: list[tuple[int, Wants]]
) -> None:
    """A share is never below what was drawn; beyond the budget nothing can be bought on it."""
    found = answer(
        asked(drawn, least, ahead, budget), None,
        [has(lent, wants=wants, budget=budget) for lent, wants in others], alone=not others,
    )  # fmt: skip
    rest = budget - sum(lent for lent, _ in others)

    assert found.lent.nanos >= drawn
    assert found.bound.nanos <= max(rest, 0)
    assert found.lent.nanos <= max(rest, drawn)
    assert NOTHING.nanos <= found.bound.nanos
