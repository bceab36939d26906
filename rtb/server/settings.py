"""Settings of a node: `configs/bidder.toml` and the files beside it, read strictly.

`bidder.toml` is the reference of every key. What is loaded here is handed to constructors section
by section; nothing reads configuration later.
"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from rtb.base.errors import ConfigError
from rtb.base.hashing import token_hash
from rtb.base.money import currency_code, currency_name
from rtb.base.records import CURRENCIES_MAX, RATE, RATES_MAX, ZONE, ZONES_MAX, Dim, Terms
from rtb.exchanges import settings as exchange_settings
from rtb.exchanges.settings import Exchange

CONFIGS: Final = Path(__file__).resolve().parents[2] / "configs"

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sockets and processes."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8080
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    keep_alive_s: Count = 150
    head_timeout_ms: Milliseconds = 3000
    body_timeout_ms: Milliseconds = 1000
    head_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=65_536)] = 16_384
    headers_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    connections_max: Count = 20_000
    drain_timeout_ms: Milliseconds = 5000
    drain_notice_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 200
    verify_nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10


class Bid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ladder: what a request gives up as its time runs out."""

    candidates_max: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1000
    candidates_late_max: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    late_ms: Milliseconds = 5
    profile_min_ms: Milliseconds = 2
    bid_min_ms: Milliseconds = 1
    shed_after_ms: Milliseconds = 10
    inflight_max: Count = 1024


class Profiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where profiles are read."""

    source: str = "lmdb"
    budget_ms: Milliseconds = 3
    refresh_ms: Milliseconds = 100


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where money is kept, and how it is lent to workers."""

    ledger: str = ""
    node: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    turn_ms: Milliseconds = 50
    lease_ms: Milliseconds = 2000
    batch_records: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5000
    remember_s: Annotated[int, msgspec.Meta(ge=60, le=2_592_000)] = 90_000
    pace_ms: Milliseconds = 1000
    pacing_law: Literal["dual", "pid"] = "dual"
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 5
    line_items_max: Annotated[int, msgspec.Meta(ge=1024, le=1_048_576)] = 131_072


class Notices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the world reaches our notice URLs, and which secrets sign them."""

    base_url: str = ""
    secrets: dict[str, str] = {}
    current_secret: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    age_days_max: Annotated[int, msgspec.Meta(ge=1, le=365)] = 30
    waiting_max: Count = 4096


class Caps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Counts for frequency caps."""

    in_flight_ms: Milliseconds = 2000
    reader_ms_max: Milliseconds = 10_000
    sets: Annotated[int, msgspec.Meta(ge=64, le=1 << 20)] = 1 << 14
    filter_bits: Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 34)] = 1 << 27


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record of what a worker did."""

    commit_ms: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    segment_mb: Annotated[int, msgspec.Meta(ge=16, le=1024)] = 64
    keep_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 8
    export: bool = False
    export_every_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Artefacts and the tables beside the settings."""

    poll_ms: Milliseconds = 200
    keep: Count = 3
    rates: str = "rates.toml"
    zones: str = "zones.toml"
    exchanges: str = "exchanges"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole `bidder.toml`."""

    server: Server = Server()
    bid: Bid = Bid()
    profiles: Profiles = Profiles()
    money: Money = Money()
    notices: Notices = Notices()
    journal: Journal = Journal()
    caps: Caps = Caps()
    files: Files = Files()


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rates file: value of one unit of each currency in `base`."""

    base: str
    rates: dict[str, Annotated[float, msgspec.Meta(gt=0)]]


class Zones(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A zones file: IANA zone names by country and region token."""

    countries: dict[str, str] = {}
    regions: dict[str, str] = {}


def load(path: Path | None = None) -> Settings:
    """The settings of a file over the defaults.

    Raises: ConfigError with file and key.
    """
    return _read(path or CONFIGS / "bidder.toml", Settings)


def load_exchanges(folder: Path) -> dict[str, Exchange]:
    """Exchanges by URL name. Raises: ConfigError."""
    return exchange_settings.load_all(folder)


def load_rates(path: Path) -> np.ndarray:
    """A rates file as rows of dtype RATE, base included.

    Raises: ConfigError: unreadable, not positive and finite, too many, or not currencies.
    """
    file = _read(path, Rates)
    rates = {file.base: 1.0} | file.rates
    if len(rates) > RATES_MAX:
        raise ConfigError(f"{path}: {len(rates)} rates, at most {RATES_MAX} - at `$.rates`")
    rows = np.zeros(len(rates), RATE)
    for row, (name, rate) in zip(rows, rates.items(), strict=True):
        try:
            row["cur"] = currency_code(name)
        except ValueError as error:
            raise ConfigError(f"{path}: {error} - at `$.rates.{name}`") from error
        if not np.isfinite(rate):
            raise ConfigError(f"{path}: not finite - at `$.rates.{name}`")
        row["rate"] = rate
    if file.rates.get(file.base, 1.0) != 1.0:
        raise ConfigError(f"{path}: the base is worth 1 - at `$.rates.{file.base}`")
    return rows


def without_rate(exchanges: Mapping[str, Exchange], rates: np.ndarray) -> Iterator[str]:
    """Says of each exchange in which of its currencies nothing can be bid; a file of rates may
    still bring them."""
    known = {currency_name(code) for code in rates["cur"].tolist()}
    for name, exchange in exchanges.items():
        missing = sorted({exchange.default_currency, *exchange.currencies} - known)
        if missing:
            told = f"no rate for {', '.join(missing)}: requests for it get no bid"
            yield f"exchange {name}: {told} - at `$.currencies`"


def load_zones(path: Path, now_ms: int) -> np.ndarray:
    """A zones file as rows of dtype ZONE, sorted by hash, with the offsets in force at `now_ms`.

    Raises: ConfigError for unknown zones.
    """
    file = _read(path, Zones)
    moment = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    rows: list[tuple[int, int]] = []
    for dim, table in ((Dim.COUNTRY, file.countries), (Dim.REGION, file.regions)):
        for name, zone in table.items():
            try:
                offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
            except (OSError, ValueError, KeyError) as error:
                raise ConfigError(f"{path}: no zone {zone!r} - at `{name}`") from error
            minutes = int(offset.total_seconds() // 60) if offset else 0
            rows.append((token_hash(dim, name.encode()), minutes))
    if len(rows) > ZONES_MAX:
        raise ConfigError(f"{path}: {len(rows)} zones, at most {ZONES_MAX}")
    return np.array(sorted(rows), ZONE)


def check_profiles(source: str) -> None:
    """Raises: ConfigError for a profile source that no store can be opened by."""
    if source != "lmdb" and not source.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(f"neither lmdb nor a redis URL: {source!r} - at `$.profiles.source`")


def terms_of(
    exchange: Exchange,
    rates: np.ndarray,
    zones: np.ndarray,
    candidates_max: int,
    generation: int,
) -> Terms:
    """What the node adds to every request of one exchange."""
    terms = Terms()
    row = terms.data[0]
    seat = exchange.seat.encode()
    row["exchange"] = exchange.token
    row["seat_w"] = token_hash(Dim.WSEAT, seat)
    row["seat_b"] = token_hash(Dim.BSEAT, seat)
    row["seat_dw"] = token_hash(Dim.DEAL_WSEAT, seat)
    row["at_default"] = exchange.auction_type_default
    row["cur_default"] = currency_code(exchange.default_currency)
    codes = [currency_code(name) for name in exchange.currencies[:CURRENCIES_MAX]]
    row["currencies"][: len(codes)] = codes
    row["currencies_count"] = len(codes)
    row["candidates_max"] = candidates_max
    row["generation"] = generation
    row["rates_count"], row["zones_count"] = len(rates), len(zones)
    row["rates"][: len(rates)] = rates
    row["zones"][: len(zones)] = zones
    return terms


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
