"""A node whose profiles are in Redis, and what it does without it."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from rtb.base.events import BID, Kind
from rtb.profiles import codec, identity
from rtb.stores.journal import READABLE
from rtb.stores.journal_kept import Records, kept_in
from rtb.stores.serving import StatePaths
from tests.server.conftest import Node, StartNode
from tests.server.test_answers import REQUEST
from tests.stores.test_profiles_redis import Server, needs_redis

IFA = "6d92078a-8246-4ba4-ae5b-76104861e7dc"


@pytest.fixture(name="server")
def server_fixture(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.kill()


@needs_redis
@pytest.mark.server
def test_redis_dies_hangs_and_returns(start_node: StartNode, server: Server) -> None:
    """Redis killed or stopped: bids go on in time, without a profile; it comes back by itself."""
    node = start_node("--profiles", server.url, line_items=100)
    person = json.dumps(REQUEST | {"user": {"buyeruid": "u1"}}).encode()
    node.wait_for(lambda: _asked(node, person, "miss"), 10)
    server.signal(signal.SIGSTOP)
    for _ in range(5):
        start = time.monotonic()
        assert 200 == node.post(person)[0]
        assert time.monotonic() - start < 0.5
    server.signal(signal.SIGCONT)
    node.wait_for(lambda: _asked(node, person, "miss"), 10)
    server.kill()
    for _ in range(5):
        assert 200 == node.post(person)[0]
    server.start()
    node.wait_for(lambda: _asked(node, person, "miss"), 10)


@needs_redis
@pytest.mark.server
def test_a_node_starts_without_redis(start_node: StartNode, server: Server) -> None:
    """It bids, and pays, for nobody; a keeper that is killed meanwhile is back; then Redis is."""
    server.kill()
    node = start_node("--profiles", server.url, line_items=100)
    person = json.dumps(REQUEST | {"user": {"buyeruid": "u1"}}).encode()
    node.wait_for(lambda: node.post(person)[0] == 200, 10)
    keeper = node.keeper_pid()
    os.kill(keeper, signal.SIGKILL)
    node.wait_for(lambda: node.keeper_pid() not in (0, keeper), 10)
    node.wait_for(lambda: node.post(person)[0] == 200, 10)

    server.start()
    node.wait_for(lambda: _asked(node, person, "miss"), 10)


@needs_redis
@pytest.mark.server
def test_redis_away_names_nobody(start_node: StartNode, server: Server) -> None:
    """Who opted out stays nobody while Redis hangs and is gone: neither bid nor link names him."""
    node = start_node("--profiles", server.url, line_items=100)
    refused = codec.encode(codec.Profile(opt_out=True))
    node.wait_for(lambda: _stored(server.port, identity.buyer_key(b"u1"), refused), 10)
    ids = {"user": {"buyeruid": "u1"}, "device": REQUEST["device"] | {"ifa": IFA}}  # type: ignore[operator]
    person = json.dumps(REQUEST | ids).encode()
    node.wait_for(lambda: _asked(node, person, "hit"), 10)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        server.signal(number)
        for _ in range(10):
            assert 200 == node.post(person)[0]
    lookups = node.metric('rtb_profile_lookup_total{result="timeout"}')
    lookups += node.metric('rtb_profile_lookup_total{result="down"}')
    node.wait_for(lambda: len(_persons_in(node)[0]) > 20, 10)

    persons, links = _persons_in(node)
    assert lookups >= 20
    assert {0} == set(persons)
    assert 0 == links


def _stored(port: int, key: bytes, record: bytes) -> bool:
    """Whether Redis took a record."""
    with redis.Redis(port=port) as client, contextlib.suppress(redis.ConnectionError):
        return bool(client.set(key, record))
    return False


def _persons_in(node: Node) -> tuple[list[int], int]:
    """Of each bid in a node's journals whom it names; and how many links there are."""
    journals = StatePaths(node.data).journals
    records = [
        record
        for kept in kept_in(journals, READABLE)
        for record in Records(journals, kept, kept.last, READABLE)
    ]
    bids = [np.frombuffer(body, BID)[0] for _, kind, body in records if kind == Kind.BID]
    links = sum(kind == Kind.LINK for _, kind, _ in records)
    return [int(bid["claims"]["person"]) for bid in bids], links


def _asked(node: Node, body: bytes, result: str) -> bool:
    """Whether one more request moves the counter of look-ups with this result."""
    name = f'rtb_profile_lookup_total{{result="{result}"}}'
    before = node.metric(name)
    if node.post(body)[0] != 200:  # a disk that is busy with other tests stops paid bidding
        return False
    time.sleep(0.05)
    return node.metric(name) > before
