"""Reading values: coercions, quirks, raw strings, and what no byte sequence may do."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import WireError
from rtb.base.records import Quirk
from rtb.openrtb.reading import (
    IMPOSSIBLE,
    INT_MAX,
    INT_MIN,
    Number,
    Reader,
    ascii_lower,
    escape,
    is_id,
    parse,
    plain,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "value", "quirks"),
    [
        ("7", 7, Quirk(0)),
        ("7.0", 7, Quirk.FLOAT_AS_INT),
        ("933.333", 933, Quirk.FLOAT_AS_INT),
        ("-1.9", -1, Quirk.FLOAT_AS_INT),
        ("1e2", 100, Quirk.FLOAT_AS_INT),
        ("true", 1, Quirk.BOOL_AS_INT),
        ("false", 0, Quirk.BOOL_AS_INT),
        ('"728"', 728, Quirk.NUMBER_AS_STRING),
        ('"72.8"', 72, Quirk.NUMBER_AS_STRING | Quirk.FLOAT_AS_INT),
        ("null", 5, Quirk(0)),
        ('""', 5, Quirk(0)),
        ('"abc"', 5, Quirk.WRONG_TYPE_IGNORED),
        ('" 7"', 5, Quirk.WRONG_TYPE_IGNORED),
        ('"٣"', 5, Quirk.WRONG_TYPE_IGNORED),
        ("[]", 5, Quirk.WRONG_TYPE_IGNORED),
        ("{}", 5, Quirk.WRONG_TYPE_IGNORED),
        ("1e400", INT_MAX, Quirk.FLOAT_AS_INT),
        ("-1e400", INT_MIN, Quirk.FLOAT_AS_INT),
        ("1e-400", 0, Quirk.FLOAT_AS_INT),
        ("0e999999999999", 0, Quirk.FLOAT_AS_INT),
        ("1" * 300, INT_MAX, Quirk(0)),
        ("-0", 0, Quirk(0)),
    ],
)
def test_integer(text: str, value: int, quirks: Quirk):
    """Integers come in many clothes; each is accepted once and counted."""
    reader = Reader()
    owner = parse(b'{"x":%s}' % text.encode())
    assert value == reader.integer(owner, "x", 5)
    assert quirks == reader.quirks


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.25", 250_000),
        ("1", 1_000_000),
        ("0.0000005", 1),  # up
        ("0.0000015", 2),
        ("0.00000150000000000000000000000001", 2),
        ("0.0000025000000000000000000000000000000001", 3),
        ("0.1", 100_000),
        ("1.1", 1_100_000),
        ("5.0000001", 5_000_001),
        ("100000", 100_000_000_000),
        ("100000.000001", IMPOSSIBLE),
        ("-0.0", 0),
        ("-1.5", IMPOSSIBLE),
        ("-1e-9", IMPOSSIBLE),
        ("1e400", IMPOSSIBLE),
        ("1e99999999999999999999", IMPOSSIBLE),
        ("1e-99999999999999999999", 1),
        ('"1.5"', 1_500_000),
        ('"NaN"', IMPOSSIBLE),
        ('"1,5"', IMPOSSIBLE),
        ("true", 1_000_000),
        ("[]", IMPOSSIBLE),
        ("{}", IMPOSSIBLE),
        ("null", 0),
        ('""', 0),
    ],
)
def test_micros(text: str, micros: int):
    """An amount that stands there but cannot be understood is impossible, never zero."""
    assert micros == Reader().micros(parse(b'{"x":%s}' % text.encode()), "x")


@pytest.mark.parametrize(
    ("text", "items", "quirks"),
    [
        ('["a","b"]', ["a", "b"], Quirk(0)),
        ('["a",null,""]', ["a"], Quirk(0)),
        ('"a"', ["a"], Quirk.SCALAR_AS_LIST),
        ("7", ["7"], Quirk.SCALAR_AS_LIST | Quirk.STRING_AS_NUMBER),
        ("[7, 1.50]", ["7", "1.50"], Quirk.STRING_AS_NUMBER),
        ('["a",{},[],true]', ["a"], Quirk.WRONG_TYPE_IGNORED),
        ("null", [], Quirk(0)),
        ('""', [], Quirk(0)),
    ],
)
def test_texts(text: str, items: list[str], quirks: Quirk):
    """Lists of texts take a scalar for a list of one, and numbers by their own text."""
    reader = Reader()
    assert items == reader.texts(parse(b'{"x":%s}' % text.encode()), "x")
    assert quirks == reader.quirks


def test_raw_strings_keep_their_escapes():
    """An id is echoed as it came, though it reads as something shorter."""
    tree = parse(rb'{"id":"a\/b\"c\\\u0041\n"}')
    assert rb"a\/b\"c\\\u0041\n" == tree["id"].encode()
    assert 'a/b"c\\A\n' == plain(tree["id"])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r'{"\u0069d":"\u0078"}', {"id": r"\u0078"}),
        (r'{"\u0069d" : {"a\/b":["\"x\":","\\"]}}', {"id": {"a/b": [r"\"x\":", r"\\"]}}),
        (r'{"a\"":1,"a\\":"\\","\\":":"}', {'a"': 1, "a\\": r"\\", "\\": ":"}),
        (r'{"id":1,"i\u0064":2,"x":"\t"}', {"id": 2, "x": r"\t"}),
        (r'{"i\u0064":1,"id":2,"i\u0064":3,"id":4}', {"id": 4}),
        (r'["\u0069d", "x\n" ]', [r"\u0069d", r"x\n"]),
        (r'"\u0069d"', r"\u0069d"),
    ],
)
def test_keys_are_plain(body: str, expected: object):
    """A key that is spelled with escapes is that key; values keep theirs."""
    assert expected == parse(body.encode())


def test_duplicate_keys_last_wins():
    """Of two members with one name the last counts."""
    assert {"a": 2} == parse(b'{"a":1,"a":2}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        rb'{"a":"\ud800"}',
        rb'{"a":"\x"}',
        b'{"a":"\x00"}',
        b"{} {}",
        b"NaN",
        b"[1.]",
        b"[01]",
        b"[1,]",
        b"[" * 65 + b"]" * 65,
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"[" + b"9" * 5000 + b"]",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_not_json(body: bytes):
    """Bytes that are not one well-formed UTF-8 JSON value of bounded depth are refused."""
    with pytest.raises(WireError):
        parse(body)


def test_brackets_inside_strings_do_not_nest():
    """Depth counts structure, not text; 64 levels are allowed."""
    assert {"a": "[" * 100} == parse(b'{"a":"%s"}' % (b"[" * 100))
    assert {"a": r"\"" + "[" * 100} == parse(rb'{"a":"\"%s"}' % (b"[" * 100))
    parse(b"[" * 64 + b"]" * 64)


@given(JSON)
def test_parse_agrees_with_the_standard_library(value: object):
    """Any JSON value reads as what it is, strings after `plain`, decimals by their text."""

    def undone(tree: object) -> object:
        if isinstance(tree, Number):
            return float(tree)
        if isinstance(tree, str):
            return plain(tree)
        if isinstance(tree, list):
            return [undone(item) for item in tree]
        if isinstance(tree, dict):
            return {key: undone(item) for key, item in tree.items()}
        return tree

    text = json.dumps(value)
    assert json.loads(text) == undone(parse(text.encode()))


@given(st.binary())
def test_any_bytes_parse_or_are_refused(body: bytes):
    """No byte sequence raises anything but WireError."""
    with contextlib.suppress(WireError):
        parse(body)


@given(st.text())
def test_escape_is_undone_by_plain(text: str):
    """What we escape reads as it was."""
    raw = escape(text)
    assert text == plain(raw)
    assert text == json.loads(f'"{raw}"')


@pytest.mark.parametrize(
    ("raw", "usable"),
    [
        ("1", True),
        ("ä", True),
        (r"a\/b", True),
        ("", False),
        (r"a\nb", False),
        (r"a\u0000b", False),
        (r"a\u007fb", False),
        ("\x7f", False),
        ("x" * 512, True),
        ("x" * 513, False),
        ("ä" * 257, False),
    ],
)
def test_is_id(raw: str, usable: bool):
    """Ids with control characters, or of more than 512 bytes, are never echoed."""
    assert usable is is_id(raw)


@given(st.text())
def test_ascii_lower_touches_only_ascii(text: str):
    """Lowering changes no length and no letter outside A-Z."""
    lowered = ascii_lower(text)
    assert [c.lower() if c.isascii() else c for c in text] == list(lowered)


@pytest.mark.parametrize(
    ("value", "mask"),
    [
        ([1, 2], 0b110),
        (["1", 2.0], 0b110),
        (3, 0b1000),
        ([0, -1, 500, "x", {}], 1),
        ([], 0),
        (None, 0),
        ([31], 1 << 31),
    ],
)
def test_mask(value: object, mask: int):
    """Enum lists become bits; a list of only unknown numbers is marked where asked."""
    owner = parse(json.dumps({"x": value}).encode())
    assert mask == Reader().mask(owner, "x", 32, unknown=1)


@pytest.mark.parametrize(
    ("value", "code"),
    [("USD", 0x555344), ("usd", 0x555344), (None, 0x555344), ("", 0x555344)]
    + [(bad, 0) for bad in ("US", "EURO", "E R", "€UR", 840, {}, True)],
)
def test_currency(value: object, code: int):
    """Three letters, or USD when nothing is said; never a guess."""
    assert code == Reader().currency(parse(json.dumps({"x": value}).encode()), "x")
