"""CLIP folders against transformers' own processor and model."""

from pathlib import Path

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from conftest import SHARED
from hf_bundles import Imported, check_bundle, one_minus_cosine
from PIL import Image

from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.pictures import read_picture
from triptych_trainer.hf.reference import Reference
from triptych_trainer.hf.texts import GOLDEN_TEXTS, read_text
from triptych_trainer.media import native_frames

ODD_SIZES = [
    (h, w)
    for h in (1, 7, 33, 97, 224, 241)
    for w in (1, 9, 32, 131, 300, 401, 640)
]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("clip")
    return Imported(made.clip(folder / "clip"), folder / "bundle", frames=3)


def pictures(seed: int, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def test_a_bundle_of_clip(clip: Imported) -> None:
    check_bundle(clip)
    assert clip.manifest["license"] == "MIT"
    assert clip.manifest["spaces"] == [
        {"name": "clip", "dim": 24, "members": ["text", "video", "image"]}
    ]
    sampling = clip.tower("video")["preprocessing"]["sampling"]
    assert sampling == {
        "rule": "spread",
        "frames": 3,
        "window_secs": 10.0,
        "frames_range": [1, 64],
    }
    text = clip.tower("text")["preprocessing"]["text"]
    assert (text["kind"], text["max_tokens"], text["padding"]) == ("tokens", 77, "none")
    # Pictures and videos are one network: their weights lie in the file once.
    size = (clip.path / "weights.bin").stat().st_size
    assert size < 1.3 * (clip.source / "model.safetensors").stat().st_size


def test_pictures_and_texts_are_those_of_transformers(clip: Imported) -> None:
    from transformers import AutoProcessor, CLIPModel

    model = CLIPModel.from_pretrained(clip.source, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(clip.source, backend="pil")
    picture = read_picture(HfFolder.open(clip.source))
    shown = pictures(1, [(40, 60), (333, 90), (64, 64)])
    with torch.no_grad():
        given = processor(images=[Image.fromarray(p) for p in shown], return_tensors="pt")
        want = model.get_image_features(**given).pooler_output.numpy()
        texts = processor(text=list(GOLDEN_TEXTS), padding=True, truncation=True,
                          return_tensors="pt")  # fmt: skip
        want_texts = model.get_text_features(**texts).pooler_output.numpy()
    frames = np.stack([picture.pixels(p) for p in shown])
    assert one_minus_cosine(clip.run("image", {"frames": frames})["clip"], want) <= 1e-6
    units = want / np.linalg.norm(want, axis=-1, keepdims=True)
    got = clip.run("video", {"frames": frames[None]})["clip"]
    assert one_minus_cosine(got, units.mean(0)[None]) <= 1e-6
    text = read_text(HfFolder.open(clip.source), "t", 77, "none", with_mask=False, words=10**6)
    for row, said in zip(want_texts, GOLDEN_TEXTS, strict=True):
        got = clip.run("text", text.feed([said]))["clip"]
        assert one_minus_cosine(got, row[None]) <= 1e-6


def test_a_real_film_as_the_reference_sees_it(clip: Imported) -> None:
    film = SHARED / "media" / "arm_wrestling.mp4"
    if not film.is_file():
        pytest.skip(f"SKIPPED LOUDLY: there is no {film}; set TRIPTYCH_SHARED")
    frames, rate = native_frames(film)
    assert (len(frames), rate) == (280, 28)
    reference = Reference(clip.source, frames=3, window_secs=4.0)
    found = reference.film(film)
    # The last window is what is left of the film.
    assert [(w.start_secs, w.end_secs) for w in found] == [(0.0, 4.0), (4.0, 8.0), (8.0, 10.0)]
    picture = read_picture(HfFolder.open(clip.source))
    for window in found:
        first, end = round(window.start_secs * rate), round(window.end_secs * rate)
        taken = [frames[first + k] for k in (0, (end - first - 1) // 2, end - first - 1)]
        rows = np.stack([picture.pixels(frame) for frame in taken])[None]
        got = clip.run("video", {"frames": rows})["clip"]
        assert one_minus_cosine(got, window.vectors["clip"][None]) <= 1e-6
    first, second = (window.vectors["clip"][None] for window in found[:2])
    assert one_minus_cosine(first, second) > 1e-6


@pytest.mark.parametrize("resample", [0, 1, 2, 3])
def test_pixels_are_pillows_for_odd_sizes(tmp_path: Path, resample: int) -> None:
    import json

    from transformers import AutoImageProcessor

    made.clip(tmp_path, 48)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resample": resample}))
    picture = read_picture(HfFolder.open(tmp_path))
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for shown in pictures(2, ODD_SIZES):
        want = processor(images=shown, return_tensors="np", input_data_format="channels_last")
        pixels = torch.from_numpy(picture.pixels(shown))
        got = picture.normalise(pixels).permute(2, 0, 1).numpy()
        assert np.abs(got - want["pixel_values"][0]).max() < 1e-5, shown.shape


def test_another_resolution_and_the_end_token_of_old_folders(tmp_path: Path) -> None:
    vision = made.SMALL_TEXT | {"patch_size": 16, "num_hidden_layers": 1}
    folder = made.clip(tmp_path / "clip", 96, vision=vision, eos=2)
    bundle = Imported(folder, tmp_path / "bundle", frames=2, window_secs=4.0)
    check_bundle(bundle)
    crop = bundle.tower("image")["preprocessing"]["picture"]["crop"]
    assert crop == {"height": 96, "width": 96}
    assert bundle.tower("video")["preprocessing"]["sampling"]["window_secs"] == 4.0
