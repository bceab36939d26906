"""The door of a node: verifies a new snapshot or model, and lets it in by the generation file.

Verifying reads and hashes the whole file, a tenth of a second for 10,000 line items. It is done in
a child with low priority, so that neither the workers nor their supervisor wait for it, and so that
a file that kills its reader kills nothing else.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from rtb.base.errors import CatalogueError, RtbError, StoreError
from rtb.decide.model import MODEL_KIND, Model
from rtb.stores import artifacts
from rtb.stores.serving import ServingFile, StatePaths, read_serving, stamp, write_serving

log = logging.getLogger("rtb.door")

RESULT_BYTES_MAX: Final = 4096


class Door:
    """Verifies what `current` names. What is refused is logged once, and left out.

    before: called with each new generation, right before it is let in
    """

    def __init__(self, paths: StatePaths, nice: int = 0) -> None:
        self.before: Callable[[int], None] = lambda generation: None
        self._paths = paths
        self._nice = nice
        self._seen: tuple[object, object] | None = None
        self._child = 0
        self._pipe = -1

    def look(self) -> None:
        """Verifies here and now: before there is anybody to wait.

        Raises: StoreError when the generation file cannot be read or written.
        """
        if self._is_new():
            self._let_in(self._examine())

    def poll(self) -> None:
        """Begins to verify what is new, or lets in what was verified. Never waits.

        Raises: StoreError when the generation file cannot be read or written.
        """
        if self._child:
            self._collect()
        elif self._is_new():
            self._begin()

    @property
    def verifying(self) -> int:
        """The process that verifies; 0: none does."""
        return self._child

    def close(self) -> None:
        """Gives up what is being verified."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._end()

    def _is_new(self) -> bool:
        now = (
            stamp(self._paths.snapshots / artifacts.CURRENT),
            stamp(self._paths.models / artifacts.CURRENT),
        )
        new = now != self._seen
        self._seen = now
        return new

    # -- the child --------------------------------------------------------------------------------

    def _begin(self) -> None:
        reader, writer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            self._be_child(writer)
        os.close(writer)
        self._pipe = reader

    def _be_child(self, writer: int) -> None:
        """Never returns."""
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.nice(self._nice)
            found = self._examine()
            if found is not None:
                os.write(writer, msgspec.json.encode(found))
            code = 0
        except RtbError as error:
            log.error("%s", error)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _collect(self) -> None:
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if not pid:
            return
        # What it wrote lies in the pipe, whole: it is shorter than a pipe holds.
        result = os.read(self._pipe, RESULT_BYTES_MAX)
        self._end()
        code = os.waitstatus_to_exitcode(status)
        if code:
            log.error("verifying ended with %d: the last good ones stay", code)
        elif result:
            self._let_in(msgspec.json.decode(result, type=ServingFile))

    def _end(self) -> None:
        os.close(self._pipe)
        self._child, self._pipe = 0, -1

    # -- verifying --------------------------------------------------------------------------------

    def _let_in(self, after: ServingFile | None) -> None:
        if after is None:
            return
        self.before(after.generation)
        write_serving(self._paths, after)
        log.info("generation %d: %s %s", after.generation, after.snapshot, after.model)

    def _examine(self) -> ServingFile | None:
        """The next generation; None when there is nothing new that is good."""
        before = read_serving(self._paths)
        snapshot = self._snapshot()
        model = self._model()
        if snapshot is None:
            if before is None:
                return None
            snapshot = (before.snapshot, before.snapshot_hash)
        if model is None:
            model = (before.model, before.model_hash) if before else ("", "")
        after = ServingFile(
            generation=before.generation + 1 if before else 1,
            snapshot=snapshot[0],
            snapshot_hash=snapshot[1],
            model=model[0],
            model_hash=model[1],
        )
        if before and (after.snapshot, after.model) == (before.snapshot, before.model):
            return None
        return after

    def _snapshot(self) -> tuple[str, str] | None:
        try:
            path = artifacts.current(self._paths.snapshots, artifacts.SNAPSHOT)
            if path is None:
                return None
            snapshot = artifacts.open_snapshot(path, verify=True)
        except (StoreError, CatalogueError) as error:
            log.error("snapshot refused, the last good one stays: %s", error)
            return None
        return str(path.relative_to(self._paths.root)), snapshot.content_hash

    def _model(self) -> tuple[str, str] | None:
        try:
            path = artifacts.current(self._paths.models, MODEL_KIND)
            if path is None:
                return None
            model = Model.of(*artifacts.open_artifact(path, MODEL_KIND, verify=True))
        except (StoreError, CatalogueError) as error:
            log.error("model refused, the last good one stays: %s", error)
            return None
        return str(path.relative_to(self._paths.root)), model.content_hash
