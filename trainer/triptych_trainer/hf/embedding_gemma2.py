"""EmbeddingGemma 2: texts, pictures, videos and sounds through one encoder into one space.

A picture, a video or a sound is a sequence of soft tokens between the tokens that its processor
puts around them. Their number depends on the aspect ratio or the length, so the graph has a place
for each that could be, counts positions over those in use, and masks the rest.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .errors import Refused
from .folder import HfFolder
from .gemma_parts import (
    AudioSoft,
    Layout,
    PictureSoft,
    Sequence,
    counted,
    layout_of,
    media_tower,
    read_patches,
    read_sound,
)
from .loading import load
from .parts import Family, Feed, Options, Space, Tower
from .pictures import Picture, torchvision_difference
from .siglip2 import golden_patches
from .sounds import Sound, tones
from .source import family_of
from .texts import Text, load_tokenizer, read_text

MOST_TOKENS = 8192
"""Of a text, where the folder sets no limit."""
SMALLEST_DIM = 128
PRECISIONS = ["f32", "bf16", "int8"]
"""Never f16: activations leave its range."""


class TextMean(nn.Module):
    """Token ids without padding to the mean of their projected states."""

    def __init__(self, model: nn.Module, limit: int) -> None:
        super().__init__()
        self.sequence = Sequence(model, limit)
        self.words = model.language_model.embed_tokens

    def forward(self, token_ids: Tensor) -> Tensor:
        at = torch.arange(token_ids.shape[1], device=token_ids.device)[None]
        return self.sequence(self.words(token_ids), at, None)


def _text_limit(folder: HfFolder, model: nn.Module) -> int:
    positions = int(model.config.text_config.max_position_embeddings)
    named = folder.json("sentence_bert_config.json").get("max_seq_length")
    return min(positions, int(named) if isinstance(named, int) else MOST_TOKENS)


def _check_modules(folder: HfFolder) -> None:
    """Pooling by the mean, as the network was trained; other modules are not carried."""
    path = folder.path / "modules.json"
    if not path.is_file():
        return
    named = path.read_text(encoding="utf-8")
    if "Dense" in named or "LSTM" in named:
        raise Refused(
            f"modules.json in {folder.path} adds layers after the encoder, which are not "
            "supported: import the folder as Google published it"
        )
    pooling = folder.path / "1_Pooling"
    rules = HfFolder(pooling).json("config.json") if pooling.is_dir() else {}
    if rules and not rules.get("pooling_mode_mean_tokens", rules.get("pooling_mode") == "mean"):
        raise Refused(f"1_Pooling in {folder.path} does not take the mean of the tokens")


def _shorter(dim: int) -> list[int]:
    """The sizes that vectors may be cut to: powers of two, as the network was trained for."""
    powers = (1 << n for n in range(dim.bit_length() - 1, 0, -1))
    return [size for size in powers if SMALLEST_DIM <= size < dim]


def build(folder: HfFolder, options: Options, family: str = "gemma") -> Family:
    _check_modules(folder)
    tokenizer = load_tokenizer(folder)
    model = load(folder, "EmbeddingGemma2Model", "eager")
    limit = _text_limit(folder, model)
    text = read_text(folder, "tokenizer.json", limit, "none", with_mask=False,
                     words=model.config.text_config.vocab_size)  # fmt: skip
    towers = [_text(model, text, family)]
    members, notes = ["text"], {}
    if model.vision_tower is not None:
        pictures, moving = _pictures(folder, model, tokenizer, options, family)
        towers += pictures
        notes = {"video": {"torchvision": torchvision_difference(moving)}}
        members += ["image", "video"]
    if model.audio_tower is not None:
        towers.append(_audio(folder, model, tokenizer, options, family))
        members.append("audio")
    dim = int(model.config.text_config.embedding_dim)
    space = Space(family, dim, members, _shorter(dim))
    for tower in towers:
        tower.precisions = list(PRECISIONS)
    what = f"EmbeddingGemma 2 {folder.path.name}: {', '.join(members)} in one space"
    files = {text.file: text.data()}
    return family_of(
        folder, "embedding_gemma2", family, [space], towers, what, files, options, notes
    )


def _text(model: nn.Module, text: Text, space: str) -> Tower:
    @torch.no_grad()
    def reference(feed: Feed) -> dict:
        ids = torch.from_numpy(feed["token_ids"])
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return {space: states.mean(1).numpy()}

    return Tower(
        "text",
        "text",
        TextMean(model, text.max_tokens),
        {space: space},
        {"text": text.manifest()},
        text.golden_feeds(),
        reference,
        text.dynamic(),
    )


def _around(folder: HfFolder, tokenizer, *names: str) -> list[str]:
    """The tokens that a folder's tokenizer has for the edges of a medium."""
    found = [getattr(tokenizer, name, None) for name in names]
    if None in found:
        raise Refused(
            f"tokenizer_config.json in {folder.path} names no {names[found.index(None)]}: download "
            "it again"
        )
    return found


def _pictures(
    folder, model, tokenizer, options: Options, space: str
) -> tuple[list[Tower], Picture]:
    patch = int(model.config.vision_config.patch_size)
    pool = int(model.config.vision_config.pooling_kernel_size)
    still, moving, sampling = read_patches(folder, patch, pool, options)
    config = model.config
    start, end, _ = _around(folder, tokenizer, "boi_token", "eoi_token", "image_token")
    towers = []
    for name, picture, ids, frames in (
        ("image", still, (start, config.image_token_id, end), None),
        ("video", moving, (start, config.video_token_id, end), sampling["frames"]),
    ):
        slots = picture.resize["max_patches"] // pool**2
        layout: Layout = layout_of(model, tokenizer, ids, slots, frames or 1)
        soft = PictureSoft(model, picture, slots, frames)
        rules = {"picture": picture.manifest()}
        if frames:
            rules["sampling"] = sampling
        feed = golden_patches(picture, frames)
        if frames:
            feed = counted(feed, frames)
        towers.append(media_tower(name, model, layout, soft, space, rules, feed))
    return towers, moving


def _audio(folder, model, tokenizer, options: Options, space: str) -> Tower:
    extractor, sound = read_sound(folder, options)
    soft = AudioSoft(model, extractor, sound)
    start, end, _ = _around(folder, tokenizer, "boa_token", "eoa_token", "image_token")
    ids = (start, model.config.audio_token_id, end)
    layout = layout_of(model, tokenizer, ids, soft.slots, 1)
    feed = _sounds(sound)
    return media_tower("audio", model, layout, soft, space, {"sound": sound.manifest()}, feed)


def _sounds(sound: Sound) -> Feed:
    """A whole window, and a sound of a third of one."""
    pcm = tones(2, sound.samples, sound.sample_rate_hz)
    lengths = np.array([sound.samples, sound.samples // 3], np.int64)
    pcm[1, lengths[1] :] = 0
    return {"pcm": pcm, "pcm_samples": lengths}
