"""Shows that `convert` and PyTorch understand each other: converted files load with strict=True and give the same logits.

    cargo build -p whitebox
    pip install torch==2.11.0 timm safetensors pillow numpy
    python docs/verify_convert.py            # from the root of the clone; prints one line a check

The CRATE below is written from the formulas (docs/paper-to-code.md) with the official code's parameter names; ViT is
timm's own. Three ways are checked: the official layout in and out again, timm's names in and out again, and the trained
model of this repository out to PyTorch, against what `predict` says of the same picture.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

GOLDEN = Path("crates/model/tests/golden")
BINARY = Path("target/debug/whitebox")


class PreNorm(nn.Module):
    def __init__(self, d, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(d), fn


class Attention(nn.Module):
    """Z -> W_out concat_k(softmax(w_k w_k^T / sqrt(p)) w_k) with w_k = U_k^T z."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, d, bias=False)
        self.to_out = nn.Sequential(nn.Linear(d, d), nn.Identity())

    def forward(self, h):
        b, n, d = h.shape
        w = self.qkv(h).view(b, n, self.heads, -1).transpose(1, 2)
        a = (w @ w.transpose(-1, -2) / w.shape[-1] ** 0.5).softmax(-1)
        return self.to_out((a @ w).transpose(1, 2).reshape(b, n, d))


class Ista(nn.Module):
    """h -> relu(h + eta D^T (h - D h) - eta lambda)."""

    def __init__(self, d, eta, lam):
        super().__init__()
        self.weight, self.eta, self.lam = nn.Parameter(torch.empty(d, d)), eta, lam

    def forward(self, h):
        residual = h - h @ self.weight.T
        return F.relu(h + self.eta * (residual @ self.weight) - self.eta * self.lam)


class Crate(nn.Module):
    def __init__(self, config):
        super().__init__()
        (self.p1, self.p2), d, c = config["patch"], config["d"], config["channels"]
        patches = config["image"][0] // self.p1 * (config["image"][1] // self.p2)
        size = self.p1 * self.p2 * c
        self.pos_embedding = nn.Parameter(torch.empty(1, patches + 1, d))
        self.cls_token = nn.Parameter(torch.empty(1, 1, d))
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.LayerNorm(size), nn.Linear(size, d), nn.LayerNorm(d))
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PreNorm(d, Attention(d, config["heads"])),
                    PreNorm(d, Ista(d, config["eta"], config["lambda"])),
                ]
            )
            for _ in range(config["depth"])
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, config["classes"]))

    def forward(self, images):
        b, c, h, w = images.shape
        p1, p2 = self.p1, self.p2
        x = images.view(b, c, h // p1, p1, w // p2, p2).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p1 * p2 * c)
        x = torch.cat([self.cls_token.expand(b, -1, -1), self.to_patch_embedding(x)], 1) + self.pos_embedding
        for attention, ista in self.transformer.layers:
            x = x + attention.fn(attention.norm(x))
            x = ista.fn(ista.norm(x))
        return self.mlp_head(x[:, 0])


def whitebox(*words):
    result = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"whitebox {' '.join(map(str, words))}: {result.stderr}")
    return result.stdout


def check(name, found, expected):
    error = ((found - expected).norm() / expected.norm()).item()
    print(f"{name:<46} relative error of the logits {error:.1e}")
    if not error < 1e-5:
        sys.exit("too large")


@torch.no_grad()
def main():
    folder = Path(tempfile.mkdtemp())

    golden = load_file(GOLDEN / "crate_micro.safetensors")
    ours, back = folder / "crate.safetensors", folder / "crate.pth"
    whitebox("convert", GOLDEN / "crate_micro.pth.tar", ours, "--set", "model.heads=4")
    whitebox("convert", ours, back, "--nested", "state_dict")
    model = Crate(dict(image=(32, 32), patch=(8, 8), channels=3, d=48, depth=3, heads=4, classes=10, eta=0.1, **{"lambda": 0.1}))
    model.load_state_dict(torch.load(back, weights_only=True)["state_dict"], strict=True)
    check("official .pth.tar -> safetensors -> .pth", model(golden["input.images"]), golden["output.logits"])

    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7).eval()
    for parameter in vit.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    source, ours, back = folder / "vit.pth", folder / "vit.safetensors", folder / "vit-back.pth"
    torch.save(vit.state_dict(), source)
    whitebox("convert", source, ours, "--set", "model.heads=3")
    whitebox("convert", ours, back)
    other = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7).eval()
    other.load_state_dict(torch.load(back, weights_only=True), strict=True)
    images = torch.randn(2, 3, 64, 64)
    check("timm .pth -> safetensors -> .pth", other(images), vit(images))

    back, picture = folder / "demo.pth", folder / "picture.png"
    note = subprocess.run([BINARY, "convert", "data/crate-demo.safetensors", back], capture_output=True, text=True).stderr
    config = json.loads(note[note.index("{") :])
    model = Crate(config)
    model.load_state_dict(torch.load(back, weights_only=True), strict=True)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    answer = json.loads(whitebox("predict", picture, "--json", "--top", 10))["predictions"]
    logits = model((torch.from_numpy(pixels)[None, None].float() / 255 - 0.286) / 0.353)[0]
    said = torch.tensor([p["logit"] for p in answer])
    check("our trained model -> .pth, against `predict`", logits.sort(descending=True).values, said)


if __name__ == "__main__":
    main()
