"""Keys of a person."""

from rtb.base.records import IdKind, Opportunity
from rtb.profiles import identity


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


def test_order_is_the_order_of_trust() -> None:
    """Our own id first, then the exchange's, then the device, then extended ids."""
    asked = opportunity(
        (IdKind.EID, b"X9", b"Id.Example"),
        (IdKind.IFA, b"AAAA-1", b""),
        (IdKind.USER, b"u7", b""),
        (IdKind.BUYERUID, b"p1", b""),
    )
    assert [b"b:p1", b"u:ex:u7", b"i:aaaa-1", b"e:id.example:X9"] == identity.keys_of(asked, b"ex")


def test_ids_that_name_nobody() -> None:
    """Empty ids, all-zero device ids, sources with a colon and broken escapes make no key."""
    asked = opportunity(
        (IdKind.BUYERUID, b"", b""),
        (IdKind.IFA, b"00000000-0000-0000-0000-000000000000", b""),
        (IdKind.EID, b"1", b"a:b"),
        (IdKind.USER, b"\\q", b""),
        (IdKind.USER, b"\\ud800", b""),
    )
    assert [] == identity.keys_of(asked, b"ex")


def test_escapes_are_resolved() -> None:
    """The same id spelled with escapes is the same person."""
    asked = opportunity((IdKind.USER, b"a\\u0062\\/c", b""))
    assert [identity.user_key(b"ex", b"ab/c")] == identity.keys_of(asked, b"ex")


def test_keys_are_bounded() -> None:
    """Stores take 511 bytes: a longer id becomes a digest, distinct per id, and few are tried."""
    first, second = (identity.buyer_key(b"x" * 500 + tail) for tail in (b"1", b"2"))
    assert len(first) < identity.KEY_BYTES_MAX
    assert first[:2] == b"b#"
    assert first != second
    many = opportunity(*((IdKind.EID, b"%d" % n, b"s") for n in range(16)))
    assert identity.KEYS_MAX == len(identity.keys_of(many, b"ex"))
