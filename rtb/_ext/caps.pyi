from collections.abc import Callable, Sequence

from rtb.stores.caps import Append, Limits, Stored
from rtb.stores.caps_board import CapsBoard
from rtb.stores.caps_table import CapsTable
from rtb.stores.profiles import Record

class Caps:
    person: int
    def __init__(
        self,
        board: CapsBoard,
        worker: int,
        node: int,
        identity: int,
        limits: Limits = ...,
        stored: Stored | None = None,
        append: Append | None = None,
    ) -> None: ...
    @property
    def refused(self) -> int: ...
    @property
    def given_up(self) -> int: ...
    def serve(self, table: CapsTable) -> None: ...
    def refresh(self, now_ms: int, renew: Callable[[], object] | None = None) -> None: ...
    def view(
        self,
        keys: list[bytes],
        key: bytes | None,
        profile: Record | None,
        now_ms: int,
        counts: Sequence[Record | None] = (),
        is_test: bool = False,
    ) -> Record | None: ...
    def allows(self, line_item: int, creative: int, now_ms: int) -> bool: ...
    def bid(self, person: int, bid: int, line_item: int, creative: int, now_ms: int) -> bool: ...
    def shown(
        self, person: int, bid: int, line_item: int, creative: int, sequence: int, now_ms: int
    ) -> None: ...
    def lost(self, person: int, bid: int, now_ms: int) -> None: ...
    def tidy(self, now_ms: int, sets_max: int = 1024) -> None: ...
