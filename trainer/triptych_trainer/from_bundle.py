"""The network of a bundle of MMV towers, from the graphs that it was exported to.

Graphs keep the names of the network's tensors. BatchNorms that the export folded are gone, so the
network is the folded form (`models.folding`): it computes what the bundle computes, and its weights can
be trained on.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from .config import SMALL_WORLD, ModelConfig
from .errors import TrainerError
from .models.folding import in_f16_values
from .models.mmv import Mmv
from .reading import of_file, read_json

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
    """The sound network and heads of a bundle of the small world, in eval mode; the other towers hold
    no weights of it. Refuses one of another shape."""
    manifest = read_json(bundle / "manifest.json", "the manifest of a bundle")
    if not str(manifest.get("training", {}).get("data", "")).startswith("procedural world"):
        raise TrainerError(f"{bundle} does not know the small world, and this is about nothing else")
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
                f"{path} is not of a network of this size: {name} is {shape}, wanted "
                f"{tuple(value.shape)}"
            )
        value.copy_(torch.from_numpy(found[name].copy()))
