"""Writes `ext/{links,records,snapshot,board}.pxd` from the numpy layouts, so that C reads the same.

Run `python ext/layouts.py` after a change of `rtb/base/{records,links,events}.py`,
`rtb/catalogue/snapshot.py`, `rtb/profiles/record.py` or `rtb/stores/board.py`; a test fails while
files and layouts differ.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from rtb.base import events, links, reasons, records  # noqa: E402
from rtb.catalogue import snapshot  # noqa: E402
from rtb.profiles import record as profile  # noqa: E402
from rtb.stores import board  # noqa: E402

C_TYPES = {
    "u1": "uint8_t", "i1": "int8_t", "u2": "uint16_t", "i2": "int16_t", "u4": "uint32_t",
    "i4": "int32_t", "u8": "uint64_t", "i8": "int64_t", "f8": "double", "S2": "uint16_t",
}  # fmt: skip
# Words that C or Cython keep for themselves get an underscore.
RESERVED = {"len": "len_", "hash": "hash_", "at": "at"}


def struct_lines(name: str, dtype: np.dtype, names: dict[int, str]) -> list[str]:
    """One `cdef struct` for a structured dtype; nested dtypes are looked up in `names` by id."""
    lines = [f"cdef struct {name}:"]
    for field in dtype.names or ():
        kind = dtype.fields[field][0]
        base, shape = kind.subdtype or (kind, ())
        c_type = names[id(base)] if base.names else C_TYPES[base.str[1:]]
        size = "".join(f"[{length}]" for length in shape)
        end = dtype.fields[field][1] + kind.itemsize
        lines.append(f"    {c_type} {RESERVED.get(field, field)}{size}")
    align = max(kind.alignment for kind, *_ in dtype.fields.values())
    padding = dtype.itemsize - -(-end // align) * align
    if padding:
        lines.append(f"    uint8_t padding_[{padding}]")
    return lines


def render(source: str, structs: dict[str, np.dtype], constants: dict[str, int]) -> str:
    lines = [f"# Written by ext/layouts.py from {source}. Do not edit.", ""]
    lines += ["from libc.stdint cimport (", "    int8_t, int16_t, int32_t, int64_t,"]
    lines += ["    uint8_t, uint16_t, uint32_t, uint64_t,", ")", ""]
    if constants:
        members = (f"    {name} = {value}" for name, value in constants.items())
        lines += ["cdef enum:", *members, ""]
    names: dict[int, str] = {}
    for name, dtype in structs.items():
        lines += [*struct_lines(name, dtype, names), ""]
        names[id(dtype)] = name
    return "\n".join(lines)


def records_pxd() -> str:
    structs = {
        "Token": records.TOKEN, "Identifier": records.IDENTIFIER, "Format": records.FORMAT,
        "DurFloor": records.DURFLOOR, "Asset": records.ASSET, "Deal": records.DEAL,
        "Av": records.AV, "Imp": records.IMP, "Head": records.HEAD, "Facts": records.FACTS,
        "Bid": records.BID, "Drop": records.DROP, "DecisionHead": records.DECISION_HEAD,
        "DecisionData": records.DECISION, "Rate": records.RATE, "Zone": records.ZONE,
        "TermsData": records.TERMS, "OverlayRow": records.OVERLAY,
    }  # fmt: skip
    constants = {name: getattr(records, name) for name in dir(records) if name.endswith("_MAX")}
    for enum, prefix in (
        (records.Dim, "DIM_"), (records.Media, "MEDIA_"), (records.Privacy, "PRIVACY_"),
        (records.Flag, "FLAG_"), (records.ImpFlag, "IMP_"), (records.IdKind, "ID_"),
        (records.Quirk, "QUIRK_"), (records.Hole, "HOLE_"), (records.Escape, "ESCAPE_"),
        (records.Overlay, "OVERLAY_"), (reasons.Reject, "REJECT_"),
        (reasons.NoBid, "NOBID_"),
    ):  # fmt: skip
        constants |= {f"{prefix}{member.name}": int(member) for member in enum}
    return render("rtb/base/records.py", structs, constants)


def snapshot_pxd() -> str:
    structs = {
        "LineItem": snapshot.LINE_ITEM, "Advertiser": snapshot.ADVERTISER,
        "Campaign": snapshot.CAMPAIGN, "Seat": snapshot.SEAT, "Flight": snapshot.FLIGHT,
        "Cap": snapshot.CAP, "Creative": snapshot.CREATIVE, "Product": snapshot.PRODUCT,
        "Code": snapshot.CODE, "Rendition": snapshot.RENDITION, "AdAsset": snapshot.ASSET,
        "Piece": snapshot.PIECE, "DimRow": snapshot.DIM, "Value": snapshot.VALUE,
        "Row": snapshot.ROW, "Op": snapshot.OP,
        "ProfileHeader": profile.HEADER, "ProfileEntry": profile.ENTRY,
    }  # fmt: skip
    constants = {
        f"SNAP_{name}": value
        for name, value in vars(snapshot).items()
        if isinstance(value, int) and name.isupper()
    }
    constants |= {
        f"PROFILE_{name}": value
        for name, value in vars(profile).items()
        if isinstance(value, int) and name.isupper()
    }
    return render("rtb/catalogue/snapshot.py and rtb/profiles/record.py", structs, constants)


def board_pxd() -> str:
    constants = {
        f"BOARD_{name}": value
        for name, value in vars(board).items()
        if isinstance(value, int) and name.isupper() and name != "MAGIC"
    }
    return render("rtb/stores/board.py", {"Column": board.COLUMN}, constants)


def links_pxd() -> str:
    constants = {
        f"LINKS_{name}": value
        for name, value in vars(links).items()
        if isinstance(value, int) and name.isupper()
    }
    constants |= {f"PLACE_{member.name}": int(member) for member in links.Place}
    structs = {
        "Claims": events.CLAIMS, "BidRecord": events.BID, "LinkRecord": events.LINK,
        "Sheet": links.SHEET,
    }  # fmt: skip
    return render("rtb/base/links.py and rtb/base/events.py", structs, constants)


FILES = {
    "links.pxd": links_pxd,
    "records.pxd": records_pxd,
    "snapshot.pxd": snapshot_pxd,
    "board.pxd": board_pxd,
}

if __name__ == "__main__":
    for file_name, make in FILES.items():
        (HERE / file_name).write_text(make())
