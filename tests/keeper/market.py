"""What exchanges do to a node's bids, for tests: bills, losses, silence; late, twice, reordered."""

import heapq
from dataclasses import dataclass, field

from rtb.base.events import Kind
from tests.keeper.node import Bid, Node


@dataclass
class Market:
    """Traffic for some line items, and the fate of every bid.

    won, lost: share of bids that get a bill, a loss; the rest gets no answer
    """

    node: Node
    items: tuple[int, ...]
    won: float = 0.4
    lost: float = 0.6
    costs: tuple[int, ...] = (700, 1000)
    delay_ms: int = 400
    offered: int = 0  # opportunities
    billed: dict[int, int] = field(default_factory=dict)  # bid -> nanos, of delivered bills
    _waiting: list[tuple[int, int, Kind, Bid, int]] = field(default_factory=list)
    _seen: int = 0
    _count: int = 0

    def offer(self, most: int) -> None:
        """Up to `most` opportunities for each worker."""
        chance = self.node.chance
        for number in range(self.node.workers_count):
            count = chance.randrange(most + 1)
            self.offered += count
            for _ in range(count):
                worker = self.node.workers[number]
                if worker is not None:
                    worker.bid(chance.choice(self.items), chance.choice(self.costs))
        for bid in self.node.sent[self._seen :]:
            self._decide(bid)
        self._seen = len(self.node.sent)

    def _decide(self, bid: Bid) -> None:
        chance = self.node.chance
        fate = chance.random()
        if fate < self.won:
            nanos = bid.nanos - chance.randrange(100)
            for _ in range(chance.choice([1, 1, 2])):
                self._send(Kind.BILL, bid, nanos)
        elif fate < self.won + self.lost:
            self._send(Kind.LOSS, bid, -1)

    def _send(self, kind: Kind, bid: Bid, nanos: int) -> None:
        self._count += 1
        due = self.node.now_ms + self.node.chance.randrange(self.delay_ms)
        heapq.heappush(self._waiting, (due, self._count, kind, bid, nanos))

    def deliver(self) -> None:
        """Notices that are due reach any worker that is alive."""
        alive = [worker for worker in self.node.workers if worker is not None]
        while alive and self._waiting and self._waiting[0][0] <= self.node.now_ms:
            _, _, kind, bid, nanos = heapq.heappop(self._waiting)
            self.node.chance.choice(alive).notice(kind, bid, nanos)
            if kind == Kind.BILL:
                self.billed[int(bid.said["bid"][0])] = nanos

    def play(self, turns: int, most: int = 12) -> None:
        """Opportunities, notices and time."""
        for _ in range(turns):
            self.offer(most)
            self.deliver()
            self.node.turn()

    def finish(self) -> None:
        """No more traffic: all notices come, and what got no answer expires."""
        for _ in range(20):
            self.deliver()
            self.node.turn()
        self.node.turns(4, 20_000)
        self.node.turns(4)
