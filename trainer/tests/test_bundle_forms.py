"""Bundles of every head graph, with an image tower and in other precisions."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.numpy import load_file
from support import tiny

from triptych_trainer.deflate import Deflated
from triptych_trainer.export import WORTH_A_CAST, export_bundle, one_minus_cosine
from triptych_trainer.manifest import spaces_of
from triptych_trainer.models.folding import in_f16_values
from triptych_trainer.models.heads import GRAPHS, modalities, shared_space
from triptych_trainer.models.mmv import Mmv

ALL = ["video", "audio", "text", "image"]


def comparable(spaces: list[dict], a: str, b: str) -> str | None:
    """The server's rule: the first space that has both."""
    return next((s["name"] for s in spaces if a in s["members"] and b in s["members"]), None)


def test_manifest_says_what_can_be_compared() -> None:
    dims = {space.name: 8 for graph in GRAPHS.values() for space in graph}
    of = {
        graph: spaces_of(graph, dims, [t for t in ALL if t in modalities(graph) | {"image"}])
        for graph in GRAPHS
    }
    assert comparable(of["fac"], "audio", "video") == "fine"
    assert comparable(of["fac"], "text", "audio") == comparable(of["fac"], "image", "text")
    assert {comparable(of["shared"], a, b) for a in ALL for b in ALL} == {"shared"}
    assert comparable(of["disjoint"], "text", "audio") is None
    assert comparable(of["disjoint"], "text", "video") == "video_text"
    assert comparable(of["disjoint"], "audio", "image") == "video_audio"
    assert comparable(of["vt"], "video", "audio") is None
    assert comparable(of["va"], "video", "text") is None
    assert shared_space("disjoint", "text", "audio") is None
    # An import without a word list: FAC without its text tower.
    assert of["fac"][1]["members"][0] == "text"
    assert "text" not in spaces_of("fac", dims, ["video", "audio"])[1]["members"]


@pytest.mark.parametrize("graph", [g for g in GRAPHS if g != "fac"])
def test_head_graphs_give_their_spaces(graph: str) -> None:
    model = tiny(spaces=graph)
    clip, logmel = torch.rand(2, 8, 32, 32, 3), torch.rand(2, 30, 80, 1)
    made = {"video": model.embed_video(clip)}
    if "audio" in model.modalities:
        made["audio"] = model.embed_audio_logmel(logmel)
    if "text" in model.modalities:
        made["text"] = model.embed_text(torch.zeros(2, 16, dtype=torch.long))
    assert made.keys() == modalities(graph)
    for space in GRAPHS[graph]:
        for member in space.members:
            assert made[member][space.name].shape == (2, model.space_dims()[space.name])
    given = {(m, s) for m, spaces in made.items() for s in spaces}
    assert given == {(m, s.name) for s in GRAPHS[graph] for m in s.members}


@pytest.mark.parametrize("graph", ["disjoint", "va", "vt"])
def test_training_and_evaluation_follow_the_graph(graph: str) -> None:
    from dataclasses import replace

    from triptych_trainer.config import PRESETS
    from triptych_trainer.train import losses_of, parameter_groups
    from triptych_trainer.world.dataset import WorldBatches
    from triptych_trainer.world.evaluate import evaluate

    model = tiny(spaces=graph, frames=4, fps=2.5, samples=76_800).train()
    cfg = replace(PRESETS["tiny"], model=model.cfg, audio_from_step=0, batch_size=4)
    losses = losses_of(model, WorldBatches(cfg)[0], cfg)
    losses["loss"].backward()
    wanted = {"disjoint": {"video_text", "video_audio"}, "va": {"video_audio"}}
    assert losses.keys() == {"loss"} | wanted.get(graph, {"video_text"})
    groups = parameter_groups(model, cfg)
    assert all(p.grad is not None for group in groups for p in group["params"])
    record = evaluate(cfg, model.eval(), 1, 12, through_files=False, controls=False)
    pairs = {"disjoint": 4, "va": 2, "vt": 2}
    assert len(record["mean"]["retrieval"]) == pairs[graph]
    assert not any("text" in p and "audio" in p for p in record["mean"]["retrieval"])


def test_measured_precision_is_in_the_manifest(reduced: tuple) -> None:
    manifest = json.loads((reduced[0] / "manifest.json").read_text())
    assert manifest["evaluation"]["r@10"] == 0.5
    measured = manifest["evaluation"]["export"]
    assert {n: m["precision"] for n, m in measured.items()} == {
        "video": "int8",
        "audio": "fp16",
        "text": "f32",
        "image": "f32",
    }
    for name, record in measured.items():
        named = {"fp16": "f16"}.get(record["precision"], record["precision"])
        assert manifest["towers"][name]["precision"] == named
        for space in manifest["towers"][name]["outputs"]:
            assert 0.99 <= record[space]["cosine_min"] <= record[space]["cosine_mean"] <= 1 + 1e-9
    for name in ("video", "audio"):
        assert measured[name]["bytes"] < 0.75 * measured[name]["bytes_f32"]
        assert measured[name]["cpu_milliseconds_f32"] > 0
    assert manifest["towers"]["image"]["input"]["shape"] == [None, 32, 32, 3]
    assert "image.onnx" in manifest["files"]


def test_the_self_check_passes_within_the_stated_bound(reduced: tuple) -> None:
    """What the server does at start."""
    folder = reduced[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    goldens = load_file(folder / "goldens.safetensors")
    for name, tower in manifest["towers"].items():
        session = ort.InferenceSession(str(folder / tower["file"]))
        rows = goldens[f"{name}.input"]
        got = session.run(list(tower["outputs"].values()), {tower["input"]["name"]: rows})
        for space, vectors in zip(tower["outputs"], got, strict=True):
            assert vectors.dtype == np.float32
            error = one_minus_cosine(vectors, goldens[f"{name}.{space}"])
            assert error <= manifest["goldens"]["max_one_minus_cosine"], name


def test_image_tower_is_the_deflated_network(reduced: tuple) -> None:
    folder, _, image = reduced
    rows = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    session = ort.InferenceSession(str(folder / "image.onnx"))
    names = [o.name for o in session.get_outputs()]
    got = dict(zip(names, session.run(names, {"image": rows}), strict=True))
    with torch.no_grad():
        want = image.embed_image(torch.from_numpy(rows))
    assert got.keys() == want.keys() == {"video_audio", "video_text"}
    for space, vectors in want.items():
        assert one_minus_cosine(got[space], vectors.numpy()) < 1e-8


def test_fp16_leaves_the_front_end_alone(reduced: tuple) -> None:
    graph = onnx.load(str(reduced[0] / "audio.onnx")).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    half = [n for n, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16]
    assert half and kinds["fourier.window"] == onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mmv]:
    """A bundle with its weights in f16, an image tower among them."""
    out = tmp_path_factory.mktemp("halved")
    model = tiny()
    rounded, image = in_f16_values(model), in_f16_values(Deflated(model))
    export_bundle(rounded, out, "halved", {}, {}, image=image, f16_weights=True)
    return out, rounded


def test_f16_weights_lose_nothing_of_the_rounded_model(halved: tuple) -> None:
    folder, rounded = halved
    manifest = json.loads((folder / "manifest.json").read_text())
    goldens = load_file(folder / "goldens.safetensors")
    assert manifest["goldens"]["max_one_minus_cosine"] == 1e-5
    for name, tower in manifest["towers"].items():
        assert tower["precision"] == "f32"
        session = ort.InferenceSession(str(folder / tower["file"]))
        rows = goldens[f"{name}.input"]
        got = session.run(list(tower["outputs"].values()), {tower["input"]["name"]: rows})
        for space, vectors in zip(tower["outputs"], got, strict=True):
            assert one_minus_cosine(vectors, goldens[f"{name}.{space}"]) < 1e-9, (name, space)
    with torch.no_grad():
        video = rounded.embed_video(torch.from_numpy(goldens["video.input"]))
    assert one_minus_cosine(video["fine"].numpy(), goldens["video.fine"]) < 1e-12


def test_f16_weights_are_every_large_tensor_and_only_on_demand(
    halved: tuple, reduced: tuple
) -> None:
    folder, rounded = halved
    measured = json.loads((folder / "manifest.json").read_text())["evaluation"]["export"]
    kinds = onnx.TensorProto
    for name in ("video", "audio", "text", "image"):
        assert measured[name]["weights"] == "f16"
        tensors = onnx.load(str(folder / f"{name}.onnx")).graph.initializer
        full = {t.name: np.prod(t.dims) for t in tensors if t.data_type == kinds.FLOAT}
        large = {n for n in full if full[n] >= WORTH_A_CAST}
        assert all("log_mel" in n or n.startswith("fourier") for n in large), (name, large)
        assert any(t.data_type == kinds.FLOAT16 for t in tensors)
    weights = sum(p.numel() for p in rounded.audio_backbone.parameters() if p.dim() > 1)
    heads = rounded.heads
    weights += heads.audio_fine.weight.numel() + heads.coarse.weight.numel()
    mel = rounded.log_mel.mel.numel()
    assert measured["audio"]["bytes"] < 2 * weights + 4 * mel + 150_000
    other = json.loads((reduced[0] / "manifest.json").read_text())["evaluation"]["export"]
    assert {record["weights"] for record in other.values()} == {"f32"}
    tensors = onnx.load(str(reduced[0] / "image.onnx")).graph.initializer
    assert not any(t.data_type == kinds.FLOAT16 for t in tensors)


def test_a_weight_beyond_f16_is_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.heads.audio_fine.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="audio_fine"):
        in_f16_values(model)
