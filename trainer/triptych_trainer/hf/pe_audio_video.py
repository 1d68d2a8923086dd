"""PE-AV (facebook/pe-av-*): videos, sounds and texts, with one contrastive space for each pair."""

import numpy as np
import torch
from torch import Tensor, nn

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers
from .loading import first_line, load
from .parts import Family, Feed, Options, Space, Tower
from .pictures import Picture, read_picture, torchvision_difference
from .sounds import GOLDEN_SEED, Sound, feature_extractor, tones
from .source import family_of
from .still import Folded, noise
from .texts import Text, read_text

ALL_FRAMES_DEFAULT = 16
"""A window's frames for a checkpoint that takes any number of them."""
GOLDEN_HOPS = (13, 40)


class Video(nn.Module):
    """u8 [batch, T, H, W, 3] to the video vector."""

    def __init__(self, model: nn.Module, picture: Picture) -> None:
        super().__init__()
        self.encoder, self.head = model.video_model.video_encoder, model.video_model.video_head
        self.folded = Folded(picture)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = self.folded(frames.flatten(0, 1)).reshape(
            -1, frames.shape[1], 3, frames.shape[2], frames.shape[3]
        )
        return self.head(self.encoder(pixel_values_videos=pixels).pooler_output)


class Still(nn.Module):
    """u8 [batch, H, W, 3] to the vector of a video that shows this picture T times: the picture
    goes through the frame network once."""

    def __init__(self, model: nn.Module, picture: Picture, frames: int) -> None:
        super().__init__()
        self.encoder, self.head = model.video_model.video_encoder, model.video_model.video_head
        self.folded, self.frames = Folded(picture), frames

    def forward(self, frames: Tensor) -> Tensor:
        encoder = self.encoder
        one, _ = encoder.embedder(self.folded(frames)[:, None])
        x, _ = encoder.patch_embedder(one.expand(-1, self.frames, -1))
        at = torch.arange(self.frames + 1)[None]
        positions = encoder.rotary_emb(x, at)
        for layer in encoder.layers:
            x = layer(x, attention_mask=None, position_embeddings=positions)
        return self.head(encoder.output(encoder.norm(x))[:, 0])


class Audio(nn.Module):
    """PCM [batch, S] to the sound vector."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = model.audio_model.audio_encoder, model.audio_model.audio_head

    def forward(self, pcm: Tensor) -> Tensor:
        return self.head(self.encoder(input_values=pcm[:, None]).pooler_output)


class TextHeads(nn.Module):
    """Token ids to one vector for the space with videos and one for that with sounds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = model.text_model
        self.video = model.video_model.text_video_head
        self.audio = model.audio_model.text_audio_head

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        first = self.encoder(input_ids=token_ids).last_hidden_state[:, 0]
        return self.video(first), self.audio(first)


def _video_processor(folder: HfFolder):
    try:
        return transformers().AutoVideoProcessor.from_pretrained(str(folder.path), **LOCAL)
    except Exception as error:
        raise Refused(
            f"{folder.path} has no usable video processor ({first_line(error)}): "
            "download video_preprocessor_config.json or processor_config.json too"
        ) from error


def frames_of(processor, folder: HfFolder, options: Options) -> int:
    """How many frames a window has. A checkpoint that names a number was trained with it."""
    named = getattr(processor, "num_frames", None)
    if not named:
        frames = options.frames or ALL_FRAMES_DEFAULT
        options.say(
            f"{folder.path.name} takes any number of frames; a window of "
            f"{options.window_secs:g} s gets {frames} (--frames)"
        )
        return frames
    if options.frames and options.frames != int(named):
        options.say(
            f"{folder.path.name} was trained with {named} frames per video, got --frames "
            f"{options.frames}"
        )
    return options.frames or int(named)


def build(folder: HfFolder, options: Options, family: str = "pe-av") -> Family:
    processor, extractor = _video_processor(folder), feature_extractor(folder)
    picture = read_picture(folder, processor)
    frames = frames_of(processor, folder, options)
    if frames < 2:
        raise Refused("PE-AV needs at least two frames per window (--frames)")
    rate, hop = int(extractor.sampling_rate), int(extractor.hop_length)
    sound = Sound(rate, round(options.window_secs * rate), "as_is", hop, "reflect")
    model = load(folder, "PeAudioVideoModel")
    if int(model.audio_model.config.audio_config.dac_config.hop_length) != hop:
        raise Refused(
            f"the sound rule of {folder.path} has a hop of {hop} samples, config.json another: "
            "download both files from one revision"
        )
    positions = model.config.text_config.max_position_embeddings
    text = read_text(folder, "tokenizer.json", positions, "none", with_mask=False,
                     words=model.config.text_config.vocab_size)  # fmt: skip
    names = ("video-audio", "video-text", "audio-text")
    towers = [
        *_pictures(model, picture, frames, options.window_secs),
        _audio(model, sound),
        _text(model, text),
    ]
    dim = model.config.text_config.hidden_size
    members = (["video", "image", "audio"], ["text", "video", "image"], ["text", "audio"])
    spaces = [Space(name, dim, who) for name, who in zip(names, members, strict=True)]
    what = f"PE-AV {folder.path.name}: videos of {frames} frames, sounds and texts, a space a pair"
    files = {text.file: text.data()}
    notes = {"video": {"torchvision": torchvision_difference(picture)}}
    return family_of(folder, "pe_audio_video", family, spaces, towers, what, files, options, notes)


def _pictures(model, picture: Picture, frames: int, window_secs: float) -> list[Tower]:
    height, width = picture.size

    @torch.no_grad()
    def video(feed: Feed) -> dict[str, np.ndarray]:
        found = []
        for clip in feed["frames"]:
            pixels = picture.normalise(torch.from_numpy(clip)).permute(0, 3, 1, 2)[None]
            pooled = model.video_model.video_encoder(pixel_values_videos=pixels).pooler_output
            found.append(model.video_model.video_head(pooled))
        return {"video": torch.cat(found).numpy()}

    def image(feed: Feed) -> dict[str, np.ndarray]:
        return video({"frames": np.repeat(feed["frames"][:, None], frames, 1)})

    outputs = {"video-text": "video", "video-audio": "video"}
    sampling = {"rule": "spread", "frames": frames, "window_secs": window_secs}
    shared = {"picture": picture.manifest()}
    clips = noise((2, frames, height, width, 3))
    stills = noise((2, height, width, 3), GOLDEN_SEED + 1)
    return [
        Tower("video", "video", Video(model, picture), dict(outputs),
              {**shared, "sampling": sampling}, [{"frames": clips}], video),
        Tower("image", "image", Still(model, picture, frames), dict(outputs), dict(shared),
              [{"frames": stills}], image),
    ]  # fmt: skip


def _audio(model, sound: Sound) -> Tower:
    @torch.no_grad()
    def reference(feed: Feed) -> dict[str, np.ndarray]:
        found = []
        for row in feed["pcm"]:
            mask = torch.ones(1, len(row), dtype=torch.int64)
            # With the mask that its processor hands out.
            given = torch.from_numpy(row)[None, None]
            found.append(model.audio_model.get_audio_embeds(given, mask))
        return {"audio": torch.cat(found).numpy()}

    feeds = [{"pcm": tones(1, n * sound.multiple, sound.sample_rate_hz)} for n in GOLDEN_HOPS]
    return Tower(
        "audio",
        "audio",
        Audio(model),
        {"audio-text": "audio", "video-audio": "audio"},
        {"sound": sound.manifest()},
        feeds,
        reference,
        {"pcm": {1: "samples"}},
    )


def _text(model, text: Text) -> Tower:
    @torch.no_grad()
    def reference(feed: Feed) -> dict[str, np.ndarray]:
        ids = torch.from_numpy(feed["token_ids"])
        out = model.text_model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        )
        first = out.hidden_states[-1][:, 0]
        return {
            "text_video": model.video_model.text_video_head(first).numpy(),
            "text_audio": model.audio_model.text_audio_head(first).numpy(),
        }

    return Tower(
        "text",
        "text",
        TextHeads(model),
        {"video-text": "text_video", "audio-text": "text_audio"},
        {"text": text.manifest()},
        text.golden_feeds(),
        reference,
        text.dynamic(),
    )
