"""The towers against the original model's own outputs (MMV specification, section 11)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from public_mmv import PublicMmv
from support import CASES, WIDTHS, check, golden_lib, golden_model, golden_params

from triptych_trainer.models.audio_frontend import LogMel, mel_matrix
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.models.s3d import S3dG


@pytest.fixture(scope="module")
def models(goldens: Path) -> dict[str, Mmv]:
    return {kind: golden_model(goldens, kind) for kind in ("s3d", "tsm-resnet50")}


@pytest.mark.parametrize("form", ["3d", "2d"])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_video_tower(models: dict, goldens: Path, kind: str, case: str, form: str) -> None:
    folder, model = goldens / kind / case, models[kind]
    model.video_backbone.form = form
    frames = torch.from_numpy(np.load(folder / "in_video_u8.npy"))
    with torch.no_grad():
        clip = (frames.float() / 255).permute(0, 4, 1, 2, 3)
        feature = model.video_backbone(clip)
        out = model.embed_video(frames)
    check(feature, np.load(folder / "out_video_backbone.npy"), "backbone")
    check(out["fine"], np.load(folder / "out_video_fine_va.npy"), "fine")
    check(out["coarse"], np.load(folder / "out_video_coarse_vat.npy"), "coarse")


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_audio_and_text_towers(models: dict, goldens: Path, kind: str, case: str) -> None:
    folder, s3d = goldens / kind / case, models[kind]
    logmel = torch.from_numpy(np.load(folder / "in_audio_logmel.npy"))
    ids = torch.from_numpy(np.load(folder / "in_word_ids.npy")).long()
    with torch.no_grad():
        feature = s3d.audio_backbone(logmel)
        audio, text = s3d.embed_audio_logmel(logmel), s3d.embed_text(ids)
    check(feature, np.load(folder / "out_audio_backbone.npy"), "backbone")
    check(audio["fine"], np.load(folder / "out_audio_fine_va.npy"), "fine")
    check(audio["coarse"], np.load(folder / "out_audio_coarse_vat.npy"), "coarse")
    check(text["coarse"], np.load(folder / "out_text_coarse_vat.npy"), "text")


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_the_restatement_gives_the_golden_vectors(goldens: Path, kind: str, case: str) -> None:
    """The other tests' reference where there are no golden vectors."""
    stored = np.load(goldens / kind / "bn_state.npz")
    average = {key.rsplit("|", 1)[0]: stored[key] for key in stored.files}
    backbone = "s3d" if kind == "s3d" else "tsm"
    public = PublicMmv(backbone, golden_params(goldens, kind), average)
    load = lambda name: torch.from_numpy(np.load(goldens / kind / case / name))  # noqa: E731
    found = {
        "video": public.video(load("in_video_u8.npy").double() / 255),
        "audio": public.audio(load("in_audio_logmel.npy")),
    }
    for name, out in found.items():
        check(out["feature"], load(f"out_{name}_backbone.npy"), f"{name} backbone")
        check(out["fine"], load(f"out_{name}_fine_va.npy"), f"{name} fine")
        check(out["coarse"], load(f"out_{name}_coarse_vat.npy"), f"{name} coarse")
    text = public.text(load("in_word_ids.npy").long())
    check(text["coarse"], load("out_text_coarse_vat.npy"), "text")


@pytest.mark.parametrize("kind", list(WIDTHS))
def test_what_it_makes_up_has_the_public_names_and_shapes(goldens: Path, kind: str) -> None:
    backbone = "s3d" if kind == "s3d" else "tsm"
    public = PublicMmv(backbone, width=WIDTHS[kind], words=65_536, dtype=torch.float32)
    listing = golden_lib(goldens).read_list(goldens.parent / f"params_{kind}.txt")
    want = {(module, name): shape for tag, module, name, shape, _ in listing if tag == "params"}
    made = {(m, name): v.shape for m, values in public.params.items() for name, v in values.items()}
    assert made == want
    want = {module: shape for _, module, name, shape, _ in listing if name == "average"}
    assert {module: v.shape for module, v in public.average.items()} == want


def test_forms_agree_at_the_published_crop() -> None:
    """200 pixels: the pads are lopsided at other layers than they are at 64."""
    torch.manual_seed(0)
    backbone = S3dG(width=0.125).eval()
    clip = torch.rand(1, 3, 8, 200, 200)
    with torch.no_grad():
        backbone.form = "3d"
        want = backbone(clip)
        backbone.form = "2d"
        got = backbone(clip)
    check(got, want.numpy(), "2d")


@pytest.mark.parametrize("stem", ["s2d", "rgb"])
def test_forms_agree_in_training_and_gradients(stem: str) -> None:
    torch.manual_seed(1)
    backbone = S3dG(width=0.125, stem=stem).double().train()
    clip = torch.rand(2, 3, 8, 34, 30, dtype=torch.float64)
    gradients = []
    for form in ("3d", "2d"):
        backbone.form = form
        backbone.zero_grad()
        backbone(clip).square().sum().backward()
        gradients.append(backbone.stem.convs[0].weight.grad.clone())
    check(gradients[1], gradients[0].numpy(), "gradient", cosine=False)


@pytest.mark.parametrize("name", ["clip_3p2s", "odd_len", "short"])
def test_audio_front_end(goldens: Path, name: str) -> None:
    folder = goldens / "audio_frontend"
    wave = torch.from_numpy(np.load(folder / f"{name}_in_wave.npy"))
    for log in ("log1p10000", "eps1e-6"):
        front = LogMel(log)
        linear = np.load(folder / f"{name}_mel_linear.npy")
        check(front.magnitudes_to_mel(wave).reshape(linear.shape), linear, "mel", cosine=False)
        want = np.load(folder / f"{name}_logmel_{log}.npy")
        check(front(wave).reshape(want.shape), want, log, cosine=False)


def test_mel_matrix(goldens: Path) -> None:
    want = np.load(goldens / "audio_frontend" / "mel_matrix_1025x80.npy")
    assert np.abs(mel_matrix() - want).max() <= 2e-5
