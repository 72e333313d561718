/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_one.cu - backward selective scan of one state, as VMamba has it: no gate, B and C
 * variable, inputs dense in time, and rows short enough for one team. A row of
 * instances.def chooses
 *     IN       type of u, delta, B, C and the gradients
 *     STEPS    positions of a lane
 *
 * The formulas are bwd.cu's. A team of f.lanes lanes (8, 16, 32 or whole warps) has all
 * of a row, STEPS positions a lane, so no state comes in and none is handed on. B and C
 * stay in registers while the team goes through its channels; dB and dC add up there
 * and are written once, as [slice][b][group][dB, dC][padded], for bwd_sum.cu. The next
 * row is copied into shared memory meanwhile. No sum depends on timing.
 *
 * A unit is a team or, of a longer one, each of its warps, which meet once per row.
 */
#include "one.cuh"

constexpr int MOST = SCAN_ONE_THREADS;    /* of a block */
constexpr int SUMS_ONE = SUMS_VALUES + SUMS_BY_STATE; /* of a channel */

/* ---- shuffles within a unit ---------------------------------------------------------
 *
 * `reach` is a shuffle's last operand: it keeps units apart and, to the left, says
 * which lane is the last one with a position. What is beyond is not there, be it 0,
 * since a product of decays may be infinite.
 */

template <int by> INLINE void round_right(float &a, float &h, int reach) {
    asm("{.reg .pred p;\n\t.reg .f32 s, t;\n\t"
        "shfl.sync.up.b32 s|p, %1, %2, %3, -1;\n\t"
        "shfl.sync.up.b32 t, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %1, %0, s, %1;\n\t"
        "@p mul.rn.f32 %0, %0, t;}"
        : "+f"(a), "+f"(h)
        : "n"(by), "r"(reach));
}

template <int by> INLINE void round_left(float &a, float &g, int reach) {
    asm("{.reg .pred p;\n\t.reg .f32 s, t;\n\t"
        "shfl.sync.down.b32 s|p, %1, %2, %3, -1;\n\t"
        "shfl.sync.down.b32 t, %0, %2, %3, -1;\n\t"
        "@p fma.rn.f32 %1, %0, s, %1;\n\t"
        "@p mul.rn.f32 %0, %0, t;}"
        : "+f"(a), "+f"(g)
        : "n"(by), "r"(reach));
}

INLINE float lane_before(float x, float first, int reach) {
    float before;
    asm("{.reg .pred p;\n\t.reg .f32 up;\n\t"
        "shfl.sync.up.b32 up|p, %1, 1, %3, -1;\n\t"
        "selp.f32 %0, up, %2, p;}"
        : "=f"(before)
        : "f"(x), "f"(first), "r"(reach));
    return before;
}

INLINE float lane_after(float x, float last, int reach) {
    float after;
    asm("{.reg .pred p;\n\t.reg .f32 down;\n\t"
        "shfl.sync.down.b32 down|p, %1, 1, %3, -1;\n\t"
        "selp.f32 %0, down, %2, p;}"
        : "=f"(after)
        : "f"(x), "f"(last), "r"(reach));
    return after;
}

/* In every (span / 4)th lane: the sum over the unit of x, y, z or nothing. */
INLINE float sum_three(float x, float y, float z, const place &at) {
    const bool upper = at.lane & at.span / 2, odd = at.lane & at.span / 4;
    const float a =
        (upper ? z : x) + __shfl_xor_sync(ALL_LANES, upper ? x : z, at.span / 2);
    const float b =
        (upper ? 0.0f : y) + __shfl_xor_sync(ALL_LANES, upper ? y : 0.0f, at.span / 2);
    float sum = (odd ? b : a) + __shfl_xor_sync(ALL_LANES, odd ? a : b, at.span / 4);
#pragma unroll 1
    for (int by = at.span / 8; by > 0; by /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, by);
    return sum;
}

/* ---- the kernel ---------------------------------------------------------------------
 */

/* What a channel has one of: A, D, the bias of delta. */
enum { ONE_A, ONE_D, ONE_BIAS, ONES };

/* What the warps of a team tell each other, by parity of the row. */
struct meeting {
    float product[2][MOST / 32], h[2][MOST / 32], g[2][MOST / 32];
    float sums[2][MOST / 32][SUMS_VALUES + 1];
};

/* A channel's dD, ddelta_bias and dA from those of the team's warps. */
INLINE void add_warps(float *to, const float (*sums)[SUMS_VALUES + 1], int warps) {
    const int which = threadIdx.x;
    if (which > SUMS_VALUES)
        return;
    float sum = sums[0][which];
#pragma unroll 1
    for (int w = 1; w < warps; w++)
        sum += sums[w][which];
    to[which] = sum;
}

/* What comes in to a lane from its left and right where scans would go wrong
 * (turns.cuh): the lanes of all warps of a team one after the other. */
INLINE void take_turns(float &from_left, float &from_right, const float (&a)[STEPS],
                       const float (&dt)[STEPS], const float (&u)[STEPS],
                       const float (&dy)[STEPS], const float (&B)[STEPS],
                       const float (&C)[STEPS], meeting &met, int parity, int warp,
                       int warps, int right, int left, const place &at) {
#pragma unroll 1
    for (int k = 0; k < warps; k++) {
        if (warp == k) {
            const float first = k > 0 ? met.h[parity][k - 1] : 0.0f;
            float h = first; /* what a lane hands on */
#pragma unroll 1
            for (int turn = 0; turn < at.span; turn++) {
                const float before = lane_before(h, first, right);
                if (at.lane != turn)
                    continue;
                h = from_left = before;
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    h = fmaf(a[i], h, dt[i] * u[i] * B[i]);
            }
            if (at.lane == at.span - 1)
                met.h[parity][k] = h;
        }
        if (warp == warps - 1 - k) {
            const float last = k > 0 ? met.g[parity][warp + 1] : 0.0f;
            float g = last;
#pragma unroll 1
            for (int turn = at.span - 1; turn >= 0; turn--) {
                const float after = lane_after(g, last, left);
                if (at.lane != turn)
                    continue;
                g = from_right = after;
#pragma unroll
                for (int i = STEPS - 1; i >= 0; i--)
                    g = a[i] * fmaf(dy[i], C[i], g);
            }
            if (at.lane == 0)
                met.g[parity][warp] = g;
        }
        if (warps > 1)
            __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(MOST, 1)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    extern __shared__ uint4 dynamic[];
    __shared__ meeting met;
    __shared__ float ones[MOST / 32][ONES + 1]; /* of a unit's next channel */
    __shared__ char *rows[BACK_ROWS];           /* of channel 0 in this batch entry */
    const mbr_selective_scan_bwd_params &p = f.p;
    const bool full_dout = sizeof(IN) == 4 || p.dout.dtype_bits == 32;
    const int lanes = (int)f.lanes, span = min(lanes, 32), warps = lanes / span;
    const int unit = threadIdx.x / span, team = unit / warps, warp = unit % warps;
    const int teams = blockDim.x / lanes;
    const int start = warp * span * STEPS;
    const place at = {span, (int)threadIdx.x % span,
                      min((int)p.u.shape[2] - start, span * STEPS)};
    const int right = (32 - span) << 8, left = right | (at.left - 1) / STEPS;
    /* Which of the channel's sums comes to this lane, or -1: see sum_three. */
    const int sum_of_lane =
        at.lane % (span / 4) == 0 && at.lane / (span / 4) <= SUMS_VALUES
            ? at.lane / (span / 4)
            : -1;
    const float most = exp2_fast(120.0f / (float)lanes); /* of a lane's decay */
    const bool is_whole = (at.lane + 1) * STEPS <= at.left;
    const int part = part_pieces<IN>(span);
    uint4 *u_run = dynamic + unit * (3 * part + part_pieces<f32>(span)),
          *delta_run = u_run + part, *staged = delta_run + part,
          *dout_run = staged + part;

    const int slices = (int)f.slices, groups = (int)f.groups, width = (int)f.width,
              dim = (int)p.u.shape[1];
    const int slice = blockIdx.x % slices, of_group = blockIdx.x / slices;
    const int b = of_group / groups, group = of_group % groups;
    const int count = min((int)f.channels, width - slice * (int)f.channels);
    const int begin = group * width + slice * (int)f.channels;
    const int rounds = (count + teams - 1) / teams;
    float *sums = f.sums + b * p.u.shape[1] * SUMS_ONE;
    const auto channel_of = [&](int r) {
        return begin + min(r * teams + team, count - 1);
    };
    if (threadIdx.x < BACK_ROWS)
        rows[threadIdx.x] = f.rows[threadIdx.x].data + b * f.rows[threadIdx.x].batch;
    __syncthreads();
    /* Where a unit's part of a row begins; strides fit so: cuda_rows.h. */
    const auto part_of = [&](int which, int i, int size) {
        return rows[which] + (uint64_t)(uint32_t)i * (uint32_t)f.rows[which].channel +
               (uint32_t)(start * size);
    };
    const auto is_edge = [&](int i, int all) { /* of a tensor's rows */
        return (b == 0 && i == 0) || (b + 1 == p.u.shape[0] && i + 1 == all);
    };

    float B[STEPS], C[STEPS], dB[STEPS], dC[STEPS];
    {
        const char *part_B = part_of(BACK_B, group, sizeof(IN)),
                   *part_C = part_of(BACK_C, group, sizeof(IN));
        fetch<IN>(u_run, part_B, is_edge(group, groups), at);
        fetch<IN>(delta_run, part_C, is_edge(group, groups), at);
        copies_wait();
        __syncwarp();
        take<IN>(B, u_run, early_of(part_B), at);
        take<IN>(C, delta_run, early_of(part_C), at);
        __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        const bool real = at.lane * STEPS + i < at.left;
        B[i] = real ? B[i] : 0.0f;
        C[i] = real ? C[i] : 0.0f;
        dB[i] = dC[i] = 0.0f;
    }
    const auto fetch_row = [&](int r) {
        const int d = channel_of(r);
        fetch<IN>(u_run, part_of(BACK_U, d, sizeof(IN)), is_edge(d, dim), at);
        fetch<IN>(delta_run, part_of(BACK_DELTA, d, sizeof(IN)), is_edge(d, dim), at);
        if (full_dout)
            fetch<f32>(dout_run, part_of(BACK_DOUT, d, 4), is_edge(d, dim), at);
        else
            fetch<IN>(dout_run, part_of(BACK_DOUT, d, sizeof(IN)), is_edge(d, dim), at);
        if (at.lane < ONES) {
            const mbr_tensor &t = at.lane == ONE_A   ? p.A
                                  : at.lane == ONE_D ? p.D
                                                     : p.delta_bias;
            if (t.data != nullptr)
                copy_async<4>(&ones[unit][at.lane],
                              static_cast<const float *>(t.data) +
                                  (int64_t)d * (int)t.stride[0],
                              4);
        }
    };
    if (at.lane < ONES)
        ones[unit][at.lane] = 0.0f;
#pragma unroll 1
    for (int r = -1; r < rounds; r++) { /* at -1, only the first row is fetched */
        float dt[STEPS], u[STEPS], dy[STEPS], A, D, bias;
        if (r >= 0) {
            copies_wait();
            __syncwarp();
            const int d = channel_of(r);
            const auto early = [&](int which, int size) {
                return early_of(part_of(which, d, size));
            };
            take<IN>(dt, delta_run, early(BACK_DELTA, sizeof(IN)), at);
            take<IN>(u, u_run, early(BACK_U, sizeof(IN)), at);
            if (full_dout)
                take<f32>(dy, dout_run, early(BACK_DOUT, 4), at);
            else
                take<IN>(dy, dout_run, early(BACK_DOUT, sizeof(IN)), at);
            A = ones[unit][ONE_A], D = ones[unit][ONE_D], bias = ones[unit][ONE_BIAS];
            __syncwarp();
        }
        if (r + 1 < rounds)
            fetch_row(r + 1);
        if (r < 0)
            continue;
        const int d = channel_of(r);
        const bool exists = r * teams + team < count;
        const int parity = r % 2;

        make_dt(dt, bias, p.delta_softplus);
        if (!is_whole || !exists) {
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                const bool real = exists && at.lane * STEPS + i < at.left;
                dt[i] = real ? dt[i] : 0.0f;
                u[i] = real ? u[i] : 0.0f;
                dy[i] = real ? dy[i] : 0.0f;
            }
        }
        if (!exists) { /* in the last round; 0 times an infinite B or C is not 0 */
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                B[i] = C[i] = 0.0f;
        }

        /* The lane alone: its decays, the state it ends with from zero, and what it
         * hands to the left. */
        A = exists ? A : 0.0f;
        const float rate = rate_of(A);
        float a[STEPS], carry[STEPS], h = 0.0f, g = 0.0f, sum = 0.0f;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            a[i] = decay(dt[i], rate);
            sum += dt[i];
        }
        if (!is_whole && !(fabsf(A) < __int_as_float(0x7f800000))) {
#pragma unroll
            for (int i = 0; i < STEPS; i++) /* 0 times A is not 0 then */
                a[i] = at.lane * STEPS + i < at.left ? a[i] : 1.0f;
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const float in = dt[i] * u[i] * B[i];
            h = i == 0 ? in : fmaf(a[i], h, in);
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            const float in = dy[i] * C[i];
            g = i == STEPS - 1 ? in : fmaf(a[i + 1], g, in);
        }
        g *= a[0];

        /* The lanes together. */
        float product = decay(sum, rate), back = product;
        bool in_turn = !(product <= most);
        round_right<1>(product, h, right), round_left<1>(back, g, left);
        round_right<2>(product, h, right), round_left<2>(back, g, left);
        round_right<4>(product, h, right), round_left<4>(back, g, left);
        if (span > 8)
            round_right<8>(product, h, right), round_left<8>(back, g, left);
        if (span > 16)
            round_right<16>(product, h, right), round_left<16>(back, g, left);
        if (warps > 1) {
            if (at.lane == span - 1)
                met.product[parity][warp] = product, met.h[parity][warp] = h;
            if (at.lane == 0)
                met.g[parity][warp] = g;
            in_turn = __syncthreads_or(in_turn);
            if (r > 0)
                add_warps(sums + (int64_t)(d - 1) * SUMS_ONE, met.sums[parity ^ 1],
                          warps);
        } else {
            in_turn = __any_sync(ALL_LANES, in_turn);
        }
        if (in_turn) {
            take_turns(h, g, a, dt, u, dy, B, C, met, parity, warp, warps, right, left,
                       at);
        } else {
            h = lane_before(h, 0.0f, right);
            g = lane_after(g, 0.0f, left);
            if (warp > 0) {
                float in = met.h[parity][0];
#pragma unroll 1
                for (int w = 1; w < warp; w++)
                    in = fmaf(met.product[parity][w], in, met.h[parity][w]);
                h = fmaf(lane_before(product, 1.0f, right), in, h);
            }
            if (warp + 1 < warps) {
                float in = met.g[parity][warps - 1];
#pragma unroll 1
                for (int w = warps - 2; w > warp; w--)
                    in = fmaf(met.product[parity][w], in, met.g[parity][w]);
                g = fmaf(lane_after(back, 1.0f, left), in, g);
            }
        }
        if (at.lane * STEPS >= at.left)
            h = 0.0f; /* without positions, and perhaps infinite */

        /* The lane again, from what comes in. */
        float dD = 0.0f, dbias = 0.0f, dA = 0.0f;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            carry[i] = a[i] * h;
            h = fmaf(dt[i] * u[i], B[i], carry[i]);
            dC[i] = fmaf(dy[i], h, dC[i]);
        }
        if (!is_whole) { /* nothing was carried to where there is no position */
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                carry[i] = at.lane * STEPS + i < at.left ? carry[i] : 0.0f;
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
            const float in = dy[i] * C[i];
            g = i == STEPS - 1 ? in + g : fmaf(a[i + 1], g, in);
            const float q = g * carry[i], s = g * B[i];
            dB[i] = fmaf(dt[i] * u[i], g, dB[i]);
            dA = fmaf(dt[i], q, dA);
            dD = fmaf(dy[i], u[i], dD);
            carry[i] = fmaf(u[i], s, q * A); /* from here on, of dt */
            u[i] = fmaf(s, dt[i], D * dy[i]);
        }
        if (p.delta_softplus) {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                carry[i] *= softplus_slope(dt[i]);
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            dbias += carry[i];
        const auto out_of = [&](const scan_rows &r) {
            return d * r.channel + start * (int)sizeof(IN) * r.time;
        };
        store(pack_run<IN>(u), rows[BACK_DU] + out_of(f.rows[BACK_DU]), f.rows[BACK_DU], exists, staged, at);
        store(pack_run<IN>(carry), rows[BACK_DDELTA] + out_of(f.rows[BACK_DDELTA]),
                  f.rows[BACK_DDELTA], exists, staged, at);
        const float total = sum_three(dD, dbias, dA, at);
        if (sum_of_lane < 0)
            continue;
        if (warps > 1)
            met.sums[parity][warp][sum_of_lane] = total;
        else if (exists)
            sums[(int64_t)d * SUMS_ONE + sum_of_lane] = total;
    }

    __syncthreads();
    if (warps > 1)
        add_warps(sums + (int64_t)(begin + count - 1) * SUMS_ONE,
                  met.sums[(rounds - 1) % 2], warps);
    float *each = reinterpret_cast<float *>(dynamic); /* [dB, dC and step][thread] */
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        each[i * blockDim.x + threadIdx.x] = dB[i];
        each[(STEPS + i) * blockDim.x + threadIdx.x] = dC[i];
    }
    __syncthreads();
    float *partial =
        f.partial + ((slice * p.u.shape[0] + b) * groups + group) * 2 * f.padded;
#pragma unroll 1
    for (int i = threadIdx.x; i < 2 * lanes * STEPS; i += blockDim.x) {
        const int number = i / (lanes * STEPS) * STEPS + i % STEPS;
        const float *first = each + number * blockDim.x + i % (lanes * STEPS) / STEPS;
        float sum = *first;
#pragma unroll 1
        for (int t = 1; t < teams; t++)
            sum += first[t * lanes];
        partial[i] = sum;
    }
}
