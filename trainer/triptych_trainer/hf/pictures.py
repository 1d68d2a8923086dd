"""The picture rules of a folder, as fields of the manifest, and the same arithmetic in Python."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers
from .loading import first_line

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
PILLOW = {name: Image.Resampling(number) for number, name in RESAMPLE.items()}


@dataclass(frozen=True)
class Picture:
    """Resize rule, crop, and the numbers that the graph applies to u8 pixels."""

    resize: dict
    resample: str
    crop: tuple[int, int] | None
    scale: float
    mean: list[float]
    std: list[float]
    notes: dict = field(default_factory=dict)

    def manifest(self) -> dict:
        crop = {"crop": {"height": self.crop[0], "width": self.crop[1]}} if self.crop else {}
        shown = {"picture": "shown", "bars": "keep"}
        return {"resize": dict(self.resize), "resample": self.resample, **crop, **shown}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the network sees, where they are the same for every picture."""
        if self.crop:
            return self.crop
        return self.resize["height"], self.resize["width"]

    def pixels(self, frame: np.ndarray) -> np.ndarray:
        """u8 [H, W, 3] as the network's picture, still u8; before it is cut into patches."""
        height, width = target_size(self.resize, *frame.shape[:2])
        image = Image.fromarray(frame).resize((width, height), PILLOW[self.resample])
        out = np.asarray(image)
        return out if self.crop is None else centre_crop(out, *self.crop)

    def normalise(self, pixels: Tensor) -> Tensor:
        """u8 [..., 3] to what the network takes, in f32."""
        mean = torch.tensor(self.mean, dtype=torch.float32)
        std = torch.tensor(self.std, dtype=torch.float32)
        return (pixels.to(torch.float32) * self.scale - mean) / std


def target_size(resize: dict, height: int, width: int) -> tuple[int, int]:
    rule = resize["rule"]
    if rule == "exact":
        return resize["height"], resize["width"]
    if rule == "shorter_side":
        size, short, long = resize["size"], min(height, width), max(height, width)
        other = int(size * long / short)
        return (size, other) if height <= width else (other, size)
    if resize["fit"] == "siglip2":
        return siglip2_size(height, width, resize["patch"], resize["max_patches"])
    return gemma_size(height, width, resize["patch"], resize["max_patches"], resize["multiple"])


def siglip2_size(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest scale, by bisection, at which the patches (rounded up) fit."""

    def scaled(scale: float, side: int) -> int:
        return max(patch, math.ceil(side * scale / patch) * patch)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if (scaled(middle, height) / patch) * (scaled(middle, width) / patch) <= most:
            low = middle
        else:
            high = middle
    return scaled(low, height), scaled(low, width)


def gemma_size(height: int, width: int, patch: int, most: int, multiple: int) -> tuple[int, int]:
    """The same aspect ratio within a budget of patches, sides rounded down to whole `multiple`."""
    factor = math.sqrt(most * patch**2 / (height * width))
    tall = math.floor(factor * height / multiple) * multiple
    wide = math.floor(factor * width / multiple) * multiple
    longest = most // (multiple // patch) ** 2 * multiple
    if tall == 0:
        tall, wide = multiple, min(math.floor(width / height) * multiple, longest)
    elif wide == 0:
        tall, wide = min(math.floor(height / width) * multiple, longest), multiple
    return tall, wide


def centre_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centre crop; a picture that is too small is padded with 0 first."""
    have_h, have_w = pixels.shape[:2]
    if have_h < height or have_w < width:
        tall, wide = max(height, have_h), max(width, have_w)
        # As transformers does it: rounded up above and to the left of the picture.
        top, left = math.ceil((tall - have_h) / 2), math.ceil((wide - have_w) / 2)
        padded = np.zeros((tall, wide, 3), pixels.dtype)
        padded[top : top + have_h, left : left + have_w] = pixels
        pixels = padded
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def patches(pixels: np.ndarray, patch: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(u8 [most, patch * patch * 3], i64 [rows, columns]): row-major patches of row-major RGB."""
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    cut = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    out = np.zeros((most, patch * patch * 3), np.uint8)
    out[: rows * columns] = cut.reshape(rows * columns, -1)
    return out, np.array([rows, columns], np.int64)


def image_processor(folder: HfFolder):
    """transformers' own processor of this folder, on Pillow."""
    if not folder.has("preprocessor_config.json") and not folder.has("processor_config.json"):
        raise Refused(
            f"{folder.path} has no preprocessor_config.json, which defines how pictures are "
            "resized: download the whole folder again"
        )
    try:
        return transformers().AutoImageProcessor.from_pretrained(
            str(folder.path), **LOCAL, backend="pil"
        )
    except Exception as error:
        raise Refused(
            f"preprocessor_config.json in {folder.path} cannot be used: {first_line(error)}"
        ) from error


def read_picture(folder: HfFolder, processor=None) -> Picture:
    """The fields of a processor that resizes to one size; what the manifest cannot say is
    refused."""
    p = processor if processor is not None else image_processor(folder)
    where = f"the picture rule of {folder.path}"
    size = _sizes(getattr(p, "size", None))
    if not getattr(p, "do_resize", True):
        raise Refused(f"{where} does not resize (do_resize is false), but towers take one size")
    crop = None
    if getattr(p, "do_center_crop", False):
        wanted = _sizes(p.crop_size)
        if set(wanted) != {"height", "width"}:
            raise Refused(f"{where} has an unknown crop_size: {wanted}")
        crop = (wanted["height"], wanted["width"])
    if set(size) == {"shortest_edge"}:
        resize = {"rule": "shorter_side", "size": size["shortest_edge"]}
        if crop is None:
            raise Refused(f"{where} resizes the shorter side without a crop, so sizes would differ")
    elif set(size) == {"height", "width"}:
        resize = {"rule": "exact", **size}
        if crop not in (None, (size["height"], size["width"])):
            raise Refused(f"{where} crops after an exact resize, which a bundle cannot represent")
        crop = None
    else:
        raise Refused(f"{where} has a size that a bundle cannot represent: {size}")
    if getattr(p, "do_pad", False):
        raise Refused(f"{where} pads pictures (do_pad), which a bundle cannot represent")
    return Picture(resize, resample_of(p, where), crop, *numbers_of(p, where))


def _sizes(size: object) -> dict[str, int]:
    found = dict(size) if size is not None else {}
    return {name: int(value) for name, value in found.items() if value is not None}


def resample_of(processor, where: str) -> str:
    number = int(processor.resample) if processor.resample is not None else 2
    if number not in RESAMPLE:
        raise Refused(f"{where} resamples with Pillow's filter {number}; known: {RESAMPLE}")
    return RESAMPLE[number]


def numbers_of(processor, where: str) -> tuple[float, list[float], list[float]]:
    """scale, mean, std."""
    scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
    if not processor.do_normalize:
        return scale, [0.0] * 3, [1.0] * 3
    mean, std = _three(processor.image_mean), _three(processor.image_std)
    if len(mean) != 3 or len(std) != 3 or 0.0 in std:
        raise Refused(f"{where} has no three means and standard deviations for RGB")
    return scale, mean, std


def _three(values: object) -> list[float]:
    return [float(values)] * 3 if isinstance(values, int | float) else [float(v) for v in values]


def torchvision_difference(picture: Picture) -> dict:
    """How far torchvision's resize, which transformers' video processors use, is from Pillow's on
    a picture of film size: the largest difference in grey levels, and the share that differs."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    size = target_size(picture.resize, *shown.shape[:2])
    filters = {"nearest": "nearest-exact"}
    mode = InterpolationMode(filters.get(picture.resample, picture.resample))
    theirs = tv.resize(torch.from_numpy(shown).permute(2, 0, 1), list(size), mode, antialias=True)
    ours = Image.fromarray(shown).resize((size[1], size[0]), PILLOW[picture.resample])
    apart = np.abs(theirs.permute(1, 2, 0).numpy().astype(int) - np.asarray(ours))
    return {"grey_levels": int(apart.max()), "share": round(float((apart > 0).mean()), 6)}
