# SPDX-License-Identifier: Apache-2.0
"""mamba_text.py - a Mamba language model learns English from Python's own manual.

Every Python carries some 200 000 characters of English prose in pydoc_data.topics, the
text behind help("with"). A two-layer Mamba learns it, character by character,
and is measured on text it has not seen beside a model that counts which character
follows which two. Then it writes some, one step at a time.

Its inner function runs in mamba_ssm's fused order over the two compiled modules
`causal_conv1d_cuda` and `selective_scan_cuda`; here mambarun supplies them.

    python examples/mamba_text.py                  train, compare, write
    python examples/mamba_text.py --device cuda    the same on a GPU
    python examples/mamba_text.py --check          compare with plain torch

Needs torch only.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import zlib
from pydoc_data.topics import topics

import causal_conv1d_cuda
import mambarun
import selective_scan_cuda
import torch
import torch.nn.functional as F
from torch import nn

# ---------------------------------------------------------------------------- the text

PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
STEPS, MINUTES, PEAK_RATE = 700, 4, 4e-3
SYMBOLS = 96  # the end of a paragraph, and ASCII from blank to tilde
ROW = 1024  # characters of held-out text that Mamba reads at once


def paragraphs():
    """The prose of the manual, without markup; headings, grammar and code stay out."""
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name].translate(PLAIN)):
            text = re.sub(r"(?<=\w-)\n *", "", block)  # words broken at their hyphen
            text = re.sub(r'"|\[\d+\]|\*+(?=\w)|(?<=[\w:])\*+|^\s*[-*] ', "", text)
            text = " ".join(text.encode("ascii", "ignore").decode().split())
            letters = sum(c.isalpha() or c == " " for c in text)
            if len(text) >= 40 and letters >= 0.9 * len(text) and text[-1] in ".:":
                yield text


def load_text(device):
    """Training and held-out text as two streams of symbols.

    The side of a paragraph depends on nothing but its own checksum, and each is kept
    once: topics quote one another, and no paragraph may stand on both sides.
    """
    train, held_out = [], []
    for text in dict.fromkeys(paragraphs()):
        (train if zlib.crc32(text.encode()) % 10 else held_out).append(text)
    held_out = encode(held_out, device)  # whole rows, so that nothing is left out below
    return encode(train, device), held_out[: (len(held_out) - 1) // ROW * ROW + 1]


def encode(texts, device):
    stream = "".join(text + "\n" for text in texts)
    return torch.tensor([max(ord(c) - 31, 0) for c in stream], device=device)


def decode(symbols):
    return "".join("\n" if s == 0 else chr(s + 31) for s in symbols)


# --------------------------------------------------- the model to beat: counts, no net


def count_model(text, discount):
    """P(next | two before it), (96, 96, 96): interpolated Kneser-Ney of order three.

    Each order takes `discount` off every count it has seen and hands the sum to the
    order below, whose counts are of contexts, not of occurrences; under all lies 1/96.
    """
    triples = (text[:-2] * SYMBOLS + text[1:-1]) * SYMBOLS + text[2:]
    seen3 = torch.bincount(triples, minlength=SYMBOLS**3).view((SYMBOLS,) * 3).double()
    seen2 = (seen3 > 0).sum(0).double()
    seen1 = (seen2 > 0).sum(0).double()
    p = torch.full((SYMBOLS,), 1 / SYMBOLS, device=text.device).double()
    for seen in (seen1, seen2, seen3):
        total = seen.sum(-1, keepdim=True)
        freed = discount * (seen > 0).sum(-1, keepdim=True)
        mixed = ((seen - discount).clamp(min=0) + freed * p) / total.clamp(min=1)
        p = torch.where(total > 0, mixed, p)
    return p


def count_bits(p, text):
    return -p[text[:-2], text[1:-1], text[2:]].log2().mean().item()


def best_count_model(text):
    """The discount that predicts the last tenth of the training text from the rest."""
    cut = len(text) * 9 // 10
    grid = [k / 10 for k in range(1, 10)]
    cost = {d: count_bits(count_model(text[:cut], d), text[cut:]) for d in grid}
    return count_model(text, min(cost, key=cost.get))


# ------------------------------------------------------------- Mamba's inner function


def flat(t):
    """(batch, d, L) -> (d, batch * L): so that every projection is one matmul."""
    return t.transpose(0, 1).reshape(t.shape[1], -1)


def wide(t, batch):
    """(d, batch * L) -> (batch, d, L), a view."""
    return t.unflatten(1, (batch, -1)).transpose(0, 1)


def selection(conv, x_proj, dt_proj, states):
    """What makes the scan selective: its time steps, B and C are read off its input."""
    rank = dt_proj.shape[1]
    proj = x_proj @ flat(conv)
    delta = wide(dt_proj @ proj[:rank], len(conv))
    B, C = wide(proj[rank:], len(conv)).unsqueeze(1).split(states, dim=2)
    return proj, delta, B.contiguous(), C.contiguous()


class MambaInner(torch.autograd.Function):
    """Convolution, selection, gated scan and output projection, fused as in mamba_ssm.

    xz: (batch, 2*d, L), the input and its gate; weights: conv_w (d, width), conv_b (d),
    x_proj (rank + 2*N, d), dt_proj (d, rank), A (d, N), D (d), dt_bias (d), out_proj
    (dim, d); the result: (batch, L, dim). Forward keeps neither the convolution nor
    delta, backward computes them again: less memory for little time. Both extensions
    then write the gradients of x and z straight into the two halves of one buffer.
    """

    @staticmethod
    def forward(ctx, xz, *weights):
        conv_w, conv_b, x_proj, dt_proj, A, D, dt_bias, out_proj = weights
        x, z = xz.chunk(2, dim=1)
        conv = causal_conv1d_cuda.causal_conv1d_fwd(
            x, conv_w, conv_b, None, None, None, True
        )
        _, delta, B, C = selection(conv, x_proj, dt_proj, A.shape[1])
        out, scan_states, gated = selective_scan_cuda.fwd(
            conv, delta, A, B, C, D, z, dt_bias, True
        )
        ctx.save_for_backward(xz, *weights, scan_states, out)
        return F.linear(gated.transpose(1, 2), out_proj)

    @staticmethod
    def backward(ctx, dy):
        xz, *weights, scan_states, out = ctx.saved_tensors
        conv_w, conv_b, x_proj, dt_proj, A, D, dt_bias, out_proj = weights
        x, z = xz.chunk(2, dim=1)
        conv = causal_conv1d_cuda.causal_conv1d_fwd(
            x, conv_w, conv_b, None, None, None, True
        )
        proj, delta, B, C = selection(conv, x_proj, dt_proj, A.shape[1])

        dxz = torch.empty_like(xz)
        dx, dz = dxz.chunk(2, dim=1)
        dy = dy.flatten(0, 1)
        dgated = wide(out_proj.t() @ dy.t(), len(xz))
        scanned = (conv, delta, A, B, C, D, z, dt_bias)
        dconv, ddelta, dA, dB, dC, dD, ddt_bias, dz, gated = selective_scan_cuda.bwd(
            *scanned, dgated, scan_states, out, dz, True, True
        )
        dout_proj = (flat(gated) @ dy).t()

        ddelta = flat(ddelta)
        dproj = torch.cat([dt_proj.t() @ ddelta, flat(dB[:, 0]), flat(dC[:, 0])])
        ddt_proj = ddelta @ proj[: dt_proj.shape[1]].t()
        dx_proj = dproj @ flat(conv).t()
        dconv += wide(x_proj.t() @ dproj, len(xz))
        dx, dconv_w, dconv_b, _ = causal_conv1d_cuda.causal_conv1d_bwd(
            x, conv_w, conv_b, dconv, None, None, None, dx, False, True
        )
        return dxz, dconv_w, dconv_b, dx_proj, ddt_proj, dA, dD, ddt_bias, dout_proj


def plain_inner(xz, conv_w, conv_b, x_proj, dt_proj, A, D, dt_bias, out_proj):
    """The same in plain torch and step by step: what --check compares with."""
    x, z = xz.chunk(2, dim=1)
    d, width = conv_w.shape
    conv = F.silu(F.conv1d(F.pad(x, (width - 1, 0)), conv_w[:, None], conv_b, groups=d))
    _, delta, B, C = selection(conv, x_proj, dt_proj, A.shape[1])
    dt = F.softplus(delta + dt_bias[:, None])
    decay = torch.exp(dt[:, :, None] * A[:, :, None])
    drive = (dt * conv)[:, :, None] * B
    h, ys = torch.zeros_like(A), []
    for decay_t, drive_t, C_t in zip(*(t.unbind(-1) for t in (decay, drive, C))):
        h = decay_t * h + drive_t
        ys.append((h * C_t).sum(-1))
    y = torch.stack(ys, dim=-1) + D[:, None] * conv
    return F.linear((y * F.silu(z)).transpose(1, 2), out_proj)


# ------------------------------------------------------------------- the language model


class MambaLayer(nn.Module):
    """One residual layer, run over whole sequences (`forward`) or by `step`."""

    def __init__(self, dim, states=16, width=4, expand=2):
        super().__init__()
        inner, rank = expand * dim, math.ceil(dim / 16)
        self.norm = nn.LayerNorm(dim)
        self.in_proj = uniform(2 * inner, dim)
        self.conv_w = uniform(inner, width)
        self.conv_b = nn.Parameter(torch.zeros(inner))
        self.x_proj = uniform(rank + 2 * states, inner)
        self.dt_proj = uniform(inner, rank)
        # Time steps start between 0.001 and 0.1, log-uniformly; the bias stores them
        # through the inverse of softplus. State n starts with the decay rate n + 1.
        dt = torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).repeat(inner, 1).log())
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = uniform(dim, inner)

    def inner_parameters(self):
        conv, projections = (self.conv_w, self.conv_b), (self.x_proj, self.dt_proj)
        scan = (-torch.exp(self.A_log), self.D, self.dt_bias)
        return (*conv, *projections, *scan, self.out_proj)

    def forward(self, x):
        """(batch, L, dim) -> the same, all positions at once."""
        xz = wide(self.in_proj @ self.norm(x).flatten(0, 1).t(), len(x))
        return x + MambaInner.apply(xz, *self.inner_parameters())

    def start(self, batch):
        """The state before the first position: the convolution's window, and h."""
        window, h = torch.zeros_like(self.conv_w), torch.zeros_like(self.A_log)
        return window.repeat(batch, 1, 1), h.repeat(batch, 1, 1)

    def step(self, x, state):
        """One position: (batch, dim) -> the same; the state is updated in place."""
        window, h = state
        rank, states = self.dt_proj.shape[1], self.A_log.shape[1]
        u, z = (self.norm(x) @ self.in_proj.t()).chunk(2, dim=1)
        u = causal_conv1d_cuda.causal_conv1d_update(
            u, window, self.conv_w, self.conv_b, True
        )
        dt, B, C = (u @ self.x_proj.t()).split([rank, states, states], dim=1)
        dt = F.softplus(dt @ self.dt_proj.t() + self.dt_bias)
        h *= torch.exp(dt[..., None] * -torch.exp(self.A_log))
        h += (dt * u)[..., None] * B[:, None]
        y = (h * C[:, None]).sum(-1) + self.D * u
        return x + (y * F.silu(z)) @ self.out_proj.t()


def uniform(rows, columns):
    bound = columns**-0.5
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


class MambaText(nn.Module):
    """Symbols in, logits of the next out; embedding and head share one matrix."""

    def __init__(self, dim=128, layers=2, dropout=0.1):
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(SYMBOLS, dim))
        self.layers = nn.ModuleList(MambaLayer(dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, symbols):
        x = self.embedding[symbols]
        for layer in self.layers:
            x = self.dropout(layer(x))
        return self.norm(x) @ self.embedding.t()

    def start(self, batch):
        return [layer.start(batch) for layer in self.layers]

    def step(self, symbols, state):
        x = self.embedding[symbols]
        for layer, layer_state in zip(self.layers, state):
            x = layer.step(x, layer_state)
        return self.norm(x) @ self.embedding.t()


# ------------------------------------------------------------------------ the training


def train(model, text, steps, seconds, length=256, batch=16):
    """Yield (share done, step, bits per character of the batch) at each step.

    It ends after `steps` or `seconds`, whichever comes first, and the learning rate
    follows what is done of either: a slow machine also ends with a small one.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    offsets = torch.arange(length + 1, device=text.device)
    begun, share, step = time.monotonic(), 0.0, 0
    while share < 1:
        step += 1
        rate = PEAK_RATE * min(1, step / 30) * (1 + math.cos(math.pi * share)) / 2
        optimizer.param_groups[0]["lr"] = rate
        starts = torch.randint(len(text) - length, (batch, 1)).to(text.device)
        loss = cross_entropy(model.train(), text[starts + offsets])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        share = min(1, max(step / steps, (time.monotonic() - begun) / seconds))
        yield share, step, loss.item() / math.log(2)


def cross_entropy(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def model_bits(model, text):
    """Bits per character, row by row; each row starts without any context."""
    rows = text.unfold(0, ROW + 1, ROW)
    return cross_entropy(model.eval(), rows).item() / math.log(2)


class Progress:
    """One line that redraws itself on a terminal, a line every 10 seconds elsewhere."""

    def __init__(self):
        self.begun, self.next = time.monotonic(), 0.0
        self.live = sys.stdout.isatty()

    def __call__(self, share, text, keep):
        elapsed = time.monotonic() - self.begun
        if elapsed < self.next and not keep:
            return
        self.next = elapsed + (0.1 if self.live else 10)
        line = f"[{'#' * int(20 * share):.<20}] {share:4.0%} {elapsed:4.0f} s  {text}"
        end = "" if self.live and not keep else "\n"
        print(f"\r{line}\x1b[K" if self.live else line, end=end, flush=True)


# ---------------------------------------------------------- writing, one step at a time


@torch.no_grad()
def write(model, prompt, count, temperature=0.7):
    """Continue the prompt by `count` symbols; also the logits that every step gave."""
    written, steps, state = list(prompt), [], model.start(1)
    for position in range(len(prompt) + count - 1):
        symbol = torch.tensor(written[position : position + 1])
        logits = model.step(symbol.to(model.embedding.device), state)
        steps.append(logits)
        if position + 1 == len(written):
            chances = F.softmax(logits[0] / temperature, dim=0)
            written.append(torch.multinomial(chances, 1).item())
    return written, torch.stack(steps, dim=1)


def step_difference(model, symbols, logits):
    """How far the logits of single steps are from those of one parallel pass."""
    with torch.no_grad():
        parallel = model(torch.tensor([symbols[:-1]], device=logits.device))
    return (parallel - logits).abs().max()


# ----------------------------------------------------------------------------- commands


def announce(device):
    """Say who supplies the two modules, which variant runs them here, and why."""
    suppliers = set()
    for name in ("causal_conv1d_cuda", "selective_scan_cuda"):
        module = mambarun.which(name)
        suppliers.add(module["supplier"])
        print(f"{name}: {module['supplier']}, as {module['reason']}")
    if "mambarun" in suppliers:
        variant = mambarun.preload(device)
        reasons = {v["name"]: v["reason"] for v in mambarun.info(device)["variants"]}
        print(f"variant on {device}: {variant}, {reasons[variant]}", flush=True)


def check(device):
    """Fused function and gradients against plain torch; steps against the pass."""
    torch.backends.cudnn.allow_tf32 = False  # or a GPU's conv1d has ten bits only
    model = MambaText(dim=32, dropout=0).to(device)
    names = "y dxz dconv_w dconv_b dx_proj ddt_proj dA dD ddt_bias dout_proj".split()
    tensors = [wide(torch.randn(128, 3 * 70), 3), *model.layers[0].inner_parameters()]
    dy, results = torch.randn(3, 70, 32, device=device), []
    for inner in (MambaInner.apply, plain_inner):
        leaves = [t.detach().to(device).requires_grad_() for t in tensors]
        y = inner(*leaves)
        results.append((y.detach(), *torch.autograd.grad(y, leaves, dy)))
    off = torch.stack([(a - b).norm() / b.norm() for a, b in zip(*results)])
    for name, difference in zip(names, off):
        print(f"{name:10} differs by {difference:.1e} of its norm")
    demand("fused function against plain torch", off.max(), 1e-5)
    written, logits = write(model.eval(), [1], 200)
    demand("steps against the pass", step_difference(model, written, logits), 1e-4)


def demand(what, difference, allowed):
    print(f"{what}: largest difference {difference:.1e}, allowed {allowed:.0e}")
    if not difference <= allowed:
        sys.exit(f"{what}: they differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="at most, of training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--check", action="store_true", help="compare with plain torch")
    args = parser.parse_args()

    announce(args.device)
    torch.manual_seed(args.seed)
    if args.check:
        return check(args.device)

    text, held_out = load_text(args.device)
    print(f"{len(text)} characters to learn from, {len(held_out)} held out")
    goal = count_bits(best_count_model(text), held_out)
    print(f"count model, two characters of context: {goal:.3f} bits per character")

    model = MambaText().to(args.device)
    size = sum(p.numel() for p in model.parameters())
    print(f"Mamba with {size} parameters, its bits per character over time:")
    progress, tenth, mean = Progress(), 0, None
    for share, step, bits in train(model, text, STEPS, 60 * args.minutes):
        mean = bits if mean is None else 0.9 * mean + 0.1 * bits
        report = f"step {step}  training {mean:.3f}"
        reached = int(10 * share)
        if reached > tenth:
            report += f"  held out {model_bits(model, held_out):.3f}"
        progress(share, report, reached > tenth)
        tenth = reached

    bits = model_bits(model, held_out)
    print(f"held-out text: Mamba {bits:.3f}, count model {goal:.3f} bits per character")

    begun = time.monotonic()
    written, logits = write(model, encode(["The "], args.device).tolist()[:-1], 600)
    seconds = time.monotonic() - begun
    print(f"\n{decode(written)}\n")
    print(f"{len(written)} characters, one step each, in {seconds:.1f} s")
    demand("steps against the pass", step_difference(model, written, logits), 1e-3)
    if bits >= goal:
        sys.exit("Mamba did not beat the count model: give it more --minutes")


if __name__ == "__main__":
    main()
