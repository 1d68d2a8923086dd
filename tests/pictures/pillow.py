"""Writes pillow.json: what Pillow and the reference processors make of pictures that both sides
can draw.

Run `python tests/pictures/pillow.py` with Pillow and transformers installed. Only digests are
stored.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from transformers.image_transforms import center_crop
from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    convert_image_to_patches,
    get_image_size_for_max_num_patches,
)

FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
SIZES = [
    (1, 1), (1, 7), (7, 1), (2, 3), (3, 2), (5, 31), (16, 16), (17, 13), (31, 64), (61, 97),
    (64, 48), (77, 333), (90, 160), (100, 100), (120, 68), (144, 176), (150, 200), (169, 300),
     (224, 398),
    (270, 480), (301, 299), (333, 77), (480, 272), (360, 641), (437, 13), (500, 500), (576, 720),
     (719, 405),
]  # fmt: skip
TARGETS = [(224, 224), (33, 40), (1, 1), (97, 336), (300, 169), (13, 500), (50, 7)]


def noise(height, width):
    """A picture of which every byte is another: see `noise` in src/preprocess/pillow/tests.rs."""
    x = np.arange(height * width * 3, dtype=np.uint64) * 2654435761 % 2**32
    x ^= x >> np.uint64(15)
    x = x * 2246822519 % 2**32
    return (x >> np.uint64(24)).astype(np.uint8).reshape(height, width, 3)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def resized(rgb, height, width, name):
    return np.asarray(Image.fromarray(rgb).resize((width, height), FILTERS[name]))


def resizes():
    for at, (height, width) in enumerate(SIZES):
        rgb = noise(height, width)
        for name in FILTERS:
            for to in {
                TARGETS[at % len(TARGETS)],
                (width, height),
                (height * 2 + 1, width // 2 + 1),
            }:
                yield [[height, width], list(to), name, digest(resized(rgb, *to, name))]


def crops():
    for height, width in SIZES:
        if max(height, width) > 20 * min(height, width):
            continue
        for side, crop in [(48, (32, 32)), (50, (33, 34)), (32, (47, 32)), (20, (33, 40))]:
            short, long = min(height, width), max(height, width)
            longer = int(side * long / short)
            to = (longer, side) if width <= height else (side, longer)
            whole = resized(noise(height, width), *to, "bicubic")
            kept = center_crop(
                whole, crop, data_format="channels_last", input_data_format="channels_last"
            )
            yield [[height, width], side, list(crop), digest(kept)]


def fits():
    sides = [1, 2, 3, 9, 16, 31, 100, 299, 480, 641, 720, 1080, 1920, 3024, 4032, 7680]
    for height in sides:
        for width in sides:
            for patch, most in [(16, 256), (14, 729), (16, 1024), (32, 49)]:
                size = get_image_size_for_max_num_patches(height, width, patch, most)
                yield ["siglip2", [height, width], patch, most, patch, list(size)]
            for patch, most, pool in [(16, 2520, 3), (16, 630, 3), (14, 256, 2)]:
                try:
                    size = get_aspect_ratio_preserving_size(height, width, patch, most, pool)
                except ValueError:
                    continue
                yield ["gemma", [height, width], patch, most, patch * pool, list(size)]


def patched():
    for height, width in [(61, 97), (270, 480), (480, 272), (300, 30), (16, 16)]:
        rgb = noise(height, width)
        size = get_image_size_for_max_num_patches(height, width, 16, 60)
        whole = resized(rgb, *size, "bilinear")
        patches = convert_image_to_patches(whole.transpose(2, 0, 1), 16)
        padded = np.zeros((60, 16 * 16 * 3), np.uint8)
        padded[: len(patches)] = patches
        yield [[height, width], [size[0] // 16, size[1] // 16], digest(padded)]


if __name__ == "__main__":
    found = {"pillow": PIL.__version__}
    found |= {f.__name__: list(f()) for f in [resizes, crops, fits, patched]}
    lines = [
        f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        if isinstance(value, list)
        else f"{json.dumps(name)}: {json.dumps(value)}"
        for name, value in found.items()
    ]
    path = Path(__file__).with_suffix(".json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(path, path.stat().st_size, {name: len(value) for name, value in found.items()})
