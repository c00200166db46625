#!/usr/bin/env python3
"""CRATE in plain PyTorch: what `cargo xtask bench versus-pytorch` holds this project against.

    pytorch.py check                        # against the golden vectors: logits, loss, every gradient, AdamW steps
    pytorch.py serve --model crate-tiny --pass training --form tuned --mode compile
    pytorch.py memory --model crate-tiny --batch 64

`published` is the layer as its authors released it: three products with D a token, attention as product, softmax and
product. `tuned` is what one who knows the algebra writes: one product with M = I + eta D^T (I - D), formed once a
step (for inference once and for all, with the weights in the precision of the products), and fused attention.
Parameters have the names of the released code. A training step is zero_grad, forward, cross-entropy with label
smoothing, backward and fused AdamW.

`serve` writes a line of JSON once it is warm. For every line that it then reads it measures for --seconds and writes
the median time of a step in milliseconds an image. Threads are set by OMP_NUM_THREADS.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import math
import pathlib
import statistics
import struct
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ETA, LAMBDA, SMOOTHING = 0.1, 0.1, 0.1
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden/crate_micro.safetensors"
IMAGENET = dict(image=224, patch=16, classes=1000, depth=12)
MODELS = {
    "crate-micro": dict(image=32, patch=8, classes=10, depth=3, d=48, heads=4),
    "crate-tiny": dict(**IMAGENET, d=384, heads=6),
    "crate-small": dict(**IMAGENET, d=576, heads=12),
    "crate-base": dict(**IMAGENET, d=768, heads=12),
}


class Patches(nn.Module):
    """Images to rows of pixels, one a patch, in the order row, column, channel."""

    def __init__(self, patch):
        super().__init__()
        self.patch = patch

    def forward(self, images):
        b, c, height, width = images.shape
        p = self.patch
        patches = images.view(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        return patches.reshape(b, -1, p * p * c)


class Attention(nn.Module):
    """MSSA as released: one projection is query, key and value."""

    def __init__(self, d, heads, tuned):
        super().__init__()
        self.heads, self.tuned = heads, tuned
        self.qkv = nn.Linear(d, d, bias=False)
        self.to_out = nn.Sequential(nn.Linear(d, d))

    def forward(self, h):
        b, n, d = h.shape
        w = self.qkv(h).view(b, n, self.heads, -1).transpose(1, 2)
        if self.tuned:
            o = F.scaled_dot_product_attention(w, w, w)
        else:
            o = (w @ w.transpose(-2, -1) * w.shape[-1] ** -0.5).softmax(-1) @ w
        return self.to_out(o.transpose(1, 2).reshape(b, n, d))


class Ista(nn.Module):
    """ReLU(h + eta (D^T h - D^T D h) - eta lambda)."""

    def __init__(self, d, tuned):
        super().__init__()
        self.tuned, self.folded = tuned, None
        self.weight = nn.Parameter(torch.empty(d, d))
        nn.init.kaiming_uniform_(self.weight)
        self.register_buffer("eye", torch.eye(d), persistent=False)
        self.register_buffer("threshold", torch.full((d,), -ETA * LAMBDA), persistent=False)

    def m(self):
        return self.eye + ETA * self.weight.t() @ (self.eye - self.weight)

    def forward(self, h):
        if self.tuned:
            return F.relu(F.linear(h, self.m() if self.folded is None else self.folded, self.threshold))
        step = F.linear(h, self.weight.t()) - F.linear(F.linear(h, self.weight), self.weight.t())
        return F.relu(h + ETA * step - ETA * LAMBDA)


class PreNorm(nn.Module):
    def __init__(self, d, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(d), fn

    def forward(self, x):
        return self.fn(self.norm(x))


class Transformer(nn.Module):
    def __init__(self, d, depth, heads, tuned):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(d, Attention(d, heads, tuned)), PreNorm(d, Ista(d, tuned))]) for _ in range(depth)
        )

    def forward(self, x):
        for attention, ista in self.layers:
            x = ista(x + attention(x))
        return x


class Crate(nn.Module):
    def __init__(self, image, patch, classes, d, depth, heads, tuned, channels=3):
        super().__init__()
        inner = channels * patch * patch
        self.to_patch_embedding = nn.Sequential(
            Patches(patch), nn.LayerNorm(inner), nn.Linear(inner, d), nn.LayerNorm(d)
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, d))
        self.cls_token = nn.Parameter(torch.randn(1, 1, d))
        self.transformer = Transformer(d, depth, heads, tuned)
        self.mlp_head = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, classes))

    def forward(self, images):
        x = self.to_patch_embedding(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        return self.mlp_head(self.transformer(x)[:, 0])

    def fold(self, precision):
        """For inference: forms M once, and turns what the products take into their precision once."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Ista) and module.tuned:
                    module.folded = module.m().to(precision)
                    module.threshold = module.threshold.to(precision)
                elif isinstance(module, nn.Linear):
                    module.to(precision)


def gflop_an_image(model, pass_, form, batch):
    """Two for each multiply-add in the matrix products that this form makes for an image."""
    shape = MODELS[model]
    d, n = shape["d"], (shape["image"] // shape["patch"]) ** 2 + 1
    tuned, training = form == "tuned", pass_ == "training"
    # the backward of a product takes two more; fused attention forms its scores again
    times, attention = (3, 7 if tuned else 6) if training else (1, 2)
    products = n * d * d * (3 if tuned else 5)
    if tuned and training:
        products += d**3 / batch
    layer = times * products + attention * n * n * d
    ends = (n - 1) * 3 * shape["patch"] ** 2 * d + d * shape["classes"]
    return 2e-9 * (shape["depth"] * layer + times * ends)


class Work:
    """A model, a batch made once, and the step that is timed."""

    def __init__(self, args):
        torch.manual_seed(0)
        shape, self.args = MODELS[args.model], args
        self.model = Crate(**shape, tuned=args.form == "tuned").to(args.device)
        self.images = torch.randn(args.batch, 3, shape["image"], shape["image"], device=args.device)
        self.labels = torch.randint(shape["classes"], (args.batch,), device=args.device)
        self.optimizer = adamw(self.model)
        forward, loss = self.model, lambda images, labels: smoothed(self.model(images), labels)
        if args.pass_ == "inference":
            self.model.eval()
            if args.form == "tuned":
                self.model.fold(getattr(torch, args.precision))
        compiled = torch.compile if args.mode == "compile" else lambda function: function
        self.forward, self.loss = compiled(forward), compiled(loss)

    def cast(self):
        if self.args.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.args.device, getattr(torch, self.args.precision))

    def gradients(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast():
            loss = self.loss(self.images, self.labels)
        loss.backward()

    def step(self):
        if self.args.pass_ == "inference":
            with torch.no_grad(), self.cast():
                self.forward(self.images)
        else:
            self.gradients()
            self.optimizer.step()

    def wait(self):
        if self.args.device == "cuda":
            torch.cuda.synchronize()

    def measure(self):
        """Median milliseconds an image, and the number of steps, at least three."""
        # on a GPU the next step is queued while the last one runs, as in a real loop: wait for several at once
        together = 10 if self.args.device == "cuda" else 1
        times, end = [], time.perf_counter() + self.args.seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(together):
                self.step()
            self.wait()
            times.append((time.perf_counter() - start) / together)
        return 1e3 * statistics.median(times) / self.args.batch, together * len(times)


def smoothed(logits, labels):
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True)


def say(line):
    print(json.dumps(line), flush=True)


def serve(args):
    work = Work(args)
    for _ in range(3):
        work.step()
    work.wait()
    say(
        {
            "ready": True,
            "gflop_per_image": gflop_an_image(args.model, args.pass_, args.form, args.batch),
            "threads": torch.get_num_threads(),
            "version": torch.__version__,
        }
    )
    for _ in sys.stdin:
        milliseconds, repeats = work.measure()
        say({"ms": milliseconds, "repeats": repeats})


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def memory(args):
    """The peak of two training steps above what model and batch take."""
    work = Work(args)
    if args.mode == "compile":
        # compiling takes memory of its own, which no step takes again
        work.gradients()
        work.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if args.device == "cuda":
        work.wait()
        torch.cuda.reset_peak_memory_stats()
        before, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        ctypes.CDLL(None).malloc_trim(0)
        before, peak = status("VmRSS"), lambda: status("VmHWM")
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        work.step()
    work.wait()
    say({"peak_bytes": peak() - before})


def read_safetensors(path):
    """Length of the header, header in JSON, numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        numbers = np.frombuffer(data[start:end], dtype={"F32": "<f4", "I64": "<i8"}[entry["dtype"]])
        tensors[name] = torch.from_numpy(numbers.reshape(entry["shape"]).copy())
    return tensors


def check(args):
    golden = read_safetensors(args.golden)
    for form in ("published", "tuned"):
        worst = check_form(golden, form, args.mode)
        check_count(form)
        print(f"{form}, {args.mode}: " + ", ".join(f"{what} {error:.1e}" for what, error in worst.items()))


def check_form(golden, form, mode):
    """The largest relative error (norm of the difference by norm) of each kind; raises where one is too large."""
    part = {kind: {} for kind in ("param", "grad")}
    for name, tensor in golden.items():
        kind, _, rest = name.partition(".")
        part.get(kind, {})[rest] = tensor
    images, labels = golden["input.images"], golden["input.labels"]
    model = Crate(**MODELS["crate-micro"], tuned=form == "tuned")
    model.load_state_dict(part["param"])
    run = torch.compile(model) if mode == "compile" else model
    worst = {}

    def compare(what, found, expected, tolerance):
        error = float(torch.linalg.norm(found.detach() - expected) / torch.linalg.norm(expected))
        worst[what] = max(worst.get(what, 0.0), error)
        if not error <= tolerance:
            raise SystemExit(f"{form}, {mode}: {what} is off by {error:.1e}, expected at most {tolerance:.0e}")

    logits = run(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    compare("logits", logits, golden["output.logits"], 1e-5)
    compare("loss", loss.reshape(1), golden["output.loss_ce"], 1e-5)
    parameters = dict(model.named_parameters())
    if parameters.keys() != part["grad"].keys():
        raise SystemExit(f"{form}: gradients of other parameters: {parameters.keys() ^ part['grad'].keys()}")
    for name, parameter in parameters.items():
        compare("gradients", parameter.grad, part["grad"][name], 1e-4)
    optimizer, losses = adamw(model), []
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        loss = smoothed(run(images), labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    compare("AdamW losses", torch.tensor(losses), golden["train.adamw.losses"], 1e-4)
    model.load_state_dict(part["param"])
    model.fold(torch.float32)
    compare("logits of the folded model", model(images), golden["output.logits"], 1e-5)
    return worst


def check_count(form):
    """The operations that are divided by the time are those that PyTorch's own counter sees."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = 2
    for pass_ in ("inference", "training"):
        chosen = dict(model="crate-micro", form=form, pass_=pass_, mode="eager", precision="float32", device="cpu")
        work = Work(argparse.Namespace(**chosen, batch=batch))
        with FlopCounterMode(display=False) as counter:
            work.step()
        expected = gflop_an_image("crate-micro", pass_, form, batch)
        if form == "tuned":
            # the counter does not know fused attention on the CPU
            n, depth, d = 17, 3, 48
            expected -= 2e-9 * depth * (7 if pass_ == "training" else 2) * n * n * d
        found = counter.get_total_flops() / 1e9 / batch
        if not math.isclose(found, expected, rel_tol=1e-9):
            raise SystemExit(f"{form}, {pass_}: {found} GFLOP an image are counted, expected {expected}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_check = commands.add_parser("check", help="compare with the golden vectors")
    of_check.add_argument("--mode", choices=["eager", "compile"], default="eager")
    of_check.add_argument("--golden", type=pathlib.Path, default=GOLDEN)
    for name, batch in (("serve", 16), ("memory", 64)):
        command = commands.add_parser(name)
        command.add_argument("--model", choices=MODELS, default="crate-tiny")
        command.add_argument("--form", choices=["published", "tuned"], default="published")
        command.add_argument("--mode", choices=["eager", "compile"], default="eager")
        command.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
        command.add_argument("--pass", dest="pass_", choices=["training", "inference"], default="training")
        command.add_argument("--batch", type=int, default=batch)
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    args = parser.parse_args()
    if args.command == "memory" and args.pass_ != "training":
        parser.error("memory is that of training")
    {"check": check, "serve": serve, "memory": memory}[args.command](args)


if __name__ == "__main__":
    main()
