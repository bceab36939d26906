"""The gate of the fast lane: is this buffer one whole plain bid request?"""

from bench.kernels.line import measure, show
from rtb._ext import head as compiled
from rtb.server import head as readable

BODY = b'{"id":"1","imp":[{"id":"1","banner":{"w":300,"h":250}}]}'
REQUEST = (
    b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: bidder.example:8080\r\n"
    b"content-type: application/json\r\nx-openrtb-version: 2.6\r\nuser-agent: exchange/1.0\r\n"
    b"accept-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


def main() -> None:
    """Prints a JSON line a twin."""
    show("head", measure(lambda: compiled.plain_bid(REQUEST), 20_000))
    show("head_readable", measure(lambda: readable.plain_bid(REQUEST), 2_000))


if __name__ == "__main__":
    main()
