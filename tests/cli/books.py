"""A node whose books and journals are audited: its directory is laid out as `rtb serve` does it."""

from dataclasses import dataclass
from pathlib import Path

from rtb.base.events import Kind, bid_time_s
from rtb.exchanges.settings import Exchange
from rtb.keeper.reconcile import Node as Audited
from rtb.sim.invoice import Entry, Invoice
from rtb.stores.ledger_view import LedgerView
from rtb.stores.serving import StatePaths
from tests.keeper.node import Bid, Node, Worker
from tests.keeper.records import EXCHANGES
from tests.stores.journals import COMPILED


@dataclass
class Laid(Node):
    """A node in a state directory."""

    def __post_init__(self) -> None:
        self.paths = StatePaths(self.folder)
        self.paths.ledger.parent.mkdir(parents=True)
        super().__post_init__()

    def start_keeper(self) -> None:
        """Books and letters where a state directory has them."""
        self.books_url, self.letters = self.paths.ledger_url, self.paths.letters
        super().start_keeper()

    @property
    def audited(self) -> Audited:
        """What an audit is given."""
        return Audited(self.paths, EXCHANGES, COMPILED)

    def view(self) -> LedgerView:
        """The books, to look at."""
        return LedgerView.open(self.books_url)


def configs_of(folder: Path) -> Path:
    """A folder of settings with the exchanges of `tests.keeper.records`."""
    exchanges = folder / "configs" / "exchanges"
    exchanges.mkdir(parents=True)
    for exchange in EXCHANGES.values():
        (exchanges / f"{exchange.name}.toml").write_text(_toml(exchange))
    return exchanges.parent


def _toml(exchange: Exchange) -> str:
    said = {"name": exchange.name, "path": exchange.path, "settle_on": exchange.settle_on,
            "empty_price": exchange.empty_price}  # fmt: skip
    return "auction_type_default = 1\n" + "".join(f'{key} = "{said[key]}"\n' for key in said)


def bill(node: Node, worker: Worker, line_item: int, count: int, micros: int = 700) -> list[Bid]:
    """Bids of a line item, each billed at a CPM, all in the books."""
    found: list[Bid] = []
    while len(found) < count:
        bid = worker.bid(line_item)
        if bid is None:
            node.turn()
            continue
        found.append(bid)
        worker.notice(Kind.BILL, bid, micros)
        if len(found) % 40 == 0:  # as much as the journal's thread would let through
            node.turn()
    node.turns(2)
    return found


def invoice_of(path: Path, bids: list[Bid], micros: int = 700, exchange: str = "adx") -> Path:
    """An invoice with a line for each bid."""
    invoice = Invoice(path)
    for bid in bids:
        name = int(bid.said["bid"][0])
        moment_ms = bid_time_s(name) * 1000
        invoice.add(Entry(f"{name:016x}", "1", micros, "USD", moment_ms, exchange))
    invoice.close()
    return path
