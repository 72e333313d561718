/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cuh - how the backward's kernels move rows of (batch, channel, time) tensors and
 * tiles of B and C. A row is worked by a team of LANES lanes, each of which holds STEPS
 * consecutive positions, its run, of a tile of TILE.
 *
 * Everything is read a tile ahead into shared memory, in its own type: in pieces of 16
 * bytes or in words where memory allows (cuda_scan.h), else element by element. The
 * words of a 16-bit row may begin one position before it; the row is shifted by that
 * when a lane takes its run.
 */
#ifndef MBR_BWD_CUH
#define MBR_BWD_CUH

#include "tiles.cuh"

/* Where a lane stands: its positions are start + first.., of which left - first exist,
 * and of the tile after this one `further`. */
struct place {
    int64_t start;
    int first, left, further, lane;
};

/* `further` is 0 or 1: of the next tile, which lies to the right, one position at most
 * is of interest, the other half of a word. */
INLINE place place_of(int tile, int64_t length, int lane) {
    const int64_t start = (int64_t)tile * TILE, left = length - start;
    return {start, lane * STEPS, (int)min((int64_t)TILE, left), left > TILE, lane};
}

/* Of `elements` from some position on, how many bytes belong to the `size` there. */
INLINE int bytes_of(int elements, int size) {
    return max(0, min(size, elements * (int)sizeof(IN)));
}

/* ---- rows ------------------------------------------------------------------- */

/* Begins to copy the team's tile of a row into the runs of its lanes. Neighbouring
 * lanes copy neighbouring pieces, not their own, so that whole sectors are asked for at
 * once. */
INLINE void fetch_run(team_runs &to, const IN *row, int64_t stride, const place &at,
                      int how) {
    const int team = threadIdx.x - at.lane;
    if (how == IN_ELEMENTS) {
        const IN *from = row + (at.start + at.lane) * stride;
#pragma unroll 4
        for (int i = at.lane; i < TILE; i += LANES, from += LANES * stride) {
            uint4 *piece = &to.piece[i % STEPS / PER_PIECE][team + i / STEPS];
            reinterpret_cast<IN *>(piece)[i % PER_PIECE] = i < at.left ? *from : IN{0};
        }
        return;
    }
    const IN *from = row + at.start;
    if (how == IN_PIECES) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int p = i * LANES + at.lane, first = p * PER_PIECE;
            copy_async<16>(&to.piece[p % PIECES][team + p / PIECES], from + first,
                           bytes_of(at.left - first, 16));
        }
        return;
    }
    const int odd = is_odd(from), left = at.left + odd;
    from += at.lane * PER_WORD - odd;
    const auto word_of =
        [&](int w) { /* word w of the team's */
                     uint4 *piece =
                         &to.piece[w % WORDS_OF_RUN / 4][team + w / WORDS_OF_RUN];
                     return reinterpret_cast<uint32_t *>(piece) + w % 4;
        };
    if (left >= TILE) {
#pragma unroll
        for (int i = 0; i < WORDS_OF_RUN; i++)
            copy_async<4>(word_of(i * LANES + at.lane), from + i * LANES * PER_WORD, 4);
    } else {
#pragma unroll 1
        for (int w = at.lane; w < TILE / PER_WORD; w += LANES, from += LANES * PER_WORD)
            copy_async<4>(word_of(w), from, bytes_of(left - w * PER_WORD, 4));
    }
    if (odd && at.lane == 0)
        copy_async<4>(&to.beyond[team / LANES], row + at.start - odd + TILE,
                      at.further > 0 ? 4 : bytes_of(left - TILE, 4));
}

/* ---- results ---------------------------------------------------------------- */

/* Writes a run of fp32 to a row of any stride. A team whose row does not exist comes
 * with left = 0. */
INLINE void store_floats(const float (&v)[STEPS], float *row, int64_t stride,
                         const place &at, int left, int how, exchange &team) {
    lay_out(team, pack_run<f32>(v).word, at.lane);
    const float *from = reinterpret_cast<const float *>(team.piece);
    if (how == IN_PIECES) { /* whole sectors of 32 bytes at a time */
#pragma unroll
        for (int j = 0; j < STEPS / 4; j++) {
            const int i = (j * LANES + at.lane) * 4;
            if (i + 4 <= left)
                *reinterpret_cast<uint4 *>(row + at.start + i) = team.piece[i / 4];
        }
        const int rest = left / 4 * 4 + at.lane;
        if (rest < left)
            row[at.start + rest] = from[rest];
        return;
    }
    float *to = row + (at.start + at.lane) * stride;
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
            store_run(reinterpret_cast<half *>(row) + at.start + at.first, r);
        return;
    }
    lay_out(team, r.word, at.lane);
    const uint16_t *from = reinterpret_cast<const uint16_t *>(team.piece);
    if (how == IN_ELEMENTS) {
        uint16_t *to = row + (at.start + at.lane) * stride;
#pragma unroll 2
        for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
            *to = from[i];
        return;
    }
    uint16_t *to = row + at.start;
    const int odd = (reinterpret_cast<uintptr_t>(to) & 2) / 2;
#pragma unroll 2
    for (int i = 2 * at.lane - odd; max(i, 0) < left; i += 2 * LANES) {
        if (i >= 0 && i + 1 < left)
            *reinterpret_cast<uint32_t *>(to + i) = from[i] | (uint32_t)from[i + 1]
                                                                  << 16;
        else
            to[max(i, 0)] = from[max(i, 0)];
    }
}

/* ---- B and C ---------------------------------------------------------------- */

/* Begins to fetch tiles of `count` states, by all threads of the block, which are a
 * multiple of 64; `from` is where the first state's tile begins. Positions that do not
 * exist become 0. */
INLINE void fetch_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                        int64_t stride, int count, const place &at, int how) {
    constexpr int WORDS_OF_STATE = 4 * STATE_PIECES;
    static_assert(64 % STATE_PIECES == 0,
                  "a thread keeps its piece from state to state");
    const int left = at.left * PARTS;
    if (how == IN_WORDS) {
        const int across = min((int)blockDim.x, WORDS_OF_STATE);
        const int begin = threadIdx.x / across, states = blockDim.x / across;
#pragma unroll 1
        for (int w = threadIdx.x % across; w < WORDS_OF_STATE; w += across) {
            const IN *row = from + begin * state_stride + w * PER_WORD;
#pragma unroll 1
            for (int n = begin; n < count; n += states, row += states * state_stride) {
                const int odd = is_odd(row);
                uint4 *piece = &to.piece[n][piece_at(w / 4)];
                copy_async<4>(reinterpret_cast<uint32_t *>(piece) + w % 4, row - odd,
                              bytes_of(left + odd - w * PER_WORD, 4));
            }
        }
        if (HALF && threadIdx.x < count) {
            const int last = TILE * PARTS - 1;
            const IN *row = from + threadIdx.x * state_stride;
            if (is_odd(row))
                copy_async<4>(&to.beyond[threadIdx.x], row + last,
                              at.further > 0 ? 4 : bytes_of(left - last, 4));
        }
        return;
    }
    const int p = threadIdx.x % STATE_PIECES, first = p * PER_PIECE;
    const int states = blockDim.x / STATE_PIECES;
    const int bytes = bytes_of(left - first, 16);
    from += threadIdx.x / STATE_PIECES * state_stride + first * stride;
#pragma unroll 1
    for (int n = threadIdx.x / STATE_PIECES; n < count;
         n += states, from += states * state_stride) {
        uint4 *piece = &to.piece[n][piece_at(p)];
        if (how == IN_PIECES) {
            copy_async<16>(piece, from, bytes);
            continue;
        }
#pragma unroll 1
        for (int k = 0; k < PER_PIECE; k++)
            reinterpret_cast<IN *>(piece)[k] =
                first + k < left ? from[k * stride] : IN{0};
    }
}

#endif
