/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd.cuh - how the forward kernel moves rows of (batch, channel, time) tensors and
 * tiles of B and C. A row is worked by a team of LANES lanes, each of which holds STEPS
 * consecutive positions, its run, of a tile of TILE.
 *
 * Everything is read a tile ahead into shared memory, in its own type: in pieces of 16
 * bytes or in words where memory allows (cuda_scan.h, IN_PIECES and IN_WORDS), else
 * element by element. The words of a 16-bit row may begin one position before it; the
 * row is shifted by that when a lane takes its run.
 */
#ifndef MBR_FWD_CUH
#define MBR_FWD_CUH

#include "tiles.cuh"

/* Where a lane stands: at positions first.. of a tile, of which those below left exist,
 * and of the tile after this one those below further. */
struct place {
    int tile, first, left, further, lane;
};

INLINE place place_of(const scan_forward &f, int tile, int lane) {
    const int left = tile < f.whole_tiles ? TILE : f.rest;
    const int further = tile + 1 < f.whole_tiles ? TILE
                        : tile + 1 < f.tiles     ? f.rest
                                                 : 0;
    return {tile, lane * STEPS, left, further, lane};
}

INLINE int64_t start_of(int tile) {
    return (int64_t)tile * TILE;
}

/* Begins to copy word w of a row that begins with a word, of which `left` positions
 * exist; the others become 0. The thread waits for a last half of one. */
INLINE void copy_word(uint32_t *to, const IN *row, int w, int left) {
    if (w < left / PER_WORD) {
        copy_async<4>(to, row + w * PER_WORD);
        return;
    }
    *to = 0;
    if (HALF && w * 2 < left)
        *reinterpret_cast<IN *>(to) = row[w * 2];
}

/* Elements that exist in the word after an odd row's tile. Only the first is needed, but
 * a whole word can be copied without waiting. */
INLINE int beyond_odd(const place &at) {
    return at.left < TILE ? 0 : at.further > 0 ? 2 : 1;
}

/* ---- rows -------------------------------------------------------------------------- */

/* Word w of a team's tile. */
INLINE uint32_t *word_of(team_runs &to, int team, int w) {
    uint4 *piece = &to.piece[w % WORDS_OF_RUN / 4][team + w / WORDS_OF_RUN];
    return reinterpret_cast<uint32_t *>(piece) + w % 4;
}

/* Begins to copy the team's tile of a row into the runs of its lanes. Neighbouring
 * lanes copy neighbouring pieces, not their own, so that whole sectors are asked for at
 * once. */
INLINE void fetch_run(team_runs &to, const IN *row, const place &at, int how) {
    const int team = threadIdx.x - at.lane;
    row += start_of(at.tile);
    if (how == IN_PIECES && at.left == TILE) {
        row += at.lane * PER_PIECE;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int p = i * LANES + at.lane;
            copy_async<16>(&to.piece[p % PIECES][team + p / PIECES],
                           row + i * LANES * PER_PIECE);
        }
        return;
    }
    const int odd = is_odd(row), left = at.left + odd;
#pragma unroll 4
    for (int i = 0; i < WORDS_OF_RUN; i++) {
        const int w = i * LANES + at.lane;
        copy_word(word_of(to, team, w), row - odd, w, left);
    }
    if (odd && at.lane == 0)
        copy_word(&to.beyond[team / LANES], row - odd + TILE, 0,
                  beyond_odd(at));
}

/* Calls the tile after this one into the second-level cache: one tile's work does not
 * outlast the memory's latency if there are few states. */
INLINE void prefetch_next(const IN *row, const place &at) {
    if (at.first < at.further)
        prefetch(row + start_of(at.tile + 1) + at.first);
}

/* The same of a row of any stride, element by element. */
INLINE void fetch_elements(team_runs &to, const IN *row, int64_t stride,
                           const place &at) {
    const int team = threadIdx.x - at.lane;
    row += (start_of(at.tile) + at.lane) * stride;
#pragma unroll 4
    for (int i = at.lane; i < TILE; i += LANES, row += LANES * stride) {
        uint4 *piece = &to.piece[i % STEPS / PER_PIECE][team + i / STEPS];
        reinterpret_cast<IN *>(piece)[i % PER_PIECE] = i < at.left ? *row : IN{0};
    }
}

/* ---- channels --------------------------------------------------------------------- */

/* The teams' channels. In shared memory: they are looked at only once per tile. */
struct channels_of_block {
    void *row[ROWS][TEAMS];
    int64_t d[TEAMS], of_delta[TEAMS]; /* its number, and that of its row of delta */
    float D[TEAMS], bias[TEAMS];
    bool exists[TEAMS]; /* else it is the group's last one again: nothing is stored */
    int first, end;     /* tiles of this block */
    float sum[THREADS]; /* of a lane's dt since the last entry of x */
};

/* By all lanes of the team. */
INLINE void find_channel(channels_of_block &own, const scan_forward &f, int64_t block,
                         int channels, int team, int lane) {
    if (f.pass != WHOLE) {
        const int64_t all = block;
        block /= f.chunks;
        own.first = (int)(all - block * f.chunks) * (CHUNK / TILE);
        own.end = min(f.tiles, own.first + CHUNK / TILE);
    } else {
        own.first = 0;
        own.end = f.tiles;
    }
    const int64_t of_group = block / f.blocks_per_group;
    const int64_t b = f.groups == 1 ? of_group : of_group / f.groups;
    const int64_t g = of_group - b * f.groups;
    const int64_t c = (block - of_group * f.blocks_per_group) * channels + team;
    const int64_t d = g * f.width + min(c, f.width - 1);
    const int64_t of_delta = f.repeat == 1 ? d : d / f.repeat;
#pragma unroll 1
    for (int i = lane; i < ROWS; i += LANES) {
        const int64_t n = i == ROWS_B || i == ROWS_C ? g
                          : i == ROWS_DELTA          ? of_delta
                                                     : d;
        own.row[i][team] = f.rows[i].data + b * f.rows[i].batch + n * f.rows[i].channel;
    }
    if (lane == 0) {
        own.d[team] = d;
        own.of_delta[team] = of_delta;
        own.exists[team] = c < f.width;
    }
    own.sum[threadIdx.x] = 0.0f;
}

INLINE float read_scalar(const mbr_tensor &t, int64_t i, float absent) {
    return t.data ? static_cast<const float *>(t.data)[i * t.stride[0]] : absent;
}

/* Of a lane over a tile. */
struct steps {
    float dt[STEPS], du[STEPS], y[STEPS];
    float sum; /* of dt */
};

/* From delta in s.dt and u in s.du. */
INLINE void prepare(steps &s, const place &at, float D, float bias, bool plus) {
    make_dt(s.dt, bias, plus);
    if (at.left < TILE) { /* steps that do not exist leave the state alone */
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] = at.first + i < at.left ? s.dt[i] : 0.0f;
    }
    s.sum = 0.0f;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        s.sum += s.dt[i];
        s.y[i] = D * s.du[i];
        s.du[i] *= s.dt[i];
    }
}

/* ---- results ----------------------------------------------------------------------- */

/* Writes a run of fp32 to a row of any stride. A team whose row does not exist comes
 * with left = 0. */
INLINE void store_floats(const float (&v)[STEPS], float *row, int64_t stride,
                         const place &at, int left, int how, exchange &team) {
    lay_out(team, pack_run<f32>(v).word, at.lane);
    const float *from = reinterpret_cast<const float *>(team.piece);
    if (how == IN_PIECES) { /* whole sectors of 32 bytes at a time */
        row += start_of(at.tile);
#pragma unroll
        for (int j = 0; j < STEPS / 4; j++) {
            const int i = (j * LANES + at.lane) * 4;
            if (i + 4 <= left)
                *reinterpret_cast<uint4 *>(row + i) = team.piece[j * LANES + at.lane];
        }
        const int rest = left / 4 * 4 + at.lane;
        if (rest < left)
            row[rest] = from[rest];
        return;
    }
    float *to = row + (start_of(at.tile) + at.lane) * stride;
#pragma unroll 2
    for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
        *to = from[i];
}

/* The same of 16-bit values. Words are written whole but for a row's ends; those of an
 * odd row begin with the position before. */
INLINE void store_halves(const float (&v)[STEPS], uint16_t *row, int64_t stride,
                         const place &at, int left, int how, bool is_f16,
                         exchange &team) {
    const run<half, STEPS> r = pack_run(v, is_f16);
    if (how == IN_PIECES && at.left == TILE) {
        if (left > 0)
            store_run(reinterpret_cast<half *>(row) + start_of(at.tile) + at.first, r);
        return;
    }
    lay_out(team, r.word, at.lane);
    const uint16_t *from = reinterpret_cast<const uint16_t *>(team.piece);
    if (how == IN_ELEMENTS) {
        uint16_t *to = row + (start_of(at.tile) + at.lane) * stride;
#pragma unroll 2
        for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
            *to = from[i];
        return;
    }
    uint16_t *to = row + start_of(at.tile);
    const int odd = (reinterpret_cast<uintptr_t>(to) & 2) / 2;
#pragma unroll 2
    for (int i = 2 * at.lane - odd; i < left; i += 2 * LANES) {
        if (i >= 0 && i + 1 < left)
            *reinterpret_cast<uint32_t *>(to + i) =
                from[i] | (uint32_t)from[i + 1] << 16;
        else
            to[max(i, 0)] = from[max(i, 0)];
    }
}

/* The same of out or out_z, in its own type. */
INLINE void store_result(const float (&v)[STEPS], const scan_forward &f, int which,
                         void *row, const place &at, int left, exchange &team) {
    const scan_rows &r = f.rows[which];
    if (!HALF || (which == ROWS_OUT && f.p.out.dtype_bits == 32))
        store_floats(v, static_cast<float *>(row), r.time, at, left, (int)r.how, team);
    else
        store_halves(v, static_cast<uint16_t *>(row), r.time, at, left, (int)r.how,
                     f.p.u.dtype_code == MBR_FLOAT, team);
}

/* ---- B and C ----------------------------------------------------------------------- */

/* Begins to fetch tiles of `count` states, all of which exist, in pieces, by all threads
 * of the block, which are a multiple of 64; `from` is where the first state's tile
 * begins. */
INLINE void fetch_whole_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                              int count, bool prefetches) {
    static_assert(64 % STATE_PIECES == 0,
                  "a thread keeps its piece from state to state");
    const int p = threadIdx.x % STATE_PIECES, states = blockDim.x / STATE_PIECES;
    from += threadIdx.x / STATE_PIECES * state_stride + p * PER_PIECE;
#pragma unroll 1
    for (int n = threadIdx.x / STATE_PIECES; n < count;
         n += states, from += states * state_stride) {
        copy_async<16>(&to.piece[n][piece_at(p)], from);
        if (prefetches)
            prefetch(from + TILE * PARTS);
    }
}

/* The same of any rows. Positions that do not exist become 0. */
INLINE void fetch_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                        int64_t stride, int count, const place &at, int how) {
    constexpr int WORDS_OF_STATE = 4 * STATE_PIECES;
    const int left = at.left * PARTS;
    const int across = min((int)blockDim.x, WORDS_OF_STATE);
    const int begin = threadIdx.x / across, states = blockDim.x / across;
#pragma unroll 1
    for (int w = threadIdx.x % across; w < WORDS_OF_STATE; w += across) {
        const IN *row = from + begin * state_stride;
#pragma unroll 1
        for (int n = begin; n < count; n += states, row += states * state_stride) {
            uint32_t *word =
                reinterpret_cast<uint32_t *>(&to.piece[n][piece_at(w / 4)]) + w % 4;
            if (how != IN_ELEMENTS) {
                const int odd = is_odd(row);
                copy_word(word, row - odd, w, left + odd);
                if (HALF && odd && w == 0)
                    copy_word(&to.beyond[n], row - odd + TILE * PARTS, 0,
                              beyond_odd(at));
                continue;
            }
#pragma unroll
            for (int k = 0; k < PER_WORD; k++) {
                const int i = w * PER_WORD + k;
                reinterpret_cast<IN *>(word)[k] = i < left ? row[i * stride] : IN{0};
            }
        }
    }
}

#endif
