"""Claims and notices as values against the record layouts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import CLAIMS, NOTICE, ClaimFlag, Kind, PriceState, VideoEvent
from rtb.notices.notice import Claims, Notice
from tests.notices import bids

INTEGERS = {"u1": (0, 2**8 - 1), "u4": (0, 2**32 - 1), "u8": (0, 2**64 - 1), "i8": (0, 2**63 - 1)}
ANY_CLAIMS = st.builds(
    Claims,
    **{name: st.integers(*INTEGERS[CLAIMS.fields[name][0].str[1:]]) for name in CLAIMS.names},
)


@given(ANY_CLAIMS)
def test_claims_are_the_record(claims: Claims) -> None:
    """Packed claims are a row of CLAIMS, field by field, and come back."""
    row = np.frombuffer(claims.pack(), CLAIMS)[0]

    assert CLAIMS.names == Claims._fields
    assert claims == Claims(*(int(row[name]) for name in CLAIMS.names))
    assert claims == Claims.unpack(claims.pack())


def test_a_notice_is_its_record() -> None:
    """The journal body of a notice is a row of NOTICE, field by field."""
    claims = bids.claims()
    notice = Notice(
        Kind.VIDEO, claims.pack(), claims, 5, 6, 7, 8, 9, PriceState.AUDIT, VideoEvent.SKIP, 10, 11
    )
    row = np.frombuffer(notice.record(), NOTICE)[0]

    assert claims.pack() == row["claims"].tobytes()
    assert [5, 6, 7, 8, 9, PriceState.AUDIT, VideoEvent.SKIP, 10, 11] == [
        int(row[name]) for name in NOTICE.names[1:]
    ]


def test_a_test_is_known() -> None:
    """The flag of test=1 travels with the claims."""
    claims = bids.claims(flags=ClaimFlag.TEST | ClaimFlag.EXPECTED)

    assert Notice(Kind.WIN, claims.pack(), claims, 0).is_test
    assert not Notice(Kind.WIN, claims.pack(), claims._replace(flags=2), 0).is_test
