"""Artefacts: whole or refused, swapped atomically, old ones deleted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rtb.base.errors import CatalogueError, StoreCorrupt, StoreError
from rtb.catalogue import snapshot
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import Advertiser, Campaign, Catalogue, Creative, Goal, LineItem
from rtb.stores import artifacts
from rtb.stores.artifacts import (
    CURRENT,
    KEEP,
    current,
    open_artifact,
    open_snapshot,
    write,
    write_snapshot,
)

Arrays = dict[str, npt.NDArray[Any]]

MODEL: Arrays = {
    "weights": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.empty(0, dtype=np.int64),
    "rows": np.array([(7, 1, 2, 0, 0)], dtype=snapshot.PIECE),
    "one": np.array([5], dtype=np.uint64),
}


def catalogue() -> Catalogue:
    result = Catalogue()
    result.add(Advertiser("a", domains=("shop.example",)))
    result.add(Campaign("c", advertiser="a"))
    result.add(Creative("cr", "a", "html", html="<b>hi</b>"))
    result.add(LineItem("li", "c", Goal("cpm", amount="2"), ("cr",)))
    return result


def test_arrays_and_meta_come_back(tmp_path: Path) -> None:
    """What is written is read: values, shapes, layouts, meta."""
    path = write(tmp_path, "model", MODEL, {"auc": 0.7})
    arrays, meta, content_hash = open_artifact(path, "model")
    assert meta == {"auc": 0.7}
    assert path.name == f"model-{content_hash[:32]}.rtb"
    assert list(MODEL) == list(arrays)
    for name, array in MODEL.items():
        assert (array.dtype, array.shape) == (arrays[name].dtype, arrays[name].shape)
        assert array.tobytes() == arrays[name].tobytes()


def test_arrays_are_aligned_and_read_only(tmp_path: Path) -> None:
    """Kernels may use vector loads; nobody may write to what all workers map."""
    arrays, _, _ = open_artifact(write(tmp_path, "model", MODEL, {}), "model")
    for name in ("weights", "rows", "one"):
        assert arrays[name].ctypes.data % 64 == 0
        assert not arrays[name].flags.writeable


def test_equal_content_is_one_file(tmp_path: Path) -> None:
    """Writing the same again changes nothing but the time."""
    assert write(tmp_path, "model", MODEL, {}) == write(tmp_path, "model", MODEL, {})
    assert len(list(tmp_path.glob("model-*"))) == 1


def test_every_cut_is_refused(tmp_path: Path) -> None:
    """A file that ends early, anywhere, is not served."""
    path = write(tmp_path, "model", MODEL, {})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreCorrupt):
            open_artifact(path, "model")
    path.write_bytes(whole + b"\0")
    with pytest.raises(StoreCorrupt):
        open_artifact(path, "model")


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    """One wrong bit anywhere, padding included, is found."""
    path = write(tmp_path, "model", MODEL, {})
    whole = bytearray(path.read_bytes())
    for byte in range(len(whole)):
        whole[byte] ^= 1 << byte % 8
        path.write_bytes(whole)
        with pytest.raises(StoreCorrupt):
            open_artifact(path, "model")
        whole[byte] ^= 1 << byte % 8


def test_damage_without_the_hash_check_never_escapes(tmp_path: Path) -> None:
    """Even unverified, a bad file is refused or read, never a crash of another kind."""
    path = write(tmp_path, "model", MODEL, {})
    whole = bytearray(path.read_bytes())
    for byte in range(len(whole)):
        for flip in (0xFF, 0x10):
            whole[byte] ^= flip
            path.write_bytes(whole)
            try:
                open_artifact(path, "model", verify=False)
            except StoreCorrupt:
                pass
            finally:
                whole[byte] ^= flip


def test_other_kind_is_refused(tmp_path: Path) -> None:
    """A model is no snapshot."""
    path = write(tmp_path, "model", MODEL, {})
    with pytest.raises(StoreCorrupt, match="a model, not a snapshot"):
        open_snapshot(path)


def test_python_objects_are_not_stored(tmp_path: Path) -> None:
    """Objects would have to be unpickled, which runs what a file says."""
    with pytest.raises(StoreError, match="Python objects"):
        write(tmp_path, "model", {"x": np.array([{}], dtype=object)}, {})
    assert list(tmp_path.iterdir()) == []


def test_current_follows_the_last_write(tmp_path: Path) -> None:
    """The pointer names what was written last; before that, nothing."""
    assert current(tmp_path, "model") is None
    first = write(tmp_path, "model", MODEL, {"n": 1})
    assert first == current(tmp_path, "model")
    second = write(tmp_path, "model", MODEL, {"n": 2})
    assert second == current(tmp_path, "model")


def test_old_artefacts_are_deleted_and_mapped_ones_live_on(tmp_path: Path) -> None:
    """The last few stay; who mapped a deleted one keeps reading it."""
    first = write(tmp_path, "model", MODEL, {"n": 0})
    os.utime(first, (0, 0))
    arrays, _, _ = open_artifact(first, "model")
    for number in range(1, KEEP + 2):
        path = write(tmp_path, "model", MODEL, {"n": number})
        os.utime(path, (number, number))
    kept = [json.loads(_header(path))["meta"]["n"] for path in tmp_path.glob("model-*")]
    assert sorted(kept) == list(range(2, KEEP + 2))
    assert arrays["one"].tolist() == [5]


def _header(path: Path) -> bytes:
    data = path.read_bytes()
    size = artifacts.PREAMBLE.size
    return data[size : size + artifacts.PREAMBLE.unpack(data[:size])[2]]


@pytest.mark.parametrize(
    "text", ["", "../model-x.rtb", "snapshot-x.rtb", "model-\0.rtb", "model-x"]
)
def test_bad_pointer_is_refused(tmp_path: Path, text: str) -> None:
    """The pointer may name a file of its directory and kind, nothing else."""
    (tmp_path / CURRENT).write_text(text)
    with pytest.raises(StoreCorrupt):
        current(tmp_path, "model")


def test_missing_file_is_a_store_error(tmp_path: Path) -> None:
    """A file that is gone may come back: that is no corruption."""
    with pytest.raises(StoreError) as error:
        open_artifact(tmp_path / "model-x.rtb", "model")
    assert error.value.transient


def test_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, nothing is swapped and nothing is left behind."""
    first = write(tmp_path, "model", MODEL, {"n": 1})

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="No space left"):
        write(tmp_path, "model", MODEL, {"n": 2})
    assert first == current(tmp_path, "model")
    assert sorted([CURRENT, first.name]) == sorted(path.name for path in tmp_path.iterdir())


def test_snapshot_is_opened_as_one(tmp_path: Path) -> None:
    """Ids and texts can be read from the mapped file."""
    path = write_snapshot(tmp_path, *compile_snapshot(catalogue()))
    opened = open_snapshot(path)
    assert opened.id_of("line_items", 0) == "li"
    assert path.name == f"snapshot-{opened.content_hash[:32]}.rtb"


def test_snapshot_that_points_outside_is_neither_written_nor_opened(tmp_path: Path) -> None:
    """Bounds are checked on both sides of the disk."""
    arrays, meta = compile_snapshot(catalogue())
    arrays["line_items"]["creatives_count"][0] = 99
    with pytest.raises(CatalogueError):
        write_snapshot(tmp_path, arrays, meta)
    path = write(tmp_path, "snapshot", arrays, meta)
    with pytest.raises(StoreCorrupt, match=r"line_items\.creatives"):
        open_snapshot(path)


def test_proven_snapshot_opens_without_being_read(tmp_path: Path) -> None:
    """A worker trusts the door; only a layout that it does not know is refused."""
    arrays, meta = compile_snapshot(catalogue())
    path = write_snapshot(tmp_path, arrays, meta)
    assert open_snapshot(path, verify=False).id_of("line_items", 0) == "li"
    del arrays["rows"]
    with pytest.raises(StoreCorrupt, match="rows"):
        open_snapshot(write(tmp_path, "snapshot", arrays, meta), verify=False)


def test_empty_catalogue_can_be_served(tmp_path: Path) -> None:
    """A snapshot of nothing is a snapshot."""
    opened = open_snapshot(write_snapshot(tmp_path, *compile_snapshot(Catalogue())))
    assert len(opened["line_items"]) == 0
