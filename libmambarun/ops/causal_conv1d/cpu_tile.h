/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_tile.h - what this room's CPU kernels share: how a plane (channels, time) is cut
 * into fp32 tiles, how a tile is filled and emptied, and the sum over the taps.
 *
 * The lanes of a vector run along whichever axis lies side by side in memory, so no
 * layout pays for the other. A tile is a number of units:
 *
 *                 TIME_LANES                     CHANNEL_LANES
 *   unit u        channel u                      channels u * VW ..
 *   its vector i  times i * VW ..                time i
 *   one tap       1 float further                VW floats further
 *
 * and everything below is written once, in units, vectors and taps. Tiles of inputs
 * have width - 1 columns of history in front: column j is time t + j - (width - 1).
 */
#ifndef MBR_CAUSAL_CONV1D_CPU_TILE_H
#define MBR_CAUSAL_CONV1D_CPU_TILE_H

#include "../../variant/cpu.h"
#include "../../variant/pool.h"

enum {
    MAX_WIDTH = 4,
    MAX_CHANNELS = 64,
    MAX_STEPS = 512, /* with TIME_LANES */
    MAX_ROWS = 128,  /* with CHANNEL_LANES: backward adds up so many numbers in a row */
    TILE = 2048,     /* elements: three tiles take half of the first cache */
    TILE_FLOATS = TILE + MAX_CHANNELS * VW,
    MAX_IDS = MAX_STEPS + VW + MAX_WIDTH,
    SEGMENT = 2 * MAX_STEPS, /* times of one task */
    LINES_AHEAD = 16,
    GRAIN = 1 << 14 /* elements worth waking a thread for */
};

typedef enum lanes { TIME_LANES, CHANNEL_LANES } lanes;

typedef struct cut {
    lanes lanes;
    int width;
    int64_t dim, seqlen;
    int64_t channels, steps; /* of a full tile */
    int64_t unit;            /* floats from one unit to the next */
} cut;

typedef struct taps { /* of VW channels: the weights, then at [width] the bias */
    vf w[MAX_WIDTH + 1];
} taps;

V_INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

V_INLINE int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

V_INLINE int64_t quotient_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Tiles for going over so many columns of planes like x. Depends on shapes and strides
 * only, never on the number of threads: backward sums tile by tile. */
static inline cut cut_planes(const mbr_tensor *x, int width, int64_t columns) {
    cut k = {.width = width, .dim = x->shape[1], .seqlen = x->shape[2]};
    int channels_adjoin = x->stride[1] == 1 && x->stride[2] != 1;
    k.lanes =
        k.seqlen < VW || (k.dim >= VW && channels_adjoin) ? CHANNEL_LANES : TIME_LANES;
    if (k.lanes == TIME_LANES) {
        k.steps = smaller(quotient_up(columns, VW) * VW, MAX_STEPS);
        k.channels = smaller(TILE / k.steps, MAX_CHANNELS);
        k.unit = k.steps + VW;
    } else {
        k.channels = smaller(quotient_up(k.dim, VW) * VW, MAX_CHANNELS);
        k.steps = smaller(smaller(columns, TILE / k.channels), MAX_ROWS);
        k.unit = (k.steps + k.width - 1) * VW;
    }
    return k;
}

V_INLINE int64_t blocks_of(const cut *k) {
    return quotient_up(k->dim, k->channels);
}

V_INLINE int64_t units_of(const cut *k, int64_t channels) {
    return k->lanes == TIME_LANES ? channels : quotient_up(channels, VW);
}

V_INLINE int64_t vectors_of(lanes l, int64_t steps) {
    return l == TIME_LANES ? quotient_up(steps, VW) : steps;
}

V_INLINE int64_t tap_of(lanes l) {
    return l == TIME_LANES ? 1 : VW;
}

/* Column 0 of a tile with history, placed so that column width - 1 is aligned. */
V_INLINE float *column_0(const cut *k, float *tile) {
    return k->lanes == TIME_LANES ? tile + VW - (k->width - 1) : tile;
}

/* At most so many threads as have enough to do. */
V_INLINE int32_t workers_for(const mbr_call *call, int64_t tasks, int64_t elements) {
    return mbr__workers(call->threads, smaller(tasks, 1 + elements / GRAIN));
}

/* Batch row b of a (B, D, L) tensor: lane is channel, step is time. Absent stays so. */
V_INLINE v_plane row_of(const mbr_tensor *t, int64_t b) {
    if (!t->data)
        return (v_plane){0};
    v_plane p = v_plane_of(t, 1, 2);
    p.data += b * t->stride[0] * v_bytes(p.type);
    return p;
}

V_INLINE v_plane turned(v_plane p) {
    return (v_plane){p.data, p.step, p.lane, p.type};
}

/* ---- filling and emptying -------------------------------------------------------- */

/* Moves between memory and a tile where the lanes lie side by side: lines of so many
 * elements, pitch bytes apart in memory. In the tile the vectors of a line are across
 * floats apart, the lines down. Line by line, and asking for later lines ahead: memory
 * is what takes the time, and lines a page apart are not foreseen by the processor. */
typedef struct lines {
    int64_t count, length, pitch, down, across;
} lines;

V_INLINE void load_lines_as(float *tile, const char *from, lines m, int type) {
    const uintptr_t ahead = LINES_AHEAD * (uintptr_t)m.pitch; /* perhaps outside */
    for (int64_t r = 0; r < m.count; r++, tile += m.down, from += m.pitch) {
        float *to = tile;
        for (int64_t i = 0; i < m.length; i += VW, to += m.across) {
            const char *at = from + i * v_bytes(type);
            const int64_t left = m.length - i;
            __builtin_prefetch((const void *)((uintptr_t)at + ahead));
            v_store(to, V_F32,
                    left < VW ? v_load_some(at, type, (int)left) : v_load(at, type));
        }
    }
}

V_INLINE void store_lines_as(const float *tile, char *to, lines m, int type) {
    for (int64_t r = 0; r < m.count; r++, tile += m.down, to += m.pitch) {
        const float *from = tile;
        for (int64_t i = 0; i < m.length; i += VW, from += m.across) {
            char *at = to + i * v_bytes(type);
            const int64_t left = m.length - i;
            if (left < VW)
                v_store_some(at, type, v_load(from, V_F32), (int)left);
            else
                v_store(at, type, v_load(from, V_F32));
        }
    }
}

V_INLINE lines lines_of(const cut *k, v_plane p, int64_t channels, int64_t steps) {
    if (k->lanes == TIME_LANES)
        return (lines){channels, steps, p.lane, k->unit, VW};
    return (lines){steps, channels, p.step, VW, k->unit};
}

V_INLINE int lanes_adjoin(const cut *k, v_plane p) {
    return (k->lanes == TIME_LANES ? p.step : p.lane) == v_bytes(p.type);
}

/* Columns at .. at + steps of a tile <- the first channels and steps of p. Up to the
 * end of the last vector what lies behind becomes 0. */
V_CALL void load_tile(const cut *k, float *tile, int64_t at, v_plane p,
                      int64_t channels, int64_t steps) {
    tile += at * tap_of(k->lanes);
    if (lanes_adjoin(k, p)) {
        const lines m = lines_of(k, p, channels, steps);
        if (p.type == V_F32)
            load_lines_as(tile, p.data, m, V_F32);
        else if (p.type == V_F16)
            load_lines_as(tile, p.data, m, V_F16);
        else
            load_lines_as(tile, p.data, m, V_BF16);
    } else if (k->lanes == CHANNEL_LANES) {
        for (int64_t c = 0; c < channels; c += VW, tile += k->unit)
            v_tile_load((vf *)tile, v_move(p, c, 0), (int)smaller(channels - c, VW),
                        steps);
    } else {
        for (int64_t t = 0; t < steps; t += VW) {
            vf column[MAX_CHANNELS];
            v_tile_load(column, turned(v_move(p, 0, t)), (int)smaller(steps - t, VW),
                        channels);
            for (int64_t c = 0; c < channels; c++)
                v_store(tile + c * k->unit + t, V_F32, column[c]);
        }
    }
}

/* The way back, rounded to p's dtype; touches nothing beyond. */
V_CALL void store_tile(const cut *k, const float *tile, int64_t at, v_plane p,
                       int64_t channels, int64_t steps) {
    tile += at * tap_of(k->lanes);
    if (lanes_adjoin(k, p)) {
        const lines m = lines_of(k, p, channels, steps);
        if (p.type == V_F32)
            store_lines_as(tile, p.data, m, V_F32);
        else if (p.type == V_F16)
            store_lines_as(tile, p.data, m, V_F16);
        else
            store_lines_as(tile, p.data, m, V_BF16);
    } else if (k->lanes == CHANNEL_LANES) {
        for (int64_t c = 0; c < channels; c += VW, tile += k->unit)
            v_tile_store((const vf *)tile, v_move(p, c, 0),
                         (int)smaller(channels - c, VW), steps);
    } else {
        for (int64_t t = 0; t < steps; t += VW) {
            vf column[MAX_CHANNELS];
            for (int64_t c = 0; c < channels; c++)
                column[c] = v_load(tile + c * k->unit + t, V_F32);
            v_tile_store(column, turned(v_move(p, 0, t)), (int)smaller(steps - t, VW),
                         channels);
        }
    }
}

/* No inputs before the tile: zeros. */
static inline void clear_history(const cut *k, float *tile, int64_t units) {
    for (int64_t u = 0; u < units; u++, tile += k->unit)
        memset(tile, 0, (size_t)((k->width - 1) * tap_of(k->lanes)) * sizeof *tile);
}

/* The last width - 1 of steps columns become the history of the next tile. */
static inline void carry_history(const cut *k, float *tile, int64_t units,
                                 int64_t steps) {
    const int64_t tap = tap_of(k->lanes);
    for (int64_t u = 0; u < units; u++, tile += k->unit)
        memmove(tile, tile + steps * tap,
                (size_t)((k->width - 1) * tap) * sizeof *tile);
}

/* Weights and bias of channels c .. c + channels. */
static inline void load_taps(const cut *k, taps *w, const mbr_tensor *weight,
                             const mbr_tensor *bias, int64_t c, int64_t channels) {
    v_plane rows = v_move(v_plane_of(weight, 0, 1), c, 0);
    for (int64_t i = 0; i < channels; i += VW, w++) {
        int n = (int)smaller(channels - i, VW);
        v_tile_load(w->w, v_move(rows, i, 0), n, k->width);
        w->w[k->width] = (vf){0};
        if (bias->data) {
            v_plane b = {bias->data, bias->stride[0] * v_bytes(v_type(bias)), 0,
                         v_type(bias)};
            v_tile_load(w->w + k->width, v_move(b, c + i, 0), n, 1);
        }
    }
}

/* ids[j], the sequence id of column j of the tile at time t: -1 before time 0, as
 * upstream has it, and after the last. NULL if there are none. */
static inline const int32_t *load_ids(const cut *k, int32_t *ids,
                                      const mbr_tensor *seq_idx, int64_t b, int64_t t,
                                      int64_t steps) {
    if (!seq_idx->data)
        return NULL;
    const int32_t *row = (const int32_t *)seq_idx->data + b * seq_idx->stride[0];
    int64_t count = quotient_up(steps, VW) * VW + k->width - 1;
    for (int64_t j = 0; j < count; j++) {
        int64_t time = t + j - (k->width - 1);
        ids[j] = time < 0 || time >= k->seqlen ? -1 : row[time * seq_idx->stride[1]];
    }
    return ids;
}

/* ---- the sum over the taps ------------------------------------------------------- */

/* Unit u's weights and bias, one vector each. */
V_INLINE void spread_taps(vf *w, const taps *all, lanes l, int width, int64_t u) {
    for (int i = 0; i <= width; i++)
        w[i] = l == TIME_LANES ? v_set(((const float *)&all[u / VW].w[i])[u % VW])
                               : all[u].w[i];
}

/* Ids of column j as vector i sees it. */
V_INLINE vi ids_at(lanes l, const int32_t *ids, int64_t i, int j) {
    vi v;
    if (l == CHANNEL_LANES)
        return ids[i + j] - (vi){0};
    memcpy(&v, ids + i * VW + j, sizeof v);
    return v;
}

/* same[j]: where column j belongs to the sequence of column anchor. */
V_INLINE void match_ids(vi *same, lanes l, int width, const int32_t *ids, int64_t i,
                        int anchor) {
    for (int j = 0; j < width; j++)
        same[j] = ids_at(l, ids, i, j) == ids_at(l, ids, i, anchor);
}

/* sum + w[0] x[0] + w[1] x[1 tap on] + ..., in that order; without the terms that same,
 * if given, rules out: these are skipped, not multiplied by 0. */
V_INLINE vf add_taps(vf sum, const vf *w, int width, const float *x, int64_t tap,
                     const vi *same) {
    for (int j = 0; j < width; j++) {
        vf more = sum + w[j] * v_load(x + j * tap, V_F32);
        sum = same ? (vf)v_select(same[j], (vu)more, (vu)sum) : more;
    }
    return sum;
}

/* CALL(lanes, width) with both as constants, which is what makes the kernels fast. */
#define FOR_THIS_CUT(k, CALL)                                                          \
    switch ((k)->lanes * 8 + (k)->width) {                                             \
    case TIME_LANES * 8 + 2:                                                           \
        CALL(TIME_LANES, 2);                                                           \
        break;                                                                         \
    case TIME_LANES * 8 + 3:                                                           \
        CALL(TIME_LANES, 3);                                                           \
        break;                                                                         \
    case TIME_LANES * 8 + 4:                                                           \
        CALL(TIME_LANES, 4);                                                           \
        break;                                                                         \
    case CHANNEL_LANES * 8 + 2:                                                        \
        CALL(CHANNEL_LANES, 2);                                                        \
        break;                                                                         \
    case CHANNEL_LANES * 8 + 3:                                                        \
        CALL(CHANNEL_LANES, 3);                                                        \
        break;                                                                         \
    case CHANNEL_LANES * 8 + 4:                                                        \
        CALL(CHANNEL_LANES, 4);                                                        \
        break;                                                                         \
    }

#endif
