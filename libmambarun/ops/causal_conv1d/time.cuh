/* SPDX-License-Identifier: Apache-2.0
 *
 * time.cuh - what the kernels share whose lanes hold COUNT times each: how a lane reads
 * its run of one channel. Times lie side by side in x, out, dout and dx.
 */
#ifndef MBR_TIME_CUH
#define MBR_TIME_CUH

#include "conv.cuh"

/* One channel over time: at time t from 0 on it is now[t], in the `kept` times
 * before, if there is a history, it is then[]; everywhere else 0. */
template <class T> struct series {
    const T *now, *then;
    int64_t then_step, length;
    int kept;

    INLINE T at(int64_t t) const {
        if (t >= 0)
            return t < length ? now[t] : T{};
        return then && t >= -kept ? then[(t + kept) * then_step] : T{};
    }
};

/* history may be absent. A team without work has a series of no length. */
template <class T>
INLINE series<T> series_of(const mbr_tensor &t, const mbr_tensor &history, int kept,
                           int64_t b, int64_t d, bool exists) {
    return {row_of<T>(t, b, d), history.data ? row_of<T>(history, b, d) : nullptr,
            history.stride[2], exists ? t.shape[2] : 0, kept};
}

template <class T>
INLINE series<T> series_of(const mbr_tensor &t, int64_t b, int64_t d, bool exists) {
    return {row_of<T>(t, b, d), nullptr, 0, exists ? t.shape[2] : 0, 0};
}

INLINE void place(run<f32, COUNT> &r, int i, f32 v) {
    r.word[i] = __float_as_uint(v.bits);
}

template <class T> INLINE void place(run<T, COUNT> &r, int i, T v) {
    r.word[i / 2] |= (uint32_t)v.bits << i % 2 * 16;
}

/* Whether a run at p can be moved at once. */
template <class T> INLINE bool is_aligned(const T *p) {
    return (uintptr_t)p % alignof(run<T, COUNT>) == 0;
}

/* How many values after an aligned place p is. */
template <class T> INLINE int misplaced(const T *p) {
    return (int)((uintptr_t)p % alignof(run<T, COUNT>) / sizeof(T));
}

/* Which values of a run from time t on lie at times from 0 to length. */
struct range {
    int from, to;

    INLINE bool has(int i) const {
        return i >= from && i < to;
    }
};

INLINE range range_of(int64_t t, int64_t length) {
    return {(int)max(min(-t, (int64_t)COUNT), (int64_t)0),
            (int)max(min(length - t, (int64_t)COUNT), (int64_t)0)};
}

/* From time t on. */
template <class T> INLINE run<T, COUNT> load_times(const series<T> &x, int64_t t) {
    const T *own = x.now + t;
    if (t >= 0 && t + COUNT <= x.length && is_aligned(own))
        return load_run<T, COUNT>(own);
    const range inside = range_of(t, x.length);
    run<T, COUNT> r = {};
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (inside.has(i))
            place(r, i, own[i]);
    if (x.then && t < 0) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (i < inside.from)
                place(r, i, x.at(t + i));
    }
    return r;
}

/* Teams of one warp must take as many tiles: the most that any of them has. */
INLINE int64_t most_of_warp(int64_t tiles, int lanes) {
    for (int i = lanes; i < 32; i *= 2)
        tiles = max(tiles, (int64_t)__shfl_xor_sync(ALL_LANES, (long long)tiles, i));
    return tiles;
}

/* Times from 0 to length, of these. */
template <class T>
INLINE void store_times(T *to, int64_t length, int64_t t, const float (&v)[COUNT]) {
    T *own = to + t;
    if (t >= 0 && t + COUNT <= length && is_aligned(own)) {
        store_run(own, pack_run<T>(v));
        return;
    }
    const range inside = range_of(t, length);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (inside.has(i))
            own[i] = from_float<T>(v[i]);
}

/* ---- units -------------------------------------------------------------------------
 */

/* Where a team's unit lies: a segment of channel d of batch row b. */
struct unit {
    int64_t b, segment;
};

INLINE unit unit_of(int64_t index, int64_t segments) {
    return {index / segments, index % segments};
}

/* Asks for the run at time t of a row, if there is one. */
INLINE void prefetch_times(const IN *row, int64_t length, int64_t t) {
    if (t >= 0 && t < length)
        prefetch(row + t);
}

#endif
