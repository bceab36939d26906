"""Prices in notices: from the text behind a price macro to CPM micros, or to why there are none.

Everything that reads money from an exchange lives here. A text is told apart first, whatever the
scheme, as exchanges send these in the clear:

    nothing           EMPTY
    AUDIT             AUDIT
    a macro           UNSUBSTITUTED: the exchange did not know it, or somebody encoded it
    anything else     the scheme's: a number in the exchange's unit, or GARBAGE

Schemes are plug-ins by the name that `price_scheme` says; each is a function of text and time that
gives a number, or None for what does not verify. Secrets come from environment variables whose
names stand in the settings; the environment is an argument.
"""

import binascii
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import chain
from typing import Final
from urllib.parse import unquote

from rtb.base.errors import ConfigError
from rtb.base.events import PriceState
from rtb.base.money import CPM_MICROS_MAX, MICROS
from rtb.exchanges.settings import Exchange

Scheme = Callable[[str, int], Decimal | None]

# The longest honest text is a cipher text of 38 characters, percent-encoded to thrice that.
TEXT_CHARS_MAX: Final = 128
# A binary double in full has 17 digits; more than these are not a price.
DECIMAL_CHARS_MAX: Final = 40

_DECIMAL = re.compile(r"(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
# CPM micros of one unit. A price of one impression is a thousandth of a price of a thousand.
_UNITS: Final = {"cpm": MICROS, "cpm_micros": 1, "cpi_micros": 1000}


class PriceReader:
    """How one exchange writes numbers."""

    def __init__(self, scheme: Scheme, unit: str = "cpm") -> None:
        self._scheme = scheme
        self._unit = _UNITS[unit]

    def price(self, text: str, now_ms: int) -> tuple[PriceState, int]:
        """State and CPM micros of a price as it came, percent-decoded once; -1 unless OK."""
        state, micros = state_of(text), -1
        if state == PriceState.OK:
            value = self._scheme(text, now_ms) if len(text) <= TEXT_CHARS_MAX else None
            micros = -1 if value is None else scaled(value, self._unit)
            state = PriceState.GARBAGE if micros < 0 else PriceState.OK
        return state, micros

    def decimal_e6(self, text: str) -> int | None:
        """A plain decimal times 1e6, for what stands beside a price; None when it is none."""
        value = decimal_of(text)
        number = -1 if value is None else scaled(value, MICROS)
        return None if number < 0 else number


def reader(exchange: Exchange, environ: Mapping[str, str]) -> PriceReader:
    """The reader of an exchange's prices. Raises: ConfigError for a missing or malformed secret."""
    keys = [_secret(exchange, index, environ) for index in range(len(exchange.price_keys))]
    try:
        scheme = SCHEMES[exchange.price_scheme](exchange, keys)
    except ValueError as error:
        raise ConfigError(f"{exchange.name}: {error} - at `$.price_keys`") from error
    return PriceReader(scheme, exchange.price_unit)


def state_of(text: str) -> PriceState:
    """What a text is before it is read as a number: OK means that there is something to read."""
    if not text.strip():
        return PriceState.EMPTY
    if text == "AUDIT":
        return PriceState.AUDIT
    # No number and no cipher text holds these, and every macro that we know holds one.
    if "{" in text or "%%" in text or "%7B" in text.upper():
        return PriceState.UNSUBSTITUTED
    return PriceState.OK


def scaled(value: Decimal, factor: int) -> int:
    """A non-negative number times a factor, half-even; -1 when it is over any price."""
    product = value * factor
    if product > CPM_MICROS_MAX:
        return -1
    return int(product.to_integral_value(ROUND_HALF_EVEN))


# -- clear -----------------------------------------------------------------------------------------


def decimal_of(text: str) -> Decimal | None:
    """A plain non-negative decimal with point or comma, "1e-05" too; None for anything else."""
    text = text.strip()
    if len(text) > DECIMAL_CHARS_MAX or not _DECIMAL.fullmatch(text):
        return None
    return Decimal(text.replace(",", "."))


def _clear(text: str, now_ms: int) -> Decimal | None:
    return decimal_of(text)


# -- hmac-sha1 -------------------------------------------------------------------------------------

_IV_BYTES: Final = 16
_SIGNATURE_BYTES: Final = 4
_PRICE_BYTES: Final = 8
_BLOCK_BYTES: Final = 20
# The scheme's own reference stops here: 15,380 bytes.
BLOCKS_MAX: Final = 769


class HmacSha1:
    """Authenticated encryption of short texts: iv (16), cipher text, signature (4).

    The pad of block n is HMAC-SHA1(encryption key, iv || counter n), the signature the head of
    HMAC-SHA1(integrity key, clear text || iv). The iv begins with the time: seconds and
    microseconds, 4 bytes each, big-endian.
    """

    def __init__(self, encryption: bytes, integrity: bytes, age_s_max: int = 0) -> None:
        self._encryption = encryption
        self._integrity = integrity
        self._age_s_max = age_s_max

    def __call__(self, text: str, now_ms: int) -> Decimal | None:
        """The number in a sealed price of 28 bytes."""
        package = unbase64(text)
        if package is None or len(package) != _IV_BYTES + _PRICE_BYTES + _SIGNATURE_BYTES:
            return None
        clear = self.open(package)
        if clear is None or self._is_stale(package, now_ms):
            return None
        return Decimal(int.from_bytes(clear, "big"))

    def open(self, package: bytes) -> bytes | None:
        """The clear text of a package; None when its signature is not ours."""
        iv, cipher = package[:_IV_BYTES], package[_IV_BYTES:-_SIGNATURE_BYTES]
        if not 0 < len(cipher) <= BLOCKS_MAX * _BLOCK_BYTES:
            return None
        clear = self._padded(cipher, iv)
        signature = package[-_SIGNATURE_BYTES:]
        return clear if hmac.compare_digest(signature, self._signature(clear, iv)) else None

    def seal(self, clear: bytes, iv: bytes) -> bytes:
        """The package of a clear text of 1 to 15,380 bytes; the iv must be used once."""
        return iv + self._padded(clear, iv) + self._signature(clear, iv)

    def _padded(self, text: bytes, iv: bytes) -> bytes:
        pad = b"".join(
            hmac.digest(self._encryption, iv + counter, "sha1")
            for counter, _ in zip(_counters(), range(0, len(text), _BLOCK_BYTES), strict=False)
        )
        return bytes(a ^ b for a, b in zip(text, pad, strict=False))

    def _signature(self, clear: bytes, iv: bytes) -> bytes:
        return hmac.digest(self._integrity, clear + iv, "sha1")[:_SIGNATURE_BYTES]

    def _is_stale(self, package: bytes, now_ms: int) -> bool:
        made_ms = int.from_bytes(package[:4], "big") * 1000
        return 0 < self._age_s_max * 1000 < abs(now_ms - made_ms)


def _counters() -> Iterator[bytes]:
    """The counters of blocks: none, 00 to ff, 0000 to 00ff, 000000 to 0000ff."""
    # Only the last byte counts: where it wraps, the published implementation adds another.
    counts = (bytes(zeros) + bytes([n]) for zeros in range(3) for n in range(256))
    return chain([b""], counts)


def unbase64(text: str) -> bytes | None:
    """Base64 of either alphabet, padded by "=", "." or nothing, even percent-encoded once more."""
    plain = unquote(text).rstrip("=.").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:  # not ASCII, or not base64
        return None


# -- blowfish-ecb ----------------------------------------------------------------------------------

_BLOWFISH_HEX = re.compile(r"[0-9a-fA-F]{16}")
_BLOWFISH_KEY_BYTES: Final = range(4, 57)


class BlowfishEcb:
    """One block of 8 bytes as hex; its clear text is a decimal, padded by blanks or zeros."""

    def __init__(self, secret: bytes) -> None:
        # Imported here, as the library is big and few exchanges need it.
        from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        if len(secret) not in _BLOWFISH_KEY_BYTES:
            raise ValueError("a Blowfish key has 4 to 56 bytes")
        self._cipher = Cipher(Blowfish(secret), modes.ECB())

    def __call__(self, text: str, now_ms: int) -> Decimal | None:
        """The number in a block."""
        if not _BLOWFISH_HEX.fullmatch(text):
            return None
        clear = self.open(bytes.fromhex(text))
        return decimal_of(clear.rstrip(b"\0").decode("latin-1"))

    def open(self, block: bytes) -> bytes:
        """The clear text of one block. Nothing in it says whether the key was right."""
        decryptor = self._cipher.decryptor()
        return decryptor.update(block) + decryptor.finalize()


# -- plug-ins --------------------------------------------------------------------------------------


def _hmac_sha1(exchange: Exchange, keys: Sequence[bytes]) -> Scheme:
    return HmacSha1(keys[0], keys[1], exchange.price_age_s_max)


SCHEMES: Final[Mapping[str, Callable[[Exchange, Sequence[bytes]], Scheme]]] = {
    "clear": lambda exchange, keys: _clear,
    "hmac-sha1": _hmac_sha1,
    "blowfish-ecb": lambda exchange, keys: BlowfishEcb(keys[0]),
}

_KEY_BYTES: Final = 32


def _secret(exchange: Exchange, index: int, environ: Mapping[str, str]) -> bytes:
    """One secret of an exchange, decoded. Raises: ConfigError, which does not show it."""
    variable = exchange.price_keys[index]
    place = f"of `{exchange.name}`, at `$.price_keys[{index}]`"
    text = environ.get(variable, "").strip()
    if not text:
        raise ConfigError(f"no environment variable {variable} - {place}")
    key = _decoded(text, exchange.price_key_encoding)
    if key is None:
        raise ConfigError(f"{variable} is no key in {exchange.price_key_encoding} - {place}")
    return key


def _decoded(text: str, encoding: str) -> bytes | None:
    if encoding == "utf-8":
        return text.encode()
    if encoding == "hex":
        try:
            key: bytes | None = bytes.fromhex(text)
        except ValueError:
            key = None
    else:
        key = unbase64(text)
    return key if key is not None and len(key) == _KEY_BYTES else None
