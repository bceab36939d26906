"""The decision, compiled: twin of `rtb.decide.engine`, which states the rules.

Everything below runs without the GIL's services: arrays in, one `DecisionData` out. An `Engine` owns
the scratch space of one worker thread and borrows the arrays of one snapshot (it keeps them alive).
Contents, in the order of the steps:

    Engine.__init__     borrow arrays, expand the "does not care" rows
    decide              one request
      _collect          tokens -> rows of the index and block lists
      _impression       blocks of the index, the most valuable first, until the short list is full
      _batch            candidates by what they can be worth
      _line_item        expression, flight, deals, seat, person
      _creative         the exchange's blocks, the person's history
      _price            score, value, floor, bid, short lists
      _choose           separation and pods across the request
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport asin, ceil, cos, fabs, isfinite, pi, rint, sin, sqrt
from libc.stdint cimport (
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from records cimport *
from snapshot cimport *
from tokens cimport cell_hash, mix64, union_hash

from rtb.base.records import PER_IMP_DIMS, PERSONAL_DIMS, UNIONS
from rtb.catalogue import targeting as place_rules
from rtb.catalogue.snapshot import summary_words_count, words_count
from rtb.decide import engine as rules
from rtb.decide import exclude as exclude_rules
from rtb.decide import features as feature_rules
from rtb.decide import price as price_rules
from rtb.decide import select as select_rules
from rtb.decide import targeting as targeting_rules
from rtb.decide.model import NAMES as HEAD_NAMES
from rtb.decide.score import kernel_addresses
from rtb.base.money import CPM_MICROS_MAX as RULE_CPM_MICROS_MAX

cdef extern from *:
    """
    #define CTZ(x) __builtin_ctzll(x)
    #define PREFETCH(x) __builtin_prefetch(x)
    """
    void PREFETCH(const void *) noexcept nogil
    int CTZ(uint64_t) noexcept nogil

cdef extern from "bits.h":
    ctypedef struct bits_row:
        const uint64_t *words
        const uint32_t *members
        const uint64_t *summary
        int32_t count
        int32_t exclude

    ctypedef struct bits_dim:
        const uint64_t *free_words
        const uint64_t *free_summary
        int32_t start
        int32_t count

    void bits_alive(
        const bits_dim *dims, int dims_count, const bits_row *rows, int blocks, int summary_words,
        const uint64_t *start_summary, uint64_t *out_summary
    ) noexcept nogil
    void bits_prefetch(const bits_row *rows, int count, int block) noexcept nogil
    int bits_block(
        const bits_dim *dims, int dims_count, const bits_row *rows, const uint64_t *start,
        int block, uint64_t *out
    ) noexcept nogil

# Numba kernels, called by address (rtb/decide/score.py).
ctypedef void (*request_vector_t)(
    const float *table, int64_t bits, const uint64_t *hashes, int64_t n, float *out
) noexcept nogil
ctypedef void (*score_t)(
    const float *ad_rows, const float *query, const int32_t *creatives, int64_t n,
    double bias, double a, double b, double *out
) noexcept nogil

cdef enum:
    BLOCK = SNAP_BLOCK_WORDS
    HITS_MAX = 2048
    BLOCK_SIZE = 64 * SNAP_BLOCK_WORDS
    CURRENCIES_BOUND_CAP = 8
    BATCH_CAP = 64
    BLOCKS_AHEAD = 4  # blocks between a prefetch and its use
    ORDERS = 4
    LIST_MAX = TOKENS_MAX
    SHORTLIST_CAP = 16
    STAGE_REQUEST = 0
    STAGE_IMP = 1
    STAGE_BOTH = 2
    AHEAD = 16  # candidates between a prefetch and its use
    VECTOR = 16

# Constants of the rules live in the readable twin.
cdef int READY_MAX = rules.READY_MAX
cdef int ROUNDS_RANKED = rules.ROUNDS_RANKED
cdef int BATCH_MIN = rules.BATCH_MIN
cdef int CURRENCIES_BOUND_MAX = rules.CURRENCIES_BOUND_MAX
cdef int FEATURES_MAX = feature_rules.FEATURES_MAX
cdef int SHORTLIST_MAX = select_rules.SHORTLIST_MAX
cdef int POD_SHORTLIST_MAX = select_rules.POD_SHORTLIST_MAX
cdef uint32_t DEDUPE_ADVERTISER = select_rules.DEDUPE_ADVERTISER
cdef int DSA_REQUIRED = exclude_rules.DSA_REQUIRED
cdef double CPM_LIMIT = RULE_CPM_MICROS_MAX
cdef double EARTH_RADIUS_KM = place_rules.EARTH_RADIUS_KM
cdef double KM_PER_DEGREE = EARTH_RADIUS_KM * pi / 180.0
cdef int64_t EPOCH_HOUR = targeting_rules.EPOCH_HOUR_OF_WEEK
cdef uint64_t[168] HOUR_TOKENS
cdef uint8_t[128] IS_PER_IMP
cdef uint8_t[128] UNION_OF
cdef uint8_t[128] IS_PERSONAL
cdef uint8_t[128] IS_FEATURE
memset(IS_PER_IMP, 0, sizeof(IS_PER_IMP))
memset(UNION_OF, 0, sizeof(UNION_OF))
for _dim in UNIONS:
    UNION_OF[<int>_dim] = <int>UNIONS[_dim]
memset(IS_PERSONAL, 0, sizeof(IS_PERSONAL))
memset(IS_FEATURE, 0, sizeof(IS_FEATURE))
for _hour, _token in enumerate(targeting_rules.HOURS_OF_WEEK):
    HOUR_TOKENS[_hour] = _token
for _dim in PER_IMP_DIMS:
    IS_PER_IMP[<int>_dim] = 1
for _dim in PERSONAL_DIMS:
    IS_PERSONAL[<int>_dim] = 1
for _dim in feature_rules.MODEL_DIMS:
    IS_FEATURE[<int>_dim] = 1
assert SHORTLIST_MAX <= SHORTLIST_CAP and POD_SHORTLIST_MAX <= SHORTLIST_CAP
assert FEATURES_MAX <= 256
assert CURRENCIES_BOUND_MAX <= CURRENCIES_BOUND_CAP and BATCH_MIN <= BATCH_CAP


# A value of the request that some line items include or exclude in one dimension.
cdef struct Hit:
    int32_t include_row
    int32_t exclude_row
    int32_t next
    int32_t owner  # -1: the request; else its impression

# The most that a line item can be worth here, in its own currency.
cdef struct Bound:
    double micros
    uint32_t currency
    int32_t creatives_start  # so that its creatives can be fetched together with it

# A candidate and that value in the currency of the answer.
cdef struct Ranked:
    double value
    int32_t line_item

# The blocks from the most valuable on, as the rates of one request put them.
cdef struct Order:
    int32_t count  # 0: not made yet
    double ratios[8]
    Ranked *blocks

# One creative that may run, and the competitions it may enter.
cdef struct Ready:
    int32_t creative
    int32_t line_item
    int32_t places_start
    int32_t places_count

cdef struct Entry:
    int64_t price
    int64_t value
    int64_t floor
    double ctr
    double cvr
    uint64_t tie
    int32_t line_item
    int32_t creative
    int32_t w
    int32_t h
    int32_t chosen
    int32_t at

cdef struct Group:
    int32_t imp
    int32_t deal
    int32_t count
    Entry entries[SHORTLIST_CAP]

cdef struct Person:
    int known
    uint64_t *segments
    int segments_count
    ProfileEntry *items
    int items_count
    ProfileEntry *categories
    int categories_count
    ProfileEntry *caps
    int caps_count
    uint64_t *opt_outs
    int opt_outs_count
    uint64_t filter[16]  # a bit for each entry's hash: most look-ups end here

cdef struct Taken:
    int32_t group
    int32_t entry


cdef inline bint _contains(const uint64_t *values, int count, uint64_t wanted) noexcept nogil:
    cdef int i
    for i in range(count):
        if values[i] == wanted:
            return True
    return False


cdef inline const ProfileEntry *_find(
    const ProfileEntry *entries, int count, uint64_t wanted
) noexcept nogil:
    """Binary search among entries sorted by hash."""
    cdef int low = 0, high = count, middle
    while low < high:
        middle = (low + high) >> 1
        if entries[middle].hash_ < wanted:
            low = middle + 1
        else:
            high = middle
    if low < count and entries[low].hash_ == wanted:
        return &entries[low]
    return NULL


cdef inline double _distance_km(double lat1, double lon1, double lat2, double lon2) noexcept nogil:
    cdef double to_rad = pi / 180.0
    cdef double phi1 = lat1 * to_rad, phi2 = lat2 * to_rad
    cdef double s1 = sin((phi2 - phi1) / 2), s2 = sin((lon2 - lon1) * to_rad / 2)
    cdef double a = s1 * s1 + cos(phi1) * cos(phi2) * (s2 * s2)
    if a > 1.0:
        a = 1.0
    return 2 * EARTH_RADIUS_KM * asin(sqrt(a))


cdef inline bint _better(const Entry *one, const Entry *other) noexcept nogil:
    if one.value != other.value:
        return one.value > other.value
    if one.price != other.price:
        return one.price > other.price
    if one.tie != other.tie:
        return one.tie > other.tie
    if one.line_item != other.line_item:
        return one.line_item < other.line_item
    return one.creative < other.creative


@cython.final  # methods call each other directly, and may be inlined
cdef class Engine:
    """The compiled engine over one snapshot and, perhaps, one model. Not thread-safe."""

    cdef object keep  # arrays and model that the pointers below point into
    # snapshot
    cdef int line_items_count, words, summary_words, dims_count
    cdef LineItem *line_items
    cdef Advertiser *advertisers
    cdef Seat *seats
    cdef Flight *flights
    cdef Cap *caps
    cdef int32_t *line_item_deals
    cdef uint64_t *deal_hashes
    cdef Creative *creatives
    cdef int32_t *creative_categories
    cdef int32_t *creative_domains
    cdef uint64_t *creative_statuses
    cdef Product *products
    cdef uint64_t *product_categories
    cdef AdAsset *ad_assets
    cdef DimRow *dims
    cdef Value *values
    cdef int32_t *value_slots
    cdef uint64_t value_mask
    cdef Row *rows
    cdef uint64_t *row_words
    cdef uint64_t *row_summaries
    cdef uint32_t *row_members
    cdef Op *programs
    cdef uint64_t *program_hashes
    cdef double *program_numbers
    cdef uint64_t **free_words  # per dim position, NULL: nobody cares
    cdef int dim_position[128]
    # model
    cdef int has_head[2]  # ctr, cvr
    cdef request_vector_t request_vector
    cdef score_t score
    cdef const float *tables[2]
    cdef const float *ad_rows[2]
    cdef int64_t bits[2]
    cdef double bias[2]
    cdef double slope[2]
    cdef double shift[2]
    # scratch
    cdef uint64_t *everyone
    cdef uint64_t *base
    cdef uint64_t *base_summary
    cdef uint64_t *alive
    cdef Hit hits[HITS_MAX]
    cdef int hits_count
    cdef int first_hit[128]
    cdef bits_dim stage_dims[128]
    cdef bits_row stage_rows[2 * HITS_MAX]
    cdef int stage_dims_count, stage_rows_count
    # the most that anybody of a block can be worth: block x currency
    cdef double *block_bounds
    cdef uint32_t bound_currencies[CURRENCIES_BOUND_CAP]
    cdef int bound_currencies_count  # -1: too many to tell
    cdef Order orders[ORDERS]  # of the last currencies that were answered in
    cdef Order *order
    cdef int next_order
    cdef int looked_at
    # tokens that expressions may ask for, a list a dimension: first_token[dim] -> next_token[...]
    cdef int first_token[64]
    cdef int next_token[TOKENS_MAX]
    cdef uint32_t *category_stamp
    cdef uint32_t *allowed_stamp
    cdef uint32_t *domain_stamp
    cdef uint32_t *deal_domain_stamp
    cdef uint32_t stamp, deal_stamp
    cdef uint64_t wseat[LIST_MAX]
    cdef uint64_t bseat[LIST_MAX]
    cdef uint64_t bapp[LIST_MAX]
    cdef uint64_t wlang[LIST_MAX]
    cdef int wseat_count, bseat_count, bapp_count, wlang_count, acat_present, has_deal_seats
    cdef int bcat_met, badv_met
    cdef int32_t found[BLOCK_SIZE + BATCH_CAP]
    cdef int found_count
    cdef Bound *bounds  # a line item
    cdef Ranked ranked[BLOCK_SIZE + BATCH_CAP]  # those of a batch, not looked at yet
    cdef int ranked_count
    cdef Ready *ready
    cdef int ready_count
    cdef int16_t *places
    cdef int places_count, places_cap
    cdef int32_t *score_creatives
    cdef double *scores[2]
    cdef float query[2][VECTOR]
    cdef int scored_for  # the impression that `query` is for
    cdef Group *groups
    cdef int groups_count, groups_cap, groups_closed, entries_written
    cdef int group_of_place[DEALS_MAX + 1]
    cdef Group *imp_groups
    cdef Taken taken[BIDS_MAX]
    cdef int taken_count
    cdef uint32_t last_currency
    cdef double last_ratio
    # the request in hand
    cdef Facts *facts
    cdef TermsData *terms
    cdef DecisionData *out
    cdef Person person
    cdef int64_t now_ms
    cdef const uint8_t *paused
    cdef Py_ssize_t paused_bytes
    cdef uint32_t currency
    cdef uint64_t hour_token
    cdef int last_deal_reason

    def __cinit__(self, snapshot, model=None):
        self.keep = [snapshot, model]
        arrays = snapshot.arrays
        self.line_items_count = len(arrays["line_items"])
        self.words = words_count(self.line_items_count)
        self.summary_words = summary_words_count(self.line_items_count)
        self._borrow(arrays)
        self._allocate(arrays)
        if model is not None:
            self._bind_model(model)
        self._set_bounds()

    def __dealloc__(self):
        cdef int i
        if self.free_words != NULL:
            for i in range(self.dims_count):
                free(self.free_words[i])
        free(self.free_words)
        free(self.everyone)
        free(self.base)
        free(self.base_summary)
        free(self.alive)
        free(self.block_bounds)
        for i in range(ORDERS):
            free(self.orders[i].blocks)
        free(self.category_stamp)
        free(self.allowed_stamp)
        free(self.domain_stamp)
        free(self.deal_domain_stamp)
        free(self.bounds)
        free(self.ready)
        free(self.places)
        free(self.score_creatives)
        free(self.scores[0])
        free(self.scores[1])
        free(self.groups)
        free(self.imp_groups)

    cdef _borrow(self, arrays):
        cdef uintptr_t at
        at = arrays["line_items"].ctypes.data
        self.line_items = <LineItem *>at
        at = arrays["advertisers"].ctypes.data
        self.advertisers = <Advertiser *>at
        at = arrays["seats"].ctypes.data
        self.seats = <Seat *>at
        at = arrays["flights"].ctypes.data
        self.flights = <Flight *>at
        at = arrays["caps"].ctypes.data
        self.caps = <Cap *>at
        at = arrays["line_item_deals"].ctypes.data
        self.line_item_deals = <int32_t *>at
        at = arrays["deals"].ctypes.data
        self.deal_hashes = <uint64_t *>at
        at = arrays["creatives"].ctypes.data
        self.creatives = <Creative *>at
        at = arrays["creative_categories"].ctypes.data
        self.creative_categories = <int32_t *>at
        at = arrays["creative_domains"].ctypes.data
        self.creative_domains = <int32_t *>at
        at = arrays["creative_statuses"].ctypes.data
        self.creative_statuses = <uint64_t *>at
        at = arrays["products"].ctypes.data
        self.products = <Product *>at
        at = arrays["product_categories"].ctypes.data
        self.product_categories = <uint64_t *>at
        at = arrays["assets"].ctypes.data
        self.ad_assets = <AdAsset *>at
        at = arrays["dims"].ctypes.data
        self.dims = <DimRow *>at
        self.dims_count = len(arrays["dims"])
        at = arrays["values"].ctypes.data
        self.values = <Value *>at
        at = arrays["value_slots"].ctypes.data
        self.value_slots = <int32_t *>at
        self.value_mask = len(arrays["value_slots"]) - 1
        at = arrays["rows"].ctypes.data
        self.rows = <Row *>at
        at = arrays["words"].ctypes.data
        self.row_words = <uint64_t *>at
        at = arrays["summaries"].ctypes.data
        self.row_summaries = <uint64_t *>at
        at = arrays["members"].ctypes.data
        self.row_members = <uint32_t *>at
        at = arrays["programs"].ctypes.data
        self.programs = <Op *>at
        at = arrays["program_hashes"].ctypes.data
        self.program_hashes = <uint64_t *>at
        at = arrays["program_numbers"].ctypes.data
        self.program_numbers = <double *>at

    cdef _allocate(self, arrays):
        cdef int i, d, most
        self.everyone = <uint64_t *>_zeros(self.words * 8)
        self.base = <uint64_t *>_zeros(self.words * 8)
        self.base_summary = <uint64_t *>_zeros(self.summary_words * 8)
        self.alive = <uint64_t *>_zeros(self.summary_words * 8)
        self.block_bounds = <double *>_zeros(self.words // BLOCK * CURRENCIES_BOUND_MAX * 8)
        for i in range(ORDERS):
            self.orders[i].blocks = <Ranked *>_zeros(self.words // BLOCK * sizeof(Ranked))
        for i in range(self.line_items_count):
            self.everyone[i >> 6] |= <uint64_t>1 << (i & 63)
        for d in range(128):
            self.dim_position[d] = -1
        self.free_words = <uint64_t **>_zeros(max(self.dims_count, 1) * sizeof(void *))
        for d in range(self.dims_count):
            self.dim_position[self.dims[d].dim] = d
            if self.dims[d].free_row >= 0:
                self.free_words[d] = <uint64_t *>_zeros(self.words * 8)
                self._expand(&self.rows[self.dims[d].free_row], self.free_words[d])
        most = 1 + max((int(arrays["values"]["ordinal"].max()) if len(arrays["values"]) else 0), 0)
        for name in ("creative_categories", "creative_domains"):
            if len(arrays[name]):
                most = max(most, 1 + int(arrays[name].max()))
        self.category_stamp = <uint32_t *>_zeros(most * 4)
        self.allowed_stamp = <uint32_t *>_zeros(most * 4)
        self.domain_stamp = <uint32_t *>_zeros(most * 4)
        self.deal_domain_stamp = <uint32_t *>_zeros(most * 4)
        self.bounds = <Bound *>_zeros(self.line_items_count * sizeof(Bound))
        self.ready = <Ready *>_zeros(READY_MAX * sizeof(Ready))
        self.places_cap = READY_MAX * 4
        self.places = <int16_t *>_zeros((self.places_cap + DEALS_MAX + 1) * sizeof(int16_t))
        self.score_creatives = <int32_t *>_zeros(READY_MAX * 4)
        self.scores[0] = <double *>_zeros(READY_MAX * 8)
        self.scores[1] = <double *>_zeros(READY_MAX * 8)
        self.groups_cap = BIDS_MAX
        self.groups = <Group *>_zeros(self.groups_cap * sizeof(Group))
        self.imp_groups = <Group *>_zeros((DEALS_MAX + 1) * sizeof(Group))

    cdef _bind_model(self, model):
        """`model` is a `rtb.decide.model.BoundModel`; a head that it lacks leaves the priors."""
        cdef uintptr_t at
        cdef int number
        kernels = kernel_addresses()
        at = kernels["request_vector"]
        self.request_vector = <request_vector_t>at
        at = kernels["score"]
        self.score = <score_t>at
        for number, name in enumerate(HEAD_NAMES):
            head = model.model.heads.get(name)
            if head is None:
                continue
            at = head.table.ctypes.data
            self.tables[number] = <const float *>at
            at = model.ad_rows[name].ctypes.data
            self.ad_rows[number] = <const float *>at
            self.bits[number] = head.bits
            self.bias[number] = head.bias
            self.slope[number] = head.slope
            self.shift[number] = head.shift
            self.has_head[number] = 1

    cdef void _set_bounds(self) noexcept nogil:
        cdef int i, c
        cdef const LineItem *row
        cdef double *most
        for i in range(self.line_items_count):
            row = &self.line_items[i]
            self.bounds[i].micros = self._value_micros(
                row,
                1.0 if self.has_head[0] else row.prior_ctr,
                1.0 if self.has_head[1] else row.prior_cvr,
            )
            self.bounds[i].currency = row.currency
            self.bounds[i].creatives_start = row.creatives_start
            c = self._bound_currency(row.currency)
            if c >= 0:
                most = &self.block_bounds[i // BLOCK_SIZE * CURRENCIES_BOUND_MAX + c]
                most[0] = max(most[0], self.bounds[i].micros)

    cdef int _bound_currency(self, uint32_t currency) noexcept nogil:
        """The number of a currency among those of the bounds; -1 when there are too many."""
        cdef int c, count = self.bound_currencies_count
        if count < 0:
            return -1
        for c in range(count):
            if self.bound_currencies[c] == currency:
                return c
        if count == CURRENCIES_BOUND_MAX:
            self.bound_currencies_count = -1
            return -1
        self.bound_currencies[count] = currency
        self.bound_currencies_count = count + 1
        return count

    cdef void _expand(self, const Row *row, uint64_t *out) noexcept nogil:
        cdef int i
        cdef uint32_t member
        if row.sparse:
            for i in range(row.count):
                member = self.row_members[row.start + i]
                out[member >> 6] |= <uint64_t>1 << (member & 63)
        else:
            memcpy(out, self.row_words + row.start, self.words * 8)

    # -- entry ------------------------------------------------------------------------------------

    def decide(
        self, opportunity, profile, terms, paused, int64_t now_ms, decision, trace=None
    ) -> None:
        """As `rtb.decide.engine.Engine.decide`."""
        cdef Py_buffer person_view, paused_view
        cdef uintptr_t at
        at = opportunity.address
        self.facts = <Facts *>at
        at = terms.address
        self.terms = <TermsData *>at
        at = decision.address
        self.out = <DecisionData *>at
        self.now_ms = now_ms
        self.paused = NULL
        memset(&self.person, 0, sizeof(Person))
        if profile is not None and not self.facts.head.privacy:
            PyObject_GetBuffer(profile, &person_view, PyBUF_SIMPLE)
            self._open_person(<const uint8_t *>person_view.buf, person_view.len)
        else:
            profile = None
        if paused is not None:
            PyObject_GetBuffer(paused, &paused_view, PyBUF_SIMPLE)
            self.paused = <const uint8_t *>paused_view.buf
            self.paused_bytes = paused_view.len
        try:
            if trace is None:
                with nogil:
                    self._decide()
            else:
                self._decide_traced(trace)
        finally:
            if profile is not None:
                PyBuffer_Release(&person_view)
            if paused is not None:
                PyBuffer_Release(&paused_view)

    cdef _decide_traced(self, trace):
        """As `_decide`, and writes into `trace` each line item's first failing dimension."""
        cdef int imp, line_item, dim
        self._decide()
        if not self.currency or self.out.head.nobid in (NOBID_TOO_LARGE, NOBID_NO_IMPRESSION):
            return
        for imp in range(self.facts.head.imps_count):
            if not self._usable(&self.facts.imps[imp]):
                continue
            drops = {}
            for line_item in range(self.line_items_count):
                dim = self._first_failing(line_item, imp)
                if dim:
                    drops[line_item] = dim
            trace.drops[imp] = drops

    cdef int _first_failing(self, int line_item, int imp) noexcept nogil:
        cdef int pass_, d
        for pass_ in range(2):
            for d in range(self.dims_count):
                if IS_PER_IMP[self.dims[d].dim] == pass_ and not self._dim_passes(d, line_item, imp):
                    return self.dims[d].dim
        return 0

    cdef bint _dim_passes(self, int d, int line_item, int imp) noexcept nogil:
        cdef int hit = self.first_hit[d]
        cdef bint passes = (
            self.free_words[d] == NULL or self.free_words[d][line_item >> 6] >> (line_item & 63) & 1
        )
        cdef bint excluded = False
        while hit >= 0:
            if self.hits[hit].owner < 0 or self.hits[hit].owner == imp:
                if self._in_row(self.hits[hit].include_row, line_item):
                    passes = True
                if self._in_row(self.hits[hit].exclude_row, line_item):
                    excluded = True
            hit = self.hits[hit].next
        return passes and not excluded

    cdef bint _in_row(self, int number, int line_item) noexcept nogil:
        cdef const Row *row
        cdef int i
        if number < 0:
            return False
        row = &self.rows[number]
        if row.sparse:
            for i in range(row.count):
                if self.row_members[row.start + i] == <uint32_t>line_item:
                    return True
            return False
        return self.row_words[row.start + (line_item >> 6)] >> (line_item & 63) & 1

    cdef void _open_person(self, const uint8_t *record, Py_ssize_t size) noexcept nogil:
        """Opens a stored profile in place; one that breaks its layout is nobody."""
        cdef const ProfileHeader *head = <const ProfileHeader *>record
        cdef Py_ssize_t need
        cdef const uint8_t *at = record + sizeof(ProfileHeader)
        if size < <Py_ssize_t>sizeof(ProfileHeader):
            return
        if record[0] != c'R' or record[1] != c'P' or head.version != PROFILE_VERSION:
            return
        need = sizeof(ProfileHeader) + 8 * (head.segments_count + head.opt_outs_count) + (
            <Py_ssize_t>sizeof(ProfileEntry)
        ) * (
            head.items_count + head.categories_count + head.caps_count + head.viewed_count
            + head.cart_count
        )
        if size != need or head.flags & PROFILE_OPT_OUT:
            return
        self.person.known = 1
        self.person.segments = <uint64_t *>at
        self.person.segments_count = head.segments_count
        at += 8 * head.segments_count
        self.person.items = <ProfileEntry *>at
        self.person.items_count = head.items_count
        at += sizeof(ProfileEntry) * head.items_count
        self.person.categories = <ProfileEntry *>at
        self.person.categories_count = head.categories_count
        at += sizeof(ProfileEntry) * head.categories_count
        self.person.caps = <ProfileEntry *>at
        self.person.caps_count = head.caps_count
        at += sizeof(ProfileEntry) * (head.caps_count + head.viewed_count + head.cart_count)
        self.person.opt_outs = <uint64_t *>at
        self.person.opt_outs_count = head.opt_outs_count
        self._filter(self.person.items, self.person.items_count)
        self._filter(self.person.categories, self.person.categories_count)
        self._filter(self.person.caps, self.person.caps_count)

    cdef inline void _filter(self, const ProfileEntry *entries, int count) noexcept nogil:
        cdef int i
        for i in range(count):
            self.person.filter[entries[i].hash_ >> 6 & 15] |= (
                <uint64_t>1 << (entries[i].hash_ & 63)
            )

    cdef inline bint _may_have(self, uint64_t wanted) noexcept nogil:
        return self.person.filter[wanted >> 6 & 15] >> (wanted & 63) & 1

    cdef void _decide(self) noexcept nogil:
        memset(&self.out.head, 0, sizeof(DecisionHead))
        self.out.head.generation = self.terms.generation
        self.out.head.contextual = 0 if self.person.known else 1
        self.currency = 0
        self.out.head.nobid = self._request()

    cdef inline bint _usable(self, const Imp *imp) noexcept nogil:
        return imp.media != 0 and not imp.flags & IMP_UNUSABLE

    cdef int _request(self) noexcept nogil:
        cdef const Head *head = &self.facts.head
        cdef int i, usable = 0
        cdef bint shared
        if head.flags & FLAG_BLOCKS_OVERFLOW:
            return NOBID_TOO_LARGE
        if head.flags & FLAG_UNUSABLE or head.imps_count == 0:
            return NOBID_NO_IMPRESSION
        self.currency = self._response_currency()
        self.out.head.cur = self.currency
        if self.currency == 0:
            return NOBID_UNSUPPORTED_CURRENCY
        self._collect()
        self.last_currency = 0
        self.groups_count = 0
        self.groups_closed = 0
        self.entries_written = 0
        for i in range(head.imps_count):
            usable += self._usable(&self.facts.imps[i])
        if not usable:
            return NOBID_NO_IMPRESSION
        self._put_in_order()
        # What the request says is looked up once for several impressions, else with the one.
        shared = usable > 1
        if shared:
            self._stage(STAGE_REQUEST, -1)
            self._intersect_request()
        for i in range(head.imps_count):
            if not self._usable(&self.facts.imps[i]):
                continue
            self._stage(STAGE_IMP if shared else STAGE_BOTH, i)
            self._impression(
                i,
                self.base if shared else self.everyone,
                self.base_summary if shared else NULL,
            )
        return NOBID_BID if self._choose() else NOBID_NO_CANDIDATE

    cdef double _rate(self, uint32_t currency) noexcept nogil:
        cdef int i
        for i in range(self.terms.rates_count):
            if self.terms.rates[i].cur == currency:
                return self.terms.rates[i].rate
        return 0.0

    cdef double _ratio(self, uint32_t source, uint32_t target) noexcept nogil:
        """Units of `target` for one of `source`; 0 without both rates."""
        cdef double above, below
        if source == target:
            return 1.0
        above = self._rate(source)
        below = self._rate(target)
        if above == 0.0 or below == 0.0:
            return 0.0
        return above / below

    cdef bint _answers_in(self, uint32_t currency) noexcept nogil:
        cdef int i
        if self._rate(currency) == 0.0:
            return False
        if self.terms.currencies_count == 0:
            return True
        for i in range(self.terms.currencies_count):
            if self.terms.currencies[i] == currency:
                return True
        return False

    cdef uint32_t _response_currency(self) noexcept nogil:
        cdef int i
        if self.facts.head.cur_count == 0:
            return self.terms.cur_default if self._answers_in(self.terms.cur_default) else 0
        for i in range(self.facts.head.cur_count):
            if self._answers_in(self.facts.head.cur[i]):
                return self.facts.head.cur[i]
        return 0

    cdef inline void _drop(self, int line_item, int creative, int imp, int reason) noexcept nogil:
        cdef Drop *drop
        if self.out.head.drops_count < DROPS_MAX:
            drop = &self.out.drops[self.out.head.drops_count]
            drop.line_item = line_item
            drop.creative = creative
            drop.imp = imp
            drop.reason = reason
            self.out.head.drops_count += 1

    # -- tokens -----------------------------------------------------------------------------------

    cdef inline int _value(self, uint64_t token) noexcept nogil:
        cdef uint64_t slot = token & self.value_mask
        cdef int found = self.value_slots[slot]
        while found >= 0:
            if self.values[found].hash_ == token:
                return found
            slot = (slot + 1) & self.value_mask
            found = self.value_slots[slot]
        return -1

    cdef inline void _hit(self, int dim, uint64_t token, int owner) noexcept nogil:
        cdef int position = self.dim_position[dim]
        cdef int value
        cdef Hit *hit
        if position < 0:
            return
        value = self._value(token)
        if value < 0 or self.hits_count >= HITS_MAX:
            return
        hit = &self.hits[self.hits_count]
        hit.include_row = self.values[value].include_row
        hit.exclude_row = self.values[value].exclude_row
        if hit.include_row < 0 and hit.exclude_row < 0:
            return
        hit.owner = owner
        hit.next = self.first_hit[position]
        self.first_hit[position] = self.hits_count
        self.hits_count += 1

    cdef void _collect(self) noexcept nogil:
        """Sorts the request's tokens into rows to AND and lists to block by."""
        cdef const Head *head = &self.facts.head
        cdef const Token *token
        cdef int i, dim, value
        self.hits_count = 0
        for i in range(self.dims_count):
            self.first_hit[i] = -1
        self.wseat_count = self.bseat_count = self.bapp_count = self.wlang_count = 0
        self.acat_present = self.has_deal_seats = self.bcat_met = self.badv_met = 0
        self.stamp += 1
        for i in range(64):
            self.first_token[i] = -1
        self._hit(DIM_EXCHANGE, self.terms.exchange, -1)
        for i in range(head.tokens_count):
            PREFETCH(&self.value_slots[self.facts.tokens[i].hash_ & self.value_mask])
        for i in range(head.tokens_count):
            token = &self.facts.tokens[i]
            dim = token.dim
            if dim < 64:
                if not (head.privacy and IS_PERSONAL[dim]):
                    self._hit(dim, token.hash_, token.imp)
                    if UNION_OF[dim] and self.dim_position[UNION_OF[dim]] >= 0 and token.imp < 0:
                        self._hit(UNION_OF[dim], union_hash(UNION_OF[dim], token.hash_), -1)
                    self.next_token[i] = self.first_token[dim]
                    self.first_token[dim] = i
                continue
            if token.imp >= 0:
                self.has_deal_seats |= dim == DIM_DEAL_WSEAT
                continue
            if dim == DIM_BCAT or dim == DIM_ACAT or dim == DIM_BADV:
                if dim == DIM_ACAT:
                    self.acat_present = 1
                value = self._value(token.hash_)
                if value >= 0 and self.values[value].ordinal >= 0:
                    value = self.values[value].ordinal
                    if dim == DIM_BCAT:
                        self.bcat_met = 1
                        self.category_stamp[value] = self.stamp
                    elif dim == DIM_ACAT:
                        self.allowed_stamp[value] = self.stamp
                    else:
                        self.badv_met = 1
                        self.domain_stamp[value] = self.stamp
            elif dim == DIM_WSEAT:
                self.wseat[self.wseat_count] = token.hash_
                self.wseat_count += 1
            elif dim == DIM_BSEAT:
                self.bseat[self.bseat_count] = token.hash_
                self.bseat_count += 1
            elif dim == DIM_BAPP:
                self.bapp[self.bapp_count] = token.hash_
                self.bapp_count += 1
            elif dim == DIM_WLANG:
                self.wlang[self.wlang_count] = token.hash_
                self.wlang_count += 1
        for i in range(self.person.segments_count):
            self._hit(DIM_AUDIENCE, self.person.segments[i], -1)
            if self.dim_position[DIM_ANY_PERSON] >= 0:
                self._hit(
                    DIM_ANY_PERSON, union_hash(DIM_ANY_PERSON, self.person.segments[i]), -1
                )
        if head.flags & FLAG_HAS_GEO and not head.privacy:
            self._hit(DIM_GEO_CELL, cell_hash(head.lat, head.lon), -1)
        self.hour_token = HOUR_TOKENS[self._hour_of_week()]
        self._hit(DIM_HOUR_OF_WEEK, self.hour_token, -1)

    cdef int _hour_of_week(self) noexcept nogil:
        cdef int64_t local_ms = self.now_ms + <int64_t>self._utcoffset_min() * 60000
        cdef int64_t hours = local_ms // 3600000
        return <int>((hours + EPOCH_HOUR) % 168)

    cdef int _utcoffset_min(self) noexcept nogil:
        cdef const Head *head = &self.facts.head
        cdef int dim, i, low, high, middle
        if head.flags & FLAG_HAS_UTCOFFSET:
            return head.utcoffset_min
        for dim in range(2):
            for i in range(head.tokens_count):
                if self.facts.tokens[i].imp >= 0:
                    continue
                if self.facts.tokens[i].dim != (DIM_REGION if dim == 0 else DIM_COUNTRY):
                    continue
                low = 0
                high = self.terms.zones_count
                while low < high:
                    middle = (low + high) >> 1
                    if self.terms.zones[middle].hash_ < self.facts.tokens[i].hash_:
                        low = middle + 1
                    else:
                        high = middle
                if low < self.terms.zones_count and (
                    self.terms.zones[low].hash_ == self.facts.tokens[i].hash_
                ):
                    return self.terms.zones[low].utcoffset_min
        return 0

    # -- index ------------------------------------------------------------------------------------

    cdef void _stage(self, int stage, int imp) noexcept nogil:
        """Lists the dimensions of the request, of one impression, or of both, and their rows."""
        cdef int d, hit
        cdef int dims_count = 0, rows_count = 0
        cdef bits_dim *dim
        for d in range(self.dims_count):
            if stage != STAGE_BOTH and IS_PER_IMP[self.dims[d].dim] != stage:
                continue
            if self.free_words[d] == NULL and self.first_hit[d] < 0:
                continue
            dim = &self.stage_dims[dims_count]
            dims_count += 1
            dim.free_words = self.free_words[d]
            if dim.free_words != NULL:
                dim.free_summary = (
                    self.row_summaries + self.rows[self.dims[d].free_row].summary
                )
            dim.start = rows_count
            hit = self.first_hit[d]
            while hit >= 0:
                if self.hits[hit].owner < 0 or self.hits[hit].owner == imp:
                    if self.hits[hit].include_row >= 0:
                        self._select(rows_count, self.hits[hit].include_row, 0)
                        rows_count += 1
                    if self.hits[hit].exclude_row >= 0:
                        self._select(rows_count, self.hits[hit].exclude_row, 1)
                        rows_count += 1
                hit = self.hits[hit].next
            dim.count = rows_count - dim.start
        self.stage_dims_count = dims_count
        self.stage_rows_count = rows_count

    cdef void _intersect_request(self) noexcept nogil:
        """Who passes the dimensions of the request: `base`, in the blocks of `base_summary`."""
        cdef int s, block
        cdef uint64_t blocks
        bits_alive(
            self.stage_dims, self.stage_dims_count, self.stage_rows, self.words // BLOCK,
            self.summary_words, NULL, self.base_summary,
        )
        for s in range(self.summary_words):
            blocks = self.base_summary[s]
            while blocks:
                bits_prefetch(self.stage_rows, self.stage_rows_count, s * 64 + CTZ(blocks))
                blocks &= blocks - 1
            blocks = self.base_summary[s]
            while blocks:
                block = s * 64 + CTZ(blocks)
                blocks &= blocks - 1
                if not bits_block(
                    self.stage_dims, self.stage_dims_count, self.stage_rows,
                    self.everyone + block * BLOCK, block, self.base + block * BLOCK,
                ):
                    self.base_summary[s] ^= <uint64_t>1 << (block & 63)

    cdef inline void _select(self, int at, int number, int exclude) noexcept nogil:
        cdef const Row *row = &self.rows[number]
        cdef bits_row *selected = &self.stage_rows[at]
        selected.words = NULL if row.sparse else self.row_words + row.start
        selected.members = self.row_members + row.start if row.sparse else NULL
        selected.summary = self.row_summaries + row.summary
        selected.count = row.count
        selected.exclude = exclude

    # -- one impression ---------------------------------------------------------------------------

    cdef void _impression(
        self, int number, const uint64_t *start, const uint64_t *start_summary
    ) noexcept nogil:
        """Looks into the blocks, those first that can be worth the most (twin: `_impression`)."""
        cdef const Imp *imp = &self.facts.imps[number]
        cdef int i, at, ahead = 0
        cdef uint64_t passing[SNAP_BLOCK_WORDS]
        for i in range(imp.deals_count + 1):
            self.imp_groups[i].count = 0
        self.scored_for = -1
        self.looked_at = 0
        self.found_count = 0
        bits_alive(
            self.stage_dims, self.stage_dims_count, self.stage_rows, self.words // BLOCK,
            self.summary_words, start_summary, self.alive,
        )
        for i in range(BLOCKS_AHEAD):
            ahead = self._fetch_next(ahead)
        for at in range(self.order.count):
            i = self.order.blocks[at].line_item
            if not self._is_alive(i):
                continue
            if self._is_settled(imp, &self.order.blocks[at]):
                break
            ahead = self._fetch_next(ahead)
            if bits_block(
                self.stage_dims, self.stage_dims_count, self.stage_rows, start + i * BLOCK, i,
                passing,
            ):
                self._find_in(number, i, passing)
                if self.found_count >= BATCH_MIN:
                    self._batch(number, imp)
        self._batch(number, imp)
        self._close(number, imp)

    cdef inline bint _is_alive(self, int block) noexcept nogil:
        return self.alive[block >> 6] >> (block & 63) & 1

    cdef inline int _fetch_next(self, int at) noexcept nogil:
        """Asks for the rows of the next block that may hold somebody; returns the place after."""
        cdef int block
        while at < self.order.count:
            block = self.order.blocks[at].line_item
            at += 1
            if self._is_alive(block):
                bits_prefetch(self.stage_rows, self.stage_rows_count, block)
                break
        return at

    cdef void _put_in_order(self) noexcept nogil:
        """Finds the order of blocks for this request's rates, or makes it."""
        cdef int i, c
        cdef double ratios[CURRENCIES_BOUND_CAP]
        memset(ratios, 0, sizeof(ratios))
        for c in range(self.bound_currencies_count):
            ratios[c] = self._ratio(self.bound_currencies[c], self.currency)
        for i in range(ORDERS):
            self.order = &self.orders[i]
            if self.order.count and memcmp(self.order.ratios, ratios, sizeof(ratios)) == 0:
                return
        self.order = &self.orders[self.next_order]
        self.next_order = (self.next_order + 1) % ORDERS
        memcpy(self.order.ratios, ratios, sizeof(ratios))
        self.order.count = self.words // BLOCK
        for i in range(self.order.count):
            self.order.blocks[i].value = self._block_value(i, ratios)
            self.order.blocks[i].line_item = i
        self._sort(self.order.blocks, self.order.count)

    cdef double _block_value(self, int block, const double *ratios) noexcept nogil:
        """The most that anybody in a block can be worth, in the currency of the answer."""
        cdef int c
        cdef const double *bounds = &self.block_bounds[block * CURRENCIES_BOUND_MAX]
        cdef double value = 0.0
        if self.bound_currencies_count < 0:
            return CPM_LIMIT
        for c in range(self.bound_currencies_count):
            if bounds[c] > 0.0:
                # Without a rate they are looked at, and told so.
                value = max(value, bounds[c] * ratios[c] if ratios[c] else CPM_LIMIT)
        return value

    cdef void _sort(self, Ranked *items, int count) noexcept nogil:
        """Heap sort, the most valuable first."""
        cdef int i
        cdef Ranked last
        for i in range(count // 2 - 1, -1, -1):
            self._sink(items, i, count)
        for i in range(count - 1, 0, -1):
            last = items[i]
            items[i] = items[0]
            items[0] = last
            self._sink(items, 0, i)

    cdef void _sink(self, Ranked *items, int at, int count) noexcept nogil:
        cdef int child
        cdef Ranked moved = items[at]
        while 2 * at + 1 < count:
            child = 2 * at + 1
            if child + 1 < count and self._ahead(&items[child], &items[child + 1]):
                child += 1
            if not self._ahead(&moved, &items[child]):
                break
            items[at] = items[child]
            at = child
        items[at] = moved

    cdef bint _is_settled(self, const Imp *imp, const Ranked *block) noexcept nogil:
        """Whether nobody of this block, nor of those after it, can reach the short list."""
        cdef const Group *group = &self.imp_groups[0]
        if self.terms.exhaustive or imp.deals_count or group.count < self._shortlist_max(imp):
            return False
        return rint(block.value) < <double>group.entries[group.count - 1].value

    cdef void _batch(self, int number, const Imp *imp) noexcept nogil:
        """Looks at the candidates found so far, those first that can be worth the most."""
        cdef int round_, count, step = self._shortlist_max(imp)
        self._bound()
        for round_ in range(ROUNDS_RANKED + 1):
            self._drop_hopeless(number, imp)
            if round_ == ROUNDS_RANKED:
                step = self.ranked_count
            count = self._take(step)
            if count == 0:
                break
            self._look_at(number, imp, count)
        self.found_count = 0

    cdef void _look_at(self, int number, const Imp *imp, int count) noexcept nogil:
        """Checks and prices the first `count` of `found`."""
        cdef int i
        self.ready_count = 0
        self.places_count = 0
        for i in range(min(count, AHEAD)):
            self._prefetch(self.found[i])
        for i in range(count):
            if i + AHEAD < count:
                self._prefetch(self.found[i + AHEAD])
            self._line_item(number, imp, self.found[i])
        if self.ready_count:
            self._price(number, imp)

    # Candidates are known before they are looked at: their rows are fetched while others are.
    cdef inline void _prefetch(self, int line_item) noexcept nogil:
        cdef const char *row = <const char *>&self.line_items[line_item]
        cdef const char *creative = <const char *>&self.creatives[
            self.bounds[line_item].creatives_start
        ]
        PREFETCH(row)
        PREFETCH(row + 64)
        PREFETCH(creative)
        PREFETCH(creative + 64)
        PREFETCH(creative + sizeof(Creative))
        PREFETCH(creative + sizeof(Creative) + 64)

    cdef int _shortlist_max(self, const Imp *imp) noexcept nogil:
        if imp.video.poddur_s > 0 or imp.audio.poddur_s > 0:
            return POD_SHORTLIST_MAX
        return SHORTLIST_MAX

    cdef void _bound(self) noexcept nogil:
        """The most that each candidate can be worth, in the currency of the answer."""
        cdef int i, count = self.found_count
        cdef const Bound *bound
        cdef double ratio
        for i in range(count):
            bound = &self.bounds[self.found[i]]
            if bound.currency != self.last_currency:
                self.last_currency = bound.currency
                self.last_ratio = self._ratio(bound.currency, self.currency)
            ratio = self.last_ratio
            # Without a rate it is looked at, and told so.
            self.ranked[i].value = bound.micros * ratio if ratio != 0.0 else CPM_LIMIT
            self.ranked[i].line_item = self.found[i]
        self.ranked_count = count

    cdef void _drop_hopeless(self, int number, const Imp *imp) noexcept nogil:
        """Drops whose highest value misses a full short list of the open market.

        Deals have lists of their own; where one may be ours, nothing is known before it is looked
        at.
        """
        cdef const Group *group = &self.imp_groups[imp.deals_count]
        cdef int i, kept = 0
        cdef double last
        if self.terms.exhaustive or group.count < self._shortlist_max(imp):
            return
        last = <double>group.entries[group.count - 1].value
        for i in range(self.ranked_count):
            if rint(self.ranked[i].value) >= last or (
                imp.deals_count and self.line_items[self.ranked[i].line_item].deals_count
            ):
                self.ranked[kept] = self.ranked[i]
                kept += 1
            else:
                self._drop(self.ranked[i].line_item, -1, number, REJECT_BELOW_SHORTLIST)
        self.ranked_count = kept

    cdef inline bint _ahead(self, const Ranked *one, const Ranked *other) noexcept nogil:
        if one.value != other.value:
            return one.value > other.value
        return one.line_item < other.line_item

    cdef int _take(self, int step) noexcept nogil:
        """Moves the best `step` of `ranked` to `found`; of equals the first in the catalogue."""
        cdef int i, at, count = 0, kept = 0
        cdef Ranked best[SHORTLIST_CAP]
        cdef Ranked moved
        if step >= self.ranked_count:
            for i in range(self.ranked_count):
                self.found[i] = self.ranked[i].line_item
            count = self.ranked_count
            self.ranked_count = 0
            return count
        for i in range(self.ranked_count):
            moved = self.ranked[i]
            if count == step:
                if not self._ahead(&moved, &best[step - 1]):
                    self.ranked[kept] = moved
                    kept += 1
                    continue
                self.ranked[kept] = best[step - 1]
                kept += 1
                count -= 1
            at = count
            while at > 0 and self._ahead(&moved, &best[at - 1]):
                best[at] = best[at - 1]
                at -= 1
            best[at] = moved
            count += 1
        for i in range(count):
            self.found[i] = best[i].line_item
        self.ranked_count = kept
        return count

    cdef void _find_in(self, int number, int block, const uint64_t *passing) noexcept nogil:
        """Adds the survivors of a block to `found`; over the impression's limit they are dropped."""
        cdef int k, line_item
        cdef uint64_t word
        for k in range(BLOCK):
            word = passing[k]
            while word:
                line_item = (block * BLOCK + k) * 64 + CTZ(word)
                word &= word - 1
                self.out.head.eligible_count += 1
                if self.looked_at >= self.terms.candidates_max:
                    self._drop(line_item, -1, number, REJECT_TRUNCATED)
                    continue
                PREFETCH(&self.bounds[line_item])
                self.found[self.found_count] = line_item
                self.found_count += 1
                self.looked_at += 1

    cdef void _line_item(self, int number, const Imp *imp, int line_item) noexcept nogil:
        cdef const LineItem *row = &self.line_items[line_item]
        cdef const Seat *seat = NULL
        cdef int16_t offered[DEALS_MAX]
        cdef int offered_count = 0, reason, creative, start
        cdef const Creative *ad
        # Only lists of seats ask for ours.
        if self.wseat_count or self.bseat_count or self.has_deal_seats:
            seat = self._seat(row.advertiser)
        reason = self._reject_line_item(number, imp, row, line_item, seat, offered, &offered_count)
        if reason:
            self._drop(line_item, -1, number, reason)
            return
        for creative in range(row.creatives_start, row.creatives_start + row.creatives_count):
            ad = &self.creatives[creative]
            reason = self._reject_creative(ad, imp)
            if not reason:
                reason = self._reject_history(row, ad)
            start = self.places_count
            if not reason:
                self._open_to(imp, row, seat, ad, offered, offered_count)
                if self.places_count == start:
                    reason = self.last_deal_reason
            if not reason and (
                self.ready_count >= READY_MAX or self.places_count > self.places_cap
            ):
                reason = REJECT_TRUNCATED
            if reason:
                self.places_count = start
                self._drop(line_item, creative, number, reason)
                continue
            if self.has_head[0]:
                PREFETCH(self.ad_rows[0] + <int64_t>creative * VECTOR)
            if self.has_head[1]:
                PREFETCH(self.ad_rows[1] + <int64_t>creative * VECTOR)
            self.ready[self.ready_count].creative = creative
            self.ready[self.ready_count].line_item = line_item
            self.ready[self.ready_count].places_start = start
            self.ready[self.ready_count].places_count = self.places_count - start
            self.ready_count += 1

    cdef const Seat *_seat(self, int advertiser) noexcept nogil:
        """The advertiser's own seat on this exchange; NULL: the exchange's default."""
        cdef const Advertiser *row = &self.advertisers[advertiser]
        cdef int i
        for i in range(row.seats_start, row.seats_start + row.seats_count):
            if self.seats[i].exchange == self.terms.exchange:
                return &self.seats[i]
        return NULL

    cdef int _reject_line_item(
        self, int number, const Imp *imp, const LineItem *row, int line_item, const Seat *seat,
        int16_t *offered, int *offered_count
    ) noexcept nogil:
        cdef uint64_t seat_hash
        if row.program_count and not self._fits(row, imp, number):
            return REJECT_TARGETING_EXPRESSION
        if self.paused != NULL and (line_item >> 3) < self.paused_bytes and (
            self.paused[line_item >> 3] >> (line_item & 7) & 1
        ):
            return REJECT_PAUSED
        if not self._in_flight(row):
            return REJECT_FLIGHT
        offered_count[0] = self._offered(imp, row, offered)
        if offered_count[0] == 0:
            if not row.flags & SNAP_OPEN_MARKET:
                return REJECT_DEAL_ONLY
            if imp.flags & IMP_PRIVATE_AUCTION:
                return REJECT_PRIVATE_AUCTION
        if self.wseat_count:
            seat_hash = self.terms.seat_w if seat == NULL else seat.hash_w
            if not _contains(self.wseat, self.wseat_count, seat_hash):
                return REJECT_SEAT
        if self.bseat_count:
            seat_hash = self.terms.seat_b if seat == NULL else seat.hash_b
            if _contains(self.bseat, self.bseat_count, seat_hash):
                return REJECT_SEAT
        return self._reject_person(row)

    cdef bint _in_flight(self, const LineItem *row) noexcept nogil:
        cdef int i
        if row.flights_count == 0:
            return True
        for i in range(row.flights_start, row.flights_start + row.flights_count):
            if self.flights[i].start_ms <= self.now_ms < self.flights[i].end_ms:
                return True
        return False

    cdef int _offered(self, const Imp *imp, const LineItem *row, int16_t *out) noexcept nogil:
        cdef int i, j, count = 0
        if row.deals_count == 0 or imp.deals_count == 0:
            return 0
        for i in range(imp.deals_start, imp.deals_start + imp.deals_count):
            for j in range(row.deals_start, row.deals_start + row.deals_count):
                if self.deal_hashes[self.line_item_deals[j]] == self.facts.deals[i].hash_:
                    out[count] = i
                    count += 1
                    break
        return count

    cdef int _reject_person(self, const LineItem *row) noexcept nogil:
        cdef int i
        cdef const Cap *cap
        cdef const ProfileEntry *seen
        if row.flags & SNAP_NEEDS_PROFILE and not self.person.known:
            return REJECT_NEEDS_PROFILE
        if self.person.opt_outs_count and _contains(
            self.person.opt_outs, self.person.opt_outs_count, self.advertisers[row.advertiser].key
        ):
            return REJECT_OPTED_OUT
        if self.person.caps_count == 0:
            return REJECT_NONE
        for i in range(row.caps_start, row.caps_start + row.caps_count):
            cap = &self.caps[i]
            if not self._may_have(cap.hash_):
                continue
            seen = _find(self.person.caps, self.person.caps_count, cap.hash_)
            if seen == NULL or <int64_t>seen.value < cap.count:
                continue
            if cap.window_s == 0 or self.now_ms < (<int64_t>seen.time_s + cap.window_s) * 1000:
                return REJECT_FREQUENCY_CAP
        return REJECT_NONE

    # -- expressions ------------------------------------------------------------------------------

    cdef bint _fits(self, const LineItem *row, const Imp *imp, int number) noexcept nogil:
        cdef uint8_t stack[256]
        cdef int top = 0, i, k, from_
        cdef uint8_t result
        cdef const Op *op
        for i in range(row.program_start, row.program_start + row.program_count):
            op = &self.programs[i]
            if op.op == SNAP_OP_IN:
                result = self._seen(op, number)
            elif op.op == SNAP_OP_ALL or op.op == SNAP_OP_ANY:
                from_ = top - op.count
                if from_ < 0:
                    return False
                result = op.op == SNAP_OP_ALL
                for k in range(from_, top):
                    if op.op == SNAP_OP_ALL:
                        result &= stack[k]
                    else:
                        result |= stack[k]
                top = from_
            elif op.op == SNAP_OP_NOT:
                if top == 0:
                    return False
                top -= 1
                result = not stack[top]
            elif op.op == SNAP_OP_CONST:
                result = op.count != 0
            else:
                result = self._compare(op, imp)
            if top >= 256:
                return False
            stack[top] = result
            top += 1
        return stack[top - 1] if top else True

    cdef bint _seen(self, const Op *op, int number) noexcept nogil:
        """Whether the request, or this impression, carries one of the op's tokens."""
        cdef const Token *token
        cdef int i
        cdef const uint64_t *wanted = self.program_hashes + op.start
        if op.dim == DIM_EXCHANGE:
            return _contains(wanted, op.count, self.terms.exchange)
        if op.dim == DIM_HOUR_OF_WEEK:
            return _contains(wanted, op.count, self.hour_token)
        if op.dim == DIM_AUDIENCE:
            for i in range(self.person.segments_count):
                if _contains(wanted, op.count, self.person.segments[i]):
                    return True
            return False
        i = self.first_token[op.dim & 63]
        while i >= 0:
            token = &self.facts.tokens[i]
            if (token.imp < 0 or token.imp == number) and (
                _contains(wanted, op.count, token.hash_)
            ):
                return True
            i = self.next_token[i]
        return False

    cdef bint _compare(self, const Op *op, const Imp *imp) noexcept nogil:
        cdef const double *params = self.program_numbers + op.start
        cdef const Head *head = &self.facts.head
        cdef double number
        cdef int i
        if op.op == SNAP_OP_WITHIN_KM:
            if not head.flags & FLAG_HAS_GEO or head.privacy:
                return False
            i = 1
            while i + 1 < op.count:
                # Nobody is nearer than the difference of latitudes; most points end here.
                if fabs(head.lat - params[i]) * KM_PER_DEGREE <= params[0] + 1e-6 and _distance_km(head.lat, head.lon, params[i], params[i + 1]) <= params[0]:
                    return True
                i += 2
            return False
        if op.dim == DIM_OS_VERSION:
            if head.os_version <= 0:
                return False
            number = <double>head.os_version
        elif op.dim == DIM_VIEWABILITY:
            if not imp.flags & IMP_HAS_VIEWABILITY:
                return False
            number = imp.viewability
        else:
            return False
        return number >= params[0] if op.op == SNAP_OP_AT_LEAST else number <= params[0]

    # -- creatives --------------------------------------------------------------------------------

    cdef int _reject_creative(self, const Creative *ad, const Imp *imp) noexcept nogil:
        cdef int reason
        if not imp.media >> ad.media & 1:
            return REJECT_MEDIA
        if ad.statuses_count and _contains(
            self.creative_statuses + ad.statuses_start, ad.statuses_count, self.terms.exchange
        ):
            return REJECT_EXCHANGE_STATUS
        if self.facts.head.dsarequired >= DSA_REQUIRED and not ad.dsa:
            return REJECT_TRANSPARENCY
        if imp.flags & IMP_SECURE and not ad.secure:
            return REJECT_SECURE
        if ad.media == MEDIA_BANNER:
            reason = self._reject_banner(ad, imp)
        elif ad.media == MEDIA_NATIVE:
            reason = self._reject_native(ad, imp)
        elif ad.media == MEDIA_VIDEO:
            reason = self._reject_av(ad, &imp.video)
        else:
            reason = self._reject_av(ad, &imp.audio)
        if reason:
            return reason
        return self._reject_blocked(ad)

    cdef bint _format(self, const Creative *ad, const Imp *imp, int32_t *w, int32_t *h) noexcept nogil:
        """The size that a banner would be shown in; False when it fits no format."""
        cdef const Format *form
        cdef int i
        cdef bint responsive = ad.w == 0
        w[0] = ad.w
        h[0] = ad.h
        for i in range(imp.formats_start, imp.formats_start + imp.formats_count):
            form = &self.facts.formats[i]
            if form.w > 0:
                if responsive:
                    w[0] = form.w
                    h[0] = form.h
                    return True
                if ad.w == form.w and ad.h == form.h:
                    return True
            elif form.wratio > 0:
                if responsive:
                    if form.wmin > 0:
                        w[0] = form.wmin
                        h[0] = <int32_t>(<int64_t>form.wmin * form.hratio // form.wratio)
                        return True
                elif (
                    <int64_t>ad.w * form.hratio == <int64_t>ad.h * form.wratio
                    and ad.w >= form.wmin
                ):
                    return True
        return False

    cdef int _reject_banner(self, const Creative *ad, const Imp *imp) noexcept nogil:
        cdef int32_t w, h
        if not self._format(ad, imp, &w, &h):
            return REJECT_SIZE
        if imp.banner_btype >> ad.btype & 1:
            return REJECT_CREATIVE_TYPE
        if ad.attr & imp.banner_battr:
            return REJECT_CREATIVE_ATTRIBUTE
        if imp.banner_mimes and not ad.mime & imp.banner_mimes:
            return REJECT_MIME
        if ad.api & ~imp.banner_api:
            return REJECT_API
        if imp.banner_expdir and <uint32_t>ad.expand & ~imp.banner_expdir:
            return REJECT_EXPANDABLE
        return REJECT_NONE

    cdef bint _duration_fits(self, int creative_s, const Av *av) noexcept nogil:
        cdef int i
        cdef bint listed = False
        if av.poddur_s and creative_s > av.poddur_s:
            return False
        for i in range(RQDDURS_MAX):
            if av.rqddurs_s[i]:
                listed = True
                if av.rqddurs_s[i] == creative_s:
                    return True
        if listed:
            return False
        return creative_s >= av.minduration_s and (
            av.maxduration_s == 0 or creative_s <= av.maxduration_s
        )

    cdef int _reject_av(self, const Creative *ad, const Av *av) noexcept nogil:
        if ad.attr & av.battr:
            return REJECT_CREATIVE_ATTRIBUTE
        if av.skip == 1 and ad.attr >> 16 & 1:
            return REJECT_CREATIVE_ATTRIBUTE
        if av.mimes and not ad.mime & av.mimes:
            return REJECT_MIME
        if ad.api & ~av.api:
            return REJECT_API
        if av.protocols and not av.protocols >> ad.protocol & 1:
            return REJECT_PROTOCOL
        if not self._duration_fits(ad.dur_s, av):
            return REJECT_DURATION
        if ad.bitrate_kbps and (
            ad.bitrate_kbps < av.minbitrate_kbps
            or (av.maxbitrate_kbps and ad.bitrate_kbps > av.maxbitrate_kbps)
        ):
            return REJECT_BITRATE
        if av.linearity and ad.linearity and av.linearity != ad.linearity:
            return REJECT_LINEARITY
        if av.skip == 0 and ad.skip_s >= 0:
            return REJECT_SKIP
        if av.delivery and ad.delivery and not av.delivery & ad.delivery:
            return REJECT_DELIVERY
        return REJECT_NONE

    cdef int _reject_native(self, const Creative *ad, const Imp *imp) noexcept nogil:
        cdef int i, j
        cdef bint fits
        if ad.attr & imp.native_battr:
            return REJECT_CREATIVE_ATTRIBUTE
        if ad.api & ~imp.native_api:
            return REJECT_API
        for i in range(imp.assets_start, imp.assets_start + imp.assets_count):
            if not self.facts.assets[i].required:
                continue
            fits = False
            for j in range(ad.assets_start, ad.assets_start + ad.assets_count):
                if self._asset_fits(&self.facts.assets[i], &self.ad_assets[j]):
                    fits = True
                    break
            if not fits:
                return REJECT_NATIVE_ASSET
        return REJECT_NONE

    cdef bint _asset_fits(self, const Asset *asked, const AdAsset *ours) noexcept nogil:
        cdef int wanted
        if asked.kind != ours.kind:
            return False
        if asked.kind == 1:
            return asked.len_ == 0 or ours.chars <= asked.len_
        if asked.kind == 4:
            return asked.type == ours.type and (asked.len_ == 0 or ours.chars <= asked.len_)
        if asked.kind == 2:
            wanted = asked.type if asked.type else 3
            return (
                wanted == ours.type
                and (ours.w >= asked.wmin if asked.wmin else (asked.w == 0 or ours.w == asked.w))
                and (ours.h >= asked.hmin if asked.hmin else (asked.h == 0 or ours.h == asked.h))
                and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
            )
        return (
            ours.dur_s >= asked.minduration_s
            and (asked.maxduration_s == 0 or ours.dur_s <= asked.maxduration_s)
            and (asked.protocols == 0 or (asked.protocols >> ours.protocol & 1) != 0)
            and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
        )

    cdef int _reject_blocked(self, const Creative *ad) noexcept nogil:
        cdef int i
        cdef bint allowed
        if self.wlang_count and ad.language and not _contains(
            self.wlang, self.wlang_count, ad.language
        ):
            return REJECT_LANGUAGE
        # Lists that meet nothing of ours, the usual case, cost no look at the creative's.
        for i in range(ad.categories_start, ad.categories_start + (
            ad.categories_count if self.bcat_met else 0
        )):
            if self.category_stamp[self.creative_categories[i]] == self.stamp:
                return REJECT_BLOCKED_CATEGORY
        if self.acat_present:
            allowed = False
            for i in range(ad.categories_start, ad.categories_start + ad.categories_count):
                if self.allowed_stamp[self.creative_categories[i]] == self.stamp:
                    allowed = True
                    break
            if not allowed:
                return REJECT_NOT_ALLOWED_CATEGORY
        for i in range(ad.domains_start, ad.domains_start + (
            ad.domains_count if self.badv_met else 0
        )):
            if self.domain_stamp[self.creative_domains[i]] == self.stamp:
                return REJECT_BLOCKED_ADVERTISER
        if self.bapp_count and ad.bundle and _contains(self.bapp, self.bapp_count, ad.bundle):
            return REJECT_BLOCKED_APP
        return REJECT_NONE

    cdef int _reject_history(self, const LineItem *row, const Creative *ad) noexcept nogil:
        cdef const Product *product
        cdef const ProfileEntry *bought
        cdef int i
        if ad.product < 0:
            return REJECT_NONE
        if not ad.available:
            return REJECT_OUT_OF_STOCK
        if self.person.items_count and self._may_have(ad.item):
            bought = _find(self.person.items, self.person.items_count, ad.item)
            if bought != NULL and (
                self.now_ms < (<int64_t>bought.time_s + row.item_window_s) * 1000
            ):
                return REJECT_PURCHASED_ITEM
        if row.category_window_s and self.person.categories_count:
            product = &self.products[ad.product]
            for i in range(
                product.categories_start, product.categories_start + product.categories_count
            ):
                if not self._may_have(self.product_categories[i]):
                    continue
                bought = _find(
                    self.person.categories, self.person.categories_count,
                    self.product_categories[i],
                )
                if bought != NULL and (
                    self.now_ms < (<int64_t>bought.time_s + row.category_window_s) * 1000
                ):
                    return REJECT_PURCHASED_CATEGORY
        return REJECT_NONE

    cdef void _open_to(
        self, const Imp *imp, const LineItem *row, const Seat *seat, const Creative *ad,
        const int16_t *offered, int offered_count
    ) noexcept nogil:
        """Appends the competitions that this creative may enter: deal numbers, -1 = open market."""
        cdef int i, reason
        self.last_deal_reason = REJECT_DEAL_ONLY
        for i in range(offered_count):
            reason = self._reject_deal(offered[i], seat, ad)
            if reason:
                self.last_deal_reason = reason
            else:
                self.places[self.places_count] = offered[i]
                self.places_count += 1
        if row.flags & SNAP_OPEN_MARKET and not imp.flags & IMP_PRIVATE_AUCTION:
            self.places[self.places_count] = -1
            self.places_count += 1

    cdef int _reject_deal(self, int number, const Seat *seat, const Creative *ad) noexcept nogil:
        cdef const Deal *deal = &self.facts.deals[number]
        cdef const Token *token
        cdef int i, j, value
        cdef bint allowed
        cdef uint64_t seat_hash
        if deal.has_wseat:
            seat_hash = self.terms.seat_dw if seat == NULL else seat.hash_dw
            allowed = False
            for i in range(self.facts.head.tokens_count):
                token = &self.facts.tokens[i]
                if (
                    token.dim == DIM_DEAL_WSEAT and token.imp == number
                    and token.hash_ == seat_hash
                ):
                    allowed = True
                    break
            if not allowed:
                return REJECT_DEAL_SEAT
        if deal.has_wadomain:
            for i in range(self.facts.head.tokens_count):
                token = &self.facts.tokens[i]
                if token.dim != DIM_DEAL_WADOMAIN or token.imp != number:
                    continue
                value = self._value(token.hash_)
                if value < 0:
                    continue
                for j in range(ad.domains_start, ad.domains_start + ad.domains_count):
                    if self.creative_domains[j] == self.values[value].ordinal:
                        return REJECT_NONE
            return REJECT_DEAL_ADVERTISER
        return REJECT_NONE

    # -- score and price --------------------------------------------------------------------------

    cdef void _price(self, int number, const Imp *imp) noexcept nogil:
        cdef int i
        cdef const Ready *ready
        cdef const LineItem *row
        cdef double ctr, cvr
        self.out.head.scored_count += self.ready_count
        if self.has_head[0] or self.has_head[1]:
            self._score(number)
        for i in range(self.ready_count):
            ready = &self.ready[i]
            row = &self.line_items[ready.line_item]
            ctr = self.scores[0][i] if self.has_head[0] else row.prior_ctr
            cvr = self.scores[1][i] if self.has_head[1] else row.prior_cvr
            self._enter(number, imp, ready, ctr, cvr)

    cdef void _close(self, int number, const Imp *imp) noexcept nogil:
        """Hands over the impression's short lists, while there is room for them."""
        cdef int i
        for i in range(imp.deals_count + 1):
            if self.imp_groups[i].count == 0 or self.groups_closed:
                continue
            if self.entries_written + self.imp_groups[i].count > BIDS_MAX:
                self.groups_closed = 1
                continue
            self.entries_written += self.imp_groups[i].count
            memcpy(&self.groups[self.groups_count], &self.imp_groups[i], sizeof(Group))
            self.groups[self.groups_count].imp = number
            self.groups[self.groups_count].deal = (
                imp.deals_start + i if i < imp.deals_count else -1
            )
            self.groups_count += 1

    cdef void _score(self, int number) noexcept nogil:
        cdef int i, head
        if self.scored_for != number:
            self.scored_for = number
            self._queries(number)
        for i in range(self.ready_count):
            self.score_creatives[i] = self.ready[i].creative
        for head in range(2):
            if self.has_head[head]:
                self.score(
                    self.ad_rows[head], self.query[head], self.score_creatives, self.ready_count,
                    self.bias[head], self.slope[head], self.shift[head], self.scores[head],
                )

    cdef void _queries(self, int number) noexcept nogil:
        """The request's side of the model, for one impression."""
        cdef uint64_t hashes[256]
        cdef int count = 2, i, owner, head
        cdef const Token *token
        hashes[0] = self.terms.exchange
        hashes[1] = self.hour_token
        for owner in range(2):
            for i in range(self.facts.head.tokens_count):
                token = &self.facts.tokens[i]
                if token.dim < 64 and IS_FEATURE[token.dim] and (
                    token.imp == (-1 if owner == 0 else number)
                ) and count < FEATURES_MAX:
                    hashes[count] = token.hash_
                    count += 1
        for i in range(self.person.segments_count):
            if count < FEATURES_MAX:
                hashes[count] = self.person.segments[i]
                count += 1
        for head in range(2):
            if self.has_head[head]:
                self.request_vector(
                    self.tables[head], self.bits[head], hashes, count, self.query[head]
                )

    cdef double _value_micros(self, const LineItem *row, double ctr, double cvr) noexcept nogil:
        cdef double value, bid = <double>row.bid_micros
        if row.goal == SNAP_GOAL_CPM:
            value = bid
        elif row.goal == SNAP_GOAL_CPC:
            value = ctr * bid * 1000.0
        elif row.goal == SNAP_GOAL_CPA:
            value = ctr * cvr * bid * 1000.0
        else:
            value = ctr * cvr * <double>row.order_value_micros / row.target_roas * 1000.0
        if not isfinite(value) or value <= 0.0:
            return 0.0
        if value > <double>row.max_cpm_micros:
            return <double>row.max_cpm_micros
        return value

    cdef int64_t _timed_floor(
        self, int start, int count, int64_t mincpmpersec, int dur_s
    ) noexcept nogil:
        """The highest of the duration floors that hold, else by the second; -1: none said."""
        cdef int64_t best = -1
        cdef const DurFloor *entry
        cdef int i
        if dur_s <= 0:
            return -1
        for i in range(start, start + count):
            entry = &self.facts.durfloors[i]
            if dur_s >= entry.mindur_s and (entry.maxdur_s == 0 or dur_s <= entry.maxdur_s):
                if entry.floor_micros > best:
                    best = entry.floor_micros
        if best >= 0:
            return best
        return mincpmpersec * dur_s if mincpmpersec > 0 else -1

    cdef int64_t _floor(
        self, const Imp *imp, const Av *av, const Deal *deal, int dur_s, uint32_t *currency
    ) noexcept nogil:
        cdef int64_t floor
        if deal != NULL:
            floor = self._timed_floor(
                deal.durfloors_start, deal.durfloors_count, deal.mincpmpersec_micros, dur_s
            )
            if floor < 0 and deal.floor_micros > 0:
                floor = deal.floor_micros
            if floor >= 0:
                currency[0] = deal.floor_cur
                return floor
        currency[0] = imp.floor_cur
        if av != NULL:
            floor = self._timed_floor(
                av.durfloors_start, av.durfloors_count, av.mincpmpersec_micros, dur_s
            )
            if floor >= 0:
                return floor
        return imp.floor_micros

    cdef void _enter(
        self, int number, const Imp *imp, const Ready *ready, double ctr, double cvr
    ) noexcept nogil:
        cdef const LineItem *row = &self.line_items[ready.line_item]
        cdef const Creative *ad = &self.creatives[ready.creative]
        cdef const Av *av = NULL
        cdef const Deal *deal
        cdef double ratio, value, floor_ratio
        cdef int64_t floor, price
        cdef uint32_t currency
        cdef int k, place, at, reason, limit, slot
        cdef Entry entry
        if row.currency != self.last_currency:
            self.last_currency = row.currency
            self.last_ratio = self._ratio(row.currency, self.currency)
        ratio = self.last_ratio
        if ratio == 0.0:
            self._drop(ready.line_item, ready.creative, number, REJECT_CURRENCY)
            return
        value = self._value_micros(row, ctr, cvr) * ratio
        if value <= 0.0 or value > CPM_LIMIT:
            self._drop(ready.line_item, ready.creative, number, REJECT_NO_VALUE)
            return
        if ad.media == MEDIA_VIDEO:
            av = &imp.video
        elif ad.media == MEDIA_AUDIO:
            av = &imp.audio
        limit = self._shortlist_max(imp)
        entry.value = <int64_t>rint(value)
        entry.ctr = ctr
        entry.cvr = cvr
        entry.tie = mix64(self.facts.head.id_hash ^ ad.key)
        entry.line_item = ready.line_item
        entry.creative = ready.creative
        entry.chosen = 0
        entry.w = ad.w
        entry.h = ad.h
        if ad.media == MEDIA_BANNER:
            self._format(ad, imp, &entry.w, &entry.h)
        for k in range(ready.places_count):
            place = self.places[ready.places_start + k]
            deal = &self.facts.deals[place] if place >= 0 else NULL
            at = self._auction_type(deal)
            if at == 3:
                # The agreed price is bidfloor, whatever the deal says by duration.
                floor = deal.floor_micros
                currency = deal.floor_cur
                if floor <= 0:
                    self._drop(
                        ready.line_item, ready.creative, number, REJECT_FIXED_PRICE_UNKNOWN
                    )
                    continue
            else:
                floor = self._floor(imp, av, deal, ad.dur_s, &currency)
            if floor:
                floor_ratio = self._ratio(currency, self.currency)
                if floor_ratio == 0.0:
                    self._drop(ready.line_item, ready.creative, number, REJECT_CURRENCY)
                    continue
                if floor_ratio != 1.0:
                    floor = <int64_t>ceil(<double>floor * floor_ratio)
            price = 0
            reason = REJECT_NONE
            if at == 3:
                if <double>floor > value:
                    reason = REJECT_OVER_MAX_BID
                else:
                    price = floor
            else:
                price = <int64_t>rint(value * row.shade if at == 1 else value)
                if price < floor and <double>floor <= value:
                    price = floor
                if price < floor:
                    reason = REJECT_BELOW_FLOOR if deal == NULL else REJECT_BELOW_DEAL_FLOOR
                elif price <= 0:
                    reason = REJECT_NO_VALUE
            if reason:
                self._drop(ready.line_item, ready.creative, number, reason)
                continue
            entry.price = price
            entry.floor = floor
            entry.at = at
            slot = place - imp.deals_start if place >= 0 else imp.deals_count
            self._insert(&self.imp_groups[slot], &entry, limit, number)

    cdef int _auction_type(self, const Deal *deal) noexcept nogil:
        cdef int at = self.facts.head.at if self.facts.head.at else self.terms.at_default
        if deal != NULL and deal.at:
            at = deal.at
        if at == 3 and deal == NULL:
            return 2
        return at

    # -- choice -----------------------------------------------------------------------------------

    cdef void _insert(self, Group *group, const Entry *entry, int limit, int number) noexcept nogil:
        """Keeps the short list sorted; a line item holds one place; what falls off is outranked."""
        cdef int i, position
        if group.count == limit and not _better(entry, &group.entries[limit - 1]):
            self._drop(entry.line_item, entry.creative, number, REJECT_OUTRANKED)
            return
        for i in range(group.count):
            if group.entries[i].line_item == entry.line_item:
                if not _better(entry, &group.entries[i]):
                    self._drop(entry.line_item, entry.creative, number, REJECT_OUTRANKED)
                    return
                self._drop(
                    group.entries[i].line_item, group.entries[i].creative, number, REJECT_OUTRANKED
                )
                for position in range(i, group.count - 1):
                    group.entries[position] = group.entries[position + 1]
                group.count -= 1
                break
        if group.count == limit:
            self._drop(
                group.entries[limit - 1].line_item, group.entries[limit - 1].creative, number,
                REJECT_OUTRANKED,
            )
            group.count -= 1
        position = group.count
        while position > 0 and _better(entry, &group.entries[position - 1]):
            group.entries[position] = group.entries[position - 1]
            position -= 1
        group.entries[position] = entry[0]
        group.count += 1

    cdef const Av *_av(self, const Group *group, const Entry *entry) noexcept nogil:
        cdef int media = self.creatives[entry.creative].media
        if media == MEDIA_VIDEO:
            return &self.facts.imps[group.imp].video
        if media == MEDIA_AUDIO:
            return &self.facts.imps[group.imp].audio
        return NULL

    cdef int _conflict(self, const Group *group, const Entry *entry) noexcept nogil:
        """Why this candidate may not stand beside those chosen, or REJECT_NONE."""
        cdef int i
        cdef const Group *other_group
        cdef const Entry *other
        cdef const Av *av
        cdef const Av *other_av
        cdef const LineItem *ours = &self.line_items[entry.line_item]
        cdef const LineItem *theirs
        cdef uint32_t pod
        cdef bint dynamic
        for i in range(self.taken_count):
            other_group = &self.groups[self.taken[i].group]
            other = &other_group.entries[self.taken[i].entry]
            av = self._av(group, entry)
            other_av = self._av(other_group, other)
            pod = 0
            if av != NULL and other_av != NULL:
                dynamic = group.imp == other_group.imp and av.poddur_s > 0
                if dynamic or (
                    group.imp != other_group.imp and av.podid and av.podid == other_av.podid
                ):
                    pod = 1 | av.poddedupe
            if group.imp == other_group.imp and not pod:
                continue
            theirs = &self.line_items[other.line_item]
            if entry.line_item == other.line_item and (pod or not ours.flags & SNAP_REPEAT):
                return REJECT_SEPARATION
            if pod:
                if self.creatives[entry.creative].key == self.creatives[other.creative].key:
                    return REJECT_SEPARATION
                if pod & DEDUPE_ADVERTISER and ours.advertiser == theirs.advertiser:
                    return REJECT_SEPARATION
            if (
                ours.separation >= 0 and ours.separation == theirs.separation
                and ours.advertiser != theirs.advertiser
            ):
                return REJECT_SEPARATION
        return REJECT_NONE

    cdef int _choose(self) noexcept nogil:
        """Marks what goes out, then writes the short lists; returns how many go out."""
        cdef int g, e, count, reason, pod_count = 0
        cdef int64_t seconds = 0
        cdef Group *group
        cdef Entry *entry
        cdef const Av *av
        cdef bint dynamic
        self.taken_count = 0
        for g in range(self.groups_count):
            group = &self.groups[g]
            count = 0
            # A pod is one stretch of time, whatever deals its bids name.
            if g == 0 or self.groups[g - 1].imp != group.imp:
                seconds = pod_count = 0
            for e in range(group.count):
                entry = &group.entries[e]
                av = self._av(group, entry)
                dynamic = av != NULL and av.poddur_s > 0
                if count and not dynamic:
                    break
                reason = self._conflict(group, entry)
                if not reason and dynamic:
                    if (av.maxseq > 0 and pod_count >= av.maxseq) or (
                        seconds + self.creatives[entry.creative].dur_s > av.poddur_s
                    ):
                        reason = REJECT_POD_FULL
                if reason:
                    self._drop(entry.line_item, entry.creative, group.imp, reason)
                    continue
                entry.chosen = 1
                self.taken[self.taken_count].group = g
                self.taken[self.taken_count].entry = e
                self.taken_count += 1
                count += 1
                if dynamic:
                    seconds += self.creatives[entry.creative].dur_s
                    pod_count += 1
            self._write(g)
        return self.taken_count

    cdef void _write(self, int g) noexcept nogil:
        cdef const Group *group = &self.groups[g]
        cdef const Entry *entry
        cdef const Creative *ad
        cdef Bid *bid
        cdef int e
        for e in range(group.count):
            entry = &group.entries[e]
            ad = &self.creatives[entry.creative]
            bid = &self.out.bids[self.out.head.bids_count]
            self.out.head.bids_count += 1
            bid.price_micros = entry.price
            bid.value_micros = entry.value
            bid.floor_micros = entry.floor
            bid.ctr = entry.ctr
            bid.cvr = entry.cvr
            bid.line_item = entry.line_item
            bid.creative = entry.creative
            bid.w = entry.w
            bid.h = entry.h
            bid.dur_s = ad.dur_s
            bid.product = ad.product
            bid.imp = group.imp
            bid.deal = group.deal
            bid.group = g
            bid.rank = e
            bid.media = ad.media
            bid.protocol = ad.protocol
            bid.chosen = entry.chosen
            bid.at = entry.at


cdef void *_zeros(size_t size) except NULL:
    cdef void *memory = calloc(max(size, 1), 1)
    if memory == NULL:
        raise MemoryError
    return memory
