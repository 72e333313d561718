# SPDX-License-Identifier: Apache-2.0
"""vmamba_digits.py - a small VMamba learns to read digits, on a CPU or a GPU.

The network is VMamba's in miniature: patch embedding, then blocks of SS2D (the image is
read along four directions by a selective scan) and an MLP, with one 2x2 merge between
two stages. The scan is called exactly as VMamba calls it, through an autograd function
over the compiled module `selective_scan_cuda_oflex`, which mambarun supplies.

    python examples/vmamba_digits.py                  train, print the test accuracy
    python examples/vmamba_digits.py --device cuda    the same on a GPU
    python examples/vmamba_digits.py --check          compare the scan with plain torch

Needs torch, scikit-learn (which bundles the digits) and, for the picture, matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time

import mambarun
import selective_scan_cuda_oflex
import torch
import torch.nn.functional as F
from torch import nn

EPOCHS, PEAK_RATE, GOAL = 25, 3e-3, 0.97

# ---------------------------------------------------------------- the scan, two ways


class SelectiveScan(torch.autograd.Function):
    """VMamba's scan: h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t; y_t = C_t h_t + D u_t.

    u, delta: (batch, G*d, L); A: (G*d, N); B, C: (batch, G, N, L); D, bias: (G*d,), and
    dt = softplus(delta + bias). G groups of d channels share one B and C: four groups,
    one per direction. `x`, the second result of fwd, holds the states bwd starts from.
    """

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, bias):
        out, x = selective_scan_cuda_oflex.fwd(
            u, delta, A, B, C, D, bias, True, 1, True
        )
        ctx.save_for_backward(u, delta, A, B, C, D, bias, x)
        return out

    @staticmethod
    def backward(ctx, dout):
        u, delta, A, B, C, D, bias, x = ctx.saved_tensors
        dout = dout if dout.stride(-1) == 1 else dout.contiguous()
        return tuple(
            selective_scan_cuda_oflex.bwd(u, delta, A, B, C, D, bias, dout, x, True, 1)
        )


def plain_scan(u, delta, A, B, C, D, bias):
    """The same in plain torch, one step after the other: what --check compares with."""
    dt = F.softplus(delta + bias[:, None])
    B, C = (t.repeat_interleave(u.shape[1] // t.shape[1], dim=1) for t in (B, C))
    decay = torch.exp(dt[:, :, None] * A[:, :, None])
    drive = (dt * u)[:, :, None] * B
    h, ys = torch.zeros_like(A), []
    for decay_t, drive_t, C_t in zip(*(t.unbind(-1) for t in (decay, drive, C))):
        h = decay_t * h + drive_t
        ys.append((h * C_t).sum(-1))
    return torch.stack(ys, dim=-1) + D[:, None] * u


# ------------------------------------------------------------------------ the network


def cross_scan(x):
    """Read an image along four paths: (b, d, h, w) -> (b, 4, d, h*w).

    Row by row, column by column, and both backwards: after the four scans every pixel
    has seen every other one.
    """
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    return torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1)


def cross_merge(y, height, width):
    """Sum the four readings back in their pixels: (b, 4, d, h*w) -> (b, d, h, w)."""
    rows = y[:, 0] + y[:, 2].flip(-1)
    columns = y[:, 1] + y[:, 3].flip(-1)
    columns = columns.unflatten(-1, (width, height)).transpose(2, 3)
    return rows.unflatten(-1, (height, width)) + columns


class SS2D(nn.Module):
    """The two-dimensional selective scan, gated; (b, h, w, dim) in and out."""

    def __init__(self, dim, scan, inner_ratio=2, states=8):
        super().__init__()
        inner, rank = inner_ratio * dim, math.ceil(dim / 16)
        self.scan, self.split = scan, [rank, states, states]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj = nn.Parameter(torch.empty(4, rank + 2 * states, inner))
        self.dt_proj = nn.Parameter(torch.empty(4, inner, rank))
        nn.init.uniform_(self.x_proj, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_proj, -(rank**-0.5), rank**-0.5)
        # Time steps start between 0.001 and 0.1, log-uniformly; the bias stores them
        # through the inverse of softplus. State n starts with the decay rate n + 1.
        dt = torch.empty(4 * inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        rates = torch.arange(1.0, states + 1).repeat(4 * inner, 1)
        self.A_log = nn.Parameter(rates.log())
        self.D = nn.Parameter(torch.ones(4 * inner))
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        height, width = x.shape[1:3]
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.permute(0, 3, 1, 2)))
        xs = cross_scan(x)
        dt, B, C = torch.einsum("bkdl,kcd->bkcl", xs, self.x_proj).split(self.split, 2)
        dt = torch.einsum("bkrl,kdr->bkdl", dt, self.dt_proj)
        y = self.scan(
            xs.flatten(1, 2),
            dt.flatten(1, 2),
            -torch.exp(self.A_log),
            B.contiguous(),
            C.contiguous(),
            self.D,
            self.dt_bias,
        )
        y = cross_merge(y.unflatten(1, (4, -1)), height, width)
        return self.out_proj(self.norm(y.permute(0, 2, 3, 1)) * F.silu(z))


class Block(nn.Module):
    """Two residual halves: SS2D mixes pixels, the MLP mixes channels."""

    def __init__(self, dim, scan):
        super().__init__()
        self.norm1, self.ss2d = nn.LayerNorm(dim), SS2D(dim, scan)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, x):
        x = x + self.ss2d(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VMamba(nn.Module):
    """8x8 pixels -> 8x8 tokens of `dim` -> 4x4 tokens of 2*dim -> ten classes."""

    def __init__(self, scan, dim=32):
        super().__init__()
        self.embed = nn.Conv2d(1, dim, 3, padding=1)  # overlapping patches
        self.fine = nn.Sequential(nn.LayerNorm(dim), Block(dim, scan), Block(dim, scan))
        self.merge = nn.Conv2d(dim, 2 * dim, 2, stride=2)
        dim *= 2
        self.coarse = nn.Sequential(
            nn.LayerNorm(dim), Block(dim, scan), Block(dim, scan), nn.LayerNorm(dim)
        )
        self.head = nn.Linear(dim, 10)

    def forward(self, images):
        x = self.fine(self.embed(images).permute(0, 2, 3, 1))
        x = self.coarse(self.merge(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.head(x.mean(dim=(1, 2)))


# --------------------------------------------------------------- the data, the training


def load_digits(device):
    """1797 digits of 8x8 pixels in [-1, 1], cut once and for all into three parts.

    Training: 1257, to learn from. Validation: 180, for the curve. Test: 360, looked at
    once, after the last step: no choice in this file was made with it.
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    digits = bundled()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    rest, test = train_test_split(
        range(len(labels)), test_size=360, random_state=0, stratify=labels
    )
    train, valid = train_test_split(
        rest, test_size=180, random_state=0, stratify=labels[rest]
    )
    parts = {"train": train, "valid": valid, "test": test}
    return {k: (images[i].to(device), labels[i].to(device)) for k, i in parts.items()}


def shift(images):
    """Move each image by up to a pixel: the net is not to learn 1257 by heart."""
    count, size = len(images), images.shape[-1]
    windows = F.pad(images, (1,) * 4, value=-1).unfold(2, size, 1).unfold(3, size, 1)
    dy, dx = torch.randint(3, (2, count))
    return windows[torch.arange(count), :, dy, dx]


def train(model, data, epochs, batch=64):
    """Yield (step, steps, loss, share of right answers), step by step."""
    images, labels = data["train"]
    per_epoch = len(labels) // batch
    steps = epochs * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    for step in range(steps):
        decay = (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = PEAK_RATE * min(1, (step + 1) / 20) * decay
        if step % per_epoch == 0:
            order = torch.randperm(len(labels))
        chosen = order[step % per_epoch * batch :][:batch]
        logits = model(shift(images[chosen]))
        loss = F.cross_entropy(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = (logits.argmax(1) == labels[chosen]).float().mean()
        yield step + 1, steps, loss.item(), right.item()


@torch.no_grad()
def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()


class Progress:
    """One line that redraws itself on a terminal, a line every 5 seconds elsewhere."""

    def __init__(self):
        self.begun, self.next = time.monotonic(), 0.0
        self.live = sys.stdout.isatty()

    def __call__(self, share, text):
        elapsed = time.monotonic() - self.begun
        if elapsed < self.next and share < 1:
            return
        self.next = elapsed + (0.1 if self.live else 5)
        line = f"[{'#' * int(20 * share):.<20}] {share:4.0%} {elapsed:4.0f} s  {text}"
        end = "" if self.live and share < 1 else "\n"
        print(f"\r{line}\x1b[K" if self.live else line, end=end, flush=True)


# -------------------------------------------------------------------------- the picture

INK, PALE, BLUE, RED = "#22262e", "#8a93a3", "#2f6db5", "#c8402f"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "xtick.color": PALE,
    "ytick.color": PALE,
}


def draw(path, curves, images, labels, guesses):
    """Loss and accuracy above; below, forty test digits and what the net read."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    from matplotlib import pyplot, ticker

    figure = pyplot.figure(figsize=(10, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.35])
    left, right = above.subplots(1, 2)

    steps = range(1, len(curves["loss"]) + 1)
    smooth = itertools.accumulate(curves["loss"], lambda a, b: 0.9 * a + 0.1 * b)
    left.semilogy(steps, curves["loss"], color=BLUE, lw=0.6, alpha=0.4)
    left.semilogy(steps, list(smooth), color=BLUE, lw=1.8)
    left.set(title="training loss (cross entropy)", xlabel="step")
    left.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    left.yaxis.set_minor_formatter(ticker.NullFormatter())

    wrong = guesses != labels
    test = 1 - wrong.float().mean().item()
    epochs = range(1, len(curves["valid"]) + 1)
    right.plot(epochs, curves["train"], color=PALE, lw=1.5, label="training (shifted)")
    right.plot(epochs, curves["valid"], color=BLUE, lw=1.8, label="validation")
    right.plot(len(epochs), test, "o", color=RED, label=f"test: {test:.1%}")
    right.set(title="accuracy", xlabel="epoch", ylim=(min(0.8, test), 1.005))
    right.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    right.yaxis.set_major_locator(ticker.MultipleLocator(0.05))
    right.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    right.legend(frameon=False, loc="lower right")

    below.suptitle(f"test digits: the {wrong.sum()} misread ones first", fontsize=12)
    shown = wrong.int().argsort(descending=True, stable=True)
    for axes, i in zip(below.subplots(4, 10).flat, shown):
        axes.imshow(images[i, 0], cmap="gray_r", interpolation="nearest")
        text = f"{guesses[i]}, is {labels[i]}" if wrong[i] else f"{guesses[i]}"
        axes.set_title(text, color=RED if wrong[i] else INK, fontsize=10, pad=3)
        axes.axis("off")
    figure.savefig(path, dpi=140)


# ----------------------------------------------------------------------------- commands


def announce(device):
    """Say who supplies the scan, which variant runs it here, and why."""
    module = mambarun.which("selective_scan_cuda_oflex")
    print(f"selective_scan_cuda_oflex: {module['supplier']}, as {module['reason']}")
    if module["supplier"] == "mambarun":
        variant = mambarun.preload(device)
        reasons = {v["name"]: v["reason"] for v in mambarun.info(device)["variants"]}
        print(f"variant on {device}: {variant}, {reasons[variant]}", flush=True)


def check(data, seed, device):
    """The net over mambarun's scan and over plain torch: the same gradients of the
    first batch, the same first 20 losses."""
    losses, gradients = [], []
    for scan in (SelectiveScan.apply, plain_scan):
        name = "plain torch" if scan is plain_scan else "mambarun"
        print(f"20 steps over {name} ...", flush=True)
        torch.manual_seed(seed)
        model = VMamba(scan).to(device)
        steps = train(model, data, EPOCHS)
        losses.append([next(steps)[2]])
        gradients.append([p.grad.clone() for p in model.parameters()])
        losses[-1] += [loss for _, _, loss, _ in itertools.islice(steps, 19)]
    print("step   mambarun   plain torch   difference")
    for step, (a, b) in enumerate(zip(*losses), start=1):
        print(f"{step:4} {a:10.6f} {b:13.6f} {abs(a - b):12.1e}")
    ours, plain = torch.tensor(losses)
    demand("losses", (ours - plain).abs().max(), 2e-5)
    off = torch.stack([(a - b).norm() / b.norm() for a, b in zip(*gradients)])
    demand("gradients of the first batch, relative", off.max(), 1e-4)


def demand(what, difference, allowed):
    print(f"{what}: largest difference {difference:.1e}, allowed {allowed:.0e}")
    if not difference <= allowed:
        sys.exit(f"{what}: mambarun and plain torch differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", default="vmamba_digits.png", help="the picture")
    parser.add_argument("--check", action="store_true", help="compare with plain torch")
    args = parser.parse_args()

    # Arrays this small gain nothing from more threads, which wait for each other on a
    # busy machine.
    torch.set_num_threads(1)
    announce(args.device)
    data = load_digits(args.device)
    if args.check:
        return check(data, args.seed, args.device)

    torch.manual_seed(args.seed)
    model = VMamba(SelectiveScan.apply).to(args.device)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters, {len(data['train'][0])} digits to learn from")
    curves = {"loss": [], "train": [], "valid": []}
    progress, rights = Progress(), []
    for step, steps, loss, right in train(model, data, args.epochs):
        curves["loss"].append(loss)
        rights.append(right)
        if step * args.epochs % steps == 0:
            curves["train"].append(sum(rights) / len(rights))
            curves["valid"].append(accuracy(model, *data["valid"]))
            rights.clear()
        valid = f"{curves['valid'][-1]:.1%}" if curves["valid"] else "-"
        progress(step / steps, f"loss {loss:.4f}  validation accuracy {valid}")

    images, labels = (t.cpu() for t in data["test"])
    with torch.no_grad():
        guesses = model(data["test"][0]).argmax(1).cpu()
    right = (guesses == labels).sum()
    print(f"test accuracy {right / len(labels):.1%} ({right} of {len(labels)})")
    draw(args.out, curves, images, labels, guesses)
    print(f"picture: {args.out}")
    if args.epochs >= EPOCHS and right < GOAL * len(labels):
        sys.exit(f"less than the {GOAL:.0%} that this net reaches")


if __name__ == "__main__":
    main()
