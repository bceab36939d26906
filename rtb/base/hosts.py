"""Host names in the letters of the DNS: what two spellings of one name are compared by."""

from functools import lru_cache
from typing import Final

_MARKS: Final = frozenset("/?#@:* \t\r\n")  # compatibility forms of these turn into them
# Block lists name the same hosts again and again; to encode one takes as long as a small request.
_CACHED_HOSTS_MAX: Final = 4096


def ascii_host(host: str) -> str:
    """A host as IDNA 2003 encodes it: "bücher.example" gives "xn--bcher-kva.example".

    One that is ASCII, or that cannot be encoded, stays as it is.
    """
    return host if host.isascii() else _encoded(host)


@lru_cache(_CACHED_HOSTS_MAX)
def _encoded(host: str) -> str:
    try:
        encoded = host.encode("idna").decode("ascii").strip(".")
    except UnicodeError:
        return host
    return host if not encoded or _MARKS & set(encoded) else encoded
