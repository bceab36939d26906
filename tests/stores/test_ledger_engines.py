"""The engines of the books: what a server that breaks off lets out."""

import gc
import socket
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rtb.base.errors import StoreError
from rtb.stores.ledger_engines import engine_of, place_of, transaction

_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: a close is a reset


@contextmanager
def server(words: bytes, *, resets: bool = False) -> Iterator[str]:
    """URL of a server that says this to whoever connects, and closes at once.

    resets: as one that is killed, so that what the other side writes breaks.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                if resets:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"postgresql://rtb@127.0.0.1:{listener.getsockname()[1]}/books"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("words", "resets"),
    [
        (b"", False),
        (b"", True),
        (b"N", False),  # no encryption; then nothing
        (b"N", True),
        (b"\xff", False),  # no text
        (b"NHTTP/1.1 400 Bad Request\r\n\r\n", False),  # no PostgreSQL
        (b"NR\0\0\0\x08\0", False),  # breaks off in an answer
        (b"S", False),  # encryption that does not come
    ],
)
def test_a_server_that_breaks_off_is_a_passing_fault(words: bytes, resets: bool) -> None:
    """Whatever the driver makes of it, it is ours, may be tried again, and names the place."""
    with server(words, resets=resets) as url, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the driver leaves sockets unclosed
        engine = engine_of(url, 1000)
        for _ in range(5):  # it is chance which call finds the socket closed
            with pytest.raises(StoreError) as caught, transaction(engine, place_of(engine)):
                pass
            assert caught.value.transient
            assert str(caught.value).endswith(f"- at `{place_of(engine)}`")
            del caught
        engine.dispose()
        gc.collect()


@pytest.mark.parametrize("fault", [BrokenPipeError(32, "Broken pipe"), struct.error("4 bytes")])
def test_a_statement_that_breaks_off_is_a_passing_fault(fault: Exception) -> None:
    """A socket that breaks in a transaction is ours too, and leaves no transaction open."""
    engine = engine_of("sqlite://", 1000)
    passing = pytest.raises(StoreError, match=type(fault).__name__)
    with passing as caught, transaction(engine, place_of(engine)):
        raise fault
    assert caught.value.transient
    with transaction(engine, place_of(engine)) as connection:
        assert 1 == connection.exec_driver_sql("SELECT 1").scalar()
    engine.dispose()
