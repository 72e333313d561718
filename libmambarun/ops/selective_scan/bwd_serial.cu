/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_serial.cu - backward selective scan of 16 states with a real A, variable B and
 * C and a delta for every channel: step by step instead of by scans over lanes, which
 * costs least if channels are many. A row of instances.def chooses
 *     IN       type of u, delta, z, their gradients, B and C, and of out and dout
 *              unless those are fp32; half: f16 or bf16, as u says
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *     SWEEP    defined: it is the kernel that leaves the states before every tile
 * and LANES=4 STEPS=8 STATES=16 WARPS=2. The formulas are those of bwd.cu.
 *
 * Four lanes have a channel and walk through its time from right to left in tiles of 32
 * positions. Before and after a tile's states a lane has eight positions next to each
 * other, as elsewhere; in between it has four states of the channel and goes through
 * all positions, whose dt, dt u and dy lie in shared memory: first to the right from
 * the state before the tile, keeping the state before every fourth position; then, four
 * positions at a time from the right, once more forwards and back with the gradients.
 * No decays are multiplied with each other, so growth needs no care.
 *
 * dB and dC are summed over the channels of a warp by shuffles in which a lane gives
 * half of its numbers away. So that it need not choose which, lanes of the upper half
 * of a warp have their states in another order, for which B and C lie in shared memory
 * twice.
 */
#include "bwd_steps.cuh"

constexpr int OWN = 4; /* states of a lane, and steps that it does at once */
constexpr int BLOCKS_OF_TILE = TILE / OWN;
constexpr int QUADS = 2 * TILE / OWN; /* float4 of dB and dC of a state's tile */
static_assert(LANES == 4 && STATES == LANES * OWN && TILE == 32, "as said above");

/* fp32 by channel and position. A team's quads begin four banks after those of the one
 * before. */
struct channel_rows {
    float4 quad[TEAMS][BLOCKS_OF_TILE + 1];
};

/* B or C of a tile: its 16 states, and once more in the order of the upper lanes. */
struct coefficient_rows {
    float at[TILE][2][STATES];
};

struct tile_rows {
    channel_rows dt, du;
    coefficient_rows B;
#ifndef SWEEP
    channel_rows dy, slope; /* s takes the place of du */
    coefficient_rows C;
    /* Before four positions their state, after them their dB and dC; padded, so that
     * the places of a lane lie in different banks. */
    float4 state[BLOCKS_OF_TILE][THREADS + 1];
#endif
};

INLINE void unpack_quad(float (&v)[OWN], float4 q) {
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}

INLINE float4 as_quad(const float (&v)[OWN]) {
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* Where in an upper lane the state is that a lower one has at n. */
INLINE int turned(int n) {
    return n ^ OWN / 2;
}

/* What a lane keeps of its states from tile to tile. */
struct lane_states {
    float A[OWN], rate[OWN];
    float back[OWN]; /* a_{t+1} dh_{t+1} */
    float dA[OWN];
    long_sum total[OWN]; /* of dA */
};

/* Of a thread, in the tile at hand. */
struct reader {
    tile_rows &rows;
    int team;
    const float *B, *C; /* its states of position 0 */

    INLINE void take(float (&v)[OWN], const channel_rows &from, int k) const {
        unpack_quad(v, from.quad[team][k]);
    }
    INLINE void take(float (&v)[OWN], const float *from, int t) const {
        unpack_quad(v, *reinterpret_cast<const float4 *>(from + t * (2 * STATES)));
    }
};

/* Begins to fetch a tile of B or C. */
INLINE void fetch_coefficients(state_tiles &to, const scan_backward &f,
                               const teams &own, int which, const place &at) {
    const scan_rows &r = f.rows[which];
    const IN *from = static_cast<const IN *>(own.row[which][threadIdx.x / LANES]) +
                     at.start * r.time;
    if (f.plain && at.left == TILE) {
#pragma unroll
        for (int i = threadIdx.x; i < STATES * STATE_PIECES; i += THREADS)
            copy_async(&to.piece[i / STATE_PIECES][piece_at(i % STATE_PIECES)],
                       from + i / STATE_PIECES * r.state +
                           i % STATE_PIECES * PER_PIECE);
        return;
    }
    fetch_tiles(to, from, r.state, r.time, STATES, at, (int)r.how);
}

/* B or C of the tile as rows of fp32, by so many threads. */
INLINE void turn_around(coefficient_rows &to, const state_tiles &from, int odd,
                        int alternate, bool in_f16, int threads) {
    const int n = threadIdx.x % STATES, half = threadIdx.x / STATES % 2;
#pragma unroll 1
    for (int run = threadIdx.x % threads / STATES; run < LANES;
         run += threads / STATES) {
        float v[STEPS];
        take_any_values(v, from, n, (odd ^ (alternate & n)) & 1, in_f16, run);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float (&at)[2][STATES] = to.at[run * STEPS + i];
            at[half][half ? turned(n) : n] = v[i];
            at[half ^ 1][half ? n : turned(n)] = v[i];
        }
    }
}

/* The states h over four positions, from OWN k on. */
INLINE void advance(const reader &r, const lane_states &s, float (&h)[OWN], int k) {
    float dt[OWN], du[OWN];
    r.take(dt, r.rows.dt, k);
    r.take(du, r.rows.du, k);
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        float B[OWN];
        r.take(B, r.B, k * OWN + i);
#pragma unroll
        for (int n = 0; n < OWN; n++)
            h[n] = fmaf(decay(dt[i], s.rate[n]), h[n], du[i] * B[n]);
    }
}

/* A lane's eight positions in rows by channel. */
INLINE void put(channel_rows &to, const float (&v)[STEPS], int team, int lane) {
    to.quad[team][2 * lane] = make_float4(v[0], v[1], v[2], v[3]);
    to.quad[team][2 * lane + 1] = make_float4(v[4], v[5], v[6], v[7]);
}

#ifndef SWEEP

constexpr int PAIR = 2 * OWN * OWN; /* numbers of dB and dC of four positions */

/* Where they are: dB or dC of the lane's n-th state, at the i-th position. */
INLINE constexpr int number_of(int n, int is_C, int i) {
    return n / 2 * 16 + is_C * 8 + n % 2 * 4 + i;
}

/* Sums over the eight teams of a warp; a lane ends with four numbers. */
INLINE float4 sum_teams(float (&v)[PAIR]) {
    const bool gives_dB = threadIdx.x & 8, gives_even = threadIdx.x & 4;
#pragma unroll
    for (int i = 0; i < 16; i++) /* of the upper lanes these are other states */
        v[i] += __shfl_xor_sync(ALL_LANES, v[i + 16], 16);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float given = gives_dB ? v[i] : v[i + 8];
        v[i] = (gives_dB ? v[i + 8] : v[i]) + __shfl_xor_sync(ALL_LANES, given, 8);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float given = gives_even ? v[i] : v[i + 4];
        v[i] = (gives_even ? v[i + 4] : v[i]) + __shfl_xor_sync(ALL_LANES, given, 4);
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* Where in the partial sums of a tile (state, dB or dC, positions) those of a lane are.
 */
INLINE int row_of_lane(int lane) {
    const int state = lane % LANES * OWN + lane / 16 * 2 + lane / 4 % 2;
    return state * 2 + lane / 8 % 2;
}

/* Sums over the lanes of a team; each ends with those of the position of its number. */
INLINE void sum_team(float (&s)[OWN], float (&slope)[OWN]) {
#pragma unroll
    for (int by = 2; by > 0; by /= 2) {
        const bool upper = threadIdx.x & by;
#pragma unroll
        for (int i = 0; i < by; i++) {
            const float given_s = upper ? s[i] : s[i + by];
            const float given_slope = upper ? slope[i] : slope[i + by];
            s[i] = (upper ? s[i + by] : s[i]) + __shfl_xor_sync(ALL_LANES, given_s, by);
            slope[i] = (upper ? slope[i + by] : slope[i]) +
                       __shfl_xor_sync(ALL_LANES, given_slope, by);
        }
    }
}

/* Four positions from OWN k on, of which `left` exist if they are fewer. */
INLINE void run_back(const reader &r, lane_states &s, int k, int left, bool exists) {
    float4 &place = r.rows.state[k][threadIdx.x];
    float dt[OWN], du[OWN], dy[OWN], h[OWN];
    r.take(dt, r.rows.dt, k);
    r.take(du, r.rows.du, k);
    r.take(dy, r.rows.dy, k);
    unpack_quad(h, place);

    float a[OWN][OWN], carry[OWN][OWN], B[OWN][OWN], pair[PAIR];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        r.take(B[i], r.B, k * OWN + i);
#pragma unroll
        for (int n = 0; n < OWN; n++) {
            a[i][n] = decay(dt[i], s.rate[n]);
            carry[i][n] = a[i][n] * h[n];
            h[n] = fmaf(du[i], B[i][n], carry[i][n]);
            pair[number_of(n, 1, i)] = dy[i] * h[n];
        }
    }
    if (left < OWN) { /* nothing was carried to where there is no position */
        const int some = rarely(left);
#pragma unroll
        for (int i = 0; i < OWN; i++)
#pragma unroll
            for (int n = 0; n < OWN; n++) {
                a[i][n] = i < some ? a[i][n] : 1.0f;
                carry[i][n] = i < some ? carry[i][n] : 0.0f;
            }
    }
    float sum[OWN], slope[OWN];
#pragma unroll
    for (int i = OWN - 1; i >= 0; i--) {
        float C[OWN];
        r.take(C, r.C, k * OWN + i);
#pragma unroll
        for (int n = 0; n < OWN; n++) {
            const float g = fmaf(dy[i], C[n], s.back[n]); /* dh */
            s.back[n] = a[i][n] * g;
            pair[number_of(n, 0, i)] = du[i] * g;
            const float q = g * carry[i][n];
            sum[i] = n == 0 ? g * B[i][n] : fmaf(g, B[i][n], sum[i]);
            slope[i] = n == 0 ? q * s.A[n] : fmaf(q, s.A[n], slope[i]);
            s.dA[n] = fmaf(q, dt[i], s.dA[n]);
        }
    }
    if (!exists) { /* 0 times an infinite B or C is not 0 */
        const int zero = rarely(0);
#pragma unroll
        for (int i = 0; i < PAIR; i++)
            pair[i] = __int_as_float(zero);
    }
    place = sum_teams(pair);
    sum_team(sum, slope);
    const int at = k * OWN + threadIdx.x % LANES;
    __syncwarp(); /* du has been read */
    reinterpret_cast<float *>(r.rows.du.quad[r.team])[at] = sum[0];
    reinterpret_cast<float *>(r.rows.slope.quad[r.team])[at] = slope[0];
}

/* Sums the warps' parts of a tile and writes the block's, or adds them to those of the
 * blocks that share the slice. */
INLINE void add_partial(float4 *to, const tile_rows &rows, bool shared) {
    static_assert(THREADS == 8 * BLOCKS_OF_TILE,
                  "a quarter of a warp's lanes at a time");
    const int k = threadIdx.x % BLOCKS_OF_TILE, lane = threadIdx.x / BLOCKS_OF_TILE;
    const float4 *from = &rows.state[k][lane];
    to += row_of_lane(lane) * BLOCKS_OF_TILE + k;
    float4 sum[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[i] = from[8 * i];
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            add(sum[i], from[w * 32 + 8 * i]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float4 *at = to + row_of_lane(8 * i) * BLOCKS_OF_TILE;
        if (shared)
            add_global(at, sum[i]);
        else
            *at = sum[i];
    }
}

INLINE void take(float (&v)[STEPS], const channel_rows &from, int team, int lane) {
    const float4 x = from.quad[team][2 * lane], y = from.quad[team][2 * lane + 1];
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    v[4] = y.x, v[5] = y.y, v[6] = y.z, v[7] = y.w;
}

/* What the states need of a tile's steps. */
template <bool plain> INLINE void prepare(tile_rows &rows, const mover<plain> &m) {
    const int team = threadIdx.x / LANES;
    steps s;
    take_steps(s, m);
    __syncwarp(); /* m's exchange lies in a row */
    put(rows.dt, s.dt, team, m.at.lane);
    put(rows.du, s.du, team, m.at.lane);
    put(rows.dy, s.dy, team, m.at.lane);
    if (!plain) /* 0 where nothing else will be */
        put(rows.slope, s.slope, team, m.at.lane);
}

/* What they have left. */
template <bool plain>
INLINE void conclude(const tile_rows &rows, const mover<plain> &m) {
    const int team = threadIdx.x / LANES;
    steps s;
    take(s.dt, rows.dt, team, m.at.lane);
    take(s.s, rows.du, team, m.at.lane);
    take(s.dy, rows.dy, team, m.at.lane);
    take(s.slope, rows.slope, team, m.at.lane);
    finish(s, m);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ state_tiles B_tile, C_tile;
    __shared__ team_runs runs[BACK_FETCHED + 1];
    __shared__ teams own;
    __shared__ tile_rows rows;
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int upper = threadIdx.x / 16 % 2;
    const int64_t length = p.u.shape[2];

    const int64_t block = f.first_block + blockIdx.x;
    const int64_t of_group = block / f.blocks_per_group;
    const int64_t in_group = block - of_group * f.blocks_per_group;
    const int64_t b = of_group / f.groups, g = of_group - b * f.groups;
    const int64_t at_channel = in_group * TEAMS + team;
    /* A team without a channel reads the group's last one as zeros, stores nothing. */
    const bool exists = at_channel < f.width;
    const int64_t d = g * f.width + (exists ? at_channel : f.width - 1);
    const int64_t row = b * p.u.shape[1] + d;
#pragma unroll 1
    for (int i = lane; i < BACK_ROWS; i += LANES)
        own.row[i][team] = f.rows[i].data + b * f.rows[i].batch +
                           (i == BACK_B || i == BACK_C ? g : d) * f.rows[i].channel;
    own.D[team] = read_scalar(p.D, d);
    own.bias[team] = read_scalar(p.delta_bias, d);
    if (lane < SUMS_VALUES)
        own.sum[lane][team] = {0.0f, 0.0f};
    __syncwarp();

    lane_states s;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        const int64_t state = lane * OWN + (upper ? turned(n) : n);
        s.A[n] = static_cast<const float *>(
            p.A.data)[d * p.A.stride[0] + state * p.A.stride[1]];
        s.rate[n] = rate_of(s.A[n]);
        s.back[n] = 0.0f;
        s.total[n] = {0.0f, 0.0f};
    }
    const reader r = {rows, team, rows.B.at[0][upper] + lane * OWN,
                      rows.C.at[0][upper] + lane * OWN};
    const float4 *entry =
        reinterpret_cast<const float4 *>(f.entry) + (row * f.tiles * LANES + lane);
    float4 *partial = reinterpret_cast<float4 *>(f.partial) +
                      ((in_group % f.slices * p.u.shape[0] + b) * f.groups + g) *
                          f.tiles * (STATES * QUADS);

    const auto spread = [&](coefficient_rows &to, const state_tiles &from, int which) {
        const bool odd = f.rows[which].how == IN_WORDS &&
                         is_odd(static_cast<const IN *>(own.row[which][team]));
        turn_around(to, from, odd, alternates(f.rows[which]), is_f16(f.p), 32);
    };

    int tile = (int)f.tiles; /* a pass before the last tile begins to fetch it */
    asm("" : "+r"(tile));    /* else that pass gets code of its own */
#pragma unroll 1
    for (; tile >= 0; tile--) {
        const bool is_tile = tile < (int)f.tiles;
        exchange &words = *reinterpret_cast<exchange *>(rows.dt.quad[team]);
        const place here = place_of(tile, length, lane);
        const mover<> m = {f, own, runs, words, here, tile, exists};
        const mover<true> plain = {f, own, runs, words, here, tile, exists};
        const bool is_plain = f.plain && here.left == TILE;
        float4 before = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        copies_wait();
        __syncthreads(); /* the tile is there, and what it needs free of the last */
        if (is_tile) {
            if (tile > 0 && exists)
                before = entry[(int64_t)tile * LANES];
            if (threadIdx.x < 32)
                spread(rows.B, B_tile, BACK_B);
            if (threadIdx.x >= THREADS - 32)
                spread(rows.C, C_tile, BACK_C);
            if (is_plain)
                prepare(rows, plain);
            else
                prepare(rows, m);
            __syncthreads();
        }
        if (tile > 0) {
            const place at = place_of(tile - 1, length, lane);
            fetch_coefficients(B_tile, f, own, BACK_B, at);
            fetch_coefficients(C_tile, f, own, BACK_C, at);
            if (f.plain && at.left == TILE)
                fetch_rows<true>(runs, f, own, tile - 1, at);
            else
                fetch_rows(runs, f, own, tile - 1, at);
        }
        if (!is_tile)
            continue;
        float h[OWN];
        const int last = (here.left - 1) / OWN;
        unpack_quad(h, upper ? make_float4(before.z, before.w, before.x, before.y)
                             : before);
#pragma unroll 2
        for (int k = 0; k < last; k++) {
            rows.state[k][threadIdx.x] = as_quad(h);
            advance(r, s, h, k);
        }
        rows.state[last][threadIdx.x] = as_quad(h);
#pragma unroll
        for (int n = 0; n < OWN; n++)
            s.dA[n] = 0.0f;
#pragma unroll 1
        for (int k = last; k >= 0; k--)
            run_back(r, s, k, here.left - k * OWN, exists);
#pragma unroll
        for (int n = 0; n < OWN; n++)
            s.total[n].add(s.dA[n]);
        __syncthreads();
        add_partial(partial + (int64_t)tile * (STATES * QUADS), rows, f.atomic);
        if (is_plain)
            conclude(rows, plain);
        else
            conclude(rows, m);
    }
    float *sums = f.sums + row * (SUMS_VALUES + SUMS_BY_STATE * STATES);
    if (!exists)
        return;
    if (lane < SUMS_VALUES)
        sums[lane] = own.sum[lane][team].total();
#pragma unroll
    for (int n = 0; n < OWN; n++)
        sums[SUMS_VALUES + lane * OWN + (upper ? turned(n) : n)] = s.total[n].total();
}
#else /* the states before every tile, of chunks of 2048 positions side by side */

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ state_tiles B_tile;
    __shared__ team_runs runs[2]; /* of u, delta */
    __shared__ teams own;
    __shared__ tile_rows rows;
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;

    const int64_t block = f.first_block + blockIdx.x;
    const int64_t of_chunk = block / f.chunks, chunk = block - of_chunk * f.chunks;
    const int64_t of_group = of_chunk / f.sweep_blocks;
    const int64_t in_group = of_chunk - of_group * f.sweep_blocks;
    const int64_t b = of_group / f.groups, g = of_group - b * f.groups;
    const int64_t at_channel = in_group * TEAMS + team;
    const bool exists = at_channel < f.width;
    const int64_t d = g * f.width + (exists ? at_channel : f.width - 1);
    const int64_t row = b * p.u.shape[1] + d;
#pragma unroll 1
    for (int i = lane; i < BACK_ROWS; i += LANES)
        own.row[i][team] = f.rows[i].data + b * f.rows[i].batch +
                           (i == BACK_B ? g : d) * f.rows[i].channel;
    own.bias[team] = read_scalar(p.delta_bias, d);
    __syncwarp();
    if (f.atomic) {
        const int64_t quads =
            f.slices * p.u.shape[0] * f.groups * f.tiles * (STATES * QUADS);
#pragma unroll 1
        for (int64_t i = block * THREADS + threadIdx.x; i < quads;
             i += p.u.shape[0] * f.groups * f.sweep_blocks * f.chunks * THREADS)
            reinterpret_cast<float4 *>(f.partial)[i] =
                make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    if (f.tiles == 1)
        return;

    lane_states s;
    float h[OWN];
    const float *x = static_cast<const float *>(p.x.data) +
                     ((row * f.chunks + chunk - 1) * STATES + lane * OWN) * 2;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        s.rate[n] = rate_of(static_cast<const float *>(
            p.A.data)[d * p.A.stride[0] + (lane * OWN + n) * p.A.stride[1]]);
        h[n] = chunk > 0 ? x[2 * n + 1] : 0.0f;
    }
    const reader r = {rows, team, rows.B.at[0][0] + lane * OWN, nullptr};
    const int from = (int)(chunk * (CHUNK / TILE));
    const int to = (int)min(f.tiles, (int64_t)from + CHUNK / TILE) - 1; /* no further */
    float4 *entry =
        reinterpret_cast<float4 *>(f.entry) + ((row * f.tiles + from) * LANES + lane);
    const scan_rows &c = f.rows[BACK_B];
    const bool odd =
        c.how == IN_WORDS && is_odd(static_cast<const IN *>(own.row[BACK_B][team]));
    exchange &words = *reinterpret_cast<exchange *>(rows.dt.quad[team]);

    int tile = from - 1;  /* a pass before the first tile begins to fetch it */
    asm("" : "+r"(tile)); /* else that pass gets code of its own */
#pragma unroll 1
    for (; tile < to; tile++) {
        const bool is_tile = tile >= from;
        copies_wait();
        __syncthreads(); /* the tile is there, and what it needs free of the last */
        if (is_tile) {
            turn_around(rows.B, B_tile, odd, alternates(c), is_f16(f.p), THREADS);
            const place here = place_of(tile, p.u.shape[2], lane);
            float dt[STEPS], du[STEPS];
            const auto take_both = [&](const auto &m) {
                take_dt(dt, m);
                m.take(du, BACK_U);
            };
            if (f.plain)
                take_both(mover<true>{f, own, runs, words, here, 0, exists});
            else
                take_both(mover<>{f, own, runs, words, here, 0, exists});
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                du[i] *= dt[i];
            put(rows.dt, dt, team, lane);
            put(rows.du, du, team, lane);
            __syncthreads();
        }
        if (tile + 1 < to) {
            const place at = place_of(tile + 1, p.u.shape[2], lane);
            fetch_coefficients(B_tile, f, own, BACK_B, at);
#pragma unroll
            for (int which = BACK_U; which <= BACK_DELTA; which++) {
                const IN *from = static_cast<const IN *>(own.row[which][team]);
                const int how = (int)f.rows[which].how;
                if (how == IN_ELEMENTS)
                    fetch_run(runs[which], from, f.rows[which].time, at, how);
                else
                    fetch_whole(runs[which], from, how == IN_PIECES, at);
            }
        }
        if (is_tile)
#pragma unroll 2
            for (int k = 0; k < BLOCKS_OF_TILE; k++)
                advance(r, s, h, k);
        if (exists)
            *entry = as_quad(h);
        entry += LANES;
    }
}
#endif
