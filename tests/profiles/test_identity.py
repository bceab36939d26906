"""Keys of a person, by the readable function and its compiled twin."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb._ext import identity as compiled
from rtb.base.records import IdKind, Opportunity
from rtb.profiles import identity

KeysOf = Callable[[Opportunity, bytes], list[bytes]]
TWINS = pytest.mark.parametrize("keys_of", [identity.keys_of, compiled.keys_of])


def opportunity(*ids: tuple[IdKind, bytes, bytes]) -> Opportunity:
    """An opportunity that carries identifiers (kind, id, source) and nothing else."""
    result = Opportunity()
    facts = result.facts[0]
    for index, (kind, value, source) in enumerate(ids):
        row = facts["ids"][index]
        row["kind"] = kind
        row["off"], row["len"] = len(result.text), len(value)
        result.text += value
        row["source_off"], row["source_len"] = len(result.text), len(source)
        result.text += source
    facts["head"]["ids_count"] = len(ids)
    return result


@TWINS
def test_order_is_the_order_of_trust(keys_of: KeysOf) -> None:
    """Our own id first, then the exchange's, then the device, then extended ids."""
    asked = opportunity(
        (IdKind.EID, b"X9", b"Id.Example"),
        (IdKind.IFA, b"AAAA-1", b""),
        (IdKind.USER, b"u7", b""),
        (IdKind.BUYERUID, b"p1", b""),
    )
    assert keys_of(asked, b"ex") == [b"b:p1", b"u:ex:u7", b"i:aaaa-1", b"e:id.example:X9"]


@TWINS
def test_ids_that_name_nobody(keys_of: KeysOf) -> None:
    """Empty ids, all-zero device ids, sources with a colon and broken escapes make no key."""
    asked = opportunity(
        (IdKind.BUYERUID, b"", b""),
        (IdKind.IFA, b"00000000-0000-0000-0000-000000000000", b""),
        (IdKind.EID, b"1", b"a:b"),
        (IdKind.USER, b"\\q", b""),
        (IdKind.USER, b"\\ud800", b""),
    )
    assert keys_of(asked, b"ex") == []


@TWINS
def test_escapes_are_resolved(keys_of: KeysOf) -> None:
    """The same id spelled with escapes is the same person."""
    asked = opportunity((IdKind.USER, b"a\\u0062\\/c", b""))
    assert [identity.user_key(b"ex", b"ab/c")] == keys_of(asked, b"ex")


@TWINS
def test_keys_are_bounded(keys_of: KeysOf) -> None:
    """Stores take 511 bytes: a longer id becomes a digest, distinct per id; all are tried."""
    first, second = (identity.buyer_key(b"x" * 500 + tail) for tail in (b"1", b"2"))
    assert len(first) < identity.KEY_BYTES_MAX
    assert first[:2] == b"b#"
    assert first != second
    many = opportunity(*((IdKind.EID, b"%d" % n, b"s") for n in range(16)))
    assert 16 == len(keys_of(many, b"ex")) == identity.KEYS_MAX


IDS = st.lists(
    st.tuples(
        st.sampled_from(IdKind) | st.sampled_from([0, 5, 900]),
        st.binary(max_size=6)
        | st.sampled_from([b"", b"0-0", b"a\\/b", b"\\", b"x" * 300, b"Ab-1", b"caf\xc3\xa9"]),
        st.sampled_from([b"", b"Src.Example", b"a:b", b"\\u0061", b"s" * 300]),
    ),
    max_size=8,
)


@given(IDS)
def test_twins_agree(ids: list[tuple[IdKind, bytes, bytes]]) -> None:
    """Whatever the identifiers are, both functions make the same keys."""
    asked = opportunity(*ids)
    assert identity.keys_of(asked, b"ex") == compiled.keys_of(asked, b"ex")


@TWINS
def test_slices_outside_the_text(keys_of: KeysOf) -> None:
    """A slice beyond the text reads what is there, never memory that is not."""
    asked = opportunity((IdKind.BUYERUID, b"abc", b""))
    asked.facts[0]["ids"][0]["len"] = 2**31 - 1
    assert keys_of(asked, b"ex") == [b"b:abc"]
