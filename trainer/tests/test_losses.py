"""Losses against the stored values, and what must hold of them whatever the numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from triptych_trainer.losses import mil_nce_loss, nce_loss


@pytest.fixture(scope="module")
def stored(goldens: Path) -> dict:
    folder = goldens / "losses"
    vectors = {p.stem: torch.from_numpy(np.load(p)).double() for p in folder.glob("*.npy")}
    return json.loads((folder / "losses.json").read_text()) | vectors


def test_nce(stored: dict) -> None:
    got = nce_loss(stored["vid_va"], stored["aud_va"], stored["temperature"])
    assert got.item() == pytest.approx(stored["nce_va_asym"], rel=2e-4)


def test_mil_nce(stored: dict) -> None:
    video = stored["vid_vat"]
    text = stored["txt_vat"].reshape(stored["B"], stored["L"], -1)
    got = mil_nce_loss(video, text, None, stored["temperature"])
    assert got.item() == pytest.approx(stored["milnce_vt_asym"], rel=2e-4)
    mask = torch.tensor(stored["mask"])
    got = mil_nce_loss(video, text, mask, stored["temperature"])
    assert got.item() == pytest.approx(stored["milnce_vt_asym_masked"], rel=2e-4)


def test_floor_is_ln_2() -> None:
    eye = torch.eye(8)
    assert nce_loss(eye, eye, 0.01).item() == pytest.approx(math.log(2), abs=1e-5)


def test_clips_without_text_change_nothing_for_the_others() -> None:
    torch.manual_seed(0)
    video, text = torch.randn(6, 16), torch.randn(6, 3, 16)
    mask = torch.tensor([1.0, 1, 0, 1, 0, 1])
    other = text.clone()
    other[mask == 0] = torch.randn(2, 3, 16)
    assert torch.equal(mil_nce_loss(video, text, mask), mil_nce_loss(video, other, mask))


def test_no_text_at_all_gives_zero_and_zero_gradients() -> None:
    video = torch.randn(4, 8, requires_grad=True)
    loss = mil_nce_loss(video, torch.randn(4, 2, 8), torch.zeros(4))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(video.grad, torch.zeros_like(video))


def test_true_pairs_score_below_shuffled_ones() -> None:
    torch.manual_seed(0)
    video = F.normalize(torch.randn(32, 64), dim=1)
    audio = video + 0.1 * torch.randn(32, 64)
    assert nce_loss(video, audio) < nce_loss(video, audio.roll(1, dims=0)) - 1.0


def test_symmetric_form(stored: dict) -> None:
    tau = stored["temperature"]
    got = nce_loss(stored["vid_va"], stored["aud_va"], tau, "symmetric")
    assert got.item() == pytest.approx(stored["nce_va_symm"], rel=2e-4)
    text = stored["txt_vat"].reshape(stored["B"], stored["L"], -1)
    got = mil_nce_loss(stored["vid_vat"], text, None, tau, "symmetric")
    assert got.item() == pytest.approx(stored["milnce_vt_symm"], rel=2e-4)
    mask = torch.tensor(stored["mask"])
    got = mil_nce_loss(stored["vid_vat"], text, mask, tau, "symmetric")
    assert got.item() == pytest.approx(stored["milnce_vt_symm_masked"], rel=2e-4)


def test_total_of_the_large_scale_recipe(stored: dict) -> None:
    """Weights 1:1, the masked text loss."""
    tau, text = stored["temperature"], stored["txt_vat"].reshape(stored["B"], stored["L"], -1)
    va = nce_loss(stored["vid_va"], stored["aud_va"], tau)
    vt = mil_nce_loss(stored["vid_vat"], text, torch.tensor(stored["mask"]), tau)
    assert (va + vt).item() == pytest.approx(stored["total_ht_as_1_1"], rel=2e-4)
