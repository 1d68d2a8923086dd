"""The published networks at their full width, at 200 pixels and at an odd size, in every form:
PyTorch, ONNX Runtime and a real server against the restatement in f64. `make test-full`; prints the
agreement table of docs/measurements/models.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from public_mmv import PublicMmv
from serving import check_served, unit, write_clip
from support import ONE_MINUS_COSINE, RELATIVE, WIDTHS

from triptych_trainer.config import ModelConfig
from triptych_trainer.export import write_onnx
from triptych_trainer.importer import deepmind
from triptych_trainer.importer.commands import import_deepmind, sizes
from triptych_trainer.models.folding import folded
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.towers import tower_of

pytestmark = pytest.mark.full
WINDOW = sizes(frames=8, fps=2.5, resize=200, crop=200)
ODD = (6, 74, 58)
SPACES = ("fine", "coarse")


@dataclass
class Case:
    kind: str
    public: PublicMmv
    model: Mmv
    cfg: ModelConfig
    bundle: Path


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple]]:
    rows: list[tuple] = []
    yield rows
    print("\n| backbone | form | case | largest relative error | largest 1 - cosine |")
    print("|---|---|---|---|---|")
    for kind, form, case, relative, off in rows:
        print(f"| {kind} | {form} | {case} | {relative:.1e} | {off:.1e} |")


@pytest.fixture(scope="module", params=list(WIDTHS))
def case(request, word_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, folder = request.param, tmp_path_factory.mktemp("full")
    backbone = "s3d" if kind == "s3d" else "tsm"
    public = PublicMmv(backbone, width=WIDTHS[kind])
    path = public.write(folder / f"{kind}.pkl")
    options = {"vocab": word_file, "audio_log": "log1p10000", "say": lambda _: None}
    import_deepmind(path, folder / kind, WINDOW, **options)
    checkpoint = deepmind.read_checkpoint(path)
    cfg = deepmind.config_of(checkpoint, WINDOW)
    return Case(kind, public, deepmind.build_model(checkpoint, cfg), cfg, folder / kind)


def compare(got: dict, want: dict, spaces: tuple = SPACES) -> tuple[float, float]:
    """(largest relative error, largest 1 - cosine), within the bar."""
    relative, off = 0.0, 0.0
    for space in spaces:
        a, b = np.asarray(got[space], np.float64), want[space].numpy()
        relative = max(relative, np.abs(a - b).max() / np.abs(b).max())
        off = max(off, (1 - (unit(a) * unit(b)).sum(axis=1)).max())
    assert relative <= RELATIVE and off <= ONE_MINUS_COSINE, (relative, off)
    return relative, off


def run_onnx(path: Path, frames: np.ndarray) -> dict:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip(SPACES, session.run(list(SPACES), {"frames": frames}), strict=True))


def clips(shape: tuple, count: int = 1) -> np.ndarray:
    return np.random.default_rng(11).integers(0, 256, (count, *shape, 3), np.uint8)


def test_video(case: Case, table: list, serve, tmp_path: Path) -> None:
    for name, shape in [("8x200x200", (8, 200, 200)), ("6x74x58", ODD)]:
        frames = clips(shape)
        want = case.public.video(torch.from_numpy(frames).double() / 255)
        for form in ("2d", "3d"):
            case.model.video_backbone.form = form
            with torch.no_grad():
                got = case.model.embed_video(torch.from_numpy(frames))
            table.append((case.kind, f"PyTorch {form}", name, *compare(got, want)))
            path = case.bundle / "video.onnx"
            if (form, name) != ("2d", "8x200x200"):
                lean, path = folded(case.model), tmp_path / f"{form}.onnx"
                lean.video_backbone.form = form
                write_onnx(tower_of("video", "fac"), lean, np.repeat(frames, 2, 0), path)
            got = run_onnx(path, frames)
            table.append((case.kind, f"ONNX {form}", name, *compare(got, want)))
        if name == "8x200x200":
            path = write_clip(tmp_path / "clip.mkv", frames[0], WINDOW.fps)
            with serve(case.bundle, tmp_path) as client:
                for space in SPACES:
                    errors = check_served(
                        client.embed_file("video", path, space), want[space], space
                    )
                    table.append((case.kind, f"HTTP {space}", name, *errors))


def test_audio_and_text(case: Case, table: list) -> None:
    rng = np.random.default_rng(5)
    logmel = torch.from_numpy(rng.uniform(0, 8, (1, 150, 80, 1)).astype(np.float32))
    ids = torch.from_numpy(rng.integers(0, 512, (4, 16)))
    with torch.no_grad():
        audio, text = case.model.embed_audio_logmel(logmel), case.model.embed_text(ids)
    table.append((case.kind, "PyTorch", "audio 150x80", *compare(audio, case.public.audio(logmel))))
    errors = compare(text, case.public.text(ids), ("coarse",))
    table.append((case.kind, "PyTorch", "text", *errors))
