"""The caps board's file and its filter."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb._ext.caps import Caps
from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.stores.caps import Limits
from rtb.stores.caps_board import CapsBoard, Filter, Sizes
from rtb.stores.caps_table import CapsTable

SIZES = Sizes(sets_count=8, filter_bits=1 << 10)


def test_a_board_is_empty_and_shared(tmp_path: Path) -> None:
    """What one process writes another one reads; a new board replaces the old one whole."""
    one = CapsBoard.create(tmp_path / "run" / "caps", 9, SIZES)
    other = CapsBoard.open(one.path)
    assert (9, 8, 1 << 10) == (other.workers_count, other.sets_count, other.filter_bits)
    assert (9, 8) == one.sets.shape
    assert (8, 16) == one.tags.shape
    one.sets["person"][8, 7, 7] = 5
    one.filter[-1] = 6
    assert (5, 6) == (int(other.sets["person"][8, 7, 7]), int(other.filter[-1]))
    fresh = CapsBoard.create(one.path, 1, SIZES)
    assert not any(getattr(fresh, name).tobytes().strip(b"\0") for name in ("sets", "filter"))


def test_refusals(tmp_path: Path) -> None:
    """Sizes that cannot be, and files that are no board."""
    path = tmp_path / "caps"
    for sizes in (Sizes(sets_count=3), Sizes(sets_count=0), Sizes(filter_bits=32)):
        with pytest.raises(ConfigError, match="power of two"):
            CapsBoard.create(path, 1, sizes)
    for workers in (0, 257):
        with pytest.raises(ConfigError, match="workers"):
            CapsBoard.create(path, workers, SIZES)
    CapsBoard.create(path, 1, SIZES)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreCorrupt, match="not what its header says"):
        CapsBoard.open(path)
    path.write_bytes(bytes(4096))
    with pytest.raises(StoreCorrupt, match="not a caps board"):
        CapsBoard.open(path)


PERSONS = st.sets(st.integers(1, (1 << 64) - 1) | st.integers(1, 1 << 50), max_size=20)


@given(before=PERSONS, after=PERSONS, parts=st.integers(1, 16))
def test_the_filter_is_renewed_part_by_part(
    tmp_path_factory: pytest.TempPathFactory, before: set[int], after: set[int], parts: int
) -> None:
    """After a walk over all persons, in the order of keys, the filter tells of just those."""
    board = CapsBoard.create(tmp_path_factory.mktemp("run") / "caps", 1, SIZES)
    words = Filter(board)
    for person in before:
        words.add(person)
    for part in range(parts):
        first, last = (words.words_count * number // parts for number in (part, part + 1))
        low, high = words.span(first, last)
        here = sorted(person for person in after if low <= person < high)
        words.replace(first, last, np.array(here, np.uint64))

    expected = {person >> board.filter_shift for person in after}
    found = {number * 64 + bit for number, word in enumerate(board.filter.tolist())
             for bit in range(64) if word >> bit & 1}  # fmt: skip
    assert expected == found
    assert not words.ready
    words.open()
    assert words.ready


CHILD = """
import sys
from pathlib import Path
from rtb._ext.caps import Caps
from rtb.stores.caps_board import CapsBoard
from tests.stores.test_caps_board import KEY, NOW, PAIRS, PERSON, table
caps = Caps(CapsBoard.open(Path(sys.argv[1])), 0, 0, 7)
caps.serve(table())
caps.refresh(NOW)
print(flush=True)
for bid in range(1, 300_001):
    line_item, creative = PAIRS[bid & 1]
    caps.bid(PERSON, bid, line_item, creative, NOW)
    if bid > 3:
        caps.lost(PERSON, bid - 3, NOW)
"""
KEY, NOW = b"i:one", 1_790_000_000_000
PERSON = token_hash(Dim.PERSON, KEY)
PAIRS = [(11, 12), (21, 22)]


def table() -> CapsTable:
    """Each line item and creative has a cap of its own: its key, and a lifetime."""
    keys = np.array([11, 12, 21, 22], np.uint64)
    ones = np.ones(4, np.int64)
    return CapsTable(keys, np.arange(4), ones, keys, np.zeros(4, np.int64), ones)


def test_no_entry_is_read_half_written(tmp_path: Path) -> None:
    """While another process writes as it can, each bid has the creative of its line item."""
    board = CapsBoard.create(tmp_path / "caps", 2, SIZES)
    board.header["ready"] = 1
    caps = Caps(board, 1, 0, 8, Limits(), lambda _: None)
    caps.serve(table())
    arguments = [sys.executable, "-c", CHILD, str(board.path)]
    seen = 0
    with subprocess.Popen(
        arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while child.poll() is None:
            record = caps.view([KEY], None, None, NOW)
            found = {} if record is None else codec.decode(record).caps
            counts = [found.get(cap, (0, 0))[1] for cap in (11, 12, 21, 22)]
            assert counts[:1] + counts[2:3] == counts[1:2] + counts[3:]
            assert sum(counts) <= 2 * 8
            seen += any(counts)
    assert 0 == child.returncode
    assert seen
