"""Where commands print for people."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

_WIDE: Final = 200


def console() -> Console:
    """Standard output; wide where it is no terminal, so that no figure is broken in two."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)


def table(*columns: str) -> Table:
    """A table that folds what is too long: an id that is cut short is none."""
    found = Table()
    for column in columns:
        found.add_column(column, overflow="fold")
    return found
