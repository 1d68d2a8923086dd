"""CLAP (laion/clap-htsat-*): sound and texts. The log-mel is computed in f64 inside the graph, as
the processor computes it; a fused checkpoint sees every window as one long sound, as its processor
has it for a single one."""

import types

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .clip import text_tower
from .errors import Refused
from .folder import HfFolder
from .loading import load
from .mel import framed, power
from .parts import Family, Feed, Options, Space, Tower
from .sounds import Sound, feature_extractor, tones
from .source import family_of
from .texts import read_text

SHORT = {"repeatpad": "repeat_zeros", "pad": "zeros", "repeat": "loop"}
FLOOR = 1e-10
POSITIONS_BEFORE = 2
"""RoBERTa counts positions from the padding's id on."""


class LogMel(nn.Module):
    """PCM [batch, S] to decibels [batch, 1, frames, mels]."""

    def __init__(self, extractor, fused: bool) -> None:
        super().__init__()
        from transformers.audio_utils import window_function

        self.fft, self.hop = extractor.fft_window_size, extractor.hop_length
        window = window_function(self.fft, "hann")
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.register_buffer("window", torch.from_numpy(np.asarray(window, np.float64)), False)
        self.register_buffer("filters", torch.from_numpy(np.asarray(filters, np.float64)), False)

    def forward(self, pcm: Tensor) -> Tensor:
        x = functional.pad(pcm[:, None], (self.fft // 2, self.fft // 2), mode="reflect")[:, 0]
        frames = (x.shape[1] - self.fft) // self.hop + 1
        spectrum = power(framed(x, self.fft, self.hop, frames), self.window, self.fft)
        mel = (spectrum @ self.filters).clamp_min(FLOOR)
        decibels = torch.log(mel) * (10.0 / np.log(10.0))
        return decibels.to(torch.float32)[:, None]


class AudioFeatures(nn.Module):
    def __init__(self, model: nn.Module, extractor, fused: bool) -> None:
        super().__init__()
        self.model, self.log_mel = model, LogMel(extractor, fused)
        self.fused = fused

    def forward(self, pcm: Tensor) -> Tensor:
        mel = self.log_mel(pcm)
        if self.fused:
            mel = mel.expand(-1, 4, -1, -1)
        return self.model.get_audio_features(
            input_features=mel, is_longer=torch.ones(mel.shape[0], 1, dtype=torch.bool)
        ).pooler_output


def _always_longer(self, hidden_states: Tensor, is_longer_idx=None) -> Tensor:
    """The patch embedding of a fused network where every row is a long sound: no index of rows."""
    whole = self.proj(hidden_states[:, 0:1])
    parts = hidden_states[:, 1:]
    _, channels, height, width = parts.shape
    local = self.mel_conv2d(parts.reshape(-1, 1, height, width))
    _, features, height, width = local.shape
    local = local.reshape(-1, channels, features, height, width)
    local = local.permute(0, 2, 3, 1, 4).flatten(3)
    local = functional.pad(local, (0, whole.shape[-1] - local.shape[-1]))
    whole = self.fusion_model(whole, local)
    if self.flatten:
        whole = whole.flatten(2).transpose(1, 2)
    return self.norm(whole)


def _as_products(encoder: nn.Module, frames: int, mels: int) -> None:
    """The bicubic stretch of the spectrogram as two fixed matrices."""
    width = int(encoder.spec_size * encoder.freq_ratio)
    height = encoder.spec_size // encoder.freq_ratio
    time, freq = _stretch(frames, width), _stretch(mels, height)
    ratio = encoder.freq_ratio

    def reshape_mel2img(self, x: Tensor) -> Tensor:
        x = x if time is None else time @ x
        x = x if freq is None else x @ freq.T
        _, channels, _, _ = x.shape
        x = x.reshape(-1, channels * ratio, width // ratio, height)
        x = x.permute(0, 1, 3, 2)
        return x.reshape(-1, channels, height * ratio, width // ratio)

    encoder.reshape_mel2img = types.MethodType(reshape_mel2img, encoder)


def _stretch(size: int, to: int) -> Tensor | None:
    if size == to:
        return None
    rows = torch.eye(size)[None, None]
    out = functional.interpolate(rows, (to, size), mode="bicubic", align_corners=True)
    return out[0, 0].contiguous()


def read_sound(folder: HfFolder, extractor) -> Sound:
    where = f"the sound rule of {folder.path}"
    short = SHORT.get(extractor.padding)
    if short is None:
        raise Refused(f"{where} pads by {extractor.padding!r}; known: {', '.join(SHORT)}")
    if extractor.truncation not in ("fusion", "rand_trunc"):
        raise Refused(f"{where} truncates by {extractor.truncation!r}, which is not supported")
    return Sound(extractor.sampling_rate, int(extractor.nb_max_samples), short)


def build(folder: HfFolder, options: Options, family: str = "clap") -> Family:
    extractor = feature_extractor(folder)
    sound = read_sound(folder, extractor)
    model = load(folder, "ClapModel", "eager")
    fused = bool(model.config.audio_config.enable_fusion)
    if fused != (extractor.truncation == "fusion"):
        raise Refused(
            f"config.json and preprocessor_config.json in {folder.path} disagree on whether "
            "sounds are fused: download both files from one revision"
        )
    text_config = model.config.text_config
    positions = text_config.max_position_embeddings - POSITIONS_BEFORE
    text = read_text(folder, "tokenizer.json", positions, "none", with_mask=False,
                     words=text_config.vocab_size)  # fmt: skip
    references = _reference(model, extractor)

    rows = tones(2, sound.samples, sound.sample_rate_hz)
    # What the network gives as it is comes first; afterwards its parts are those of the graph.
    wanted = references({"pcm": rows})["clap"]
    encoder = model.audio_model.audio_encoder
    frames = sound.samples // extractor.hop_length + 1
    _as_products(encoder, frames, extractor.feature_size)
    if fused:
        patch = encoder.patch_embed
        patch.forward = types.MethodType(_always_longer, patch)
    audio = Tower(
        "audio",
        "audio",
        AudioFeatures(model, extractor, fused),
        {family: family},
        {"sound": sound.manifest()},
        [{"pcm": rows}],
        lambda _: {family: wanted},
    )
    towers = [audio, text_tower(model, text, family)]
    space = Space(family, model.config.projection_dim, ["text", "audio"])
    what = f"CLAP {folder.path.name}: sounds and texts in one space"
    files = {text.file: text.data()}
    return family_of(folder, "clap", family, [space], towers, what, files, options)


def _reference(model: nn.Module, extractor):
    @torch.no_grad()
    def run(feed: Feed) -> dict[str, np.ndarray]:
        found = []
        for row in feed["pcm"]:
            given = extractor(row, sampling_rate=extractor.sampling_rate, return_tensors="pt")
            found.append(
                model.get_audio_features(
                    input_features=given["input_features"].to(torch.float32),
                    is_longer=given["is_longer"],
                ).pooler_output
            )
        return {"clap": torch.cat(found).numpy()}

    return run
