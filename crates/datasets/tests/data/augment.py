"""What torchvision and Pillow make of small images, for src/augment/tests.rs.

    PYTHONPATH=FOLDER python3.11 -s crates/datasets/tests/data/augment.py > crates/datasets/tests/data/augment.json

FOLDER is what `cargo xtask setup --python-reference` prints.
"""

import hashlib
import json

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms import InterpolationMode, functional as F
from torchvision.transforms.autoaugment import RandAugment, TrivialAugmentWide, _apply_op

NEAREST = InterpolationMode.NEAREST


def picture(width, height, channels):
    """Values that vary in every direction and reach neither end."""
    x, y, k = np.meshgrid(np.arange(width), np.arange(height), np.arange(channels), indexing="xy")
    pixels = 30 + (x * 37 + y * 91 + k * 53 + x * y * 7) % 256 * 3 // 4
    return Image.fromarray(pixels.astype(np.uint8).squeeze())


def solarize_add(image, addition):
    values = np.clip(np.array(image).astype(int) + addition, 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(values), 128)


def cutout(image, corners):
    image = image.copy()
    ImageDraw.Draw(image).rectangle(tuple(corners), (125, 123, 114))
    return image


def policy(name):
    return lambda image, value: _apply_op(image, name, value, NEAREST, [37])


# By the names of src/augment/mod.rs; factors are counted from 0 there and from 1 in `_apply_op`.
OPERATIONS = {
    "ShearX": policy("ShearX"),
    "ShearY": policy("ShearY"),
    "TranslateX": policy("TranslateX"),
    "TranslateY": policy("TranslateY"),
    "Rotate": policy("Rotate"),
    "Brightness": F.adjust_brightness,
    "Colour": F.adjust_saturation,
    "Contrast": F.adjust_contrast,
    "Sharpness": F.adjust_sharpness,
    "Posterize": policy("Posterize"),
    "Solarize": policy("Solarize"),
    "SolarizeAdd": solarize_add,
    "AutoContrast": policy("AutoContrast"),
    "Equalize": policy("Equalize"),
    "Invert": policy("Invert"),
    "Hue": F.adjust_hue,
    "Blur": lambda image, sigma: F.gaussian_blur(image, [5, 5], [sigma, sigma]),
}
FACTORS = [0.1, 0.58, 0.94, 1.42, 1.9]
VALUES = {
    "ShearX": [0.14, -0.14, 0.99],
    "ShearY": [0.14, -0.14, 0.99],
    "TranslateX": [3, -2],
    "TranslateY": [3, -2],
    "Rotate": [14, -14, 30, 90, -121.5],
    "Brightness": FACTORS,
    "Colour": FACTORS,
    "Contrast": FACTORS,
    "Sharpness": FACTORS,
    "Posterize": [1, 4, 6, 8],
    "Solarize": [136, 85.00000762939453],
    "SolarizeAdd": [110 * 14 / 30],
    "AutoContrast": [0],
    "Equalize": [0],
    "Invert": [0],
    "Hue": [0.1, -0.3, 0.5],
    "Blur": [0.7, 2.0],
}
SMALL, LARGE, GREY = (9, 7, 3), (61, 53, 3), (40, 31, 1)
# The small image is for reading what went wrong.
READABLE = {"ShearX": 0.14, "Rotate": 14, "Sharpness": 1.42, "Colour": 0.58, "Hue": 0.1, "Contrast": 1.9}
BINS = [0, 1, 7, 14, 15, 16, 29, 30]


def space(table):
    rows = {name: values for name, (values, _) in table.items() if values.ndim}
    return {name.replace("Color", "Colour"): [float(values[i]) for i in BINS] for name, values in rows.items()}


def main():
    whole = [
        {"image": [*shape], "op": op, "value": value, "sha256": hashlib.sha256(run(picture(*shape), value).tobytes()).hexdigest()}
        for shape in (LARGE, GREY)
        for op, run in OPERATIONS.items()
        for value in VALUES[op]
    ]
    corners = [20, 30, 20 + 18.666666666666668, 30 + 18.666666666666668]
    erased = cutout(picture(*LARGE), corners)
    report = {
        "made_with": f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}, torch {torch.__version__}",
        "readable": [
            {"image": [*SMALL], "op": op, "value": value, "pixels": OPERATIONS[op](picture(*SMALL), value).tobytes().hex()}
            for op, value in READABLE.items()
        ],
        "whole": whole,
        "cutout": hashlib.sha256(erased.tobytes()).hexdigest(),
        "bins": BINS,
        "rand_augment_200_by_224": space(RandAugment()._augmentation_space(31, (224, 200))),
        "trivial_augment": space(TrivialAugmentWide()._augmentation_space(31)),
    }
    lines = [f"{json.dumps(key)}: " + (
        "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n]" if key in ("readable", "whole") else json.dumps(value)
    ) for key, value in report.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
