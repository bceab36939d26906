"""Expressions over a few values, and requests that may meet them, for property tests."""

from collections.abc import Sequence

from hypothesis import strategies as st

from rtb.base.records import Dim
from rtb.catalogue.targeting import All, AnyOf, In, Node, Not
from rtb.catalogue.tokens import hash_of


def one_of(dim: Dim, *values: str) -> In:
    """Whoever says one of the values."""
    return In(dim, frozenset(hash_of(dim, value) for value in values))


def trees(
    dims: Sequence[Dim], *leaves: st.SearchStrategy[Node], parts_max: int, leaves_max: int
) -> st.SearchStrategy[Node]:
    """Expressions over values of `dims`, and leaves of other kinds."""
    values = st.sets(st.sampled_from("abcd"), min_size=1, max_size=3)
    named = st.builds(lambda dim, of: one_of(dim, *of), st.sampled_from(dims), values)
    return st.recursive(
        st.one_of(named, *leaves),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(All, st.lists(inner, max_size=parts_max).map(tuple)),
            st.builds(AnyOf, st.lists(inner, max_size=parts_max).map(tuple)),
        ),
        max_leaves=leaves_max,
    )


def tokens(dims: Sequence[Dim]) -> st.SearchStrategy[dict[Dim, set[int]]]:
    """What requests say, by hash; one value of them is in no expression."""
    return st.fixed_dictionaries(
        {
            dim: st.sets(st.sampled_from("abcde"), max_size=3).map(
                lambda values, dim=dim: {hash_of(dim, value) for value in values}
            )
            for dim in dims
        }
    )
