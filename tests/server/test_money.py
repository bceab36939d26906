"""Budgets and caps on a real node, up to the last unit, also when processes are killed."""

import contextlib
import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rtb.catalogue.model import Advertiser, Budget, Campaign, FrequencyCap
from rtb.stores import artifacts
from rtb.stores.profiles_lmdb import ProfileStore
from tests.decide.test_rules import image, line, snapshot, video
from tests.server.conftest import Node, StartNode
from tests.server.test_notices import path_of, rows, settled, until
from tests.stores.test_profiles_redis import Server, needs_redis

NANOS = 10**9
ASAP: dict[str, Any] = {"pacing": "asap"}


def start(
    start_node: StartNode, folder: Path, *objects: Any, workers: int = 1, profiles: str = "lmdb"
) -> Node:
    """A node that serves these."""
    made = snapshot(*objects)
    artifacts.write_snapshot(folder / "snapshots", made.arrays, made.meta)
    ProfileStore.open(folder / "profiles", readonly=False).close()
    options = ("--workers", str(workers), "--profiles", profiles)
    return start_node(*options, data=folder, line_items=0)


def offer(node: Node, number: int, **request: Any) -> list[dict[str, Any]]:
    """The bids on one banner."""
    body = {
        "id": f"m{number}", "at": 1, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
        "tmax": 5000, **request,
    }  # fmt: skip
    status, answer = node.post(json.dumps(body).encode())
    return json.loads(answer)["seatbid"][0]["bid"] if status == 200 else []


def spent(node: Node) -> int:
    """Nanos that the books have as spent."""
    ((posted, over),) = rows(node, "select sum(posted_nanos), sum(over_nanos) from balances")
    assert 0 == (over or 0)
    return int(posted or 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daily_budget_stops_exactly(start_node: StartNode, tmp_path: Path, workers: int) -> None:
    """A budget of 1.00 at 0.02 an impression makes 50 of them, and not one more."""
    budget = Budget(daily="1.00")
    node = start(
        start_node, tmp_path, image("c"), line("l", "c", cpm="20", budget=budget, **ASAP),
        workers=workers,
    )  # fmt: skip
    won = 0
    number = 0

    def play() -> bool:
        nonlocal won, number
        number += 1
        for bid in offer(node, number):
            won += 1
            assert 204 == node.get(path_of(bid["burl"], PRICE=str(bid["price"])))[0]
        return won >= 50 and spent(node) == NANOS

    until(play, 30)
    for number in range(10_000, 10_200):
        assert [] == offer(node, number)
    assert (50, NANOS) == (won, spent(node))
    until(lambda: node.metric('rtb_rejects_total{reason="exhausted"}') > 0)
    assert 0 == node.metric("rtb_overspend_micros")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cap_holds_for_sequential_requests(
    start_node: StartNode, tmp_path: Path, workers: int
) -> None:
    """Two a day are two, whichever worker is asked and whoever keeps the count by then."""
    cap = FrequencyCap(count=2, window="1d")
    node = start(
        start_node, tmp_path, image("c"), line("l", "c", frequency_caps=(cap,), **ASAP),
        workers=workers,
    )  # fmt: skip
    for person in range(12):
        for number in range(2):  # there may be no lease for a moment
            until(lambda number=number, person=person: shown(node, number, id=f"p{person}") == 1)
        assert [0] * 6 == [shown(node, number, id=f"p{person}") for number in range(2, 8)]
    assert node.metric('rtb_rejects_total{reason="frequency_cap"}') > 0


def shown(node: Node, number: int, **ids: str) -> int:
    """How many ads somebody with these ids is shown by one request."""
    person: dict[str, Any] = {"user": {}, "device": {}}
    for name, value in ids.items():
        person["device" if name == "ifa" else "user"][name] = value
    count = 0
    for bid in offer(node, number, **person):
        (pixel,) = re.findall(r'https?://[^"]*/n/imp/[^"?]+', bid["adm"])[:1]
        assert 200 == node.get(urlsplit(pixel).path)[0]
        count += 1
    return count


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cap_holds_across_identities(start_node: StartNode, tmp_path: Path, workers: int) -> None:
    """Who came with two ids is the same person by either of them, and by a third one that came
    with one of those; at once, and after all processes were killed.
    """
    cap = FrequencyCap(count=2, window="lifetime")
    node = start(
        start_node, tmp_path, image("c"), line("l", "c", frequency_caps=(cap,), **ASAP),
        workers=workers,
    )  # fmt: skip
    number = 0

    def play(person: str, *turns: str) -> list[int]:
        nonlocal number
        found = []
        for turn in turns:
            number += 1
            names = {"b": "buyeruid", "u": "id", "i": "ifa"}
            ids = {names[one]: f"{one}-{person}-id" for one in turn}
            found.append(shown(node, number, **ids))
        return found

    until(lambda: offer(node, 0))
    later = ("b", "u", "i", "bu", "ui", "bui")
    for person in range(6):
        assert [1, 1, 0, 0, 0, 0] == play(f"one{person}", "bu", "u", "u", "b", "bu", "u")
        assert [1, 1, 0, 0, 0, 0] == play(f"two{person}", "ui", "i", "i", "bi", "b", "u")
        assert [1, 1, 0, 0, 0, 0] == play(f"three{person}", "b", "i", "bi", "b", "i", "ui")
        assert [1, 1, 0, 0, 0] == play(f"four{person}", "bu", "ui", "i", "b", "u")
    assert [1] == play("five", "bui")
    assert 1 == len(offer(node, 1_000, user={"id": "u-six-id", "buyeruid": "b-six-id"}))
    for victim in (node.keeper_pid, lambda: node.worker_pids()[0], node.keeper_pid):
        pid = until(victim)
        os.kill(pid, signal.SIGKILL)
        node.wait_for(lambda pid=pid: pid not in (node.keeper_pid(), *node.worker_pids()), 10)
        node.wait_ready()
        for person in ("two1", "three2", "four3"):
            assert [0] * len(later) == play(person, *later)
    until(lambda: play("five", "u") == [1])  # once there is a new lease
    assert [0, 0, 0, 0] == play("five", "u", "i", "b", "bui")
    until(lambda: play("six", "u") == [1])
    until(lambda: play("six", "b") == [1])
    assert [0, 0, 0] == play("six", "u", "bu", "b")
    until(lambda: play("seven", "b") == [1])


@pytest.mark.server
@needs_redis
def test_a_cap_holds_across_identities_in_redis(start_node: StartNode, tmp_path: Path) -> None:
    """Nobody is shown more than his two, by whichever ids he comes, and everybody gets them."""
    cap = FrequencyCap(count=2, window="lifetime")
    (tmp_path / "redis").mkdir()
    server = Server(tmp_path / "redis")
    try:
        node = start(
            start_node, tmp_path, image("c"), line("l", "c", frequency_caps=(cap,), **ASAP),
            workers=2, profiles=server.url,
        )  # fmt: skip
        until(lambda: offer(node, 0, user={"id": "other"}))
        for person in range(8):
            names = {"buyeruid": f"b-{person}", "id": f"u-{person}", "ifa": f"i-{person}"}
            some = [{one: names[one] for one in ids.split()}
                    for ids in ("buyeruid id ifa", "id", "ifa id", "ifa", "buyeruid")]  # fmt: skip
            assert 1 == shown(node, 1, **some[0])
            # Until its link is stored a key alone is not bid for: its counts are not known.
            until(lambda some=some, person=person: shown(node, 2, **some[person % 5]) == 1)
            assert [0] * 10 == [shown(node, 3, **some[number % 5]) for number in range(10)]
    finally:
        server.kill()


def shop(level: str, width: int) -> list[Any]:
    """Three line items for a banner of a width and for video, of which one level is capped, and a
    cheaper one of somebody else that is not.
    """
    caps = (FrequencyCap(count=1, window="1d"), FrequencyCap(count=2, window="lifetime"))

    def own(kind: str) -> dict[str, Any]:
        return {"frequency_caps": caps} if kind == level else {}

    banner, film, spare = f"{level}-c", f"{level}-v", f"{level}-d"  # a pod shows no film twice
    count = 1 if level in ("creative", "line_item") else 3  # others have no cap in common
    return [
        Advertiser(id=level, domains=("a.test",), **own("advertiser")),
        Campaign(id=level, advertiser=level, **own("campaign")),
        image(banner, width=width, advertiser=level, **own("creative")),
        *(video(f"{film}{number}", advertiser=level, **own("creative")) for number in range(count)),
        *(line(f"{level}-{number}", banner, f"{film}{number}", cpm="20", campaign=level,
               repeat=True, **own("line_item"), **ASAP) for number in range(count)),
        Advertiser(id=f"{level}-b", domains=("b.test",)),
        Campaign(id=f"{level}-b", advertiser=f"{level}-b"),
        image(spare, width=width, advertiser=f"{level}-b"),
        line(f"{level}-d", spare, cpm="1", campaign=f"{level}-b", repeat=True, **ASAP),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cap_holds_within_a_request(start_node: StartNode, tmp_path: Path, workers: int) -> None:
    """Of three places on a page a cap leaves one, and others have the rest; and so in a pod."""
    widths = {"creative": 120, "line_item": 160, "campaign": 300, "advertiser": 728}
    shops = [each for level, width in widths.items() for each in shop(level, width)]
    node = start(start_node, tmp_path, *shops, workers=workers)
    pod = [{"id": "p", "video": {"mimes": ["video/mp4"], "protocols": [3], "w": 640, "h": 360,
            "poddur": 180, "maxseq": 9, "minduration": 5, "maxduration": 30}}]  # fmt: skip
    for level, width in widths.items():
        page = [{"id": str(n), "banner": {"w": width, "h": 250}} for n in (1, 2, 3)]
        until(lambda page=page: offer(node, 1, imp=page))
        for number in range(2, 5):
            user = {"user": {"id": f"{level}{number}"}}
            found = [bid["cid"] for bid in offer(node, number, imp=page, **user)]
            assert [level, f"{level}-b", f"{level}-b"] == sorted(found)
            found = [bid["cid"] for bid in offer(node, number, imp=page, **user)]
            assert [f"{level}-b"] * 3 == found
    assert len(offer(node, 5, imp=pod)) > len(widths)
    found = offer(node, 5, imp=pod, user={"id": "film"})
    assert len(found) == len({bid["cid"] for bid in found}) == len(widths)
    assert node.metric('rtb_rejects_total{reason="frequency_cap"}') > 0


def test_what_was_shown_survives_a_kill(start_node: StartNode, tmp_path: Path) -> None:
    """A cap that was reached holds after every process of the node was killed, one by one."""
    cap = FrequencyCap(count=1, window="lifetime")
    node = start(start_node, tmp_path, image("c"), line("l", "c", frequency_caps=(cap,), **ASAP))
    (bid,) = until(lambda: offer(node, 1, user={"id": "p"}))
    (pixel,) = re.findall(r'https?://[^"]*/n/imp/[^"?]+', bid["adm"])[:1]
    assert 200 == node.get(urlsplit(pixel).path)[0]
    for victim in (node.keeper_pid, lambda: node.worker_pids()[0], node.keeper_pid):
        pid = until(victim)
        os.kill(pid, signal.SIGKILL)
        node.wait_for(lambda pid=pid: pid not in (node.keeper_pid(), *node.worker_pids()), 10)
        node.wait_ready()
        assert [] == offer(node, pid, user={"id": "p"})
        assert until(lambda pid=pid: offer(node, pid, user={"id": f"other-{pid}"}))


def test_nothing_acknowledged_is_lost_by_kills(start_node: StartNode, tmp_path: Path) -> None:
    """Workers and keeper are killed while bills come in: each that was answered is booked once."""
    node = start(start_node, tmp_path, image("c"), line("l", "c", **ASAP), workers=2)
    answered: dict[str, dict[str, Any]] = {}
    over = threading.Event()

    def play() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                for bid in offer(node, number):
                    if 204 == node.get(path_of(bid["burl"], PRICE=str(bid["price"])))[0]:
                        answered[bid["id"]] = bid
            except OSError:
                continue  # whoever would have answered is dead

    player = threading.Thread(target=play, daemon=True)
    player.start()
    for turn in range(6):
        before = len(answered)
        until(lambda before=before: len(answered) > before + 5, 20)
        living = [node.keeper_pid(), *node.worker_pids()]
        with contextlib.suppress(ProcessLookupError):  # not back yet from the last time
            os.kill(living[turn % len(living)], signal.SIGKILL)
    before = len(answered)
    until(lambda: len(answered) > before + 5, 20)
    over.set()
    player.join()

    until(lambda: all(settled(node, bid) for bid in answered.values()), 20)
    assert [1] * len(answered) == [len(settled(node, bid)) for bid in answered.values()]
    expected = sum(round(bid["price"] * 1e6) for bid in answered.values())
    # A bill whose answer died with its worker may be booked as well: it was never acknowledged.
    assert spent(node) >= expected
    assert 0 == node.stop()
