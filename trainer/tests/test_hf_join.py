"""Several folders in one bundle, weights in parts, and a folder named twice."""

import json
import shutil
from pathlib import Path

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from hf_bundles import Imported, check_bundle, one_minus_cosine
from safetensors.numpy import load_file

from triptych_trainer.cli import main
from triptych_trainer.hf import siglip
from triptych_trainer.hf.bundle import Bundle
from triptych_trainer.hf.command import import_hf
from triptych_trainer.hf.errors import Refused
from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.loading import load
from triptych_trainer.hf.parts import Options


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    pictures, sounds = made.siglip(folder / "siglip"), made.clap(folder / "clap")
    (pictures / "LICENSE").write_text("the first licence")
    (sounds / "LICENSE").write_text("the second licence")
    made.card(sounds, "mit")
    out = folder / "pictures-and-sound"
    main(["import-hf", str(pictures), "--add", str(sounds), "--out", str(out), "--frames", "2"])
    return out


def test_pictures_and_sound_in_one_bundle(joined: Path) -> None:
    manifest = json.loads((joined / "manifest.json").read_text())
    assert manifest["name"] == "pictures-and-sound"
    assert manifest["license"] == "Apache-2.0 and MIT"
    assert [source["family"] for source in manifest["sources"]] == ["siglip", "clap"]
    spaces = {space["name"]: space["members"] for space in manifest["spaces"]}
    assert spaces == {"siglip": ["text", "video", "image"], "clap": ["text", "audio"]}
    towers = manifest["towers"]
    assert {name: tower["modality"] for name, tower in towers.items()} == {
        "video": "video",
        "image": "image",
        "text": "text",
        "audio": "audio",
        "text-clap": "text",
    }
    tokenizers = {
        name: towers[name]["preprocessing"]["text"]["tokenizer"] for name in ("text", "text-clap")
    }
    assert tokenizers == {"text": "tokenizer.json", "text-clap": "tokenizer-clap.json"}
    licences = [source["license_file"] for source in manifest["sources"]]
    assert licences == ["LICENSE", "LICENSE-clap"]
    assert (joined / "LICENSE-clap").read_text() == "the second licence"
    assert {"weights.bin", "weights-clap.bin"} <= set(manifest["files"])
    goldens = load_file(joined / "goldens.safetensors")
    assert goldens["text.siglip"].shape[1] == 32 and goldens["text-clap.clap.0"].shape[1] == 24


def test_its_towers_run(joined: Path) -> None:
    bundle = Imported.__new__(Imported)
    bundle.path = joined
    bundle.manifest = json.loads((joined / "manifest.json").read_text())
    bundle.goldens = load_file(joined / "goldens.safetensors")
    bundle.sessions = {}
    check_bundle(bundle)


def test_two_ways_to_prepare_a_picture_are_refused(tmp_path: Path) -> None:
    folders = made.siglip(tmp_path / "a", 32), made.siglip(tmp_path / "b", 40)
    first, second = (siglip.build(HfFolder.open(folder), Options()) for folder in folders)
    bundle = Bundle(tmp_path, "two")
    for tower in first.towers:
        entry = {"modality": tower.modality, "preprocessing": tower.preprocessing}
        bundle.towers[tower.name] = entry
    with pytest.raises(Refused, match="import them as two bundles"):
        bundle.add(second, lambda _: None)
    assert not list(tmp_path.glob("*.onnx"))


def test_weights_in_parts(tmp_path: Path) -> None:
    from transformers import SiglipModel

    path = made.siglip(tmp_path / "siglip")
    model = SiglipModel.from_pretrained(path)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="40KB")
    parts = sorted(part.name for part in path.glob("*.safetensors"))
    assert len(parts) > 2
    folder = HfFolder.open(path)
    assert set(parts) <= set(folder.source_files())
    read = load(folder, "SiglipModel").state_dict()
    assert all(torch.equal(read[name], value) for name, value in model.state_dict().items())
    (path / parts[1]).unlink()
    with pytest.raises(Refused, match=f"lacks {parts[1]}"):
        import_hf([path], tmp_path / "out")


SMALL_WORLD = Path(__file__).parents[2] / "models" / "small-world"


@pytest.fixture(scope="module")
def with_mmv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    out = folder / "clip-mmv"
    clip = made.clip(folder / "clip")
    main(["import-hf", str(clip), "--add", str(SMALL_WORLD), "--out", str(out), "--frames", "2"])
    return out


def test_sound_of_mmv_beside_pictures_of_another_family(with_mmv: Path) -> None:
    manifest = json.loads((with_mmv / "manifest.json").read_text())
    towers = manifest["towers"]
    assert {name: tower["modality"] for name, tower in towers.items()} == {
        "video": "video",
        "image": "image",
        "text": "text",
        "audio": "audio",
        "text-mmv": "text",
    }
    spaces = {space["name"]: space["members"] for space in manifest["spaces"]}
    assert spaces == {
        "clip": ["text", "video", "image"],
        "fine": ["audio"],
        "coarse": ["text", "audio"],
    }
    assert [source["family"] for source in manifest["sources"]] == ["clip", "mmv"]
    own = json.loads((SMALL_WORLD / "manifest.json").read_text())
    assert manifest["files"]["mmv/audio.onnx"] == own["files"]["audio.onnx"]
    assert manifest["goldens"]["tower_texts"] == {"text-mmv": own["goldens"]["texts"]}
    goldens = load_file(with_mmv / "goldens.safetensors")
    assert (
        goldens["audio.coarse"] == load_file(SMALL_WORLD / "goldens.safetensors")["audio.coarse"]
    ).all()


def test_a_text_reaches_pictures_and_mmv_s_sound(with_mmv: Path, serve) -> None:
    samples = SMALL_WORLD / "samples"
    wanted = load_file(samples / "goldens.safetensors")
    with serve(with_mmv, samples) as client:
        sound = str(samples / "query.wav")
        got = client.call(
            "POST", "/v1/embeddings", {"modality": "audio", "input": sound, "space": "coarse"}
        )
        names = sorted(
            name
            for name in wanted
            if name.startswith("query.wav#") and name.endswith("audio.coarse")
        )
        for row, name in zip(got["data"], names, strict=True):
            assert (
                one_minus_cosine(np.array([row["embedding"]]), wanted[name].reshape(1, -1)) <= 1e-6
            )
        client.index_folder(samples / "clips")
        body = {
            "query": {"text": "a big blue triangle"},
            "targets": ["video", "audio"],
            "limit": 50,
        }
        found = client.call("POST", "/v1/search", body)
        assert found["spaces"] == ["clip", "coarse"] and found["ignored_words"] == []
        matched = {(hit["matched"], hit["space"]) for hit in found["data"]}
        assert matched == {("video", "clip"), ("audio", "coarse")}
        # A text of which MMV's list knows nothing still reaches the pictures.
        found = client.call("POST", "/v1/search", body | {"query": {"text": "dog"}})
        assert found["spaces"] == ["clip"] and found["data"]


def test_a_bundle_that_adds_nothing_is_refused(with_mmv: Path, tmp_path: Path) -> None:
    clip = made.clip(tmp_path / "clip")
    with pytest.raises(Refused, match="format version 2"):
        import_hf([clip, with_mmv], tmp_path / "out", options=Options(frames=2))
    sounds = made.clap(tmp_path / "clap")
    with pytest.raises(Refused, match="adds no modality"):
        import_hf([clip, sounds, SMALL_WORLD], tmp_path / "out", options=Options(frames=2))
    broken = tmp_path / "broken"
    shutil.copytree(SMALL_WORLD, broken)
    (broken / "audio.onnx").write_bytes(b"")
    with pytest.raises(Refused, match=r"audio\.onnx is missing, or differs"):
        import_hf([clip, broken], tmp_path / "out", options=Options(frames=2))
