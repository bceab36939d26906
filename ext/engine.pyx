"""The decision, compiled: twin of `rtb.decide.engine`, which states the rules.

Everything below runs without the services of the GIL: arrays in, one `DecisionData` out. An
`Engine` owns the scratch space of one worker thread and borrows the arrays of one snapshot (it
keeps them alive).
Contents, in the order of the steps; what has no file is here:

    Engine.__init__     borrow arrays, expand the "does not care" rows, bounds of line items
    decide, _request    one request
    engine/tokens       tokens -> rows of the index and block lists
    engine/index        AND of rows, block by block
    engine/candidates   blocks and line items by what they can be worth; flight, deals, seat, person
    engine/expressions  the rest of a targeting expression
    engine/creatives    the exchange's blocks, the person's history
    engine/price        score, value, floor, bid
    engine/choice       short lists, separation and pods across the request
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport asin, ceil, cos, fabs, floor, isfinite, pi, rint, sin, sqrt
from libc.stdint cimport (
    int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from records cimport *
from snapshot cimport *
from tokens cimport cell_hash, mix64, union_hash

from rtb.base.records import (
    MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL, PER_IMP_DIMS, PERSONAL_DIMS, UNIONS,
)
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
cdef uint32_t DEDUPE_DOMAIN = select_rules.DEDUPE_DOMAIN
cdef uint32_t DEDUPE_CATEGORY = select_rules.DEDUPE_CATEGORY
cdef uint32_t DEDUPE_FILE = select_rules.DEDUPE_FILE
cdef uint32_t MULTIPLIER_ONE = MULTIPLIER_E6_ONE
cdef uint32_t PARTICIPATION_ALL = PARTICIPATION_E4_ALL
cdef uint64_t PACING_SEED = rules.PACING_SEED
cdef int BOXING_PART = exclude_rules.BOXING_PART
cdef int DSA_REQUIRED = exclude_rules.DSA_REQUIRED
cdef int PUBLISHER_SHOWS_NOTHING = exclude_rules.PUBLISHER_SHOWS_NOTHING
cdef int PUBLISHER_SHOWS_IT = exclude_rules.PUBLISHER_SHOWS_IT
cdef int AD_SHOWS_IT = exclude_rules.AD_SHOWS_IT
cdef double CPM_LIMIT = RULE_CPM_MICROS_MAX
cdef double A_LITTLE_MORE = price_rules.A_LITTLE_MORE
cdef double A_LITTLE_LESS = price_rules.A_LITTLE_LESS
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
assert SHORTLIST_MAX <= SHORTLIST_CAP == select_rules.SHORTLIST_CAP
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
    int opted_out
    int uncounted
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
    cdef int seats_count
    cdef Flight *flights
    cdef Cap *caps
    cdef int32_t *line_item_deals
    cdef uint64_t *deal_hashes
    cdef Creative *creatives
    cdef int32_t *creative_categories
    cdef Code *creative_codes
    cdef int32_t *creative_domains
    cdef uint64_t *creative_statuses
    cdef Rendition *renditions
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
    cdef bint assets_clash  # of the impression in hand
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
    cdef int wseat_count, bseat_count, bapp_count, wlang_count, has_deal_seats
    cdef int wseat_present, acat_present, wlang_present  # lists that have entries
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
    cdef bint separates  # whether any line item has competitors
    cdef int room  # of a short list
    cdef int imps_count  # that can be bid on
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
    cdef bint is_private  # the request says no, or the person's record does, or may do
    cdef int64_t now_ms
    cdef const OverlayRow *overlay
    cdef Py_ssize_t overlay_count
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
        self.seats_count = len(arrays["seats"])
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
        at = arrays["creative_codes"].ctypes.data
        self.creative_codes = <Code *>at
        at = arrays["creative_domains"].ctypes.data
        self.creative_domains = <int32_t *>at
        at = arrays["creative_statuses"].ctypes.data
        self.creative_statuses = <uint64_t *>at
        at = arrays["renditions"].ctypes.data
        self.renditions = <Rendition *>at
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
            self.separates |= self.line_items[i].separation >= 0
        for d in range(128):
            self.dim_position[d] = -1
        self.free_words = <uint64_t **>_zeros(max(self.dims_count, 1) * sizeof(void *))
        for d in range(self.dims_count):
            self.dim_position[self.dims[d].dim] = d
            if self.dims[d].free_row >= 0:
                self.free_words[d] = <uint64_t *>_zeros(self.words * 8)
                self._expand(&self.rows[self.dims[d].free_row], self.free_words[d])
        most = 1 + max((int(arrays["values"]["ordinal"].max()) if len(arrays["values"]) else 0), 0)
        for ordinals in (
            arrays["creative_categories"], arrays["creative_domains"],
            arrays["creative_codes"]["ordinal"], arrays["creative_codes"]["parent"],
        ):
            if len(ordinals):
                most = max(most, 1 + int(ordinals.max()))
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
            self.bounds[i].micros = _value_micros(
                self, row,
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
        self, opportunity, profile, terms, overlay, int64_t now_ms, decision, trace=None
    ) -> None:
        """As `rtb.decide.engine.Engine.decide`."""
        cdef Py_buffer person_view, overlay_view
        cdef uintptr_t at
        at = opportunity.address
        self.facts = <Facts *>at
        at = terms.address
        self.terms = <TermsData *>at
        at = decision.address
        self.out = <DecisionData *>at
        self.now_ms = now_ms
        self.overlay_count = 0
        memset(&self.person, 0, sizeof(Person))
        if profile is not None and not self.facts.head.privacy:
            PyObject_GetBuffer(profile, &person_view, PyBUF_SIMPLE)
            self._open_person(<const uint8_t *>person_view.buf, person_view.len)
        else:
            profile = None
        self.is_private = (
            self.facts.head.privacy or self.person.opted_out or self.person.uncounted
        )
        if overlay is not None:
            PyObject_GetBuffer(overlay, &overlay_view, PyBUF_SIMPLE)
            self.overlay = <const OverlayRow *>overlay_view.buf
            self.overlay_count = overlay_view.len // <Py_ssize_t>sizeof(OverlayRow)
        try:
            if trace is None:
                with nogil:
                    self._decide()
            else:
                self._decide_traced(trace)
        finally:
            if profile is not None:
                PyBuffer_Release(&person_view)
            if overlay is not None:
                PyBuffer_Release(&overlay_view)

    def fall_back(
        self, opportunity, decision, int refused, int reason=REJECT_BUDGET
    ) -> None:
        """As `rtb.decide.engine.Engine.fall_back`."""
        cdef uintptr_t at
        at = opportunity.address
        self.facts = <Facts *>at
        at = decision.address
        self.out = <DecisionData *>at
        _fall_back(self, refused, reason)

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
                if IS_PER_IMP[self.dims[d].dim] != pass_:
                    continue
                if not self._dim_passes(d, line_item, imp):
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
        if size != need:
            return
        if head.flags & PROFILE_OPT_OUT:
            self.person.opted_out = 1
            return
        self.person.known = not head.flags & PROFILE_COUNTS_ONLY
        self.person.uncounted = head.flags & PROFILE_UNCOUNTED
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
        self.out.head.opted_out = self.person.opted_out
        self.currency = 0
        self.out.head.nobid = self._request()

    cdef inline bint _usable(self, const Imp *imp) noexcept nogil:
        return imp.media != 0 and not imp.flags & IMP_UNUSABLE

    cdef int _request(self) noexcept nogil:
        cdef const Head *head = &self.facts.head
        cdef int i, usable = 0, competitions = 0
        cdef bint shared
        if head.flags & FLAG_BLOCKS_OVERFLOW:
            return NOBID_TOO_LARGE
        if head.flags & FLAG_UNUSABLE or head.imps_count == 0:
            return NOBID_NO_IMPRESSION
        self.currency = self._response_currency()
        self.out.head.cur = self.currency
        if self.currency == 0:
            return NOBID_UNSUPPORTED_CURRENCY
        _collect(self)
        self.last_currency = 0
        self.groups_count = 0
        self.groups_closed = 0
        self.entries_written = 0
        for i in range(head.imps_count):
            if self._usable(&self.facts.imps[i]):
                usable += 1
                competitions += self.facts.imps[i].deals_count + 1
        if not usable:
            return NOBID_NO_IMPRESSION
        self.imps_count = usable
        self.room = _room(self, usable, competitions)
        _put_in_order(self)
        # What the request says is looked up once for several impressions, else with the one.
        shared = usable > 1
        if shared:
            _stage(self, STAGE_REQUEST, -1)
            _intersect_request(self)
        for i in range(head.imps_count):
            if not self._usable(&self.facts.imps[i]):
                continue
            _stage(self, STAGE_IMP if shared else STAGE_BOTH, i)
            _impression(
                self, i,
                self.base if shared else self.everyone,
                self.base_summary if shared else NULL,
            )
        if _choose(self):
            return NOBID_BID
        return NOBID_SEAT_BLOCKED if _is_blocked(self) else NOBID_NO_CANDIDATE

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
        return above / below * A_LITTLE_MORE

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


# The steps, in their order. They are functions of an engine, so that each has a file of its own.
include "assets.pxi"
include "engine/tokens.pxi"
include "engine/index.pxi"
include "engine/candidates.pxi"
include "engine/expressions.pxi"
include "engine/creatives.pxi"
include "engine/price.pxi"
include "engine/choice.pxi"


cdef void *_zeros(size_t size) except NULL:
    cdef void *memory = calloc(max(size, 1), 1)
    if memory == NULL:
        raise MemoryError
    return memory
