"""Head graphs other than FAC behind a real server: what cannot be compared is refused by name, and
pictures go through the image tower."""

from pathlib import Path

import numpy as np
import pytest
import torch
from serving import check_served, data_uri, refused, unit, write_png, write_wav
from support import tiny, tiny_deflated

from triptych_trainer.export import export_bundle, golden_inputs
from triptych_trainer.frames import preprocess

SAMPLES = Path(__file__).parents[2] / "models/small-world/samples/clips"
TEXT = "a red circle moving left"


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 153_600)
    return write_wav(tmp_path_factory.mktemp("sound") / "noise.wav", noise)


def search(query: dict, *targets: str) -> dict:
    return {"query": query, "targets": list(targets)}


def test_disjoint_spaces_do_not_compare_text_with_sound(
    reduced: tuple, serve, wave: Path, tmp_path: Path
) -> None:
    with serve(reduced[0], tmp_path) as client:
        for query, targets, named in [
            ({"text": TEXT}, ["audio"], "text with audio"),
            ({"text": TEXT}, ["video", "audio"], "text with audio"),
        ]:
            status, error = refused(client, "/v1/search", search(query, *targets))
            assert (status, error["code"]) == (422, "not_comparable")
            assert named in error["message"] and "share no embedding space" in error["message"]
        sound = {"audio": data_uri(wave, "audio/wav")}
        asked = search({"text": TEXT}, "audio") | {"space": "video_audio"}
        status, error = refused(client, "/v1/search", asked)
        assert (status, error["code"]) == (400, "bad_space")
        # What shares a space is answered in it.
        for query, target, space in [
            ({"text": TEXT}, "video", "video_text"),
            (sound, "video", "video_audio"),
            (sound, "audio", "video_audio"),
        ]:
            found = client.call("POST", "/v1/search", search(query, target))
            assert (found["space"], found["data"]) == (space, [])


@pytest.mark.parametrize(
    ("graph", "there", "missing"), [("vt", "text", "audio"), ("va", "audio", "text")]
)
def test_a_missing_tower_is_an_error_and_not_a_crash(
    graph: str, there: str, missing: str, serve, wave: Path, tmp_path: Path
) -> None:
    model = tiny(spaces=graph, backbone={"vt": "s3d", "va": "tsm"}[graph])
    image = tiny_deflated(model)
    export_bundle(model, tmp_path / graph, graph, {}, {}, image=image)
    queries = {"text": {"text": TEXT}, "audio": {"audio": data_uri(wave, "audio/wav")}}
    inputs = {"text": TEXT, "audio": str(wave)}
    with serve(tmp_path / graph, wave.parent) as client:
        asset = {"path": str(next(SAMPLES.glob("*.mp4")))}
        assert refused(client, "/v1/assets", asset)[1]["code"] == "path_not_allowed"
        status, error = refused(client, "/v1/search", search(queries[missing], "video"))
        assert (status, error["code"]) == (422, "modality_not_supported")
        assert f"cannot embed {missing}" in error["message"]
        body = {"modality": missing, "input": inputs[missing]}
        status, error = refused(client, "/v1/embeddings", body)
        assert (status, error["code"]) == (422, "modality_not_supported")
        if missing == "audio":
            status, error = refused(client, "/v1/search", search(queries["text"], "audio"))
            assert (status, error["code"]) == (422, "not_comparable")
        vectors = client.call("POST", "/v1/embeddings", {"modality": there, "input": inputs[there]})
        assert vectors["data"][0]["space"] == {"vt": "video_text", "va": "video_audio"}[graph]
        check_picture(client, image, wave.parent)


def picture(folder: Path, seed: int) -> tuple[Path, torch.Tensor]:
    """A file, and what a tower of 32 pixels gets of it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 61, 3), np.uint8)
    tensor = torch.from_numpy(preprocess(pixels[None], 32, 32))
    return write_png(folder / f"picture-{seed}.png", pixels), tensor


def check_picture(client, image, folder: Path) -> None:
    """The vector of a picture is PyTorch's deflated network's, on the same pixels."""
    path, pixels = picture(folder, 1)
    with torch.no_grad():
        want = image.embed_image(pixels)
    for space, vectors in want.items():
        check_served(client.embed_file("image", path, space), vectors, f"picture {space}")


def test_pictures_go_through_the_deflated_tower(reduced: tuple, serve, tmp_path: Path) -> None:
    """As vectors, as queries and as assets; the naive and the inflated network are far off."""
    folder, model, image = reduced
    path, pixels = picture(tmp_path, 2)
    other, other_pixels = picture(tmp_path, 3)
    inputs, texts = golden_inputs(model.cfg)
    with torch.no_grad():
        stored, query = (image.embed_image(p) for p in (pixels, other_pixels))
        inflated = model.embed_video(pixels[:, None].expand(-1, model.cfg.frames, -1, -1, -1))
        text = model.embed_text(torch.from_numpy(inputs["text"][:1]))
    space = "video_text"
    far = (unit(stored[space]) * unit(inflated[space])).sum()
    assert far < 0.99, "this test could not tell the two networks apart"
    with serve(folder, tmp_path) as client:
        check_picture(client, image, tmp_path)
        asset = client.call("POST", "/v1/assets?wait=true", {"path": str(path)})
        assert (asset["kind"], asset["state"]) == ("image", "ready")
        for body, vectors in [
            ({"text": texts[0]}, text),
            ({"image": data_uri(other, "image/png")}, query),
        ]:
            asked = search(body, "video") | {"space": space}
            (hit,) = client.call("POST", "/v1/search", asked)["data"]
            want = (unit(vectors[space]) * unit(stored[space])).sum()
            assert hit["asset_id"] == asset["id"]
            assert hit["score"] == pytest.approx(want, abs=2e-5)
