"""An untrained bundle: what ONNX Runtime gives, the manifest, the tokenizer and the goldens."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from triptych_trainer.config import PRESETS, SMALL_WORLD
from triptych_trainer.export import (
    export_bundle,
    golden_inputs,
    one_minus_cosine,
    run_torch,
    training_record,
)
from triptych_trainer.models.folding import folded
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.tokenizer import UNKNOWN_ID, encode
from triptych_trainer.towers import TOWERS, input_shape
from triptych_trainer.train import build_model

CFG = PRESETS["tiny"]
MANIFEST_KEYS = {
    *("format_version", "name", "description", "license", "spaces", "towers", "preprocessing"),
    *("goldens", "files", "training", "evaluation"),
}


@pytest.fixture(scope="module")
def model() -> Mmv:
    """Untrained, but with BatchNorm statistics that a wrong folding would get wrong."""
    model = build_model(CFG)
    generator = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def bundle(model: Mmv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle")
    errors = export_bundle(model, out, "tiny", training_record(CFG, 0), {"r@10": 0.02})
    assert max(errors.values()) < 1e-6
    return out


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def test_folding_changes_nothing(model: Mmv) -> None:
    inputs, _ = golden_inputs(CFG.model)
    lean = folded(model)
    assert not any("bn" in name for name, _ in lean.video_backbone.named_parameters())
    for tower in TOWERS:
        want, got = (run_torch(tower, m, inputs[tower.name]) for m in (model, lean))
        for space in tower.outputs:
            assert one_minus_cosine(got[space], want[space]) < 1e-8


def test_manifest(bundle: Path, manifest: dict) -> None:
    assert set(manifest) == MANIFEST_KEYS and manifest["format_version"] == 1
    members = {space["name"]: space["members"] for space in manifest["spaces"]}
    assert list(members) == ["fine", "coarse"] and "text" not in members["fine"]
    assert manifest["towers"]["image"] == {"inflates": "video"}
    for name, tower in manifest["towers"].items():
        assert name == "image" or set(tower) == {"file", "precision", "input", "outputs"}
    assert manifest["preprocessing"]["audio"] == {"sample_rate_hz": 48_000, "samples": 153_600}
    assert manifest["evaluation"].keys() == {"r@10", "export"}
    assert manifest["evaluation"]["r@10"] == 0.02
    assert all(tower["precision"] == "f32" for tower in manifest["evaluation"]["export"].values())


def test_every_file_is_listed_with_its_hash(bundle: Path, manifest: dict) -> None:
    found = {path.name for path in bundle.iterdir()} - {"manifest.json"}
    assert found == set(manifest["files"])
    for name, want in manifest["files"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == want


def test_graphs_have_a_free_batch_and_nothing_outside(bundle: Path, manifest: dict) -> None:
    for tower in TOWERS:
        graph = onnx.load(str(bundle / f"{tower.name}.onnx"), load_external_data=False).graph
        (entry,) = graph.input
        assert entry.name == tower.input == manifest["towers"][tower.name]["input"]["name"]
        dims = entry.type.tensor_type.shape.dim
        assert dims[0].dim_param and [d.dim_value for d in dims][1:] == input_shape(
            tower, CFG.model
        )
        assert all(not t.external_data for t in graph.initializer)
        assert not any("/" in n.doc_string or n.metadata_props for n in graph.node)


def test_goldens_are_what_the_files_give(bundle: Path, manifest: dict) -> None:
    goldens = load_file(bundle / "goldens.safetensors")
    for tower in TOWERS:
        rows = goldens[f"{tower.name}.input"]
        assert len(rows) >= 2
        session = ort.InferenceSession(str(bundle / f"{tower.name}.onnx"))
        # Another batch size than the one it was exported with.
        rows = np.concatenate([rows, rows[:1]])
        for space, got in zip(
            tower.outputs, session.run(list(tower.outputs), {tower.input: rows}), strict=True
        ):
            want = goldens[f"{tower.name}.{space}"]
            assert one_minus_cosine(got[:-1], want) < manifest["goldens"]["max_one_minus_cosine"]
            assert np.abs(got[-1] - got[0]).max() < 1e-3 * np.abs(got).max()


def test_tokenizer_file_gives_the_golden_ids(bundle: Path, manifest: dict) -> None:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    text = manifest["preprocessing"]["text"]
    assert text["unknown_id"] == UNKNOWN_ID and text["max_words"] == 16
    want = load_file(bundle / "goldens.safetensors")["text.input"]
    got = np.stack([encode(tokenizer, t, 16) for t in manifest["goldens"]["texts"]])
    assert np.array_equal(got, want)
    # Unknown words leave before the cut to 16, so the last known word is still there.
    assert tokenizer.decode([want[-1][-1]]) == "green"


def test_shipped_shapes() -> None:
    assert input_shape(TOWERS[0], SMALL_WORLD) == [8, 64, 64, 3]
    assert SMALL_WORLD.window_secs == 3.2
