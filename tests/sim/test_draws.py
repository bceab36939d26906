"""Weighted draws: shares are kept, seeds repeat."""

from random import Random

import pytest

from rtb.sim.draws import Weighted, unit, zipf


def test_shares_add_up() -> None:
    """Weights of any sum become shares of one."""
    table = Weighted("abc", (2, 1, 1))

    assert [0.5, 0.25, 0.25] == table.shares
    assert 0.75 == table.share(lambda value: value != "b")


def test_pick_follows_the_shares() -> None:
    """Values come as often as they weigh."""
    random, table = Random(1), Weighted("ab", (3, 1))
    drawn = [table.pick(random) for _ in range(4000)]

    assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.03)


def test_several_are_different() -> None:
    """A draw of several never repeats, and ends when there are no more."""
    table = Weighted("abcd", (8, 4, 2, 0))

    assert {"a", "b", "c"} == set(table.several(Random(2), 9))


def test_shuffled_has_all() -> None:
    """A shuffle keeps every value and prefers the heavy ones."""
    random, table = Random(3), Weighted("ab", (9, 1))
    firsts = [table.shuffled(random)[0] for _ in range(500)]

    assert ["a", "b"] == sorted(table.shuffled(random))
    assert firsts.count("a") > 400


def test_wrong_tables_are_refused() -> None:
    """Weights that are missing or nothing are an error at once."""
    with pytest.raises(ValueError, match="2 values, 1 weights"):
        Weighted("ab", (1,))
    with pytest.raises(ValueError, match="weights of 0"):
        Weighted("ab", (0, 0))


def test_zipf_falls() -> None:
    """Weights of ranks fall and stay above nothing."""
    weights = zipf(5, 1.0)

    assert sorted(weights, reverse=True) == weights
    assert 1.0 == weights[0]


def test_unit_belongs_to_its_number() -> None:
    """The same seed and number give the same fraction, others another."""
    assert unit(1, 2) == unit(1, 2)
    assert 100 == len({unit(1, number) for number in range(100)})
    assert all(0.0 <= unit(7, number) < 1.0 for number in range(100))
