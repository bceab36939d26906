"""Facts as plain values for people: what explain prints, and what two decoders are compared by.

Offsets and counts are resolved: slices are text, ranges are lists inside their owner, masks and
flags are names or lists of bit numbers, tokens are sorted. Zero says nothing in most facts, so
what is 0, empty or false is left out.
"""

from enum import IntFlag
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.money import currency_name
from rtb.base.records import Dim, Flag, IdKind, ImpFlag, Media, Opportunity, Privacy, Quirk

Plain = dict[str, object]
Record = np.void

_MASKS: Final = frozenset({
    "api", "banner_api", "banner_battr", "banner_btype", "banner_expdir", "banner_mimes", "battr",
    "delivery", "mimes", "native_api", "native_battr", "native_events", "playbackmethod",
    "poddedupe", "protocols",
})  # fmt: skip
_FLAGS: Final[dict[str, type[IntFlag]]] = {"privacy": Privacy, "quirks": Quirk}
_BLOCKS: Final = [dim for dim in Dim if Dim.BCAT <= dim <= Dim.WLANG]
_RANGES: Final = ("formats", "assets", "deals", "durfloors")


def readable(opportunity: Opportunity) -> Plain:
    """The facts of a request: its own, `ids`, `imps`, and `tokens` by dimension name.

    A token of one impression is under that impression; one of a deal under that deal.
    """
    facts = opportunity.facts[0]
    head = facts["head"]
    plain = _record(opportunity, head, Flag)
    present = int(head["blocks"])
    plain["blocks"] = [dim.name for dim in _BLOCKS if present >> (dim - Dim.BCAT) & 1]
    plain["tokens"] = _tokens(opportunity, -1, deals=False)
    plain["ids"] = [_identifier(opportunity, row) for row in facts["ids"][: head["ids_count"]]]
    plain["imps"] = [_imp(opportunity, index) for index in range(int(head["imps_count"]))]
    return {name: value for name, value in plain.items() if value not in ({}, [])}


def _imp(opportunity: Opportunity, index: int) -> Plain:
    row = opportunity.facts[0]["imps"][index]
    plain = _record(opportunity, row, ImpFlag)
    plain["media"] = [medium.name for medium in Media if row["media"] >> medium & 1]
    for name in ("video", "audio"):
        av = plain.pop(name)
        if row[name]["offered"]:
            plain[name] = av
    plain["tokens"] = _tokens(opportunity, index, deals=False)
    return {name: value for name, value in plain.items() if value not in ({}, [])}


def _record(opportunity: Opportunity, row: Record, flags: type[IntFlag] | None = None) -> Plain:
    """The fields of one row by name, resolved."""
    plain: Plain = {}
    for name in row.dtype.names or ():
        value = row[name]
        if isinstance(value, np.void):
            plain[name] = _record(opportunity, value)
        elif (name == "flags" and flags) or name in _FLAGS:
            plain[name] = _names(int(value), _FLAGS.get(name) or flags or Flag)
        elif name.endswith("_off"):
            plain[name.removesuffix("_off")] = _slice(opportunity, row, name)
        elif name.endswith("_start"):
            plain |= _range(opportunity, row, name.removesuffix("_start"))
        elif not name.endswith(("_len", "_count")) and name not in ("blocks", "imp"):
            plain[name] = _value(name, value)
    return {name: value for name, value in plain.items() if value not in (0, "", [])}


def _value(name: str, value: np.generic | npt.NDArray[np.generic]) -> object:
    if name in ("floor_cur", "cur"):
        codes = np.atleast_1d(value).tolist()
        names = [currency_name(code) for code in codes if code]
        return names if name == "cur" else "".join(names)
    if name in _MASKS:
        return [bit for bit in range(64) if int(value) >> bit & 1]
    if isinstance(value, np.ndarray):
        return [item for item in value.tolist() if item]
    return value.item()


def _range(opportunity: Opportunity, row: Record, name: str) -> Plain:
    if name not in _RANGES:
        return {}
    start, count = int(row[f"{name}_start"]), int(row[f"{name}_count"])
    rows = opportunity.facts[0][name][start : start + count]
    plain = [_record(opportunity, item) for item in rows]
    if name == "deals":
        for index, deal in enumerate(plain, start):
            deal.pop("hash")
            tokens = _tokens(opportunity, index, deals=True)
            if tokens:
                deal["tokens"] = tokens
    return {name: plain}


def _identifier(opportunity: Opportunity, row: Record) -> Plain:
    plain: Plain = {"kind": IdKind(int(row["kind"])).name, "id": _slice(opportunity, row, "off")}
    source = _slice(opportunity, row, "source_off")
    if source:
        plain |= {"source": source, "atype": int(row["atype"])}
    return plain


def _tokens(opportunity: Opportunity, imp: int, *, deals: bool) -> dict[str, list[str]]:
    facts = opportunity.facts[0]
    tokens: dict[str, list[str]] = {}
    for token in facts["tokens"][: facts["head"]["tokens_count"]]:
        dim = Dim(int(token["dim"]))
        if token["imp"] == imp and (dim in (Dim.DEAL_WSEAT, Dim.DEAL_WADOMAIN)) == deals:
            tokens.setdefault(dim.name, []).append(_slice(opportunity, token, "off"))
    return {name: sorted(values) for name, values in sorted(tokens.items())}


def _slice(opportunity: Opportunity, row: Record, off: str) -> str:
    length = off.removesuffix("off") + "len"
    return opportunity.slice(int(row[off]), int(row[length])).decode()


def _names(value: int, flags: type[IntFlag]) -> list[str]:
    return [flag.name or "" for flag in flags if value & flag]
