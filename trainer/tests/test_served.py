"""Imported checkpoints behind a real server: the vectors that come back over HTTP."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from public_mmv import PublicMmv
from serving import check_served, write_clip, write_png, write_wav
from support import SMALL, WORDS, golden_model

from triptych_trainer.bars import without_bars
from triptych_trainer.config import ModelConfig
from triptych_trainer.deflate import inflate
from triptych_trainer.frames import preprocess
from triptych_trainer.importer.commands import import_deepmind, sizes
from triptych_trainer.manifest import choose_bars
from triptych_trainer.media import clips_of
from triptych_trainer.models.audio_frontend import FFT, HOP, mel_matrix
from triptych_trainer.server import Client

SAMPLES = Path(__file__).parents[2] / "models/small-world/samples/clips"


def words_of(ids: np.ndarray) -> list[str]:
    return [" ".join(WORDS[i] for i in row if i) for row in ids]


@pytest.mark.parametrize("kind", ["s3d", "tsm-resnet50"])
def test_golden_vectors_over_http(
    goldens: Path, golden_bundle, serve, server_binary: Path, tmp_path: Path, kind: str
) -> None:
    """The public network at its full width: what the original code gave is what is served."""
    folder, bundle = goldens / kind / "small", golden_bundle(kind)
    waves = np.load(goldens / "audio_frontend" / "clip_3p2s_in_wave.npy")
    logmel = np.load(goldens / "audio_frontend" / "clip_3p2s_logmel_log1p10000.npy")
    ids = np.load(folder / "in_word_ids.npy")
    with torch.no_grad():
        sound = golden_model(goldens, kind).embed_audio_logmel(
            torch.from_numpy(logmel).reshape(2, 150, 80, 1)
        )
    with serve(bundle, tmp_path) as client:
        for n, frames in enumerate(np.load(folder / "in_video_u8.npy")):
            clip = write_clip(tmp_path / f"{n}.mkv", frames, SMALL.fps)
            wave = write_wav(tmp_path / f"{n}.wav", waves[n])
            for space, file in [("fine", "out_video_fine_va"), ("coarse", "out_video_coarse_vat")]:
                want = np.load(folder / f"{file}.npy")[n : n + 1]
                check_served(client.embed_file("video", clip, space), want, f"video {space}")
                want = sound[space][n : n + 1]
                check_served(client.embed_file("audio", wave, space), want, f"audio {space}")
        want = np.load(folder / "out_text_coarse_vat.npy")
        check_served(client.embed_texts(words_of(ids)), want, "text")
        (model,) = client.call("GET", "/v1/models")["data"]
    assert model["manifest"]["license"] == "CC BY-NC 4.0"
    command = [str(server_binary), "model", "show", str(bundle)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "CC BY-NC 4.0" in shown and "published weights" in shown


def log_mel(pcm: np.ndarray) -> torch.Tensor:
    """Frame by frame with numpy's own Fourier transform."""
    frames = -(-len(pcm) // HOP)
    padded = np.concatenate([pcm, np.zeros(FFT)]).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    spectra = [np.fft.rfft(window * padded[i * HOP : i * HOP + FFT]) for i in range(frames)]
    return torch.from_numpy(np.log1p(10_000 * (np.abs(spectra) @ mel_matrix())))[None, :, :, None]


# Every case at once: S3D's lopsided pads at 200 pixels, a width of TSM's that is not the plain
# one (x2 is such), the slower twin of the graph, and a window whose size is odd after every stride.
MADE_UP = {
    "s3d at 200": ("s3d", 0.125, sizes(frames=4, fps=1.25, resize=224, crop=200), "2d"),
    "tsm, double the other's width": ("tsm", 0.25, sizes(6, 1.875, 58, 58), "3d"),
}


@pytest.fixture(scope="module", params=MADE_UP)
def made_up(request, word_file: Path, tmp_path_factory) -> tuple[PublicMmv, ModelConfig, Path]:
    """A checkpoint of made-up numbers in the public format, and its bundle."""
    backbone, width, cfg, form = MADE_UP[request.param]
    folder = tmp_path_factory.mktemp("made-up")
    public = PublicMmv(backbone, width=width, audio_width=0.125)
    cfg = replace(cfg, video_width=width, audio_width=0.125)
    options = {"vocab": word_file, "audio_log": "log1p10000", "say": lambda _: None}
    import_deepmind(public.write(folder / "c.pkl"), folder / "mmv", cfg, form=form, **options)
    return public, cfg, folder / "mmv"


def test_made_up_checkpoints_over_http(made_up: tuple, serve, tmp_path: Path) -> None:
    public, cfg, bundle = made_up
    rng = np.random.default_rng(3)
    with serve(bundle, tmp_path) as client:
        frames = rng.integers(0, 256, (cfg.frames, cfg.resize, cfg.resize, 3), np.uint8)
        path = write_clip(tmp_path / "clip.mkv", frames, cfg.fps)
        compare_file(client, public, cfg, path)
        image = rng.integers(0, 256, (cfg.resize, cfg.resize, 3), np.uint8)
        edge = (cfg.resize - cfg.crop) // 2
        crop = torch.from_numpy(image[None, edge : edge + cfg.crop, edge : edge + cfg.crop])
        want = public.video(inflate(crop.double() / 255, cfg.frames))
        path = write_png(tmp_path / "image.png", image)
        for space in ("fine", "coarse"):
            check_served(client.embed_file("image", path, space), want[space], "image")
        wave = write_wav(tmp_path / "sound.wav", rng.uniform(-0.5, 0.5, cfg.samples))
        compare_file(client, public, cfg, wave)
        ids = rng.integers(2, 512, (3, 16))
        want = public.text(torch.from_numpy(ids))["coarse"]
        check_served(client.embed_texts(words_of(ids)), want, "text")


def test_a_real_file_over_http(made_up: tuple, serve) -> None:
    """Several clips of a compressed file with sound, decoded by the server and by ffmpeg here."""
    public, cfg, bundle = made_up
    path = max(SAMPLES.glob("*.mp4"), key=lambda p: p.stat().st_size)
    with serve(bundle, SAMPLES) as client:
        assert compare_file(client, public, cfg, path) > 2


def test_a_boxed_film_and_picture_over_http(made_up: tuple, serve, tmp_path: Path) -> None:
    """A bundle that crops black bars, by the trainer's rule and by the server's."""
    public, cfg, bundle = made_up
    cfg, cropping = replace(cfg, bars="crop"), tmp_path / "bundle"
    shutil.copytree(bundle, cropping)
    choose_bars(cropping, "crop")
    rng = np.random.default_rng(4)
    shape, bar = (cfg.frames, cfg.resize, 2 * cfg.resize, 3), cfg.resize // 3
    boxed = np.pad(rng.integers(40, 256, shape, np.uint8), [(0, 0), (bar, bar), (0, 0), (0, 0)])
    media = tmp_path / "media"
    media.mkdir()
    path = write_clip(media / "boxed.mkv", boxed, cfg.fps)
    (kept,), (cropped,) = (clips_of(path, replace(cfg, bars=bars)) for bars in ("keep", "crop"))
    assert not np.array_equal(kept.frames, cropped.frames)
    still = preprocess(without_bars(boxed[:1], 1), cfg.resize, cfg.crop)
    want = public.video(inflate(torch.from_numpy(still).double() / 255, cfg.frames))
    picture = write_png(media / "boxed.png", boxed[0])
    with serve(cropping, media) as client:
        compare_file(client, public, cfg, path)
        for space in ("fine", "coarse"):
            check_served(client.embed_file("image", picture, space), want[space], "image")


def test_sound_behind_the_pictures_over_http(made_up: tuple, serve, tmp_path: Path) -> None:
    """A film that is brief, and sound that goes on: both cut the rest into clips of sound."""
    public, cfg, bundle = made_up
    window_secs = cfg.frames / cfg.fps
    rng = np.random.default_rng(4)
    sound = rng.uniform(-0.5, 0.5, int(3.4 * cfg.samples)).astype(np.float32)
    write_wav(tmp_path / "talk.wav", sound)
    path = tmp_path / "brief.mkv"
    picture = f"testsrc2=size=96x80:rate=25:duration={window_secs / 2}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", picture]
    command += ["-i", str(tmp_path / "talk.wav"), "-c:v", "ffv1", "-c:a", "pcm_s16le", str(path)]
    subprocess.run(command, check=True)
    assert [c.frames is None for c in clips_of(path, cfg)] == [False, True, True, True]
    with serve(bundle, tmp_path) as client:
        assert compare_file(client, public, cfg, path) == 4


def compare_file(client: Client, public: PublicMmv, cfg: ModelConfig, path: Path) -> int:
    """Every clip of both tracks in both spaces; how many there are."""
    clips = clips_of(path, cfg)
    wanted = {
        "video": [
            public.video(torch.from_numpy(c.frames)[None].double() / 255)
            for c in clips
            if c.frames is not None
        ],
        "audio": [public.audio(log_mel(c.pcm)) for c in clips if c.pcm is not None],
    }
    for track, vectors in wanted.items():
        for space in ("fine", "coarse") if vectors else ():
            want = torch.cat([v[space] for v in vectors])
            check_served(client.embed_file(track, path, space), want, f"{path.name} {track}")
    return len(clips)
