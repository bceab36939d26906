/* Bitset loops of the index: AND of dimensions over line items, 512 a block.

   Built for several instruction sets where the compiler can choose one at load time. The caller
   (engine.pyx) lists, for each dimension, the row of those that do not care and the rows that the
   request's values include or exclude. */

#ifndef RTB_BITS_H
#define RTB_BITS_H

#include <stdint.h>
#include <string.h>

#define BITS_BLOCK 8 /* words of a block: snapshot.BLOCK_WORDS */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BITS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BITS_CLONES
#endif

/* One block in registers; memory may lie at any word. */
typedef uint64_t bits_block __attribute__((vector_size(8 * BITS_BLOCK), aligned(8), may_alias));

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
    int32_t lists;                /* how many of them are sorted lists */
} bits_dim;

/* The blocks of one summary word that are still alive, side by side. */
typedef struct {
    uint64_t alive;                       /* bit = block within the word */
    int count;
    uint8_t block[64];                    /* place -> block */
    uint8_t place[64];                    /* block -> place */
    uint64_t acc[64][BITS_BLOCK];
    uint64_t listed[2][64][BITS_BLOCK];   /* what lists include, and what they exclude */
} bits_work;

#define bits_load(from) (*(const bits_block *)(from))

/* Rows lie far apart and are read a line at a time: all lines are asked for before the first is
   needed. */
static inline void bits_prefetch(const bits_row *rows, int count, int s, uint64_t alive) {
    for (int r = 0; r < count; r++) {
        if (!rows[r].words) {
            __builtin_prefetch(rows[r].members);
            continue;
        }
        const uint64_t *words = rows[r].words + (int64_t)s * 64 * BITS_BLOCK;
        for (uint64_t left = alive & rows[r].summary[s]; left; left &= left - 1)
            __builtin_prefetch(words + (int64_t)__builtin_ctzll(left) * BITS_BLOCK);
    }
}

/* Spreads a dimension's lists over the blocks that are alive. */
static inline void bits_spread(bits_work *work, const bits_dim *dim, const bits_row *rows, int s) {
    for (int side = 0; side < (dim->excludes ? 2 : 1); side++)
        memset(work->listed[side], 0, sizeof work->listed[side][0] * (size_t)work->count);
    for (int r = dim->start; r < dim->start + dim->count; r++) {
        if (rows[r].words || !(work->alive & rows[r].summary[s])) continue;
        for (int at = 0; at < rows[r].count; at++) {
            uint32_t member = rows[r].members[at];
            int64_t block = (int64_t)(member >> 9) - (int64_t)s * 64;
            if (block < 0 || block > 63 || !(work->alive >> block & 1)) continue;
            uint64_t *out = work->listed[rows[r].exclude][work->place[block]];
            out[member >> 6 & 7] |= (uint64_t)1 << (member & 63);
        }
    }
}

/* One dimension, block by block; those that end up empty are forgotten. */
static inline __attribute__((always_inline)) void bits_apply(
    bits_work *work, const bits_dim *dim, const bits_row *rows, int s)
{
    const int64_t first = (int64_t)s * 64 * BITS_BLOCK;
    int kept = 0;
    if (dim->lists) bits_spread(work, dim, rows, s);
    for (int j = 0; j < work->count; j++) {
        int block = work->block[j];
        int64_t at = first + (int64_t)block * BITS_BLOCK;
        bits_block acc = bits_load(work->acc[j]);
        bits_block in = {0}, out = {0};
        for (int r = dim->start; r < dim->start + dim->count; r++) {
            if (!rows[r].words || !(rows[r].summary[s] >> block & 1)) continue;
            bits_block row = bits_load(rows[r].words + at);
            if (rows[r].exclude) out |= row;
            else in |= row;
        }
        if (dim->lists) {
            in |= bits_load(work->listed[0][j]);
            if (dim->excludes) out |= bits_load(work->listed[1][j]);
        }
        if (dim->free_words) acc &= in | bits_load(dim->free_words + at);
        acc &= ~out;
        uint64_t any = acc[0] | acc[1] | acc[2] | acc[3] | acc[4] | acc[5] | acc[6] | acc[7];
        if (!any) {
            work->alive &= ~((uint64_t)1 << block);
            continue;
        }
        *(bits_block *)work->acc[kept] = acc;
        work->block[kept] = (uint8_t)block;
        work->place[block] = (uint8_t)kept++;
    }
    work->count = kept;
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
            *(bits_block *)work->acc[work->count] = bits_load(from);
            work->block[work->count] = (uint8_t)block;
            work->place[block] = (uint8_t)work->count++;
        }
        for (int d = 0; d < dims_count && work->count; d++) bits_apply(work, &dims[d], rows, s);
        for (int j = 0; j < work->count; j++) {
            uint64_t *to = out + ((int64_t)s * 64 + work->block[j]) * BITS_BLOCK;
            *(bits_block *)to = bits_load(work->acc[j]);
        }
        out_summary[s] = work->alive;
    }
}

#endif
