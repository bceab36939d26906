"""Facts in a form in which two decoders agree: ranges and slices resolved, tokens in order."""

import numpy as np

from rtb.base.records import Opportunity

Plain = dict[str, object]

# Offsets say where, not what: whoever owns a range or a slice has its content below.
_RANGES = ("formats", "assets", "deals", "durfloors")


def facts_of(opportunity: Opportunity) -> Plain:
    """Everything a reader of the records may see, as plain values."""
    facts = opportunity.facts[0]
    head = facts["head"]
    tokens = facts["tokens"][: head["tokens_count"]]
    return {
        "head": _row(opportunity, head),
        "ids": [_row(opportunity, row) for row in facts["ids"][: head["ids_count"]]],
        "imps": [_row(opportunity, row) for row in facts["imps"][: head["imps_count"]]],
        "deals": [_row(opportunity, row) for row in facts["deals"][: head["deals_count"]]],
        "tokens": sorted(
            zip(
                tokens["dim"].tolist(),
                tokens["imp"].tolist(),
                tokens["hash"].tolist(),
                strict=True,
            )
        ),
    }


def _row(opportunity: Opportunity, row: np.void) -> Plain:
    plain: Plain = {}
    for name in row.dtype.names or ():
        value = row[name]
        if isinstance(value, np.void):
            plain[name] = _row(opportunity, value)
        elif name.endswith("_off") or name == "off":
            plain[name] = opportunity.slice(int(value), int(row[name[: -len("off")] + "len"]))
        elif name.endswith("_start"):
            plain |= _range(opportunity, row, name.removesuffix("_start"))
        else:
            plain[name] = value.tolist()
    return plain


def _range(opportunity: Opportunity, row: np.void, name: str) -> Plain:
    assert name in _RANGES
    start, count = int(row[f"{name}_start"]), int(row[f"{name}_count"])
    if name == "deals":  # they name their impression; `facts_of` has them
        return {"deals_start": start if count else 0}
    return {name: opportunity.facts[0][name][start : start + count].tolist()}
