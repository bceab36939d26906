"""What a worker pays from, records to and signs with; opened once, before its socket.

journal   its own, locked for as long as it lives
purse     its rows of the money board
caps      counts of bids in flight and impressions, for frequency caps
commit    the step of the bid path that uses both
overlay   a row a line item: what the keeper says of it, brought up to date between requests
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.base.events import Kind, record_time_ms
from rtb.base.links import Links
from rtb.base.money import currency_name
from rtb.base.records import MULTIPLIER_E6_ONE, OVERLAY, PARTICIPATION_E4_ALL
from rtb.exchanges import prices
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Notice, Terms
from rtb.notices.tokens import Keyring, keyring
from rtb.notices.urls import Urls
from rtb.server.kernels import Kernels
from rtb.server.settings import Journal as JournalSettings
from rtb.server.settings import Notices, Settings
from rtb.stores.board_money import MoneyBoard, Purse
from rtb.stores.caps import Limits as CapsLimits
from rtb.stores.caps import Stored
from rtb.stores.caps_board import CapsBoard
from rtb.stores.caps_table import CapsTable
from rtb.stores.journal import ALL_KINDS, Kernel, kinds_of
from rtb.stores.journal_read import Reader, first_sequence
from rtb.stores.journal_write import Journal, Limits
from rtb.stores.serving import StatePaths

log = logging.getLogger("rtb.money")

# How often the keeper is answered and its word on line items looked at: a few turns of the keeper
# are all that a lease waits for.
REST_S: Final = 0.02
_SECRET_BYTES: Final = 32
# How many records without a bid are walked over for one: a tenth of a second at most.
_LOOK_BACK: Final = 100_000
_BIDS: Final = kinds_of(Kind.BID)


def ensure_secret(path: Path) -> bytes:
    """The node's own secret, drawn when there is none yet. Raises: ConfigError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = path.with_suffix(".new")
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(file, secrets.token_hex(_SECRET_BYTES).encode())
                os.fsync(file)
            finally:
                os.close(file)
            fresh.replace(path)
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot keep the secret of notices: {error} - at `{path}`") from error


def keyring_of(config: Notices, paths: StatePaths, environ: Mapping[str, str]) -> Keyring:
    """The secrets of notices: those that settings name, else the node's own.

    Raises: ConfigError.
    """
    if not config.secrets:
        own = ensure_secret(paths.notice_secret)
        return Keyring(config.current_secret, {config.current_secret: own})
    try:
        variables = {int(key): name for key, name in config.secrets.items()}
    except ValueError as error:
        raise ConfigError("ids of secrets are numbers - at `$.notices.secrets`") from error
    return keyring(config.current_secret, variables, environ)


def base_url(config: Settings) -> str:
    """Where notice URLs begin."""
    server = config.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return config.notices.base_url or f"http://{host}:{server.port}"


def terms_of(exchanges: Mapping[str, Exchange], environ: Mapping[str, str]) -> dict[int, Terms]:
    """How notices of each exchange are read, by its key in claims. Raises: ConfigError."""
    return {one.claim_key: Terms(one, prices.reader(one, environ)) for one in exchanges.values()}


def check(
    config: Settings,
    exchanges: Mapping[str, Exchange],
    paths: StatePaths,
    environ: Mapping[str, str],
) -> None:
    """Finds faults of secrets and URLs before anything starts. Raises: ConfigError."""
    keyring_of(config.notices, paths, environ)
    terms_of(exchanges, environ)
    for exchange in exchanges.values():
        Urls(base_url(config), exchange)


def limits_of(config: JournalSettings) -> Limits:
    """The journal's limits as settings have them."""
    return Limits(segment_bytes=config.segment_mb << 20, commit_ms=config.commit_ms)


def first_second(directory: Path, worker: int, last: int, kernel: Kernel) -> int:
    """The second from which ids were not given away: that after the journal's last bid.

    Not after its last record: a clock may have been set back between them, and only bids keep to
    their second then. Where the last records hold no bid, the newest of them stands for it.

    last: sequence of the last record; what cannot be read may have been written just now
    """
    if not last:
        return 0
    try:
        newest_ms = _newest_ms(directory, worker, last, kernel)
    except StoreCorrupt as error:
        log.error("ids begin a second later: %s", error)
        newest_ms = None
    return (time.time_ns() // 10**9 if newest_ms is None else newest_ms // 1000) + 1


def _newest_ms(directory: Path, worker: int, last: int, kernel: Kernel) -> int | None:
    """When the last bid was made, or the last record. Raises: StoreCorrupt."""
    oldest = first_sequence(directory, worker)
    for kinds, count in ((_BIDS, 1_000), (_BIDS, _LOOK_BACK), (ALL_KINDS, 1)):
        after = max(last - count, oldest - 1)
        with Reader(directory, worker, after, kernel, kinds=kinds) as reader:
            records = reader.read(count)
            if reader.position < last:
                records += reader.read(count)
        if records:
            return max(record_time_ms(kind, body) or 0 for _, kind, body in records) or None
    return None


def _identity(directory: Path, worker: int, kernel: Kernel) -> int:
    """Of a worker's journal, which must exist."""
    with Reader(directory, worker, kernel=kernel) as reader:
        reader.durable_sequence()
        return reader.identity


class Money:
    """One worker's side of the money. One thread, the loop's, calls all methods.

    kernel: of the journal; environ: holds the secrets
    """

    def __init__(
        self,
        number: int,
        config: Settings,
        paths: StatePaths,
        exchanges: Mapping[str, Exchange],
        kernels: Kernels,
        environ: Mapping[str, str],
        stored: Stored | None,
    ) -> None:
        """stored: counts of impressions, where they do not come with profiles.

        Raises: StoreError, ConfigError.
        """
        self.keyring = keyring_of(config.notices, paths, environ)
        self.terms = terms_of(exchanges, environ)
        self._base = base_url(config)
        self._urls = {name: Urls(self._base, one) for name, one in exchanges.items()}
        limits, kernel = limits_of(config.journal), kernels.journal
        self.journal = Journal.open(paths.journals, number, limits, kernel)
        last = self.journal.last_sequence
        not_before_s = first_second(paths.journals, number, last, kernel)
        board = MoneyBoard.open(paths.money_board)
        self.caps: Any = kernels.caps(
            CapsBoard.open(paths.caps_board),
            number,
            config.money.node,
            _identity(paths.journals, number, kernel),
            CapsLimits(config.caps.in_flight_ms, config.caps.reader_ms_max),
            stored,
            self.journal.append,
        )
        self._table: CapsTable | None = None
        self._arrays: Mapping[str, Any] | None = None
        self.purse = Purse(board, number, lambda: self.journal.last_sequence)
        self.commit: Any = kernels.commit(
            self.purse,
            self.journal.append,
            kernels.signer(self.keyring),
            self.keyring,
            config.money.node,
            number,
            not_before_s,
            self.caps,
        )
        self.overlay: npt.NDArray[np.void] = np.zeros(0, OVERLAY)
        self._seen = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def writable(self) -> bool:
        """Whether new bids may be made."""
        return self.journal.writable

    def links(self, exchange: str, currency: int) -> Links:
        """The notice links of an exchange's path name and a currency."""
        return self._urls[exchange].links(currency_name(currency))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to commit records, and to answer the keeper."""
        self._loop = loop
        self.journal.start(loop)
        self._rest()

    def table_of(self, arrays: Mapping[str, Any]) -> CapsTable:
        """The caps of the snapshot that is served next. Takes its time: for a thread."""
        return CapsTable.of(arrays, self._table)

    def serve(self, arrays: Mapping[str, Any], table: CapsTable | None = None) -> None:
        """Pays for bids of a snapshot from now on; again for the same one does nothing.

        table: what `table_of` made of it.
        """
        if arrays is self._arrays:
            return
        self._arrays = arrays
        self._table = table if table is not None else self.table_of(arrays)
        self.caps.serve(self._table)
        self.commit.serve(arrays)
        rows = np.zeros(len(arrays["line_items"]), OVERLAY)
        rows["multiplier_e6"], rows["participation_e4"] = MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
        self.overlay, self._seen = rows, -1
        self.follow()

    def follow(self) -> None:
        """Answers the keeper, and takes note of what it says of line items."""
        self.purse.rest()
        changes = self.purse.changes()
        if changes != self._seen:
            self._seen = changes
            self.purse.hold_back(self.overlay)

    def _rest(self) -> None:
        assert self._loop is not None
        self.follow()
        self._timer = self._loop.call_later(REST_S, self._rest)

    def noted(self, notice: Notice, sequence: int) -> None:
        """A notice was recorded: what was in flight was shown, or is free again."""
        claims = notice.claims
        if notice.kind == Kind.IMPRESSION:
            self.caps.shown(
                claims.person, claims.bid, claims.line_item, claims.creative, sequence,
                notice.time_ms,
            )  # fmt: skip
        elif notice.kind == Kind.LOSS:
            self.caps.lost(claims.person, claims.bid, notice.time_ms)

    def close(self) -> None:
        """Makes everything durable, answers the keeper a last time, and lets go."""
        if self._timer is not None:
            self._timer.cancel()
        self.journal.close()
