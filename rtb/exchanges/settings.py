"""The settings of one exchange: what `configs/exchanges/<name>.toml` may say, read strictly.

`generic.toml` is the reference: every key with its default, unit and one sentence. The other files
only override. A file that says anything else is refused at start, never half understood.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rtb.base.errors import ConfigError
from rtb.base.hashing import token_hash
from rtb.base.money import currency_code
from rtb.base.records import CURRENCIES_MAX, DEALS_MAX, IMPS_MAX, TOKENS_MAX, Dim

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
# A body over 256 KB stalls the loop for more than 10 ms in the worst shapes (fault A5).
_BODY_BYTES_MAX = 262_144

# Claims store multipliers in 32 bits, times 1e6 (`rtb.base.events.NOTICE`).
_MULTIPLIER_MAX = 4294
# How many secrets a price scheme takes.
_PRICE_KEYS = {"clear": 0, "hmac-sha1": 2, "blowfish-ecb": 1}
# What may stand in a URL unescaped: macros of every kind, but nothing that ends a value, or a URL.
_MACRO = re.compile(r"[!$%(-;=?-\[\]_a-{}~]+")
_URL_START = re.compile(r"[!$%&(-;=?-\[\]_a-{}~]*")

Positive = Annotated[int, msgspec.Meta(ge=1)]
NoticeMacro = Literal["currency", "multiplier", "min_to_win", "loss", "discount", "shown"]


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one exchange speaks and what it may cost us; `generic.toml` explains each key."""

    name: str
    path: str
    seat: str = ""
    currencies: tuple[str, ...] = ()
    default_currency: str = "USD"
    auction_type_default: Annotated[int, msgspec.Meta(ge=1, le=500)] = 2
    no_bid: Literal["204", "nbr"] = "204"
    tmax_ms_default: Positive = 100
    deadline_ms_max: Positive = 50
    tmax_margin_ms: Annotated[int, msgspec.Meta(ge=0)] = 10
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=_BODY_BYTES_MAX)] = 131_072
    imps_max: Annotated[int, msgspec.Meta(ge=1, le=IMPS_MAX)] = IMPS_MAX
    deals_max: Annotated[int, msgspec.Meta(ge=1, le=DEALS_MAX)] = DEALS_MAX
    block_tokens_max: Positive = 2048
    target_tokens_max: Positive = 2048
    settle_on: Literal["burl", "impression", "nurl"] = "burl"
    reservation_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 600
    notice_macros: tuple[NoticeMacro, ...] = ("currency", "multiplier", "min_to_win", "loss")
    price_macro: str = "${AUCTION_PRICE}"
    price_scheme: Literal["clear", "hmac-sha1", "blowfish-ecb"] = "clear"
    price_keys: tuple[str, ...] = ()
    price_key_encoding: Literal["base64url", "hex", "utf-8"] = "base64url"
    price_unit: Literal["cpm", "cpm_micros", "cpi_micros"] = "cpm"
    price_age_s_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    price_above_bid_tolerance_e6: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    empty_price: Literal["quarantine", "bid"] = "quarantine"
    multiplier_max: Annotated[int, msgspec.Meta(ge=1, le=_MULTIPLIER_MAX)] = 1
    markup_macros: bool = True
    click_macro: str = ""
    click_url_encoded: bool = True

    @property
    def claim_key(self) -> int:
        """The exchange as `rtb.base.events.CLAIMS` name it: the low half of its token."""
        return self.token & 0xFFFF_FFFF

    @property
    def token(self) -> int:
        """The exchange as a targeting value: hash of its name in `Dim.EXCHANGE`."""
        return token_hash(Dim.EXCHANGE, self.name.encode())


def load(path: Path) -> Exchange:
    """The exchange that a TOML file describes.

    Raises: ConfigError naming file and key, for anything unreadable, unknown or out of range.
    """
    try:
        exchange = msgspec.toml.decode(path.read_bytes(), type=Exchange)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for key, reason in _faults(exchange):
        raise ConfigError(f"{path}: {reason} - at `$.{key}`")
    return exchange


def load_all(folder: Path) -> dict[str, Exchange]:
    """Every exchange of a folder, by the path name that its URL carries.

    Raises: ConfigError also where two files claim one name or path, or there is no file.
    """
    exchanges: dict[str, Exchange] = {}
    names: set[str] = set()
    claims: set[int] = set()
    for path in sorted(folder.glob("*.toml")):
        exchange = load(path)
        if exchange.path in exchanges or exchange.name in names:
            raise ConfigError(f"{path}: another file has this name or path - at `$.name`")
        if exchange.claim_key in claims:
            raise ConfigError(f"{path}: the hash of another file's name - at `$.name`")
        names.add(exchange.name)
        claims.add(exchange.claim_key)
        exchanges[exchange.path] = exchange
    if not exchanges:
        raise ConfigError(f"{folder}: no exchange settings (*.toml)")
    return exchanges


def _faults(exchange: Exchange) -> list[tuple[str, str]]:
    """Rules that a type cannot say: (key, reason)."""
    faults: list[tuple[str, str]] = []
    for key in ("name", "path"):
        if not _NAME.fullmatch(getattr(exchange, key)):
            faults.append((key, "only a-z, 0-9 and dashes"))
    for code in (exchange.default_currency, *exchange.currencies):
        key = "default_currency" if code is exchange.default_currency else "currencies"
        if code != code.upper() or not _is_currency(code):
            faults.append((key, f"not an ISO 4217 currency: {code!r}"))
    if len(exchange.currencies) > CURRENCIES_MAX:
        faults.append(("currencies", f"more than {CURRENCIES_MAX} currencies"))
    if exchange.currencies and exchange.default_currency not in exchange.currencies:
        faults.append(("default_currency", "not one of `currencies`"))
    if exchange.block_tokens_max + exchange.target_tokens_max > TOKENS_MAX:
        faults.append(("block_tokens_max", f"with target_tokens_max over {TOKENS_MAX}"))
    if exchange.tmax_margin_ms >= min(exchange.tmax_ms_default, exchange.deadline_ms_max):
        faults.append(("tmax_margin_ms", "no time is left of tmax_ms_default or deadline_ms_max"))
    if any(ord(char) < 32 for char in exchange.seat):
        faults.append(("seat", "control characters"))
    return faults + _notice_faults(exchange)


def _notice_faults(exchange: Exchange) -> list[tuple[str, str]]:
    """Rules for notices: what could never be booked, or read, is refused at start."""
    faults: list[tuple[str, str]] = []
    wanted = _PRICE_KEYS[exchange.price_scheme]
    if len(exchange.price_keys) != wanted:
        faults.append(("price_keys", f"{exchange.price_scheme} takes {wanted} keys"))
    if exchange.price_scheme == "blowfish-ecb" and exchange.price_key_encoding != "utf-8":
        faults.append(("price_key_encoding", "the secret of blowfish-ecb is text: utf-8"))
    if exchange.price_age_s_max and exchange.price_scheme != "hmac-sha1":
        faults.append(("price_age_s_max", "only hmac-sha1 tells when a price was made"))
    if exchange.empty_price == "bid" and exchange.auction_type_default != 1:
        faults.append(("empty_price", "a bid is the price only where auction_type_default = 1"))
    if (
        exchange.settle_on == "impression"
        and exchange.empty_price != "bid"
        and not exchange.markup_macros
    ):
        faults.append(("settle_on", "no price will come: needs markup_macros or empty_price"))
    if not _MACRO.fullmatch(exchange.price_macro):
        faults.append(("price_macro", "empty, or characters that cannot stand in a URL"))
    if not _URL_START.fullmatch(exchange.click_macro):
        faults.append(("click_macro", "characters that cannot stand in a URL"))
    return faults


def _is_currency(code: str) -> bool:
    try:
        currency_code(code)
    except ValueError:
        return False
    return True
