"""The scoring kernels, against sums over all pairs of tokens."""

import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.base.errors import CatalogueError
from rtb.base.hashing import HASH_VERSION
from rtb.catalogue import snapshot
from rtb.decide import score
from rtb.decide.model import MODEL_KIND, MODEL_VERSION, Model
from rtb.stores import artifacts

BITS = 10
GENERATOR = np.random.default_rng(7)
TABLE = np.zeros((1 << BITS, score.ROW), dtype=np.float32)
TABLE[:, : score.FACTORS + 1] = GENERATOR.normal(0, 0.2, (1 << BITS, score.FACTORS + 1))

HASHES = st.lists(st.integers(1, 2**64 - 1), max_size=12, unique=True)


def array(hashes: list[int]) -> score.Hashes:
    return np.array(hashes, dtype=np.uint64)


def tower(hashes: list[int]) -> score.Floats:
    """The tower of a set of tokens."""
    out = np.full(score.ROW, np.nan, dtype=np.float32)
    score.request_vector(TABLE, array(hashes), len(hashes), out)
    return out


def definition(hashes: list[int], bias: float) -> float:
    """The logit by its formula: weights plus all pairs."""
    rows = [TABLE[hash_ & (1 << BITS) - 1].astype(float) for hash_ in hashes]
    pairs = sum(float(v[1:9] @ w[1:9]) for v, w in itertools.combinations(rows, 2))
    return bias + sum(float(row[0]) for row in rows) + pairs


@settings(max_examples=50, deadline=None)
@given(HASHES, HASHES)
def test_two_towers_are_the_whole_sum(request_side: list[int], ad_side: list[int]) -> None:
    """Splitting the pairs into towers changes nothing but float32 rounding."""
    value = score.logit(tower(request_side), tower(ad_side), -1.5)
    assert definition(request_side + ad_side, -1.5) == pytest.approx(value, abs=1e-4)


def test_probability_is_the_logistic_function() -> None:
    """The written-out exponential agrees with the library's over the whole range."""
    inputs = np.linspace(-29.9, 29.9, 997)
    expected = 1 / (1 + np.exp(-(0.9 * inputs + 0.1)))
    values = [score.probability(float(x), 0.9, 0.1) for x in inputs]
    assert expected == pytest.approx(values, rel=1e-13)


def test_probability_saturates_and_keeps_nan() -> None:
    """Huge scores stay inside (0, 1), and a NaN is never turned into a price."""
    assert 0.0 < score.probability(-1e300, 1.0, 0.0) < 1e-12
    assert 1 - 1e-12 < score.probability(float("inf"), 1.0, 0.0) < 1.0
    assert np.isnan(score.probability(float("nan"), 1.0, 0.0))


def test_ad_vectors_are_towers_of_ranges() -> None:
    """Each creative's row is the tower of its own range of features, empty ranges included."""
    features = [3, 5, 8, 13, 21, 34]
    out = np.full((3, score.ROW), np.nan, dtype=np.float32)
    starts, counts = np.array([2, 0, 6], np.int32), np.array([4, 2, 0], np.int32)
    score.ad_vectors(TABLE, starts, counts, array(features), out)
    expected = np.stack([tower(features[2:]), tower(features[:2]), tower([])])
    assert expected.tolist() == out.tolist()


def test_c_entry_points_give_the_same_bits() -> None:
    """What Cython calls is bit for bit what training and evaluation call."""
    addresses = score.kernel_addresses()
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    vector_c = ctypes.CFUNCTYPE(None, pointer, integer, pointer, integer, pointer)(
        addresses["request_vector"]
    )
    score_c = ctypes.CFUNCTYPE(None, *[pointer] * 3, integer, *[real] * 3, pointer)(
        addresses["score"]
    )
    hashes = GENERATOR.integers(1, 2**63, 40).astype(np.uint64)
    q = np.zeros(score.ROW, dtype=np.float32)
    vector_c(TABLE.ctypes.data, BITS, hashes.ctypes.data, len(hashes), q.ctypes.data)
    assert tower([int(h) for h in hashes]).tolist() == q.tolist()
    creatives = GENERATOR.permutation(1 << BITS).astype(np.int32)[:333]
    expected, out = np.zeros(333), np.zeros(333)
    score.score(TABLE, q, creatives, 333, -2.0, 0.9, 0.1, expected)
    score_c(TABLE.ctypes.data, q.ctypes.data, creatives.ctypes.data, 333, -2.0, 0.9, 0.1,
            out.ctypes.data)  # fmt: skip
    assert expected.tolist() == out.tolist()
    one_by_one = [score.probability(score.logit(q, TABLE[c], -2.0), 0.9, 0.1) for c in creatives]
    assert one_by_one == out.tolist()


def test_processes_may_warm_an_empty_cache_together(tmp_path: Path) -> None:
    """Several processes that start on an empty cache all get their kernels."""
    program = "from rtb.decide import score; score.warm(); print(len(score.kernel_addresses()))"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["2\n"] * 2


def test_nothing_compiles_after_warm(tmp_path: Path) -> None:
    """A mapped model is bound and scored with kernels that `warm` has compiled."""
    path = artifacts.write(tmp_path, MODEL_KIND, {"ctr_table": TABLE}, META)
    arrays, meta, content_hash = artifacts.open_artifact(path, MODEL_KIND)
    features = array([1, 2, 3])
    features.flags.writeable = False
    creatives = np.zeros(1, dtype=snapshot.CREATIVE)
    score.warm()
    kernels = [score.request_vector, score.ad_vectors, score.score, score.probability]
    before = [len(kernel.signatures) for kernel in kernels]
    bound = Model.of(arrays, meta, content_hash).bind(creatives, features)
    ctr, cvr = bound.score(array([4, 5]), np.zeros(1, dtype=np.int32))
    bound.model.ctr.probability(float(ctr[0]))
    assert cvr is None
    assert [len(kernel.signatures) for kernel in kernels] == before


META = {
    "model_version": MODEL_VERSION, "hash_version": HASH_VERSION, "form": "fm", "bits": BITS,
    "factors": score.FACTORS, "heads": {"ctr": {"bias": -2.0, "slope": 1.0, "shift": 0.0}},
    "metrics": {"anything": 1},
}  # fmt: skip


def test_a_good_model_is_served() -> None:
    """A verified model scores, without a copy of its table."""
    model = Model.of({"ctr_table": TABLE}, META, "abc")
    assert np.shares_memory(TABLE, model.ctr.table)
    assert model.cvr is None
    rows = model.ctr.ad_rows(np.array([0], np.int32), np.array([2], np.int32), array([1, 2]))
    q = model.ctr.request_vector(array([3]))
    expected = model.ctr.probability(score.logit(q, rows[0], -2.0))
    assert [expected] == model.ctr.score(rows, q, np.array([0], np.int32)).tolist()


def broken(place: tuple[int, int], value: float) -> score.Floats:
    table = TABLE.copy()
    table[place] = value
    return table


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (None, {}),
        (TABLE[:-1], {}),
        (TABLE.astype(np.float64), {}),
        (broken((5, 0), np.nan), {}),
        (broken((1023, 8), np.inf), {}),
        (broken((7, 3), 1e30), {}),
        (TABLE, {"model_version": MODEL_VERSION + 1}),
        (TABLE, {"hash_version": HASH_VERSION + 1}),
        (TABLE, {"bits": BITS + 1}),
        (TABLE, {"bits": 60}),
        (TABLE, {"bits": "many"}),
        (TABLE, {"factors": 4}),
        (TABLE, {"heads": {}}),
        (TABLE, {"heads": {"ctr": {"bias": float("nan"), "slope": 1.0, "shift": 0.0}}}),
        (TABLE, {"heads": {"ctr": {"bias": 0.0, "slope": -1.0, "shift": 0.0}}}),
    ],
)
def test_bad_models_are_refused(table: score.Floats | None, change: dict[str, object]) -> None:
    """Wrong versions, shapes, and numbers that would become prices never get in."""
    arrays = {} if table is None else {"ctr_table": table}
    with pytest.raises(CatalogueError, match="model abc"):
        Model.of(arrays, META | change, "abc")
