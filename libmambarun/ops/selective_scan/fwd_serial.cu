/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_serial.cu - forward selective scan where channels are many: real A, variable B and
 * C, time innermost. One template; a row of instances.def chooses
 *     IN       f32 or half (f16 or bf16, as u says), as in fwd.cu
 *     LANES    lanes that share a channel      STEPS   positions that each of them moves
 *     STATES   states there are, of which a lane has STATES / LANES in registers
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *
 * Time is walked through position by position. The lanes of a channel come in two
 * orders. To move rows between global and shared memory, and for what is done once for
 * each position, they stand side by side and share out a tile by time (fwd.cuh). In the
 * scan they share out the states: lanes of the same states stand side by side, those of
 * a channel 32 / LANES apart. What goes from one order to the other, dt, dt u and sums
 * of C h, does so in shared memory within a warp, which has all lanes of its channels.
 * B and C of a position lie there in pairs for all channels of the block.
 */
#include "fwd.cuh"

constexpr int OWN = STATES / LANES; /* states of a lane */
constexpr int APART = 32 / LANES;   /* channels of a warp */
constexpr int QUADS = TILE / 4;
constexpr int PITCH = TILE + 4;         /* of rows of fp32: no bank conflicts */
constexpr int PAIR = HALF ? 1 : 2;      /* words of a B and a C */
constexpr int QUAD = 4 * STATES * PAIR; /* and of a quad of positions */
constexpr int WORDS = 4 / PER_WORD;     /* of a quad in IN */
constexpr int READERS = STATES * QUADS; /* threads that read B and C */
static_assert(READERS <= THREADS, "a quad each");

/* fp32 of a tile: what a warp's lanes hand to each other. */
struct alignas(16) rows_of_tile {
    float row[TEAMS][PITCH];
};

struct terms_of_y { /* by a lane's place among its channel's */
    rows_of_tile of[LANES];
};

/* B and C of a tile: by quad, position, state. */
struct alignas(16) pairs_of_tile {
    uint32_t quad[QUADS][QUAD + 4];
};

/* What a thread reads of B or C: four positions of one state in each tile. Of an odd row
 * the words begin with the position before. */
struct quad_reader {
    const IN *at;                /* of the next tile */
    uint32_t word[WORDS + HALF]; /* what is there, or on its way */
};

INLINE bool is_reader() {
    return READERS == THREADS || threadIdx.x < READERS;
}

INLINE quad_reader reader_of(const scan_rows &r, const void *row) {
    return {static_cast<const IN *>(row) + threadIdx.x / QUADS * r.state +
            threadIdx.x % QUADS * 4 * r.time};
}

INLINE uint32_t word_from(const f32 *v) {
    return __float_as_uint(v[0].bits);
}

INLINE uint32_t word_from(const half *v) {
    return v[0].bits | (uint32_t)v[1].bits << 16;
}

/* Of the next tile, which has `left` positions; the others become 0. */
INLINE void fetch_quad(quad_reader &q, const scan_rows &r, int left) {
    if (!is_reader())
        return;
    const int odd = r.how == IN_WORDS && is_odd(q.at);
    left -= threadIdx.x % QUADS * 4;
    if (r.how == IN_PIECES && left >= 4) {
        const run<IN, 4> quad = load_run<IN, 4>(q.at);
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            q.word[i] = quad.word[i];
    } else if (r.how == IN_WORDS && left >= 4 + odd) {
        const uint32_t *from = reinterpret_cast<const uint32_t *>(q.at - odd);
#pragma unroll
        for (int i = 0; i < WORDS + HALF; i++)
            if (i < WORDS + odd)
                q.word[i] = from[i];
    } else {
#pragma unroll
        for (int i = 0; i < WORDS + HALF; i++) {
            IN value[PER_WORD];
#pragma unroll
            for (int k = 0; k < PER_WORD; k++) {
                const int step = i * PER_WORD + k - odd;
                value[k] = step >= 0 && step < left ? q.at[step * r.time] : IN{0};
            }
            q.word[i] = word_from(value);
        }
    }
    q.at += TILE * r.time;
}

INLINE void straighten(quad_reader &q, const scan_rows &r) {
    if constexpr (HALF)
        if (r.how == IN_WORDS && is_odd(q.at))
            shift_words(q.word, 0);
}

/* What was fetched. */
INLINE void store_pairs(pairs_of_tile &to, const quad_reader &B, const quad_reader &C) {
    if (!is_reader())
        return;
    uint32_t *pair = to.quad[threadIdx.x % QUADS] + threadIdx.x / QUADS * PAIR;
#pragma unroll
    for (int i = 0; i < 4; i++, pair += STATES * PAIR) {
        if (HALF) {
            pair[0] = __byte_perm(B.word[i / 2], C.word[i / 2], i % 2 ? 0x7632 : 0x5410);
        } else {
            pair[0] = B.word[i];
            pair[1] = C.word[i];
        }
    }
}

template <class T> INLINE void split_pair(const uint32_t *word, float &b, float &c) {
    if constexpr (HALF) {
        unpack<T>(word[0], b, c);
    } else {
        b = __uint_as_float(word[0]);
        c = __uint_as_float(word[1]);
    }
}

/* A lane's states over a tile, from its channel's dt and dt u, to its terms of y. */
template <class T>
INLINE void advance(float (&h)[OWN], const float (&rate)[OWN], const float *dts,
                    const float *dus, const uint32_t *pairs, float *ys) {
#pragma unroll 2
    for (int q = 0; q < QUADS; q++, pairs += QUAD + 4) {
        const run<f32, 4> dt =
            load_run<f32, 4>(reinterpret_cast<const f32 *>(dts) + 4 * q);
        const run<f32, 4> du =
            load_run<f32, 4>(reinterpret_cast<const f32 *>(dus) + 4 * q);
        float y[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const run<f32, OWN * PAIR> of = load_run<f32, OWN * PAIR>(
                reinterpret_cast<const f32 *>(pairs + i * STATES * PAIR));
#pragma unroll
            for (int s = 0; s < OWN; s++) {
                float b, c;
                split_pair<T>(of.word + s * PAIR, b, c);
                const float a = decay(__uint_as_float(dt.word[i]), rate[s]);
                h[s] = fmaf(a, h[s], __uint_as_float(du.word[i]) * b);
                y[i] = s == 0 ? c * h[s] : fmaf(c, h[s], y[i]);
            }
        }
        store_run(reinterpret_cast<f32 *>(ys) + 4 * q, pack_run<f32>(y));
    }
}

/* The lane's part of an entry of x: pairs (product of all decays so far, state). sum is
 * of dt since the entry before, which the same lane wrote. */
INLINE void write_states(float *x, const float (&h)[OWN], const float (&rate)[OWN],
                         float sum, int chunk, int64_t entry, int part) {
    x += chunk * entry + 2 * OWN * part;
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        const float product = decay(sum, rate[s]);
        x[2 * s] = chunk == 0 ? product : product * x[2 * s - entry];
        x[2 * s + 1] = h[s];
    }
}

INLINE void hand_over(rows_of_tile &to, const float (&v)[STEPS], int team, int lane) {
#pragma unroll
    for (int i = 0; i < STEPS; i += 4)
        *reinterpret_cast<float4 *>(&to.row[team][lane * STEPS + i]) = {
            v[i], v[i + 1], v[i + 2], v[i + 3]};
}

INLINE void add_rows(float (&y)[STEPS], const terms_of_y &from, int team, int lane) {
#pragma unroll
    for (int k = 0; k < LANES; k++)
#pragma unroll
        for (int i = 0; i < STEPS; i += 4) {
            const float4 v = *reinterpret_cast<const float4 *>(
                &from.of[k].row[team][lane * STEPS + i]);
            y[i] += v.x, y[i + 1] += v.y, y[i + 2] += v.z, y[i + 3] += v.w;
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    __shared__ team_runs runs[3]; /* of u, delta, z */
    __shared__ channels_of_block own;
    __shared__ pairs_of_tile pairs[2];
    __shared__ rows_of_tile dts, dus;
    __shared__ terms_of_y ys;

    const mbr_selective_scan_fwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    /* in the scan: the channel, and which of its states */
    const int channel = threadIdx.x / 32 * APART + threadIdx.x % APART;
    const int part = threadIdx.x % 32 / APART;
    const bool is_f16 = p.u.dtype_code == MBR_FLOAT;
    const bool gated = p.z.data != nullptr;

    const auto row_of = [&](int which) {
        return static_cast<const IN *>(own.row[which][team]);
    };
    const auto is_odd_row = [&](int which) {
        return f.rows[which].how == IN_WORDS && is_odd(row_of(which));
    };
    const auto fetch_row = [&](int which, int tile) {
        fetch_run(runs[which], row_of(which), place_of(f, tile, lane),
                  (int)f.rows[which].how);
    };
    const auto fetch_pairs = [&](quad_reader &B, quad_reader &C, int tile) {
        const int left = tile < f.whole_tiles ? TILE : f.rest;
        fetch_quad(B, f.rows[ROWS_B], left);
        fetch_quad(C, f.rows[ROWS_C], left);
    };

    find_channel(own, f, f.first_block + blockIdx.x, TEAMS, team, lane);
    __syncthreads();
    const float D = read_scalar(p.D, own.d[team], 0.0f);
    const float bias = read_scalar(p.delta_bias, own.of_delta[team], 0.0f);
    float h[OWN], rate[OWN], sum = 0.0f;
#pragma unroll
    for (int s = 0; s < OWN; s++) {
        const int n = part * OWN + s;
        h[s] = 0.0f;
        rate[s] = rate_of(static_cast<const float *>(
            p.A.data)[own.d[channel] * p.A.stride[0] + n * p.A.stride[1]]);
    }
    quad_reader B = reader_of(f.rows[ROWS_B], own.row[ROWS_B][team]);
    quad_reader C = reader_of(f.rows[ROWS_C], own.row[ROWS_C][team]);
    fetch_pairs(B, C, 0);
    fetch_row(ROWS_U, 0);
    fetch_row(ROWS_DELTA, 0);
#pragma unroll 1
    for (int tile = 0; tile < f.tiles; tile++) {
        const place at = place_of(f, tile, lane);
        steps s;
        straighten(B, f.rows[ROWS_B]);
        straighten(C, f.rows[ROWS_C]);
        store_pairs(pairs[tile & 1], B, C);
        copies_wait();
        __syncthreads();
        take_run(s.du, runs[ROWS_U], is_odd_row(ROWS_U), is_f16, lane);
        take_run(s.dt, runs[ROWS_DELTA], is_odd_row(ROWS_DELTA), is_f16, lane);
        prepare(s, at, D, bias, p.delta_softplus);
        sum += s.sum;
        hand_over(dts, s.dt, team, lane);
        hand_over(dus, s.du, team, lane);
        __syncwarp();
        if (tile + 1 < f.tiles) {
            fetch_pairs(B, C, tile + 1);
            fetch_row(ROWS_U, tile + 1);
            fetch_row(ROWS_DELTA, tile + 1);
        }
        if (gated)
            fetch_row(ROWS_Z, tile);
        const uint32_t *from = pairs[tile & 1].quad[0] + part * OWN * PAIR;
        float *to = ys.of[part].row[channel];
        if constexpr (!HALF)
            advance<f32>(h, rate, dts.row[channel], dus.row[channel], from, to);
        else if (is_f16)
            advance<f16>(h, rate, dts.row[channel], dus.row[channel], from, to);
        else
            advance<bf16>(h, rate, dts.row[channel], dus.row[channel], from, to);
        __syncwarp();
        add_rows(s.y, ys, team, lane);
        if ((tile + 1) % (CHUNK / TILE) == 0 || tile + 1 == f.tiles) {
            const float since = __shfl_sync(ALL_LANES, sum_lanes<LANES>(sum),
                                            threadIdx.x % APART * LANES);
            const int chunk = tile / (CHUNK / TILE);
            if (own.exists[channel])
                write_states(static_cast<float *>(own.row[ROWS_X][channel]), h, rate,
                             since, chunk, f.rows[ROWS_X].time, part);
            sum = 0.0f;
        }
        exchange &words = *reinterpret_cast<exchange *>(ys.of[0].row[team]);
        const int left = own.exists[team] ? at.left : 0;
#pragma unroll 1
        for (int which = ROWS_OUT; which <= (gated ? ROWS_OUT_Z : ROWS_OUT); which++) {
            if (which == ROWS_OUT_Z) {
                float gate[STEPS];
                copies_wait();
                __syncwarp();
                take_run(gate, runs[ROWS_Z], is_odd_row(ROWS_Z), is_f16, lane);
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    s.y[i] *= silu(gate[i]);
            }
            store_result(s.y, f, which, own.row[which][team], at, left, words);
        }
    }
}
