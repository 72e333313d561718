/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_steps.cuh - what a team does of a tile before and after its states: it fetches
 * its rows, makes dt, dt u and dy of them, dz and out_z; then du, ddelta and their
 * sums.
 */
#ifndef MBR_BWD_STEPS_CUH
#define MBR_BWD_STEPS_CUH

#include "bwd.cuh"

/* A lane's steps of a tile. */
struct steps {
    float dt[STEPS], du[STEPS] /* dt u */, dy[STEPS];
    float s[STEPS], slope[STEPS]; /* see above; slope: sum over n of Re(q conj(A)) */
    float sum;                    /* of dt */
};

/* ---- sums --------------------------------------------------------------------- */

INLINE bool is_finite(float a) {
    return fabsf(a) < __int_as_float(0x7f800000);
}

INLINE void add(float4 &sum, float4 x) {
    sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
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

/* A sum over tiles, and apart from it what rounding has taken: there may be thousands.
 */
struct long_sum {
    float sum, rest;

    INLINE void add(float x) {
        const float before = sum;
        sum += x;
        const float added = sum - before;
        rest += (before - (sum - added)) + (x - added);
    }
    INLINE float total() const {
        return is_finite(sum) ? sum + rest : sum;
    }
};

/* The teams' channels. In shared memory, since they are looked at only once per tile.
 */
struct teams {
    void *row[BACK_ROWS][TEAMS];
    float D[TEAMS], bias[TEAMS];
    long_sum sum[SUMS_VALUES][TEAMS];
};

INLINE bool is_full(const scan_backward &f, int which) {
    return !HALF || f.full >> which & 1;
}

/* Begins to fetch a tile of the team's rows. Plain: the tile is whole, and all rows are
 * of u's type and accessed in pieces. */
template <bool plain = false>
INLINE void fetch_rows(team_runs *runs, const scan_backward &f, const teams &own,
                       int tile, const place &at) {
    const uint32_t pieces = f.fetched[IN_PIECES], words = f.fetched[IN_WORDS];
    const bool whole = at.left == TILE;
    const auto row = [&](int which) {
        return static_cast<const IN *>(own.row[which][threadIdx.x / LANES]);
    };
    const auto slot = [&](int which) -> team_runs & {
        return runs[which == BACK_U && tile % 2 ? BACK_FETCHED : which];
    };
    if constexpr (plain) {
#pragma unroll
        for (int which = 0; which < BACK_FETCHED; which++)
            if (pieces >> which & 1)
                fetch_whole(slot(which), row(which), true, at);
    } else {
#pragma unroll
        for (int which = 0; whole && which < BACK_FETCHED; which++)
            if ((pieces | words) >> which & 1)
                fetch_whole(slot(which), row(which), pieces >> which & 1, at);
        const uint32_t rest = f.fetched[IN_ELEMENTS] | (whole ? 0 : pieces | words);
#pragma unroll 1
        for (int which = 0; rest >> which != 0; which++)
            if (rest >> which & 1)
                fetch_run(slot(which), row(which), f.rows[which].time, at,
                          (int)f.rows[which].how);
    }
}

/* A run of any type. */
template <class T> INLINE run<T, STEPS> pack_any(const float (&v)[STEPS], bool in_f16) {
    if constexpr (same_type<T, half>::value)
        return pack_run(v, in_f16);
    else
        return pack_run<T>(v);
}

/* What a lane needs to move rows; plain as in fetch_rows. */
template <bool plain = false> struct mover {
    const scan_backward &f;
    teams &own;
    const team_runs *runs; /* BACK_FETCHED, and behind them the other tile's of u */
    exchange &team;
    place at;
    int tile;
    bool exists;

    INLINE void *row(int which) const {
        return own.row[which][threadIdx.x / LANES];
    }
    INLINE bool is_odd_row(int which) const {
        return f.fetched[IN_WORDS] >> which & 1 &&
               is_odd(static_cast<const IN *>(row(which)));
    }
    INLINE void take(float (&v)[STEPS], int which) const {
        const int slot = which == BACK_U && tile % 2 ? BACK_FETCHED : which;
        if (HALF && !plain && is_full(f, which))
            load_floats(v, static_cast<const float *>(row(which)), f.rows[which].time,
                        at, team);
        else
            take_run(v, runs[slot], !plain && is_odd_row(which), is_f16(f.p), at.lane);
    }
    INLINE void store(const float (&v)[STEPS], int which) const {
        const scan_rows &r = f.rows[which];
        const int left = exists ? at.left : 0;
        if (plain) {
            if (exists)
                store_run(static_cast<IN *>(row(which)) + at.start + at.first,
                          pack_any<IN>(v, is_f16(f.p)));
        } else if (is_full(f, which))
            store_floats(v, static_cast<float *>(row(which)), r.time, at, left,
                         (int)r.how, team);
        else
            store_halves(v, static_cast<uint16_t *>(row(which)), r.time, at, left,
                         (int)r.how, is_f16(f.p), team);
    }
};

/* dy, and with a gate dz and out_z. These may lie in the memory of z, dout or out:
 * everything is read before anything is written. */
template <bool plain> INLINE void take_dy(steps &s, const mover<plain> &m) {
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
#pragma unroll(plain ? 2 : 1)
    for (int which = BACK_DZ; which <= BACK_OUT_Z; which++) {
        if (m.f.rows[which].data != nullptr)
            m.store(z, which);
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            z[i] = out[i];
    }
}

template <bool plain> INLINE void take_dt(float (&dt)[STEPS], const mover<plain> &m) {
    const float bias = m.own.bias[threadIdx.x / LANES];
    m.take(dt, BACK_DELTA);
    make_dt(dt, bias, m.f.p.delta_softplus);
}

/* A tile's steps before its states; those that do not exist are all zero. */
template <bool plain> INLINE void take_steps(steps &s, const mover<plain> &m) {
    take_dt(s.dt, m);
    m.take(s.du, BACK_U);
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

/* In pairs, of which rounding takes least. */
template <int count = STEPS> INLINE float sum_steps(const float (&v)[STEPS]) {
    float half[STEPS];
#pragma unroll
    for (int i = 0; i < count / 2; i++)
        half[i] = v[i] + v[i + count / 2];
    if constexpr (count > 2)
        return sum_steps<count / 2>(half);
    return half[0];
}

/* du and ddelta of a tile from what its states left. */
template <bool plain> INLINE void finish(steps &s, const mover<plain> &m) {
    const float D = m.own.D[threadIdx.x / LANES];
    float u[STEPS];
    m.take(u, BACK_U);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        s.slope[i] = fmaf(s.s[i], u[i], s.slope[i]);
        s.s[i] = fmaf(s.s[i], s.dt[i], D * s.dy[i]);
        u[i] *= s.dy[i];
    }
    const float dD = sum_lanes<LANES>(sum_steps(u));
    if (m.f.p.delta_softplus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.slope[i] *= softplus_slope(s.dt[i]);
    }
    const float dbias = sum_lanes<LANES>(sum_steps(s.slope));
    if (m.at.lane < SUMS_VALUES)
        m.own.sum[m.at.lane][threadIdx.x / LANES].add(m.at.lane == SUMS_D ? dD : dbias);
#pragma unroll(plain ? 2 : 1)
    for (int which = BACK_DU; which <= BACK_DDELTA; which++) {
        m.store(s.s, which);
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.s[i] = s.slope[i];
    }
}

#endif
