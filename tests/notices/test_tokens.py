"""Tokens: what is signed is good for one kind, under secrets that rotate, and for nothing else."""

import inspect
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ConfigError, InvariantError
from rtb.base.events import Kind
from rtb.base.links import token_of
from rtb.notices import tokens
from rtb.notices.notice import Claims, Refusal, Refused
from rtb.notices.reading import read
from rtb.notices.tokens import (
    Keyring,
    Signer,
    conversion_token,
    opened,
    slot_of,
    target_hash,
)
from rtb.notices.urls import PATHS
from tests.notices import bids
from tests.notices.test_notice import ANY_CLAIMS

SLOTS = [slot_of(kind, event) for kind, event in PATHS]


@given(ANY_CLAIMS)
def test_what_is_signed_is_opened(claims: Claims) -> None:
    """Any claims come back from the token of each kind."""
    signed = claims._replace(version=1, key=2)
    sheet = bids.sheet_of(signed)

    assert [signed.pack()] * len(SLOTS) == [
        opened(token_of(sheet, slot), slot, bids.KEYS) for slot in SLOTS
    ]


def test_slots_are_distinct() -> None:
    """Each URL has a tag of its own; orders, which are conversions, and bids have none."""
    sheet = bids.sheet_of(bids.claims())

    assert len(PATHS) == len(set(SLOTS)) == len({token_of(sheet, slot) for slot in SLOTS})
    assert set(PATHS) == {*bids.ALL, (Kind.CONVERSION, 0)}
    with pytest.raises(KeyError):
        slot_of(Kind.ORDER)


def test_the_token_of_conversions() -> None:
    """A click's claims are enough to make it; it is the one that the bid was signed with."""
    signed = bids.claims().pack()
    old = bids.claims(key=1).pack()
    slot = slot_of(Kind.CONVERSION)

    assert token_of(bids.sheet_of(bids.claims()), slot) == conversion_token(signed, bids.KEYS)
    assert old == opened(conversion_token(old, bids.KEYS), slot, bids.KEYS)
    with pytest.raises(InvariantError, match="no secret has the id 9"):
        conversion_token(bids.claims(key=9).pack(), bids.KEYS)


def test_tokens_are_plain_url_text() -> None:
    """107 characters that nobody escapes."""
    token = token_of(bids.sheet_of(bids.claims()), 0)

    assert 107 == len(token)
    assert set(token.decode()) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


def test_events_must_be_asked_for() -> None:
    """A sheet without the tags of VAST events has no URL for them, not even a broken one."""
    sheet = Signer(bids.KEYS).sign(bids.claims().pack())

    assert 107 == len(token_of(sheet, 7))
    with pytest.raises(InvariantError, match="slot 8"):
        token_of(sheet, 8)


@pytest.mark.parametrize("good", SLOTS)
def test_one_kind_is_no_other(good: int) -> None:
    """The token of a kind is refused by every other, and said to be another's."""
    token = token_of(bids.sheet_of(bids.claims()), good)
    refusals = {opened(token, slot, bids.KEYS) for slot in SLOTS if slot != good}

    assert {Refusal.WRONG_KIND} == refusals


def test_tokens_have_one_spelling() -> None:
    """The two bits that base64 leaves over may not be used, nor padding or the other alphabet."""
    made = bids.claims(person=0xFBFFFBFFFBFFFBFF)
    token = token_of(bids.sheet_of(made), 0)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(chr(token[-1]))
    others = [token[:-1] + alphabet[last ^ bits].encode() for bits in (1, 2, 3)]
    others += [token + b"=", token.replace(b"-", b"+").replace(b"_", b"/"), token.swapcase()]

    assert b"_" in token
    assert made.pack() == opened(token, 0, bids.KEYS)
    assert {Refusal.MALFORMED} == {opened(other, 0, bids.KEYS) for other in others}


# -- rotation --------------------------------------------------------------------------------------


def test_secrets_rotate() -> None:
    """Tokens of the previous secret are good until it leaves the ring."""
    old = Keyring(1, {1: b"the first secret"})
    both = Keyring(2, {1: b"the first secret", 2: b"the second secret"})
    new = Keyring(2, {2: b"the second secret"})
    claims = bids.claims(key=1).pack()
    token = token_of(Signer(old).sign(claims), 0)

    assert claims == opened(token, 0, old)
    assert claims == opened(token, 0, both)
    assert Refusal.FORGED == opened(token, 0, new)


def test_only_the_current_secret_signs() -> None:
    """Claims that name another secret, or have another size, are a bug of ours."""
    for wrong in (bids.claims(key=1).pack(), bids.claims().pack() + b"x", b""):
        with pytest.raises(InvariantError):
            Signer(bids.KEYS).sign(wrong)


@pytest.mark.parametrize(
    ("current", "secrets", "message"),
    [
        (1, {}, "the id 1"),
        (1, {2: b"x" * 16}, "the id 1"),
        (1, {1: b"x" * 15}, r"16 to 64 bytes - at `\$.notices.secrets.1`"),
        (1, {1: b"x" * 65}, r"16 to 64 bytes - at `\$.notices.secrets.1`"),
        (256, {256: b"x" * 16}, "0 to 255"),
    ],
)
def test_keyrings_that_are_refused(current: int, secrets: dict[int, bytes], message: str) -> None:
    """A short secret, or a current one that is not there, stops the start."""
    with pytest.raises(ConfigError, match=message):
        Keyring(current, secrets)


def test_secrets_by_environment() -> None:
    """Secrets are named by variables; a missing one is named, never shown."""
    ring = tokens.keyring(7, {7: "NEW", 6: "OLD"}, {"NEW": "n" * 16, "OLD": "o" * 16})

    assert 7 == ring.current
    assert ring.prepared(6) is not None
    assert ring.prepared(5) is None
    with pytest.raises(ConfigError, match=r"variable OLD - at `\$.notices.secrets.6`"):
        tokens.keyring(7, {7: "NEW", 6: "OLD"}, {"NEW": "n" * 16})


# -- click targets ---------------------------------------------------------------------------------


def test_targets_are_keyed() -> None:
    """The claim of a landing page differs by page and by secret."""
    found = {
        target_hash(url, key, bids.KEYS) for url in ("https://a.example", "b") for key in (1, 2)
    }

    assert 4 == len(found)
    assert 0 not in found
    with pytest.raises(InvariantError):
        target_hash("https://a.example", 9, bids.KEYS)


# -- forgeries -------------------------------------------------------------------------------------

FORGERIES = 100_000


def forged(chance: random.Random) -> Iterator[tuple[str, bytes, int]]:
    """Endless (what was tried, token, slot), none of them ours."""
    claims = bids.claims()
    sheet = bids.sheet_of(claims)
    strangers = Signer(Keyring(2, {2: b"a guess at this secret"}))
    text = tokens._text
    tags = {slot: tokens._bytes(token_of(sheet, slot))[72:] for slot in SLOTS}
    signed = claims.pack()
    while True:
        slot = chance.choice(SLOTS)
        tag = tags[slot]
        bit = chance.randrange(640)
        whole = int.from_bytes(signed + tag, "big") ^ 1 << bit
        flipped = whole.to_bytes(80, "big")
        yield "bit", text(flipped[:72]) + text(flipped[72:]), slot
        other = chance.choice([each for each in SLOTS if each != slot])
        yield "kind", text(signed) + text(tags[other]), slot
        kept = chance.randrange(8)
        yield "cut tag", text(signed) + text(tag[:kept]), slot
        yield "zeroed tag", text(signed) + text(tag[:kept] + bytes(8 - kept)), slot
        yield "random tag", text(signed) + text(chance.randbytes(8)), slot
        yield "no tag", text(signed), slot
        raised = claims._replace(price_micros=claims.price_micros + chance.randrange(1, 10**9))
        yield "price", text(raised.pack()) + text(tag), slot
        moved = claims._replace(exchange=chance.getrandbits(32))
        yield "exchange", text(moved.pack()) + text(tag), slot
        named = claims._replace(line_item=chance.getrandbits(64))
        yield "line item", text(named.pack()) + text(tag), slot
        yield "secret", token_of(strangers.sign(signed, events=True), slot), slot
        rekeyed = claims._replace(key=chance.choice([0, 1, 3, 255]))
        yield "key", text(rekeyed.pack()) + text(tag), slot
        cut = chance.randrange(107)
        yield "cut", token_of(sheet, slot)[:cut], slot


def test_no_forgery_is_accepted() -> None:
    """Of 100,000 altered tokens, sent to their own paths, none is read."""
    chance = random.Random(25)
    terms = bids.terms_of(bids.exchange())
    paths = {slot_of(*key): path.encode() for key, path in PATHS.items()}
    accepted = Counter[str]()
    reasons = Counter[Refusal]()
    for _, (tried, token, slot) in zip(range(FORGERIES), forged(chance), strict=False):
        found = read(b"/n/%s/%s?p=1" % (paths[slot], token), bids.NOW_MS, bids.KEYS, terms)
        if isinstance(found, Refused):
            reasons[found.reason] += 1
        else:
            accepted[tried] += 1

    assert Counter() == accepted
    assert {Refusal.FORGED, Refusal.WRONG_KIND, Refusal.MALFORMED} == set(reasons)


def test_tags_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a tag is right is asked of `hmac.compare_digest` and of nothing else."""
    assert "hmac.compare_digest(expected, tag)" in inspect.getsource(tokens._is_tag)
    assert "==" not in inspect.getsource(tokens._is_tag) + inspect.getsource(tokens._is_any_tag)

    monkeypatch.setattr("hmac.compare_digest", lambda *both: False)
    token = token_of(bids.sheet_of(bids.claims()), 0)

    assert Refusal.FORGED == opened(token, 0, bids.KEYS)


@given(st.binary(max_size=120))
def test_any_bytes_are_opened(data: bytes) -> None:
    """No bytes raise, and none that we did not sign are ours."""
    assert opened(data, 0, bids.KEYS) in (Refusal.MALFORMED, Refusal.FORGED)
