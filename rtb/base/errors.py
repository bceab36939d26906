"""Faults, by whose fault they are. Expected results are not here: they are enums in `reasons`.

RtbError
├── InputError          theirs: a body, a file, a URL that we refuse; carries the place
│   ├── WireError       not readable as HTTP payload or JSON
│   ├── OpenRTBError    readable, but not a bid request
│   └── ProfileError    a stored profile that breaks its layout
├── ConfigError         ours, at start: refuses to start
│   └── CatalogueError  a catalogue, snapshot or model that may not be served
├── StoreError          a dependency failed; `.transient` says whether to try again
│   ├── StoreTimeout
│   └── StoreCorrupt
└── InvariantError      a bug: the worker stops
"""


class RtbError(Exception):
    """Root of all faults raised by this project."""


class InputError(RtbError):
    """The sender's fault; never logged above debug.

    `path` is the place in the input (`$.imp[0].secure`, `line_items.csv row 7 field bid`).
    """

    http_status = 400

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(f"{message} - at `{path}`")
        self.reason = message
        self.path = path


class WireError(InputError):
    """Bytes that are not the JSON, compression or framing they claim to be."""


class OpenRTBError(InputError):
    """JSON that is not an OpenRTB 2.x bid request (spec section 3.2)."""


class ProfileError(InputError):
    """A profile record that does not follow `rtb.profiles.record`."""


class ConfigError(RtbError):
    """A setting that we refuse to start with; the message names file and key."""


class CatalogueError(ConfigError):
    """A catalogue, snapshot or model that may not be served."""


class StoreError(RtbError):
    """A dependency failed. `transient` tells whether the same call may succeed later."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class StoreTimeout(StoreError):
    """No answer within the deadline of the call."""


class StoreCorrupt(StoreError):
    """Stored bytes fail their checksum or layout."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=False)


class InvariantError(RtbError):
    """Something that cannot happen did: a bug in this code."""
