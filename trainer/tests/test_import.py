"""Public checkpoints to bundles: PyTorch and ONNX Runtime against the original model's outputs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from support import CASES, SMALL, check

from triptych_trainer.export import write_onnx
from triptych_trainer.importer import audio_probe, deepmind, vocabulary
from triptych_trainer.importer.commands import import_deepmind
from triptych_trainer.models.folding import folded
from triptych_trainer.towers import tower_of


def run_onnx(path: Path, feeds: dict[str, np.ndarray], outputs: list[str]) -> dict:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))


@pytest.fixture(params=["s3d", "tsm-resnet50"])
def bundle(request, golden_bundle) -> tuple[str, Path]:
    return request.param, golden_bundle(request.param)


def test_served_files_give_the_original_vectors(goldens: Path, bundle: tuple[str, Path]) -> None:
    kind, out = bundle
    folder = goldens / kind / "small"
    frames = np.load(folder / "in_video_u8.npy")
    got = run_onnx(out / "video.onnx", {"frames": frames}, ["fine", "coarse"])
    check(got["fine"], np.load(folder / "out_video_fine_va.npy"), "fine")
    check(got["coarse"], np.load(folder / "out_video_coarse_vat.npy"), "coarse")
    ids = np.load(folder / "in_word_ids.npy").astype(np.int64)
    got = run_onnx(out / "text.onnx", {"token_ids": ids}, ["coarse"])
    check(got["coarse"], np.load(folder / "out_text_coarse_vat.npy"), "text")


def test_manifest_of_an_import(bundle: tuple[str, Path]) -> None:
    manifest = json.loads((bundle[1] / "manifest.json").read_text())
    assert manifest["license"] == "CC BY-NC 4.0"
    assert [s["name"] for s in manifest["spaces"]] == ["fine", "coarse"]
    assert manifest["preprocessing"]["text"] == {
        "tokenizer": "tokenizer.json",
        "max_words": 16,
        "pad_id": 0,
        "unknown_id": 1,
    }
    assert manifest["training"]["audio_log"] == "log1p10000"
    assert set(manifest["towers"]) == {"video", "audio", "text", "image"}


@pytest.mark.parametrize(
    ("kind", "case", "form"),
    [("s3d", "small", "3d"), ("s3d", "odd", "2d"), ("tsm-resnet50", "small", "3d")],
)
def test_other_forms_and_sizes(
    goldens: Path, public_checkpoint, tmp_path: Path, kind: str, case: str, form: str
) -> None:
    model = imported(public_checkpoint(kind))
    folder, lean = goldens / kind / case, folded(model)
    lean.video_backbone.form = form
    frames = np.load(folder / "in_video_u8.npy")
    write_onnx(tower_of("video", "fac"), lean, frames, tmp_path / "video.onnx")
    got = run_onnx(tmp_path / "video.onnx", {"frames": frames}, ["fine", "coarse"])
    check(got["fine"], np.load(folder / "out_video_fine_va.npy"), "fine")
    check(got["coarse"], np.load(folder / "out_video_coarse_vat.npy"), "coarse")


def imported(path: Path):
    checkpoint = deepmind.read_checkpoint(path)
    return deepmind.build_model(checkpoint, deepmind.config_of(checkpoint, SMALL))


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_pickle_to_pytorch(goldens: Path, public_checkpoint, kind: str, case: str) -> None:
    model, folder = imported(public_checkpoint(kind)), goldens / kind / case
    load = lambda name: torch.from_numpy(np.load(folder / name))  # noqa: E731
    with torch.no_grad():
        video = model.embed_video(load("in_video_u8.npy"))
        audio = model.embed_audio_logmel(load("in_audio_logmel.npy"))
        text = model.embed_text(load("in_word_ids.npy").long())
    check(video["fine"], load("out_video_fine_va.npy"), "video fine")
    check(video["coarse"], load("out_video_coarse_vat.npy"), "video coarse")
    check(audio["fine"], load("out_audio_fine_va.npy"), "audio fine")
    check(audio["coarse"], load("out_audio_coarse_vat.npy"), "audio coarse")
    check(text["coarse"], load("out_text_coarse_vat.npy"), "text")


class FromLogMel(torch.nn.Module):
    """The golden vectors of audio start behind the front end."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, logmel: torch.Tensor) -> dict:
        return self.model.embed_audio_logmel(logmel)


@pytest.mark.parametrize(("kind", "case"), CASES[1:])
def test_audio_in_onnx_runtime(
    goldens: Path, public_checkpoint, tmp_path: Path, kind: str, case: str
) -> None:
    folder, path = goldens / kind / case, tmp_path / "audio.onnx"
    logmel = np.load(folder / "in_audio_logmel.npy")
    module = FromLogMel(folded(imported(public_checkpoint(kind)))).eval()
    program = torch.onnx.export(
        module,
        (torch.from_numpy(logmel),),
        dynamo=True,
        input_names=["logmel"],
        output_names=["fine", "coarse"],
        verbose=False,
    )
    program.save(str(path))
    got = run_onnx(path, {"logmel": logmel}, ["fine", "coarse"])
    check(got["fine"], np.load(folder / "out_audio_fine_va.npy"), "fine")
    check(got["coarse"], np.load(folder / "out_audio_coarse_vat.npy"), "coarse")


@pytest.mark.parametrize("log", audio_probe.LOGS)
def test_the_probe_finds_the_logarithm(public_checkpoint, log: str) -> None:
    """Statistics as training on other sound under `log` would have left them."""
    model = imported(public_checkpoint("s3d"))
    norm = model.audio_backbone.groups[0][0].bn_0
    front = audio_probe.LogMel(log)
    with torch.no_grad():
        other = audio_probe.generated_sound(clips=4, seed=9) * 0.5
        maps = model.audio_backbone.pooled_stem(front(other).permute(0, 3, 1, 2))
        norm.running_var.copy_(maps.var(dim=(0, 2, 3), correction=0))
        norm.running_mean.copy_(maps.mean(dim=(0, 2, 3)))
    found = audio_probe.probe(model.audio_backbone, audio_probe.generated_sound(), "generated")
    assert found.chosen == log
    wrong = next(other for other in audio_probe.LOGS if other != log)
    assert found.divergence[wrong] > 5 * found.divergence[log]


MEASURED = """
import sys, time
from pathlib import Path
from triptych_trainer.importer.deepmind import build_model, config_of, read_checkpoint
started = time.process_time()
checkpoint = read_checkpoint(Path(sys.argv[1]))
model = build_model(checkpoint, config_of(checkpoint))
# Not getrusage: its peak is handed down by the process that started this one.
peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]
print(time.process_time() - started, int(peak) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_reading_stays_small_and_quick(public_checkpoint) -> None:
    """Importing torch alone takes half a GiB; the file has 0.15."""
    path = public_checkpoint("s3d")
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cpu_secs, gib = map(float, done.stdout.split())
    assert cpu_secs < 30 and gib < 1.3, done.stdout


def test_without_a_word_list_there_is_no_text_tower(
    public_checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych_trainer.importer import commands

    seen, said = {}, []

    def keep(model, out, content):
        seen.update(content=content, model=model)
        return {}

    monkeypatch.setattr(commands, "write_bundle", keep)
    import_deepmind(public_checkpoint("s3d"), tmp_path / "mmv", SMALL, say=said.append)
    assert seen["content"].inputs["text"] is None and seen["content"].tokenizer is None
    assert any("no text tower" in line for line in said)
    probe = seen["content"].training["audio_log_probe"]
    assert seen["model"].log_mel.log == seen["content"].training["audio_log"] == probe["chosen"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ValueError, match="params"):
        deepmind.read_checkpoint(path)
    path.write_bytes(pickle.dumps({"params": {"m": {"w": np.zeros(2)}}, "state": {}}))
    with pytest.raises(ValueError, match="neither"):
        _ = deepmind.read_checkpoint(path).kind


def test_public_sizes_are_read_from_the_shapes(public_checkpoint) -> None:
    checkpoint = deepmind.read_checkpoint(public_checkpoint("s3d"))
    cfg = deepmind.config_of(checkpoint)
    assert (cfg.vocab_size, cfg.fine_dim, cfg.coarse_dim, cfg.stem) == (512, 512, 256, "s2d")
    stem = checkpoint.params[deepmind.S3D_STEM]
    stem["w"] = np.zeros((7, 7, 7, 3, 64), np.float32)
    assert deepmind.config_of(checkpoint) == replace(cfg, stem="rgb")
    model = deepmind.build_model(checkpoint, replace(cfg, stem="rgb"))
    assert model.video_backbone.stem.convs[0].weight.shape == (64, 3, 7, 7, 7)


def test_word_list_rules(tmp_path: Path, word_file: Path) -> None:
    words = vocabulary.from_word_file(word_file, 512)
    tokenizer = words.tokenizer()
    ids = words.encode(tokenizer, "A Dog, don't  zebra (GUITAR)!")
    assert ids.tolist() == [2, 3, 6, 4] + [0] * 12
    assert (words.pad_id, words.unknown_id, words.rows) == (0, 1, 512)
    with pytest.raises(ValueError, match="row by row"):
        vocabulary.from_word_file(word_file, 513)
    shifted = vocabulary.from_word_file(word_file, 513, offset=1)
    assert shifted.ids["dog"] == 4 and shifted.rows == 513
    path = tmp_path / "numbered.txt"
    path.write_text("0 <pad>\n2 dog\n1 cat\n")
    numbered = vocabulary.from_word_file(path, 3)
    assert numbered.ids["cat"] == 1 and numbered.unknown_id == 3 and numbered.rows == 4
    path.write_text("<unk>\ndog\n")
    first = vocabulary.from_word_file(path, 2)
    assert (first.pad_id, first.unknown_id, first.rows, first.ids["dog"]) == (0, 2, 3, 1)
    path.write_text("dog\ndog\n")
    with pytest.raises(ValueError, match="duplicate"):
        vocabulary.from_word_file(path, 2)


def test_word_list_of_a_saved_model(tmp_path: Path, word_file: Path) -> None:
    with pytest.raises(ValueError, match="assets"):
        vocabulary.from_saved_model(tmp_path, 512)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "tokens.txt").write_text(word_file.read_text())
    (tmp_path / "assets" / "other.txt").write_text("something else\n")
    assert vocabulary.from_saved_model(tmp_path, 512).ids["dog"] == 3
    (tmp_path / "assets" / "again.txt").write_text(word_file.read_text())
    with pytest.raises(ValueError, match="2 word lists"):
        vocabulary.from_saved_model(tmp_path, 512)
