/* Words of the caps board (rtb/stores/caps_board.py) that another process writes or reads at the
   same time: nothing moves over these accesses, neither by the compiler nor by the machine. */

#ifndef RTB_CAPS_H
#define RTB_CAPS_H

#include <stdint.h>

static inline uint64_t caps_load(const uint64_t *from) {
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static inline void caps_store(uint64_t *to, uint64_t value) {
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static inline uint8_t caps_load_byte(const uint8_t *from) {
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static inline void caps_store_byte(uint8_t *to, uint8_t value) {
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

/* Between the stores that end an entry and those that make the next one of it. */
static inline void caps_fence(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* A person's words lie anywhere in megabytes: ask for those of all keys before the first is read. */
static inline void caps_prefetch(const void *at) {
    __builtin_prefetch(at);
}

#endif
