"""Whose books: those of the node that has a state directory, where several are in one database."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rtb.base.errors import ConfigError
from rtb.server import kernels
from rtb.stores.journal_kept import Kept, kept_in
from rtb.stores.ledger_pool import nodes_in
from rtb.stores.ledger_view import LedgerView
from rtb.stores.serving import StatePaths


def view_of(data: Path, ledger: str, node: int | None) -> LedgerView:
    """The books of a state directory; ledger: "" for those inside of it.

    node: None looks for the books that know the directory's journals.
    Raises: ConfigError where that is not to be told; StoreError.
    """
    paths = StatePaths(data.resolve())
    url = ledger or paths.ledger_url
    if node is None:
        nodes = nodes_in(url)
        if len(nodes) > 1:
            node = _owner(url, nodes, kept_in(paths.journals, kernels.load().journal))
    return LedgerView.open(url, node=node)


def _owner(url: str, nodes: list[int], journals: list[Kept]) -> int | None:
    """The node whose books know any of the journals."""
    for node in nodes:
        with LedgerView.open(url, node=node) as view:
            names = view.positions()
        if any(journal.is_named(name) for journal in journals for name in names):
            return node
    return None


@contextmanager
def views_of(
    datas: Sequence[Path], ledger: str, nodes: Sequence[int]
) -> Iterator[list[LedgerView]]:
    """The books of several state directories; nodes: one each, or none.

    Raises: as `view_of`.
    """
    if nodes and len(nodes) != len(datas):
        raise ConfigError("one for each `--data`, or none - at `--node`")
    with ExitStack() as stack:
        yield [
            stack.enter_context(view_of(data, ledger, nodes[place] if nodes else None))
            for place, data in enumerate(datas)
        ]
