/* Bitset loops of the index: AND of dimensions over line items, 512 a block.

   Built for several instruction sets where the compiler can choose one at load time. The caller
   (engine.pyx) lists, for each dimension, the row of those that do not care and the rows that the
   request's values include or exclude; it asks which blocks may hold anybody, then for one block
   after the other. */

#ifndef RTB_BITS_H
#define RTB_BITS_H

#include <stdint.h>

#define BITS_BLOCK 8 /* words of a block: snapshot.BLOCK_WORDS */
#define BITS_BLOCK_SIZE (64 * BITS_BLOCK)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BITS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BITS_CLONES
#endif

/* One block in registers; memory may lie at any word. */
typedef uint64_t bits_vector __attribute__((vector_size(8 * BITS_BLOCK), aligned(8), may_alias));

#define bits_load(from) (*(const bits_vector *)(from))

/* One row that the request selected: a bitset, or a sorted list. */
typedef struct {
    const uint64_t *words;    /* NULL: sparse */
    const uint32_t *members;
    const uint64_t *summary;
    int32_t count;
    int32_t exclude;
} bits_row;

/* One dimension: passing = (free | included) & ~excluded. */
typedef struct {
    const uint64_t *free_words;   /* NULL: nobody cares about inclusion */
    const uint64_t *free_summary;
    int32_t start;                /* its rows */
    int32_t count;
} bits_dim;

static inline int bits_in_summary(const uint64_t *summary, int block) {
    return summary[block >> 6] >> (block & 63) & 1;
}

/* Which blocks may hold somebody: where every dimension has one that does not care or is included.
   A NULL `start_summary` stands for all `blocks`. */
BITS_CLONES static void bits_alive(
    const bits_dim *dims, int dims_count, const bits_row *rows, int blocks, int summary_words,
    const uint64_t *start_summary, uint64_t *out_summary)
{
    for (int s = 0; s < summary_words; s++) {
        uint64_t word = ~(uint64_t)0;
        int left = blocks - s * 64;
        if (start_summary) word = start_summary[s];
        else if (left < 64) word = left > 0 ? ((uint64_t)1 << left) - 1 : 0;
        for (int d = 0; d < dims_count && word; d++) {
            if (!dims[d].free_words) continue;
            uint64_t any = dims[d].free_summary[s];
            for (int r = dims[d].start; r < dims[d].start + dims[d].count; r++)
                if (!rows[r].exclude) any |= rows[r].summary[s];
            word &= any;
        }
        out_summary[s] = word;
    }
}

/* Rows lie far apart: what a block needs of them is asked for some blocks ahead. */
static inline void bits_prefetch(const bits_row *rows, int count, int block) {
    for (int r = 0; r < count; r++) {
        if (!bits_in_summary(rows[r].summary, block)) continue;
        if (rows[r].words)
            __builtin_prefetch(rows[r].words + (int64_t)block * BITS_BLOCK);
        else
            __builtin_prefetch(rows[r].members);
    }
}

/* The part of a sorted list that lies in a block. */
static inline void bits_listed(const bits_row *row, int block, uint64_t *found) {
    uint32_t first = (uint32_t)block * BITS_BLOCK_SIZE;
    int low = 0, high = row->count;
    while (low < high) {
        int middle = (low + high) >> 1;
        if (row->members[middle] < first) low = middle + 1;
        else high = middle;
    }
    for (; low < row->count && row->members[low] - first < BITS_BLOCK_SIZE; low++) {
        uint32_t bit = row->members[low] - first;
        found[bit >> 6] |= (uint64_t)1 << (bit & 63);
    }
}

/* ANDs the dimensions in one block into `out`; returns 0 when nobody is left.
   start: who is asked about, `BITS_BLOCK` words of this block. */
BITS_CLONES static int bits_block(
    const bits_dim *dims, int dims_count, const bits_row *rows, const uint64_t *start, int block,
    uint64_t *out)
{
    const int64_t at = (int64_t)block * BITS_BLOCK;
    bits_vector left = bits_load(start);
    for (int d = 0; d < dims_count; d++) {
        bits_vector in = {0}, no = {0};
        for (int r = dims[d].start; r < dims[d].start + dims[d].count; r++) {
            if (!bits_in_summary(rows[r].summary, block)) continue;
            uint64_t listed[BITS_BLOCK] = {0};
            const uint64_t *row = rows[r].words + at;
            if (!rows[r].words) {
                bits_listed(&rows[r], block, listed);
                row = listed;
            }
            if (rows[r].exclude) no |= bits_load(row);
            else in |= bits_load(row);
        }
        if (dims[d].free_words) left &= in | bits_load(dims[d].free_words + at);
        left &= ~no;
    }
    *(bits_vector *)out = left;
    uint64_t any = 0;
    for (int k = 0; k < BITS_BLOCK; k++) any |= out[k];
    return any != 0;
}

#endif
