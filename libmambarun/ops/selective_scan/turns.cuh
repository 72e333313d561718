/* SPDX-License-Identifier: Apache-2.0
 *
 * turns.cuh - the lanes of a team one after the other, where a scan over them would go
 * wrong: a product of decays may be infinite though no state is, or meet a state of 0
 * or of the other sign. That takes growth by 2^120 within a tile, which no trained
 * model has, so this need not be fast.
 */
#ifndef MBR_TURNS_CUH
#define MBR_TURNS_CUH

#include "bwd.cuh"

INLINE float size_of(float a) {
    return a;
}

INLINE float size_of(complex a) {
    return fmaxf(fabsf(a.re), fabsf(a.im));
}

/* Whether products of the lanes' decays, of which this lane's is given, could overflow.
 * The same in all 32 lanes. */
INLINE bool must_take_turns(value product) {
    constexpr float most = 1 << 120 / (LANES > 4 ? LANES : 4); /* NaN is not below it */
    return __any_sync(ALL_LANES, !(size_of(product) <= most));
}

#endif
