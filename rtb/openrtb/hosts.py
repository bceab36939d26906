"""Hosts out of whatever exchanges put into domain fields: URLs, ports, capitals, wildcards."""

from typing import Final

from rtb.base.hosts import ascii_host
from rtb.openrtb.reading import ascii_lower

HOST_BYTES_MAX: Final = 253  # RFC 1035: a longer one is no host name


def host_of(text: str) -> str:
    """The host that a domain field or URL names, ASCII-lowered; "" when there is none.

    In this order: cut everything up to "://", or leading slashes; cut from the first of `/?#`; cut
    up to the last `@`; cut from the first `:`; strip a leading "*." and dots at both ends.
    White space inside, or more than HOST_BYTES_MAX bytes: no host. Names in other scripts are
    encoded (`rtb.base.hosts`).
    """
    host = text.partition("://")[2] if "://" in text else text.lstrip("/")
    for mark in "/?#":
        host = host.partition(mark)[0]
    host = host.rpartition("@")[2].partition(":")[0]
    host = host.removeprefix("*.").strip(".")
    if len(host.encode()) > HOST_BYTES_MAX or any(char in " \t\r\n" for char in host):
        return ""
    return ascii_lower(ascii_host(host))


def blocked_host(text: str) -> str:
    """The host that a block or allow list means: "www.ford.com" there stands for "ford.com"."""
    host = host_of(text)
    return host.removeprefix("www.") if host.count(".") > 1 else host


def with_parents(host: str) -> list[str]:
    """A host and each parent that has a dot: a.b.example.com, b.example.com, example.com.

    An IPv4 address (its last label begins with a digit) has no parents.
    """
    labels = host.split(".")
    if not host or labels[-1][:1].isdigit():
        return [host] if host else []
    parents = [".".join(labels[start:]) for start in range(1, len(labels) - 1)]
    return [host, *parents]
