"""Who may import whom, and what the core may not touch: the table of docs/architecture.md, held."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rtb"

PURE = {"base", "openrtb", "profiles", "ledger"}
# Package -> packages of ours that it may import. `_ext` modules are twins: see below.
ALLOWED: dict[str, set[str]] = {
    "base": set(),
    "openrtb": {"base"},
    "profiles": {"base"},
    "notices": {"base"},
    "ledger": {"base"},
    "pacing": {"base"},
    "exchanges": {"base", "openrtb"},
    "catalogue": {"base", "_ext"},
    "decide": {"base", "catalogue", "profiles", "_ext"},
    "stores": {"base", "catalogue", "profiles", "ledger"},
    "learn": {"base", "catalogue", "decide", "stores"},
    "keeper": {"base", "exchanges", "notices", "catalogue", "ledger", "pacing", "stores"},
    "server": {"base", "openrtb", "exchanges", "notices", "catalogue", "profiles", "decide",
               "ledger", "stores", "_ext"},
    "sim": {"base", "openrtb", "exchanges", "notices", "catalogue", "profiles", "decide", "ledger",
            "stores", "learn", "server"},
    "cli": {"base", "openrtb", "exchanges", "notices", "catalogue", "profiles", "decide", "ledger",
            "stores", "learn", "server", "keeper", "sim"},
}  # fmt: skip
# Standard modules that would let time, chance or the world into a pure package.
IMPURE = {
    "asyncio", "time", "random", "secrets", "socket", "logging", "threading", "multiprocessing",
    "subprocess", "os", "mmap", "sqlite3", "urllib.request", "http", "lmdb", "redis", "starlette",
    "uvicorn", "sqlalchemy",
}  # fmt: skip
PURE_PACKAGES = {
    "base", "openrtb", "exchanges", "notices", "profiles", "ledger", "pacing", "decide",
    "catalogue",
}  # fmt: skip
# Reading settings and catalogues from files is what these modules are for.
FILE_READERS = {"rtb/exchanges/settings.py", "rtb/catalogue/load.py"}
# Kernels that compile at start need the environment and a lock; nothing of it is in a decision.
KERNEL_CACHE = {"rtb/decide/score.py"}
# The one place outside the server that chooses between a twin and its compiled module.
TWIN_CHOICE = {"rtb/catalogue/tokens.py"}


def modules() -> Iterator[tuple[str, Path]]:
    """(package, file) of every module of ours."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if len(parts) > 1 and parts[0] != "_ext":
            yield parts[0], path


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> Iterator[tuple[str, str]]:
    """(package, module) of imports from `rtb`."""
    for name in imports(path):
        if name.startswith("rtb."):
            yield name.split(".")[1], name


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=lambda p: p.stem)
def test_import_table(path: Path) -> None:
    """A package imports only the packages that the table allows."""
    package = path.relative_to(PACKAGE).parts[0]
    allowed = ALLOWED[package] | {package}
    wrong = [name for imported, name in ours(path) if imported in ALLOWED | {"_ext": 0}
             and imported not in allowed]  # fmt: skip

    assert [] == wrong


def test_every_package_is_in_the_table() -> None:
    """A new package must be given its place."""
    packages = {package for package, _ in modules()}

    assert packages == set(ALLOWED)


@pytest.mark.parametrize("path", [p for name, p in modules() if name in PURE_PACKAGES], ids=str)
def test_purity(path: Path) -> None:
    """Pure packages import nothing that knows time, chance, disk or network."""
    file = path.relative_to(ROOT).as_posix()
    names = set(imports(path))
    wrong = {name for name in names if name in IMPURE or name.split(".")[0] in IMPURE}
    if file in FILE_READERS | KERNEL_CACHE | TWIN_CHOICE:
        wrong -= {"os"} | {name for name in wrong if name.startswith("os.")}

    assert set() == wrong


def test_no_name_from_a_package_init() -> None:
    """Inside `rtb` nothing is imported from a package's `__init__` but `__version__`."""
    packages = {f"rtb.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    wrong = []
    for _, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module not in packages:
                continue
            folder = PACKAGE / str(node.module).removeprefix("rtb.")
            wrong += [
                f"{path.name}: {node.module}.{alias.name}"
                for alias in node.names
                if not (folder / f"{alias.name}.py").exists()
                and not (folder / alias.name).is_dir()
                and not (folder / f"{alias.name}.pyi").exists()
            ]

    assert [] == wrong


def test_compiled_modules_have_stub_and_twin_test() -> None:
    """Each `ext/x.pyx` has `rtb/_ext/x.pyi` and is named by a test."""
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for source in (ROOT / "ext").glob("*.pyx"):
        assert (PACKAGE / "_ext" / f"{source.stem}.pyi").exists(), source.stem
        assert f"_ext.{source.stem}" in tests or f"_ext import {source.stem}" in tests, source.stem


def test_no_floats_in_the_ledger() -> None:
    """Money is integers: no true division, no float literal or name, no rounding in the books."""
    wrong = []
    places = ("ledger/*.py", "keeper/*.py", "stores/ledger_*.py", "stores/board_money.py")
    # These two keep time and steer prices; they book nothing.
    steering = {"process.py", "pace.py", "pace_memory.py"}
    for path in [path for place in places for path in PACKAGE.glob(place)]:
        if path.name in steering:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            division = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
            literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            name = isinstance(node, ast.Name) and node.id in {"float", "round", "Decimal"}
            if division or literal or name:
                wrong.append(f"{path.name}:{node.lineno}")

    assert [] == wrong


def test_no_possessive_quantifiers() -> None:
    """Python before 3.11.5, as Debian 12 has it, does not match what they say."""
    classes = re.compile(r"\[(?:\\.|[^\]\\])*\]")
    possessive, wrong = re.compile(r"[+*?}]\+|\(\?>"), []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile":
                pattern = node.args[0]
                known = str(pattern.value) if isinstance(pattern, ast.Constant) else ""
                if possessive.search(classes.sub("x", known)):
                    wrong.append(f"{path.name}:{node.lineno}")
    assert [] == wrong
