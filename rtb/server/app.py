"""The Starlette application: the reference route for bids, and what operators look at.

POST /openrtb2/<exchange>/bid   the same answers as the fast lane, for any way of sending
GET  /n/...                     notices, as `rtb.notices.urls` lays them out
GET  /healthz                   200 while the process lives
GET  /readyz                    200 when bids can be answered, else 503
GET  /status                    JSON: generation, kernels, workers, limits in force
GET  /metrics                   Prometheus text of all workers
GET  /metrics/detail            the same of line items, by a process of its own
"""

import asyncio
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rtb import __version__
from rtb.base.errors import InputError, WireError
from rtb.base.events import Kind
from rtb.notices.urls import PATHS, PREFIX
from rtb.server import metrics
from rtb.server.bid import NS_PER_MS, Bidder, Endpoint, Reply, error_body
from rtb.server.notices import Answer, NoticeDesk
from rtb.stores.board import Board, Http

JSON_HEADERS: Final = {"content-type": "application/json", "x-openrtb-version": "2.6"}
DETAIL: Final = (sys.executable, "-m", "rtb.server.metrics_detail")
DETAIL_S: Final = 30.0
# Of a notice's body: three fields of a conversion fit many times.
FORM_BYTES_MAX: Final = 8_192
# Of gzip: who writes in pieces needs a few; thousands of empty ones would hold up the loop.
MEMBERS_MAX: Final = 16
_CLOSE: Final = {"connection": "close"}
VERSION_HEADER: Final = {"x-openrtb-version": "2.6"}
# Representations that we know and do not speak (OpenRTB 2.6 section 2.3): better told than guessed.
BINARY_TYPES: Final = ("application/x-protobuf", "application/octet-stream", "avro/binary")


class BodyError(Exception):
    """A body that never became readable: HTTP status and what to tell the sender."""

    def __init__(self, status: int, error: InputError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


class Inflater:
    """gzip or deflate, undone piece by piece, never further than the limit.

    deflate is zlib (RFC 9110 section 8.4.1.2); raw deflate, which some senders mean, is taken too.
    gzip may have several members (RFC 1952 section 2.2), up to `MEMBERS_MAX`.
    """

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._encoding = encoding
        self._limit = limit_bytes
        self._engine = zlib.decompressobj(31 if encoding == "gzip" else 15)
        self._first = True
        self._members = 1
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises: BodyError over the limit, or for bytes that are not what they claim."""
        self._feed(data)
        while self._engine.unused_data and self._encoding == "gzip":
            data = self._next()
            self._feed(data)

    def _next(self) -> bytes:
        """Begins another member; what is there of it."""
        data = self._engine.unused_data
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise BodyError(400, WireError(f"more than {MEMBERS_MAX} members of gzip"))
        self._engine = zlib.decompressobj(31)
        return data

    def _feed(self, data: bytes) -> None:
        room = self._limit - len(self.body) + 1
        try:
            out = self._engine.decompress(data, room)
        except zlib.error as error:
            if not self._first or self._encoding == "gzip":
                raise BodyError(400, WireError(f"bad {self._encoding}: {error}")) from error
            self._engine = zlib.decompressobj(-15)
            out = self._raw(data, room)
        self._first = False
        self.body += out
        if len(self.body) > self._limit:
            raise BodyError(413, WireError(f"body over {self._limit} bytes once unpacked"))

    def _raw(self, data: bytes, room: int) -> bytes:
        try:
            return self._engine.decompress(data, room)
        except zlib.error as error:
            raise BodyError(400, WireError(f"bad deflate: {error}")) from error

    def end(self) -> bytes:
        """The whole body. Raises: BodyError when the stream is cut, or something follows it."""
        if not self._engine.eof:
            raise BodyError(400, WireError(f"{self._encoding} ends too early"))
        if self._engine.unused_data:
            raise BodyError(400, WireError(f"bytes after the end of {self._encoding}"))
        return bytes(self.body)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, decompressed, within the limit on both sides of the compression.

    Raises: BodyError.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise BodyError(415, WireError(f"content-encoding {encoding[:40]!r} is not spoken here"))
    media = _media(request)
    if media in BINARY_TYPES:
        raise BodyError(415, WireError(f"content-type {media} is not spoken here; send JSON"))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise BodyError(413, WireError(f"body over {limit_bytes} bytes"))
    inflater = None
    if encoding not in ("identity", ""):
        inflater = Inflater("deflate" if encoding == "deflate" else "gzip", limit_bytes)
    plain = bytearray()
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit_bytes:
            raise BodyError(413, WireError(f"body over {limit_bytes} bytes"))
        if inflater is None:
            plain += chunk
        elif chunk:
            inflater.feed(chunk)
    return bytes(plain) if inflater is None else inflater.end()


def _media(request: Request) -> str:
    """The media type of a body, without parameters; "" where it is not said."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class Framing:
    """Refuses requests that HTTP/1.1 does not allow, and its parser lets through.

    400   not exactly one `host` (RFC 9112 section 3.2)
          a transfer coding besides chunked: what is compressed says so by `content-encoding`. Not
          the 501 of section 6.1: no request is our fault
    """

    def __init__(self, app: ASGIApp, refused: Callable[[], None]) -> None:
        self._app, self._refused = app, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _unframed(scope) if scope["type"] == "http" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        self._refused()
        await answer(scope, receive, send)


def _unframed(scope: Scope) -> Response | None:
    """What is wrong with the head of a request; None where nothing is."""
    names = [name for name, _ in scope["headers"]]
    if scope["http_version"] == "1.1" and names.count(b"host") != 1:
        return PlainTextResponse("exactly one host is needed", 400, _CLOSE)
    if b"transfer-encoding" in names:
        codings = Headers(raw=scope["headers"]).getlist("transfer-encoding")
        if [coding.strip().lower() for coding in ",".join(codings).split(",")] != ["chunked"]:
            return PlainTextResponse("chunked is the one transfer coding spoken", 400, _CLOSE)
    return None


class Application:
    """The routes of one worker."""

    def __init__(
        self,
        bidder: Bidder,
        notices: NoticeDesk,
        board: Board,
        ready: Callable[[], str],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._bidder = bidder
        self._notices = notices
        self._board = board
        self._ready = ready
        self._status = status
        self._detailing = False
        self.asgi = Starlette(
            routes=[
                Route("/openrtb2/{exchange}/bid", self.bid, methods=["POST"]),
                Route("/n/{rest:path}", self.notice, methods=["GET", "POST"]),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/status", self.status),
                Route("/metrics", self.metrics),
                Route("/metrics/detail", self.detail),
            ],
            middleware=[Middleware(Framing, lambda: bidder.meter.http(Http.BAD_HTTP))],
        )
        # A POST that is sent elsewhere is not sent again by everybody: a wrong path is a 404.
        self.asgi.router.redirect_slashes = False

    async def bid(self, request: Request) -> Response:
        """One bid request, sent in any way that HTTP knows."""
        endpoint = self._bidder.endpoints.get(request.path_params["exchange"].encode())
        if endpoint is None:
            return PlainTextResponse("no such exchange", 404)
        started_ns = request.scope.get("rtb.arrived_ns") or time.monotonic_ns()
        try:
            body = await read_body(request, endpoint.exchange.body_bytes_max)
        except BodyError as error:
            self._bidder.refuse(endpoint, started_ns)
            if error.status == 413:
                self._bidder.meter.http(Http.BODY_TOO_LARGE)
            return Response(error_body(error.error), error.status, JSON_HEADERS)
        except ClientDisconnect:
            self._bidder.refuse(endpoint, started_ns)
            return Response(status_code=400)
        turn_ns = request.scope.get("rtb.turn_ns") or time.monotonic_ns()
        return _response(await self._answer(endpoint, body, started_ns, turn_ns))

    async def _answer(
        self, endpoint: Endpoint, body: bytes, started_ns: int, turn_ns: int
    ) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def later(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        reply = self._bidder.answer(endpoint, body, 0, started_ns, turn_ns, later)
        return reply if reply is not None else await future

    async def notice(self, request: Request) -> Response:
        """One notice; whoever only asks for its head is told nothing, and nothing is recorded."""
        if request.method == "HEAD":
            return Response()
        try:
            form = await _form(request)
        except ClientDisconnect:
            return Response(status_code=400)
        target: bytes = request.scope["raw_path"]
        said = b"&".join(part for part in (request.scope["query_string"], form) if part)
        if said:
            target += b"?" + said
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def later(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        answer = self._notices.answer(target, time.time_ns() // NS_PER_MS, later) or await future
        response = Response(answer.body, answer.status)
        response.raw_headers += answer.headers
        return response

    async def healthz(self, request: Request) -> Response:
        """Alive: nothing is asked but that the loop turns."""
        return PlainTextResponse("ok")

    async def readyz(self, request: Request) -> Response:
        """Ready: a snapshot is served, kernels are warm, nobody asked us to stop."""
        missing = self._ready()
        return PlainTextResponse(missing or "ready", 503 if missing else 200)

    async def status(self, request: Request) -> Response:
        """What runs here."""
        body = orjson.dumps({"version": __version__, **self._status()}, option=orjson.OPT_INDENT_2)
        return Response(body, headers={"content-type": "application/json"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus text format, summed over all workers of the node."""
        names = [endpoint.exchange.name for endpoint in self._bidder.endpoints.values()]
        # Milliseconds of work: aside, so that bids go on.
        body = await run_in_threadpool(metrics.exposition, self._board, names)
        return Response(body, headers={"content-type": metrics.CONTENT_TYPE})

    async def detail(self, request: Request) -> Response:
        """Line items one by one; one who asks at a time, as it is a second of work."""
        if self._detailing:
            return PlainTextResponse("somebody else asks just now", 503, {"retry-after": "5"})
        self._detailing = True
        try:
            body = await _printed(*DETAIL, str(self._board.path.parents[1]))
        finally:
            self._detailing = False
        if body is None:
            return PlainTextResponse("it cannot be told: see the log", 500)
        return Response(body, headers={"content-type": metrics.CONTENT_TYPE})


async def _form(request: Request) -> bytes:
    """The fields that the POST of a conversion brings in its body, as a query has them, else b"".

    Any body is read, so that the connection can go on with what comes behind it; one over its limit
    is not, and ends the connection. Raises: ClientDisconnect.
    """
    if request.method != "POST":
        return b""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            return b""
    is_form = _media(request) == "application/x-www-form-urlencoded"
    is_conversion = request.scope["path"].startswith(f"{PREFIX}{PATHS[Kind.CONVERSION, 0]}/")
    return bytes(body).strip() if is_form and is_conversion else b""


async def _printed(*command: str) -> bytes | None:
    """What a command prints; None when it fails, or takes too long."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        body, _ = await asyncio.wait_for(process.communicate(), DETAIL_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return body if process.returncode == 0 else None


def _response(reply: Reply) -> Response:
    status, body = reply
    if status == 204:
        return Response(status_code=204, headers=VERSION_HEADER)
    return Response(body, status, JSON_HEADERS)
