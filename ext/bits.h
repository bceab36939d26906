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
    int32_t excludes;             /* how many of them exclude */
} bits_dim;

/* The blocks of one summary word that are still alive, side by side. */
typedef struct {
    uint64_t alive;                       /* bit = block within the word */
    int count;
    uint8_t block[64];                    /* place -> block */
    uint8_t place[64];                    /* block -> place */
    uint64_t acc[64][BITS_BLOCK];
    uint64_t part[64][BITS_BLOCK];
} bits_work;

/* Rows lie far apart and are read a line at a time: all lines are asked for before the first is
   needed. */
static inline void bits_prefetch(const bits_row *rows, int count, int s, uint64_t alive) {
    for (int r = 0; r < count; r++) {
        if (!rows[r].words) {
            __builtin_prefetch(rows[r].members);
            continue;
        }
        for (uint64_t left = alive & rows[r].summary[s]; left; left &= left - 1)
            __builtin_prefetch(
                rows[r].words + ((int64_t)s * 64 + __builtin_ctzll(left)) * BITS_BLOCK);
    }
}

/* part |= row, in the blocks that are alive and that the row is in. */
static inline void bits_or_row(bits_work *work, const bits_row *row, int s) {
    uint64_t left = work->alive & row->summary[s];
    if (row->words) {
        const uint64_t *words = row->words + (int64_t)s * 64 * BITS_BLOCK;
        for (; left; left &= left - 1) {
            int block = __builtin_ctzll(left);
            uint64_t *out = work->part[work->place[block]];
            for (int k = 0; k < BITS_BLOCK; k++) out[k] |= words[block * BITS_BLOCK + k];
        }
        return;
    }
    if (!left) return;
    for (int at = 0; at < row->count; at++) {
        uint32_t member = row->members[at];
        int block = (int)(member >> 9) - s * 64;
        if (block < 0 || block > 63 || !(left >> block & 1)) continue;
        work->part[work->place[block]][member >> 6 & 7] |= (uint64_t)1 << (member & 63);
    }
}

/* Forgets blocks that are all zero by now. */
static inline void bits_compact(bits_work *work) {
    int kept = 0;
    for (int j = 0; j < work->count; j++) {
        uint64_t left = 0;
        int block = work->block[j];
        for (int k = 0; k < BITS_BLOCK; k++) left |= work->acc[j][k];
        if (!left) {
            work->alive &= ~((uint64_t)1 << block);
            continue;
        }
        if (kept != j)
            for (int k = 0; k < BITS_BLOCK; k++) work->acc[kept][k] = work->acc[j][k];
        work->block[kept] = (uint8_t)block;
        work->place[block] = (uint8_t)kept++;
    }
    work->count = kept;
}

static inline void bits_apply(bits_work *work, const bits_dim *dim, const bits_row *rows, int s) {
    const uint64_t *free_words =
        dim->free_words ? dim->free_words + (int64_t)s * 64 * BITS_BLOCK : 0;
    if (free_words && dim->count == dim->excludes) {
        for (int j = 0; j < work->count; j++)
            for (int k = 0; k < BITS_BLOCK; k++)
                work->acc[j][k] &= free_words[work->block[j] * BITS_BLOCK + k];
    } else if (free_words) {
        for (int j = 0; j < work->count; j++)
            for (int k = 0; k < BITS_BLOCK; k++)
                work->part[j][k] = free_words[work->block[j] * BITS_BLOCK + k];
        for (int r = dim->start; r < dim->start + dim->count; r++)
            if (!rows[r].exclude) bits_or_row(work, &rows[r], s);
        for (int j = 0; j < work->count; j++)
            for (int k = 0; k < BITS_BLOCK; k++) work->acc[j][k] &= work->part[j][k];
    }
    if (dim->excludes) {
        for (int j = 0; j < work->count; j++)
            for (int k = 0; k < BITS_BLOCK; k++) work->part[j][k] = 0;
        for (int r = dim->start; r < dim->start + dim->count; r++)
            if (rows[r].exclude) bits_or_row(work, &rows[r], s);
        for (int j = 0; j < work->count; j++)
            for (int k = 0; k < BITS_BLOCK; k++) work->acc[j][k] &= ~work->part[j][k];
    }
}

/* ANDs `dims` into `out`, in the blocks that survive, and says in `out_summary` which they are.
   A NULL `start_summary` stands for all `blocks`. First the summaries: a block that nobody of some
   dimension's passing set is in cannot survive. Then dimension by dimension, in the blocks left. */
BITS_CLONES static void bits_intersect(
    const bits_dim *dims, int dims_count, const bits_row *rows, int rows_count, int blocks,
    int summary_words, const uint64_t *start, const uint64_t *start_summary, bits_work *work,
    uint64_t *out, uint64_t *out_summary)
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
        out_summary[s] = 0;
        if (!word) continue;
        bits_prefetch(rows, rows_count, s, word);
        work->alive = word;
        work->count = 0;
        for (; word; word &= word - 1) {
            int block = __builtin_ctzll(word);
            const uint64_t *from = start + ((int64_t)s * 64 + block) * BITS_BLOCK;
            for (int k = 0; k < BITS_BLOCK; k++) work->acc[work->count][k] = from[k];
            work->block[work->count] = (uint8_t)block;
            work->place[block] = (uint8_t)work->count++;
        }
        for (int d = 0; d < dims_count && work->count; d++) {
            bits_apply(work, &dims[d], rows, s);
            /* The first dimensions are the most selective; later ones seldom empty a block. */
            if (d < 4 || (d & 3) == 3) bits_compact(work);
        }
        bits_compact(work);
        for (int j = 0; j < work->count; j++) {
            uint64_t *to = out + ((int64_t)s * 64 + work->block[j]) * BITS_BLOCK;
            for (int k = 0; k < BITS_BLOCK; k++) to[k] = work->acc[j][k];
        }
        out_summary[s] = work->alive;
    }
}

#endif
