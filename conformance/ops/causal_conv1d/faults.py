# SPDX-License-Identifier: Apache-2.0
"""Faults that the suite must notice, for conformance/mutate.py: the file in the room,
the text that stands there once, what replaces it, and what that does."""

FAULTS = [
    (
        "cpu_fwd.c",
        "ids_at(l, ids, i, width - 1) >= 0",
        "ids_at(l, ids, i, width - 1) >= -1",
        "padding is not zeroed",
    ),
    (
        "cpu_fwd.c",
        "v_move(state, 0, (start + t) % length)",
        "v_move(state, 0, (start + t + 1) % length)",
        "the ring is written one column late",
    ),
    (
        "cpu_fwd.c",
        "        carry_history(k, x, units_of(k, s->channels), steps);",
        "",
        "inputs are not carried over a tile",
    ),
    (
        "cpu_bwd.c",
        "back[j] = w[width - 1 - j];",
        "back[j] = w[j];",
        "dx with the taps in the wrong order",
    ),
    (
        "cpu_bwd.c",
        "d = d * sigmoid * (one + y * (one - sigmoid));",
        "d = d * sigmoid * (one - y * (one - sigmoid));",
        "a sign in the slope of silu",
    ),
    (
        "cpu_tile.h",
        "v_tile_load(column, turned(v_move(p, 0, t)), (int)smaller(steps - t, VW),",
        "v_tile_load(column, turned(v_move(p, 0, t)), (int)smaller(steps, VW),",
        "reads behind the end of an input",
    ),
]

HARMLESS: list[tuple[str, str, str, str, str]] = [
    (
        "causal_conv1d/cpu_bwd.c",
        "begin_gradient",
        "sums ignored = {{0}};",
        "",
        "these sums are thrown away",
    ),
    (
        "causal_conv1d/cpu_fwd.c",
        "mbr_impl_causal_conv1d_update",
        "dim = p->x.shape[1]",
        "",
        "an estimate of the work: the number of threads, no result",
    ),
    (
        "causal_conv1d/cpu_fwd.c",
        "mbr_impl_causal_conv1d_update",
        "batch * dim * seqlen), tasks,",
        "workers_for(&p->call, tasks, batch",
        "the same estimate",
    ),
    (
        "causal_conv1d/cpu_tile.h",
        "load_taps",
        "v_bytes(v_type(bias)), 0,",
        "v_bytes(v_type(bias)), 1,",
        "a bias is one step: where a second one would be does not matter",
    ),
    (
        "causal_conv1d/cpu_tile.h",
        "load_taps",
        "i < channels;",
        "i <= channels;",
        "one more round, of no channels: it clears what is loaded later, or not used",
    ),
    (
        "causal_conv1d/cpu_tile.h",
        "cut_planes",
        "int channels_adjoin =",
        "",
        "along which axis the lanes run: speed only, each way takes any strides",
    ),
    (
        "causal_conv1d/cpu_bwd.c",
        "plan_backward",
        "cut_planes(&p->x, width, seqlen + width - 1)",
        "",
        "a tile may be longer by a step than there are columns",
    ),
    (
        "causal_conv1d/channel.cuh",
        "has_ids",
        "IDS == 2 ?",
        "!(IDS == 2) ?",
        "a row with IDS 0 is taken only without seq_idx, one with IDS 1 only with it",
    ),
    (
        "causal_conv1d/time.cuh",
        "",
        "if (threadIdx.x % 32 == 0)",
        "!= 0",
        "every lane has the same sum and writes it to the same place",
    ),
    (
        "causal_conv1d/cpu_bwd.c",
        "store_gradient",
        "if (lead > 0 &&",
        "if (lead >= 0 &&",
        "no columns are stored then",
    ),
    (
        "causal_conv1d/cpu_fwd.c",
        "convolve_times",
        "t < to;",
        "t <= to;",
        "one more round, of no steps",
    ),
    (
        "causal_conv1d/channel.cuh",
        "load",
        "first + c < dim ?",
        "first - c < dim ?",
        "taps are read behind the last channel's: for lanes that have no channel",
    ),
]
