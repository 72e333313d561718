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

INLINE float filter(const taps &own, const counted &width, float x0, float x1, float x2,
                    float x3) {
    return add_taps(own.bias, own.w[0], own.w[1], own.w[2], own.w[3], x0, x1, x2, x3,
                    width);
}

/* ---- backward ----------------------------------------------------------------------
 */

typedef float sums[TAPS + 1]; /* the bias last */

/* What a lane reads of a run. */
struct given {
    run<IN, COUNT> x, dout;
    run<IN, TAPS> before; /* of x */
};

/* x of a run and before it, and dout. */
INLINE void unpack(const given &l, float (&x)[BEFORE + COUNT],
                   float (&dout)[COUNT + BEFORE]) {
    float x_now[COUNT], dout_now[COUNT], before[TAPS];
    unpack_run(x_now, l.x);
    unpack_run(dout_now, l.dout);
    unpack_run(before, l.before);
#pragma unroll
    for (int j = 0; j < BEFORE; j++)
        x[j] = before[j + 1];
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        x[BEFORE + i] = x_now[i], dout[i] = dout_now[i];
}

/* Adds those terms of a run that exist: first to each other, so that sums of many terms
 * stay exact. */
INLINE void add_sums(sums &total, const float (&x)[BEFORE + COUNT],
                     const float (&g)[COUNT + BEFORE], range inside) {
#pragma unroll
    for (int j = 0; j <= TAPS; j++) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (inside.has(i))
                sum = j == TAPS ? sum + g[i] : fmaf(g[i], x[i + j], sum);
        total[j] += sum;
    }
}

/* dout becomes g, 0 where there is no time; and its part comes to the sums. */
INLINE void differentiate(const taps &own, const counted &width, bool with_silu,
                          const float (&x)[BEFORE + COUNT], range inside,
                          float (&g)[COUNT + BEFORE], sums &total) {
    if (with_silu) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            g[i] *= silu_slope(filter(own, width, x[i], x[i + 1], x[i + 2], x[i + 3]));
    }
    if (inside.whole()) {
        add_sums(total, x, g, {0, COUNT});
        return;
    }
    add_sums(total, x, g, inside);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        g[i] = inside.has(i) ? g[i] : 0.0f; /* not 0 times something */
}

/* dx of a run, of its g and the 3 after it. */
INLINE void transpose(const taps &own, const counted &width,
                      const float (&g)[COUNT + BEFORE], float (&dx)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        dx[i] = add_taps(0.0f, own.w[0], own.w[1], own.w[2], own.w[3], g[i + 3],
                         g[i + 2], g[i + 1], g[i], width);
}

/* g at a time, where x and dout point to. */
INLINE float find_g(const taps &own, const counted &width, bool with_silu, const IN *x,
                    const IN *dout) {
    const float y = filter(own, width, to_float(x[-3]), to_float(x[-2]),
                           to_float(x[-1]), to_float(x[0]));
    return to_float(*dout) * (with_silu ? silu_slope(y) : 1.0f);
}

/* Those of a block's lanes, which share channel d or a part of it: in order, the last
 * few in double precision, which costs nothing and leaves one rounding. */
template <int WARPS>
INLINE void finish_sums(const conv_backward &f, uint32_t group, uint32_t d,
                        const sums &total) {
    __shared__ float shared[WARPS][TAPS + 1];
#pragma unroll
    for (int j = 0; j <= TAPS; j++) {
        const float sum = sum_lanes<32>(total[j]);
        if (threadIdx.x % 32 == 0)
            shared[threadIdx.x / 32][j] = sum;
    }
    __syncthreads();
    const int absent = TAPS - (int)f.p.weight.shape[1], j = threadIdx.x;
    if (j < absent || j > TAPS)
        return;
    double sum = 0.0;
#pragma unroll 1
    for (int i = 0; i < (int)blockDim.x / 32; i++)
        sum += shared[i][j];
    finish_sum(f, group, d, j - absent, (float)sum);
}

#endif
