/* SPDX-License-Identifier: Apache-2.0
 *
 * conv.cuh - what this room's kernels share: values of any dtype, runs, and the sum
 * over the taps. A row of instances.def chooses IN       f32, f16 or bf16: type of x
 * and of all that has its dtype; or real, any COUNT    values of a lane that lie side
 * by side AHEAD    steps that are loaded before they are used (_channel, _strided) IDS
 * whether there is a seq_idx: 0 no, 1 yes, 2 maybe (the same) BLOCKS   blocks per
 * multiprocessor that registers must suffice for weight and bias may have any of the
 * types: they are few.
 *
 * Kernels are written for 4 taps. A narrower convolution lacks the first ones: weight k
 * of W is tap k + 4 - W. An absent tap is skipped, not multiplied by 0.
 */
#ifndef MBR_CONV_CUH
#define MBR_CONV_CUH

#include "cuda_conv.h"
#include "variant/device.cuh"

constexpr int TAPS = 4;
constexpr int BEFORE = TAPS - 1; /* inputs before a time that it depends on */
constexpr int COUNT_BITS = COUNT == 8 ? 3 : COUNT == 4 ? 2 : COUNT == 2 ? 1 : 0;

/* ---- values of a dtype that is known when a call comes -----------------------------
 */

struct dtype {
    bool wide, brain; /* fp32; bf16 if not fp16 */

    INLINE int size() const {
        return wide ? 4 : 2;
    }
};

INLINE dtype dtype_of(const mbr_tensor &t) {
    return {t.dtype_bits == 32, t.dtype_code == MBR_BFLOAT};
}

INLINE uint32_t load_bits(const void *from, dtype type) {
    return type.wide ? *static_cast<const uint32_t *>(from)
                     : *static_cast<const uint16_t *>(from);
}

INLINE void store_bits(void *to, uint32_t bits, dtype type) {
    if (type.wide)
        *static_cast<uint32_t *>(to) = bits;
    else
        *static_cast<uint16_t *>(to) = (uint16_t)bits;
}

INLINE float to_float(uint32_t bits, dtype type) {
    if (type.wide)
        return __uint_as_float(bits);
    return type.brain ? to_float(bf16{(uint16_t)bits}) : to_float(f16{(uint16_t)bits});
}

INLINE uint32_t to_bits(float x, dtype type) {
    if (type.wide)
        return __float_as_uint(x);
    return type.brain ? from_float<bf16>(x).bits : from_float<f16>(x).bits;
}

INLINE char *at(const mbr_tensor &t, int64_t i) {
    return static_cast<char *>(t.data) + i * dtype_of(t).size();
}

INLINE float read_real(const mbr_tensor &t, int64_t i) {
    return to_float(load_bits(at(t, i), dtype_of(t)), dtype_of(t));
}

INLINE void write_real(const mbr_tensor &t, int64_t i, float x) {
    store_bits(at(t, i), to_bits(x, dtype_of(t)), dtype_of(t));
}

/* Tap j of channel d, or the bias where j is TAPS; an absent one is 0. */
INLINE float read_tap(const mbr_tensor &weight, const mbr_tensor &bias, int64_t d,
                      int j) {
    const bool is_bias = j == TAPS;
    const mbr_tensor &from = is_bias ? bias : weight;
    const int k = is_bias ? 0 : j - (TAPS - (int)weight.shape[1]);
    if (!from.data || k < 0)
        return 0.0f;
    return read_real(from, d * from.stride[0] + (is_bias ? 0 : k * from.stride[1]));
}

/* Sum k of channel d, that of weight k or of the bias, from one of plan.groups. */
INLINE void write_sum(const conv_backward &f, int64_t d, int64_t k, float sum) {
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const bool is_bias = k == p.weight.shape[1];
    const mbr_tensor &to = is_bias ? p.dbias : p.dweight;
    if (!to.data)
        return;
    const int64_t at = d * to.stride[0] + (is_bias ? 0 : k * to.stride[1]);
    write_real(to, at, p.accumulate ? read_real(to, at) + sum : sum);
}

INLINE void finish_sum(const conv_backward &f, int64_t group, int64_t d, int64_t k,
                       float sum) {
    const int64_t dim = f.p.x.shape[1], width = f.p.weight.shape[1];
    if (f.plan.groups == 1)
        write_sum(f, d, k, sum);
    else
        static_cast<float *>(f.p.workspace.data)[(group * (width + 1) + k) * dim + d] =
            sum;
}

/* ---- runs ----
 */

/* As load_run() and store_run(), but in the order that they stand in, and in global
 * memory, which the compiler sees through few loops. */
template <class T, int count> INLINE run<T, count> load_vector(const T *from) {
    constexpr int words = run<T, count>::words;
    const size_t at = __cvta_generic_to_global(from);
    run<T, count> r;
    if constexpr (words % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; i += 4)
            asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(r.word[i]), "=r"(r.word[i + 1]), "=r"(r.word[i + 2]),
                           "=r"(r.word[i + 3])
                         : "l"(at + 4 * i));
    } else if constexpr (words == 2) {
        asm volatile("ld.global.v2.u32 {%0, %1}, [%2];"
                     : "=r"(r.word[0]), "=r"(r.word[1])
                     : "l"(at));
    } else {
        static_assert(words == 1, "1, 2 or a multiple of 4 words");
        asm volatile("ld.global.u32 %0, [%1];" : "=r"(r.word[0]) : "l"(at));
    }
    return r;
}

template <class T, int count> INLINE void store_vector(T *to, const run<T, count> &r) {
    constexpr int words = run<T, count>::words;
    const size_t at = __cvta_generic_to_global(to);
    if constexpr (words % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; i += 4)
            asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at + 4 * i),
                         "r"(r.word[i]), "r"(r.word[i + 1]), "r"(r.word[i + 2]),
                         "r"(r.word[i + 3]));
    } else if constexpr (words == 2) {
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(r.word[0]),
                     "r"(r.word[1]));
    } else {
        static_assert(words == 1, "1, 2 or a multiple of 4 words");
        asm volatile("st.global.u32 [%0], %1;" ::"l"(at), "r"(r.word[0]));
    }
}

/* ---- the taps ----------------------------------------------------------------------
 */

/* Whether tap j counts at all; the last one always does. */
struct counted {
    bool tap[BEFORE];
};

INLINE counted taps_of(int width) {
    return {width > 3, width > 2, true};
}

/* ... and if time j of these belongs to the sequence of the last one. */
INLINE counted within_sequence(counted c, int id0, int id1, int id2, int id3) {
    return {c.tap[0] && id0 == id3, c.tap[1] && id1 == id3, c.tap[2] && id2 == id3};
}

INLINE float add_taps(float sum, float w0, float w1, float w2, float w3, float x0,
                      float x1, float x2, float x3, const counted &c) {
    sum = fmaf(w3, x3, sum);
    if (c.tap[2])
        sum = fmaf(w2, x2, sum);
    if (c.tap[1])
        sum = fmaf(w1, x1, sum);
    if (c.tap[0])
        sum = fmaf(w0, x0, sum);
    return sum;
}

/* d silu(y) / dy: s (1 + y (1 - s)). */
INLINE float silu_slope(float y) {
    const float s = sigmoid(y);
    return fmaf(s, fmaf(-s, y, y), s);
}

#endif
