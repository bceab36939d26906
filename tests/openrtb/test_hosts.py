"""Hosts out of domain fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.openrtb.hosts import blocked_host, host_of, with_parents


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("Example.COM", "example.com"),
        ("www.example.com", "www.example.com"),
        ("https://example.com/a?b#c", "example.com"),
        ("//example.com/a", "example.com"),
        ("http://user:pw@example.com:8080/", "example.com"),
        ("example.com:443", "example.com"),
        ("example.com.", "example.com"),
        (".example.com", "example.com"),
        ("*.example.com", "example.com"),
        ("example.com?x=a://b", "b"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("https://Shop.BÜCHER.Example:80/x", "shop.xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("例え。テスト。", "xn--r8jz45g.xn--zckzah"),
        ("ü" * 60 + ".example", "ü" * 60 + ".example"),
        ("ü..example", "ü..example"),
        ("a／ü.example", "a／ü.example"),
        ("", ""),
        ("https://", ""),
        ("/", ""),
        ("two words.com", ""),
        ("x" * 254, ""),
    ],
)
def test_host_of(text: str, host: str):
    """URLs, ports, capitals and wildcards all name one host."""
    assert host == host_of(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("www.ford.com", "ford.com"),
        ("http://WWW.Ford.com/", "ford.com"),
        ("ford.com", "ford.com"),
        ("www.com", "www.com"),
        ("shop.ford.com", "shop.ford.com"),
        ("www.bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_blocked_host(text: str, host: str):
    """A block of www.x means x."""
    assert host == blocked_host(text)


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("a.b.example.com", ["a.b.example.com", "b.example.com", "example.com"]),
        ("example.com", ["example.com"]),
        ("localhost", ["localhost"]),
        ("10.0.0.1", ["10.0.0.1"]),
        ("", []),
    ],
)
def test_with_parents(host: str, hosts: list[str]):
    """Every parent with a dot, none for addresses."""
    assert hosts == with_parents(host)


@given(st.text())
def test_any_text_is_a_host_or_none(text: str):
    """No text raises, and no host keeps a separator."""
    host = host_of(text)
    assert not set(host) & set("/?#@: \t\r\n")
    assert all(host.endswith(parent) for parent in with_parents(host))
