/* SPDX-License-Identifier: Apache-2.0
 *
 * device.cuh - what device code of all rooms is made of: the three dtypes and their
 * vectors, exp2 and its relatives, complex numbers, shuffles. Knows no op, includes no
 * toolkit header; for NVRTC 11.8 and newer, sm_60 and newer. Arithmetic is fp32.
 *
 * Numbers keep their IEEE meaning: NaN and infinities pass through. Only the functions
 * with an approximate instruction inside flush subnormals to zero, as said there.
 */
#ifndef MBR_DEVICE_CUH
#define MBR_DEVICE_CUH

#include "mambarun.h"

#define INLINE __device__ __forceinline__

/* Before the struct that a kernel takes by value: it stays in constant memory whatever
 * is done with it. Older architectures have no word for that. */
#if __CUDA_ARCH__ >= 700
#define KERNEL_PARAMETER const __grid_constant__
#else
#define KERNEL_PARAMETER const
#endif

/* ---- dtypes: names for the macros of instances.def -------------------------------- */

struct f32 {
    float bits;
};

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

/* f16 or bf16, in code for both: which of them is said at run time. */
struct half {
    uint16_t bits;
};

INLINE float to_float(f32 x) {
    return x.bits;
}

INLINE float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

INLINE float to_float(bf16 x) {
    return __uint_as_float((uint32_t)x.bits << 16);
}

/* Rounded to nearest, ties to even; a NaN stays one. */
template <class T> INLINE T from_float(float x);

template <> INLINE f32 from_float<f32>(float x) {
    return {x};
}

template <> INLINE f16 from_float<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

template <> INLINE bf16 from_float<bf16>(float x) {
    bf16 y;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    const uint32_t u = __float_as_uint(x);
    y.bits = x == x ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fff;
#endif
    return y;
}

/* Two values in a word, the first in its low half. */
template <class T> INLINE void unpack(uint32_t word, float &first, float &second);

template <> INLINE void unpack<f16>(uint32_t word, float &first, float &second) {
    first = to_float(f16{(uint16_t)word});
    second = to_float(f16{(uint16_t)(word >> 16)});
}

template <> INLINE void unpack<bf16>(uint32_t word, float &first, float &second) {
    first = __uint_as_float(word << 16);
    second = __uint_as_float(word & 0xffff0000u);
}

template <class T> INLINE uint32_t pack(float first, float second) {
    return from_float<T>(first).bits | (uint32_t)from_float<T>(second).bits << 16;
}

#if __CUDA_ARCH__ >= 800
template <> INLINE uint32_t pack<f16>(float first, float second) {
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}

template <> INLINE uint32_t pack<bf16>(float first, float second) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}
#endif

/* ---- vectors ---------------------------------------------------------------------- */

template <class A, class B> struct same_type {
    static constexpr bool value = false;
};
template <class A> struct same_type<A, A> {
    static constexpr bool value = true;
};

/* A run of count values in memory, as it is loaded and stored at once: in accesses of 16
 * bytes, or of 8 or 4 if it is no longer. The address must be aligned so. Loading one
 * and unpacking it later leaves the load in flight in between. */
template <class T, int count> struct alignas(
    count * sizeof(T) < 16 ? count * sizeof(T) : 16) run {
    static_assert(count * sizeof(T) % 4 == 0, "runs are made of words");
    static constexpr int words = count * sizeof(T) / 4;
    uint32_t word[words];
};

template <class T, int count> INLINE run<T, count> load_run(const T *from) {
    constexpr int words = run<T, count>::words;
    run<T, count> r;
    if constexpr (words % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; i += 4) {
            const uint4 w = *reinterpret_cast<const uint4 *>(
                reinterpret_cast<const uint32_t *>(from) + i);
            r.word[i] = w.x, r.word[i + 1] = w.y, r.word[i + 2] = w.z, r.word[i + 3] = w.w;
        }
    } else if constexpr (words == 2) {
        const uint2 w = *reinterpret_cast<const uint2 *>(from);
        r.word[0] = w.x, r.word[1] = w.y;
    } else {
        static_assert(words == 1, "1, 2 or a multiple of 4 words");
        r.word[0] = *reinterpret_cast<const uint32_t *>(from);
    }
    return r;
}

template <class T, int count> INLINE void store_run(T *to, const run<T, count> &r) {
    constexpr int words = run<T, count>::words;
    if constexpr (words % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; i += 4)
            *reinterpret_cast<uint4 *>(reinterpret_cast<uint32_t *>(to) + i) =
                make_uint4(r.word[i], r.word[i + 1], r.word[i + 2], r.word[i + 3]);
    } else if constexpr (words == 2) {
        *reinterpret_cast<uint2 *>(to) = make_uint2(r.word[0], r.word[1]);
    } else {
        static_assert(words == 1, "1, 2 or a multiple of 4 words");
        *reinterpret_cast<uint32_t *>(to) = r.word[0];
    }
}

template <class T, int count>
INLINE void unpack_run(float (&to)[count], const run<T, count> &r) {
    if constexpr (same_type<T, f32>::value) {
#pragma unroll
        for (int i = 0; i < count; i++)
            to[i] = __uint_as_float(r.word[i]);
    } else {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            unpack<T>(r.word[i], to[2 * i], to[2 * i + 1]);
    }
}

template <class T, int count> INLINE run<T, count> pack_run(const float (&from)[count]) {
    run<T, count> r;
    if constexpr (same_type<T, f32>::value) {
#pragma unroll
        for (int i = 0; i < count; i++)
            r.word[i] = __float_as_uint(from[i]);
    } else {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            r.word[i] = pack<T>(from[2 * i], from[2 * i + 1]);
    }
    return r;
}

/* The same where only a flag says which type it is. For types that need none, too. */
template <class T, int count>
INLINE void unpack_run(float (&to)[count], const run<T, count> &r, bool) {
    unpack_run(to, r);
}

template <int count>
INLINE void unpack_run(float (&to)[count], const run<half, count> &r, bool is_f16) {
    if (is_f16) {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            unpack<f16>(r.word[i], to[2 * i], to[2 * i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            unpack<bf16>(r.word[i], to[2 * i], to[2 * i + 1]);
    }
}

template <int count>
INLINE run<half, count> pack_run(const float (&from)[count], bool is_f16) {
    run<half, count> r;
    if (is_f16) {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            r.word[i] = pack<f16>(from[2 * i], from[2 * i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < count / 2; i++)
            r.word[i] = pack<bf16>(from[2 * i], from[2 * i + 1]);
    }
    return r;
}

/* Asks for the 32 bytes around p to come into the second-level cache. p must be readable. */
INLINE void prefetch(const void *p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* Copies 16 bytes from global to shared memory, both aligned so. The bytes are there for
 * this thread after copies_wait(), for others after a barrier that follows it. Before
 * sm_80 the thread itself waits for them, here. */
INLINE void copy_async(void *shared, const void *global) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
#else
    *static_cast<uint4 *>(shared) = *static_cast<const uint4 *>(global);
#endif
}

/* The same for size bytes, 16 or 4, both addresses being multiples of that. */
template <int size> INLINE void copy_async(void *shared, const void *global) {
    static_assert(size == 16 || size == 4, "what scans need");
    if (size == 16) {
        copy_async(shared, global);
        return;
    }
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
#else
    *static_cast<uint32_t *>(shared) = *static_cast<const uint32_t *>(global);
#endif
}

/* The same for `bytes` bytes, an even number up to size (16 or 4); the rest of size
 * becomes 0. Both addresses are multiples of size. The thread waits for less than size:
 * the instruction could fill up with zeros, but compute-sanitizer takes it to read all. */
template <int size> INLINE void copy_async(void *shared, const void *global, int bytes) {
    static_assert(size == 16 || size == 4, "what scans need");
    if (bytes < size) {
#pragma unroll 1
        for (int i = 0; i < size / 2; i++)
            static_cast<uint16_t *>(shared)[i] =
                2 * i < bytes ? static_cast<const uint16_t *>(global)[i] : 0;
        return;
    }
    copy_async<size>(shared, global);
}

INLINE void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* ---- exp2 and relatives ----------------------------------------------------------- */

#define LOG2E 1.44269504f

/* 2^x, relative error 2^-22; subnormal results are 0. */
INLINE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x, relative error 2^-23; subnormals are 0, and 1 / 0 is infinite. */
INLINE float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / (1 + e^-x), relative error 4e-7 for |x| < 16; below -88 it is 0. */
INLINE float sigmoid(float x) {
    return reciprocal_fast(1.0f + exp2_fast(-LOG2E * x));
}

/* x sigmoid(x). */
INLINE float silu(float x) {
    return x * sigmoid(x);
}

/* e^x for x <= 0, relative error 2e-7: the exponent keeps its low part. */
INLINE float exp_negative(float x) {
    const float high = x * LOG2E;
    const float low = fmaf(x, LOG2E, -high) + x * 1.925963e-8f; /* log2(e) - LOG2E */
    const float e = exp2_fast(high);
    return high < -126.0f ? 0.0f : fmaf(e, low * 0.69314718f, e);
}

/* log(1 + e^x), relative error 3e-7 for |x| < 7, growing to 1e-6 at -20. Above 20 it is x
 * in fp32 as well, so upstream's switch there needs no branch. */
INLINE float softplus(float x) {
    const float e = exp2_fast(-LOG2E * fabsf(x));
    /* Minimax for the relative error of log1p(e) / e on [0, 1], 1 at 0. */
    float p = fmaf(0.0053648236f, e, -0.03006579f);
    p = fmaf(p, e, 0.07920453f);
    p = fmaf(p, e, -0.13753802f);
    p = fmaf(p, e, 0.19153655f);
    p = fmaf(p, e, -0.24857163f);
    p = fmaf(p, e, 0.33321324f);
    p = fmaf(p, e, -0.49999648f);
    p = fmaf(p, e, 1.0f);
    return fmaf(p, e, fmaxf(x, 0.0f)); /* a NaN comes by e */
}

/* dt from delta: with its bias, and softplus of that if asked for. The question stands
 * outside of the loop, where it costs nothing; bias is read where it is added. */
template <int count>
INLINE void make_dt(float (&delta)[count], const float &bias, bool with_softplus) {
    if (with_softplus) {
#pragma unroll
        for (int i = 0; i < count; i++)
            delta[i] = softplus(delta[i] + bias);
    } else {
#pragma unroll
        for (int i = 0; i < count; i++)
            delta[i] += bias;
    }
}

/* The slope of softplus where its value is y >= 0: 1 - e^-y, right to 3e-7 for small y
 * too. */
INLINE float softplus_slope(float y) {
    /* Minimax for the relative error of (1 - e^-y) / y on [0, 0.5], 1 at 0. */
    float p = fmaf(-0.0011234042f, y, 0.008189614f);
    p = fmaf(p, y, -0.041630074f);
    p = fmaf(p, y, 0.16666242f);
    p = fmaf(p, y, -0.49999982f);
    p = fmaf(p, y, 1.0f);
    return y > 0.5f ? 1.0f - exp2_fast(-LOG2E * y) : p * y;
}

/* sin x and cos x, absolute error 1e-7 for |x| up to 1e5; beyond, where a float's own
 * error exceeds a turn before long, something in [-1, 1]. */
INLINE void sine_cosine(float x, float &sine, float &cosine) {
    const float round = 12582912.0f; /* 1.5 2^23: leaves an integer in the low bits */
    const float shifted = fmaf(x, 0.636619772f, round), n = shifted - round;
    const uint32_t quarter = __float_as_uint(shifted);
    float r = fmaf(n, -1.5703125f, x); /* pi / 2 in three parts */
    r = fmaf(n, -4.837512969970703125e-4f, r);
    r = fmaf(n, -7.549789948768648e-8f, r);
    r = fminf(fmaxf(r, -1.0f), 1.0f);
    const float q = r * r;
    float s = fmaf(-0.00019516978f, q, 0.008332176f);
    s = fmaf(fmaf(s, q, -0.16666655f) * q, r, r);
    float c = fmaf(2.443809e-5f, q, -0.0013887364f);
    c = fmaf(fmaf(fmaf(c, q, 0.041666646f), q, -0.5f), q, 1.0f);
    const bool odd = quarter & 1;
    sine = __uint_as_float(__float_as_uint(odd ? c : s) ^ (quarter & 2) << 30);
    cosine = __uint_as_float(__float_as_uint(odd ? s : c) ^ ((quarter + 1) & 2) << 30);
}

/* ---- complex numbers -------------------------------------------------------------- */

struct complex {
    float re, im;
};

INLINE complex operator+(complex a, complex b) {
    return {a.re + b.re, a.im + b.im};
}

INLINE complex operator*(complex a, complex b) {
    return {fmaf(a.re, b.re, -(a.im * b.im)), fmaf(a.re, b.im, a.im * b.re)};
}

INLINE complex operator*(float a, complex b) {
    return {a * b.re, a * b.im};
}

INLINE complex conjugate(complex a) {
    return {a.re, -a.im};
}

/* a b + c */
INLINE float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}

INLINE complex multiply_add(complex a, complex b, complex c) {
    return {fmaf(a.re, b.re, fmaf(-a.im, b.im, c.re)),
            fmaf(a.re, b.im, fmaf(a.im, b.re, c.im))};
}

INLINE complex multiply_add(float a, complex b, complex c) {
    return {fmaf(a, b.re, c.re), fmaf(a, b.im, c.im)};
}

/* e^(t x), of a rate that was prepared by rate_of. */
INLINE float rate_of(float x) {
    return LOG2E * x;
}

INLINE complex rate_of(complex x) {
    return {LOG2E * x.re, x.im};
}

INLINE float decay(float t, float rate) {
    return exp2_fast(t * rate);
}

INLINE complex decay(float t, complex rate) {
    const float size = exp2_fast(t * rate.re);
    float sine, cosine;
    sine_cosine(t * rate.im, sine, cosine);
    return {size * cosine, size * sine};
}

/* ---- shuffles --------------------------------------------------------------------- */

#define ALL_LANES 0xffffffffu

/* Within aligned groups of `lanes` lanes (a power of two), all 32 lanes taking part. */
template <int lanes> INLINE float shuffle_up(float x, int by) {
    return __shfl_up_sync(ALL_LANES, x, by, lanes);
}

template <int lanes> INLINE complex shuffle_up(complex x, int by) {
    return {shuffle_up<lanes>(x.re, by), shuffle_up<lanes>(x.im, by)};
}

/* The value of the lane before, in the group's first lane `first`. */
template <int lanes> INLINE float lane_before(float x, float first) {
    float before;
    /* A register of its own: NVRTC 11 knows no early clobber. */
    asm("{.reg .pred p;\n\t"
        ".reg .f32 up;\n\t"
        "shfl.sync.up.b32 up|p, %1, 1, %3, -1;\n\t"
        "selp.f32 %0, up, %2, p;}"
        : "=f"(before)
        : "f"(x), "f"(first), "n"((32 - lanes) << 8));
    return before;
}

template <int lanes> INLINE complex lane_before(complex x, complex first) {
    return {lane_before<lanes>(x.re, first.re), lane_before<lanes>(x.im, first.im)};
}

/* One round of an inclusive scan over the group under (a, h) after (a', h') = (a a', a h'
 * + h): lanes by.. take in what the lane `by` before them holds. In assembly because the
 * shuffle itself says which lanes those are, and the result can stay in place. */
template <int lanes, int by> INLINE void scan_round(float &a, float &h) {
    asm("{.reg .pred p;\n\t.reg .f32 s, t;\n\t"
        "shfl.sync.up.b32 s|p, %1, %2, %3, -1;\n\t"
        "shfl.sync.up.b32 t, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %1, %0, s, %1;\n\t"
        "@p mul.rn.f32 %0, %0, t;}"
        : "+f"(a), "+f"(h)
        : "n"(by), "n"((32 - lanes) << 8));
}

template <int lanes, int by> INLINE void scan_round(complex &a, complex &h) {
    const complex s = {__shfl_up_sync(ALL_LANES, h.re, by, lanes),
                       __shfl_up_sync(ALL_LANES, h.im, by, lanes)};
    const complex t = {__shfl_up_sync(ALL_LANES, a.re, by, lanes),
                       __shfl_up_sync(ALL_LANES, a.im, by, lanes)};
    if (threadIdx.x % lanes >= by) {
        h = multiply_add(a, s, h);
        a = a * t;
    }
}

template <int lanes, int by = 1, class T> INLINE void scan_lanes(T &a, T &h) {
    if constexpr (by < lanes) {
        scan_round<lanes, by>(a, h);
        scan_lanes<lanes, 2 * by>(a, h);
    }
}

template <int lanes> INLINE float shuffle_down(float x, int by) {
    return __shfl_down_sync(ALL_LANES, x, by, lanes);
}

template <int lanes> INLINE complex shuffle_down(complex x, int by) {
    return {shuffle_down<lanes>(x.re, by), shuffle_down<lanes>(x.im, by)};
}

/* The sum over the group, the same bits in each of its lanes. */
template <int lanes> INLINE float sum_lanes(float x) {
#pragma unroll
    for (int i = 1; i < lanes; i *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, i, lanes);
    return x;
}

#endif
