"""What a chunked body announces, read ahead of the parser, which only tells what has come.

A chunk of 2^64-1 bytes is refused when it is announced: nobody waits for it to come. Anything that
is not as it should be is left to the parser, which refuses it by itself.
"""

from typing import Final

# A size and its extensions; longer lines are not followed.
_LINE_BYTES_MAX: Final = 256
_CRLF_BYTES: Final = 2


class ChunkSizes:
    """Follows the chunks of one body. limit_bytes: of all of them together."""

    __slots__ = ("_announced", "_left", "_limit", "_line")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._announced = 0
        self._left = 0  # of a chunk, and of the line break behind it
        self._line: bytes | None = b""  # a size so far; None: not followed any more

    def feed(self, data: bytes) -> bool:
        """Whether more is announced than may come; data: the next bytes of the body."""
        at = 0
        while at < len(data) and self._line is not None:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left, at = self._left - step, at + step
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end if end >= 0 else len(data)]
            if len(self._line) > _LINE_BYTES_MAX:
                self._line = None
            elif end < 0:
                return False
            else:
                at = end + 1
                self._begin(self._line)
        return self._announced > self._limit

    def _begin(self, line: bytes) -> None:
        """A chunk of which the size is known; the last, and what is none, end it all."""
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = 0
        self._announced += max(size, 0)
        self._left = size + _CRLF_BYTES
        self._line = b"" if 0 < size and self._announced <= self._limit else None
