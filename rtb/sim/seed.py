"""Fills a state directory with a seeded retailer's world: catalogue, snapshot and profiles.

    DIR/catalogue/     the source form, which `rtb import` reads
    DIR/snapshots/     what workers serve
    DIR/profiles/      the embedded profile store
    DIR/seed.json      the stamp: with the same parameters there is nothing to do

The snapshot is made from the objects, not from the files, yet importing the files gives the same
content hash; a test holds this.
"""

import csv
import os
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from rtb import __version__
from rtb.base.errors import ConfigError, StoreError
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import KINDS, Catalogue, Entity, Product
from rtb.server.claim import claim_state
from rtb.sim import campaigns, world
from rtb.sim.persons import Persons
from rtb.sim.retail import Retailer, retailers
from rtb.stores import artifacts
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.serving import StatePaths

STAMP: Final = "seed.json"
CATALOGUE: Final = "catalogue"
# Raise it when the seeded world changes: directories of an older one are then seeded anew.
WORLD_VERSION: Final = 4
LINE_ITEMS_MAX: Final = 1_000_000
PRODUCTS_MAX: Final = 10_000_000
PROFILES_MAX: Final = 100_000_000


class Parameters(msgspec.Struct, frozen=True):
    """What a seeded directory is made of; `now_s` 0 is the time of seeding."""

    line_items: int = 10_000
    products: int = 50_000
    profiles: int = world.PEOPLE_COUNT
    seed: int = 7
    now_s: int = 0

    def check(self) -> None:
        """Raises: ConfigError for a size that cannot be."""
        limits = {
            "line_items": (1, LINE_ITEMS_MAX),
            "products": (0, PRODUCTS_MAX),
            "profiles": (0, PROFILES_MAX),
        }
        for name, (least, most) in limits.items():
            value: int = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name}: expected {least} to {most}, got {value}")


class Stamp(msgspec.Struct, frozen=True):
    """The last thing that seeding writes: parameters, and what came of them."""

    parameters: Parameters
    world_version: int
    version: str
    now_s: int
    snapshot: str
    counts: dict[str, int]
    seconds: float


def read_stamp(data: Path) -> Stamp | None:
    """The stamp of a directory; None when it was never seeded, or by another version."""
    try:
        stamp = msgspec.json.decode((data / STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.MsgspecError):
        return None
    return stamp if stamp.world_version == WORLD_VERSION else None


def people_count(data: Path | None) -> int:
    """How many people the traffic of a directory has: those it has profiles of."""
    stamp = read_stamp(data) if data is not None else None
    count = stamp.parameters.profiles if stamp is not None else 0
    return count or world.PEOPLE_COUNT


def seed(data: Path, parameters: Parameters, *, force: bool = False) -> tuple[Stamp, bool]:
    """Seeds a directory unless it is; the stamp, and whether anything was done.

    The same ids have other owners in another world: where one was served, books begin anew with
    it, and only with `force`.

    Raises: ConfigError for parameters that cannot be, and for a directory that serves, or has
        books of another world; StoreError when the disk refuses.
    """
    parameters.check()
    paths, known = StatePaths(data), read_stamp(data)
    same = known is not None and known.parameters == parameters
    if known is not None and same and _is_whole(paths) and not force:
        return known, False
    served = paths.serving.exists() or paths.ledger.exists()
    if not same and served and not (force and (data / STAMP).exists()):
        told = "served another catalogue, and its books would not fit: seed another directory"
        raise ConfigError(f"{data}: {told}, or, if it was seeded, --force to begin them anew")
    try:
        if not same and served:
            _forget_books(paths)
        return _seed(data, parameters), True
    except OSError as error:
        raise StoreError(f"{data}: cannot seed: {error}") from error


def _forget_books(paths: StatePaths) -> None:
    """Removes what was bid, and what was booked of it. Raises: ConfigError where a node runs."""
    claim = claim_state(paths, 0.0)
    try:
        for folder in (paths.journals, paths.events, paths.ledger.parent, paths.serving.parent):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(claim)


def _seed(data: Path, parameters: Parameters) -> Stamp:
    started = time.monotonic()
    (data / STAMP).unlink(missing_ok=True)
    now_s = parameters.now_s or int(time.time())
    shops, catalogue = build_catalogue(parameters, now_s)
    write_source(data / CATALOGUE, catalogue)
    snapshot = _publish(data, catalogue)
    profiles = _fill(data, parameters, shops, catalogue, now_s)
    counts = {kind: len(catalogue.table(kind)) for kind in KINDS} | {"profile_keys": profiles}
    stamp = Stamp(
        parameters=parameters,
        world_version=WORLD_VERSION,
        version=__version__,
        now_s=now_s,
        snapshot=snapshot.name,
        counts=counts,
        seconds=round(time.monotonic() - started, 2),
    )
    (data / STAMP).write_bytes(msgspec.json.format(msgspec.json.encode(stamp)) + b"\n")
    return stamp


def _is_whole(paths: StatePaths) -> bool:
    """Whether what was seeded is still there, in a layout that this program reads."""
    try:
        path = artifacts.current(paths.snapshots, artifacts.SNAPSHOT)
        if path is None or not paths.profiles.exists():
            return False
        artifacts.open_snapshot(path, verify=False)
    except StoreError:
        return False
    return True


def build_catalogue(parameters: Parameters, now_s: int) -> tuple[list[Retailer], Catalogue]:
    """The retailers and their catalogue: a pure function of the arguments."""
    shops = retailers(parameters.seed, parameters.line_items, parameters.products)
    return shops, campaigns.build(shops, parameters.seed, parameters.line_items, now_s)


def _publish(data: Path, catalogue: Catalogue) -> Path:
    arrays, meta = compile_snapshot(catalogue, None, source=CATALOGUE)
    return artifacts.write_snapshot(StatePaths(data).snapshots, arrays, meta)


def _fill(
    data: Path, parameters: Parameters, shops: list[Retailer], catalogue: Catalogue, now_s: int
) -> int:
    """A fresh profile store; the number of keys in it."""
    path = StatePaths(data).profiles
    shutil.rmtree(path, ignore_errors=True)
    with ProfileStore.open(path, readonly=False) as store:
        if not parameters.profiles:
            return 0
        people = world.people(parameters.profiles)
        persons = Persons(people, shops, catalogue, parameters.seed, now_s)
        return store.load(persons.pairs())


# -- the source form ------------------------------------------------------------------------------


def write_source(directory: Path, catalogue: Catalogue) -> None:
    """The catalogue as files: a table of JSON lines a kind, products as a feed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for kind in KINDS:
        table = catalogue.table(kind)
        if kind == "products":
            _write_feed(directory / "products.csv", table)
        else:
            lines = (msgspec.json.encode(without_defaults(each)) for each in table.values())
            (directory / f"{kind}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def _write_feed(path: Path, products: dict[str, Entity]) -> None:
    columns = [each.name for each in msgspec.structs.fields(Product)]
    used = [
        name for name in columns if any(getattr(product, name) for product in products.values())
    ] or columns[:4]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(used)
        for product in products.values():
            writer.writerow([getattr(product, name) or "" for name in used])


def without_defaults(entity: msgspec.Struct) -> dict[str, object]:
    """What an object says beyond its defaults: what a person would have written."""
    return dict(_said(entity))


def _said(entity: msgspec.Struct) -> Iterator[tuple[str, object]]:
    for name, default in _defaults(type(entity)).items():
        value = getattr(entity, name)
        if value != default:
            yield name, _plain(value)


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, object]:
    """Fields and their defaults; NODEFAULT, which equals no value, where one is required."""
    return {
        each.name: each.default
        if each.default_factory is msgspec.NODEFAULT
        else each.default_factory()
        for each in msgspec.structs.fields(kind)
    }


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return without_defaults(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
