"""What a client expects of an answer, and of a run: the part of the Locust file without Locust."""

import json
from dataclasses import dataclass

TMAX_MS_DEFAULT = 100.0


@dataclass(frozen=True)
class Body:
    """One request to send, and what its answer is checked against."""

    content: bytes
    kind: str
    tmax_ms: float
    floors: dict[str, float]  # by impression; 0 where the floor is in another currency

    @classmethod
    def of(cls, line: bytes) -> "Body":
        """A line of the file of bodies."""
        request = json.loads(line)
        floors, kinds = {}, set()
        for imp in request["imp"]:
            same = imp.get("bidfloorcur", "USD") == "USD" and request.get("cur", ["USD"]) == ["USD"]
            floors[imp["id"]] = float(imp.get("bidfloor", 0)) if same else 0.0
            kinds |= {"banner", "video", "audio", "native"} & imp.keys()
            if imp.get("pmp", {}).get("deals") or imp.get("video", {}).get("durfloors"):
                floors[imp["id"]] = 0.0  # deals and durations have floors of their own
        kind = kinds.pop() if len(kinds) == 1 else "mixed"
        return cls(line, kind, float(request.get("tmax", TMAX_MS_DEFAULT)), floors)


def fault(body: Body, status: int, content: bytes) -> str:
    """What is wrong with an answer; "" when nothing is."""
    if status == 204:
        return "" if not content else "204 with a body"
    if status != 200:
        return f"status {status}"
    try:
        answer = json.loads(content)
    except ValueError:
        return "no JSON"
    for seat in answer.get("seatbid", []):
        for bid in seat["bid"]:
            if bid["impid"] not in body.floors:
                return "unknown impression"
            if bid["price"] < body.floors[bid["impid"]]:
                return "below the floor"
    return ""


def missed(found: dict[str, float], limits: dict[str, float]) -> list[str]:
    """The limits that a run misses, in words. Raises: ValueError for a limit on nothing."""
    lines = []
    for key, limit in limits.items():
        name, _, kind = key.rpartition("_")
        if name not in found or kind not in ("min", "max"):
            raise ValueError(f"unknown limit {key}")
        value = found[name]
        if (value < limit) if kind == "min" else (value > limit):
            lines.append(f"{name} is {value:g}, {key} is {limit:g}")
    return lines
