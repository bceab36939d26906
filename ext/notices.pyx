"""Compiled twin of `rtb.notices.tokens.Signer`, whose file states what tokens are.

The digests are hashlib's: what is compiled is cutting them into tags and writing base64.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from rtb.base.errors import InvariantError
from rtb.notices import tokens as rules

cdef int CLAIMS_BYTES = rules.CLAIMS_BYTES
cdef int CLAIMS_CHARS = rules.CLAIMS_CHARS
cdef int TAG_BYTES = rules.TAG_BYTES
cdef int TAG_CHARS = rules.TAG_CHARS
cdef int GROUP_SLOTS = rules.GROUP_SLOTS
cdef int GROUP_BYTES = rules.GROUP_SLOTS * rules.TAG_BYTES
cdef int GROUP_CHARS = rules.GROUP_SLOTS * rules.TAG_CHARS

cdef const char *ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


cdef inline void _triple(char *to, unsigned int bits) noexcept nogil:
    to[0] = ALPHABET[bits >> 18 & 63]
    to[1] = ALPHABET[bits >> 12 & 63]
    to[2] = ALPHABET[bits >> 6 & 63]
    to[3] = ALPHABET[bits & 63]


cdef void _claims(char *to, const unsigned char *data) noexcept nogil:
    """Base64 of the claims, which fill whole triples."""
    cdef int i
    for i in range(CLAIMS_BYTES // 3):
        _triple(to + 4 * i, data[3 * i] << 16 | data[3 * i + 1] << 8 | data[3 * i + 2])


cdef void _tags(char *to, const unsigned char *data) noexcept nogil:
    """Base64 of the tags of one digest: two triples and a pair each."""
    cdef int slot
    cdef unsigned int bits
    for slot in range(GROUP_SLOTS):
        _triple(to, data[0] << 16 | data[1] << 8 | data[2])
        _triple(to + 4, data[3] << 16 | data[4] << 8 | data[5])
        bits = data[6] << 16 | data[7] << 8
        to[8] = ALPHABET[bits >> 18 & 63]
        to[9] = ALPHABET[bits >> 12 & 63]
        to[10] = ALPHABET[bits >> 6 & 63]
        data += TAG_BYTES
        to += TAG_CHARS


cdef bytes _digest(object copy, bytes text):
    cdef object state = copy()
    cdef bytes digest
    state.update(text)
    digest = state.digest()
    if PyBytes_GET_SIZE(digest) != GROUP_BYTES:
        raise InvariantError("a digest of another size than the slots")
    return digest


cdef class Signer:
    """See `rtb.notices.tokens.Signer`."""

    cdef int key
    cdef object notices
    cdef object events

    def __init__(self, keyring):
        prepared = keyring.prepared(keyring.current)
        if prepared is None:
            raise InvariantError("the current secret is not on its keyring")
        self.key = keyring.current
        # Only ever copied: the prepared digests themselves take nothing in.
        self.notices = prepared.notices.copy
        self.events = prepared.events.copy

    def sign(self, bytes claims not None, bint events=False) -> bytes:
        """See `rtb.notices.tokens.Signer.sign`."""
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(claims)
        cdef bytes sheet
        cdef char *to
        if PyBytes_GET_SIZE(claims) != CLAIMS_BYTES or data[1] != self.key:
            raise InvariantError("not claims of the current secret")
        sheet = PyBytes_FromStringAndSize(NULL, CLAIMS_CHARS + GROUP_CHARS * (2 if events else 1))
        to = PyBytes_AS_STRING(sheet)
        _claims(to, data)
        to += CLAIMS_CHARS
        _tags(to, <const unsigned char *>PyBytes_AS_STRING(_digest(self.notices, claims)))
        if events:
            to += GROUP_CHARS
            _tags(to, <const unsigned char *>PyBytes_AS_STRING(_digest(self.events, claims)))
        return sheet
