"""A node as operators meet it: start, probes, crashes, swaps, drain."""

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.cli.import_ import APPLIED
from rtb.cli.import_ import run as run_import
from rtb.profiles import codec, identity
from rtb.stores import artifacts
from rtb.stores.profiles_lmdb import ProfileStore
from tests.decide import worlds
from tests.server.conftest import Node, StartNode, plain, read_answer, split_answer
from tests.server.test_answers import BODY, REQUEST


def test_probes_and_status(node: Node) -> None:
    """Live, ready and status answer; status names the generation and the limits in force."""
    status = json.loads(node.get("/status")[1])

    assert (200, b"ok") == node.get("/healthz")
    assert (200, b"ready") == node.get("/readyz")
    assert status["ready"]
    assert 1 == status["generation"]
    assert "generic" in status["exchanges"]
    assert 1 == len(status["workers"])


def test_metrics_are_prometheus_text(node: Node) -> None:
    """One scrape shows requests, latencies, reasons and workers under the expected names."""
    node.post(BODY)
    text = node.get("/metrics")[1].decode()

    for name in (
        "rtb_requests_total{", "rtb_request_duration_seconds_bucket{", "rtb_rejects_total{",
        "rtb_bids_total{", "rtb_profile_lookup_total{", "rtb_config_generation{",
        "rtb_loop_lag_seconds{", "rtb_build_info{", "rtb_breaker_state{",
    ):  # fmt: skip
        assert name in text


def test_line_items_one_by_one(start_node: StartNode) -> None:
    """What became of each since its catalogue is served: another one begins anew."""
    node = start_node()
    for number in range(200):
        node.post(json.dumps(REQUEST | {"id": f"d{number}"}).encode())
    status, text = node.get("/metrics/detail")
    snapshot = worlds.snapshot(77, 40)
    artifacts.write_snapshot(node.data / "snapshots", snapshot.arrays, snapshot.meta)
    node.wait_for(lambda: b'"generation": 2' in node.get("/status")[1], 20)

    assert 200 == status
    assert re.search(
        rb'rtb_line_item_sampled_total\{line_item="[^"]+",result="[a-z_]+"\} [1-9]', text
    )
    assert b"# TYPE rtb_pacing_index gauge" in text
    assert (node.data / "run" / "funnel-2.npy").exists()
    assert b"\nrtb_line_item_sampled_total{" not in node.get("/metrics/detail")[1]


def test_not_ready_without_a_snapshot(start_node: StartNode, tmp_path: Path) -> None:
    """Without a snapshot the node lives, is not ready, says why, and answers 204."""
    node = start_node(line_items=0, wait=False)
    node.wait_for(lambda: node.get("/healthz")[0] == 200, 60)
    status, why = node.get("/readyz")

    assert 503 == status
    assert b"snapshot" in why
    assert 204 == node.post(BODY)[0]
    snapshot = worlds.snapshot(1, 100)
    artifacts.write_snapshot(node.data / "snapshots", snapshot.arrays, snapshot.meta)
    node.wait_ready(5)
    assert 200 == node.post(BODY)[0]


def test_a_catalogue_grows_beside_its_books(start_node: StartNode, tmp_path: Path) -> None:
    """Imported, served, spent from, imported again with more: the next bid is of what came."""
    (tmp_path / "shop").mkdir()
    node = start_node(line_items=0, wait=False)

    def imported(**cpm: str) -> None:
        (tmp_path / "shop" / "all.json").write_text(json.dumps(_catalogue(cpm)))
        assert APPLIED == run_import(tmp_path / "shop", node.data).exit_code

    def bids(line_item: str) -> bool:
        status, body = node.post(BODY)
        return status == 200 and line_item == json.loads(body)["seatbid"][0]["bid"][0]["cid"]

    imported(first="2")
    node.wait_ready()
    node.wait_for(lambda: bids("first"), 5)
    imported(first="2", second="3")
    node.wait_for(lambda: bids("second"), 5)
    imported(first="4", second="3")
    node.wait_for(lambda: bids("first"), 5)


def _catalogue(cpm: dict[str, str]) -> dict[str, object]:
    """A shop with these line items, by what each gives for a thousand impressions."""
    return {
        "advertisers": [{"id": "a", "domains": ["shop.example"]}],
        "campaigns": [{"id": name, "advertiser": "a"} for name in cpm],
        "creatives": [
            {"id": "cr", "advertiser": "a", "type": "html", "html": "<b>x</b>"}
        ],
        "line_items": [
            {"id": name, "campaign": name, "goal": {"type": "cpm", "amount": amount},
             "creatives": ["cr"], "budget": {"daily": "100"}}
            for name, amount in cpm.items()
        ],
    }  # fmt: skip


def test_swap_refusal_and_recovery(start_node: StartNode) -> None:
    """A new snapshot is served within a second; a damaged one is refused and the last one stays."""
    node = start_node(line_items=100)
    fresh = worlds.snapshot(2, 150)
    path = artifacts.write_snapshot(node.data / "snapshots", fresh.arrays, fresh.meta)
    node.wait_for(lambda: _generation(node) == 2, 3)
    served = json.loads(node.get("/status")[1])["snapshot"]
    assert served in path.name or path.stem.rpartition("-")[2] in served

    damaged = node.data / "snapshots" / "snapshot-00000000000000000000000000000000.rtb"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (node.data / "snapshots" / "current").write_text(damaged.name)
    time.sleep(0.8)

    assert 2 == _generation(node)
    assert served == json.loads(node.get("/status")[1])["snapshot"]
    assert 200 == node.post(BODY)[0]
    assert "refused" in node.log.read_text()


def _generation(node: Node) -> int:
    return int(json.loads(node.get("/status")[1])["generation"] or 0)


def test_swaps_under_load_lose_no_answer(start_node: StartNode) -> None:
    """While generations change, every request is answered, and by one generation only."""
    node = start_node(line_items=100)
    stop = threading.Event()
    failures: list[str] = []
    answered = [0]

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            while not stop.is_set():
                connection.sendall(plain(BODY))
                status, body = split_answer(read_answer(connection))
                answered[0] += 1
                if status not in (200, 204):
                    failures.append(f"{status} {body[:80]!r}")

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for seed in range(3, 7):
        snapshot = worlds.snapshot(seed, 60)
        artifacts.write_snapshot(node.data / "snapshots", snapshot.arrays, snapshot.meta)
        node.wait_for(lambda seed=seed: _generation(node) == seed - 1, 5)  # type: ignore[misc]
    stop.set()
    for client in clients:
        client.join()

    assert [] == failures
    assert answered[0] > 20


def test_killed_worker_is_back_within_a_second(start_node: StartNode) -> None:
    """kill -9 of a worker: the supervisor starts another one, and the board goes on."""
    node = start_node("--workers", "2", line_items=60)
    node.post(BODY)
    counted = node.metric("rtb_requests_total")
    victim = node.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    node.wait_for(lambda: len(node.worker_pids()) == 2 and victim not in node.worker_pids(), 5)

    assert time.monotonic() - start < 1.5
    node.wait_for(lambda: node.metric("rtb_worker_ready") == 2, 10)
    node.wait_for(lambda: node.post(BODY)[0] == 200, 10)  # its leases come one by one
    assert node.metric("rtb_requests_total") >= counted


def test_workers_do_not_outlive_their_supervisor(start_node: StartNode) -> None:
    """kill -9 of the supervisor leaves no orphans."""
    node = start_node(line_items=60)
    workers = node.worker_pids()
    node.process.kill()
    node.process.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)

    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_drain_finishes_what_is_in_flight(start_node: StartNode) -> None:
    """SIGTERM: not ready first, requests in flight are answered, then exit code 0."""
    node = start_node(line_items=60, config="[server]\ndrain_notice_ms = 600\n")
    lost: list[int] = []
    answered = [0]

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            while True:
                try:
                    connection.sendall(plain(BODY))
                    answer = read_answer(connection)
                except OSError:
                    return
                if not answer:
                    return  # closed between two requests
                answered[0] += 1
                if split_answer(answer)[0] not in (200, 204):  # 204: more than was lent
                    lost.append(split_answer(answer)[0])

    client = threading.Thread(target=ask)
    client.start()
    time.sleep(0.2)
    node.process.send_signal(signal.SIGTERM)
    node.wait_for(lambda: node.get("/readyz")[0] == 503, 1)
    code = node.process.wait(15)
    client.join()

    assert 0 == code
    assert [] == lost
    assert answered[0] > 3


def test_profile_is_read_and_a_no_is_a_no(start_node: StartNode, tmp_path: Path) -> None:
    """A known person is looked up; with any privacy signal the store is not asked at all."""
    data = tmp_path / "state"
    data.mkdir()
    store = ProfileStore.open(data / "profiles", readonly=False)
    segments = [token_hash(Dim.AUDIENCE, b"sport")]
    store.put_many([(identity.buyer_key(b"u1"), codec.encode(codec.Profile(segments=segments)))])
    store.close()
    node = start_node(data=data, line_items=200)
    person = REQUEST | {"user": {"buyeruid": "u1"}}

    node.post(json.dumps(person).encode())
    assert 1 == node.metric('rtb_profile_lookup_total{result="hit"}')
    for signal_ in (
        {"regs": {"gdpr": 1}},
        {"regs": {"ext": {"gdpr": 1}}},
        {"regs": {"gpp": "DBAA"}},
        {"regs": {"us_privacy": "1YYN"}},
        {"regs": {"coppa": 1}},
        {"device": {"lmt": 1}},
        {"device": {"dnt": 1}},
        {"regs": {"ext": {"gpc": "1"}}},
    ):
        node.post(json.dumps(person | signal_).encode())
    assert 1 == node.metric("rtb_profile_lookup_total")
    node.post(json.dumps(REQUEST | {"user": {"buyeruid": "stranger"}}).encode())
    assert 1 == node.metric('rtb_profile_lookup_total{result="miss"}')


def test_too_little_time_is_a_no_bid(start_node: StartNode) -> None:
    """tmax that leaves nothing after the margin is answered at once, without work."""
    node = start_node(line_items=60, patient=False)
    for tmax in (-5, 0, 1, 10):
        assert (204, b"") == node.post(json.dumps(REQUEST | {"tmax": tmax}).encode())
    assert 200 == node.post(json.dumps(REQUEST | {"tmax": 10**9}).encode())[0]


def test_bad_settings_refuse_to_start(start_node: StartNode) -> None:
    """An unknown key is an error that names file and key, not a guess."""
    node = start_node(line_items=0, config="[server]\nprot = 1\n", wait=False)

    assert 0 != node.process.wait(30)
    assert "prot" in node.log.read_text()


def test_a_second_node_does_not_take_over(start_node: StartNode, tmp_path: Path) -> None:
    """A state directory and an address have one node; the second says so in a line, and ends."""
    first = start_node()
    same_state = start_node(data=first.data, line_items=0, wait=False)
    same_port = start_node("--port", str(first.port), data=tmp_path, wait=False)

    assert 1 == same_state.process.wait(20)
    assert 1 == same_port.process.wait(20)
    assert "another `rtb serve` runs there" in same_state.log.read_text().splitlines()[-1]
    assert "Address already in use" in same_port.log.read_text().splitlines()[-1]
    assert 200 == first.get("/readyz")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "300.1.1.1"), "cannot listen on 300.1.1.1"),
        (("--profiles", "foo://x"), "neither lmdb nor a redis URL"),
    ],
)
def test_impossible_settings_end_in_a_line(
    start_node: StartNode, arguments: tuple[str, ...], words: str
) -> None:
    """What can never work is told once, before there are workers."""
    node = start_node(*arguments, wait=False)

    assert 1 == node.process.wait(20)
    assert words in node.log.read_text().splitlines()[-1]


def test_busy_connections_lose_nothing_in_a_drain(start_node: StartNode) -> None:
    """Clients that keep asking on one connection are told that an answer is the last."""
    node = start_node()
    lost: list[int] = []

    def keep_asking(number: int) -> None:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            while True:
                connection.sendall(plain(BODY))
                answer = read_answer(connection)
                if not answer:
                    lost.append(number)
                if not answer or b"connection: close" in answer.lower():
                    return
                time.sleep(0.01)

    clients = [threading.Thread(target=keep_asking, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    time.sleep(0.3)
    code = node.stop()
    for client in clients:
        client.join(10)

    assert 0 == code
    assert [] == lost


def test_test_requests_never_count(start_node: StartNode) -> None:
    """test=1 is one more test in the counters, whatever became of it."""
    node = start_node()
    before = _counters(node)
    for extra in ({}, {"cur": ["XXX"]}, {"imp": [{"id": "1", "banner": {"w": "300"}}]}):
        node.post(json.dumps({**json.loads(BODY), **extra, "test": 1}).encode())
    changed = {name for name, value in _counters(node).items() if value != before.get(name)}

    assert {'rtb_requests_total{exchange="generic",outcome="test"}'} == {
        name for name in changed if name.endswith('}') and "_total" in name
        and not name.startswith(("rtb_http", "rtb_stage", "rtb_process"))
        and "forgotten" not in name  # the books let go of old marks, whatever comes in
    }  # fmt: skip


def _counters(node: Node) -> dict[str, str]:
    rows = [row for row in node.get("/metrics")[1].decode().splitlines() if row[:1] != "#"]
    return {row.rpartition(" ")[0]: row.rpartition(" ")[2] for row in rows}


def test_journals_become_parquet(start_node: StartNode) -> None:
    """What a worker wrote before its restart is exported by a child of the node, with the names of
    the catalogue that it serves; bids join their bills by the id that stood in the answer. A child
    that fails is reported, disturbs nobody, and is started again."""
    import pyarrow.parquet as pq  # tests of nodes that do not export run without it

    config = "[journal]\nsegment_mb = 16\nexport = true\nexport_every_s = 1\n"
    node = start_node(config=config)
    answers = [json.loads(node.post(json.dumps(REQUEST | {"id": f"e{n}"}).encode())[1])
               for n in range(3)]  # fmt: skip
    bids = [bid for answer in answers for seat in answer["seatbid"] for bid in seat["bid"]]
    bill = bids[0]["burl"].replace("${AUCTION_PRICE}", str(bids[0]["price"]))
    assert 204 == node.get("/n/" + bill.partition("/n/")[2])[0]
    assert 0 == node.stop()
    assert "ERROR" not in node.log.read_text()
    if (node.data / "events").exists():
        shutil.rmtree(node.data / "events")
    (node.data / "events").write_text("in the way")
    again = start_node(data=node.data, line_items=0, config=config)
    again.wait_for(lambda: "the export ended with 1, again in 1 s" in node.log.read_text(), 20)
    assert 200 == again.post(BODY)[0]
    (node.data / "events").unlink()
    again.wait_for(lambda: bool(list(node.data.glob("events/*/*.parquet"))), 20)
    (path,) = node.data.glob("events/*/*.parquet")
    rows = [row for row in pq.read_table(path).to_pylist() if row["kind"] in ("bid", "bill")]
    assert node.snapshot is not None
    ids = {node.snapshot.id_of("line_items", row) for row in range(300)}

    assert {bid["id"] for bid in bids} == {row["bid"] for row in rows}
    assert {bids[0]["id"]} == {row["bid"] for row in rows if row["kind"] == "bill"}
    assert {row["line_item"] for row in rows} <= ids
    assert {"generic"} == {row["exchange"] for row in rows}
    assert b"rtb_export_waiting_segments" in again.get("/metrics")[1]
    assert 0 == again.stop()
