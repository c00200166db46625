#!/usr/bin/env python3
"""What one core of torchvision loads: JPEG file to normalised float tensor, on PIL images and on tensors.

    python3 xtask/reference/torchvision_loader.py measure --files FOLDER
    python3 xtask/reference/torchvision_loader.py serve --case photos_500x375 --form tensor --seconds 2

`measure` times every case and form in turn and prints images a second. `serve` is a worker that a driver starts, so that
two programs can be measured in turn: it prints {"ready": true, ...} once warm, then for every line on its standard input
measures for the given seconds and prints {"ms": median milliseconds an image, "repeats": n}; it ends with its input.

FOLDER holds a folder for each case, with the JPEG files in it or below it: those that the Rust bench writes where
WHITEBOX_BENCH_FILES names a folder, so that both sides read the same bytes. Without it the photographs of data/photos are
brought to size and saved by PIL, quality 90, chroma at half resolution. Needs torch, torchvision and Pillow.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

PHOTOS = Path(__file__).resolve().parents[2] / "data" / "photos"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# size of the files (width, height), side of the result
CASES = {"photos_500x375": ((500, 375), 224), "photos_32x32": ((32, 32), 32), "photos_500x375_444": ((500, 375), 224)}
FORMS = ["pil", "tensor"]


def make_files(folder):
    """The photographs as JPEG files of each case's size."""
    for case, (size, _) in CASES.items():
        (folder / case).mkdir(parents=True)
        for path in sorted(PHOTOS.glob("*.png")):
            photo = Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC)
            photo.save(folder / case / f"{path.stem}.jpg", quality=90, subsampling=0 if case.endswith("444") else 2)


def pil_loader(side):
    """As torchvision.datasets.ImageFolder with its default loader and the usual training transforms."""
    steps = v2.Compose([
        v2.RandomResizedCrop(side),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])

    def load(path):
        with open(path, "rb") as file:
            return steps(Image.open(file).convert("RGB"))

    return load


def tensor_loader(side):
    """libjpeg-turbo into a uint8 tensor, transforms on tensors."""
    steps = v2.Compose([
        v2.RandomResizedCrop(side, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])
    return lambda path: steps(decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB))


def loader(case, form, files):
    """A function that loads all images of a case once, as a batch."""
    paths = sorted((files / case).rglob("*.jpg"))
    if not paths:
        sys.exit(f"no JPEG file below {files / case}: run the Rust bench with WHITEBOX_BENCH_FILES={files}, or leave --files out")
    load = {"pil": pil_loader, "tensor": tensor_loader}[form](CASES[case][1])
    return (lambda: torch.stack([load(path) for path in paths])), len(paths)


def measure(batch, images, seconds):
    """The median over as many batches as fit."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        batch()
        times.append(1000 * (time.perf_counter() - start) / images)
    return {"ms": statistics.median(times), "repeats": len(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["measure", "serve"])
    parser.add_argument("--case", choices=CASES, help="all, if not given (measure); needed by serve")
    parser.add_argument("--form", choices=FORMS, help="both, if not given (measure); needed by serve")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case and form, in turn (measure)")
    parser.add_argument("--files", type=Path, help="folder with a folder of JPEG files for each case")
    args = parser.parse_args()
    if args.mode == "serve" and not (args.case and args.form):
        parser.error("serve needs --case and --form")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        files = args.files
        if files is None:
            files = Path(temporary)
            make_files(files)
        if args.mode == "serve":
            batch, images = loader(args.case, args.form, files)
            measure(batch, images, 0.5)
            versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
            print(json.dumps({"ready": True, "case": args.case, "form": args.form, "images": images, **versions}), flush=True)
            for _ in sys.stdin:
                print(json.dumps(measure(batch, images, args.seconds)), flush=True)
            return
        for case in [args.case] if args.case else CASES:
            batches = {form: loader(case, form, files) for form in ([args.form] if args.form else FORMS)}
            for batch, images in batches.values():
                measure(batch, images, 0.5)
            rounds = [{form: measure(*batch, args.seconds)["ms"] for form, batch in batches.items()} for _ in range(args.rounds)]
            for form in batches:
                ms = statistics.median(times[form] for times in rounds)
                print(f"{case:20} {form:7} {ms:8.3f} ms an image {1000 / ms:8.0f} images/s")


if __name__ == "__main__":
    main()
