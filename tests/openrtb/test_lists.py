"""Numbered lists and countries."""

import pytest

from rtb.openrtb.countries import ALPHA3
from rtb.openrtb.lists import Protocol, vast_protocol, vast_version


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0", "4.0", "4.1", "4.2", "4.3"])
@pytest.mark.parametrize("wrapper", [False, True])
def test_vast_numbers_both_ways(version: str, wrapper: bool):
    """A wrapper has a number of its own, and the number leads back."""
    number = vast_protocol(version, wrapper=wrapper)
    assert (version, wrapper) == vast_version(number)
    assert wrapper is ("WRAPPER" in number.name)


def test_daast_is_no_vast():
    """Numbers of other formats have no VAST version."""
    with pytest.raises(KeyError):
        vast_version(Protocol.DAAST)


def test_countries():
    """Every alpha-2 code leads to three capital letters; 249 of ISO 3166-1 and two more."""
    assert 251 == len(ALPHA3)
    assert "USA" == ALPHA3["US"]
    assert "DEU" == ALPHA3["DE"]
    assert "GBR" == ALPHA3["UK"]
    assert all(len(code) == 3 and code.isupper() for code in ALPHA3.values())
    assert 250 == len(set(ALPHA3.values()))
