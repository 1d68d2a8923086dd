"""Sequences of soft tokens for EmbeddingGemma 2: where they come from, and where they stand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers
from .loading import first_line
from .mel import framed, power
from .parts import Feed, Options, Tower
from .pictures import Picture, image_processor, numbers_of, resample_of
from .siglip2 import FoldedPatches
from .sounds import Sound, feature_extractor

LOWEST = torch.finfo(torch.float32).min


class Sequence(nn.Module):
    """Embedded tokens with their positions to the mean of the states of those in use."""

    def __init__(self, model: nn.Module, longest: int) -> None:
        super().__init__()
        self.language = model.language_model
        window = int(model.config.text_config.sliding_window)
        self.window = window if longest - 1 > window else None

    def forward(self, embedded: Tensor, at: Tensor, used: Tensor | None) -> Tensor:
        full = None if used is None else used[:, None, None, :]
        near = full
        if self.window is not None:
            close = ((at[:, :, None] - at[:, None, :]).abs() <= self.window)[:, None]
            near = close if full is None else close & full
        masks = {"full_attention": _additive(full), "sliding_attention": _additive(near)}
        states = self.language(
            inputs_embeds=embedded, position_ids=at, attention_mask=masks
        ).last_hidden_state
        if used is None:
            return states.mean(1)
        weights = used.to(states.dtype)[..., None]
        return (states * weights).sum(1) / weights.sum(1)


def _additive(allowed: Tensor | None) -> Tensor | None:
    return None if allowed is None else torch.where(allowed, 0.0, LOWEST)


@dataclass
class Layout:
    """Token ids around the soft tokens, as the folder's tokenizer puts them: before all, before
    and after each block of `slots`, behind all."""

    before: list[int]
    opening: list[int]
    closing: list[int]
    behind: list[int]
    token: int
    slots: int
    blocks: int

    @property
    def longest(self) -> int:
        block = len(self.opening) + self.slots + len(self.closing)
        return len(self.before) + self.blocks * block + len(self.behind)

    def ids(self, soft: int) -> list[int]:
        """The sequence with `soft` tokens a block."""
        block = [*self.opening, *[self.token] * soft, *self.closing]
        return [*self.before, *block * self.blocks, *self.behind]


def layout_of(model, tokenizer, names: tuple, slots: int, blocks: int) -> Layout:
    """Read off from what the tokenizer makes of the processor's text for one soft token."""
    opening, token, closing = names
    word = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
    stand_in = word or tokenizer.image_token
    stands = tokenizer.convert_tokens_to_ids(stand_in)
    one, two = (tokenizer(f"{opening}{stand_in}{closing}" * n)["input_ids"] for n in (1, 2))
    start, end = tokenizer.convert_tokens_to_ids([opening, closing])
    if one.count(stands) != 1 or two.count(stands) != 2 or start not in one or end not in one:
        raise Refused(
            "the tokenizer does not know the tokens that EmbeddingGemma 2 puts around pictures and "
            "sounds: download tokenizer.json and tokenizer_config.json of the same revision"
        )
    at = one.index(stands)
    first, last = one.index(start), one.index(end)
    layout = Layout(
        one[:first], one[first:at], one[at + 1 : last + 1], one[last + 1 :], int(token),
        slots, blocks,
    )  # fmt: skip
    if two != replace(layout, token=stands, blocks=2).ids(1):
        raise Refused(
            "the tokenizer merges the tokens around pictures, which a bundle cannot represent"
        )
    return layout


class Media(nn.Module):
    """Whatever gives soft tokens to a vector. `soft` returns [batch, blocks, slots, width], how
    many of a block's slots are in use, [batch, 1], and how many of the blocks, or None for all."""

    def __init__(self, model: nn.Module, layout: Layout, soft: nn.Module) -> None:
        super().__init__()
        self.sequence, self.soft, self.layout = Sequence(model, layout.longest), soft, layout
        # Their rows alone: a graph of pictures needs no table of words.
        words = model.language_model.embed_tokens
        for name in ("before", "opening", "closing", "behind"):
            ids = torch.tensor(getattr(layout, name), dtype=torch.int64)
            self.register_buffer(name, words(ids).detach().clone(), False)

    def forward(self, *inputs: Tensor) -> Tensor:
        soft, count, in_use = self.soft(*inputs)
        layout, batch = self.layout, soft.shape[0]
        opening = self.opening.expand(batch, layout.blocks, -1, -1)
        closing = self.closing.expand(batch, layout.blocks, -1, -1)
        blocks = torch.cat([opening, soft, closing], dim=2)
        before, behind = self.before.expand(batch, -1, -1), self.behind.expand(batch, -1, -1)
        embedded = torch.cat([before, blocks.flatten(1, 2), behind], dim=1)
        at, used = self.places(count, in_use)
        return self.sequence(embedded, at, used)

    def places(self, count: Tensor, in_use: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions and use of every place, [batch, places]; `count` and `in_use` [batch, 1]."""
        layout = self.layout
        lead, front = len(layout.before), len(layout.opening)
        tail = len(layout.closing)
        slots = torch.arange(layout.slots)[None]
        always = torch.ones_like(count, dtype=torch.bool)
        inside = torch.cat(
            [
                torch.arange(front)[None] + 0 * count,
                front + slots + 0 * count,
                front + count + torch.arange(tail)[None],
            ],
            dim=1,
        )
        used = torch.cat([always.expand(-1, front), slots < count, always.expand(-1, tail)], dim=1)
        size = front + count + tail
        starts = lead + torch.arange(layout.blocks)[None] * size
        at = (starts[:, :, None] + inside[:, None, :]).flatten(1)
        used = used[:, None, :].expand(-1, layout.blocks, -1)
        end = lead + layout.blocks * size
        if in_use is not None:
            used = used & (torch.arange(layout.blocks)[None] < in_use)[:, :, None]
            end = lead + in_use * size
        used = used.flatten(1)
        rest = len(layout.behind)
        at = torch.cat(
            [torch.arange(lead)[None] + 0 * count, at, end + torch.arange(rest)[None]], dim=1
        )
        used = torch.cat([always.expand(-1, lead), used, always.expand(-1, rest)], dim=1)
        return at, used


class PictureSoft(nn.Module):
    """Patches and their grid to soft tokens, without leaving out the unused ones."""

    def __init__(self, model: nn.Module, picture: Picture, slots: int, frames: int | None) -> None:
        super().__init__()
        self.folded = FoldedPatches(picture)
        self.tower, self.embed = model.vision_tower, model.embed_vision
        self.pool = int(model.config.vision_config.pooling_kernel_size)
        self.slots, self.frames = slots, frames

    def forward(
        self, frames: Tensor, patch_grid: Tensor, frame_count: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        blocks = self.frames or 1
        grid = patch_grid.repeat_interleave(blocks, dim=0) if self.frames else patch_grid
        pixels, mask = self.folded(frames.flatten(0, 1) if self.frames else frames, grid)
        used = mask.bool()
        at = self.folded.at[None]
        columns = grid[:, 1:]
        places = torch.stack([at % columns, at // columns], dim=-1)
        places = torch.where(used[..., None], places, -1)
        tower = self.tower
        states = tower.patch_embedder(pixels, places, ~used)
        states = tower.encoder(
            inputs_embeds=states, attention_mask=used, pixel_position_ids=places
        ).last_hidden_state
        states, _ = tower.pooler(
            hidden_states=states, pixel_position_ids=places, padding_positions=~used,
            output_length=self.slots,
        )  # fmt: skip
        if tower.config.standardize:
            states = (states - tower.std_bias) * tower.std_scale
        soft = self.embed(inputs_embeds=states)
        count = patch_grid.prod(-1, keepdim=True) // self.pool**2
        in_use = None if frame_count is None else frame_count[:, None]
        return soft.reshape(-1, blocks, self.slots, soft.shape[-1]), count, in_use

    def ready(self, feed: Feed, row: int) -> dict:
        """What transformers' model takes for one row."""
        frames, grid = feed["frames"][row], feed["patch_grid"][row]
        own = int(feed["frame_count"][row]) if self.frames else 1
        clip = torch.from_numpy(frames[:own] if self.frames else frames[None])
        number = int(grid.prod())
        pixels = clip.to(torch.float32) * self.folded.scale
        pixels[:, number:] = 0
        rows, columns = int(grid[0]), int(grid[1])
        places = torch.full((*pixels.shape[:2], 2), -1)
        places[:, :number, 0] = torch.arange(columns).repeat(rows)
        places[:, :number, 1] = torch.arange(rows).repeat_interleave(columns)
        soft = number // self.pool**2
        if self.frames:
            return {
                "soft": soft, "blocks": own,
                "pixel_values_videos": pixels, "video_position_ids": places,
                "num_frames_per_video": torch.tensor([len(pixels)]),
            }  # fmt: skip
        return {"soft": soft, "pixel_values": pixels, "image_position_ids": places}


class AudioSoft(nn.Module):
    """PCM of a whole window, and how much of it is sound, to soft tokens."""

    def __init__(self, model: nn.Module, extractor, sound: Sound) -> None:
        super().__init__()
        self.tower, self.embed, self.extractor = model.audio_tower, model.embed_audio, extractor
        self.size, self.hop = int(extractor.frame_length), int(extractor.hop_length)
        self.lead = self.size // 2
        self.frames = (sound.samples + self.lead - self.size - 1) // self.hop + 1
        # Two convolutions, each of every second frame.
        self.slots = math.ceil(math.ceil(self.frames / 2) / 2)
        window = torch.from_numpy(np.asarray(extractor.window, np.float64))
        self.register_buffer("window", window, False)
        filters = torch.from_numpy(np.asarray(extractor.mel_filters, np.float64))
        self.register_buffer("filters", filters, False)

    def mel(self, pcm: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features as the processor computes them, and which frames are sound."""
        e = self.extractor
        x = functional.pad(pcm * e.input_scale_factor, (self.lead, 0))
        frames = framed(x, self.size + 1, self.hop, self.frames)
        if e.preemphasis > 0.0 and e.preemphasis_htk_flavor:
            first = frames[..., :1] * (1.0 - e.preemphasis)
            frames = torch.cat([first, frames[..., 1:-1] - e.preemphasis * frames[..., :-2]], -1)
        elif e.preemphasis > 0.0:
            frames = frames[..., 1:] - e.preemphasis * frames[..., :-1]
        else:
            frames = frames[..., :-1]
        spectrum = power(frames, self.window, int(e.fft_length)).sqrt()
        mel = torch.log(spectrum @ self.filters + float(e.mel_floor))
        if e.per_bin_mean is not None:
            mel = mel - torch.from_numpy(np.asarray(e.per_bin_mean, np.float64))
        if e.per_bin_stddev is not None:
            mel = mel / torch.from_numpy(np.asarray(e.per_bin_stddev, np.float64))
        ends = torch.arange(self.frames) * self.hop + self.size - self.lead
        mask = (ends[None] < samples[:, None]) & (ends[None] >= 0)
        return mel.to(torch.float32) * mask[..., None], mask

    def forward(self, pcm: Tensor, pcm_samples: Tensor) -> tuple[Tensor, Tensor, None]:
        mel, mask = self.mel(pcm, pcm_samples)
        found = self.tower(mel, mask)
        soft = self.embed(inputs_embeds=found.last_hidden_state)
        count = found.attention_mask.to(torch.int64).sum(-1, keepdim=True)
        return soft[:, None], count, None

    def ready(self, feed: Feed, row: int) -> dict:
        """From the folder's own processor of sound, given the sound without its padding."""
        pcm = feed["pcm"][row][: int(feed["pcm_samples"][row])]
        given = self.extractor([pcm], return_tensors="pt")
        mask = given["input_features_mask"]
        soft = int(mask[:, ::2][:, ::2].sum())
        return {
            "soft": soft, "input_features": given["input_features"].to(torch.float32),
            "input_features_mask": mask,
        }  # fmt: skip


def media_tower(
    name: str, model, layout: Layout, soft: nn.Module, space: str, rules: dict, feed: Feed
) -> Tower:
    @torch.no_grad()
    def reference(feed: Feed) -> dict[str, np.ndarray]:
        found = []
        for row in range(len(next(iter(feed.values())))):
            given = soft.ready(feed, row)
            own = replace(layout, blocks=given.pop("blocks", layout.blocks))
            ids = torch.tensor([own.ids(given.pop("soft"))])
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
            found.append(states.last_hidden_state.mean(1))
        return {space: torch.cat(found).numpy()}

    module = Media(model, layout, soft)
    return Tower(name, name, module, {space: space}, rules, [feed], reference)


def read_patches(
    folder: HfFolder, patch: int, pool: int, options: Options
) -> tuple[Picture, Picture, dict]:
    """Rules of pictures and of videos, and how a video is sampled."""
    image = image_processor(folder)
    try:
        video = transformers().AutoVideoProcessor.from_pretrained(str(folder.path), **LOCAL)
    except Exception as error:
        raise Refused(
            f"{folder.path} has no usable video processor ({first_line(error)}): "
            "download video_preprocessor_config.json or processor_config.json too"
        ) from error
    found = []
    for processor, what in ((image, "picture"), (video, "video")):
        where = f"the {what} rule of {folder.path}"
        if (int(processor.patch_size), int(processor.pooling_kernel_size)) != (patch, pool):
            raise Refused(
                f"{where} has other patches or pools than config.json: download both again"
            )
        resize = {
            "rule": "patches",
            "patch": patch,
            "max_patches": int(processor.max_soft_tokens) * pool**2,
            "multiple": patch * pool,
            "fit": "gemma",
        }
        numbers = numbers_of(processor, where)
        if numbers[1:] != ([0.0] * 3, [1.0] * 3):
            raise Refused(
                f"{where} normalises pixels, but this family normalises inside its network"
            )
        found.append(Picture(resize, resample_of(processor, where), None, *numbers))
    if video.add_timestamps:
        raise Refused(
            f"the video rule of {folder.path} writes times between frames (add_timestamps)"
        )
    return found[0], found[1], _sampling(video, options)


def _sampling(video, options: Options) -> dict:
    fps = options.frames / options.window_secs if options.frames else float(video.fps or 1.0)
    frames = options.frames or max(1, int(options.window_secs * fps))
    if video.max_frames and frames > int(video.max_frames):
        raise Refused(
            f"{frames} frames a window of {options.window_secs:g} s exceed the model's maximum of "
            f"{video.max_frames}: choose a shorter --window or fewer --frames"
        )
    return {"rule": "rate", "fps": fps, "frames": frames, "take": "on_screen"}


def counted(feed: Feed, frames: int) -> Feed:
    """Clips with how many of their frames are their own: all, and a third."""
    return feed | {"frame_count": np.array([frames, max(1, frames // 3)], np.int64)}


def read_sound(folder: HfFolder, options: Options) -> tuple[object, Sound]:
    extractor = feature_extractor(folder)
    if extractor.dither > 0.0:
        raise Refused(
            f"the sound rule of {folder.path} adds noise (dither), so results are not reproducible"
        )
    rate = int(extractor.sampling_rate)
    longest = 480_000
    samples = round(options.window_secs * rate)
    if samples > longest:
        raise Refused(f"a sound of this model has {longest / rate:g} s at most: choose --window")
    return extractor, Sound(rate, samples, "zeros")
