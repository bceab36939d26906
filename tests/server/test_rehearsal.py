"""`rtb explain` beside a running node: the same answer as the node's, for the same reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from rtb.catalogue.model import Budget, FrequencyCap
from rtb.cli.explain import decide
from rtb.decide.explain import Report
from rtb.stores.board_money import MoneyBoard
from tests.decide.test_rules import image, line
from tests.server.conftest import Node, StartNode
from tests.server.test_money import ASAP, offer, start
from tests.server.test_notices import path_of, until

pytestmark = pytest.mark.server
REQUEST: dict[str, Any] = {
    "id": "e", "at": 1, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "tmax": 5000,
    "user": {"id": "u"},
}  # fmt: skip


def explained(
    node: Node, folder: Path, at_ms: int | None = None, **more: int
) -> tuple[Report, dict[str, str]]:
    """What is said of the request; by line item its outcome, or why it was dropped."""
    report = decide(
        json.dumps(REQUEST | more).encode(), folder, "generic", None, at_ms, folder / "configs"
    )
    (imp,) = report.imps
    return report, {one.line_item: one.reason or one.outcome for one in (*imp.bids, *imp.dropped)}


def test_who_has_no_budget_is_told_so(start_node: StartNode, tmp_path: Path) -> None:
    """Before, it bids; then neither the node nor the explanation does; the next has its place."""
    budget = Budget(daily="0.02")
    node = start(
        start_node, tmp_path, image("c"), line("rich", "c", cpm="5", **ASAP),
        line("poor", "c", cpm="20", max_cpm="20", budget=budget, **ASAP),
    )  # fmt: skip
    report, said = explained(node, tmp_path)
    assert report.live
    assert {"poor": "chosen", "rich": "short list"} == said

    (bid,) = offer(node, 1, user={"id": "u"})
    assert 20.0 == bid["price"]
    assert 204 == node.get(path_of(bid["burl"], PRICE=str(bid["price"])))[0]
    until(lambda: offer(node, 2, user={"id": "u"})[0]["price"] < 20)
    report, said = explained(node, tmp_path)
    assert said["poor"] in {"exhausted", "budget"}
    assert "chosen" == said["rich"]
    assert "bid" == report.outcome
    assert {"poor": "chosen", "rich": "short list"} == explained(node, tmp_path, 1_790_000_000_000)[
        1
    ]


def test_who_has_seen_it_is_told_so(start_node: StartNode, tmp_path: Path) -> None:
    """A cap counts what is in flight and what was shown, as it does for the node."""
    node = start(
        start_node, tmp_path, image("c"),
        line("capped", "c", cpm="20", frequency_caps=(FrequencyCap(1, "1d"),), **ASAP),
    )  # fmt: skip
    assert {"capped": "chosen"} == explained(node, tmp_path)[1]

    (bid,) = offer(node, 1, user={"id": "u"})
    shown = bid["adm"].split('src="')[-1].split('"')[0].replace("&amp;", "&")
    assert 200 == node.get(path_of(shown, PRICE=str(bid["price"])))[0]
    report, said = explained(node, tmp_path)
    assert {"capped": "frequency cap"} == said
    assert "no_candidate" == report.outcome
    assert [] == offer(node, 2, user={"id": "u"})
    assert {"capped": "frequency cap"} == explained(node, tmp_path)[1]


def test_the_node_does_not_notice(start_node: StartNode, tmp_path: Path) -> None:
    """Nothing is taken, refused or put in flight on its boards."""
    node = start(start_node, tmp_path, image("c"), line("l", "c", cpm="20", **ASAP))
    until(lambda: offer(node, 1))
    board = MoneyBoard.open(tmp_path / "run" / "money")
    before = board.taken.copy(), board.taken_units.copy(), board.refusals.copy()
    for _ in range(3):
        assert {"l": "chosen"} == explained(node, tmp_path)[1]
    assert "bid" == explained(node, tmp_path)[0].outcome
    assert "tmax_too_short" == explained(node, tmp_path, tmax=10)[0].outcome
    for was, now in zip(before, (board.taken, board.taken_units, board.refusals), strict=True):
        assert (was == now).all()


def test_without_a_node_the_catalogue_alone_decides(start_node: StartNode, tmp_path: Path) -> None:
    """Leases end with the node: then nothing would be paid, and nobody wants to know that."""
    node = start(start_node, tmp_path, image("c"), line("l", "c", cpm="20", **ASAP))
    node.stop()
    report, said = explained(node, tmp_path)

    assert not report.live
    assert {"l": "chosen"} == said
