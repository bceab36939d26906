"""Prices in notices: published vectors of each scheme, and every text that is no price."""

import base64
import hashlib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ConfigError
from rtb.base.events import PriceState
from rtb.base.money import CPM_MICROS_MAX
from rtb.exchanges import prices
from rtb.exchanges.settings import Exchange, load, load_all

NOW_MS = 1_800_000_000_000

# Keys (encryption, integrity, encoding) that others published with texts sealed by them.
KEYS = {
    "A": (
        "skU7Ax_NL5pPAFyKdkfZjZz2-VhIN8bjj1rVFOaJ_5o=",
        "arO23ykdNqUQ5LEoQ0FVmPkBd7xB5CO89PDZlSjpFxo=",
        "base64url",
    ),
    "B": (
        "sIxwz7yw62yrfoLGt12lIHKuYrK/S5kLuApI2BQe7Ac=",
        "v3fsVcMBMMHYzRhi7SpM0sdqwzvAxM6KPTu9OtVod5I=",
        "base64url",
    ),
    "C": (
        "ZS-DraBUUVeht_sMDgn1nnM3My_nq9TrEESbjubDkTU",
        "vQo9-4KtlcXmPhWaYvc8asqYuiSVMiGUdZ1RLXfrK7U",
        "base64url",
    ),
    "D": (
        "6356770B3C111C07F778AFD69F16643E9110090FD4C479D91181EED2523788F1",
        "3588BF6D387E8AEAD4EEC66798255369AF47BFD48B056E8934CEFEF3609C469E",
        "utf-8",
    ),
    "E": (
        "kB8RQtv1rlArbt1YFRoHUiCn3mtP3d88VdfRRT+ujMA=",
        "+b5gBm7mJcmZgF/YT4bxZoQUsU+vpwqm2sShqc5rcPk=",
        "base64url",
    ),
}
# (keys, sealed text, micros)
VECTORS = [
    ("A", "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaw", 100),
    ("A", "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCAWJRxOgA", 1900),
    ("A", "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemC32prpWWw", 2700),
    ("A", "AAECAwQFBgcICQoLDA0OD-zub_WgSbtPP9GXag", 0),
    ("B", "OG46wAAMCggBI0VniavN7-mNy0VTKPbB3o5CMQ==", 1_200_000),
    ("C", "anCGGFJApcfB6ZGc6mindhpTrYXHY4ONo7lXpg", 1_354_000),
    ("C", "ce131TRp7waIZI2qOiRr2DMm2sSIeGh_wIAwVQ", 3_240_000),
    ("C", "K6tfPnPvN_5E2xS3GssrFYeouJJRkBQqxR_FxQ", 1_000_000),
    ("C", "lEzCWnwgB21Dy2_H43PKZeZaNDstZZElZRFTDQ", 890_000),
    ("C", "L91lB6giyIXh2o4CeUf0F7sCXozKWRXAUeMUfg", 100_000_000),
    ("C", "8WY0BgWbds1eEVNFkrXVIr1GU08iueKrP0wXfw", 10_000),
    ("D", "u7iq5XwQTNpAyThDrV5tuJXw-Y_IXQgkMA3RFA", 1_465_000),
    ("E", "WUOXfQAE0sIKUaLPAAgFA6QtpXwk7aG46DUWfQ", 8000),
]
IV_B = bytes.fromhex("386E3AC0000C0A080123456789ABCDEF")
MADE_B_S = 946_748_096  # the first four bytes of IV_B
SEALED_B = "OG46wAAMCggBI0VniavN7-mNy0VTKPbB3o5CMQ"


def reader(name: str, swapped: bool = False, **settings: object) -> prices.PriceReader:
    """The reader of an exchange with one pair of the published keys."""
    first, second, encoding = KEYS[name]
    if swapped:
        first, second = second, first
    exchange = Exchange(
        name="x",
        path="x",
        price_scheme="hmac-sha1",
        price_keys=("E_KEY", "I_KEY"),
        price_key_encoding=encoding,
        **{"price_unit": "cpm_micros"} | settings,
    )
    return prices.reader(exchange, {"E_KEY": first, "I_KEY": second})


def scheme_b() -> prices.HmacSha1:
    return prices.HmacSha1(*(base64.b64decode(text) for text in KEYS["B"][:2]))


def clear(**settings: object) -> prices.PriceReader:
    return prices.reader(Exchange(name="x", path="x", **settings), {})


# -- clear -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1.23", 1_230_000),
        ("0.000451", 451),
        ("1e-05", 10),
        ("1E-05", 10),
        ("1e+1", 10_000_000),
        ("1,23", 1_230_000),
        (" 1.23\n", 1_230_000),
        ("5.", 5_000_000),
        (".5", 500_000),
        ("0", 0),
        ("0.0000005", 0),  # half-even
        ("0.0000015", 2),
        ("1.2300000000000002", 1_230_000),
        ("100000", CPM_MICROS_MAX),
    ],
)
def test_clear_prices(text: str, micros: int) -> None:
    """Decimals with point, comma or exponent are read to the micro."""
    assert (PriceState.OK, micros) == clear().price(text, NOW_MS)


@pytest.mark.parametrize(
    "text",
    [
        "-1", "-0", "+1", "NaN", "sNaN", "inf", "Infinity", "1e9", "1e999", "100000.000001",
        "1_000", "1,234.56", "1.2.3", "0x10", "١", "１", "1 2", "null", "1e", "e5", ".", "1" * 41,
        "\0", "OG46wAAMCggBI0VniavN7-mNy0VTKPbB3o5CMQ", "audit", "\ud800",
    ],
)  # fmt: skip
def test_clear_garbage(text: str) -> None:
    """Negative, not finite, over any price or not a decimal at all: garbage, never an exception."""
    assert (PriceState.GARBAGE, -1) == clear().price(text, NOW_MS)


@pytest.mark.parametrize("read", [clear(), reader("A")], ids=["clear", "hmac-sha1"])
@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", PriceState.EMPTY),
        ("  ", PriceState.EMPTY),
        ("AUDIT", PriceState.AUDIT),
        ("${AUCTION_PRICE}", PriceState.UNSUBSTITUTED),
        ("${AUCTION_PRICE:BF}", PriceState.UNSUBSTITUTED),
        ("%24%7BAUCTION_PRICE%7D", PriceState.UNSUBSTITUTED),
        ("%24%7bAUCTION_PRICE%7d", PriceState.UNSUBSTITUTED),
        ("%%WINNING_PRICE%%", PriceState.UNSUBSTITUTED),
        ("{winning_price}", PriceState.UNSUBSTITUTED),
    ],
)
def test_what_stands_instead_of_a_price(
    read: prices.PriceReader, text: str, state: PriceState
) -> None:
    """Empty, AUDIT and macros are told apart, whatever the scheme."""
    assert (state, -1) == read.price(text, NOW_MS)


@pytest.mark.parametrize(
    ("unit", "text", "micros"),
    [
        ("cpm", "1.2", 1_200_000),
        ("cpm_micros", "1200000", 1_200_000),
        ("cpi_micros", "1000", 10**6),
    ],
)
def test_units(unit: str, text: str, micros: int) -> None:
    """An exchange's unit is made CPM micros: 1,000 micros an impression are a CPM of one."""
    assert (PriceState.OK, micros) == clear(price_unit=unit).price(text, NOW_MS)


@given(st.text(max_size=200))
def test_any_text_has_a_state(text: str) -> None:
    """No text raises, and a price is only there when the state says so."""
    for read in (clear(), reader("A"), blowfish()):
        state, micros = read.price(text, NOW_MS)
        assert (state == PriceState.OK) == (0 <= micros <= CPM_MICROS_MAX)
        assert (read.decimal_e6(text) or 0) >= 0


@given(st.integers(0, CPM_MICROS_MAX))
def test_every_micro_survives(micros: int) -> None:
    """A price that we could bid comes back as it was, by clear text and sealed."""
    sealed = base64.urlsafe_b64encode(scheme_b().seal(micros.to_bytes(8, "big"), IV_B)).decode()

    assert (PriceState.OK, micros) == clear().price(str(Decimal(micros) / 10**6), NOW_MS)
    assert (PriceState.OK, micros) == reader("B").price(sealed, NOW_MS)


# -- hmac-sha1 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "text", "micros"), VECTORS)
def test_published_vectors(keys: str, text: str, micros: int) -> None:
    """Prices that others sealed are opened."""
    assert (PriceState.OK, micros) == reader(keys).price(text, NOW_MS)


@pytest.mark.parametrize(("keys", "text", "micros"), VECTORS)
def test_swapped_keys(keys: str, text: str, micros: int) -> None:
    """With encryption and integrity key exchanged nothing verifies."""
    assert (PriceState.GARBAGE, -1) == reader(keys, swapped=True).price(text, NOW_MS)


@pytest.mark.parametrize(
    "text",
    [
        "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCAWJRxOlA",  # published with a wrong signature
        "garbage",
        "1.23",
        "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msa",  # 27 bytes
        "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msawAA",
        "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaw" * 4,
        "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce*6msaw",
        "é" * 38,
    ],
)
def test_sealed_garbage(text: str) -> None:
    """A bad signature, a wrong length or another alphabet is garbage."""
    assert (PriceState.GARBAGE, -1) == reader("A").price(text, NOW_MS)


@pytest.mark.parametrize("bit", range(28 * 8))
def test_every_bit_is_sealed(bit: int) -> None:
    """A package with any bit flipped does not open."""
    package = bytearray(base64.urlsafe_b64decode(SEALED_B + "=="))
    package[bit // 8] ^= 1 << bit % 8

    assert scheme_b().open(bytes(package)) is None


@pytest.mark.parametrize(
    "text",
    [
        SEALED_B,
        SEALED_B + "==",
        SEALED_B + "..",
        SEALED_B + "%3D%3D",
        SEALED_B.replace("-", "+"),
        SEALED_B.replace("-", "%2B") + "==",
        "%4FG46" + SEALED_B[4:],
    ],
)
def test_spellings_of_base64(text: str) -> None:
    """Padding, alphabet and one more percent-encoding make no difference."""
    assert (PriceState.OK, 1_200_000) == reader("B").price(text, NOW_MS)


@pytest.mark.parametrize(
    ("package", "clear_text"),
    [
        ("OG46wAAMCggBI0VniavN7-mMyUZXP79GV5XMEA==", bytes(range(8))),
        (
            base64.urlsafe_b64encode(
                bytes.fromhex(
                    "386E3AC0000C0A080123456789ABCDEFE98CC946573FBF4645EF060B17A667A617C66BCB"
                )
            ).decode(),
            bytes(range(16)),
        ),
        (
            base64.urlsafe_b64encode(
                bytes.fromhex("386E3AC0000C0A080123456789ABCDEFFB87C645530EFB544DE63842A609CC0C")
            ).decode(),
            bytes.fromhex("120a0d000034421500003442"),
        ),
        ("5nmwvgAM0UABI0VniavN72_tyXf-QJOmQdL0tmh_fduB2go_", bytes(range(16))),
    ],
)
def test_longer_payloads(package: str, clear_text: bytes) -> None:
    """The same scheme seals ids and places."""
    sealed = prices.unbase64(package)

    assert sealed is not None
    assert clear_text == scheme_b().open(sealed)
    assert sealed == scheme_b().seal(clear_text, sealed[:16])


def test_the_longest_payload() -> None:
    """All blocks of the longest package have the pads of the published implementation."""
    clear_text = bytes(i & 255 for i in range(15_380))
    package = scheme_b().seal(clear_text, IV_B)

    assert "b1a37cc1be69910a413d1d6a0989fb825cc6d230" == hashlib.sha1(package).hexdigest()
    assert clear_text == scheme_b().open(package)
    assert scheme_b().open(package + b"x") is None


@pytest.mark.parametrize(
    ("now_s", "state"),
    [
        (MADE_B_S, PriceState.OK),
        (MADE_B_S + 3600, PriceState.OK),
        (MADE_B_S - 3600, PriceState.OK),
        (MADE_B_S + 3601, PriceState.GARBAGE),
        (MADE_B_S - 3601, PriceState.GARBAGE),
    ],
)
def test_stale_prices(now_s: int, state: PriceState) -> None:
    """Where the settings bound it, a price from another hour is a replay."""
    assert state == reader("B", price_age_s_max=3600).price(SEALED_B, now_s * 1000)[0]


def test_hex_keys_are_the_same_keys() -> None:
    """Keys as hex open what their base64 form opens."""
    first, second = (base64.b64decode(text).hex() for text in KEYS["B"][:2])
    exchange = Exchange(
        name="x",
        path="x",
        price_scheme="hmac-sha1",
        price_keys=("A", "B"),
        price_key_encoding="hex",
        price_unit="cpi_micros",
    )
    read = prices.reader(exchange, {"A": first, "B": second})

    assert (PriceState.OK, 1_200_000_000) == read.price(SEALED_B, NOW_MS)


# -- blowfish-ecb ----------------------------------------------------------------------------------


def blowfish(secret: str = "abcdefghijklmnopqrstuvwxyz") -> prices.PriceReader:
    exchange = Exchange(
        name="x",
        path="x",
        price_scheme="blowfish-ecb",
        price_keys=("B_KEY",),
        price_key_encoding="utf-8",
    )
    return prices.reader(exchange, {"B_KEY": secret})


def blowfish_hex(block: bytes, secret: bytes = b"abcdefghijklmnopqrstuvwxyz") -> str:
    """A block as an exchange would send it."""
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    encryptor = Cipher(Blowfish(secret), modes.ECB()).encryptor()
    return (encryptor.update(block) + encryptor.finalize()).hex()


def test_blowfish_vector() -> None:
    """The cipher's own published vector with a key and a text of ASCII letters."""
    scheme = prices.BlowfishEcb(b"abcdefghijklmnopqrstuvwxyz")

    assert b"BLOWFISH" == scheme.open(bytes.fromhex("324ED0FEF413A203"))


@pytest.mark.parametrize(
    ("block", "micros"),
    [(b"1.234567", 1_234_567), (b"    1.25", 1_250_000), (b"1.25\0\0\0\0", 1_250_000)],
)
def test_blowfish_prices(block: bytes, micros: int) -> None:
    """Eight characters that are a decimal, padded or not, in either case of hex."""
    text = blowfish_hex(block)

    assert (PriceState.OK, micros) == blowfish().price(text, NOW_MS)
    assert (PriceState.OK, micros) == blowfish().price(text.upper(), NOW_MS)


@pytest.mark.parametrize(
    "text",
    ["324ED0FEF413A203", "1.25", "324ED0FEF413A20", "324ED0FEF413A2030", "zz4ED0FEF413A203"],
)
def test_blowfish_garbage(text: str) -> None:
    """Letters in the block, the wrong length, or no hex."""
    assert (PriceState.GARBAGE, -1) == blowfish().price(text, NOW_MS)


def test_blowfish_other_key() -> None:
    """A block under another secret is no decimal."""
    text = blowfish_hex(b"1.234567", b"another secret")

    assert (PriceState.GARBAGE, -1) == blowfish().price(text, NOW_MS)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "E_KEY"),
        ({"E_KEY": "x", "I_KEY": "y"}, "E_KEY is no key in base64url"),
        ({"E_KEY": KEYS["A"][0], "I_KEY": " "}, r"I_KEY.*`x`, at `\$\.price_keys\[1\]`"),
    ],
)
def test_secrets_must_be_there(environ: dict[str, str], message: str) -> None:
    """A missing or malformed secret stops the start, naming variable and place, not the secret."""
    exchange = Exchange(name="x", path="x", price_scheme="hmac-sha1", price_keys=("E_KEY", "I_KEY"))
    with pytest.raises(ConfigError, match=message):
        prices.reader(exchange, environ)


def test_blowfish_key_length() -> None:
    """A key that the cipher cannot take is refused at start."""
    with pytest.raises(ConfigError, match=r"4 to 56 bytes - at `\$\.price_keys`"):
        blowfish("abc")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("settle_on = 'lurl'", r"\$\.settle_on"),
        ("notice_macros = ['colour']", r"\$\.notice_macros"),
        ("price_scheme = 'rot13'", r"\$\.price_scheme"),
        ("price_scheme = 'hmac-sha1'", r"takes 2 keys - at `\$\.price_keys`"),
        ("price_keys = ['A']", r"takes 0 keys - at `\$\.price_keys`"),
        ("price_scheme = 'blowfish-ecb'\nprice_keys = ['A']", r"\$\.price_key_encoding"),
        ("price_age_s_max = 5", r"\$\.price_age_s_max"),
        ("price_above_bid_tolerance_e6 = 1000001", r"\$\.price_above_bid_tolerance_e6"),
        ("empty_price = 'bid'", r"\$\.empty_price"),
        ("multiplier_max = 4295", r"\$\.multiplier_max"),
        ("settle_on = 'impression'\nmarkup_macros = false", r"\$\.settle_on"),
        ("price_macro = ''", r"\$\.price_macro"),
        ("price_macro = 'a&b'", r"\$\.price_macro"),
        ("click_macro = 'a b'", r"\$\.click_macro"),
        ("click_macro = '\"'", r"\$\.click_macro"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    """A setting under which nothing could be booked, or read, stops the start."""
    path = tmp_path / "x.toml"
    path.write_text(f"name = 'x'\npath = 'x'\n{lines}\n")
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_impressions_without_macros_may_settle_at_the_bid(tmp_path: Path) -> None:
    """A first-price exchange that fills nothing in markup can still be settled by our pixel."""
    path = tmp_path / "x.toml"
    path.write_text(
        "name = 'x'\npath = 'x'\nsettle_on = 'impression'\nmarkup_macros = false\n"
        "auction_type_default = 1\nempty_price = 'bid'\nclick_macro = 'https://c.example/?a&u='\n"
    )

    assert "impression" == load(path).settle_on


def test_names_that_claims_cannot_tell_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims name an exchange in 32 bits: two files with the same hash are refused."""
    monkeypatch.setattr(Exchange, "claim_key", property(lambda self: 7))
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f"name = '{name}'\npath = '{name}'\n")
    with pytest.raises(ConfigError, match=r"b\.toml.*\$\.name"):
        load_all(tmp_path)
