"""`rtb`: one command a module; this file only gathers them.

Exit codes: 0 done; 1 refused or failed, the reason is on standard error; 2 wrong usage.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final


def _kernel_cache() -> str:
    """Where compiled kernels are kept between runs: the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(root) / "rtb" / "kernels")


# Numba reads this when it is imported, so it is set before any of our modules.
os.environ.setdefault("NUMBA_CACHE_DIR", _kernel_cache())

import typer  # noqa: E402

from rtb import __version__  # noqa: E402
from rtb.base.errors import RtbError  # noqa: E402

app: Final = typer.Typer(
    name="rtb",
    help="An OpenRTB bidder: import a catalogue, serve bids, explain them, keep the books.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """An OpenRTB bidder: import a catalogue, serve bids, explain them."""
    if version:
        typer.echo(f"rtb {__version__}")
        raise typer.Exit


# A command and the module of this package that it stands in.
COMMANDS: Final = {
    "import": "import_",
    "serve": "serve",
    "explain": "explain",
    "train": "train",
    "seed": "seed",
    "profiles": "profiles",
    "traffic": "traffic",
    "exchange": "exchange",
    "audit": "audit",
    "ledger": "ledger",
    "journal": "journal",
}


def gathered(named: str = "") -> typer.Typer:
    """The application with all its commands, or with the one that is named.

    Modules that a command does not need would stay in the memory of `rtb serve` and its workers.
    """
    for name in [named] if named in COMMANDS else COMMANDS:
        module = import_module(f"rtb.cli.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def main() -> None:
    """Entry point: our own faults become one line and exit code 1."""
    command = gathered(sys.argv[1] if len(sys.argv) > 1 else "")
    try:
        command()
    except RtbError as error:
        typer.echo(f"rtb: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
