/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cu - backward selective scan. One template; a row of instances.def chooses
 *     IN       type of u, delta, z, their gradients, variable B and C, and of out and
 *              dout unless those are fp32; half: f16 or bf16, as u says
 *     LANES    lanes that share a channel      STEPS   positions in each of them
 *     STATES   states whose B, C are staged, and whose dB, dC are summed, at once
 *     BLOCKS   blocks per multiprocessor that registers must suffice for, from sm_80
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
 * was left by bwd_sweep.cu. dB and dC are added up over the teams of a warp and over
 * warps by way of shared memory, over blocks by bwd_sum.cu; always in the same order,
 * unless blocks have to share a slice.
 */
#include "bwd_steps.cuh"
#include "turns.cuh"

constexpr int PAIR = 2 * STEPS * PARTS;     /* numbers of dB and dC in a lane */
constexpr int KEPT = PAIR * LANES / 32;     /* of them after the sum over teams */
constexpr int QUADS = 2 * TILE * PARTS / 4; /* float4 of dB and dC of a state's tile */
static_assert(KEPT % 4 == 0, "lanes store quads");
static_assert(STATES <= LANES, "a lane has one state of a stage");

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

/* Through what the lanes of a warp hand each other numbers: rows that move, or a
 * state's dB and dC, by quads of a lane's. */
union warp_exchange {
    exchange team[32 / LANES];
    float4 pair[PAIR / 4][32];
};

/* A lane's numbers, quads of which lie 32 apart, each beside its neighbours'. */
INLINE void give(float4 *to, const value (&v)[STEPS]) {
    const auto part = [&](int i) { return part_of(v[i / PARTS], i % PARTS); };
#pragma unroll
    for (int i = 0; i < STEPS * PARTS; i += 4)
        to[i / 4 * 32] = make_float4(part(i), part(i + 1), part(i + 2), part(i + 3));
}

/* Sums over the teams of a warp what its lanes gave; each lane has KEPT numbers of the
 * sums. bwd_sum.cu knows which. */
INLINE void sum_teams(float4 *to, const warp_exchange &warp) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < KEPT; i += 4) {
        const float4 *from = &warp.pair[(lane / LANES * KEPT + i) / 4][lane % LANES];
        float4 sum = from[0];
#pragma unroll
        for (int team = 1; team < 32 / LANES; team++)
            add(sum, from[team * LANES]);
        to[i / 4 * 32] = sum;
    }
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

/* A lane's values of state n of variable B or C, else `constant`. */
INLINE void take_or_fill(value (&v)[STEPS], const state_tiles &tile, int n,
                         bool variable, value constant, bool odd, bool in_f16,
                         int lane) {
    if (variable) {
        take_any_values(v, tile, n, odd, in_f16, lane);
        return;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = constant;
}

/* A team's sums of a tile by state, as they are kept in scan_backward.sums. */
struct state_sums {
    value of[STATES][TEAMS][SUMS_BY_STATE];
};

/* What is read from memory for some states, a stage ahead: lane k has state k's. */
struct edges {
    value A, left, right; /* the state before the tile; what comes from behind it */
};

template <int lanes> INLINE float from_lane(float x, int k) {
    return __shfl_sync(ALL_LANES, x, k, lanes);
}

template <int lanes> INLINE complex from_lane(complex x, int k) {
    return {from_lane<lanes>(x.re, k), from_lane<lanes>(x.im, k)};
}

/* How B and C come. */
struct coefficients {
    const value *constant_B, *constant_C; /* by state; null: it is variable */
    int odd; /* bits: row 0 of B, of C begins inside a word; unlike it, row 1 does */

    INLINE bool is_odd_B(int n) const {
        return (odd ^ (odd >> 2 & n)) & 1;
    }
    INLINE bool is_odd_C(int n) const {
        return (odd >> 1 ^ (odd >> 3 & n)) & 1;
    }
};

/* The tiles of some states. */
struct stage {
    state_tiles B, C;
};

/* `count` states from n on over a tile; partial: where this lane's quads go.
 * variable: B and C both are. */
template <bool variable>
INLINE void reverse(steps &s, const mbr_selective_scan_bwd_params &p,
                    const edges &of_lane, int n, const stage &here,
                    const coefficients &of, int count, bool exists, state_sums &sums,
                    warp_exchange &warp, float4 *partial, const place &at) {
    const float scale = PARTS; /* of dy */
    const int lane = at.lane;
    const int reach = reach_of<LANES>((at.left - 1) / STEPS);
    const bool whole = at.left == TILE;
    const auto is_real = [&](int i) { return at.first + i < at.left; };
#pragma unroll 1
    for (int k = 0; k < count; k++, n++) {
        const value A = from_lane<LANES>(of_lane.A, k), rate = rate_of(A);
        const value from_left = from_lane<LANES>(of_lane.left, k);
        const value from_right = from_lane<LANES>(of_lane.right, k);
        value Bn[STEPS], Cn[STEPS], factor = one_value();
        if constexpr (variable) {
            run<IN, STEPS * PARTS> B = words_of<IN>(here.B, k, lane),
                                   C = words_of<IN>(here.C, k, lane);
            if (HALF && of.odd) {
                if (of.is_odd_B(n))
                    shift_state(B, here.B, k, lane);
                if (of.is_odd_C(n))
                    shift_state(C, here.C, k, lane);
            }
            take_words(Bn, B, is_f16(p));
            take_words(Cn, C, is_f16(p));
        } else {
            value constant_C = one_value();
            if (of.constant_B)
                factor = of.constant_B[n * p.B.stride[1]];
            if (of.constant_C)
                constant_C = of.constant_C[n * p.C.stride[1]];
            take_or_fill(Bn, here.B, k, !of.constant_B, one_value(), of.is_odd_B(n),
                         is_f16(p), lane);
            take_or_fill(Cn, here.C, k, !of.constant_C, constant_C, of.is_odd_C(n),
                         is_f16(p), lane);
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
                h = multiply_add(a[0], from_left, h);
        }
        value v[STEPS]; /* dh without what comes from the right */
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            v[i] = (scale * s.dy[i]) * conjugate(variable ? Cn[i] : factor * Cn[i]);
            if (!variable &&
                !is_real(i)) /* a constant factor may be infinite there too */
                v[i] = zero_value();
            g = i == STEPS - 1 ? v[i] : multiply_add(conjugate(a[i + 1]), g, v[i]);
            if (i == STEPS - 1 && lane == LANES - 1)
                g = g + from_right;
        }
        g = conjugate(a[0]) * g;
        value product = decay(s.sum, rate), back = conjugate(product), left;
        if (must_take_turns(product)) {
            h = take_turn_right(a, b, from_left, g, lane);
            g = take_turn_left(a, v, from_right, left, reach, lane);
        } else {
            scan_right<LANES>(product, h);
            scan_left<LANES>(back, g, reach);
            left = g;
            h = lane_before<LANES>(h, from_left);
            g = lane_after(g, from_right, reach);
        }
        if (at.first >= at.left) /* its positions do not exist, h may be infinite */
            h = zero_value();

        /* dB and dC go where they are summed over teams, or over warps at once. */
        float4 *pair = LANES < 32 ? &warp.pair[0][threadIdx.x % 32] : partial;
        value each[STEPS]; /* dC, then dB */
        value dA = zero_value(), dB = zero_value(),
              dC = zero_value(); /* of constants */
        __syncwarp();
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const value carry = a[i] * h;
            h = carry + b[i];
            b[i] = carry;
            value dK = (scale * s.dy[i]) * conjugate(h);
            if (!variable) {
                dK = is_real(i) ? dK : zero_value();
                dB = multiply_add(dK, conjugate(Cn[i]), dB);
                dK = dK * conjugate(factor);
                dC = dC + dK;
            }
            each[i] = dK;
        }
        give(pair + STEPS * PARTS / 4 * 32, each);
        if (!whole) { /* nothing was carried to where there is no position */
            const int left = rarely(at.left - at.first);
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                b[i] = i < left ? b[i] : zero_value();
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            g = i == STEPS - 1 ? v[i] + g : multiply_add(conjugate(a[i + 1]), g, v[i]);
            const value q = g * conjugate(b[i]); /* g: dh */
            each[i] = s.du[i] * g;
            s.s[i] = add_real(s.s[i], g, Bn[i]);
            s.slope[i] = add_real(s.slope[i], q, A);
            dA = multiply_add(s.dt[i], q, dA);
        }
        give(pair, each);
        if (!exists) { /* 0 times an infinite B or C is not 0 */
#pragma unroll 1
            for (int i = 0; i < PAIR / 4; i++)
                pair[i * 32] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        __syncwarp();
        if (LANES < 32)
            sum_teams(partial, warp);
        dA = sum_lanes<LANES>(dA);
        if (!variable) {
            dB = sum_lanes<LANES>(dB);
            dC = sum_lanes<LANES>(dC);
        }
        if (lane == 0) {
            value(&of_state)[SUMS_BY_STATE] = sums.of[k][threadIdx.x / LANES];
            of_state[0] = dA;
            if (!variable) {
                of_state[1] = dB;
                of_state[2] = dC;
            }
            of_state[3] = left;
        }
        partial += QUADS;
    }
}

/* Adds a team's sums of `count` states to those of the tiles before, and keeps what
 * goes to the left for the next one. */
INLINE void keep_sums(value *to, int states, const state_sums &sums, int count,
                      bool variable, bool first, int lane) {
    __syncwarp();
#pragma unroll 1
    for (int k = lane; k < count; k += LANES) {
        const value(&from)[SUMS_BY_STATE] = sums.of[k][threadIdx.x / LANES];
        add_or_store(to + k, from[0], first);
        if (!variable) {
            add_or_store(to + states + k, from[1], first);
            add_or_store(to + 2 * states + k, from[2], first);
        }
        to[3 * states + k] = from[3];
    }
}

/* ---- a tile -------------------------------------------------------------------------
 */

struct teams_of_block : teams {
    const value *A[TEAMS], *entry[TEAMS]; /* entry: of tile 0 */
    value *sums[TEAMS];                   /* scan_backward.sums, by state */
};

/* Of states from n on, for a tile, after keep_sums() of the one behind it. */
INLINE edges read_edges(const scan_backward &f, const teams_of_block &own, int tile,
                        int n, bool exists, int lane) {
    const int states = (int)f.p.A.shape[1], team = threadIdx.x / LANES, k = n + lane;
    edges e = {zero_value(), zero_value(), zero_value()};
    __syncwarp();
    if (lane >= STATES || k >= states)
        return e;
    e.A = own.A[team][k * f.p.A.stride[1]];
    if (exists && tile > 0)
        e.left = own.entry[team][(int64_t)tile * states + k];
    if (exists && tile + 1 < f.tiles)
        e.right = own.sums[team][3 * states + k];
    return e;
}

/* Begins to fetch the tiles of states from n on. */
INLINE void fetch_stage(stage &to, const scan_backward &f, const teams_of_block &own,
                        int n, const place &at) {
    const int count = min(STATES, (int)f.p.A.shape[1] - n);
    const auto first_of = [&](int which) {
        return static_cast<const IN *>(own.row[which][threadIdx.x / LANES]) +
               n * f.rows[which].state + at.start * PARTS * f.rows[which].time;
    };
    if ((int)f.rows[BACK_B].how == IN_PIECES && (int)f.rows[BACK_C].how == IN_PIECES &&
        at.left == TILE && blockDim.x == THREADS) { /* a piece for every thread */
        static_assert(STATES * STATE_PIECES <= THREADS / 2, "half are B's, half C's");
        const int i = threadIdx.x % (THREADS / 2), k = i / STATE_PIECES;
        const int which = BACK_B + threadIdx.x / (THREADS / 2), p = i % STATE_PIECES;
        if (k < count)
            copy_async(&(which == BACK_B ? to.B : to.C).piece[k][piece_at(p)],
                       first_of(which) + k * f.rows[which].state + p * PER_PIECE);
        return;
    }
#pragma unroll 1
    for (int which = BACK_B; which <= BACK_C; which++) {
        const scan_rows &r = f.rows[which];
        if (r.data != nullptr)
            fetch_tiles(which == BACK_B ? to.B : to.C, first_of(which), r.state, r.time,
                        count, at, (int)r.how);
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
            add(sum, from[w * (STATES * QUADS) + i]);
        }
        if (shared)
            add_global(to + i, sum);
        else
            to[i] = sum;
    }
}

/* Before sm_80 shared memory is too little for more. */
constexpr int RESIDENT = __CUDA_ARCH__ >= 800 ? BLOCKS : 2;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ stage stages[2];
    __shared__ team_runs runs[BACK_FETCHED + 1];
    __shared__ warp_exchange exchanges[THREADS / 32];
    __shared__ teams_of_block own;
    __shared__ state_sums sums;
    __shared__ float4 partials[THREADS / 32 * STATES * QUADS];
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int states = (int)p.A.shape[1], tiles = (int)f.tiles;
    const int last_stage = (states - 1) / STATES * STATES;
    const int64_t length = p.u.shape[2];
    warp_exchange &warp = exchanges[threadIdx.x / 32];
    float4 *own_partial =
        partials + threadIdx.x / 32 * (STATES * QUADS) + threadIdx.x % 32;

    const int64_t block = f.first_block + blockIdx.x;
    const int64_t of_group = block / f.blocks_per_group;
    const int64_t in_group = block - of_group * f.blocks_per_group;
    const int64_t b = of_group / f.groups, g = of_group - b * f.groups;
    const int64_t at_channel = in_group * (blockDim.x / LANES) + team;
    /* A team without a channel reads the group's last one as zeros, stores nothing. */
    int is_channel = at_channel < f.width;
    asm("" : "+r"(is_channel)); /* else both sides are kept, to compare them again */
    const bool exists = is_channel;
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
    __syncwarp();
    if (f.rows[BACK_B].data == nullptr)
        own.row[BACK_B][team] = static_cast<value *>(p.B.data) + d * p.B.stride[0];
    if (f.rows[BACK_C].data == nullptr)
        own.row[BACK_C][team] = static_cast<value *>(p.C.data) + d * p.C.stride[0];
    own.D[team] = read_scalar(p.D, d);
    own.bias[team] = read_scalar(p.delta_bias, row_of_delta);
    if (lane < SUMS_VALUES)
        own.sum[lane][team] = {0.0f, 0.0f};

    float4 *partial =
        reinterpret_cast<float4 *>(f.partial) +
        (((in_group % f.slices * p.u.shape[0] + b) * f.groups + g) * tiles + tiles) *
            states * QUADS; /* goes back, too */
    value *sums_of_team = reinterpret_cast<value *>(
        f.sums + row * (SUMS_VALUES + SUMS_BY_STATE * PARTS * states) + SUMS_VALUES);
    own.sums[team] = sums_of_team;
    own.A[team] = static_cast<const value *>(p.A.data) + d * p.A.stride[0];
    own.entry[team] = reinterpret_cast<const value *>(f.entry) + row * tiles * states;

    const auto place_at = [&](int tile) { return place_of(tile, length, lane); };
    const auto pointer = [&](int which) {
        return static_cast<const IN *>(own.row[which][team]);
    };
    const auto is_odd_row = [&](int which) {
        return f.rows[which].how == IN_WORDS && is_odd(pointer(which));
    };
    const bool is_variable =
        f.rows[BACK_B].data != nullptr && f.rows[BACK_C].data != nullptr && !IS_COMPLEX;
    const int odd = is_odd_row(BACK_B) | is_odd_row(BACK_C) << 1 |
                    alternates(f.rows[BACK_B]) << 2 | alternates(f.rows[BACK_C]) << 3;
    const auto constant = [&](int which) {
        return f.rows[which].data == nullptr
                   ? static_cast<const value *>(own.row[which][team])
                   : nullptr;
    };

    edges ahead;
    int buffer = 0;
    int tile = tiles;     /* a pass before the last tile begins to fetch it */
    asm("" : "+r"(tile)); /* else that pass gets code of its own */
#pragma unroll 1
    for (; tile >= 0; tile--) {
        const bool is_tile = tile < tiles, first = tile == tiles - 1;
        const mover<> m = {
            f, own, runs, warp.team[team % (32 / LANES)], place_at(tile), tile, exists};
        steps s;
        partial -= is_tile ? states * QUADS : 0;
#pragma unroll 1
        for (int n = is_tile ? 0 : last_stage; n < states; n += STATES) {
            const int next = n == last_stage ? tile - 1 : tile;
            copies_wait();
            __syncthreads(); /* this stage is there, and all is free of the last */
            if (is_tile && n == 0) {
                take_steps(s, m);
                __syncwarp(); /* a team's lanes copy for each other */
            }
            const stage &here = stages[buffer];
            buffer ^= 1;
            if (next >= 0)
                fetch_stage(stages[buffer], f, own, next == tile ? n + STATES : 0,
                            place_at(next));
            if ((n == 0 || !is_tile) && tile > 0)
                fetch_rows(runs, f, own, tile - 1, place_at(tile - 1));
            const int count = min(STATES, states - n);
            const coefficients of = {constant(BACK_B), constant(BACK_C), odd};
            if (is_tile && is_variable)
                reverse<true>(s, p, ahead, n, here, of, count, exists, sums, warp,
                              own_partial, m.at);
            else if (is_tile)
                reverse<false>(s, p, ahead, n, here, of, count, exists, sums, warp,
                               own_partial, m.at);
            if (is_tile)
                keep_sums(own.sums[team] + n, states, sums, exists ? count : 0,
                          is_variable, first, lane);
            if (next >= 0)
                ahead = read_edges(f, own, next, next == tile ? n + STATES : 0, exists,
                                   lane);
            if (!is_tile)
                break;
            if (f.partial != nullptr) {
                __syncthreads();
                add_partial(partial + n * QUADS, partials, count, f.atomic);
            }
        }
        if (is_tile)
            finish(s, m);
    }
    if (lane < SUMS_VALUES && exists)
        reinterpret_cast<float *>(own.sums[team])[lane - SUMS_VALUES] =
            own.sum[lane][team].total();
}
