"""The layouts that C and Python share, byte by byte."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb._ext import hashing as compiled
from rtb.base import hashing as readable
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import (
    DECISION,
    FACTS,
    MIMES,
    TERMS,
    Decision,
    Dim,
    Opportunity,
    Terms,
    as_values,
    pack_version,
)

EXT = Path(__file__).parents[2] / "ext"


def _layouts():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("layouts", EXT / "layouts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["records.pxd", "snapshot.pxd", "board.pxd"])
def test_pxd_files_are_written_from_the_layouts(name: str) -> None:
    """What C reads is what numpy lays out: the committed files are the generated ones."""
    assert _layouts().FILES[name]() == (EXT / name).read_text()


@pytest.mark.parametrize("dtype", [FACTS, DECISION, TERMS])
def test_records_are_c_structs(dtype: np.dtype) -> None:
    """Every field lies where a C compiler puts it: aligned, in order, no overlap."""
    assert dtype.isalignedstruct
    end = 0
    for field in dtype.names or ():
        kind, offset = dtype.fields[field][:2]  # type: ignore[index]
        assert offset >= end
        end = offset + kind.itemsize
    assert dtype.itemsize >= end


@given(st.integers(0, 255), st.binary(max_size=60))
def test_token_hash_twins(dim: int, value: bytes) -> None:
    """Both hashes agree, ignore ASCII case, and are never 0."""
    found = readable.token_hash(dim, value)

    assert found == compiled.token_hash(dim, value)
    assert found == readable.token_hash(dim, value.lower() if value.isascii() else value)
    assert found != 0


@given(st.integers(0, 2**64 - 1))
def test_mix64_twins(value: int) -> None:
    """Both finalisers agree."""
    assert readable.mix64(value) == compiled.mix64(value)


@given(st.integers(40, 50), st.integers(0, 2**64 - 1))
def test_union_hash_twins(union: int, token: int) -> None:
    """Both union hashes agree, and differ from the token."""
    assert readable.union_hash(union, token) == compiled.union_hash(union, token)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_cell_twins(lat: float, lon: float) -> None:
    """Both put a place into the same grid cell."""
    assert readable.cell_hash(*readable.cell_of(lat, lon)) == compiled.cell_token(lat, lon)


def test_token_hash_is_pinned() -> None:
    """Stored artefacts depend on these numbers; a change needs a new HASH_VERSION."""
    assert 0xFF536D646C8EB3CF == readable.token_hash(Dim.COUNTRY, b"usa")
    assert readable.HASH_VERSION == 1


def test_reasons_leave_targeting_its_numbers() -> None:
    """Reject numbers under 64 are dimensions, the rest are rules; none is said twice."""
    rules = [reason for reason in Reject if reason]

    assert all(reason >= 64 for reason in rules)
    assert len(rules) == len({int(reason) for reason in rules})
    assert all(0 <= reason.nbr <= 17 for reason in NoBid)


def test_addresses_are_the_arrays() -> None:
    """`address` is where the record's bytes are."""
    for record in (Opportunity().facts, Decision().data, Terms().data):
        assert record.ctypes.data % 8 == 0


def test_values_are_plain() -> None:
    """`as_values` gives Python numbers with the record's names, nested rows too."""
    facts = np.zeros(1, FACTS)
    facts["head"]["tmax_ms"] = 120
    facts["imps"][0, 0]["video"]["poddur_s"] = 30
    values = as_values(facts[0]["imps"][0])

    assert 30 == values.video.poddur_s
    assert 120 == as_values(facts[0]["head"]).tmax_ms


@pytest.mark.parametrize(
    ("text", "packed"),
    [("17.4.1", 17_004_001), ("10_3", 10_003_000), ("9", 9_000_000), ("", 0), ("x", 0),
     ("1.2.3.4", 1_002_003), ("99999999999", 999_999_000_000), ("5.1234", 5_999_000)],
)  # fmt: skip
def test_versions_compare_as_numbers(text: str, packed: int) -> None:
    """Dotted versions are packed so that a later one is a larger number."""
    assert packed == pack_version(text)


def test_mimes_fit_their_mask() -> None:
    """Every MIME type has a bit below the one that means "only unknown types"."""
    assert all(0 < bit < 63 for bit in MIMES.values())
