/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu.h - one vector of fp32 lanes, written once over its width: arithmetic, exp2 and
 * its relatives, the three dtypes, and moves between strided memory and tiles. The
 * width follows from the compiler's flags; nothing here knows an op.
 *
 * Numbers keep their IEEE meaning: NaN and infinities pass through, so files that
 * include this are never compiled with -ffast-math (which would also break the rounding
 * trick of v_exp2). Contraction of a * b + c into one FMA is wanted: cpu_flags.cmake.
 */
#ifndef MBR_CPU_H
#define MBR_CPU_H

#include "../mambarun.h"

#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* ---- the vector ----------------------------------------------------------------- */

#if defined(__AVX512F__)
#define VW 16 /* lanes */
#elif defined(__AVX2__)
#define VW 8
#else
#define VW 4
#endif

typedef float vf __attribute__((vector_size(4 * VW), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VW), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * VW), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VW), may_alias));

/* Kernels' pieces, which must vanish into their callers, and the larger ones, which
 * need not be there once per caller; either may be unused in a file. */
#define V_INLINE static inline __attribute__((always_inline, unused))
#define V_CALL static __attribute__((noinline, unused))

/* Before a loop of constant length whose arrays are meant to live in registers. */
#if defined(__clang__)
#define V_UNROLL _Pragma("clang loop unroll(full)")
#else
#define V_UNROLL _Pragma("GCC unroll 16")
#endif

/* V_SHUFFLE(a, b, i...): lane k of the result is lane i_k of a and b laid end to end.
 * gcc has the first form from 12 on, clang has no other. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define V_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef V_SHUFFLE
#define V_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* Every lane the same. Users: all kernels. */
V_INLINE vf v_set(float x) {
    return x - (vf){0};
}

V_INLINE vu v_setu(uint32_t x) {
    return x - (vu){0};
}

/* mask ? a : b, mask lanes being all ones or all zeros, as comparisons give them.
 * Users: conversions here, seq_idx in the conv. */
V_INLINE vu v_select(vi mask, vu a, vu b) {
    return ((vu)mask & a) | (~(vu)mask & b);
}

/* All ones in the first n lanes. Users: backward kernels, which must keep the idle
 * lanes of a tail out of their sums (0 * inf is NaN). */
V_INLINE vi v_first(int n) {
    vi index;
    for (int i = 0; i < VW; i++)
        index[i] = i;
    return index < n - (vi){0};
}

/* x where mask, else 0, whatever x holds. Users: as v_first. */
V_INLINE vf v_keep(vi mask, vf x) {
    return (vf)(mask & (vi)x);
}

/* The larger, the smaller of a bound and x; a NaN in x stays. Users: exp2 and exp. */
V_INLINE vf v_at_least(float bound, vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)v_set(bound), (__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)v_set(bound), (__m256)x);
#elif defined(__SSE2__)
    return (vf)_mm_max_ps((__m128)v_set(bound), (__m128)x);
#else
    return (vf)v_select(x < v_set(bound), (vu)v_set(bound), (vu)x);
#endif
}

V_INLINE vf v_at_most(float bound, vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)v_set(bound), (__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)v_set(bound), (__m256)x);
#elif defined(__SSE2__)
    return (vf)_mm_min_ps((__m128)v_set(bound), (__m128)x);
#else
    return (vf)v_select(x > v_set(bound), (vu)v_set(bound), (vu)x);
#endif
}

/* Sum of the lanes: pairs, then pairs of pairs, always in this order. Users: sums over
 * channels (dB, dC) and over time (dweight). */
V_INLINE float v_sum(vf x) {
    float s[VW];
    memcpy(s, &x, sizeof s);
    for (int w = VW / 2; w; w /= 2)
        for (int i = 0; i < w; i++)
            s[i] += s[i + w];
    return s[0];
}

/* Between these two, results below 2^-126 become 0. A state that decays towards zero
 * would otherwise crawl through subnormals, each operation a hundred times slower;
 * upstream flushes too. Inputs are not touched. Users: the scan's tasks. */
V_INLINE uint32_t v_flush_begin(void) {
#if defined(__SSE2__)
    uint32_t mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8000);
    return mode;
#else
    return 0;
#endif
}

V_INLINE void v_flush_end(uint32_t mode) {
#if defined(__SSE2__)
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

/* ---- exp2 and relatives --------------------------------------------------------- */

/* Adding this rounds a small float to an integer n and leaves n + 126 in its low bits:
 * the exponent field of 2^(n-1). */
#define V_ROUND (0x1.8p23f + 126.0f)

#define V_LOG2E 1.44269504f

/* 2^x, relative error 2e-7. x = n + r, n the nearest integer; p(r) has degree 5 and
 * p(0) = 1 exactly, so that 1 - 2^x stays right for tiny x, of which slow decays are
 * made. NaN stays, overflow gives inf, underflow 0. Users: the scan's decays. */
V_INLINE vf v_exp2(vf x) {
    /* Minimax for the relative error of (2^r - 1) / r on [-0.5, 0.5]. */
    const vf c1 = v_set(0.69314714f), c2 = v_set(0.24022351f), c3 = v_set(0.055505004f);
    const vf c4 = v_set(0.009666245f), c5 = v_set(0.0013333538f), one = v_set(1.0f);
#if defined(__AVX512DQ__)
    /* The hardware splits and scales, right for every input. */
    vf r = (vf)_mm512_reduce_ps((__m512)x, 0);
    vf p = ((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + one;
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)(x - r));
#else
    const vf round = v_set(V_ROUND);
    x = v_at_most(129.0f, v_at_least(-126.0f, x)); /* 2^(n-1) from 0 to inf */
    vf n = x + round;
    vf r = x - (n - round);
    vf p = ((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + one;
    return (p + p) * (vf)((vu)n << 23);
#endif
}

/* e^x = (1 + m) s: m = e^r - 1 for the rest r of x, and half of s, a power of two. */
V_INLINE vf v_exp_parts(vf x, vf *half_s) {
    const vf round = v_set(V_ROUND), log2e = v_set(V_LOG2E);
    const vf ln2 = v_set(0x1.62e4p-1f), ln2_rest = v_set(0x1.7f7d1cp-20f);
    x = v_at_most(89.5f, v_at_least(-87.5f, x));
    vf n = x * log2e + round;
    vf k = n - round;
    vf r = x - k * ln2; /* exact: this ln2 has 15 bits */
    r = r - k * ln2_rest;
    *half_s = (vf)((vu)n << 23);
    /* Minimax for the relative error of (e^r - 1) / r on [-ln2 / 2, ln2 / 2]. */
    vf p = v_set(0.0013888873f) * r + v_set(0.00836914f);
    p = ((p * r + v_set(0.041667137f)) * r + v_set(0.16666506f)) * r +
        v_set(0.49999997f);
    return (p * r + v_set(1.0f)) * r;
}

/* e^x, relative error 1e-7; special values as v_exp2. Users: gates, softplus. */
V_INLINE vf v_exp(vf x) {
    vf half_s, m = v_exp_parts(x, &half_s);
    m = m + v_set(1.0f);
    return (m + m) * half_s;
}

/* log(1 + e^x), relative error 3e-7 everywhere. Above 20 it is x in fp32 as well, so
 * upstream's switch there needs no branch. Users: the scan's delta. */
V_INLINE vf v_softplus(vf x) {
    vf e = v_exp((vf)((vu)x | v_setu(0x80000000u))); /* of -|x|: at most 1 */
    /* Minimax for the relative error of log1p(e) / e on [0, 1], 1 at 0. */
    vf p = v_set(0.0053648236f) * e + v_set(-0.03006579f);
    p = ((p * e + v_set(0.07920453f)) * e + v_set(-0.13753802f)) * e +
        v_set(0.19153655f);
    p = ((p * e + v_set(-0.24857163f)) * e + v_set(0.33321324f)) * e +
        v_set(-0.49999648f);
    return v_at_least(0.0f, x) + (p * e + v_set(1.0f)) * e;
}

/* The slope of softplus where its value is y: 1 - e^-y, right to 2e-7 for small y too.
 * Users: the scan's ddelta. */
V_INLINE vf v_softplus_slope(vf y) {
    vf half_s, m = v_exp_parts(-y, &half_s);
    vf s = half_s + half_s;
    return (v_set(1.0f) - s) - m * s;
}

/* 1 / (1 + e^-x). Users: backward of the gates. */
V_INLINE vf v_sigmoid(vf x) {
    return v_set(1.0f) / (v_set(1.0f) + v_exp(-x));
}

/* x / (1 + e^-x). Users: both ops' gates. */
V_INLINE vf v_silu(vf x) {
    return x / (v_set(1.0f) + v_exp(-x));
}

/* sin x and cos x, absolute error 1e-7 for |x| up to 1e5; beyond, where a float's own
 * error exceeds a turn before long, something in [-1, 1]. Users: decays of a complex A.
 */
V_INLINE void v_sincos(vf x, vf *sine, vf *cosine) {
    const vf round = v_set(0x1.8p23f), one = v_set(1.0f);
    vf n = x * v_set(0.636619772f) + round;
    vu quarter = (vu)n;
    n = n - round;
    vf r = x - n * v_set(0x1.92p0f); /* pi / 2 in three parts */
    r = r - n * v_set(0x1.fb4p-12f);
    r = r - n * v_set(0x1.4442d2p-24f);
    r = v_at_most(1.0f, v_at_least(-1.0f, r));
    vf q = r * r;
    vf s = (v_set(-0.00019516978f) * q + v_set(0.008332176f)) * q + v_set(-0.16666655f);
    s = s * q * r + r;
    vf c = (v_set(2.443809e-5f) * q + v_set(-0.0013887364f)) * q + v_set(0.041666646f);
    c = (c * q + v_set(-0.5f)) * q + one;
    vi odd = (quarter & 1) != 0;
    *sine = (vf)(v_select(odd, (vu)c, (vu)s) ^ (quarter & 2) << 30);
    *cosine = (vf)(v_select(odd, (vu)s, (vu)c) ^ ((quarter + 1) & 2) << 30);
}

/* ---- dtypes --------------------------------------------------------------------- */

enum { V_F32, V_F16, V_BF16 };

/* Users: the ops' entry functions. */
V_INLINE int v_type(const mbr_tensor *t) {
    return t->dtype_bits == 32 ? V_F32 : t->dtype_code == MBR_BFLOAT ? V_BF16 : V_F16;
}

V_INLINE int v_bytes(int type) {
    return type == V_F32 ? 4 : 2;
}

/* fp16 <-> fp32 where no instruction does it: subnormals by an exact multiplication and
 * by an addition that rounds at fp16's last place. NaN stays NaN. */
V_INLINE vf v_from_half(vh bits) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__) && VW == 8
    return (vf)_mm256_cvtph_ps((__m128i)bits);
#else
    vu u = __builtin_convertvector(bits, vu);
    vu size = u & 0x7fff;
    vu finite = (vu)((vf)(size << 13) * v_set(0x1p112f));
    vu special = (size << 13) | 0x7f800000u;
    return (vf)(v_select(size > 0x7bff, special, finite) | (u & 0x8000) << 16);
#endif
}

V_INLINE vh v_to_half(vf x) {
#if defined(__AVX512F__)
    return (vh)_mm512_cvtps_ph((__m512)x, 0);
#elif defined(__F16C__) && VW == 8
    return (vh)_mm256_cvtps_ph((__m256)x, 0);
#else
    vu size = (vu)x & 0x7fffffffu;
    vu normal = (size + 0xc8000fffu + ((size >> 13) & 1)) >> 13; /* exponent - 112 */
    vu small = (vu)((vf)size + v_set(0.5f)) - 0x3f000000u;
    vu large = v_select(size > 0x7f800000u, v_setu(0x7e00), v_setu(0x7c00));
    vu u = v_select(size < 0x38800000u, small, normal);
    u = v_select(size >= 0x47800000u, large, u); /* 65536 */
    return __builtin_convertvector(u | ((vu)x >> 16 & 0x8000), vh);
#endif
}

V_INLINE vf v_from_bfloat(vh bits) {
    return (vf)(__builtin_convertvector(bits, vu) << 16);
}

V_INLINE vh v_to_bfloat(vf x) {
    vu u = (vu)x;
    vu rounded = u + 0x7fff + (u >> 16 & 1);
    return __builtin_convertvector(v_select(x == x, rounded, u | 0x400000u) >> 16, vh);
}

/* VW elements side by side, to and from fp32; stores round to nearest even. Users: all
 * kernels. */
V_INLINE vf v_load(const void *p, int type) {
    vf x;
    vh bits;
    if (type == V_F32) {
        memcpy(&x, p, sizeof x);
        return x;
    }
    memcpy(&bits, p, sizeof bits);
    return type == V_F16 ? v_from_half(bits) : v_from_bfloat(bits);
}

V_INLINE void v_store(void *p, int type, vf x) {
    if (type == V_F32) {
        memcpy(p, &x, sizeof x);
        return;
    }
    vh bits = type == V_F16 ? v_to_half(x) : v_to_bfloat(x);
    memcpy(p, &bits, sizeof bits);
}

/* The first n elements only (1 <= n <= VW), not a byte beyond; the other lanes are 0.
 */
V_INLINE vf v_load_some(const void *p, int type, int n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    __mmask16 mask = (__mmask16)(0xffff >> (16 - n));
    if (type == V_F32)
        return (vf)_mm512_maskz_loadu_ps(mask, p);
    vh bits = (vh)_mm256_maskz_loadu_epi16(mask, p);
    return type == V_F16 ? v_from_half(bits) : v_from_bfloat(bits);
#else
    char lanes[4 * VW] = {0};
    const int size = v_bytes(type);
    for (int i = 0; i < VW && i < n; i++)
        memcpy(lanes + i * size, (const char *)p + i * size, (size_t)size);
    return v_load(lanes, type);
#endif
}

V_INLINE void v_store_some(void *p, int type, vf x, int n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    __mmask16 mask = (__mmask16)(0xffff >> (16 - n));
    if (type == V_F32)
        _mm512_mask_storeu_ps(p, mask, (__m512)x);
    else
        _mm256_mask_storeu_epi16(
            p, mask, (__m256i)(type == V_F16 ? v_to_half(x) : v_to_bfloat(x)));
#else
    char lanes[4 * VW] = {0};
    const int size = v_bytes(type);
    v_store(lanes, type, x);
    for (int i = 0; i < VW && i < n; i++)
        memcpy((char *)p + i * size, lanes + i * size, (size_t)size);
#endif
}

/* One element. Users: biases, weights, constants of a channel. */
V_INLINE float v_load_one(const void *p, int type) {
    return v_load_some(p, type, 1)[0];
}

V_INLINE void v_store_one(void *p, int type, float x) {
    v_store_some(p, type, v_set(x), 1);
}

/* ---- tiles ---------------------------------------------------------------------- */

/* Two axes of a tensor: lanes (channels, mostly) across a vector, steps (time, mostly)
 * down a tile. A tile is vf[steps]: fp32, whatever the tensor holds. */
typedef struct v_plane {
    char *data;
    int64_t lane, step; /* strides in bytes, any sign, 0 too */
    int type;
} v_plane;

/* The plane of two axes of t, at index 0 of all others. Users: the entry functions. */
V_INLINE v_plane v_plane_of(const mbr_tensor *t, int lane_axis, int step_axis) {
    const int type = v_type(t), size = v_bytes(type);
    return (v_plane){t->data, t->stride[lane_axis] * size, t->stride[step_axis] * size,
                     type};
}

/* p with its origin moved. Users: all kernels. */
V_INLINE v_plane v_move(v_plane p, int64_t lanes, int64_t steps) {
    p.data += lanes * p.lane + steps * p.step;
    return p;
}

/* Lists of lane numbers for V_SHUFFLE: M(k) for each 128-bit part k of a vector. */
#if VW == 16
#define V_PARTS(M) M(0), M(1), M(2), M(3)
#elif VW == 8
#define V_PARTS(M) M(0), M(1)
#else
#define V_PARTS(M) M(0)
#endif
#define V_LOW(k) 4 * k, VW + 4 * k, 4 * k + 1, VW + 4 * k + 1
#define V_HIGH(k) 4 * k + 2, VW + 4 * k + 2, 4 * k + 3, VW + 4 * k + 3
#define V_FIRST_PAIR(k) 4 * k, 4 * k + 1, VW + 4 * k, VW + 4 * k + 1
#define V_LAST_PAIR(k) 4 * k + 2, 4 * k + 3, VW + 4 * k + 2, VW + 4 * k + 3
#define V_PART(k) 4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3

/* Four rows, transposed inside each 128-bit part. */
V_INLINE void v_transpose_parts(vf *r) {
    vf a = V_SHUFFLE(r[0], r[1], V_PARTS(V_LOW));
    vf b = V_SHUFFLE(r[0], r[1], V_PARTS(V_HIGH));
    vf c = V_SHUFFLE(r[2], r[3], V_PARTS(V_LOW));
    vf d = V_SHUFFLE(r[2], r[3], V_PARTS(V_HIGH));
    r[0] = V_SHUFFLE(a, c, V_PARTS(V_FIRST_PAIR));
    r[1] = V_SHUFFLE(a, c, V_PARTS(V_LAST_PAIR));
    r[2] = V_SHUFFLE(b, d, V_PARTS(V_FIRST_PAIR));
    r[3] = V_SHUFFLE(b, d, V_PARTS(V_LAST_PAIR));
}

/* VW x VW in place: within the parts, then the parts among the rows. Users: tiles. */
V_INLINE void v_transpose(vf *r) {
    for (int i = 0; i < VW; i += 4)
        v_transpose_parts(r + i);
#if VW == 8
    for (int i = 0; i < 4; i++) {
        vf a = r[i], b = r[i + 4];
        r[i] = V_SHUFFLE(a, b, V_PART(0), V_PART(2));
        r[i + 4] = V_SHUFFLE(a, b, V_PART(1), V_PART(3));
    }
#elif VW == 16
    for (int i = 0; i < 4; i++) {
        vf a = V_SHUFFLE(r[i], r[i + 4], V_PART(0), V_PART(1), V_PART(4), V_PART(5));
        vf b = V_SHUFFLE(r[i], r[i + 4], V_PART(2), V_PART(3), V_PART(6), V_PART(7));
        vf c =
            V_SHUFFLE(r[i + 8], r[i + 12], V_PART(0), V_PART(1), V_PART(4), V_PART(5));
        vf d =
            V_SHUFFLE(r[i + 8], r[i + 12], V_PART(2), V_PART(3), V_PART(6), V_PART(7));
        r[i] = V_SHUFFLE(a, c, V_PART(0), V_PART(2), V_PART(4), V_PART(6));
        r[i + 4] = V_SHUFFLE(a, c, V_PART(1), V_PART(3), V_PART(5), V_PART(7));
        r[i + 8] = V_SHUFFLE(b, d, V_PART(0), V_PART(2), V_PART(4), V_PART(6));
        r[i + 12] = V_SHUFFLE(b, d, V_PART(1), V_PART(3), V_PART(5), V_PART(7));
    }
#endif
}

/* Lane k of the result is the sum of the lanes of r[k], added as a tree in a fixed
 * order; destroys r. Users: sums over channels, VW of them at a time. */
V_INLINE vf v_sums(vf *r) {
    v_transpose(r);
    for (int w = VW / 2; w; w /= 2)
        for (int i = 0; i < w; i++)
            r[i] += r[i + w];
    return r[0];
}

/* A square of a tile whose memory runs along time: VW rows, `pitch` bytes apart, are
 * lanes. The second of each pair touches `lanes` rows and n steps of them only. */
V_INLINE void v_square_load(vf *square, const char *row, int64_t pitch, int type) {
    vf r[VW];
    for (int i = 0; i < VW; i++)
        r[i] = v_load(row + i * pitch, type);
    v_transpose(r);
    for (int i = 0; i < VW; i++)
        square[i] = r[i];
}

V_INLINE void v_square_load_some(vf *square, const char *row, int64_t pitch, int type,
                                 int lanes, int n) {
    vf r[VW];
    for (int i = 0; i < VW; i++)
        r[i] = i < lanes ? v_load_some(row + i * pitch, type, n) : (vf){0};
    v_transpose(r);
    for (int i = 0; i < VW; i++)
        if (i < n)
            square[i] = r[i];
}

V_INLINE void v_square_store(const vf *square, char *row, int64_t pitch, int type) {
    vf r[VW];
    for (int i = 0; i < VW; i++)
        r[i] = square[i];
    v_transpose(r);
    for (int i = 0; i < VW; i++)
        v_store(row + i * pitch, type, r[i]);
}

V_INLINE void v_square_store_some(const vf *square, char *row, int64_t pitch, int type,
                                  int lanes, int n) {
    vf r[VW];
    for (int i = 0; i < VW; i++)
        r[i] = i < n ? square[i] : (vf){0};
    v_transpose(r);
    for (int i = 0; i < VW; i++)
        if (i < lanes)
            v_store_some(row + i * pitch, type, r[i], n);
}

V_INLINE void v_tile_load_as(vf *tile, v_plane p, int lanes, int64_t steps, int type) {
    const int size = v_bytes(type);
    if (p.lane == size) { /* channels run along memory: rows are steps */
        for (int64_t t = 0; t < steps; t++, p.data += p.step)
            tile[t] =
                lanes == VW ? v_load(p.data, type) : v_load_some(p.data, type, lanes);
        return;
    }
    if (p.step == size && steps >= VW) { /* time does: rows are lanes, transpose */
        for (; steps >= VW; steps -= VW, tile += VW, p.data += VW * size)
            if (lanes == VW)
                v_square_load(tile, p.data, p.lane, type);
            else
                v_square_load_some(tile, p.data, p.lane, type, lanes, VW);
        if (steps > 0)
            v_square_load_some(tile, p.data, p.lane, type, lanes, (int)steps);
        return;
    }
    char row[4 * VW] = {0};
    for (int64_t t = 0; t < steps; t++, p.data += p.step) {
        for (int i = 0; i < VW && i < lanes; i++)
            memcpy(row + i * size, p.data + i * p.lane, (size_t)size);
        tile[t] = v_load(row, type);
    }
}

V_INLINE void v_tile_store_as(const vf *tile, v_plane p, int lanes, int64_t steps,
                              int type) {
    const int size = v_bytes(type);
    if (p.lane == size) {
        for (int64_t t = 0; t < steps; t++, p.data += p.step)
            if (lanes == VW)
                v_store(p.data, type, tile[t]);
            else
                v_store_some(p.data, type, tile[t], lanes);
        return;
    }
    if (p.step == size && steps >= VW) {
        for (; steps >= VW; steps -= VW, tile += VW, p.data += VW * size)
            if (lanes == VW)
                v_square_store(tile, p.data, p.lane, type);
            else
                v_square_store_some(tile, p.data, p.lane, type, lanes, VW);
        if (steps > 0)
            v_square_store_some(tile, p.data, p.lane, type, lanes, (int)steps);
        return;
    }
    char row[4 * VW] = {0};
    for (int64_t t = 0; t < steps; t++, p.data += p.step) {
        v_store(row, type, tile[t]);
        for (int i = 0; i < VW && i < lanes; i++)
            memcpy(p.data + i * p.lane, row + i * size, (size_t)size);
    }
}

/* tile[t], lane i <- element (lane i, step t) of p, for lanes 1..VW and any number of
 * steps; lanes beyond are 0. Touches those elements and nothing else. Users: all
 * kernels. */
V_CALL void v_tile_load(vf *tile, v_plane p, int lanes, int64_t steps) {
    if (p.type == V_F32)
        v_tile_load_as(tile, p, lanes, steps, V_F32);
    else if (p.type == V_F16)
        v_tile_load_as(tile, p, lanes, steps, V_F16);
    else
        v_tile_load_as(tile, p, lanes, steps, V_BF16);
}

/* The way back, rounded to p's dtype. If two elements are one memory cell, the later
 * step, then the later lane stays. */
V_CALL void v_tile_store(const vf *tile, v_plane p, int lanes, int64_t steps) {
    if (p.type == V_F32)
        v_tile_store_as(tile, p, lanes, steps, V_F32);
    else if (p.type == V_F16)
        v_tile_store_as(tile, p, lanes, steps, V_F16);
    else
        v_tile_store_as(tile, p, lanes, steps, V_BF16);
}

#endif
