/* Prices in another currency against the price that they come from, exactly: rates are doubles, and
   the product of a price and a rate has more digits than one. */

#ifndef RTB_PRICES_H
#define RTB_PRICES_H

#include <math.h>
#include <stdint.h>

/* Whether `price` at `rate` is worth more than `other` at `other_rate`. Both are positive, and each
   price is the other one converted, to a unit: so neither product leaves 128 bits. */
static inline int price_above(int64_t price, double rate, int64_t other, double other_rate) {
    int power, other_power;
    unsigned __int128 worth = (unsigned __int128)(uint64_t)ldexp(frexp(rate, &power), 53);
    unsigned __int128 limit = (unsigned __int128)(uint64_t)ldexp(frexp(other_rate, &other_power), 53);
    worth *= (uint64_t)price;
    limit *= (uint64_t)other;
    if (power > other_power) worth <<= power - other_power;
    else limit <<= other_power - power;
    return worth > limit;
}

#endif
