"""The names of what records know by key: exchanges of the settings, the rest of a snapshot."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from rtb.base.money import currency_name
from rtb.catalogue.snapshot import Snapshot


class Exchange(NamedTuple):
    """What an exchange's settings say of its notices.

    settles_on: the kind that books; empty_is_bid: one without a price owes the bid
    """

    name: str
    settles_on: int
    empty_is_bid: bool


class LineItem(NamedTuple):
    """Whose a line item is; ids of the catalogue, keys of the books."""

    id: str
    campaign: str
    campaign_key: int
    advertiser: str
    advertiser_key: int
    currency: str


NO_EXCHANGES: Final[Mapping[int, Exchange]] = {}


class Names:
    """Looks up by key; what is not known any more has no name.

    exchanges: by `claims.exchange`; snapshot: None where nothing was served yet
    """

    def __init__(
        self, exchanges: Mapping[int, Exchange] = NO_EXCHANGES, snapshot: Snapshot | None = None
    ) -> None:
        self.exchanges = exchanges
        self._snapshot = snapshot
        self._line_items = self._rows("line_items", "key")
        self._creatives = self._rows("creatives", "key")
        self._products = self._rows("products", "item")

    def _rows(self, kind: str, key: str) -> dict[int, int]:
        if self._snapshot is None:
            return {}
        return {key: row for row, key in enumerate(self._snapshot[kind][key].tolist())}

    def line_item(self, key: int) -> LineItem | None:
        """Whose it is."""
        row = self._line_items.get(key)
        if row is None or self._snapshot is None:
            return None
        snapshot = self._snapshot
        item = snapshot["line_items"][row]
        campaign, owner = int(item["campaign"]), int(item["advertiser"])
        return LineItem(
            snapshot.id_of("line_items", row),
            snapshot.id_of("campaigns", campaign),
            int(snapshot["campaign_budgets"]["key"][campaign]),
            snapshot.id_of("advertisers", owner),
            int(snapshot["advertisers"]["key"][owner]),
            currency_name(int(item["currency"])),
        )

    def creative(self, key: int) -> str | None:
        """Its id."""
        return self._id("creatives", self._creatives.get(key))

    def product(self, key: int) -> str | None:
        """Its id."""
        return self._id("products", self._products.get(key))

    def _id(self, kind: str, row: int | None) -> str | None:
        if row is None or self._snapshot is None:
            return None
        return self._snapshot.id_of(kind, row)
