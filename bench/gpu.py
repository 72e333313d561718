# SPDX-License-Identifier: Apache-2.0
"""gpu.py - how fast and exact the modules are on a GPU, row by row beside upstream's.

    python bench/gpu.py [--upstream FOLDER] [--only WORD] [--repeats N] [--json FILE]

ci/times.py FILE... makes tables of the results, also of those of several calls.

Every row is first compared with float64, all channels of it, in every batch row if that
takes little time, else in the last one, without what is summed over the batch; then the
module's whole function is timed, its allocations included, with CUDA events, after a
flush of the L2 cache, and the median counts. The convolution writes into given memory,
as upstream's does. A row that is wrong is not timed and makes the exit status 1.

FOLDER holds one or more of upstream's modules, compiled for this Python, torch and
GPU: then they run on the same data, are compared in the same way and timed in turns
with ours. WORD chooses rows by their name or module. Upstream's times and errors on an
H200, as they were measured once, stand here too; times of another GPU do not compare
with those.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import itertools
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import mambarun
import torch
import torch.nn.functional as F

DEVICE = "cuda"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
FLUSH_BYTES = 600 << 20
CHUNK_ELEMENTS = 1 << 26  # of float64, in the comparison
#: the largest ||ours - float64|| / ||float64||: rounding to the dtype, or sums in fp32
TOLERANCE = {BF16: 2.6e-3, F16: 4e-4, F32: 2e-6}

#: what has no batch axis: of what is given, and of the gradients
WEIGHTS, OVER_BATCH = ("A", "D", "bias"), ("dA", "dD", "dbias")
ALL_ROWS = (
    1 << 29
)  # batch * dim * length * states up to which every batch row is compared

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Scan:
    """u and delta (batch, dim, length). One state: what VMamba calls (oflex, results in
    fp32); else what mamba_ssm calls. h200: upstream's ms forward and backward there, 0:
    unknown."""

    name: str
    batch: int
    dim: int
    length: int
    states: int
    groups: int
    dtype: torch.dtype
    z: bool
    h200: tuple[float, float]

    @property
    def oflex(self) -> bool:
        return self.states == 1

    @property
    def module(self) -> str:
        return "selective_scan_cuda" + ("_oflex" if self.oflex else "")

    @property
    def out(self) -> str:
        """What its result is called: its own dtype or fp32."""
        return "out in fp32" if self.oflex else "out"


@dataclass(frozen=True)
class Conv:
    name: str
    batch: int
    dim: int
    length: int
    dtype: torch.dtype
    channel_last: bool
    h200: tuple[float, float]

    module = "causal_conv1d_cuda"


SCANS = (
    Scan("Mamba-130M B8", 8, 1536, 2048, 16, 1, BF16, True, (0.449, 1.748)),
    Scan("Mamba-2.8B B1", 1, 5120, 2048, 16, 1, BF16, True, (0.197, 0.824)),
    Scan("Mamba-2.8B B8", 8, 5120, 2048, 16, 1, BF16, True, (1.451, 5.66)),
    Scan("Mamba-130M B1", 1, 1536, 2048, 16, 1, BF16, True, (0.069, 0)),
    Scan("long, 65536", 1, 1536, 65536, 16, 1, BF16, True, (2.237, 7.734)),
    Scan("fp32 B4", 4, 1536, 2048, 16, 1, F32, True, (0.457, 1.063)),
    Scan("odd, 2047", 8, 1536, 2047, 16, 1, BF16, True, (0.730, 0)),
    Scan("Vim B64", 64, 768, 197, 16, 1, F16, True, (0.394, 1.191)),
    Scan("VMamba stage 1, N16", 64, 768, 3136, 16, 4, F16, False, (5.34, 19.44)),
    Scan("VMamba stage 3, N16", 64, 3072, 196, 16, 4, F16, False, (1.458, 4.343)),
    Scan("VMamba stage 1, N1", 64, 384, 3136, 1, 4, F16, False, (0.548, 1.303)),
    Scan("VMamba stage 2, N1", 64, 768, 784, 1, 4, F16, False, (0.278, 0.703)),
    Scan("VMamba stage 3, N1", 64, 1536, 196, 1, 4, F16, False, (0.154, 0.444)),
    Scan("VMamba stage 4, N1", 64, 3072, 49, 1, 4, F16, False, (0.146, 0.392)),
)
#: by u's dtype: the largest ||upstream - float64|| / ||float64|| of a scan on an H200
H200_ERRORS = {
    BF16: {
        **dict.fromkeys(("out", "out_z"), 1.66e-3),
        **dict.fromkeys(("du", "ddelta", "dz"), 2.4e-3),
        **dict.fromkeys(("dB", "dC"), 1.6e-3),
        "state": 8e-7,
    },
    F16: {
        **dict.fromkeys(("out", "out_z"), 2.07e-4),
        **dict.fromkeys(("du", "ddelta", "dz", "dB", "dC"), 2.0e-4),
        "out in fp32": 1.3e-7,
        "state": 8e-7,
    },
    F32: {
        **dict.fromkeys(("out", "out_z"), 1.5e-7),
        **{"du": 1.6e-7, "ddelta": 3.6e-7, "dA": 1.2e-6, "dB": 4e-7, "dC": 4e-7},
        **{"dD": 1.1e-7, "dbias": 3.6e-7, "state": 8e-7},
    },
}
CONVS = (
    Conv("Mamba-130M B8", 8, 1536, 2048, BF16, False, (0.0316, 0.0524)),
    Conv("Mamba-130M B8, channel-last", 8, 1536, 2048, BF16, True, (0.0382, 0.0823)),
    Conv("Mamba-2.8B B1", 1, 5120, 2048, BF16, False, (0.0163, 0.0265)),
    Conv("long, 65536", 1, 1536, 65536, BF16, False, (0.1164, 0.1655)),
    Conv("fp32 B4", 4, 1536, 2048, F32, False, (0.0304, 0.0440)),
)

# ---- float64 ---------------------------------------------------------------------


def scan64(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """h[t] = a[t] h[t - 1] + b[t] along the last axis, in log2(length) steps."""
    step = 1
    while step < b.shape[-1]:
        carried = a[..., step:] * b[..., :-step] + b[..., step:]
        b = torch.cat([b[..., :step], carried], -1)
        a = torch.cat([a[..., :step], a[..., step:] * a[..., :-step]], -1)
        step *= 2
    return b


def scan_of_channels(row: Tensors, channels: slice, group: int) -> Tensors:
    """Forward and gradients of some channels of one group in one batch row."""
    u, delta, dout = (row[n][channels].double() for n in ("u", "delta", "dout"))
    A = row["A"][channels].double()[:, :, None]
    B, C = row["B"][group].double(), row["C"][group].double()
    D = row["D"][channels].double()[:, None]
    raw = delta + row["bias"][channels].double()[:, None]
    dt = F.softplus(raw, threshold=40)
    a = torch.exp(dt[:, None] * A)
    h = scan64(a, (dt * u)[:, None] * B)
    out = (h * C).sum(1) + D * u
    found = {"out": out, "out in fp32": out}
    dy = dout
    if "z" in row:
        z, sigmoid = row["z"][channels].double(), row["z"][channels].double().sigmoid()
        found["out_z"] = out * z * sigmoid
        slope = sigmoid * (1 + z * (1 - sigmoid))
        found["dz"] = dout * row["out"][channels].double() * slope
        dy = dout * z * sigmoid
    later = torch.cat([a[..., 1:], torch.zeros_like(a[..., :1])], -1)
    grad = scan64(later.flip(-1), (dy[:, None] * C).flip(-1)).flip(-1)
    found["du"] = D * dy + dt * (grad * B).sum(1)
    found["dB"] = (grad * (dt * u)[:, None]).sum(0)
    found["dC"] = (dy[:, None] * h).sum(0)
    before = torch.cat([torch.zeros_like(h[..., :1]), h[..., :-1]], -1)
    ddt = (grad * (B * u[:, None] + A * a * before)).sum(1)
    found["ddelta"] = ddt * torch.sigmoid(raw)
    found["dA"] = (grad * dt[:, None] * a * before).sum(-1)
    found["dD"] = (dy * u).sum(-1)
    found["dbias"] = found["ddelta"].sum(-1)
    found["state"] = h[..., -1]
    return found


def compare_scan(data: Tensors, ours: Tensors, rows: range) -> dict[str, float]:
    """Relative L2 errors over these batch rows; of OVER_BATCH only if that is all."""
    dim, length = data["u"].shape[1:]
    groups, states = data["B"].shape[1:3]
    per_group = dim // groups
    chunk = max(1, min(per_group, CHUNK_ELEMENTS // (states * length)))
    wrong: dict[str, float] = dict.fromkeys(ours, 0.0)
    size: dict[str, float] = dict.fromkeys(ours, 0.0)
    totals = {n: torch.zeros_like(ours[n].double()) for n in OVER_BATCH}

    def add(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
        wrong[name] += float((got.double() - want).square().sum())
        size[name] += float(want.square().sum())

    for b, group in itertools.product(rows, range(groups)):
        row = {n: t if n in WEIGHTS else t[b] for n, t in data.items()}
        sums: Tensors = {}
        for first in range(group * per_group, (group + 1) * per_group, chunk):
            channels = slice(first, min(first + chunk, (group + 1) * per_group))
            found = scan_of_channels(row, channels, group)
            for name in ("dB", "dC"):
                part = found.pop(name)
                sums[name] = sums[name] + part if name in sums else part
            for name, total in totals.items():
                total[channels] += found.pop(name)
            for name, want in found.items():
                if name in ours:
                    add(name, ours[name][b, channels], want)
        for name, want in sums.items():
            add(name, ours[name][b, group], want)
    if rows == range(len(data["u"])):
        for name, total in totals.items():
            add(name, ours[name], total)
    return {name: math.sqrt(wrong[name] / size[name]) for name in ours if size[name]}


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


# ---- one row ---------------------------------------------------------------------

Run = Callable[[], Any]
Prepared = "tuple[Run, Run, Callable[[], dict[str, float]]]"


def prepare_scan(row: Scan, scan: Any) -> Prepared:
    """The forward, the backward, and what compares both with float64."""

    def normal(*shape: int, dtype: torch.dtype = row.dtype) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE).to(dtype)

    wide = (row.batch, row.dim, row.length)
    u, delta = normal(*wide), normal(*wide, dtype=F32).abs().mul(0.1).to(row.dtype)
    states = torch.arange(1, row.states + 1, device=DEVICE, dtype=F32)
    A = -states * torch.exp(0.1 * normal(row.dim, row.states, dtype=F32))
    B, C = (normal(row.batch, row.groups, row.states, row.length) for _ in "BC")
    D = normal(row.dim, dtype=F32)
    rate = torch.exp(torch.empty(row.dim, device=DEVICE).uniform_(-6.9, -2.3))
    bias = rate + torch.log(-torch.expm1(-rate))  # whose softplus is the rate
    z = normal(*wide) if row.z else None
    if row.oflex:
        dout = normal(*wide, dtype=F32)
        given = (u, delta, A, B, C, D, bias)

        def forward() -> Any:
            return scan.fwd(*given, True, 1, True)

        def backward() -> Any:
            return scan.bwd(*given, dout, x, True, 1)
    else:
        dout = normal(*wide)
        given = (u, delta, A, B, C, D, z, bias)

        def forward() -> Any:
            return scan.fwd(*given, True)

        def backward() -> Any:
            return scan.bwd(*given, dout, x, out if row.z else None, None, True, False)

    out, x, *out_z = forward()

    def compare() -> dict[str, float]:
        data = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "bias": bias}
        data.update(dout=dout, out=out)
        du, ddelta, dA, dB, dC, dD, dbias, *dz = backward()
        ours = {row.out: out, "state": x[:, :, -1, 1::2]}
        ours.update(du=du, ddelta=ddelta, dA=dA, dB=dB, dC=dC, dD=dD, dbias=dbias)
        if z is not None:
            data["z"] = z
            ours.update(out_z=out_z[0], dz=dz[0])
        first = 0 if math.prod(wide) * row.states <= ALL_ROWS else row.batch - 1
        return compare_scan(data, ours, range(first, row.batch))

    return forward, backward, compare


def prepare_conv(row: Conv, conv: Any) -> Prepared:
    def wide() -> torch.Tensor:
        shape = (row.batch, row.length, row.dim) if row.channel_last else None
        shape = shape or (row.batch, row.dim, row.length)
        tensor = torch.randn(shape, device=DEVICE).to(row.dtype)
        return tensor.transpose(1, 2) if row.channel_last else tensor

    x, dout, width = wide(), wide(), 4
    weight = torch.randn(row.dim, width, device=DEVICE).to(row.dtype)
    bias = torch.randn(row.dim, device=DEVICE).to(row.dtype)
    out, dx = torch.empty_like(x), torch.empty_like(x)
    dweight, dbias = (torch.zeros_like(t, dtype=F32) for t in (weight, bias))

    def forward() -> Any:
        conv.causal_conv1d_fwd(x, weight, bias, None, None, out, None, True)

    def backward() -> Any:
        conv.causal_conv1d_bwd(
            x, weight, bias, dout, None, None, None, dx, dweight, dbias, None, True
        )

    def compare() -> dict[str, float]:
        forward()
        backward()
        leaves = [t.double().requires_grad_() for t in (x, weight, bias)]
        wanted = F.conv1d(
            leaves[0], leaves[1][:, None], leaves[2], padding=width - 1, groups=row.dim
        )
        wanted = F.silu(wanted[..., : row.length])
        gradients = torch.autograd.grad(wanted, leaves, dout.double())
        ours = {"out": out, "dx": dx, "dweight": dweight, "dbias": dbias}
        pairs = zip(ours.items(), (wanted.detach(), *gradients))
        return {name: error(got, want) for (name, got), want in pairs}

    return forward, backward, compare


# ---- timing ----------------------------------------------------------------------


def median_ms(runs: list[Run], flush: torch.Tensor, repeats: int) -> list[float]:
    """Of each, run in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, found in zip(runs, times):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            begin.record()
            run()
            end.record()
            end.synchronize()
            found.append(begin.elapsed_time(end))
    return [statistics.median(found) for found in times]


def copy_rate() -> float:
    """TB/s read and written by a copy within the device."""
    source = torch.zeros(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    nothing = torch.empty(0, device=DEVICE)
    (ms,) = median_ms([lambda: target.copy_(source)], nothing, 5)
    return 2 * source.numel() * 4 / ms / 1e9


def tolerance(name: str, row: Scan | Conv) -> float:
    if name in ("dweight", "state", *OVER_BATCH):  # fp32, and sums over time
        return 1e-5
    if name == "out in fp32":
        return TOLERANCE[F32]
    return TOLERANCE[row.dtype] * (2.5 if row.dtype == F32 and name != "out" else 1)


def load_upstream(folder: str) -> dict[str, Any]:
    """Their modules by name, beside ours of the same names."""
    found = {}
    for name in sorted({row.module for row in (*SCANS, *CONVS)}):
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder, name + suffix)
            if path.exists():
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None and spec.loader is not None
                found[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(found[name])
                break
    if not found:
        sys.exit(f"none of upstream's modules is in {folder}")
    return found


def rounded(errors: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{e:.3g}") for name, e in errors.items()}


def measure(
    row: Scan | Conv, theirs: dict[str, Any], flush: torch.Tensor, repeats: int
) -> dict[str, Any]:
    prepare: Any = prepare_scan if isinstance(row, Scan) else prepare_conv
    found: dict[str, Any] = {
        "op": row.module.replace("_cuda", ""),
        "row": row.name,
        "dtype": str(row.dtype).replace("torch.", ""),
    }
    suppliers = [importlib.import_module(row.module)]
    if row.module in theirs:
        suppliers.append(theirs[row.module])
    ways = []
    for key, supplier in zip(("errors", "upstream_errors"), suppliers):
        torch.manual_seed(0)  # the same data
        try:
            *runs, compare = prepare(row, supplier)
            errors = compare()
        except RuntimeError as failure:
            return {**found, "wrong": f"{key}: " + str(failure).partition("\n")[0]}
        ways.append(runs)
        found[key] = rounded(errors)
    beyond = [n for n, e in found["errors"].items() if not e <= tolerance(n, row)]
    if beyond:
        return {**found, "wrong": "beyond rounding: " + ", ".join(beyond)}
    if isinstance(row, Scan):
        known = H200_ERRORS[row.dtype]
        found["upstream_h200_errors"] = {n: known[n] for n in errors if n in known}
    for name, runs, h200 in zip(("forward", "backward"), zip(*ways), row.h200):
        ms, *upstream = median_ms(list(runs), flush, repeats)
        found[name] = {"ms": round(ms, 4), "upstream_h200_ms": h200 or None}
        if upstream:
            found[name]["upstream_ms"] = round(upstream[0], 4)
            found[name]["upstream_over_ours"] = round(upstream[0] / ms, 2)
    return found


def print_row(found: dict[str, Any]) -> None:
    said = [f"{found['op']}, {found['row']}:"]
    for name in ("forward", "backward"):
        times = found.get(name, {})
        if times:
            said.append(f"{name} {times['ms']} ms,")
        if "upstream_ms" in times:
            said.append(f"upstream's {times['upstream_ms']} ms,")
    said.append("WRONG: " + found["wrong"] if "wrong" in found else "right")
    print(*said, flush=True)


def driver() -> str:
    query = ["nvidia-smi", "-i", "0", "--query-gpu=driver_version"]
    said = subprocess.run(
        [*query, "--format=csv,noheader"], capture_output=True, text=True
    )
    return said.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", metavar="FOLDER", help="time these modules too")
    parser.add_argument("--only", default="", help="rows whose name or module has this")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="also write all figures there")
    given = parser.parse_args()
    chosen = [r for r in (*SCANS, *CONVS) if given.only in f"{r.module} {r.name}"]
    if not chosen:
        sys.exit(f"no row's name or module has {given.only}")
    if not torch.cuda.is_available():
        sys.exit("NotSupported: torch finds no GPU here")
    theirs = load_upstream(given.upstream) if given.upstream else {}
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=DEVICE)
    mambarun.preload(0)
    about = {
        "gpu": torch.cuda.get_device_name(0),
        "driver": driver(),
        "copy_tb_per_s": round(copy_rate(), 2),
        "variant": next(v["name"] for v in mambarun.info(0)["variants"] if v["usable"]),
        "mambarun": mambarun.info()["version"],
        "torch": torch.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rows = []
    for row in chosen:
        rows.append(measure(row, theirs, flush, given.repeats))
        print_row(rows[-1])
        torch.cuda.empty_cache()
    if given.json:
        Path(given.json).write_text(
            json.dumps({**about, "rows": rows}, indent=1) + "\n"
        )
    return 1 if any("wrong" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
