"""The export of journals: what its process does, and what the keeper knows and tells of it.

A segment that is to be exported is not removed before. So an export that fails fills the disk, and
that is said: on the board, for metrics, and in the log.
"""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, Final

from rtb.base.errors import ConfigError, RtbError
from rtb.base.events import Kind
from rtb.catalogue.snapshot import Snapshot
from rtb.exchanges.settings import Exchange
from rtb.notices.settle import settles
from rtb.stores import artifacts, events_export
from rtb.stores.events_export import Exporter
from rtb.stores.events_names import Exchange as Named
from rtb.stores.events_names import Names
from rtb.stores.journal import Kernel
from rtb.stores.serving import StatePaths, read_serving

log = logging.getLogger("rtb.export")

# Nobody waits for it: it takes what processor time others leave.
NICE: Final = 19
# Times that the export should have been made since a segment is whole, before it is called late.
LATE_TIMES: Final = 4
_BOOKING: Final = (Kind.WIN, Kind.BILL, Kind.IMPRESSION)


def check() -> None:
    """Raises: ConfigError where the library for Parquet is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("events are exported by pyarrow: pip install rtb[export]")


def exporter(
    paths: StatePaths, node: int, exchanges: Mapping[str, Exchange], kernel: Kernel
) -> Exporter:
    """Of a state directory, with the names that are known now."""
    named = {
        one.claim_key: Named(
            one.name,
            next(kind for kind in _BOOKING if settles(kind, one)),
            one.empty_price == "bid",
        )
        for one in exchanges.values()
    }
    return Exporter(paths.journals, paths.events, node, kernel, Names(named, _snapshot(paths)))


def _snapshot(paths: StatePaths) -> Snapshot | None:
    """What is served, or was published last."""
    try:
        file = read_serving(paths)
        if file is not None:
            return artifacts.open_snapshot(paths.root.joinpath(file.snapshot), verify=False)
        path = artifacts.current(paths.snapshots, artifacts.SNAPSHOT)
        return artifacts.open_snapshot(path) if path is not None else None
    except RtbError as error:
        log.warning("events are exported without names: %s", error)
        return None


def main(paths: StatePaths, node: int, exchanges: Mapping[str, Exchange], kernel: Kernel) -> None:
    """The body of the export's process. Raises: StoreError."""
    found = list(events_export.waiting(paths.journals, paths.events, kernel))
    if not any(one.segments for one in found):
        return
    damaged = {one.worker: one.progress.damaged for one in found}
    for worker, done in exporter(paths, node, exchanges, kernel).run():
        log.info("worker %d: exported up to record %d", worker, done.exported)
        lost = done.damaged - damaged.get(worker, 0)
        if lost:
            log.error("worker %d: %d damaged records are not in the export", worker, lost)
            damaged[worker] = done.damaged


class Watch:
    """What the keeper knows of the export.

    row: the keeper's on the board; every_s: how often it is made
    """

    def __init__(self, paths: StatePaths, kernel: Kernel, row: Any, every_s: int) -> None:
        self._paths, self._kernel, self._row, self._every_s = paths, kernel, row, every_s

    def look(self, now_s: int) -> dict[int, int]:
        """Up to which record each worker's journal is exported; tells how far that is behind.

        now_s: epoch. Raises: StoreError.
        """
        found = list(events_export.waiting(self._paths.journals, self._paths.events, self._kernel))
        paths = [segment.path for one in found for segment in one.segments]
        late_s = max((now_s - int(path.stat().st_mtime) for path in paths), default=0)
        self._row["export_lag_ms"] = max(late_s, 0) * 1000
        self._row["export_segments"] = len(paths)
        self._row["export_damaged"] = sum(one.progress.damaged for one in found)
        if late_s > LATE_TIMES * self._every_s:
            log.error(
                "to look at: %d segments wait to be exported, the oldest for %d s, and are not "
                "removed until they are", len(paths), late_s,
            )  # fmt: skip
        return {one.worker: one.progress.exported for one in found}


def may_remove(exported: Mapping[int, int], worker: int, position: int) -> int:
    """Records before this one may go: those that were booked, counted and exported."""
    return min(position, exported.get(worker, 0) + 1)
