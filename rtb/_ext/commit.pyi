from collections.abc import Callable
from typing import Any

from rtb.base.links import Sheets
from rtb.base.records import Decision, Opportunity
from rtb.notices.tokens import Keyring
from rtb.server.commit import CountsBids, FallsBack, Payment, Signs
from rtb.stores.board_money import Purse

class Commit:
    @property
    def stopped(self) -> bool: ...
    def __init__(
        self,
        purse: Purse,
        append: Callable[[int, bytes], int],
        signer: Signs,
        keyring: Keyring,
        node: int,
        worker: int,
        not_before_s: int = 0,
        caps: CountsBids | None = None,
    ) -> None: ...
    def serve(self, arrays: Any) -> None: ...
    def pay(
        self,
        opportunity: Opportunity,
        decision: Decision,
        engine: FallsBack,
        payment: Payment,
        person: int,
        flags: int,
        now_ms: int,
        sheets: Sheets,
    ) -> int: ...
