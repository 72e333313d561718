/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cu - backward selective scan. One template; a row of instances.def chooses
 *     IN       f32, f16 or bf16: type of u, delta, z and their gradients
 *     LANES    lanes that share a channel      STEPS   positions in each of them
 *     STATES   states whose B, C are staged, and whose dB, dC are summed, at once
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *     COMPLEX  defined if A is complex
 *
 * With h the state, K what multiplies it in y (C, times a constant B), dy = dout times
 * the gate's silu, and c_t = a_t h_{t-1} = h_t - B_t dt_t u_t:
 *
 *     dh_t = conj(K_t) dy_t + conj(a_{t+1}) dh_{t+1}     dK_t = conj(h_t) dy_t
 *     dB_t = dh_t dt_t u_t     q_t = dh_t conj(c_t)      dA = sum over t of q_t dt_t
 *     du_t = dt_t s_t + D dy_t     ddt_t = u_t s_t + sum over n of Re(q_t conj(A))
 *     s_t = sum over n of Re(dh_t conj(B_t))
 *
 * A complex A doubles dy there, because y is 2 Re of its sum.
 *
 * A team of LANES lanes walks through the time of a channel from right to left in tiles
 * of LANES STEPS positions. Outermost in a tile is n: each lane runs its own steps both
 * ways from zero, two scans over shuffles combine the lanes, and each lane runs its
 * steps again from what it now knows to come in on either side. The state before a tile
 * was left by bwd_sweep.cu. dB and dC are added up over the teams of a warp in
 * registers, over warps in shared memory, over blocks by bwd_sum.cu; always in the same
 * order, unless blocks have to share a slice.
 */
#include "cuda_scan.h"
#include "bwd.cuh"

constexpr int PAIR = 2 * STEPS * PARTS;     /* numbers of dB and dC in a lane */
constexpr int KEPT = PAIR * LANES / 32;     /* of them after the sum over teams */
constexpr int QUADS = 2 * TILE * PARTS / 4; /* float4 of dB and dC of a state's tile */
static_assert(KEPT % 4 == 0, "lanes store quads");

/* Of a tensor whose type is IN or f32. */
union either_runs {
    runs<IN> in;
    runs<f32> full;
};

union either_exchange {
    exchange<IN> in;
    exchange<f32> full;
};

/* A lane's steps of a tile. */
struct steps {
    float dt[STEPS], du[STEPS] /* dt u */, dy[STEPS];
    float s[STEPS], slope[STEPS]; /* see above; slope: sum over n of Re(q conj(A)) */
    float sum;                    /* of dt */
};

/* ---- numbers, real or complex ------------------------------------------------------
 */

INLINE value zero_value() {
#ifdef COMPLEX
    return {0.0f, 0.0f};
#else
    return 0.0f;
#endif
}

INLINE value one_value() {
#ifdef COMPLEX
    return {1.0f, 0.0f};
#else
    return 1.0f;
#endif
}

INLINE float conjugate(float a) {
    return a;
}

INLINE bool is_finite(float a) {
    return fabsf(a) < __int_as_float(0x7f800000);
}

INLINE bool is_finite(complex a) {
    return is_finite(a.re) && is_finite(a.im);
}

INLINE float add_real(float sum, float a, float b) { /* sum + Re(a conj(b)) */
    return fmaf(a, b, sum);
}

INLINE float add_real(float sum, complex a, complex b) {
    return fmaf(a.re, b.re, fmaf(a.im, b.im, sum));
}

INLINE float part_of(float a, int) {
    return a;
}

INLINE float part_of(complex a, int part) {
    return part ? a.im : a.re;
}

template <int lanes> INLINE complex sum_lanes(complex x) {
    return {sum_lanes<lanes>(x.re), sum_lanes<lanes>(x.im)};
}

/* ---- shuffles to the left -----------------------------------------------------------
 */

/* As scan_round and lane_before of device.cuh, with `after` for `before`. `reach` is the
 * shuffles' last operand: what lies to the right of a team's last lane with a position
 * is not there, be it 0, since a product of decays may be infinite. */
template <int lanes> INLINE int reach_of(int last) {
    return (32 - lanes) << 8 | last;
}

template <int lanes, int by>
INLINE void scan_back_round(float &a, float &h, int reach) {
    asm("{.reg .pred p;\n\t.reg .f32 s, t;\n\t"
        "shfl.sync.down.b32 s|p, %1, %2, %3, -1;\n\t"
        "shfl.sync.down.b32 t, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %1, %0, s, %1;\n\t"
        "@p mul.rn.f32 %0, %0, t;}"
        : "+f"(a), "+f"(h)
        : "n"(by), "r"(reach));
}

template <int lanes, int by>
INLINE void scan_back_round(complex &a, complex &h, int reach) {
    const complex s = shuffle_down<lanes>(h, by), t = shuffle_down<lanes>(a, by);
    if ((int)threadIdx.x % lanes + by <= reach % lanes) {
        h = multiply_add(a, s, h);
        a = a * t;
    }
}

/* The last round: nobody asks for the products any more. */
template <int lanes> INLINE void scan_back_end(float a, float &h, int reach) {
    asm("{.reg .pred p;\n\t.reg .f32 s;\n\t"
        "shfl.sync.down.b32 s|p, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %0, %1, s, %0;}"
        : "+f"(h)
        : "f"(a), "n"(lanes / 2), "r"(reach));
}

template <int lanes> INLINE void scan_back_end(complex a, complex &h, int reach) {
    scan_back_round<lanes, lanes / 2>(a, h, reach);
}

template <int lanes> INLINE void scan_end(float a, float &h) {
    asm("{.reg .pred p;\n\t.reg .f32 s;\n\t"
        "shfl.sync.up.b32 s|p, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %0, %1, s, %0;}"
        : "+f"(h)
        : "f"(a), "n"(lanes / 2), "n"((32 - lanes) << 8));
}

template <int lanes> INLINE void scan_end(complex a, complex &h) {
    scan_round<lanes, lanes / 2>(a, h);
}

/* Only h is wanted of the scans. */
template <int lanes, int by = 1, class T> INLINE void scan_left(T a, T &h, int reach) {
    if constexpr (2 * by < lanes) {
        scan_back_round<lanes, by>(a, h, reach);
        scan_left<lanes, 2 * by>(a, h, reach);
    } else if constexpr (by < lanes) {
        scan_back_end<lanes>(a, h, reach);
    }
}

template <int lanes, int by = 1, class T> INLINE void scan_right(T a, T &h) {
    if constexpr (2 * by < lanes) {
        scan_round<lanes, by>(a, h);
        scan_right<lanes, 2 * by>(a, h);
    } else if constexpr (by < lanes) {
        scan_end<lanes>(a, h);
    }
}

INLINE float lane_after(float x, float last, int reach) {
    float after;
    asm("{.reg .pred p;\n\t"
        ".reg .f32 down;\n\t"
        "shfl.sync.down.b32 down|p, %1, 1, %3, -1;\n\t"
        "selp.f32 %0, down, %2, p;}"
        : "=f"(after)
        : "f"(x), "f"(last), "r"(reach));
    return after;
}

INLINE complex lane_after(complex x, complex last, int reach) {
    return {lane_after(x.re, last.re, reach), lane_after(x.im, last.im, reach)};
}

/* Sums over the teams of a warp: each round a lane gives away one half of its numbers
 * and adds what it gets to the other, so that a lane ends with the first KEPT places
 * filled. bwd_sum.cu knows which numbers these are. */
template <int by = 16, int count = PAIR> INLINE void sum_teams(float (&v)[PAIR]) {
    if constexpr (by >= LANES) {
        const bool upper = threadIdx.x & by;
#pragma unroll
        for (int i = 0; i < count / 2; i++) {
            const float given = upper ? v[i] : v[i + count / 2];
            const float kept = upper ? v[i + count / 2] : v[i];
            v[i] = kept + __shfl_xor_sync(ALL_LANES, given, by);
        }
        sum_teams<by / 2, count / 2>(v);
    }
}

INLINE void add_global(float *to, float x) {
    asm volatile("red.global.add.f32 [%0], %1;" ::"l"(to), "f"(x) : "memory");
}

INLINE void add_global(float4 *to, float4 x) {
#if __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ >= 12
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.x),
                 "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
#else
    add_global(&to->x, x.x);
    add_global(&to->y, x.y);
    add_global(&to->z, x.z);
    add_global(&to->w, x.w);
#endif
}

/* A sum over tiles that one lane keeps in memory. */
INLINE void add_or_store(float *to, float x, bool first) {
    if (first)
        *to = x;
    else
        add_global(to, x);
}

INLINE void add_or_store(complex *to, complex x, bool first) {
    add_or_store(&to->re, x.re, first);
    add_or_store(&to->im, x.im, first);
}

/* ---- one state ----------------------------------------------------------------------
 */

/* Where a team has what it keeps by state. */
struct channel {
    int64_t d;
    const value *A,
        *edge;           /* edge: in lane 0 the states before the tile, else adjoints */
    value *adjoint, *dA; /* behind dA, for all states, the gradient of the factor */
    bool has_edge;       /* or it is zero */
};

INLINE value read_constant(const mbr_tensor &t, int64_t d, int n) {
    return static_cast<const value *>(t.data)[d * t.stride[0] + n * t.stride[1]];
}

/* The constant factor of K. */
INLINE value factor_of(const mbr_selective_scan_bwd_params &p, int64_t d, int n) {
    value factor = one_value();
    if (p.B.ndim != 4)
        factor = read_constant(p.B, d, n);
    if (p.C.ndim != 4)
        factor = factor * read_constant(p.C, d, n);
    return factor;
}

/* What is read from memory for a state, one state ahead. */
struct cursor {
    value A, edge;
};

INLINE cursor read_cursor(const channel &c, int64_t A_stride, int n) {
    return {c.A[n * A_stride], c.has_edge ? c.edge[n] : zero_value()};
}

/* `count` states from n on over a tile; B, C: their tiles; partial: of this warp. If
 * both vary there is no constant factor. */
template <bool both_vary>
INLINE void reverse(steps &s, const mbr_selective_scan_bwd_params &p, const channel &c,
                    cursor &ahead, int n, const coefficients<IN> &B,
                    const coefficients<IN> &C, int count, bool exists, bool first,
                    float4 *partial, const place &at) {
    const float scale = PARTS; /* of dy */
    const int states = (int)p.A.shape[1], lane = at.lane;
    const int reach = reach_of<LANES>((at.left - 1) / STEPS);
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
#pragma unroll 1
    for (int k = 0; k < count; k++, n++) {
        const value A = ahead.A, edge = ahead.edge, rate = rate_of(A);
        ahead = read_cursor(c, p.A.stride[1], n + 1 < states ? n + 1 : n);
        value Bn[STEPS], Cn[STEPS], factor = one_value();
        if (both_vary || variable_B) {
            take_values(Bn, B, k, lane);
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                Bn[i] = one_value();
        }
        if (both_vary || variable_C) {
            take_values(Cn, C, k, lane);
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                Cn[i] = one_value();
        }
        if (!both_vary)
            factor = factor_of(p, c.d, n);

        value a[STEPS], b[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            a[i] = decay(s.dt[i], rate);
        if (!at.whole && !is_finite(A)) { /* 0 times A is not 0 then */
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                a[i] = at.first + i < at.left ? a[i] : one_value();
        }
        value h = zero_value(), g = zero_value();
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            b[i] = s.du[i] * Bn[i];
            h = i == 0 ? b[0] : multiply_add(a[i], h, b[i]);
            if (i == 0 && lane == 0)
                h = multiply_add(a[0], edge, h);
        }
        value v[STEPS]; /* dh without what comes from the right */
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            v[i] = (scale * s.dy[i]) * conjugate(both_vary ? Cn[i] : factor * Cn[i]);
            g = i == STEPS - 1 ? v[i] : multiply_add(conjugate(a[i + 1]), g, v[i]);
            if (i == STEPS - 1 && lane == LANES - 1)
                g = g + edge;
        }
        g = conjugate(a[0]) * g;
        value product = decay(s.sum, rate), back = conjugate(product);
        scan_right<LANES>(product, h);
        scan_left<LANES>(back, g, reach);
        h = lane_before<LANES>(h, edge);
        if (at.first >= at.left) /* its positions do not exist, h may be infinite */
            h = zero_value();
        if (lane == 0 && exists)
            c.adjoint[n] = g;
        /* A tile that is not whole is the last, with no adjoint on its right. */
        g = lane_after(g, at.whole ? edge : zero_value(), reach);

        float pair[PAIR];
        value dA = zero_value(), dfactor = zero_value();
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const value carry = a[i] * h;
            h = carry + b[i];
            b[i] = carry;
            value dK = (scale * s.dy[i]) * conjugate(h);
            if (!both_vary) {
                dfactor = multiply_add(dK, conjugate(Cn[i]), dfactor);
                dK = dK * conjugate(factor);
            }
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                pair[(STEPS + i) * PARTS + part] = part_of(dK, part);
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            g = i == STEPS - 1 ? v[i] + g : multiply_add(conjugate(a[i + 1]), g, v[i]);
            const value q = g * conjugate(b[i]), dB = s.du[i] * g; /* g: dh */
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                pair[i * PARTS + part] = part_of(dB, part);
            s.s[i] = add_real(s.s[i], g, Bn[i]);
            s.slope[i] = add_real(s.slope[i], q, A);
            dA = multiply_add(s.dt[i], q, dA);
        }
        dA = sum_lanes<LANES>(dA);
        if (!both_vary)
            dfactor = sum_lanes<LANES>(dfactor);
        if (lane == 0 && exists) {
            add_or_store(c.dA + n, dA, first);
            if (!both_vary)
                add_or_store(c.dA + states + n, dfactor, first);
        }
        if (!both_vary && !variable_B && !variable_C)
            continue;
        sum_teams(pair);
#pragma unroll
        for (int i = 0; i < KEPT; i += 4)
            partial[k * QUADS + i / 4 * 32 + threadIdx.x % 32] =
                make_float4(pair[i], pair[i + 1], pair[i + 2], pair[i + 3]);
    }
}

/* ---- a tile -------------------------------------------------------------------------
 */

INLINE float read_scalar(const mbr_tensor &t, int64_t i, float absent) {
    return t.data ? static_cast<const float *>(t.data)[i * t.stride[0]] : absent;
}

template <class T> INLINE T *row_of(const mbr_tensor &t, int64_t b, int64_t d) {
    return static_cast<T *>(t.data) + b * t.stride[0] + d * t.stride[1];
}

/* What a block keeps of rows in shared memory: the next tile's runs. */
struct stage {
    runs<IN> u[2], delta, z; /* u is asked for again when a tile is finished */
    either_runs dout, out;
};

/* A channel of a batch entry. */
struct rows {
    const IN *u, *delta, *z;
    int64_t b, d;
    bool exists;
    float D, bias;
};

template <class T> INLINE T *row_of(const mbr_tensor &t, const rows &r) {
    return row_of<T>(t, r.b, r.d);
}

INLINE bool is_full(const mbr_tensor &t) {
    return same_type<IN, f32>::value || t.dtype_bits == 32;
}

INLINE void fetch_either(either_runs &to, const mbr_tensor &t, const rows &r,
                         const place &at) {
    if (is_full(t))
        fetch_run(to.full, row_of<f32>(t, r), at);
    else
        fetch_run(to.in, row_of<IN>(t, r), at);
}

/* Asks the second-level cache for this lane's run of a row that is not wide. */
INLINE void prefetch_run(const mbr_tensor &t, const rows &r, int64_t d,
                         const place &at) {
    const int64_t bytes = t.dtype_bits / 8;
    if (at.first < at.left)
        prefetch(static_cast<const char *>(t.data) +
                 (r.b * t.stride[0] + d * t.stride[1] +
                  (at.start + at.first) * t.stride[2]) *
                     bytes);
}

/* Begins to copy a tile's wide rows. */
INLINE void fetch_rows(stage &to, const scan_backward &f, const rows &r,
                       const place &at, int parity) {
    const mbr_selective_scan_bwd_params &p = f.p;
    if (f.wide & WIDE_U)
        fetch_run(to.u[parity], r.u, at);
    else
        prefetch_run(p.u, r, r.d, at);
    if (f.wide & WIDE_DELTA)
        fetch_run(to.delta, r.delta, at);
    else
        prefetch_run(p.delta, r, r.d / f.repeat, at);
    if (f.wide & WIDE_DOUT)
        fetch_either(to.dout, p.dout, r, at);
    else
        prefetch_run(p.dout, r, r.d, at);
    if (!p.z.data)
        return;
    if (f.wide & WIDE_Z)
        fetch_run(to.z, r.z, at);
    else
        prefetch_run(p.z, r, r.d, at);
    if (f.wide & WIDE_OUT)
        fetch_either(to.out, p.out, r, at);
    else
        prefetch_run(p.out, r, r.d, at);
}

INLINE void take_row(float (&v)[STEPS], const runs<IN> &from, const IN *row,
                     int64_t stride, const place &at, bool wide,
                     either_exchange &team) {
    if (wide)
        take_run(v, from);
    else
        load_steps(v, row, stride, at, team.in);
}

INLINE void take_either(float (&v)[STEPS], const either_runs &from, const mbr_tensor &t,
                        const rows &r, const place &at, bool wide,
                        either_exchange &team) {
    if (is_full(t)) {
        if (wide)
            take_run(v, from.full);
        else
            load_steps(v, row_of<f32>(t, r), t.stride[2], at, team.full);
    } else {
        take_row(v, from.in, row_of<IN>(t, r), t.stride[2], at, wide, team);
    }
}

/* A dense row of 16-bit values from an address that is only aligned to one: in words,
 * by lanes that lie side by side, but for the first and the last value. */
template <class T>
INLINE void store_odd_run(const float (&v)[STEPS], T *row, const place &at, int left,
                          exchange<T> &team) {
    const run<T, STEPS> r = pack_run<T>(v);
    uint4 *piece = reinterpret_cast<uint4 *>(team.at);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PIECES<T>; j++)
        piece[at.lane * PIECES<T> + j] = make_uint4(
            r.word[4 * j], r.word[4 * j + 1], r.word[4 * j + 2], r.word[4 * j + 3]);
    __syncwarp();
    T *to = row + at.start;
    const int odd = (reinterpret_cast<uintptr_t>(to) & 2) / 2;
    const uint32_t *words = reinterpret_cast<const uint32_t *>(team.at);
#pragma unroll
    for (int i = at.lane; i < TILE / 2; i += LANES) {
        const int first = 2 * i + odd;
        const uint32_t word =
            __funnelshift_r(words[i], words[min(i + 1, TILE / 2 - 1)], 16 * odd);
        if (first + 1 < left)
            *reinterpret_cast<uint32_t *>(to + first) = word;
        else if (first < left)
            to[first] = T{(uint16_t)word};
    }
    if (odd && at.lane == 0 && left > 0)
        to[0] = team.at[0];
}

INLINE void store_row(const float (&v)[STEPS], const mbr_tensor &t, const rows &r,
                      const place &at, bool wide, either_exchange &team) {
    const int left = r.exists ? at.left : 0;
    if constexpr (sizeof(IN) == 2) {
        if (!wide && t.stride[2] == 1) {
            store_odd_run(v, row_of<IN>(t, r), at, left, team.in);
            return;
        }
    }
    store_steps(v, row_of<IN>(t, r), t.stride[2], at, left, wide, team.in);
}

/* dy, and with a gate dz and out_z. These may lie in the memory of z, dout or out:
 * everything is read before anything is written. */
INLINE void take_dy(steps &s, const stage &from, const scan_backward &f, const rows &r,
                    const place &at, either_exchange &team) {
    const mbr_selective_scan_bwd_params &p = f.p;
    take_either(s.dy, from.dout, p.dout, r, at, f.wide & WIDE_DOUT, team);
    if (!p.z.data)
        return;
    float z[STEPS], out[STEPS];
    take_row(z, from.z, r.z, p.z.stride[2], at, f.wide & WIDE_Z, team);
    take_either(out, from.out, p.out, r, at, f.wide & WIDE_OUT, team);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        const float gate = sigmoid(z[i]), silu = z[i] * gate;
        z[i] = s.dy[i] * out[i] * (gate * fmaf(z[i], 1.0f - gate, 1.0f));
        out[i] *= silu;
        s.dy[i] *= silu;
    }
    __syncwarp();
    store_row(z, p.dz, r, at, f.wide & WIDE_DZ, team);
    if (p.out_z.data)
        store_row(out, p.out_z, r, at, f.wide & WIDE_OUT_Z, team);
}

/* A tile's steps before its states; those that do not exist are all zero. */
INLINE void take_steps(steps &s, const stage &from, const scan_backward &f,
                       const rows &r, const place &at, int parity,
                       either_exchange &team) {
    const mbr_selective_scan_bwd_params &p = f.p;
    take_row(s.dt, from.delta, r.delta, p.delta.stride[2], at, f.wide & WIDE_DELTA,
             team);
    take_row(s.du, from.u[parity], r.u, p.u.stride[2], at, f.wide & WIDE_U, team);
    if (p.delta_softplus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] = softplus(s.dt[i] + r.bias);
    } else {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] += r.bias;
    }
    take_dy(s, from, f, r, at, team);
    if (!at.whole || !r.exists) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const bool real = r.exists && at.first + i < at.left;
            s.dt[i] = real ? s.dt[i] : 0.0f;
            s.du[i] = real ? s.du[i] : 0.0f;
            s.dy[i] = real ? s.dy[i] : 0.0f;
        }
    }
    s.sum = 0.0f;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        s.sum += s.dt[i];
        s.du[i] *= s.dt[i];
        s.s[i] = s.slope[i] = 0.0f;
    }
}

/* du and ddelta of a tile from what its states left. */
INLINE void finish(steps &s, const stage &from, const scan_backward &f, const rows &r,
                   const place &at, int parity, either_exchange &team, float &dD,
                   float &dbias) {
    const mbr_selective_scan_bwd_params &p = f.p;
    float u[STEPS];
    take_row(u, from.u[parity], r.u, p.u.stride[2], at, f.wide & WIDE_U, team);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        dD = fmaf(s.dy[i], u[i], dD);
        s.slope[i] = fmaf(s.s[i], u[i], s.slope[i]);
        s.s[i] = fmaf(s.s[i], s.dt[i], r.D * s.dy[i]);
    }
    if (p.delta_softplus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.slope[i] *= softplus_slope(s.dt[i]);
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        dbias += s.slope[i];
    store_row(s.s, p.du, r, at, f.wide & WIDE_DU, team);
    if (f.repeat == 1)
        store_row(s.slope, p.ddelta, r, at, f.wide & WIDE_DDELTA, team);
    else
        store_steps(s.slope,
                    reinterpret_cast<f32 *>(f.rows) +
                        (r.b * p.u.shape[1] + r.d) * f.padded,
                    1, at, r.exists ? at.left : 0, true, team.full);
}

/* Sums the warps' parts of `count` states and writes the block's, or adds them to those
 * of the blocks that share the slice. */
INLINE void add_partial(float4 *to, const float4 *from, int count, bool shared) {
    const int warps = blockDim.x / 32;
    for (int i = threadIdx.x; i < count * QUADS; i += blockDim.x) {
        float4 sum = from[i];
#pragma unroll 1
        for (int w = 1; w < warps; w++) {
            const float4 more = from[w * (STATES * QUADS) + i];
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
        }
        if (shared)
            add_global(to + i, sum);
        else
            to[i] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ coefficients<IN> B_tiles[2], C_tiles[2];
    __shared__ stage staged;
    __shared__ either_exchange exchanges[THREADS / LANES];
    __shared__ float4 partials[2][THREADS / 32 * STATES * QUADS];
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int channels = blockDim.x / LANES, states = (int)p.A.shape[1];
    const int64_t length = p.u.shape[2];
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
    const bool any_variable = variable_B || variable_C;
    either_exchange &own = exchanges[team];
    const int warp_partial = threadIdx.x / 32 * (STATES * QUADS);
    int buffer = 0;

    for (int64_t block = blockIdx.x; block < f.blocks; block += gridDim.x) {
        const int64_t of_group = block / f.blocks_per_group;
        const int64_t b = of_group / f.groups, g = of_group % f.groups;
        const int64_t in_group = block % f.blocks_per_group * channels + team;
        /* A team without a channel reads the group's last one as zeros, stores nothing.
         */
        const bool exists = in_group < f.width;
        const int64_t d = g * f.width + (exists ? in_group : f.width - 1);
        const int64_t row = b * p.u.shape[1] + d;
        const int64_t slice = block % f.blocks_per_group % f.slices;
        const rows r = {row_of<IN>(p.u, b, d),
                        row_of<IN>(p.delta, b, d / f.repeat),
                        row_of<IN>(p.z, b, d),
                        b,
                        d,
                        exists,
                        read_scalar(p.D, d, 0.0f),
                        read_scalar(p.delta_bias, d / f.repeat, 0.0f)};
        float *sums = f.sums + row * (SUMS_VALUES + 2 * PARTS * states);
        float4 *partial =
            reinterpret_cast<float4 *>(f.partial) +
            ((slice * p.u.shape[0] + b) * f.groups + g) * f.tiles * states * QUADS;
        float dD = 0.0f, dbias = 0.0f;
        channel c;
        c.d = d;
        c.A = static_cast<const value *>(p.A.data) + d * p.A.stride[0];
        c.adjoint = reinterpret_cast<value *>(f.adjoint) + row * states;
        c.dA = reinterpret_cast<value *>(sums + SUMS_VALUES);

        const auto at_tile = [&](int64_t tile) {
            const int64_t start = tile * TILE;
            const int left = (int)min((int64_t)TILE, length - start);
            return place{start, lane * STEPS, left, lane, left == TILE};
        };
        const auto fetch_states = [&](int64_t tile, int n) {
            const int count = min(STATES, states - n);
            const int64_t start = tile * TILE;
            const int left = (int)min((int64_t)TILE, length - start);
            if (variable_B)
                fetch_values(B_tiles[buffer],
                             row_of<IN>(p.B, b, g) + n * p.B.stride[2] +
                                 start * PARTS * p.B.stride[3],
                             p.B.stride[2], p.B.stride[3], count, left,
                             f.wide & WIDE_B);
            if (variable_C)
                fetch_values(C_tiles[buffer],
                             row_of<IN>(p.C, b, g) + n * p.C.stride[2] +
                                 start * PARTS * p.C.stride[3],
                             p.C.stride[2], p.C.stride[3], count, left,
                             f.wide & WIDE_C);
        };
        /* Of the stage before, which waits for a barrier to be added up. */
        float4 *waiting = nullptr;
        int waiting_count = 0;

        fetch_states(f.tiles - 1, 0);
        fetch_rows(staged, f, r, at_tile(f.tiles - 1), (f.tiles - 1) % 2);
#pragma unroll 1
        for (int64_t tile = f.tiles - 1; tile >= 0; tile--) {
            const place at = at_tile(tile);
            const int parity = tile % 2;
            const bool first = tile == f.tiles - 1;
            steps s;
            c.edge = lane == 0 ? reinterpret_cast<const value *>(f.entry) +
                                     (row * f.tiles + tile) * states
                               : c.adjoint;
            c.has_edge = exists && (lane == 0 ? tile > 0 : lane == LANES - 1 && !first);
            __syncwarp(); /* adjoints come from another lane */
            cursor ahead = read_cursor(c, p.A.stride[1], 0);
            copies_wait();
            take_steps(s, staged, f, r, at, parity, own);

#pragma unroll 1
            for (int n = 0; n < states; n += STATES) {
                const int count = min(STATES, states - n);
                if (n > 0)
                    copies_wait();
                __syncthreads(); /* this stage is there, and all is free of the last */
                const coefficients<IN> &B = B_tiles[buffer], &C = C_tiles[buffer];
                float4 *own_partial = partials[buffer] + warp_partial;
                buffer ^= 1;
                if (n + STATES < states)
                    fetch_states(tile, n + STATES);
                else if (tile > 0)
                    fetch_states(tile - 1, 0);
                if (n == 0 && tile > 0)
                    fetch_rows(staged, f, r, at_tile(tile - 1), parity ^ 1);
                if (waiting)
                    add_partial(waiting, partials[buffer], waiting_count, f.atomic);
                if (variable_B && variable_C)
                    reverse<true>(s, p, c, ahead, n, B, C, count, exists, first,
                                  own_partial, at);
                else
                    reverse<false>(s, p, c, ahead, n, B, C, count, exists, first,
                                   own_partial, at);
                waiting =
                    any_variable ? partial + (tile * states + n) * QUADS : nullptr;
                waiting_count = count;
            }
            finish(s, staged, f, r, at, parity, own, dD, dbias);
        }
        __syncthreads();
        if (waiting)
            add_partial(waiting, partials[buffer ^ 1], waiting_count, f.atomic);
        dD = sum_lanes<LANES>(dD);
        dbias = sum_lanes<LANES>(dbias);
        if (lane == 0 && exists) {
            sums[SUMS_D] = dD;
            sums[SUMS_BIAS] = dbias;
        }
        __syncthreads();
    }
}
