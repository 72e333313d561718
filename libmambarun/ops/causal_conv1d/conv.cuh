/* SPDX-License-Identifier: Apache-2.0
 *
 * conv.cuh - what this room's kernels share: how x is read along time with its history
 * in front, and the sum over the taps. A row of instances.def chooses
 *     IN       f32, f16 or bf16: type of x and of all that has its dtype
 *     COUNT    values of a lane that lie side by side
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 * weight and bias may have any of the types: they are few.
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

/* ---- values of any real dtype ------------------------------------------------------
 */

INLINE float read_real(const mbr_tensor &t, int64_t i) {
    if (t.dtype_bits == 32)
        return static_cast<const float *>(t.data)[i];
    if (t.dtype_code == MBR_BFLOAT)
        return to_float(static_cast<const bf16 *>(t.data)[i]);
    return to_float(static_cast<const f16 *>(t.data)[i]);
}

INLINE void write_real(const mbr_tensor &t, int64_t i, float x) {
    if (t.dtype_bits == 32)
        static_cast<float *>(t.data)[i] = x;
    else if (t.dtype_code == MBR_BFLOAT)
        static_cast<bf16 *>(t.data)[i] = from_float<bf16>(x);
    else
        static_cast<f16 *>(t.data)[i] = from_float<f16>(x);
}

template <class T>
INLINE void read_taps_as(float (&w)[TAPS], const mbr_tensor &weight, int64_t d) {
    const int absent = TAPS - (int)weight.shape[1];
    const T *from = static_cast<const T *>(weight.data) + d * weight.stride[0];
#pragma unroll
    for (int j = 0; j < TAPS; j++)
        w[j] = j < absent ? 0.0f : to_float(from[(j - absent) * weight.stride[1]]);
}

/* Of channel d; an absent one is 0. */
INLINE void read_taps(float (&w)[TAPS], const mbr_tensor &weight, int64_t d) {
    if (weight.dtype_bits == 32)
        read_taps_as<f32>(w, weight, d);
    else if (weight.dtype_code == MBR_BFLOAT)
        read_taps_as<bf16>(w, weight, d);
    else
        read_taps_as<f16>(w, weight, d);
}

INLINE float read_bias(const mbr_tensor &bias, int64_t d) {
    return bias.data ? read_real(bias, d * bias.stride[0]) : 0.0f;
}

/* ---- values along time -------------------------------------------------------------
 */

/* Channel d of batch row b of a (B, D, time) tensor. */
template <class T> INLINE T *row_of(const mbr_tensor &t, int64_t b, int64_t d) {
    return static_cast<T *>(t.data) + b * t.stride[0] + d * t.stride[1];
}

/* Id of the sequence that time t belongs to. Before and after the last it is -1. */
INLINE int id_at(const int32_t *ids, int64_t step, int64_t length, int64_t t) {
    return t < 0 || t >= length ? -1 : ids[t * step];
}

INLINE const int32_t *ids_of(const mbr_tensor &seq_idx, int64_t b) {
    return static_cast<const int32_t *>(seq_idx.data) + b * seq_idx.stride[0];
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
    if (c.tap[0])
        sum = fmaf(w0, x0, sum);
    if (c.tap[1])
        sum = fmaf(w1, x1, sum);
    if (c.tap[2])
        sum = fmaf(w2, x2, sum);
    return fmaf(w3, x3, sum);
}

/* d silu(y) / dy. */
INLINE float silu_slope(float y) {
    const float s = sigmoid(y);
    return s * fmaf(y, 1.0f - s, 1.0f);
}

#endif
