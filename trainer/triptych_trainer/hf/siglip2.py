"""SigLIP 2 with pictures of any aspect ratio (`naflex`): patches within a budget, and the grid they
come from."""

import numpy as np
import torch
from torch import Tensor, nn

from .clip import text_tower
from .errors import Refused
from .folder import HfFolder
from .loading import load
from .parts import Family, Feed, Options, Space, Tower
from .pictures import Picture, image_processor, numbers_of, patches, resample_of
from .siglip import padded_text
from .source import family_of
from .still import (
    DEFAULT_FRAMES,
    FRAMES_AXIS,
    GOLDEN_SEED,
    MeanOfFrames,
    golden_counts,
    noise,
    sampling_of,
)

GRIDS = ((72, 130), (130, 72))
"""Heights and widths of the golden pictures, before the resize."""


class FoldedPatches(nn.Module):
    """Patches u8 [batch, P, p * p * 3] and their grid to what the network takes; unused ones are
    zero after the normalisation, as the processor leaves them."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        pixels = picture.resize["patch"] ** 2
        self.scale = picture.scale
        self.register_buffer("mean", torch.tensor(picture.mean).repeat(pixels), False)
        self.register_buffer("std", torch.tensor(picture.std).repeat(pixels), False)
        self.register_buffer("at", torch.arange(picture.resize["max_patches"]), False)

    def forward(self, frames: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        used = self.at[None] < grid.prod(-1, keepdim=True)
        x = (frames.to(torch.float32) * self.scale - self.mean) / self.std
        return x * used[..., None], used.to(torch.int64)


class OnePicture(nn.Module):
    def __init__(self, picture: Picture, model: nn.Module) -> None:
        super().__init__()
        self.folded, self.model = FoldedPatches(picture), model

    def forward(self, frames: Tensor, patch_grid: Tensor) -> Tensor:
        pixels, mask = self.folded(frames, patch_grid)
        return self.model.get_image_features(
            pixel_values=pixels, pixel_attention_mask=mask, spatial_shapes=patch_grid
        ).pooler_output


def read_patches(folder: HfFolder, patch: int) -> Picture:
    p = image_processor(folder)
    where = f"the picture rule of {folder.path}"
    if int(getattr(p, "patch_size", 0)) != patch:
        raise Refused(f"{where} cuts other patches than config.json takes ({patch} pixels)")
    resize = {
        "rule": "patches",
        "patch": patch,
        "max_patches": int(p.max_num_patches),
        "multiple": patch,
        "fit": "siglip2",
    }
    return Picture(resize, resample_of(p, where), None, *numbers_of(p, where))


def golden_patches(picture: Picture, frames: int | None) -> Feed:
    """Two rows of different grids."""
    rows, grids = [], []
    patch, most = picture.resize["patch"], picture.resize["max_patches"]
    for k, (height, width) in enumerate(GRIDS):
        shown = noise((frames or 1, height, width, 3), GOLDEN_SEED + k)
        cut = [patches(picture.pixels(frame), patch, most) for frame in shown]
        rows.append(np.stack([c[0] for c in cut]) if frames else cut[0][0])
        grids.append(cut[0][1])
    return {"frames": np.stack(rows), "patch_grid": np.stack(grids)}


def build(folder: HfFolder, options: Options, family: str = "siglip2") -> Family:
    model = load(folder, "Siglip2Model")
    vision = model.config.vision_config
    picture = read_patches(folder, int(vision.patch_size))
    text = padded_text(folder, model.config.text_config)
    frames = options.frames or DEFAULT_FRAMES
    one = OnePicture(picture, model)

    @torch.no_grad()
    def image(feed: Feed) -> dict[str, np.ndarray]:
        found = []
        for row, grid in zip(feed["frames"], feed["patch_grid"], strict=True):
            used = int(grid.prod())
            pixels = picture.normalise(torch.from_numpy(row).reshape(1, len(row), -1, 3)).flatten(2)
            pixels[:, used:] = 0
            mask = torch.zeros(1, len(row), dtype=torch.int32)
            mask[:, :used] = 1
            shapes = torch.from_numpy(grid)[None]
            found.append(model.get_image_features(pixels, mask, shapes).pooler_output)
        return {family: torch.cat(found).numpy()}

    def video(feed: Feed) -> dict[str, np.ndarray]:
        means = []
        for clip, grid in zip(feed["frames"], feed["patch_grid"], strict=True):
            grids = np.repeat(grid[None], len(clip), 0)
            rows = image({"frames": clip, "patch_grid": grids})[family]
            means.append((rows / np.linalg.norm(rows, axis=-1, keepdims=True)).mean(0))
        return {family: np.stack(means)}

    shared = {"picture": picture.manifest()}
    sampling = sampling_of(frames, options.window_secs)
    clips = [golden_patches(picture, n) for n in golden_counts(frames)]
    outputs = {family: family}
    towers = [
        Tower("video", "video", MeanOfFrames(one), dict(outputs),
              {**shared, "sampling": sampling}, clips, video, FRAMES_AXIS),
        Tower("image", "image", one, dict(outputs), dict(shared),
              [golden_patches(picture, None)], image),
        text_tower(model, text, family),
    ]  # fmt: skip
    space = Space(family, vision.hidden_size, ["text", "video", "image"])
    what = f"SigLIP 2 {folder.path.name}: pictures of any shape, videos as {frames} frames, texts"
    files = {text.file: text.data()}
    return family_of(folder, "siglip2", family, [space], towers, what, files, options)
