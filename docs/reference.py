"""Writes `docs/reference/{reasons,metrics,config,cli}.md` from the code that they describe.

`python docs/reference.py` writes; `--check` fails when a file says something else than the code.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from rtb.base.records import Dim  # noqa: E402
from rtb.cli.main import gathered  # noqa: E402
from rtb.server.metrics import BoardCollector  # noqa: E402
from rtb.server.metrics_detail import FAMILIES, Family  # noqa: E402
from rtb.stores.board import Board  # noqa: E402

_MEMBER = re.compile(r"^    ([A-Z_]+) = (\d+)(?:  # (.*))?$")
NOTE = "<!-- Written by docs/reference.py. Do not edit. -->\n"


def _members(source: str, name: str) -> Iterator[tuple[str, str, str]]:
    """(name, number, comment) of an enum's members, read from its source."""
    inside = False
    for line in source.splitlines():
        if line.startswith("class "):
            inside = line.startswith(f"class {name}(")
        found = _MEMBER.match(line) if inside else None
        if found:
            yield found[1], found[2], found[3] or ""


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def reasons() -> str:
    """Why there is no bid, and why a candidate was dropped."""
    source = (ROOT / "rtb" / "base" / "reasons.py").read_text()
    nobids = ((f"`{name.lower()}`", number, why) for name, number, why in _members(source, "NoBid"))
    dims = (
        (f"`targeting_{dim.name.lower()}`", str(int(dim)), "the line item targets other values")
        for dim in Dim
        if dim < 64
    )
    rejects = (
        (f"`{name.lower()}`", number, why)
        for name, number, why in _members(source, "Reject")
        if name != "NONE"
    )
    return (
        f"# Reasons\n\n{NOTE}\nA request without a bid has one of these reasons "
        "(`rtb_nobid_total{reason}`):\n\n"
        + _table(("reason", "number", "meaning"), nobids)
        + "\nA candidate that was dropped has the first rule that failed "
        "(`rtb_rejects_total{reason}`, `rtb explain`). Rules are applied in this order. Those of "
        "targeting are found by the index and counted only when explained:\n\n"
        + _table(("reason", "number", "meaning"), iter([*dims, *rejects]))
    )


def metrics() -> str:
    """What /metrics shows."""
    with tempfile.TemporaryDirectory() as folder:
        board = Board.create(Path(folder) / "board", 1, 8)
        families = list(BoardCollector(board, ["generic"]).collect())

    def rows() -> Iterator[tuple[str, ...]]:
        for family in families:
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = getattr(family, "_labelnames", ())
            yield f"`{family.name}{suffix}`", family.type, ", ".join(labels), family.documentation

    return (
        f"# Metrics\n\n{NOTE}\n`GET /metrics` of any worker shows all workers of the node.\n\n"
        + _table(("name", "type", "labels", "meaning"), rows())
        + "\n`GET /metrics/detail` shows line items one by one. It is for now and then: there are "
        "as many series as line items.\n\n"
        + _table(("name", "type", "labels", "meaning"), map(_detail, FAMILIES))
    )


def _detail(family: Family) -> tuple[str, ...]:
    return f"`{family.name}`", family.type, family.labels, family.help


def _keys(text: str) -> Iterator[tuple[str, ...]]:
    section, comment = "", []  # type: ignore[var-annotated]
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line[1:].strip())
        elif line.startswith("["):
            section, comment = line.strip("[]"), []
        elif "=" in line:
            key, _, value = line.partition("=")
            name = f"{section}.{key.strip()}" if section else key.strip()
            yield f"`{name}`", f"`{value.strip()}`", " ".join(comment)
            comment = []
        else:
            comment = []


def config() -> str:
    """Every key of the settings."""
    configs = ROOT / "configs"
    return (
        f"# Settings\n\n{NOTE}\n## Node: `configs/bidder.toml`\n\nA file given by `--config` "
        "repeats only what differs.\n\n"
        + _table(("key", "default", "meaning"), _keys((configs / "bidder.toml").read_text()))
        + "\n## Exchange: `configs/exchanges/<name>.toml`\n\nAny other file repeats only what "
        "differs from `generic.toml`.\n\n"
        + _table(
            ("key", "default", "meaning"),
            _keys((configs / "exchanges" / "generic.toml").read_text()),
        )
        + "\n## Tables beside them\n\n`configs/rates.toml`: value of one unit of each currency in "
        "`base`. `configs/zones.toml`: the clock of a country or region whose request says no UTC "
        "offset. Workers read both again when they change; a bad file leaves the last good one in "
        "force.\n"
    )


# Typer carries its own copy of click, so commands are told apart by what they have.
def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name in sorted(children):
        yield from _commands(children[name], f"{path} {name}")


def cli() -> str:
    """Every command with its options, as `--help` says them."""
    parts = [f"# Commands\n\n{NOTE}"]
    for path, command in _commands(typer.main.get_command(gathered()), "rtb"):
        parts.append(f"\n## `{path}`\n\n{(command.help or '').strip()}\n\n")
        rows = []
        for parameter in command.params:
            if parameter.param_type_name == "option":
                default = "" if parameter.default in (None, False) else str(parameter.default)
                default = default.replace(str(ROOT), "<checkout>")
                rows.append((f"`{', '.join(parameter.opts)}`", default, parameter.help or ""))
            else:
                rows.append(
                    (
                        f"`{(parameter.name or '').upper()}`",
                        "",
                        str(getattr(parameter, "help", "") or ""),
                    )
                )
        parts.append(_table(("option", "default", "meaning"), iter(rows)))
    return "".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "metrics": metrics,
    "config": config,
    "cli": cli,
}


def main(check: bool) -> int:
    """Writes or compares all pages; returns the exit code."""
    stale = []
    for name, make in PAGES.items():
        path = DOCS / "reference" / f"{name}.md"
        text = make()
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}: run `python docs/reference.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
