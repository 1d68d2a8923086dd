"""SigLIP and SigLIP 2 folders against transformers' own processor and model."""

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from hf_bundles import Imported, check_bundle, one_minus_cosine
from test_hf_clip import ODD_SIZES, pictures

from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.pictures import patches, read_picture
from triptych_trainer.hf.siglip import padded_text
from triptych_trainer.hf.siglip2 import read_patches
from triptych_trainer.hf.texts import GOLDEN_TEXTS, load_tokenizer


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def siglip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """With SigLIP's own tokenizer, and with that of SigLIP 2 at a fixed resolution."""
    folder = tmp_path_factory.mktemp(request.param)
    source = made.siglip(folder / "folder", gemma=request.param == "siglip2")
    return Imported(source, folder / "bundle", frames=2)


@pytest.fixture(scope="module")
def naflex(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("naflex")
    return Imported(made.siglip2(folder / "folder"), folder / "bundle", frames=2)


def test_a_bundle_of_siglip(siglip: Imported) -> None:
    from transformers import AutoImageProcessor, SiglipModel

    check_bundle(siglip)
    rules = siglip.tower("image")["preprocessing"]["picture"]
    assert rules["resize"] == {"rule": "exact", "height": 32, "width": 32}
    assert siglip.tower("text")["preprocessing"]["text"]["padding"] == "max"
    folder = HfFolder.open(siglip.source)
    model = SiglipModel.from_pretrained(siglip.source, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(siglip.source, backend="pil")
    tokenizer = load_tokenizer(folder)
    shown = pictures(3, [(50, 20), (21, 333)])
    with torch.no_grad():
        want = model.get_image_features(
            **processor(images=shown, return_tensors="pt", input_data_format="channels_last")
        ).pooler_output.numpy()
        given = tokenizer(
            list(GOLDEN_TEXTS), padding="max_length", truncation=True, max_length=64,
            return_tensors="pt",
        )  # fmt: skip
        want_texts = model.get_text_features(**given).pooler_output.numpy()
    picture = read_picture(folder)
    frames = np.stack([picture.pixels(p) for p in shown])
    assert one_minus_cosine(siglip.run("image", {"frames": frames})["siglip"], want) <= 1e-6
    feed = padded_text(folder, model.config.text_config).feed(list(GOLDEN_TEXTS))
    assert one_minus_cosine(siglip.run("text", feed)["siglip"], want_texts) <= 1e-6


def test_a_bundle_of_siglip2_naflex(naflex: Imported) -> None:
    from transformers import AutoImageProcessor, Siglip2Model

    check_bundle(naflex)
    assert list(naflex.tower("video")["inputs"]) == ["frames", "patch_grid"]
    model = Siglip2Model.from_pretrained(naflex.source, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(naflex.source, backend="pil")
    picture = read_patches(HfFolder.open(naflex.source), 8)
    grids = set()
    for shown in pictures(4, ODD_SIZES):
        given = processor(images=shown, return_tensors="pt", input_data_format="channels_last")
        cut, grid = patches(picture.pixels(shown), 8, 16)
        assert grid.tolist() == given["spatial_shapes"][0].tolist()
        used = int(grid.prod())
        pixels = picture.normalise(torch.from_numpy(cut[:used].reshape(-1, 3)))
        want_pixels = given["pixel_values"][0, :used].reshape(-1, 3)
        assert (pixels - want_pixels).abs().max() < 1e-5, shown.shape
        if tuple(grid) in grids:
            continue
        grids.add(tuple(grid))
        with torch.no_grad():
            want = model.get_image_features(**given).pooler_output.numpy()
        got = naflex.run("image", {"frames": cut[None], "patch_grid": grid[None]})
        assert one_minus_cosine(got["siglip2"], want) <= 1e-6, grid
    assert len(grids) > 5
