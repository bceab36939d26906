"""Writes the published figures from `bench/results`: the README's table and docs/benchmarks.md.

    python bench/report.py           writes both, between their markers
    python bench/report.py --check   exit code 1 when they differ from what would be written

A number without a file does not exist: text between the markers is never written by hand.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import RESULTS, ROOT, load, number

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
README, DOCS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"

# What the README shows, in its order; the rest is in docs/benchmarks.md.
README_FIGURES = (
    ("ratio", "ratio"), ("ratio", "lane_us"), ("ratio", "keeper_us"), ("stages", "money_us"),
    ("keeper", "records_per_s"), ("keeper", "turn_p99_ms"),
    ("decide", "decide_10000_us"), ("decide", "growth"),
    ("kernels", "score_1000_us"), ("latency", "rated"), ("latency", "p50_ms"),
    ("latency", "p99_ms"), ("latency", "control_p99_ms"), ("latency", "calm_p99_ms"),
    ("latency", "p999_ms"), ("latency", "control_p999_ms"), ("latency", "calm_p999_ms"),
    ("latency", "in_time"), ("latency", "goodput"),
    ("latency", "overload_in_time"), ("latency", "recovery_s"), ("latency", "memory_mb"),
    ("latency", "ready_s"),
)  # fmt: skip
ORDER = ("ratio", "stages", "decide", "latency", "kernels", "journal", "ledger", "keeper")

# Above this share of the machine, what else ran is part of the result.
OTHERS_TOLD = 0.05

Result = Mapping[str, Any]
VERDICT = {True: "yes", False: "**no**", None: ""}


def row(figure: Result) -> str:
    """One line of a table."""
    value = f"{number(figure['value'])} {figure['unit']}".strip()
    return (
        f"| {figure['label']} | {value} | {figure['target'] or ''} | {VERDICT[figure['holds']]} |"
    )


def table(figures: list[Result]) -> str:
    """Figures beside what is promised."""
    head = "| what | measured | target | holds |\n| --- | --- | --- | --- |\n"
    return head + "".join(row(figure) + "\n" for figure in figures)


def where(result: Result) -> str:
    """Where and when a result was measured, in a sentence."""
    machine = result["machine"]
    others = machine["others_share"]
    busy = f" Other processes took {others:.0%} of the machine." if others > OTHERS_TOLD else ""
    return (
        f"Measured {result['date'][:10]} at commit `{result['commit']}` on {machine['cores']} "
        f"cores of {machine['cpu']}, Linux {machine['kernel']}, Python {result['python']}.{busy}"
    )


def readme_block(results: Mapping[str, Result]) -> str:
    """The README's table."""
    figures = []
    for name, wanted in README_FIGURES:
        found = [one for one in results.get(name, {}).get("figures", ()) if one["name"] == wanted]
        figures += found
    if not figures:
        return "Nothing measured yet: run `make bench`.\n"
    used = [results[name] for name in dict(README_FIGURES) if name in results]
    commits = {one["commit"] for one in used}
    place = where(max(used, key=lambda one: str(one["date"])))
    how = "How, and at which commit each: " if len(commits) > 1 else "How: "
    newest = place.replace("Measured ", "The newest were measured ") if len(commits) > 1 else place
    return f"{table(figures)}\n{newest} {how}[docs/benchmarks.md](docs/benchmarks.md).\n"


def docs_block(results: Mapping[str, Result]) -> str:
    """All results, a section each."""
    names = [name for name in ORDER if name in results]
    names += sorted(set(results) - set(names))
    if not names:
        return "Nothing measured yet: run `make bench`.\n"
    parts = []
    for name in names:
        result = results[name]
        settings = ", ".join(
            f"{key} {_plain(value)}" for key, value in result["parameters"].items()
        )
        parts.append(
            f"### {result['question']}\n\n{table(result['figures'])}\n"
            f"{where(result)} File: `bench/results/{name}.json` ({settings}).\n"
        )
    return "\n".join(parts)


def _plain(value: object) -> str:
    return " ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def replaced(text: str, block: str, path: Path) -> str:
    """The text with what stands between its markers replaced. Raises: ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{block}{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Writes, or checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args(arguments).check
    results = load(RESULTS)
    code = 0
    for path, block in ((README, readme_block(results)), (DOCS, docs_block(results))):
        try:
            text = path.read_text()
            fresh = replaced(text, block, path)
        except (OSError, ValueError) as error:
            print(f"report: {error}", file=sys.stderr)
            code = 1
            continue
        if fresh == text:
            continue
        if check:
            print(f"report: {path.name} differs: run python bench/report.py", file=sys.stderr)
            code = 1
        else:
            path.write_text(fresh)
            print(f"wrote {path.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
