#!/usr/bin/env python3
"""Times CRATE in plain PyTorch beside this project's benches, in turn, and prints ms an image.

Needs PyTorch 2.11 (pip install torch==2.11.0). From the repository root:

    python3 docs/compare_pytorch.py                  # PyTorch alone
    python3 docs/compare_pytorch.py --rounds 3 --ours "cargo bench -p whitebox-model --bench models --"

With --ours each figure is taken in turn, whitebox - published - tuned, as many times as there are rounds: the command
is given criterion's filter for the one bench, whose median is read from criterion's folder (--criterion). Ratios above
1 say that this project is the faster one. OMP_NUM_THREADS sets the threads of both. A figure is the median over rounds
of a round's median; the spread is the largest relative deviation of a round from it. Two PyTorch forms are timed:
`published` makes three products with D a token and an explicit softmax; `tuned` makes one with M and uses fused
attention.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import pathlib
import shlex
import statistics
import subprocess
import time

import torch
from torch import nn
from torch.nn import functional as F

ETA, LAMBDA = 0.1, 0.1


class Layer(nn.Module):
    """x' = x + MSSA(LN(x)), then ReLU(h + eta (D^T h - D^T D h) - eta lambda) of h = LN(x')."""

    def __init__(self, d, heads, tuned):
        super().__init__()
        self.heads, self.tuned = heads, tuned
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.u, self.out = nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.dictionary = nn.Parameter(torch.empty(d, d).uniform_(-math.sqrt(6 / d), math.sqrt(6 / d)))

    def mssa(self, h):
        b, n, d = h.shape
        w = self.u(h).view(b, n, self.heads, -1).transpose(1, 2)
        if self.tuned:
            o = F.scaled_dot_product_attention(w, w, w)
        else:
            o = (w @ w.transpose(-2, -1) * w.shape[-1] ** -0.5).softmax(-1) @ w
        return self.out(o.transpose(1, 2).reshape(b, n, d))

    def ista(self, h):
        d = self.dictionary
        if self.tuned:
            eye = torch.eye(len(d), device=d.device)
            m = eye + ETA * d.t() @ (eye - d)
            return F.relu(F.linear(h, m, torch.full_like(d[0], -ETA * LAMBDA)))
        step = F.linear(h, d.t()) - F.linear(F.linear(h, d), d.t())
        return F.relu(h + ETA * step - ETA * LAMBDA)

    def forward(self, x):
        x = x + self.mssa(self.norm1(x))
        return self.ista(self.norm2(x))


class Crate(nn.Module):
    """The published classifier: embedding, layers, class token, LayerNorm and linear head."""

    def __init__(self, image, patch, channels, classes, d, depth, heads, tuned):
        super().__init__()
        self.patch, inner = patch, channels * patch * patch
        self.embed = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, d), nn.LayerNorm(d))
        self.token = nn.Parameter(torch.randn(1, 1, d))
        self.positions = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, d))
        self.layers = nn.Sequential(*(Layer(d, heads, tuned) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, classes))

    def forward(self, images):
        b, c, height, width = images.shape
        p = self.patch
        patches = images.view(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        tokens = self.embed(patches.reshape(b, -1, p * p * c))
        z = torch.cat([self.token.expand(b, -1, -1), tokens], dim=1) + self.positions
        return self.head(self.layers(z)[:, 0])


CASES = {
    "crate-tiny_224px_b16": (16, dict(image=224, patch=16, channels=3, classes=1000, d=384, depth=12, heads=6)),
    "crate-demo_28px_b64": (64, dict(image=28, patch=7, channels=1, classes=10, d=128, depth=4, heads=4)),
}


def check_forms():
    """The two forms are the same function, so that a difference in time is one of form alone."""
    torch.manual_seed(0)
    shape = CASES["crate-demo_28px_b64"][1]
    a, b = (Crate(**shape, tuned=tuned).double() for tuned in (False, True))
    b.load_state_dict(a.state_dict())
    images = torch.randn(3, 1, 28, 28, dtype=torch.float64)
    assert torch.allclose(a(images), b(images), rtol=1e-6, atol=1e-6)


def milliseconds(work, device, seconds):
    """Median time of `work` over about `seconds`, at least three repeats, after one that is not counted."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    work()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def pytorch(case, kind, pass_, form, device, seconds):
    """ms an image of PyTorch."""
    batch, shape = CASES[case]
    images = torch.randn(batch, shape["channels"], shape["image"], shape["image"], device=device)
    labels = torch.randint(shape["classes"], (batch,), device=device)
    model = Crate(**shape, tuned=form == "tuned").to(device)
    parameters = list(model.parameters())
    cast = contextlib.nullcontext if kind == "f32" else (lambda: torch.autocast(device, torch.bfloat16))

    def inference():
        with torch.no_grad(), cast():
            model(images)

    def training():
        with cast():
            loss = F.cross_entropy(model(images), labels)
        torch.autograd.grad(loss, parameters)

    return milliseconds({"inference": inference, "training": training}[pass_], device, seconds) / batch


def whitebox(case, group, command, folder):
    """ms an image of this project: runs one bench and reads criterion's median."""
    started = time.time()
    subprocess.run([*command, f"{group}/{case}"], check=True, stdout=subprocess.DEVNULL)
    file = folder / group / case / "new" / "estimates.json"
    if not file.is_file() or file.stat().st_mtime < started:
        raise SystemExit(f"the command wrote no {file}; name criterion's folder by --criterion")
    return json.loads(file.read_text())["median"]["point_estimate"] / 1e6 / CASES[case][0]


def load():
    return f"load {os.getloadavg()[0]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=shlex.split, help="the command that runs this project's benches by a filter")
    parser.add_argument("--criterion", type=pathlib.Path, default=pathlib.Path("target/criterion"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each PyTorch figure of a round")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    check_forms()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds, {load()}")
    print("| case | pass | published | tuned | whitebox, ms an image | published / ours | tuned / ours | spread |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case, kind, pass_ in itertools.product(CASES, ("f32", "bf16"), ("inference", "training")):
        group = f"{args.device}_{kind}_{pass_}"
        times = {"published": [], "tuned": [], "whitebox": []}
        for _ in range(args.rounds):
            if args.ours:
                times["whitebox"].append(whitebox(case, group, args.ours, args.criterion))
            for form in ("published", "tuned"):
                times[form].append(pytorch(case, kind, pass_, form, args.device, args.seconds))
        middle = {form: statistics.median(values) for form, values in times.items() if values}
        spread = max(abs(v / middle[form] - 1) for form, values in times.items() for v in values)
        own = middle.get("whitebox", math.nan)
        print(
            f"| {case} | {group} | {middle['published']:.3f} | {middle['tuned']:.3f} | {own:.3f} "
            f"| {middle['published'] / own:.2f} | {middle['tuned'] / own:.2f} | {spread:.0%} |",
            flush=True,
        )
    print(f"{load()} at the end")


if __name__ == "__main__":
    main()
