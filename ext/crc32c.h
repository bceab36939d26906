/* CRC-32C over whole 64-bit words: the processor's own instruction where it has one. */
#ifndef RTB_CRC32C_H
#define RTB_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t crc32c_table[8][256];
static int crc32c_in_hardware;

static inline uint32_t crc32c_byte(uint32_t state, uint8_t byte) {
    return state >> 8 ^ crc32c_table[0][(state ^ byte) & 0xFF];
}

/* Eight tables, eight bytes a step, for processors without the instruction. */
static inline uint32_t crc32c_word_by_table(uint32_t state, uint64_t word) {
    word ^= state;
    return crc32c_table[7][word & 0xFF] ^ crc32c_table[6][word >> 8 & 0xFF] ^
           crc32c_table[5][word >> 16 & 0xFF] ^ crc32c_table[4][word >> 24 & 0xFF] ^
           crc32c_table[3][word >> 32 & 0xFF] ^ crc32c_table[2][word >> 40 & 0xFF] ^
           crc32c_table[1][word >> 48 & 0xFF] ^ crc32c_table[0][word >> 56];
}

static inline uint32_t crc32c_words_by_table(uint32_t state, const uint8_t *at, size_t words) {
    uint64_t word;
    for (; words; words--, at += 8) {
        memcpy(&word, at, 8);
        state = crc32c_word_by_table(state, word);
    }
    return state;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_words_by_hardware(uint32_t state,
                                                                          const uint8_t *at,
                                                                          size_t words) {
    uint64_t wide = state, word;
    for (; words; words--, at += 8) {
        memcpy(&word, at, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    return (uint32_t)wide;
}
#else
#define crc32c_words_by_hardware crc32c_words_by_table
#endif

static void crc32c_init(int hardware) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t state = value;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (state & 1 ? 0x82F63B78u : 0);
        crc32c_table[0][value] = state;
    }
    for (int table = 1; table < 8; table++)
        for (int value = 0; value < 256; value++) {
            uint32_t before = crc32c_table[table - 1][value];
            crc32c_table[table][value] = before >> 8 ^ crc32c_table[0][before & 0xFF];
        }
#if defined(__x86_64__) && defined(__GNUC__)
    crc32c_in_hardware = hardware && __builtin_cpu_supports("sse4.2");
#else
    crc32c_in_hardware = 0;
#endif
}

/* The state of a checksum moves on over words; start and end are inverted by the caller. */
static inline uint32_t crc32c_words(uint32_t state, const uint8_t *at, size_t words) {
    return crc32c_in_hardware ? crc32c_words_by_hardware(state, at, words)
                              : crc32c_words_by_table(state, at, words);
}

#endif
