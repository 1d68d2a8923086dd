"""The network of a bundle of MMV towers, from the graphs that it was exported to.

Graphs keep the names of the network's tensors. BatchNorms that the export folded are gone, so
the network is the folded form (`models.folding`): it computes what the bundle computes, and its
weights can be trained on.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file, save
from torch import nn

from .config import SMALL_WORLD, ModelConfig
from .errors import TrainerError
from .export import one_minus_cosine, run_onnx, run_torch, weights_to_f16, write_onnx
from .manifest import MAX_ONE_MINUS_COSINE
from .models.folding import in_f16_values
from .models.mmv import Mmv
from .precision import cosines, milliseconds
from .reading import of_file, read_json
from .towers import tower_of
from .world.samples import sound_again

HALF = ".f16"
"""Ends the name of a tensor that is stored in half the bytes (`export.weights_to_f16`)."""


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """A graph's f32 tensors by the network's names."""
    with of_file(path, "a graph of a bundle"):
        graph = onnx.load(str(path)).graph
    found = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix(HALF)
        if name.startswith("model."):
            values = numpy_helper.to_array(tensor)
            found[name.removeprefix("model.")] = values.astype(np.float32)
    return found


def small_world_network(bundle: Path) -> Mmv:
    """The sound network and heads of a bundle of the small world, in eval mode; the other towers
    hold no weights of it. Refuses one of another shape."""
    manifest = read_json(bundle / "manifest.json", "the manifest of a bundle")
    if not str(manifest.get("training", {}).get("data", "")).startswith("procedural world"):
        raise TrainerError(
            f"{bundle} is not a model of the small world, which this command requires"
        )
    model = _folded(SMALL_WORLD)
    load_tower(model, "audio", bundle / "audio.onnx")
    return model


def _folded(cfg: ModelConfig) -> Mmv:
    return in_f16_values(Mmv(cfg).eval())


@torch.no_grad()
def load_tower(model: nn.Module, tower: str, path: Path) -> None:
    """Fills a folded network's tensors of one tower from its graph; each has to be there."""
    found = tensors_of(path)
    prefix = f"{tower}_backbone."
    wanted = {n: v for n, v in model.state_dict().items() if n.startswith(prefix) or n in found}
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in found or found[name].shape != tuple(value.shape):
            shape = found[name].shape if name in found else "none"
            raise TrainerError(
                f"{path} is not of a network of this size: {name} is {shape}, expected "
                f"{tuple(value.shape)}"
            )
        value.copy_(torch.from_numpy(found[name].copy()))


class Served:
    """A bundle's graphs in ONNX Runtime in the place of a network, to be measured."""

    def __init__(self, bundle: Path, cfg: ModelConfig = SMALL_WORLD) -> None:
        self.cfg, self.modalities = cfg, {"video", "audio", "text"}
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.sessions = {
            name: ort.InferenceSession(
                str(bundle / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in sorted(self.modalities)
        }

    def embed_video(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._run("video", frames)

    def embed_audio(self, pcm: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._run("audio", pcm)

    def embed_text(self, token_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._run("text", token_ids)

    def _run(self, tower: str, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        session = self.sessions[tower]
        names = [out.name for out in session.get_outputs()]
        found = session.run(names, {session.get_inputs()[0].name: rows.numpy()})
        return {name: torch.from_numpy(each) for name, each in zip(names, found, strict=True)}


@torch.no_grad()
def replace_sound(bundle: Path, model: Mmv, training: dict) -> None:
    """Writes a network's sound tower into the bundle it came from, with its goldens, those of the
    samples, and what the manifest says of it."""
    manifest_path = bundle / "manifest.json"
    manifest = read_json(manifest_path, "the manifest of a bundle")
    model = in_f16_values(model)
    goldens = load_file(bundle / manifest["goldens"]["file"])
    tower, rows, path = (
        tower_of("audio", model.cfg.spaces),
        goldens["audio.input"],
        bundle / "audio.onnx",
    )
    want = run_torch(tower, model, rows)
    with tempfile.TemporaryDirectory(dir=bundle) as folder:
        part = Path(folder) / path.name
        write_onnx(tower, model, rows, part)
        weights_to_f16(part)
        got = run_onnx(part, tower, rows)
        worst = max(one_minus_cosine(got[space], want[space]) for space in want)
        if not worst <= MAX_ONE_MINUS_COSINE / 10:
            raise TrainerError(
                f"ONNX Runtime and PyTorch disagree, so nothing is written: {worst:.1e}"
            )
        part.replace(path)
    for space, vectors in want.items():
        goldens[f"audio.{space}"] = vectors
    (bundle / manifest["goldens"]["file"]).write_bytes(save(goldens))
    if (bundle / "samples").is_dir():
        sound_again(model, bundle / "samples")
    manifest["training"]["sound"] = training
    manifest["evaluation"].setdefault("export", {})["audio"] = {
        "precision": "f32",
        "bytes": path.stat().st_size,
        "cpu_milliseconds": milliseconds([path], tower.input, rows[:1])[0],
        **cosines(got, want),
        "weights": "f16",
    }
    for name in ("audio.onnx", manifest["goldens"]["file"]):
        manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    manifest_path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def replace_evaluation(bundle: Path, record: dict) -> None:
    """What `evaluate` measured of the bundle goes into its manifest."""
    path = bundle / "manifest.json"
    manifest = read_json(path, "the manifest of a bundle")
    manifest["evaluation"] |= record
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
