"""A model as the core serves it: verified tables, and the towers of a catalogue's creatives.

Read-only and pure: opening the file is the store's business, fitting it is `rtb.learn`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import numpy as np
import numpy.typing as npt

from rtb.base.errors import CatalogueError
from rtb.base.hashing import HASH_VERSION
from rtb.decide.score import FACTORS, ROW, Doubles, Floats, Hashes, Indexes, ad_vectors
from rtb.decide.score import probability as _probability
from rtb.decide.score import request_vector as _request_vector
from rtb.decide.score import score as _score

MODEL_KIND: Final = "model"
MODEL_VERSION: Final = 1
BITS_MIN: Final = 8
BITS_MAX: Final = 24  # 1 GiB a head
# Far above what training makes of any data, far below where float32 sums lose their meaning.
WEIGHT_MAX: Final = 1e4
NAMES: Final = ("ctr", "cvr")

Array = npt.NDArray[np.generic]


class HeadMeta(msgspec.Struct, frozen=True):
    """What one head needs besides its table: score -> sigmoid(slope * (bias + ...) + shift)."""

    bias: float
    slope: float
    shift: float


class ModelMeta(msgspec.Struct, frozen=True):
    """The part of a model's meta table that serving depends on; metrics lie beside it."""

    model_version: int
    hash_version: int
    form: str
    bits: int
    factors: int
    heads: dict[str, HeadMeta]


@dataclass(frozen=True, slots=True)
class Head:
    """One fitted probability: of a click, or of a conversion after a click."""

    table: Floats  # (2^bits, ROW)
    bits: int
    bias: float
    slope: float
    shift: float

    def ad_rows(self, starts: Indexes, counts: Indexes, features: Hashes) -> Floats:
        """The towers of creatives, (n, ROW), given the ranges of their features.

        Takes milliseconds per 10,000 creatives and releases the interpreter: call it aside.
        """
        out = np.zeros((len(starts), ROW), dtype=np.float32)
        ad_vectors(
            self.table,
            np.ascontiguousarray(starts, dtype=np.int32),
            np.ascontiguousarray(counts, dtype=np.int32),
            np.ascontiguousarray(features, dtype=np.uint64),
            out,
        )
        return out

    def request_vector(self, hashes: Hashes) -> Floats:
        """The tower of one request, (ROW,)."""
        out = np.zeros(ROW, dtype=np.float32)
        _request_vector(self.table, hashes, len(hashes), out)
        return out

    def score(self, ad_rows: Floats, q: Floats, creatives: Indexes) -> Doubles:
        """Calibrated probabilities of some creatives, (n,)."""
        out = np.empty(len(creatives))
        _score(ad_rows, q, creatives, len(creatives), self.bias, self.slope, self.shift, out)
        return out

    def probability(self, logit: float) -> float:
        """The calibrated probability of a logit that already holds the bias."""
        return _probability(logit, self.slope, self.shift)


@dataclass(frozen=True, slots=True)
class Model:
    """Heads by name; `ctr` is always there, `cvr` where conversions were logged."""

    heads: Mapping[str, Head]
    form: str
    bits: int
    content_hash: str

    @property
    def ctr(self) -> Head:
        return self.heads["ctr"]

    @property
    def cvr(self) -> Head | None:
        return self.heads.get("cvr")

    def bind(self, creatives: npt.NDArray[np.void], features: Hashes) -> "BoundModel":
        """This model on a catalogue: `creatives` and `features` are the snapshot's arrays."""
        starts, counts = creatives["features_start"], creatives["features_count"]
        return BoundModel(
            self,
            {name: head.ad_rows(starts, counts, features) for name, head in self.heads.items()},
        )

    @classmethod
    def of(cls, arrays: Mapping[str, Array], meta: Mapping[str, object], content_hash: str) -> Self:
        """The model of an opened artefact (`stores.artifacts.open_artifact(path, MODEL_KIND)`).

        Raises: CatalogueError when versions, shapes, dtypes or values may not be served: a worker
        keeps the model that it has.
        """
        try:
            known = msgspec.convert(dict(meta), ModelMeta)
        except msgspec.ValidationError as error:
            raise CatalogueError(f"model {content_hash}: {error}") from error
        _check_meta(known, content_hash)
        heads = {}
        for name, head in known.heads.items():
            table = _checked_table(arrays, name, known.bits, content_hash)
            heads[name] = Head(table, known.bits, head.bias, head.slope, head.shift)
        return cls(heads, known.form, known.bits, content_hash)


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model with the towers of one snapshot's creatives: the engine's scorer.

    The compiled engine takes the pieces: tables, `bits`, and `ad_rows` by head name.
    """

    model: Model
    ad_rows: Mapping[str, Floats]  # (creatives, ROW) a head

    @property
    def heads(self) -> frozenset[str]:
        """What it predicts, of `NAMES`."""
        return frozenset(self.model.heads)

    def score(self, features: Hashes, creatives: Indexes) -> tuple[Doubles, Doubles | None]:
        """Probabilities of candidates on one impression: clicks, conversions after a click.

        Shapes: features (n,) uint64, a set; creatives (m,) int32 -> (m,), (m,) float64. The
        second is None when no conversions were logged: line items fall back to their priors.
        """
        ctr = self._head_scores("ctr", features, creatives)
        return ctr, self._head_scores("cvr", features, creatives) if self.model.cvr else None

    def _head_scores(self, name: str, features: Hashes, creatives: Indexes) -> Doubles:
        head = self.model.heads[name]
        return head.score(self.ad_rows[name], head.request_vector(features), creatives)


def _check_meta(meta: ModelMeta, content_hash: str) -> None:
    place = f"model {content_hash}"
    if meta.model_version != MODEL_VERSION:
        raise CatalogueError(f"{place}: version {meta.model_version}, expected {MODEL_VERSION}")
    if meta.hash_version != HASH_VERSION:
        raise CatalogueError(f"{place}: hash version {meta.hash_version}, expected {HASH_VERSION}")
    if meta.factors != FACTORS:
        raise CatalogueError(f"{place}: {meta.factors} factors, expected {FACTORS}")
    if not BITS_MIN <= meta.bits <= BITS_MAX:
        raise CatalogueError(f"{place}: {meta.bits} bits, expected {BITS_MIN} to {BITS_MAX}")
    if "ctr" not in meta.heads or not set(meta.heads) <= set(NAMES):
        raise CatalogueError(f"{place}: heads {sorted(meta.heads)}, expected ctr and perhaps cvr")
    for name, head in meta.heads.items():
        numbers = np.array([head.bias, head.slope, head.shift])
        if not bool((np.abs(numbers) <= WEIGHT_MAX).all()):
            raise CatalogueError(f"{place}: {name}: bias or calibration out of range: {numbers}")
        if head.slope <= 0:
            raise CatalogueError(f"{place}: {name}: slope {head.slope} turns the ranking around")


def _checked_table(arrays: Mapping[str, Array], name: str, bits: int, content_hash: str) -> Floats:
    """The table of one head, verified once at load, so that kernels need not look."""
    place = f"model {content_hash}: {name}_table"
    table = arrays.get(f"{name}_table")
    if table is None:
        raise CatalogueError(f"{place}: missing")
    if table.dtype != np.float32 or table.shape != (1 << bits, ROW):
        raise CatalogueError(f"{place}: {table.dtype} {table.shape}, expected ({1 << bits}, {ROW})")
    if not table.flags.c_contiguous:
        raise CatalogueError(f"{place}: not contiguous")
    values = table.view(np.float32)
    # NaN compares false, so one pass finds NaN, infinities and runaway weights; in slices, since
    # a mask over a whole table would double its memory.
    for start in range(0, len(values), 1 << 16):
        if not bool((np.abs(values[start : start + (1 << 16)]) <= WEIGHT_MAX).all()):
            raise CatalogueError(f"{place}: a weight is not finite or above {WEIGHT_MAX:g}")
    return values
