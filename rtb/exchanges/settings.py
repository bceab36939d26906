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

Positive = Annotated[int, msgspec.Meta(ge=1)]


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
    for path in sorted(folder.glob("*.toml")):
        exchange = load(path)
        if exchange.path in exchanges or exchange.name in names:
            raise ConfigError(f"{path}: another file has this name or path - at `$.name`")
        names.add(exchange.name)
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
    if any(ord(char) < 32 for char in exchange.seat):
        faults.append(("seat", "control characters"))
    return faults


def _is_currency(code: str) -> bool:
    try:
        currency_code(code)
    except ValueError:
        return False
    return True
