"""Imported folders behind a real server: what it answers for real files, against transformers' own
processors and models on the same files."""

from pathlib import Path

import hf_checkpoints as made
import imageio_ffmpeg
import numpy as np
import pytest
from conftest import SHARED
from hf_bundles import Imported, one_minus_cosine
from PIL import Image
from serving import data_uri, write_clip, write_wav

from triptych_trainer.hf.parts import Options
from triptych_trainer.hf.reference import Reference

MEDIA = SHARED / "media"
SMALL_WORLD = Path(__file__).parents[2] / "models" / "small-world"
TEXTS = ("a dog barking", "Ein Hund bellt im Regen!", "雨の中の犬 🐶", "x" * 5000)
FAMILIES = {
    "clip": lambda folder: made.clip(folder, 48),
    "siglip": made.siglip,
    "siglip2": made.siglip2,
    "clap": lambda folder: made.clap(
        folder, text=made.SMALL_TEXT | {"max_position_embeddings": 514}
    ),
    "pe_audio_video": lambda folder: made.pe_audio_video(folder, 4),
    "embedding_gemma2": made.embedding_gemma2,
}
FRAMES = {"pe_audio_video": 4}
# Frames at 25 a second of films that are no longer than a window, for the family that takes a frame
# a second: it sees fewer of a short film. Longer ones end with a window anchored at the end.
LENGTHS = {"whole.mkv": 250, "film.mkv": 75, "odd.mkv": 81, "glance.mkv": 12}
# Films of a constant frame rate: where it varies, the server goes by time, transformers by number.
REAL = (
    "chaplin.mp4",
    "flipping_a_pancake.mkv",
    "h265_10bits.mp4",
    "dog_audio.wav",
    "rain.mp3",
    "dog_image.jpg",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """A folder with a film of an odd size, a short and a long sound, and a picture; with the real
    files beside them where there are any."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    slow = np.repeat(np.repeat(rng.integers(0, 256, (250, 7, 11, 3), np.uint8), 9, 1), 9, 2)
    for name, frames in LENGTHS.items():
        write_clip(folder / name, slow[:frames], 25)
    for name, secs in [("short", 0.73), ("long", 11.5)]:
        write_wav(folder / f"{name}.wav", rng.normal(0, 0.1, round(secs * 48_000)).astype("f4"))
    Image.fromarray(slow[3]).save(folder / "still.png")
    if MEDIA.is_dir():
        for name in REAL:
            (folder / name).write_bytes((MEDIA / name).read_bytes())
    else:
        print(f"SKIPPED LOUDLY: no real files at {MEDIA}")
    assert imageio_ffmpeg.get_ffmpeg_exe()
    return folder


def close(got: np.ndarray, want: list[np.ndarray], name: str, most: float = 1e-6) -> None:
    assert got.shape == np.stack(want).shape, f"{name}: {got.shape}, {np.stack(want).shape}"
    worst = max(one_minus_cosine(a, b) for a, b in zip(got, want, strict=True))
    assert worst <= most, f"{name}: 1 - cosine {worst:.2e}"


def ask(client, body: dict) -> np.ndarray:
    rows = sorted(client.call("POST", "/v1/embeddings", body)["data"], key=lambda row: row["index"])
    return np.array([row["embedding"] for row in rows], np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_served_vectors_are_those_of_transformers(family: str, serve, files, tmp_path) -> None:
    folder = FAMILIES[family](tmp_path / "folder")
    options = {"frames": FRAMES[family]} if family in FRAMES else {}
    bundle = Imported(folder, tmp_path / "bundle", **options)
    sampling = bundle.manifest["towers"].get("video", {}).get("preprocessing", {}).get("sampling")
    reference = Reference(folder, frames=(sampling or {}).get("frames"))
    towers = bundle.manifest["towers"].values()
    spaces = {tower["modality"]: list(tower.get("outputs", {})) for tower in towers}
    with serve(bundle.path, files) as client:
        for said in TEXTS:
            prompts = bundle.tower("text")["preprocessing"]["text"].get("prompts", {})
            want = reference.text(said, prompts.get("query", "{text}"))
            for space in spaces["text"]:
                got = ask(client, {"modality": "text", "input": [said], "space": space})
                close(got, [want[space]], f"{said[:20]} in {space}")
        films = [*files.glob("*.mkv"), *files.glob("*.mp4")] if "video" in spaces else []
        if sampling is not None and sampling["rule"] == "rate":
            films = [files / name for name in LENGTHS]
        for path in films:
            windows = reference.film(path)
            for space in spaces["video"]:
                got = ask(client, {"modality": "video", "input": str(path), "space": space})
                close(got, [window.vectors[space] for window in windows], f"{path.name} in {space}")
        stills = [*files.glob("*.png"), *files.glob("*.jpg")] if "image" in spaces else []
        for path in stills:
            want = reference.picture(np.array(Image.open(path).convert("RGB")))
            for space in want:
                kind = "image/png" if path.suffix == ".png" else "image/jpeg"
                body = {"modality": "image", "input": data_uri(path, kind), "space": space}
                close(ask(client, body), [want[space]], f"{path.name} in {space}")
        sounds = [*files.glob("*.wav"), *files.glob("*.mp3")] if "audio" in spaces else []
        for path in sounds:
            windows = reference.sound(path)
            for space in spaces["audio"]:
                got = ask(client, {"modality": "audio", "input": str(path), "space": space})
                close(got, [window.vectors[space] for window in windows], f"{path.name} in {space}")


def test_the_options_of_an_import_reach_the_server(serve, files, tmp_path) -> None:
    """More frames than the default, and a window of another length."""
    folder = made.clip(tmp_path / "folder")
    bundle = Imported(folder, tmp_path / "bundle", frames=3)
    reference = Reference(folder, frames=3)
    with serve(bundle.path, files) as client:
        path = files / "film.mkv"
        got = ask(client, {"modality": "video", "input": str(path), "space": "clip"})
        close(got, [window.vectors["clip"] for window in reference.film(path)], path.name)
    assert Options().frames != 3


@pytest.mark.parametrize("family", ["clip", "siglip2"])
def test_frames_are_chosen_when_the_server_starts(family: str, serve, files, tmp_path) -> None:
    folder = FAMILIES[family](tmp_path / "folder")
    bundle = Imported(folder, tmp_path / "bundle")
    (space,) = bundle.tower("video")["outputs"]
    ids = set()
    for frames in (None, 1, 5):
        options = () if frames is None else ("--frames", str(frames))
        reference = Reference(folder, frames=frames or 8)
        with serve(bundle.path, files, *options) as client:
            path = files / "film.mkv"
            got = ask(client, {"modality": "video", "input": str(path), "space": space})
            close(got, [w.vectors[space] for w in reference.film(path)], f"{frames} frames")
            ids.add(client.call("GET", "/v1/models")["data"][0]["digest"])
    assert len(ids) == 3, "vectors of different settings belong to different models"


@pytest.mark.parametrize(("family", "read"), [("clap", "audio"), ("siglip", "video")])
def test_a_track_that_no_tower_takes_is_not_decoded(
    family: str, read: str, serve, tmp_path
) -> None:
    bundle = Imported(FAMILIES[family](tmp_path / "folder"), tmp_path / "bundle")
    # Films with sound, 9 to 26 seconds long.
    clips = SMALL_WORLD / "samples" / "clips"
    with serve(bundle.path, clips) as client:
        client.index_folder(clips)
        assets = client.call("GET", "/v1/assets?limit=50")["data"]
        assert len(assets) == len(list(clips.iterdir()))
        for asset in assets:
            assert (asset["kind"], asset["state"]) == ("video", "ready"), asset
            used = {track["kind"]: track["used"] for track in asset["tracks"]}
            assert used == {kind: kind == read for kind in used} and used[read], asset
            found = client.call("GET", f"/v1/assets/{asset['id']}?clips=true")["clips"]
            assert all(clip["tracks"] == [read] for clip in found) and found
            assert found[-1]["end_secs"] >= asset["duration_secs"] - 1.0
