"""One profile read from the embedded store, by direct key and over a link."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.kernels.line import measure, show
from rtb.profiles.codec import Profile, encode
from rtb.profiles.identity import buyer_key
from rtb.profiles.record import LINK_MAGIC, VERSION
from rtb.stores.profiles_lmdb import ProfileStore

PEOPLE = 100_000


def _find(store: ProfileStore, keys: Iterator[list[bytes]]) -> Callable[[], object]:
    return lambda: store.find(next(keys))


def main() -> None:
    """Prints a JSON line a kind of read."""
    chance = np.random.default_rng(7)
    record = encode(Profile(segments=list(range(1, 9)), items=dict.fromkeys(range(1, 13), 1)))
    link = LINK_MAGIC + bytes((VERSION, 0))
    with tempfile.TemporaryDirectory() as folder:
        with ProfileStore.open(Path(folder), readonly=False) as writer:
            writer.load((buyer_key(b"u%d" % n), record) for n in range(PEOPLE))
            writer.load((b"i:%d" % n, link + buyer_key(b"u%d" % n)) for n in range(PEOPLE))
        with ProfileStore.open(Path(folder)) as store:
            for kind, prefix in (("find", b"b:u"), ("find_link", b"i:"), ("find_miss", b"b:x")):
                order = chance.permutation(PEOPLE)[:20_000]
                keys = itertools.cycle([[prefix + b"%d" % n] for n in order])
                show(f"lmdb_{kind}", measure(_find(store, keys), 20_000),
                     people=PEOPLE, record_bytes=len(record))  # fmt: skip
            show("lmdb_refresh", measure(store.refresh, 5_000))


if __name__ == "__main__":
    main()
