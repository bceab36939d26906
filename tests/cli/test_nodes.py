"""The commands on books that several nodes keep in one PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from rtb.base.events import Kind
from rtb.cli.main import gathered
from rtb.stores.ledger_pool import open_books
from rtb.stores.serving import StatePaths
from tests.cli.books import configs_of, invoice_of
from tests.keeper.node import Bid, Node, line
from tests.stores.postgres import Postgres, start_or_skip

pytestmark = pytest.mark.server
SHOES = 7
RUN = CliRunner()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all."""
    server = start_or_skip()
    yield server
    server.stop()


@dataclass
class Placed(Node):
    """A node in a state directory, its books in PostgreSQL."""

    def start_keeper(self) -> None:
        """Letters where a state directory has them."""
        self.letters = StatePaths(self.folder).letters
        super().start_keeper()


@pytest.fixture
def nodes(tmp_path: Path, postgres: Postgres) -> Iterator[list[Placed]]:
    """Two nodes that made bids; all bills came to the second, some to both. The first has 5, the
    second 3."""
    url = postgres.url()
    made = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        made.append(Placed(tmp_path / str(number), number=number, seed=number, books_url=url))
    for node in made:
        node.offer(line(SHOES, 1_000_000))
    for node in made:
        node.start_all()
    for node, count in zip(made, (5, 3), strict=True):
        while len(node.sent) < count:
            assert node.workers[0] is not None
            node.workers[0].bid(SHOES)
            for each in made:
                each.turn()
    for number, bid in enumerate([bid for node in made for bid in node.sent]):
        for node in made[1:] if number % 2 else made:
            assert node.workers[0] is not None
            node.workers[0].notice(Kind.BILL, bid, 700)
    for _ in range(12):
        for node in made:
            node.turn()
    yield made
    for node in made:
        node.close()


def called(*words: object) -> tuple[int, str]:
    """Exit code and output of a command."""
    found = RUN.invoke(gathered(), [str(word) for word in words])
    return found.exit_code, found.output


def audit(nodes: list[Placed], configs: Path, *words: object) -> tuple[int, dict[str, object]]:
    """`rtb audit --json` of some nodes."""
    datas = [word for node in nodes for word in ("--data", node.folder)]
    code, text = called("audit", *datas, "--ledger", nodes[0].books_url, "--configs", configs,
                        "--json", *words)  # fmt: skip
    return code, msgspec.json.decode(text)


def test_each_node_agrees_with_its_journals_and_the_mail(
    nodes: list[Placed], tmp_path: Path
) -> None:
    """What went to the other node is left out, what came from it is counted."""
    configs = configs_of(tmp_path)
    for node, bills, notes in (
        (nodes[0], 5, ["notices of other nodes' bids, booked there: 1",
                       "notices from other nodes: 5"]),
        (nodes[1], 3, ["notices of other nodes' bids, booked there: 5",
                       "notices from other nodes: 1"]),
    ):  # fmt: skip
        code, report = audit([node], configs)
        assert (0, True, bills) == (code, report["agrees"], report["bills"])
        assert notes == report["notes"]


def test_the_invoice_of_two_nodes(nodes: list[Placed], tmp_path: Path) -> None:
    """An exchange that knows them as one is compared with the books of both."""
    configs = configs_of(tmp_path)
    bids: list[Bid] = [bid for node in nodes for bid in node.sent]
    invoice = invoice_of(tmp_path / "invoice.csv", bids)

    code, report = audit(nodes, configs, "--invoice", invoice)
    assert (0, True, 8) == (code, report["agrees"], report["bills"])
    code, report = audit(nodes[:1], configs, "--invoice", invoice)
    assert (1, False) == (code, report["agrees"])
    assert [3] == [one["counts"]["missing_here"] for one in report["invoices"]]  # type: ignore[union-attr,attr-defined]


def test_a_bill_that_was_lost_in_the_mail_differs(nodes: list[Placed], tmp_path: Path) -> None:
    """Mail that was read without being booked shows: journals and books disagree."""
    first = nodes[0]
    with open_books(first.books_url, 1) as books, books._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM pool_mail WHERE to_node = 1 AND number = 2")

    code, report = audit([nodes[0]], configs_of(tmp_path))
    assert (1, 1) == (code, report["difference_micros"])


def test_whose_books_is_found_by_the_journals(nodes: list[Placed], tmp_path: Path) -> None:
    """A state directory's node is the one whose books know its journals; others must be named."""
    url = nodes[0].books_url
    ours = called("ledger", "show", "--data", nodes[1].folder, "--ledger", url, "--json")
    by_name = called("ledger", "show", "--data", tmp_path, "--ledger", url, "--json", "--node", 2)
    nobody = RUN.invoke(gathered(), ["ledger", "show", "--data", str(tmp_path), "--ledger", url])
    absent = RUN.invoke(
        gathered(), ["ledger", "show", "--data", str(tmp_path), "--ledger", url, "--node", "9"]
    )

    assert ours == by_name
    assert 0 == ours[0]
    assert "say which - at `--node`" in str(nobody.exception)
    assert "none of node 9" in str(absent.exception)


def test_what_is_left_is_left_for_all(nodes: list[Placed], tmp_path: Path) -> None:
    """Budgets are whole on each node; what others were lent is not left."""
    url = nodes[0].books_url
    text = called("ledger", "pool", "--ledger", url, "--json")[1]
    lent = {one["node"]: one["lent_nanos"] for one in msgspec.json.decode(text)}
    for node, other in ((nodes[0], 2), (nodes[1], 1)):
        shown = called("ledger", "show", "--data", node.folder, "--ledger", url, "--json")[1]
        [item] = [one for one in msgspec.json.decode(shown) if one["level"] == "line item"]
        here = item["posted_nanos"] + item["pending_nanos"] + item["granted_nanos"]
        assert 1_000_000 == item["budget_nanos"]
        assert 1_000_000 - here - lent[other] == item["left_nanos"]


def test_what_nodes_were_lent(nodes: list[Placed], tmp_path: Path) -> None:
    """One line for each node and budget; a node that is gone keeps what it has drawn."""
    url = nodes[0].books_url
    code, text = called("ledger", "pool", "--ledger", url, "--json")
    shares = [(one["node"], one["level"]) for one in msgspec.json.decode(text)]
    table = called("ledger", "pool", "--ledger", url)
    code_of_release, said = called("ledger", "release", "--ledger", url, "--node", 1)
    after = msgspec.json.decode(called("ledger", "pool", "--ledger", url, "--json")[1])

    assert (0, [(1, "line item"), (2, "line item")]) == (code, shares)
    assert "shop / spring / line 7" in table[1]
    assert 0 == code_of_release
    assert "node 1 is released" in said
    drawn = nodes[0].committed(SHOES)
    assert drawn == next(one["lent_nanos"] for one in after if one["node"] == 1)


@pytest.mark.parametrize("command", ["pool", "release"])
def test_who_is_alone_has_no_pool(tmp_path: Path, command: str) -> None:
    """Books in SQLite are one node's."""
    words = ["ledger", command, "--ledger", f"sqlite:///{tmp_path}/ledger.db"]
    found = RUN.invoke(gathered(), [*words, "--node", "1"] if command == "release" else words)

    assert "in PostgreSQL only" in str(found.exception)


def test_only_nodes_that_are_known_are_released(nodes: list[Placed]) -> None:
    """A wrong number makes no books."""
    words = ["ledger", "release", "--ledger", nodes[0].books_url, "--node", "9"]

    assert "no books of node 9" in str(RUN.invoke(gathered(), words).exception)
    assert 0 == called("ledger", "pool", "--ledger", nodes[0].books_url)[0]
