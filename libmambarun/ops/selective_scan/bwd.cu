/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cu - backward selective scan. One template; a row of instances.def chooses
 *     IN       f32 or half (f16 or bf16, as u says): type of u, delta, z, their
 *              gradients, variable B and C, and of out and dout unless those are fp32
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
#include "turns.cuh"

constexpr int PAIR = 2 * STEPS * PARTS;     /* numbers of dB and dC in a lane */
constexpr int KEPT = PAIR * LANES / 32;     /* of them after the sum over teams */
constexpr int QUADS = 2 * TILE * PARTS / 4; /* float4 of dB and dC of a state's tile */
static_assert(KEPT % 4 == 0, "lanes store quads");

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

/* As scan_round and lane_before of device.cuh, with `after` for `before`. `reach` is
 * the shuffles' last operand: what lies to the right of a team's last lane with a
 * position is not there, be it 0, since a product of decays may be infinite. */
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

/* The state that comes in to this lane's steps, h = a h + b, if `first` comes in to the
 * team's; leaves in h what it hands on. */
INLINE value take_turn_right(const value (&a)[STEPS], const value (&b)[STEPS],
                             value first, value &h, int lane) {
    value in = first;
    h = first;
#pragma unroll 1
    for (int k = 0; k < LANES; k++) {
        const value before = lane_before<LANES>(h, first);
        if (lane != k)
            continue;
        h = in = before;
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            h = multiply_add(a[i], h, b[i]);
    }
    return in;
}

/* As take_turn_right, to the left: g = v + conj(a of the next step) g; leaves in `left`
 * what the lane hands on. */
INLINE value take_turn_left(const value (&a)[STEPS], const value (&v)[STEPS],
                            value last, value &left, int reach, int lane) {
    value in = zero_value();
    left = in;
#pragma unroll 1
    for (int k = LANES - 1; k >= 0; k--) {
        const value after = lane_after(left, last, reach);
        if (lane != k)
            continue;
        in = after;
        value g = v[STEPS - 1] + in;
#pragma unroll
        for (int i = STEPS - 2; i >= 0; i--)
            g = multiply_add(conjugate(a[i + 1]), g, v[i]);
        left = conjugate(a[0]) * g;
    }
    return in;
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
    value *adjoint, *dA; /* behind dA, for all states, those of constant B and C */
    bool has_edge;       /* or it is zero */
};

INLINE value read_constant(const mbr_tensor &t, int64_t d, int n) {
    return static_cast<const value *>(t.data)[d * t.stride[0] + n * t.stride[1]];
}

/* A lane's values of state n of variable B or C, else `constant`. */
INLINE void take_or_fill(value (&v)[STEPS], const state_tiles &tile, int n,
                         bool variable, value constant, int odd, bool is_f16,
                         int lane) {
    if (variable) {
        take_any_values(v, tile, n, odd & 1, is_f16, lane);
        return;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = constant;
}

/* x, for a rare branch: else the compiler does what stands there beforehand, and
 * replaces the branch by selections that always cost. */
INLINE int rarely(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/* What is read from memory for a state, one state ahead. */
struct cursor {
    value A, edge;
    const value *from; /* of A */
};

INLINE void read_cursor(cursor &next, const channel &c, int n) {
    next.A = *next.from;
    next.edge = c.has_edge ? c.edge[n] : zero_value();
}

/* How B and C come if not both are variable, of one type and begin at words. */
struct coefficients {
    bool variable_B, variable_C, is_f16;
    int odd_B, odd_C;             /* whether the first row is odd */
    int alternate_B, alternate_C; /* 1: every other one is, 0: all */
};

/* `count` states from n on over a tile; B, C: their tiles; partial: where this lane's
 * quads go. Plain B and C are variable, of type T and not odd, and there is no constant
 * factor. */
template <class T, bool plain>
INLINE void reverse(steps &s, const mbr_selective_scan_bwd_params &p, const channel &c,
                    cursor &ahead, int n, const state_tiles &B, const state_tiles &C,
                    const coefficients &of, int count, bool exists, bool first,
                    float4 *partial, const place &at) {
    const float scale = PARTS; /* of dy */
    const int states = (int)p.A.shape[1], lane = at.lane;
    const int reach = reach_of<LANES>((at.left - 1) / STEPS);
    const bool whole = at.left == TILE;
    const auto is_real = [&](int i) { return at.first + i < at.left; };
#pragma unroll 1
    for (int k = 0; k < count; k++, n++) {
        const value A = ahead.A, edge = ahead.edge, rate = rate_of(A);
        if (n + 1 < states) {
            ahead.from += p.A.stride[1];
            read_cursor(ahead, c, n + 1);
        }
        value Bn[STEPS], Cn[STEPS], factor = one_value();
        if constexpr (plain) {
            take_values<T>(Bn, B, k, lane);
            take_values<T>(Cn, C, k, lane);
        } else {
            value constant_C = one_value();
            if (!of.variable_B)
                factor = read_constant(p.B, c.d, n);
            if (!of.variable_C)
                constant_C = read_constant(p.C, c.d, n);
            take_or_fill(Bn, B, k, of.variable_B, one_value(),
                         of.odd_B ^ (of.alternate_B & n), of.is_f16, lane);
            take_or_fill(Cn, C, k, of.variable_C, constant_C,
                         of.odd_C ^ (of.alternate_C & n), of.is_f16, lane);
        }

        value a[STEPS], b[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            a[i] = decay(s.dt[i], rate);
        if (!whole && !is_finite(A)) { /* 0 times A is not 0 then */
            const int left = rarely(at.left - at.first);
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                a[i] = i < left ? a[i] : one_value();
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
            v[i] = (scale * s.dy[i]) * conjugate(plain ? Cn[i] : factor * Cn[i]);
            if (!plain && !is_real(i)) /* a constant factor may be infinite there too */
                v[i] = zero_value();
            g = i == STEPS - 1 ? v[i] : multiply_add(conjugate(a[i + 1]), g, v[i]);
            if (i == STEPS - 1 && lane == LANES - 1)
                g = g + edge;
        }
        g = conjugate(a[0]) * g;
        /* A tile that is not whole is the last, with no adjoint on its right. */
        const value after = whole ? edge : zero_value();
        value product = decay(s.sum, rate), back = conjugate(product), left;
        if (must_take_turns(product)) {
            h = take_turn_right(a, b, edge, g, lane);
            g = take_turn_left(a, v, after, left, reach, lane);
        } else {
            scan_right<LANES>(product, h);
            scan_left<LANES>(back, g, reach);
            left = g;
            h = lane_before<LANES>(h, edge);
            g = lane_after(g, after, reach);
        }
        if (lane == 0 && exists)
            c.adjoint[n] = left;
        if (at.first >= at.left) /* its positions do not exist, h may be infinite */
            h = zero_value();

        float pair[PAIR];
        value dA = zero_value(), dB = zero_value(),
              dC = zero_value(); /* of constants */
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const value carry = a[i] * h;
            h = carry + b[i];
            b[i] = carry;
            value dK = (scale * s.dy[i]) * conjugate(h);
            if (!plain) {
                dK = is_real(i) ? dK : zero_value();
                dB = multiply_add(dK, conjugate(Cn[i]), dB);
                dK = dK * conjugate(factor);
                dC = dC + dK;
            }
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                pair[(STEPS + i) * PARTS + part] = part_of(dK, part);
        }
        if (!whole) { /* nothing was carried to where there is no position */
            const int left = rarely(at.left - at.first);
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                b[i] = i < left ? b[i] : zero_value();
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            g = i == STEPS - 1 ? v[i] + g : multiply_add(conjugate(a[i + 1]), g, v[i]);
            const value q = g * conjugate(b[i]), dB_t = s.du[i] * g; /* g: dh */
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                pair[i * PARTS + part] = part_of(dB_t, part);
            s.s[i] = add_real(s.s[i], g, Bn[i]);
            s.slope[i] = add_real(s.slope[i], q, A);
            dA = multiply_add(s.dt[i], q, dA);
        }
        dA = sum_lanes<LANES>(dA);
        if (!plain) {
            dB = sum_lanes<LANES>(dB);
            dC = sum_lanes<LANES>(dC);
        }
        if (lane == 0 && exists) {
            add_or_store(c.dA + n, dA, first);
            if (!plain) {
                add_or_store(c.dA + states + n, dB, first);
                add_or_store(c.dA + 2 * states + n, dC, first);
            }
        }
        if (!plain && !of.variable_B && !of.variable_C)
            continue;
        if (!exists) { /* 0 times an infinite B or C is not 0 */
            const int zero = rarely(0);
#pragma unroll
            for (int i = 0; i < PAIR; i++)
                pair[i] = __int_as_float(zero);
        }
        sum_teams(pair);
#pragma unroll
        for (int i = 0; i < KEPT; i += 4)
            partial[i / 4 * 32] =
                make_float4(pair[i], pair[i + 1], pair[i + 2], pair[i + 3]);
        partial += QUADS;
    }
}

/* ---- a tile -------------------------------------------------------------------------
 */

INLINE float read_scalar(const mbr_tensor &t, int64_t i) {
    return t.data ? static_cast<const float *>(t.data)[i * t.stride[0]] : 0.0f;
}

/* A lane's run of a row of fp32 with any stride, without having been fetched; 0 where
 * there is nothing. */
INLINE void load_floats(float (&v)[STEPS], const float *row, int64_t stride,
                        const place &at, exchange &team) {
    float *words = reinterpret_cast<float *>(team.piece);
    const float *from = row + (at.start + at.lane) * stride;
    __syncwarp();
#pragma unroll 4
    for (int i = at.lane; i < TILE; i += LANES, from += LANES * stride)
        words[i] = i < at.left ? *from : 0.0f;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = words[at.first + i];
}

/* The teams' channels. In shared memory, since they are looked at only once per tile.
 */
struct teams_of_block {
    void *row[BACK_ROWS][TEAMS];
    float D[TEAMS], bias[TEAMS];
};

/* What a lane needs to move rows. */
struct mover {
    const scan_backward &f;
    const teams_of_block &own;
    const team_runs *runs; /* BACK_FETCHED, and behind them the other tile's of u */
    exchange &team;
    place at;
    int tile;
    bool exists, is_f16;

    INLINE bool is_full(int which) const {
        return !HALF || f.full >> which & 1;
    }
    INLINE void *row(int which) const {
        return own.row[which][threadIdx.x / LANES];
    }
    INLINE bool is_odd_row(int which) const {
        return f.rows[which].how == IN_WORDS &&
               is_odd(static_cast<const IN *>(row(which)));
    }
    INLINE void take(float (&v)[STEPS], int which) const {
        const int slot = which == BACK_U && tile % 2 ? BACK_FETCHED : which;
        if (HALF && is_full(which))
            load_floats(v, static_cast<const float *>(row(which)), f.rows[which].time,
                        at, team);
        else
            take_run(v, runs[slot], is_odd_row(which), is_f16, at.lane);
    }
    INLINE void store(const float (&v)[STEPS], int which) const {
        const scan_rows &r = f.rows[which];
        const int left = exists ? at.left : 0;
        if (is_full(which))
            store_floats(v, static_cast<float *>(row(which)), r.time, at, left,
                         (int)r.how, team);
        else
            store_halves(v, static_cast<uint16_t *>(row(which)), r.time, at, left,
                         (int)r.how, is_f16, team);
    }
};

/* dy, and with a gate dz and out_z. These may lie in the memory of z, dout or out:
 * everything is read before anything is written. */
INLINE void take_dy(steps &s, const mover &m) {
    m.take(s.dy, BACK_DOUT);
    if (m.f.rows[BACK_Z].data == nullptr)
        return;
    float z[STEPS], out[STEPS];
    m.take(z, BACK_Z);
    m.take(out, BACK_OUT);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        const float gate = sigmoid(z[i]), silu = z[i] * gate;
        z[i] = s.dy[i] * out[i] * (gate * fmaf(z[i], 1.0f - gate, 1.0f));
        out[i] *= silu;
        s.dy[i] *= silu;
    }
    __syncwarp();
#pragma unroll 1
    for (int which = BACK_DZ; which <= BACK_OUT_Z; which++) {
        if (m.f.rows[which].data != nullptr)
            m.store(z, which);
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            z[i] = out[i];
    }
}

/* A tile's steps before its states; those that do not exist are all zero. */
INLINE void take_steps(steps &s, const mover &m) {
    const float bias = m.own.bias[threadIdx.x / LANES];
    m.take(s.dt, BACK_DELTA);
    m.take(s.du, BACK_U);
    if (m.f.p.delta_softplus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] = softplus(s.dt[i] + bias);
    } else {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] += bias;
    }
    take_dy(s, m);
    if (m.at.left < TILE || !m.exists) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const bool real = m.exists && m.at.first + i < m.at.left;
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
INLINE void finish(steps &s, const mover &m, float &dD, float &dbias) {
    const float D = m.own.D[threadIdx.x / LANES];
    float u[STEPS];
    m.take(u, BACK_U);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        dD = fmaf(s.dy[i], u[i], dD);
        s.slope[i] = fmaf(s.s[i], u[i], s.slope[i]);
        s.s[i] = fmaf(s.s[i], s.dt[i], D * s.dy[i]);
    }
    if (m.f.p.delta_softplus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.slope[i] *= softplus_slope(s.dt[i]);
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        dbias += s.slope[i];
#pragma unroll 1
    for (int which = BACK_DU; which <= BACK_DDELTA; which++) {
        m.store(s.s, which);
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.s[i] = s.slope[i];
    }
}

/* Sums the warps' parts of `count` states and writes the block's, or adds them to those
 * of the blocks that share the slice. */
INLINE void add_partial(float4 *to, const float4 *from, int count, bool shared) {
    const int warps = blockDim.x / 32;
#pragma unroll 1
    for (int i = threadIdx.x; i < count * QUADS; i += blockDim.x) {
        float4 sum = from[i];
#pragma unroll
        for (int w = 1; w < THREADS / 32; w++) {
            if (w >= warps)
                break;
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
    __shared__ state_tiles B_tiles[2], C_tiles[2];
    __shared__ team_runs runs[BACK_FETCHED + 1];
    __shared__ exchange exchanges[TEAMS];
    __shared__ teams_of_block own;
    __shared__ float4 partials[THREADS / 32 * STATES * QUADS];
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int states = (int)p.A.shape[1], tiles = (int)f.tiles;
    const int last_stage = (states - 1) / STATES * STATES;
    const int64_t length = p.u.shape[2];
    const bool is_f16 = p.u.dtype_code == MBR_FLOAT;
    float4 *own_partial =
        partials + threadIdx.x / 32 * (STATES * QUADS) + threadIdx.x % 32;

    const int64_t block = f.first_block + blockIdx.x;
    const int64_t of_group = block / f.blocks_per_group;
    const int64_t in_group = block - of_group * f.blocks_per_group;
    const int64_t b = of_group / f.groups, g = of_group - b * f.groups;
    const int64_t at_channel = in_group * (blockDim.x / LANES) + team;
    /* A team without a channel reads the group's last one as zeros, stores nothing. */
    const bool exists = at_channel < f.width;
    const int64_t d = g * f.width + (exists ? at_channel : f.width - 1);
    const int64_t row = b * p.u.shape[1] + d, row_of_delta = d / f.repeat;
#pragma unroll 1
    for (int i = lane; i < BACK_ROWS; i += LANES) {
        const int64_t n = i == BACK_B || i == BACK_C ? g
                          : i == BACK_DELTA || (i == BACK_DDELTA && f.repeat == 1)
                              ? row_of_delta
                              : d;
        own.row[i][team] = f.rows[i].data + b * f.rows[i].batch + n * f.rows[i].channel;
    }
    own.D[team] = read_scalar(p.D, d);
    own.bias[team] = read_scalar(p.delta_bias, row_of_delta);

    float *sums = f.sums + row * (SUMS_VALUES + 3 * PARTS * states);
    float4 *partial = reinterpret_cast<float4 *>(f.partial) +
                      ((in_group % f.slices * p.u.shape[0] + b) * f.groups + g) *
                          tiles * states * QUADS;
    float dD = 0.0f, dbias = 0.0f;
    channel c;
    c.d = d;
    c.A = static_cast<const value *>(p.A.data) + d * p.A.stride[0];
    c.adjoint = reinterpret_cast<value *>(f.adjoint) + row * states;
    c.dA = reinterpret_cast<value *>(sums + SUMS_VALUES);

    const auto place_at = [&](int tile) { return place_of(tile, length, lane); };
    const auto pointer = [&](int which) {
        return static_cast<const IN *>(own.row[which][team]);
    };
    const auto is_odd_row = [&](int which) {
        return f.rows[which].how == IN_WORDS && is_odd(pointer(which));
    };

    int buffer = 0;
    int tile = tiles;     /* a pass before the last tile begins to fetch it */
    asm("" : "+r"(tile)); /* else that pass gets code of its own */
#pragma unroll 1
    for (; tile >= 0; tile--) {
        const bool is_tile = tile < tiles, first = tile == tiles - 1;
        const mover m = {f,    own,    runs,  exchanges[team], place_at(tile),
                         tile, exists, is_f16};
        steps s;
        cursor ahead;
        if (is_tile) {
            c.edge = lane == 0 ? reinterpret_cast<const value *>(f.entry) +
                                     (row * tiles + tile) * states
                               : c.adjoint;
            c.has_edge = exists && (lane == 0 ? tile > 0 : lane == LANES - 1 && !first);
            ahead.from = c.A;
            read_cursor(ahead, c, 0);
        }
#pragma unroll 1
        for (int n = is_tile ? 0 : last_stage; n < states; n += STATES) {
            const int next = n == last_stage ? tile - 1 : tile;
            copies_wait();
            __syncthreads(); /* this stage is there, and all is free of the last */
            if (is_tile && n == 0) {
                take_steps(s, m);
                __syncwarp(); /* a team's lanes copy for each other */
            }
            const state_tiles &B = B_tiles[buffer], &C = C_tiles[buffer];
            buffer ^= 1;
            if (next >= 0) {
                const int from = next == tile ? n + STATES : 0;
                const place at = place_at(next);
#pragma unroll 1
                for (int which = BACK_B; which <= BACK_C; which++) {
                    const scan_rows &r = f.rows[which];
                    if (r.data != nullptr)
                        fetch_tiles(which == BACK_B ? B_tiles[buffer] : C_tiles[buffer],
                                    pointer(which) + from * r.state +
                                        at.start * PARTS * r.time,
                                    r.state, r.time, min(STATES, states - from), at,
                                    (int)r.how);
                }
            }
            if ((n == 0 || !is_tile) && tile > 0) {
                const place at = place_at(tile - 1);
#pragma unroll 1
                for (int which = 0; which < BACK_FETCHED; which++) {
                    const scan_rows &r = f.rows[which];
                    const int slot =
                        which == BACK_U && (tile - 1) % 2 ? BACK_FETCHED : which;
                    if (r.data != nullptr && !(HALF && m.is_full(which)))
                        fetch_run(runs[slot], pointer(which), r.time, at, (int)r.how);
                }
            }
            if (!is_tile)
                break;
            const int count = min(STATES, states - n);
            if (f.plain && !IS_COMPLEX) {
                if constexpr (!HALF)
                    reverse<f32, true>(s, p, c, ahead, n, B, C, {}, count, exists,
                                       first, own_partial, m.at);
                else if (is_f16)
                    reverse<f16, true>(s, p, c, ahead, n, B, C, {}, count, exists,
                                       first, own_partial, m.at);
                else
                    reverse<bf16, true>(s, p, c, ahead, n, B, C, {}, count, exists,
                                        first, own_partial, m.at);
            } else {
                const coefficients of = {f.rows[BACK_B].data != nullptr,
                                         f.rows[BACK_C].data != nullptr,
                                         is_f16,
                                         is_odd_row(BACK_B),
                                         is_odd_row(BACK_C),
                                         alternates(f.rows[BACK_B]),
                                         alternates(f.rows[BACK_C])};
                reverse<IN, false>(s, p, c, ahead, n, B, C, of, count, exists, first,
                                   own_partial, m.at);
            }
            if (f.partial != nullptr) {
                __syncthreads();
                add_partial(partial + ((int64_t)tile * states + n) * QUADS, partials,
                            count, f.atomic);
            }
        }
        if (is_tile)
            finish(s, m, dD, dbias);
    }
    dD = sum_lanes<LANES>(dD);
    dbias = sum_lanes<LANES>(dbias);
    if (lane == 0 && exists) {
        sums[SUMS_D] = dD;
        sums[SUMS_BIAS] = dbias;
    }
}
