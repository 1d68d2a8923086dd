"""The towers against the original model's own outputs (MMV specification, section 11)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from triptych_trainer.config import ModelConfig
from triptych_trainer.models.audio_frontend import LogMel, mel_matrix
from triptych_trainer.models.haiku_names import state_dict_from_haiku
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.models.s3d import S3dG

RELATIVE = 2e-4
ONE_MINUS_COSINE = 1e-8


def check(got: torch.Tensor, want: np.ndarray, name: str, *, cosine: bool = True) -> None:
    got64, want64 = got.detach().numpy().astype(np.float64), want.astype(np.float64)
    assert got64.shape == want64.shape, name
    relative = np.abs(got64 - want64).max() / np.abs(want64).max()
    assert relative <= RELATIVE, f"{name}: relative {relative:.2e}"
    if cosine:
        dots = (got64 * want64).sum(-1)
        dots /= np.linalg.norm(got64, axis=-1) * np.linalg.norm(want64, axis=-1)
        assert (1 - dots).max() <= ONE_MINUS_COSINE, f"{name}: 1-cos {(1 - dots).max():.2e}"


@pytest.fixture(scope="module")
def s3d(goldens: Path) -> Mmv:
    spec = importlib.util.spec_from_file_location("goldens_lib", goldens.parent / "goldens_lib.py")
    lib = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lib)
    listing = lib.read_list(goldens.parent / "params_s3d.txt")
    params = lib.make_params("mmv-golden-v1", listing, vocab=512)
    stored = np.load(goldens / "s3d" / "bn_state.npz")
    average = {key.rsplit("|", 1)[0]: stored[key] for key in stored.files}
    model = Mmv(ModelConfig(vocab_size=512))
    state = state_dict_from_haiku(model, params, average)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected
    return model.eval()


@pytest.mark.parametrize("form", ["3d", "2d"])
@pytest.mark.parametrize("case", ["small", "odd"])
def test_video_tower(s3d: Mmv, goldens: Path, case: str, form: str) -> None:
    folder = goldens / "s3d" / case
    s3d.video_backbone.form = form
    frames = torch.from_numpy(np.load(folder / "in_video_u8.npy"))
    with torch.no_grad():
        clip = (frames.float() / 255).permute(0, 4, 1, 2, 3)
        feature = s3d.video_backbone(clip)
        out = s3d.embed_video(frames)
    check(feature, np.load(folder / "out_video_backbone.npy"), "backbone")
    check(out["fine"], np.load(folder / "out_video_fine_va.npy"), "fine")
    check(out["coarse"], np.load(folder / "out_video_coarse_vat.npy"), "coarse")


@pytest.mark.parametrize("case", ["small", "odd"])
def test_audio_and_text_towers(s3d: Mmv, goldens: Path, case: str) -> None:
    folder = goldens / "s3d" / case
    logmel = torch.from_numpy(np.load(folder / "in_audio_logmel.npy"))
    ids = torch.from_numpy(np.load(folder / "in_word_ids.npy")).long()
    with torch.no_grad():
        feature = s3d.audio_backbone(logmel)
        audio, text = s3d.embed_audio_logmel(logmel), s3d.embed_text(ids)
    check(feature, np.load(folder / "out_audio_backbone.npy"), "backbone")
    check(audio["fine"], np.load(folder / "out_audio_fine_va.npy"), "fine")
    check(audio["coarse"], np.load(folder / "out_audio_coarse_vat.npy"), "coarse")
    check(text["coarse"], np.load(folder / "out_text_coarse_vat.npy"), "text")


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
