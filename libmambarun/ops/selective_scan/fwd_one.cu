/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_one.cu - forward selective scan of one state, as VMamba has it: no gate, B and C
 * variable, a row of delta for each channel, inputs dense in time. A row of
 * instances.def chooses
 *     IN       f32 or half (f16 or bf16, as u says): type of u, delta, B, C, and of out
 *              unless that is fp32
 *     LANES    lanes of a unit, which has a channel; fewer than 32 have all of its row
 *     STEPS    positions in each of them
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *
 * The formulas are fwd.cu's. A block takes its channels, which are of one group,
 * through a chunk of 2048 positions one after the other, then through the next chunk
 * from the states that x holds. B and C of the chunk lie in shared memory for all of
 * them; the next tile of a unit's rows is copied there while this one is worked on.
 * Units wait for each other only where a chunk begins.
 */
#include "one.cuh"

constexpr int TILE = LANES * STEPS;
constexpr int CHUNK = 2048; /* positions per entry of x; fixed by the contract */

/* Pieces of a part of a row in shared memory. */
template <class T> constexpr int PART = part_pieces<T>(LANES);
static_assert(CHUNK % TILE == 0, "tiles");

/* What a channel has one of. */
struct alignas(16) one {
    float rate, D, bias, unused;
};

/* The channels of a block. */
struct work {
    int batch, group, first, count;
    bool is_first_batch, is_last_batch;

    /* Whether a tensor's row i of so many in this batch entry is its first or last. */
    INLINE bool is_edge(int i, int rows) const {
        return (is_first_batch && i == 0) || (is_last_batch && i + 1 == rows);
    }
};

INLINE work work_of(const scan_forward &f) { /* numbers fit so: cuda_fwd.c */
    const int slices = (int)f.blocks_per_group, groups = (int)f.groups;
    const int slice = blockIdx.x % slices, of_group = blockIdx.x / slices;
    const int batch = of_group / groups, group = of_group % groups;
    const int begin = slice * (int)f.channels;
    return {batch,
            group,
            group * (int)f.width + begin,
            min((int)f.channels, (int)f.width - begin),
            batch == 0,
            batch + 1 == f.p.u.shape[0]};
}

INLINE int tiles_of(int positions) {
    return LANES < 32 ? 1 : (positions + TILE - 1) / TILE;
}

/* A lane's place in tile t of so many positions. */
INLINE place place_of(int positions, int t) {
    return {LANES, (int)threadIdx.x % LANES,
            LANES < 32 ? positions : min(positions - t * TILE, TILE)};
}

INLINE float read_scalar(const mbr_tensor &t, int64_t i) {
    return t.data ? static_cast<const float *>(t.data)[i * t.stride[0]] : 0.0f;
}

/* Copies B or C of a chunk, by all units, and waits for this one's copies; they are
 * made to begin with a piece, once for all channels. `spare` is a part of the unit's. */
INLINE void stage(uint4 *to, const char *row, bool is_edge, int positions,
                  uint4 *spare) {
    const int unit = threadIdx.x / LANES, units = blockDim.x / LANES;
    const int tiles = tiles_of(positions), early = early_of(row);
#pragma unroll 1
    for (int t = unit; t < tiles; t += units)
        fetch<IN>(to + t * PART<IN>, row + t * TILE * (int)sizeof(IN), is_edge,
                  place_of(positions, t));
    copies_wait();
    if (early == 0)
        return;
#pragma unroll 1
    for (int t = unit; t < tiles + unit; t += units) { /* as often in all units */
        const place at = place_of(positions, t);
        uint4 *part = t < tiles ? to + t * PART<IN> : spare;
        __syncwarp();
        const run<IN, STEPS> even = take_run<IN>(part, early, at);
        __syncwarp();
        put_run(part, even, at);
    }
}

/* Of a lane over its positions: the decay, what is added to the state, and out. */
struct steps {
    float a[STEPS], b[STEPS], y[STEPS];
    float sum; /* of dt */
};

/* dt comes as delta. What does not exist leaves the state alone. */
INLINE void prepare(steps &s, float (&dt)[STEPS], const run<IN, STEPS> &u,
                    const run<IN, STEPS> &B, const one &own, bool plus, bool is_f16,
                    int exist) {
    float factor[STEPS];
    make_dt(dt, own.bias, plus);
    unpack_run(s.y, u, is_f16);
    unpack_run(factor, B, is_f16);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        s.a[i] = decay(dt[i], own.rate);
        s.b[i] = dt[i] * s.y[i] * factor[i];
        s.y[i] *= own.D;
    }
    if (exist < STEPS) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            dt[i] = i < exist ? dt[i] : 0.0f;
            s.a[i] = i < exist ? s.a[i] : 1.0f;
            s.b[i] = i < exist ? s.b[i] : 0.0f;
        }
    }
    s.sum = dt[0];
#pragma unroll
    for (int i = 1; i < STEPS; i++)
        s.sum += dt[i];
}

/* The state after a lane's positions, h being the one before. */
INLINE float pass(const steps &s, float h) {
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        h = fmaf(s.a[i], h, s.b[i]);
    return h;
}

/* The states after each lane's positions, carry being the one before the first's. */
INLINE float scan(const steps &s, float product, float carry, int lane) {
    float h = s.b[0];
#pragma unroll
    for (int i = 1; i < STEPS; i++)
        h = fmaf(s.a[i], h, s.b[i]);
    if (lane == 0)
        h = fmaf(product, carry, h);
    scan_lanes<LANES>(product, h);
    return h;
}

/* The same where a scan would go wrong (turns.cuh): the lanes one after the other. */
INLINE float take_turns(const steps &s, float carry, int lane) {
    float h = carry;
#pragma unroll 1
    for (int turn = 0; turn < LANES; turn++) {
        const float before = lane_before<LANES>(h, carry);
        if (lane == turn)
            h = pass(s, before);
    }
    return h;
}

extern "C" __global__ void __launch_bounds__(SCAN_ONE_FORWARD_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    extern __shared__ uint4 dynamic[];
    __shared__ char *rows[ROWS]; /* of channel 0 in this batch entry and chunk */
    const mbr_selective_scan_fwd_params &p = f.p;
    const int unit = threadIdx.x / LANES, lane = threadIdx.x % LANES,
              units = blockDim.x / LANES;
    const int length = (int)p.u.shape[2], dim = (int)p.u.shape[1],
              chunks = (length + CHUNK - 1) / CHUNK;
    const work own = work_of(f);
    const bool is_f16 = p.u.dtype_code == MBR_FLOAT;
    const bool is_full = sizeof(IN) == 4 || p.out.dtype_bits == 32;
    const scan_rows &out_rows = f.rows[ROWS_OUT];
    const float most = exp2_fast(120.0f / LANES); /* of a lane's decay */

    one *const ones = reinterpret_cast<one *>(dynamic);
    uint4 *const B = dynamic + (int)f.channels,
                 *const C = B + tiles_of(min(length, CHUNK)) * PART<IN>,
                 *const part_u = C + tiles_of(min(length, CHUNK)) * PART<IN> +
                                 unit * (2 * PART<IN> + PART<f32>),
                 *const part_delta = part_u + PART<IN>,
                 *const staged = part_delta + PART<IN>;

#pragma unroll 1
    for (int i = threadIdx.x; i < own.count; i += blockDim.x)
        ones[i] = {rate_of(read_scalar(p.A, own.first + i)),
                   read_scalar(p.D, own.first + i),
                   read_scalar(p.delta_bias, own.first + i)};

#pragma unroll 1
    for (int c = 0; c < chunks; c++) {
        const int positions = min(length - c * CHUNK, CHUNK),
                  tiles = tiles_of(positions);
        const auto row_of = [&](int which,
                                int i) { /* strides fit so: cuda_rows.h */
                                         return rows[which] +
                                                (uint64_t)(uint32_t)i *
                                                    (uint32_t)f.rows[which].channel;
        };
        __syncthreads(); /* all have done with the chunk before */
        if (threadIdx.x < ROWS) {
            const scan_rows &r = f.rows[threadIdx.x];
            const int size = threadIdx.x == ROWS_OUT && is_full ? 4 : sizeof(IN);
            rows[threadIdx.x] =
                r.data + own.batch * r.batch + (int64_t)c * CHUNK * size * r.time;
        }
        __syncthreads();
        const bool is_edge = own.is_edge(own.group, (int)f.groups);
#pragma unroll 1
        for (int which = ROWS_B; which <= ROWS_C; which++)
            stage(which == ROWS_B ? B : C, row_of(which, own.group), is_edge,
                  positions, staged);
        __syncthreads();

        const char *next_u = row_of(ROWS_U, own.first + unit),
                   *next_delta = row_of(ROWS_DELTA, own.first + unit);
        int early_u = 0, early_delta = 0;
#pragma unroll 1
        for (int first = 0; first < own.count; first += units) {
            const bool exists = first + unit < own.count;
            const int i = min(first + unit, own.count - 1), d = own.first + i;
            const auto entry =
                [&] { /* of x */
                      return static_cast<float *>(p.x.data) +
                             2 * (((int64_t)own.batch * dim + d) * chunks + c);
                };
            char *out = rows[ROWS_OUT] + d * out_rows.channel;
            float carry = c > 0 ? entry()[-1] : 0.0f;
            float sum = 0.0f; /* of a lane's dt in this chunk */
/* One more turn, before the first tile, begins to fetch that. */
#pragma unroll 1
            for (int t = first == 0 ? -1 : 0; t < tiles; t++) {
                const place at = place_of(positions, t);
                float dt[STEPS];
                run<IN, STEPS> u;
                if (t >= 0) {
                    copies_wait();
                    __syncwarp();
                    unpack_run(dt, take_run<IN>(part_delta, early_delta, at), is_f16);
                    u = take_run<IN>(part_u, early_u, at);
                    __syncwarp();
                }
                const bool ends = t + 1 == tiles;
                const int next = first + unit + (ends ? units : 0);
                if (next < own.count) {
                    const place there = place_of(positions, ends ? 0 : t + 1);
                    if (ends) {
                        next_u = row_of(ROWS_U, own.first + next);
                        next_delta = row_of(ROWS_DELTA, own.first + next);
                    }
                    const bool is_edge_row = own.is_edge(own.first + next, dim);
                    fetch<IN>(part_u, next_u, is_edge_row, there);
                    fetch<IN>(part_delta, next_delta, is_edge_row, there);
                    early_u = early_of(next_u), early_delta = early_of(next_delta);
                    next_u += TILE * sizeof(IN), next_delta += TILE * sizeof(IN);
                }
                if (t < 0)
                    continue;

                steps s;
                const int exist = at.left - lane * STEPS;
                prepare(s, dt, u, take_run<IN>(B + t * PART<IN>, 0, at), ones[i],
                        p.delta_softplus, is_f16, exist);
                sum += s.sum;
                const float product = exist > 0 ? decay(s.sum, ones[i].rate) : 1.0f;
                const bool in_turn =
                    __any_sync(ALL_LANES, exists && !(product <= most));
                float h = scan(s, product, carry, lane);
                if (in_turn)
                    h = take_turns(s, carry, lane);
                float in = lane_before<LANES>(h, carry), factor[STEPS];
                unpack_run(factor, take_run<IN>(C + t * PART<IN>, 0, at), is_f16);
#pragma unroll
                for (int k = 0; k < STEPS; k++) {
                    in = fmaf(s.a[k], in, s.b[k]);
                    s.y[k] = fmaf(factor[k], in, s.y[k]);
                }
                carry = LANES < 32 ? h : __shfl_sync(ALL_LANES, h, LANES - 1);
                if (is_full)
                    store(pack_run<f32>(s.y), out, out_rows, exists, staged, at);
                else if constexpr (sizeof(IN) == 2)
                    store(pack_run(s.y, is_f16), out, out_rows, exists, staged, at);
                out += out_rows.time * (TILE * (is_full ? 4 : sizeof(IN)));
            }
            sum = sum_lanes<LANES>(sum);
            if (exists && lane == LANES - 1) { /* which has the last state */
                const float product = decay(sum, ones[i].rate);
                entry()[0] = c > 0 ? product * entry()[-2] : product;
                entry()[1] = carry;
            }
        }
    }
}
