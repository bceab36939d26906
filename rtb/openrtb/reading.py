"""JSON from a stranger, read value by value: the coercions that every field of a request shares.

`parse` turns bytes into a tree whose strings are **raw**: the characters between the quotes, still
escaped. An id is echoed from there byte for byte; `plain` undoes the escapes where text is meant.
Keys are text: `re\\u0067s` is `regs`, or a no that stands below it would not be heard.

A `Reader` takes members out of objects and counts each deviation once a request, as a `Quirk` bit:

    wanted    accepted besides                                      quirk
    any       null, "" (and no member at all) are absent            none
    integer   float: truncated towards zero                         FLOAT_AS_INT
              bool: 0, 1                                            BOOL_AS_INT
              string that is a decimal, read as that number         NUMBER_AS_STRING
              outside int32: saturates                              none
    decimal   integer, bool, string as above                        as above
    text      number: its own text                                  STRING_AS_NUMBER
    list      a scalar or object: a list of that one                SCALAR_AS_LIST
              of codes, numbers: a text of some between commas      OTHER_NOTATION
    anything else                            absent                 WRONG_TYPE_IGNORED
    right type, impossible value             absent                 BAD_VALUE_IGNORED

Duplicate keys: the last one counts. -0 reads 0.
"""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final, TypeAlias

import msgspec

from rtb.base.errors import WireError
from rtb.base.money import CPM_MICROS_MAX, currency_code
from rtb.base.records import Quirk

DEPTH_MAX: Final = 64  # levels of lists and objects; real requests use 10 (fault A2)
INT_MAX: Final = 2**31 - 1
INT_MIN: Final = -(2**31)
ID_BYTES_MAX: Final = 512  # raw bytes of an id that we echo or look up
IMPOSSIBLE: Final = -1  # what `Reader.micros` says of an amount that no bid may be based on


class Number(str):
    """A JSON number with fraction or exponent, as its text: decimals are never read as floats."""

    __slots__ = ()


Json: TypeAlias = "bool | int | Number | str | list[Json] | dict[str, Json] | None"
Object: TypeAlias = dict[str, Json]

_DECODER = msgspec.json.Decoder(float_hook=Number)
_STRING_DECODER = msgspec.json.Decoder(str)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
# Of well-formed JSON: a string, with the colon that makes it a key. No possessive quantifiers, here
# and below: before Python 3.11.5 they do not match what they should. Nor is there a need: no two
# parts of these can match the same byte.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(?:[ \t\r\n]*:)?', re.DOTALL)
_LOWER = {upper: upper | 32 for upper in range(ord("A"), ord("Z") + 1)}
# With an optional closing quote: what does not end is looked at once, too.
_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_DECIMAL = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?)([0-9]+))?", re.ASCII)
# Exponents past this are all the same to us: zero, or far over every limit.
_EXPONENT_DIGITS_MAX = 5


def parse(body: bytes) -> Json:
    """Bytes of JSON as a tree with raw strings and plain keys.

    Raises: WireError for anything but one well-formed UTF-8 JSON value of at most DEPTH_MAX levels.
    """
    _check_depth(body)
    try:
        tree: Json = _DECODER.decode(body)
        if b"\\" in body:
            tree = _DECODER.decode(_STRING.sub(_raw_string, body))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error
    return tree


def plain(raw: str) -> str:
    """The text that a raw string means."""
    if "\\" not in raw:
        return raw
    return _STRING_DECODER.decode(f'"{raw}"')


def escape(text: str) -> str:
    """Text as raw JSON string contents, as short as JSON allows."""
    return msgspec.json.encode(text)[1:-1].decode()


def ascii_lower(text: str) -> str:
    """Text with A-Z lowered and nothing else, as token hashes do it."""
    return text.translate(_LOWER)


def is_id(raw: str) -> bool:
    """Whether a raw string may be echoed as an id: not empty, not long, no control characters."""
    if not raw or len(raw.encode()) > ID_BYTES_MAX:
        return False
    return not any(ord(char) < 0x20 or ord(char) == 0x7F for char in plain(raw))


def _raw_string(match: re.Match[bytes]) -> bytes:
    text = match[0]
    return text if text.endswith(b":") or b"\\" not in text else _ESCAPE.sub(_escape_twice, text)


def _escape_twice(match: re.Match[bytes]) -> bytes:
    # After this, decoding yields the escape itself. `\"` would end the string: it goes by number.
    return (
        rb"\\\u0022" if match[1] == b'"' else rb"\\" + (rb"\\" if match[1] == b"\\" else match[1])
    )


def _check_depth(body: bytes) -> None:
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for match in _NESTING.finditer(body):
        mark = match[0]
        if mark in (b"{", b"["):
            depth += 1
            if depth > DEPTH_MAX:
                raise WireError(f"nested over {DEPTH_MAX} levels", f"byte {match.start()}")
        elif mark in (b"}", b"]"):
            depth -= 1


class Reader:
    """Takes members out of JSON objects by the rules above; `quirks` collects the deviations."""

    __slots__ = ("quirks",)

    def __init__(self) -> None:
        self.quirks = 0

    def note(self, quirk: Quirk) -> None:
        """Counts a deviation that was accepted."""
        self.quirks |= quirk

    def has(self, owner: Object, key: str) -> bool:
        """Whether a member is there and says something."""
        return owner.get(key) not in (None, "")

    def home(self, owner: Object, key: str, *olds: tuple[Object, str]) -> tuple[Object, str]:
        """Where a member lives: its place of today if it says something there, else an old one.

        A list or object without anything in it says nothing here: it hides no old home.
        """
        if _is_hollow(owner.get(key)):
            for old in olds:
                if self.has(*old):
                    self.note(Quirk.OLD_HOME)
                    return old
        return owner, key

    def object(self, owner: Object, key: str) -> Object:
        """A member object; {} when absent."""
        value = owner.get(key)
        if isinstance(value, dict):
            return value
        if value not in (None, ""):
            self.note(Quirk.WRONG_TYPE_IGNORED)
        return {}

    def items(self, owner: Object, key: str) -> list[Json]:
        """A member list without its null and "" entries; [] when absent."""
        value = owner.get(key)
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            self.note(Quirk.SCALAR_AS_LIST)
            return [value]
        return [item for item in value if item is not None and item != ""]

    def objects(self, owner: Object, key: str) -> list[Object]:
        """The objects of a member list; other entries are ignored."""
        items = self.items(owner, key)
        objects = [item for item in items if isinstance(item, dict)]
        if len(objects) < len(items):
            self.note(Quirk.WRONG_TYPE_IGNORED)
        return objects

    def raw_of(self, value: Json) -> str:
        """A scalar as raw string contents; "" when absent or of a wrong type."""
        if type(value) is str:
            return value
        if value is None:
            return ""
        if isinstance(value, Number) or (isinstance(value, int) and not isinstance(value, bool)):
            self.note(Quirk.STRING_AS_NUMBER)
            return str(value)
        self.note(Quirk.WRONG_TYPE_IGNORED)
        return ""

    def raw(self, owner: Object, key: str) -> str:
        """A member as raw string contents, untrimmed: for ids that are echoed."""
        return self.raw_of(owner.get(key))

    def text(self, owner: Object, key: str) -> str:
        """A member as text without surrounding white space; "" when absent."""
        return plain(self.raw_of(owner.get(key))).strip(_SPACE)

    def texts(self, owner: Object, key: str) -> list[str]:
        """The entries of a member list as texts; empty and unreadable ones are left out."""
        texts = (plain(self.raw_of(item)).strip(_SPACE) for item in self.items(owner, key))
        return [text for text in texts if text]

    def parts(self, text: str) -> list[str]:
        """The values of a text that should be one of a list, but may be some between commas."""
        if "," not in text:
            return [text]
        self.note(Quirk.OTHER_NOTATION)
        return [part for piece in text.split(",") if (part := piece.strip(_SPACE))]

    def number_of(self, value: Json) -> Decimal | None:
        """A scalar as an exact decimal; None when absent or unreadable."""
        if isinstance(value, bool):
            self.note(Quirk.BOOL_AS_INT)
            return Decimal(int(value))
        if isinstance(value, int):
            return Decimal(value)
        if isinstance(value, Number):
            return _decimal(value)
        if isinstance(value, str) and value:
            number = _decimal(value)
            self.note(Quirk.WRONG_TYPE_IGNORED if number is None else Quirk.NUMBER_AS_STRING)
            return number
        if value not in (None, ""):
            self.note(Quirk.WRONG_TYPE_IGNORED)
        return None

    def integer_of(self, value: Json, default: int = 0) -> int:
        """A scalar as an int32, truncated and saturated."""
        number = self.number_of(value)
        if number is None:
            return default
        if isinstance(value, Number) or (isinstance(value, str) and not _is_integral(value)):
            self.note(Quirk.FLOAT_AS_INT)
        if number and number.adjusted() > 10:
            return INT_MIN if number.is_signed() else INT_MAX
        return max(INT_MIN, min(INT_MAX, int(number)))

    def integer(self, owner: Object, key: str, default: int = 0) -> int:
        """A member as an int32."""
        return self.integer_of(owner.get(key), default)

    def count(self, owner: Object, key: str, default: int = 0) -> int:
        """A member that cannot be below 0: then it is ignored."""
        value = self.integer(owner, key, default)
        if value < 0 and value != default:
            self.note(Quirk.BAD_VALUE_IGNORED)
            return default
        return value

    def flag(self, owner: Object, key: str) -> bool:
        """A 0/1 member: set by anything that is not 0."""
        return self.integer(owner, key) != 0

    def strict_flag(self, owner: Object, key: str) -> bool:
        """A 0/1 member that forbids something: set also by what cannot be read."""
        return self.has(owner, key) and self.integer(owner, key, 1) != 0

    def real(self, owner: Object, key: str) -> float | None:
        """A member as a finite float64; None when absent or unreadable."""
        number = self.number_of(owner.get(key))
        if number is None:
            return None
        if number and number.adjusted() > 300:
            self.note(Quirk.BAD_VALUE_IGNORED)
            return None
        return float(number)

    def micros(self, owner: Object, key: str) -> int:
        """A floor per mille as micros, rounded up; 0 when absent.

        A bid at a floor that was rounded down would be a bid below it. The text is taken exactly:
        0.1 is 100,000 and nothing more.

        IMPOSSIBLE when negative, over CPM_MICROS_MAX or unreadable: an amount that stands there
        but cannot be understood is never taken for zero.
        """
        value = owner.get(key)
        if value is None or value == "":
            return 0
        number = self.number_of(value)
        if number is None or (number and number.adjusted() > 12):
            return IMPOSSIBLE
        sign, digits, exponent = number.as_tuple()
        scaled = Decimal((sign, digits, int(exponent) + 6))
        micros = int(scaled.to_integral_value(ROUND_CEILING))
        return micros if 0 <= micros <= CPM_MICROS_MAX and not (sign and number) else IMPOSSIBLE

    def currency(self, owner: Object, key: str) -> int:
        """A currency code of three letters; USD when absent; 0 for anything else."""
        raw = self.raw(owner, key)
        if not raw:
            return 0 if self.has(owner, key) else currency_code("USD")
        try:
            return currency_code(raw)
        except ValueError:
            self.note(Quirk.BAD_VALUE_IGNORED)
            return 0

    def mask(self, owner: Object, key: str, bits: int, unknown: int = 0) -> int:
        """A list of enum numbers as a bit mask: bit n stands for n, numbers past it are unknown.

        `unknown` is the mask of a list that has entries but none that we know. It matters where
        an empty mask would mean "everything".
        """
        items = self.items(owner, key)
        mask = 0
        for item in items:
            for part in self.parts(item) if type(item) is str else [item]:
                number = self.integer_of(part, -1)
                if 0 < number < bits:
                    mask |= 1 << number
        return mask or (unknown if items else 0)


_SPACE = " \t\r\n"


def _is_hollow(value: Json) -> bool:
    if isinstance(value, list):
        return all(item is None or item == "" for item in value)
    return value is None or value == "" or value == {}


def _is_integral(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _decimal(text: str) -> Decimal | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    digits, sign, exponent = match.groups()
    if exponent is None:
        return Decimal(digits)
    if len(exponent.lstrip("0")) > _EXPONENT_DIGITS_MAX:
        exponent = "9" * _EXPONENT_DIGITS_MAX
    return Decimal(f"{digits}e{sign}{exponent}")
