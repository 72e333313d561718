/* SPDX-License-Identifier: Apache-2.0
 *
 * time.cuh - what the kernels share whose lanes hold COUNT times each: how a team of
 * lanes reads and writes its runs of one channel. Times lie side by side in x, out,
 * dout and dx; there are no ids and no states.
 */
#ifndef MBR_TIME_CUH
#define MBR_TIME_CUH

#include "conv.cuh"

/* Channel d of batch row b of a (B, D, time) tensor. */
template <class T> INLINE T *row_of(const mbr_tensor &t, int64_t b, int64_t d) {
    return static_cast<T *>(t.data) + b * t.stride[0] + d * t.stride[1];
}

template <int count> INLINE void place(run<f32, count> &r, int i, f32 v) {
    r.word[i] = __float_as_uint(v.bits);
}

template <class T, int count> INLINE void place(run<T, count> &r, int i, T v) {
    r.word[i / 2] |= (uint32_t)v.bits << i % 2 * 16;
}

/* How many values after an aligned place p is. */
template <class T> INLINE int misplaced(const T *p) {
    return (int)((uintptr_t)p % alignof(run<T, COUNT>) / sizeof(T));
}

/* Which values of a run exist: those of times from 0 to length. */
struct range {
    int from, to;

    INLINE bool has(int i) const {
        return i >= from && i < to;
    }

    INLINE bool whole() const {
        return from <= 0 && to >= COUNT;
    }
};

/* Of the run at time t. */
INLINE range range_of(int64_t t, int64_t length, bool exists) {
    return {(int)max(min(-t, (int64_t)COUNT), (int64_t)0),
            exists ? (int)max(min(length - t, (int64_t)COUNT), (int64_t)0) : 0};
}

template <class T> INLINE run<T, COUNT> load_times(const T *own, range inside) {
    if (inside.whole() && misplaced(own) == 0)
        return load_vector<T, COUNT>(own);
    run<T, COUNT> r = {};
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (inside.has(i))
            place(r, i, own[i]);
    return r;
}

template <class T>
INLINE void store_times(T *own, range inside, const float (&v)[COUNT]) {
    if (inside.whole() && misplaced(own) == 0) {
        store_vector(own, pack_run<T>(v));
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (inside.has(i))
            own[i] = from_float<T>(v[i]);
}

/* The taps of channel d and its bias: a lane reads one of them. */
struct taps {
    float w[TAPS], bias;
};

INLINE taps read_team_taps(const mbr_tensor &weight, const mbr_tensor &bias, int64_t d,
                           int lane, int lanes) {
    const float own = lane <= TAPS ? read_tap(weight, bias, d, lane) : 0.0f;
    taps t;
#pragma unroll
    for (int j = 0; j < TAPS; j++)
        t.w[j] = __shfl_sync(ALL_LANES, own, j, lanes);
    t.bias = __shfl_sync(ALL_LANES, own, TAPS, lanes);
    return t;
}

#endif
