# SPDX-License-Identifier: Apache-2.0
"""Faults that the suite must notice, for conformance/mutate.py: the file in the room,
the text that stands there once, what replaces it, and what that does."""

FAULTS = [
    ("cpu_bwd.c", "dA += q * r.dt[t];", "dA -= q * r.dt[t];", "a sign in dA"),
    (
        "cpu_bwd.c",
        "partial_at(f, f->dC, slice, w.b, w.g)",
        "partial_at(f, f->dC, slice, w.b, 0)",
        "dC summed into the first group",
    ),
    (
        "cpu_bwd.c",
        "    if (chunk == 0) {",
        "    if (chunk >= 0) {",
        "the state is not carried into a chunk",
    ),
    ("cpu_bwd.c", "g = a[t] * dh;", "g = dh;", "a decay missing on the way back"),
    (
        "cpu_bwd.c",
        "if (c->at.lanes == VW)\n        return;",
        "if (c->at.lanes)\n        return;",
        "idle lanes count in dB and dC",
    ),
    (
        "cpu_bwd.c",
        "c->dB[v + 1] = im * C[v] - re * C[v + 1];",
        "c->dB[v + 1] = im * C[v] + re * C[v + 1];",
        "a conjugate forgotten, constant complex B and C",
    ),
    (
        "cpu_fwd.c",
        "w->product + i * s->values);\n    w->sum[i] = v_set(0);",
        "w->product + i * s->values);",
        "the product in x counts earlier chunks twice",
    ),
    (
        "cpu_scan.h",
        "const int64_t row = (k.d + i) / s->repeat;",
        "const int64_t row = k.d / s->repeat;",
        "grouped delta: a wrong row in a block that meets several",
    ),
]

HARMLESS: list[tuple[str, str, str, str, str]] = [
    (
        "selective_scan/cpu_fwd.c",
        "slice_blocks",
        "",
        "",
        "how many blocks a task takes, of those that fit: speed only",
    ),
    (
        "selective_scan/cpu_fwd.c",
        "write_states",
        "w->sum[i] = v_set(0);",
        "-(v_set(0))",
        "minus zero, to which the next sum is added",
    ),
    (
        "selective_scan/cpu_fwd.c",
        "start_block",
        "w->h[first + v] = v_set(0);",
        "-(v_set(0))",
        "minus zero, to which the first term is added",
    ),
    (
        "selective_scan/cpu_fwd.c",
        "mbr_impl_selective_scan_fwd",
        "f.slice - 1) / f.slice",
        "f.slice - 0) / f.slice",
        "where they come out even one more slice, of no blocks",
    ),
    (
        "selective_scan/turns.cuh",
        "must_take_turns",
        "constexpr float most = 1 <<",
        "most = 1 >>",
        "turns are taken where they need not be: slower, as right",
    ),
    (
        "selective_scan/bwd_serial.cu",
        "",
        "s.dA[n] = 0.0f;",
        "-(0.0f)",
        "minus zero, to which the first term is added",
    ),
    (
        "selective_scan/cpu_scan.h",
        "load_channels",
        "i < VW && i < k.lanes",
        "i <= VW && i < k.lanes",
        "there are at most VW lanes",
    ),
    (
        "selective_scan/cpu_bwd.c",
        "choose_slices",
        "",
        "",
        "how many partial sums there are: memory and speed, and an order of adding",
    ),
    (
        "selective_scan/cpu_bwd.c",
        "lay_shared",
        "* 4);",
        "* 5);",
        "more workspace than is used",
    ),
    (
        "selective_scan/cpu_fwd.c",
        "start_block",
        "w->sum[i] = w->lost[i] = v_set(0);",
        "w->sum[i + 1]",
        "what the call before left on the stack is 0 as well: it ends by setting it so",
    ),
    (
        "selective_scan/cpu_bwd.c",
        "take",
        "+ 63) / 64 * 64;",
        "+ 64) / 64 * 64;",
        "more workspace than is used",
    ),
    (
        "selective_scan/fwd.cuh",
        "selective_scan_fwd_half_lanes4",
        "row += (start_of(at.tile) + at.lane) * stride;",
        "",
        "in fetch_elements: rows by elements are given no fewer than 8 lanes",
    ),
    (
        "selective_scan/bwd_sweep.cu",
        "",
        "__shared__ state_tiles B_tiles[2];",
        "B_tiles[3];",
        "more shared memory than is used",
    ),
]
