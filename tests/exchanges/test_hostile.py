"""No byte sequence raises anything but InputError: bombs, truncations, mutations, any JSON."""

import contextlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.base.errors import InputError
from rtb.base.money import CPM_MICROS_MAX
from rtb.base.records import ImpFlag, Opportunity
from rtb.exchanges.settings import Exchange

BANNER = {"id": "1", "banner": {"w": 300, "h": 250}}
KEYS = st.sampled_from(
    """
    id imp banner video audio native request ver assets format w h wratio hratio bidfloor
    bidfloorcur pmp deals wseat wadomain at durfloors mindur maxdur mincpmpersec mimes protocols
    rqddurs minduration maxduration poddur site app dooh device user geo country region lat lon
    regs ext gdpr gpp us_privacy coppa dnt lmt tmax cur bcat badv wlang data segment name keywords
    content cat cattax eids uids source ifa os osv ua sua browsers brand qty multiplier dt metric
    type value eventtrackers event methods title img len required
    """.split()  # noqa: SIM905
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "0", "1", "-1", "1.5", "USD", "300", "1e400", "native", '{"assets":[]}'])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


def check(decode, exchange: Exchange, body: bytes) -> None:
    """Decodes or refuses, and what is decoded keeps the promises of the records."""
    opportunity = Opportunity()
    try:
        decode(body, exchange, opportunity)
    except InputError:
        return
    facts = opportunity.facts[0]
    head = facts["head"]
    for name in ("imps", "deals", "formats", "durfloors", "assets", "ids", "tokens"):
        assert 0 <= head[f"{name}_count"] <= len(facts[name])
    for row in facts["imps"][: head["imps_count"]]:
        assert 0 <= row["floor_micros"] <= CPM_MICROS_MAX
        assert bool(row["media"]) is not bool(row["flags"] & ImpFlag.UNUSABLE)
        assert row["formats_start"] + row["formats_count"] <= head["formats_count"]
        assert row["deals_start"] + row["deals_count"] <= head["deals_count"]
        assert row["id_off"] + row["id_len"] <= len(opportunity.text)
    for row in facts["tokens"][: head["tokens_count"]]:
        assert 0 < row["hash"]
        assert row["off"] + row["len"] <= len(opportunity.text)


@settings(max_examples=300)
@given(TREES)
def test_any_json(decode, generic: Exchange, tree: object):
    """Any JSON value is decoded or refused."""
    check(decode, generic, json.dumps(tree).encode())


@settings(max_examples=400)
@given(st.dictionaries(KEYS, TREES, max_size=6), st.dictionaries(KEYS, TREES, max_size=8))
def test_any_members(decode, generic: Exchange, members: dict, imp_members: dict):
    """Wrong types anywhere in an otherwise plain request are decoded or refused."""
    body = {"id": "r", **members, "imp": [{"id": "1", **imp_members}, BANNER]}
    check(decode, generic, json.dumps(body).encode())


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_any_bytes(decode, generic: Exchange, body: bytes):
    """Any bytes are refused or, by accident, decoded."""
    check(decode, generic, body)


def test_corpus_mutations(decode, generic: Exchange, corpus: list[bytes]):
    """Flipped, cut, doubled and swapped bytes of real requests are decoded or refused."""
    chance = random.Random(7)
    for line in corpus[::4]:
        text = bytearray(line)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            kind = chance.randrange(4)
            if kind == 0:
                text[at] = chance.randrange(256)
            elif kind == 1:
                del text[at : at + chance.randrange(20)]
            elif kind == 2:
                text[at:at] = chance.choice(
                    [b'"', b"{", b"[", b",", b"null", b"-1", b"1e999", b"\\"]
                )
            else:
                text[at:at] = text[at : at + chance.randrange(40)]
            if not text:
                break
        check(decode, generic, bytes(text))


def test_value_mutations(decode, generic: Exchange, corpus: list[bytes]):
    """Every value of a real request, replaced by another type, is decoded or refused."""
    chance = random.Random(11)
    odd = [None, True, -1, 10**30, 1.5, "", "x", "\u0000", [], {}, [[]], [None], {"id": {}}]

    def mutated(tree: object) -> object:
        if chance.random() < 0.1:
            return chance.choice(odd)
        if isinstance(tree, dict):
            return {key: mutated(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [mutated(value) for value in tree]
        return tree

    for line in corpus[::4]:
        tree = json.loads(line)
        check(decode, generic, json.dumps({key: mutated(tree[key]) for key in tree}).encode())


def test_truncations(decode, generic: Exchange, corpus: list[bytes]):
    """A request cut at any byte is refused: only the whole of it is JSON."""
    for line in (corpus[0], corpus[500]):
        opportunity = Opportunity()
        for end in range(len(line.rstrip())):
            with pytest.raises(InputError):
                decode(line[:end], generic, opportunity)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 131_072,
        b'{"id":' * 20_000,
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"ext":' + b"[" * 66 + b"]" * 66 + b"}",
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"ext":' + b'{"a":' * 60 + b"1" + b"}" * 61,
        b'{"id":"r","imp":[' + b"{}," * 40_000 + b"{}]}",
        b'{"id":"r","imp":[' + b"0," * 60_000 + b"0]}",
        b'{"id":"r","imp":[{"id":"1","banner":{"format":[' + b'{"w":1,"h":1},' * 9_000 + b"{}]}}]}",
        b'{"id":"r","imp":[{"id":"1","pmp":{"deals":['
        + b'{"id":"d"},' * 9_000
        + b'{"id":"d"}]}}]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"badv":[' + b'"a.com",' * 12_000 + b'"b.com"]}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"site":{"keywords":"' + b"a," * 60_000 + b'"}}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"device":{"ua":"'
        + b"Mozilla " * 12_000
        + b'"}}',
        b'{"id":"r","imp":[{"id":"1","banner":{}}],"site":{"domain":"' + b"a." * 50_000 + b'b"}}',
        b'{"id":"r","imp":[{"id":"1","bidfloor":1.' + b"1" * 100_000 + b',"banner":{}}]}',
        b'{"id":"r","imp":[{"id":"1","bidfloor":1' + b"0" * 4_000 + b',"banner":{}}]}',
        b'{"id":"r","imp":[{"id":"1","bidfloor":1e' + b"9" * 100_000 + b',"banner":{}}]}',
        b'{"id":' + b"1" * 4_000 + b',"imp":[{"id":"1","banner":{}}]}',
        b'{"id":"r","imp":[{"id":"1","native":{"request":"' + b"[" * 100_000 + b'"}}]}',
        b'{"id":"r","imp":[{"id":"1","native":{"request":"' + b"\\\\" * 50_000 + b'"}}]}',
        b"[" * 60 + b"{" * 60 + b'"' + b'\\"' * 60_000,
        b"{" * 64 + b'"' * 120_000,
        b"{}" * 64 + b'"' + b"a" * 120_000,
        b'{"' + b'a":1,"' * 20_000 + b'b":1}',
    ],
    ids=lambda body: f"{body[:60].decode()}...{len(body)}",
)
def test_bombs(decode, generic: Exchange, body: bytes):
    """Deep, wide and long inputs within the body limit are decoded or refused."""
    check(decode, generic, body)


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e-400", "-0", "-0.0", "NaN", "9" * 30])
@pytest.mark.parametrize("key", ["bidfloor", "exp", "instl", "dt", "secure"])
def test_number_abuse(decode, generic: Exchange, key: str, value: str):
    """Numbers without a float or an integer of their own never become a price."""
    text = f'{{"id":"r","tmax":{value},"imp":[{{"id":"1","banner":{{}},"{key}":{value}}}]}}'
    check(decode, generic, text.encode())


@pytest.mark.parametrize("text", ["\\u0000", "\\r\\n", "\u202e", "\\ud83d\\ude00", "x" * 100_000])
@pytest.mark.parametrize("place", ['"id":"%s"', '"user":{"id":"%s"}', '"site":{"page":"%s"}'])
def test_text_abuse(decode, generic: Exchange, text: str, place: str):
    """Controls, right-to-left marks and endless texts are decoded or refused."""
    body = '{"id":"r","imp":[{"id":"1","banner":{}}],%s}' % (place % text)
    with contextlib.suppress(InputError):
        check(decode, generic, body.encode())
