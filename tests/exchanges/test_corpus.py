"""1,114 requests by other people decode; 74 faulty ones decode or are refused."""

import contextlib
from collections import Counter

import pytest

from rtb.base.errors import InputError
from rtb.base.records import Flag, Media, Opportunity
from rtb.exchanges.settings import Exchange

pytestmark = pytest.mark.corpus


def test_corpus_decodes(decode, generic: Exchange, corpus: list[bytes]):
    """Every request decodes, nearly all can be bid on, and all media occur."""
    opportunity = Opportunity()
    unusable = 0
    media: Counter[str] = Counter()
    for line in corpus:
        decode(line, generic, opportunity)
        head = opportunity.facts[0]["head"]
        unusable += bool(head["flags"] & Flag.UNUSABLE)
        for imp in opportunity.facts[0]["imps"][: head["imps_count"]]:
            media.update(medium.name for medium in Media if imp["media"] >> medium & 1)
    assert 1114 == len(corpus)
    # Native requests whose required assets have no id, negative sizes, a currency called "test".
    assert 19 == unusable
    assert {"BANNER", "VIDEO", "AUDIO", "NATIVE"} == set(media)


def test_malformed_decode_or_are_refused(decode, generic: Exchange, malformed: list[bytes]):
    """Faulty requests never raise anything of their own."""
    opportunity = Opportunity()
    usable = 0
    for line in malformed:
        with contextlib.suppress(InputError):
            decode(line, generic, opportunity)
            usable += not opportunity.facts[0]["head"]["flags"] & Flag.UNUSABLE
    assert 74 == len(malformed)
    assert 50 == usable
