"""Signals against personal data, read in every home they ever had.

    GDPR        gdpr: regs, regs.ext, user.ext       any number but 0, or unreadable
    COPPA       coppa: regs, regs.ext                likewise
    LMT, DNT    device.lmt, device.dnt               likewise
    LMT         atts: device, device.ext             any number but 0 and 3, or unreadable
    GPC         gpc: regs, regs.ext                  likewise ("1" is its proper form)
    GPP         gpp: regs, regs.ext                  anything but null and ""
    GPP         gpp_sid: regs, regs.ext              an entry over 0, or an unreadable one
    US_PRIVACY  us_privacy: regs, regs.ext, user.ext third character Y or y, or anything but "1" and
                                                 three of Y, N and - in either case; spaces around
                                                 it are no part of it

A home that is there but is no object may have said no: regs, regs.ext, user and user.ext then read
as GDPR, device and device.ext as LMT. null and "" say nothing, there as everywhere.
"""

import re
from typing import Final

from rtb.base.records import Privacy, Quirk
from rtb.openrtb.reading import Json, Object, Reader

# App Tracking Transparency: what an Apple device answers whether it may be tracked; 2 is denied.
ATTS_NOT_ASKED: Final = 0
ATTS_RESTRICTED: Final = 1
ATTS_AUTHORISED: Final = 3
# Who shows the notice of the Digital Services Act (regs.ext.dsa.pubrender): known up to 2.
PUBRENDER_MAX: Final = 9
# IAB's US Privacy String 1.0: version, notice given, opted out of sale, limited service provider.
_US_PRIVACY: Final = re.compile("1[YyNn-][YyNn-][YyNn-]")


def read_privacy(reader: Reader, root: Object) -> Privacy:
    """Every signal of a request; what cannot be read counts as one."""
    regs, device = reader.object(root, "regs"), reader.object(root, "device")
    user = reader.object(root, "user")
    ext, user_ext = reader.object(regs, "ext"), reader.object(user, "ext")
    device_ext = reader.object(device, "ext")
    signals = _unreadable_homes(reader, root, regs, user, device)
    for flag, key, owners in (
        (Privacy.GDPR, "gdpr", (regs, ext, user_ext)),
        (Privacy.COPPA, "coppa", (regs, ext)),
        (Privacy.LMT, "lmt", (device,)),
        (Privacy.LMT, "atts", (device, device_ext)),
        (Privacy.DNT, "dnt", (device,)),
        (Privacy.GPC, "gpc", (regs, ext)),
        (Privacy.GPP, "gpp", (regs, ext)),
        (Privacy.GPP, "gpp_sid", (regs, ext)),
        (Privacy.US_PRIVACY, "us_privacy", (regs, ext, user_ext)),
    ):
        for owner in owners:
            if not reader.has(owner, key):
                continue
            if owner is not regs and owner is not device and key not in _AT_HOME_IN_EXT:
                reader.note(Quirk.OLD_HOME)
            if _is_set(reader, owner, key):
                signals |= flag
    return signals


def _unreadable_homes(
    reader: Reader, root: Object, regs: Object, user: Object, device: Object
) -> Privacy:
    signals = Privacy(0)
    for flag, owner, key in (
        (Privacy.GDPR, root, "regs"),
        (Privacy.GDPR, regs, "ext"),
        (Privacy.GDPR, root, "user"),
        (Privacy.GDPR, user, "ext"),
        (Privacy.LMT, root, "device"),
        (Privacy.LMT, device, "ext"),
    ):
        if reader.has(owner, key) and not isinstance(owner[key], dict):
            signals |= flag
    return signals


def _is_set(reader: Reader, owner: Object, key: str) -> bool:
    value = owner[key]
    if key == "gpp":
        return True
    if key == "gpp_sid":
        sections = [reader.integer_of(item, 1) for item in reader.items(owner, key)]
        return max(sections, default=0) > 0
    if key == "atts":
        status = reader.integer(owner, key, ATTS_RESTRICTED)
        return status not in (ATTS_NOT_ASKED, ATTS_AUTHORISED)
    if key == "gpc" and isinstance(value, str):
        return value != "0"
    if key == "us_privacy":
        return _opts_out(reader, value)
    # An unreadable signal reads 1: who sent it meant to say something.
    return reader.integer(owner, key, 1) != 0


def _opts_out(reader: Reader, value: Json) -> bool:
    if not isinstance(value, str):
        reader.note(Quirk.WRONG_TYPE_IGNORED)
        return True
    said = value.strip(" ")
    if not said or _US_PRIVACY.fullmatch(said):
        return said[2:3] in ("Y", "y")
    # Also for an escape of JSON: who spells it so means to say something.
    reader.note(Quirk.BAD_VALUE_IGNORED)
    return True


_AT_HOME_IN_EXT: Final = ("gpc", "atts")
