"""The reference: a media file to vectors with transformers' own processors and model, window by
window, to hold a running server to.

What transformers decides (resize, crop, normalisation, spectrograms, tokens, the network) is its
own; what a bundle adds (which windows, the mean over a window's frames) is written out here once
more.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ..clips import spans
from ..media import decode, native_frames
from .folder import HfFolder
from .library import LOCAL, transformers
from .pictures import image_processor
from .sounds import feature_extractor
from .texts import load_tokenizer


@dataclass
class Window:
    """A clip of a file, and its vector by space."""

    track: str
    start_secs: float
    end_secs: float
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


def spread(count: int, frames: int) -> list[int]:
    """Indices of `frames` of `count` frames, ends included."""
    if frames == 1:
        return [0]
    return [i * (count - 1) // (frames - 1) for i in range(frames)]


def windows(count: int, rate: Fraction, window_secs: float) -> list[tuple[int, int]]:
    """(first, one behind the last) native frame of every window; the last may be shorter."""
    size = round(Fraction(window_secs).limit_denominator(1000) * rate)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def processor_of(folder: HfFolder):
    """All of a folder's processors; that of pictures on Pillow, which videos do not have."""
    t, path = transformers(), str(folder.path)
    processor = t.AutoProcessor.from_pretrained(path, **LOCAL)
    processor.image_processor = image_processor(folder)
    return processor


class Reference:
    """transformers' model and processors of one folder."""

    def __init__(self, folder: Path, frames: int | None = None, window_secs: float = 10.0) -> None:
        self.folder, self.window_secs, self.frames = HfFolder.open(folder), window_secs, frames
        t, path = transformers(), str(folder)
        self.kind = self.folder.model_type
        attention = "eager" if self.kind in ("embedding_gemma2", "clap") else "sdpa"
        self.model = t.AutoModel.from_pretrained(
            path, **LOCAL, dtype=torch.float32, attn_implementation=attention
        ).eval()
        self.tokenizer = load_tokenizer(self.folder)
        if self.kind == "embedding_gemma2":
            self.processor = processor_of(self.folder)
        elif self.kind == "pe_audio_video":
            self.video_processor = t.AutoVideoProcessor.from_pretrained(path, **LOCAL)
        elif self.kind != "clap":
            self.image_processor = image_processor(self.folder)

    @torch.no_grad()
    def film(self, path: Path) -> list[Window]:
        """The pictures of a file."""
        frames, rate = native_frames(path)
        found = []
        for start, end in windows(len(frames), rate, self.window_secs):
            window = Window("video", float(start / rate), float(end / rate))
            window.vectors = self._clip(frames[start:end], rate)
            found.append(window)
        return found

    def _clip(self, frames: np.ndarray, rate: Fraction) -> dict[str, np.ndarray]:
        if self.kind == "embedding_gemma2":
            return self._gemma_clip(frames, rate)
        if self.kind == "pe_audio_video":
            number = self.frames or int(self.video_processor.num_frames or 16)
            return self._pe_clip(frames, rate, number)
        taken = frames[spread(len(frames), self.frames or 8)]
        rows = torch.cat([self._picture(frame) for frame in taken])
        return {self._space(): (rows / rows.norm(dim=-1, keepdim=True)).mean(0).numpy()}

    def _space(self) -> str:
        return self.kind

    def _picture(self, frame: np.ndarray) -> torch.Tensor:
        given = self.image_processor(
            images=frame, return_tensors="pt", input_data_format="channels_last"
        )
        return self.model.get_image_features(**given).pooler_output

    def _pe_clip(self, frames: np.ndarray, rate: Fraction, number: int) -> dict[str, np.ndarray]:
        """Frames chosen and resized by its video processor."""
        given = self.video_processor(
            [torch.from_numpy(frames).permute(0, 3, 1, 2)],
            return_tensors="pt",
            num_frames=number,
            do_sample_frames=True,
            video_metadata=[{"total_num_frames": len(frames), "fps": float(rate)}],
        )
        video = self.model.video_model
        pooled = video.video_encoder(given["pixel_values_videos"]).pooler_output
        vector = video.video_head(pooled)[0].numpy()
        return {"video-text": vector, "video-audio": vector}

    def _gemma_clip(self, frames: np.ndarray, rate: Fraction) -> dict[str, np.ndarray]:
        seconds = float(len(frames) / rate)
        given = self.processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            return_tensors="pt",
            video_metadata=[
                {"total_num_frames": len(frames), "fps": float(rate), "duration": seconds}
            ],
        )
        return {"gemma": self._gemma(given)}

    def _gemma(self, given) -> np.ndarray:
        allowed = (
            "input_ids", "attention_mask", "pixel_values", "image_position_ids", "input_features",
            "input_features_mask", "pixel_values_videos", "video_position_ids",
        )  # fmt: skip
        inputs = {name: given[name] for name in allowed if name in given}
        if "num_frames_per_video" in given:
            inputs["num_frames_per_video"] = torch.as_tensor(given["num_frames_per_video"])
        return self.model(**inputs).last_hidden_state.mean(1)[0].numpy()

    @torch.no_grad()
    def picture(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """A still, u8 [H, W, 3]."""
        if self.kind == "embedding_gemma2":
            image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
            return {"gemma": self._gemma(self.processor(images=[image], return_tensors="pt"))}
        if self.kind == "pe_audio_video":
            number = self.frames or int(self.video_processor.num_frames or 16)
            return self._pe_clip(np.repeat(frame[None], number, 0), Fraction(number), number)
        return {self._space(): self._picture(frame)[0].numpy()}

    @torch.no_grad()
    def sound(self, path: Path) -> list[Window]:
        """The sound of a file."""
        extractor = feature_extractor(self.folder)
        rate = int(extractor.sampling_rate)
        pcm = decode(path, 1.0, rate).pcm
        if pcm is None:
            return []
        secs = getattr(extractor, "max_length_s", None) if self.kind == "clap" else None
        size = round((secs or self.window_secs) * rate)
        found = []
        for span in spans(len(pcm), size, size):
            window = Window("audio", span.start / rate, span.end / rate)
            window.vectors = self._heard(pcm[span.start : span.end], extractor, rate)
            found.append(window)
        return found

    def _heard(self, pcm: np.ndarray, extractor, rate: int) -> dict[str, np.ndarray]:
        if self.kind == "embedding_gemma2":
            return {"gemma": self._gemma(self.processor(audio=[pcm], return_tensors="pt"))}
        given = extractor([pcm], sampling_rate=rate, return_tensors="pt")
        if self.kind == "clap":
            features = given["input_features"].to(torch.float32)
            out = self.model.get_audio_features(features, given["is_longer"]).pooler_output
            return {"clap": out[0].numpy()}
        vector = self.model.audio_model.get_audio_embeds(
            given["input_values"], given["padding_mask"]
        )[0].numpy()
        return {"audio-text": vector, "video-audio": vector}

    @torch.no_grad()
    def text(self, said: str, prompt: str = "{text}") -> dict[str, np.ndarray]:
        """A text as a query; `prompt` is what the family puts around it."""
        tokenizer = self.tokenizer
        said = prompt.replace("{text}", said)
        if self.kind in ("siglip", "siglip2"):
            most = self.model.config.text_config.max_position_embeddings
            options = {"padding": "max_length", "max_length": most}
        else:
            options = {"max_length": min(tokenizer.model_max_length, 8192)}
        given = tokenizer([said], truncation=True, return_tensors="pt", **options)
        if self.kind == "embedding_gemma2":
            return {"gemma": self._gemma(given)}
        if self.kind != "pe_audio_video":
            known = {k: given[k] for k in ("input_ids", "attention_mask") if k in given}
            return {self._space(): self.model.get_text_features(**known).pooler_output[0].numpy()}
        out = self.model.text_model(
            given["input_ids"], given["attention_mask"], output_hidden_states=True
        )
        first = out.hidden_states[-1][:, 0]
        return {
            "video-text": self.model.video_model.text_video_head(first)[0].numpy(),
            "audio-text": self.model.audio_model.text_audio_head(first)[0].numpy(),
        }
