"""People move from the embedded store to Redis, and are explained alike from both."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.cli.main import gathered
from rtb.profiles import codec, identity
from rtb.stores import artifacts
from rtb.stores.profiles_lmdb import ProfileStore
from tests.decide import worlds
from tests.server.conftest import free_port

REQUEST = {
    "id": "r",
    "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
    "user": {"buyeruid": "u1"},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A state directory with a catalogue and one person."""
    snapshot = worlds.snapshot(1, 60)
    artifacts.write_snapshot(tmp_path / "snapshots", snapshot.arrays, snapshot.meta)
    with ProfileStore.open(tmp_path / "profiles", readonly=False) as store:
        person = codec.Profile(segments=[token_hash(Dim.AUDIENCE, b"sport")])
        store.put_many([(identity.buyer_key(b"u1"), codec.encode(person))])
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    return tmp_path


def _explained(data: Path, *options: str) -> dict:
    arguments = ["explain", str(data / "request.json"), "--data", str(data), "--json", *options]
    result = CliRunner().invoke(gathered(), arguments, catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return json.loads(result.output)


def test_redis_knows_whom_lmdb_knew(data: Path, redis_binary: str) -> None:
    """After the copy, `rtb explain` says the same with either store, and less for a stranger."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [redis_binary, "--port", str(port), "--save", "", "--dir", str(data)]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        copied = CliRunner().invoke(
            gathered(), ["profiles", "--data", str(data), "--to", url], catch_exceptions=False
        )
        assert "1 copied to Redis" in copied.output
        known = _explained(data, "--at", str(worlds.NOW_MS))

        assert not known["contextual"]
        assert known == _explained(data, "--at", str(worlds.NOW_MS), "--profiles", url)
        assert _explained(data, "--user", "nobody", "--profiles", url)["contextual"]
    finally:
        redis.kill()
        redis.wait()
