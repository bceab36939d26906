# The AND of dimensions over blocks of line items (`ext/bits.h` has the loops).


cdef void _stage(Engine self, int stage, int imp) noexcept nogil:
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
                    _select(self, rows_count, self.hits[hit].include_row, 0)
                    rows_count += 1
                if self.hits[hit].exclude_row >= 0:
                    _select(self, rows_count, self.hits[hit].exclude_row, 1)
                    rows_count += 1
            hit = self.hits[hit].next
        dim.count = rows_count - dim.start
    self.stage_dims_count = dims_count
    self.stage_rows_count = rows_count


cdef void _intersect_request(Engine self) noexcept nogil:
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


cdef inline void _select(Engine self, int at, int number, int exclude) noexcept nogil:
    cdef const Row *row = &self.rows[number]
    cdef bits_row *selected = &self.stage_rows[at]
    selected.words = NULL if row.sparse else self.row_words + row.start
    selected.members = self.row_members + row.start if row.sparse else NULL
    selected.summary = self.row_summaries + row.summary
    selected.count = row.count
    selected.exclude = exclude
