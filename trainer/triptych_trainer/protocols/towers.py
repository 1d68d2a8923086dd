"""The interface of a model for the protocols, with PyTorch or with exported ONNX files."""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..config import ModelConfig, from_dict
from ..deflate import Deflated
from ..distributed import device_of
from ..export import write_onnx
from ..models.folding import fold, folded
from ..models.mmv import Mmv
from ..reading import of_file, read_json
from ..tokenizer import PAD_ID, UNKNOWN_ID, build_tokenizer
from ..towers import INPUTS, Tower, tower_of

EXPORTED = "what `export-features` wrote"
FEATURE = "feature"
"""The backbone's output before every head, beside the spaces."""
PICTURES = {"deflated": "image", "naive": "naive"}


@dataclass
class TextRule:
    """Texts to token ids as a bundle says: unknown words dropped, cut, padded."""

    tokenizer: Tokenizer
    unknown_id: int
    pad_id: int

    def ids(self, texts: Sequence[str], max_words: int) -> np.ndarray:
        rows = np.full((len(texts), max_words), self.pad_id, np.int64)
        for row, text in zip(rows, texts, strict=True):
            known = [i for i in self.tokenizer.encode(text).ids if i != self.unknown_id]
            row[: len(known)] = known[:max_words]
        return rows


class Towers(Protocol):
    """`run` gives {"feature" and every space: f32 [N, dim]} of rows as a bundle's towers take
    them: `video` u8 [N, T, H, W, 3], `audio` f32 [N, samples], `text` i64 [N, max_words], and
    pictures u8 [N, H, W, 3] through `image` (deflated) or `naive`."""

    cfg: ModelConfig
    text: TextRule | None
    digest: str
    source: str

    def run(self, tower: str, rows: np.ndarray) -> dict[str, np.ndarray]: ...


class Featured(nn.Module):
    """A model whose towers also give their backbone's feature."""

    def __init__(self, model: Mmv, pictures: dict[str, Deflated]) -> None:
        super().__init__()
        self.model, self.pictures = model, nn.ModuleDict(pictures)
        if hasattr(model, "log_mel"):
            self.log_mel = model.log_mel

    def embed_video(self, frames: Tensor) -> dict[str, Tensor]:
        x = frames.to(torch.float32) / 255.0
        feature = self.model.video_backbone(x.permute(0, 4, 1, 2, 3))
        return {FEATURE: feature, **self.model.heads.video(feature)}

    def embed_audio(self, pcm: Tensor) -> dict[str, Tensor]:
        feature = self.model.audio_backbone(self.model.log_mel(pcm))
        return {FEATURE: feature, **self.model.heads.audio(feature)}

    def embed_text(self, token_ids: Tensor) -> dict[str, Tensor]:
        feature = self.model.text_backbone(token_ids)
        return {FEATURE: feature, **self.model.heads.text(feature)}

    def embed_image(self, image: Tensor) -> dict[str, Tensor]:
        return self._picture("image", image)

    def embed_naive(self, image: Tensor) -> dict[str, Tensor]:
        return self._picture("naive", image)

    def _picture(self, name: str, image: Tensor) -> dict[str, Tensor]:
        deflated = self.pictures[name]
        feature = deflated.feature(image)
        return {FEATURE: feature, **deflated.heads.video(feature)}


def pictures_of(model: Mmv, deflated: Path | None) -> dict[str, Deflated]:
    found = {"naive": Deflated(model)}
    if deflated is not None:
        found["image"] = Deflated(model).load_file(deflated)
    return found


class TorchTowers:
    """f32 on any device."""

    def __init__(
        self,
        model: Mmv,
        text: TextRule | None,
        *,
        digest: str,
        source: str = "pytorch",
        device: str = "auto",
        batch_size: int = 8,
        deflated: Path | None = None,
    ) -> None:
        self.cfg, self.text, self.digest, self.source = model.cfg, text, digest, source
        self.model, self.device, self.batch_size = model, device_of(device), batch_size
        self.featured = Featured(model, pictures_of(model, deflated)).eval().to(self.device)

    @torch.no_grad()
    def run(self, tower: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        _check(tower, rows, self.featured.pictures)
        embed, parts = getattr(self.featured, f"embed_{tower}"), []
        for i in range(0, len(rows), self.batch_size):
            chunk = torch.from_numpy(np.ascontiguousarray(rows[i : i + self.batch_size]))
            parts.append({k: v.cpu().numpy() for k, v in embed(chunk.to(self.device)).items()})
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _check(tower: str, rows: np.ndarray, pictures: Sequence[str]) -> None:
    if not len(rows):
        raise ValueError(f"no rows for the {tower} tower")
    if tower in PICTURES.values() and tower not in pictures:
        raise ValueError(
            "the model has no deflated network; make one with `deflate` and pass it with --deflated"
        )


class OnnxTowers:
    """A folder that `export-features` wrote."""

    def __init__(self, folder: Path, *, batch_size: int = 8, threads: int = 1) -> None:
        described = read_json(folder / "features.json", EXPORTED)
        with of_file(folder / "features.json", EXPORTED):
            self.cfg, self.towers = from_dict(ModelConfig, described["model"]), described["towers"]
        self.folder, self.batch_size, self.threads = folder, batch_size, threads
        self.sessions: dict[str, ort.InferenceSession] = {}
        self.text, self.source = None, "onnx"
        self.digest = file_digest(*(folder / f"{name}.onnx" for name in self.towers))
        if "text" in described:
            with of_file(folder / "tokenizer.json", EXPORTED):
                tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
                self.text = TextRule(tokenizer, **described["text"])

    def run(self, tower: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        _check(tower, rows, self.towers)
        if tower not in self.towers:
            raise ValueError(f"{self.folder} has no {tower} tower; `export-features` again with it")
        if tower not in self.sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = self.threads
            path = self.folder / f"{tower}.onnx"
            with of_file(path, EXPORTED):
                self.sessions[tower] = ort.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
        session, parts = self.sessions[tower], []
        want = session.get_inputs()[0]
        if list(rows.shape[1:]) != list(want.shape[1:]):
            raise ValueError(
                f"{tower}.onnx takes rows of {want.shape[1:]}, this protocol has "
                f"{list(rows.shape[1:])}; `export-features` with its --crop"
            )
        for i in range(0, len(rows), self.batch_size):
            parts.append(session.run(None, {want.name: rows[i : i + self.batch_size]}))
        names = [out.name for out in session.get_outputs()]
        return {name: np.concatenate([p[n] for p in parts]) for n, name in enumerate(names)}


def export_features(
    towers: TorchTowers, out: Path, crop: int, wanted: Sequence[str] = ()
) -> list[str]:
    """Writes every tower (or the wanted ones) with its feature and spaces; gives their names."""
    out.mkdir(parents=True, exist_ok=True)
    model = towers.model
    rows = {
        "video": np.zeros((2, model.cfg.frames, crop, crop, 3), np.uint8),
        "audio": np.zeros((2, model.cfg.samples), np.float32),
        "text": np.zeros((2, model.cfg.max_words), np.int64),
        "image": np.zeros((2, crop, crop, 3), np.uint8),
        "naive": np.zeros((2, crop, crop, 3), np.uint8),
    }
    have = {*model.modalities, *towers.featured.pictures}
    names = [name for name in rows if name in have and (not wanted or name in wanted)]
    lean = folded(model)
    lean.video_backbone.form = "2d"
    pictures = {n: fold(copy.deepcopy(net)) for n, net in towers.featured.pictures.items()}
    featured = Featured(lean, pictures).eval()
    for name in names:
        spaces = tower_of("image" if name == "naive" else name, model.cfg.spaces).outputs
        inputs = INPUTS["image" if name == "naive" else name]
        tower = Tower(name, *inputs, (FEATURE, *spaces))
        write_onnx(tower, featured, rows[name], out / f"{name}.onnx")
    record: dict = {"model": model.cfg.to_dict(), "towers": names}
    if towers.text is not None and "text" in names:
        towers.text.tokenizer.save(str(out / "tokenizer.json"))
        record["text"] = {"unknown_id": towers.text.unknown_id, "pad_id": towers.text.pad_id}
    (out / "features.json").write_text(json.dumps(record, indent=2) + "\n")
    return names


def open_towers(
    path: Path,
    *,
    device: str = "auto",
    batch_size: int = 8,
    deflated: Path | None = None,
    vocab: Path | None = None,
) -> Towers:
    """A checkpoint of a run (`.pt`), a published MMV checkpoint (`.pkl`, with its word list), or a
    folder of `export-features`."""
    if path.is_dir():
        return OnnxTowers(path, batch_size=batch_size)
    model, text = (_published if path.suffix == ".pkl" else _trained)(path, vocab)
    digest = file_digest(path, *([deflated] if deflated else []))
    more = {"device": device, "batch_size": batch_size, "deflated": deflated}
    return TorchTowers(model, text, digest=digest, **more)


def _trained(path: Path, vocab: Path | None) -> tuple[Mmv, TextRule | None]:
    from ..train import load_checkpoint
    from ..world.captions import vocabulary

    cfg, model, state = load_checkpoint(path)
    if "text" not in model.modalities:
        return model, None
    words = state.get("words") if cfg.data.sources else vocabulary()
    return model, TextRule(build_tokenizer(words), UNKNOWN_ID, PAD_ID)


def _published(path: Path, vocab: Path | None) -> tuple[Mmv, TextRule | None]:
    from ..importer import deepmind
    from ..importer.vocabulary import from_word_file

    with of_file(path, "a published MMV checkpoint"):
        loaded = deepmind.read_checkpoint(path)
        cfg = deepmind.config_of(loaded)
        model = deepmind.build_model(loaded, cfg)
    if vocab is None:
        return model, None
    words = from_word_file(vocab, cfg.vocab_size)
    return model, TextRule(words.tokenizer(), words.unknown_id, words.pad_id)


def file_digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
