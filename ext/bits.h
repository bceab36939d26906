/* Bitset loops of the index: AND of dimensions over line items, 512 a block.

   Built for several instruction sets where the compiler can choose one at load time. The caller
   (engine.pyx) lists, for each dimension, the row of those that do not care and the rows that the
   request's values include or exclude. */

#ifndef RTB_BITS_H
#define RTB_BITS_H

#include <stdint.h>

#define BITS_BLOCK 8 /* words of a block: snapshot.BLOCK_WORDS */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BITS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BITS_CLONES
#endif

/* One row that the request selected: a bitset, or a sorted list with a cursor. */
typedef struct {
    const uint64_t *words;    /* NULL: sparse */
    const uint32_t *members;
    const uint64_t *summary;
    int32_t count;
    int32_t at;
    int32_t exclude;
} bits_row;

/* One dimension: passing = (free | included) & ~excluded. */
typedef struct {
    const uint64_t *free_words;   /* NULL: nobody cares about inclusion */
    const uint64_t *free_summary;
    int32_t start;                /* its rows */
    int32_t count;
    int32_t excludes;             /* how many of them exclude */
} bits_dim;

static inline void bits_or_row(bits_row *row, int block, uint64_t *out) {
    if (!(row->summary[block >> 6] >> (block & 63) & 1)) return;
    if (row->words) {
        const uint64_t *words = row->words + (int64_t)block * BITS_BLOCK;
        for (int k = 0; k < BITS_BLOCK; k++) out[k] |= words[k];
        return;
    }
    uint32_t low = (uint32_t)block * BITS_BLOCK * 64, high = low + BITS_BLOCK * 64;
    int at = row->at;
    while (at < row->count && row->members[at] < low) at++;
    while (at < row->count && row->members[at] < high) {
        uint32_t member = row->members[at] - low;
        out[member >> 6] |= (uint64_t)1 << (member & 63);
        at++;
    }
    row->at = at;
}

/* Rows lie far apart and are read a line at a time: all lines are asked for before the first is
   needed. */
static inline void bits_prefetch(
    const bits_dim *dims, int dims_count, const bits_row *rows, int s, uint64_t alive)
{
    if (!dims_count) return;
    int end = dims[dims_count - 1].start + dims[dims_count - 1].count;
    for (int r = 0; r < end; r++) {
        if (!rows[r].words) {
            __builtin_prefetch(rows[r].members);
            continue;
        }
        uint64_t left = alive & rows[r].summary[s];
        while (left) {
            int block = s * 64 + __builtin_ctzll(left);
            left &= left - 1;
            __builtin_prefetch(rows[r].words + (int64_t)block * BITS_BLOCK);
        }
    }
}

/* ANDs `dims` into `out` in the blocks that `start_summary` has; returns nothing else than `out`
   in surviving blocks, and `out_summary`. A NULL `start_summary` stands for all `blocks`. */
BITS_CLONES static void bits_intersect(
    const bits_dim *dims, int dims_count, bits_row *rows, int blocks, int summary_words,
    const uint64_t *start, const uint64_t *start_summary, uint64_t *out, uint64_t *out_summary)
{
    for (int s = 0; s < summary_words; s++) {
        uint64_t word = ~(uint64_t)0;
        if (start_summary) word = start_summary[s];
        else if ((s + 1) * 64 > blocks) {
            int left = blocks - s * 64;
            word = left > 0 ? ((uint64_t)1 << left) - 1 : 0;
        }
        for (int d = 0; d < dims_count && word; d++) {
            if (!dims[d].free_words) continue;
            uint64_t any = dims[d].free_summary[s];
            for (int r = dims[d].start; r < dims[d].start + dims[d].count; r++)
                if (!rows[r].exclude) any |= rows[r].summary[s];
            word &= any;
        }
        uint64_t survived = 0;
        bits_prefetch(dims, dims_count, rows, s, word);
        while (word) {
            int block = s * 64 + __builtin_ctzll(word);
            uint64_t acc[BITS_BLOCK], left = 0;
            word &= word - 1;
            for (int k = 0; k < BITS_BLOCK; k++)
                acc[k] = start[(int64_t)block * BITS_BLOCK + k];
            for (int d = 0; d < dims_count; d++) {
                const bits_dim *dim = &dims[d];
                uint64_t allowed[BITS_BLOCK];
                if (dim->free_words) {
                    const uint64_t *words = dim->free_words + (int64_t)block * BITS_BLOCK;
                    if (!dim->count) {
                        for (int k = 0; k < BITS_BLOCK; k++) acc[k] &= words[k];
                        goto counted;
                    }
                    for (int k = 0; k < BITS_BLOCK; k++) allowed[k] = words[k];
                    for (int r = dim->start; r < dim->start + dim->count; r++)
                        if (!rows[r].exclude) bits_or_row(&rows[r], block, allowed);
                    for (int k = 0; k < BITS_BLOCK; k++) acc[k] &= allowed[k];
                }
                if (dim->excludes) {
                    for (int k = 0; k < BITS_BLOCK; k++) allowed[k] = 0;
                    for (int r = dim->start; r < dim->start + dim->count; r++)
                        if (rows[r].exclude) bits_or_row(&rows[r], block, allowed);
                    for (int k = 0; k < BITS_BLOCK; k++) acc[k] &= ~allowed[k];
                }
            counted:
                left = 0;
                for (int k = 0; k < BITS_BLOCK; k++) left |= acc[k];
                if (!left) break;
            }
            if (!dims_count)
                for (int k = 0; k < BITS_BLOCK; k++) left |= acc[k];
            if (left) {
                for (int k = 0; k < BITS_BLOCK; k++)
                    out[(int64_t)block * BITS_BLOCK + k] = acc[k];
                survived |= (uint64_t)1 << (block & 63);
            }
        }
        out_summary[s] = survived;
    }
}

#endif
