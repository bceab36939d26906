"""One keep-alive connection to a bidder: a request out, one whole answer in, and so on."""

import asyncio
from abc import ABC, abstractmethod
from typing import cast

from rtb.sim.wire import ANSWER_BYTES_MAX, Reply, read_answer


class Channel(asyncio.Protocol, ABC):
    """At most one request is in flight. Whoever owns it says what openings and answers mean."""

    __slots__ = ("_buffer", "transport")

    def __init__(self) -> None:
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    @abstractmethod
    def opened(self) -> None:
        """The connection is there."""

    @abstractmethod
    def answered(self, reply: Reply) -> None:
        """One whole answer came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by class, only by what they can do.
        self.transport = cast("asyncio.Transport", transport)
        self.opened()

    def write(self, message: bytes) -> None:
        """Sends a request; there must be a connection."""
        assert self.transport is not None
        self.transport.write(message)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        reply = read_answer(data)
        if reply is None:
            self._buffer = data
            if len(data) > ANSWER_BYTES_MAX:
                self.abort()
            return
        self._buffer = b""
        self.answered(reply)

    def abort(self) -> None:
        """Hangs up."""
        if self.transport is not None:
            self.transport.abort()
