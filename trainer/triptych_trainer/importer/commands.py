"""From a public checkpoint to a bundle."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..config import ModelConfig
from ..deflate import Deflated, Relearning, relearn
from ..deflate_data import file_images
from ..export import write_bundle
from ..models.mmv import Mmv
from ..reading import check_finite, of_file
from ..towers import Content
from . import audio_probe, deepmind, milnce, vocabulary
from .content import golden_inputs

ORIGIN = {
    "s3d": "mmv_s3d.pkl",
    "tsm-resnet50": "mmv_tsm_resnet_x1.pkl",
    "tsm-resnet50x2": "mmv_tsm_resnet_x2.pkl",
}


def sizes(frames: int, fps: float, resize: int, crop: int) -> ModelConfig:
    """The input a bundle is exported for; the sound is as long as the frames."""
    return ModelConfig(
        frames=frames,
        fps=fps,
        resize=resize,
        crop=crop,
        # As the published weights were made.
        bars="keep",
        samples=round(frames / fps * 48_000),
    )


def import_deepmind(
    checkpoint: Path,
    out: Path,
    base: ModelConfig,
    *,
    name: str | None = None,
    vocab: Path | None = None,
    saved_model: Path | None = None,
    vocab_offset: int | None = None,
    audio_log: str = "auto",
    probe_audio: list[Path] | None = None,
    precision: dict[str, str] | None = None,
    form: str = "auto",
    images: list[Path] | None = None,
    image_steps: int = 600,
    say=print,
) -> dict[str, float]:
    """Writes the bundle of a published MMV checkpoint; see `write_bundle` for what it gives."""
    what = "a published MMV checkpoint"
    with of_file(checkpoint, what):
        loaded = deepmind.read_checkpoint(checkpoint)
        kind = loaded.kind
        cfg = deepmind.config_of(loaded, base)
    words = _word_list(vocab, saved_model, cfg.vocab_size, vocab_offset)
    if audio_log not in ("auto", *audio_probe.LOGS):
        raise ValueError(f"unknown --audio-log {audio_log!r}")
    with of_file(checkpoint, what):
        model = deepmind.build_model(loaded, cfg)
        check_finite(model, checkpoint)
    found = None
    if audio_log == "auto":
        pcm, sound = _probe_sound(probe_audio, cfg.samples)
        found = audio_probe.probe(model.audio_backbone, pcm, sound)
        audio_log = found.chosen
        say(f"audio logarithm: {audio_log}; divergence {found.to_dict()['divergence']} on {sound}")
    model.cfg = replace(cfg, audio_log=audio_log)
    model.log_mel.log = audio_log
    if words is None:
        say(
            "no word list (--vocab or --savedmodel), and the checkpoint has none: "
            "the bundle has no text tower and cannot answer text queries"
        )
    inputs, texts = golden_inputs(model.cfg, words)
    training = {
        "imported_from": checkpoint.name,
        "published_as": ORIGIN.get(kind, kind),
        "paper": "Self-Supervised MultiModal Versatile Networks (arXiv:2006.16228)",
        "audio_log": audio_log,
        "audio_log_probe": found.to_dict() if found else "set by hand",
        "text_tower": "none: no word list given" if words is None else words.rule,
    }
    content = Content(
        name or out.name,
        f"MMV {kind} with FAC spaces, published weights; not for commercial use",
        deepmind.LICENSE,
        inputs,
        texts,
        None,
        training=training,
        precision=precision or {},
        form=form,
        image=_image_tower(model, images, image_steps, training, say),
    )
    return write_bundle(model, out, _with_words(model, content, words))


def import_milnce(
    weights: Path,
    dictionary: Path,
    out: Path,
    base: ModelConfig,
    *,
    name: str | None = None,
    license: str | None = None,
    precision: dict[str, str] | None = None,
    images: list[Path] | None = None,
    image_steps: int = 600,
    say=print,
) -> dict[str, float]:
    """Writes the text-video bundle of the public PyTorch S3D trained with MIL-NCE."""
    tensors = milnce.read_weights(weights)
    what = "the public S3D of MIL-NCE"
    with of_file(weights, what):
        cfg = milnce.config_of(tensors, base)
    words = vocabulary.from_milnce_dictionary(dictionary, cfg.vocab_size)
    with of_file(weights, what):
        model = milnce.build_model(tensors, cfg)
        check_finite(model, weights)
    inputs, texts = golden_inputs(cfg, words)
    training = {
        "imported_from": weights.name,
        "paper": "End-to-End Learning of Visual Representations from Uncurated Instructional "
        "Videos (arXiv:1912.06430)",
    }
    content = Content(
        name or out.name,
        "S3D trained on HowTo100M with MIL-NCE, published weights: text and video",
        license or milnce.LICENSE,
        inputs,
        texts,
        None,
        training=training,
        precision=precision or {},
        image=_image_tower(model, images, image_steps, training, say),
    )
    return write_bundle(model, out, _with_words(model, content, words))


def _image_tower(
    model: Mmv, images: list[Path] | None, steps: int, training: dict, say
) -> Deflated | None:
    """A deflated network learnt from the user's pictures; without any, pictures are inflated."""
    if not images:
        return None
    how = Relearning(steps=steps, batch_size=8)
    deflated = Deflated(model)
    losses = relearn(model, deflated, file_images(images, model.cfg, how.batch_size), how, say)
    training["image_tower"] = {
        "deflated": "scales and offsets of the BatchNorms re-learnt",
        "steps": steps,
        "relative_l1_naive": round(losses[0], 4),
        "relative_l1": round(sum(losses[-10:]) / len(losses[-10:]), 4),
    }
    return deflated


def _with_words(model: nn.Module, content: Content, words: vocabulary.Vocabulary | None) -> Content:
    if words is None:
        return content
    table = model.text_backbone.words.weight.detach()
    missing = words.rows - len(table)
    if missing > 0:
        table = torch.cat([table, table.new_zeros(missing, table.shape[1])])
        model.text_backbone.words = nn.Embedding.from_pretrained(table)
    return replace(
        content,
        tokenizer=words.tokenizer(),
        pad_id=words.pad_id,
        unknown_id=words.unknown_id,
    )


def _word_list(
    vocab: Path | None, saved_model: Path | None, rows: int, offset: int | None
) -> vocabulary.Vocabulary | None:
    if vocab is not None and saved_model is not None:
        raise ValueError("use either --vocab or --savedmodel")
    if vocab is not None:
        return vocabulary.from_word_file(vocab, rows, offset)
    if saved_model is not None:
        return vocabulary.from_saved_model(saved_model, rows, offset)
    return None


def _probe_sound(files: list[Path] | None, samples: int) -> tuple[torch.Tensor, str]:
    """Clips of the given recordings, at most 32; else generated ones."""
    if not files:
        return audio_probe.generated_sound(samples=samples), "generated sound"
    from ..media import decode

    clips = []
    for path in files:
        pcm = decode(path, fps=1.0).pcm
        if pcm is None:
            raise ValueError(f"{path} has no sound to probe with")
        whole = len(pcm) // samples * samples
        clips += list(pcm[:whole].reshape(-1, samples)) if whole else [_filled(pcm, samples)]
    chosen = clips[:: max(1, len(clips) // 32)][:32]
    return torch.from_numpy(np.stack(chosen).astype(np.float32)), f"{len(files)} recordings"


def _filled(pcm: np.ndarray, samples: int) -> np.ndarray:
    return np.resize(pcm, samples)
