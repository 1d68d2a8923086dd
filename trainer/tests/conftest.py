"""Where the official golden vectors and the server are; tests that need them say so when they are
absent."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hub import Hub, running_hub
from pulling import PE, Shell, publish
from support import SMALL, WORDS, tiny, tiny_deflated

from triptych_trainer.deflate import Deflated
from triptych_trainer.export import export_bundle
from triptych_trainer.importer.commands import import_deepmind
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.server import Client, running_server

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TRIPTYCH_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="session")
def goldens() -> Path:
    folder = SHARED / "mmv" / "goldens"
    if not folder.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no golden vectors at {folder}; set TRIPTYCH_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(int(os.environ.get("TRIPTYCH_TEST_THREADS", "2")))


@pytest.fixture(scope="session")
def public_checkpoint(goldens: Path, tmp_path_factory: pytest.TempPathFactory):
    """Path of a checkpoint in the published format, made once per kind: mappings plain for S3D,
    haiku's own class for TSM."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            path = tmp_path_factory.mktemp("checkpoint") / f"{kind}.pkl"
            command = [sys.executable, str(goldens / "make_checkpoint.py"), kind, str(path)]
            subprocess.run(
                command + ["frozendict"] * (kind != "s3d"), check=True, capture_output=True
            )
            made[kind] = path
        return made[kind]

    return make


@pytest.fixture(scope="session")
def word_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 words for the tables of the checkpoints made here."""
    path = tmp_path_factory.mktemp("vocab") / "words.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


@pytest.fixture(scope="session")
def golden_bundle(public_checkpoint, word_file: Path, tmp_path_factory: pytest.TempPathFactory):
    """Folder of an imported checkpoint, made once per kind: pickle in, served files out."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            out = tmp_path_factory.mktemp("bundle") / kind
            options = {"vocab": word_file, "audio_log": "log1p10000", "say": lambda _: None}
            import_deepmind(public_checkpoint(kind), out, SMALL, **options)
            made[kind] = out
        return made[kind]

    return make


@pytest.fixture(scope="session")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mmv, Deflated]:
    """Disjoint spaces, an image tower, int8 video and fp16 audio in one bundle."""
    out = tmp_path_factory.mktemp("reduced")
    model = tiny(spaces="disjoint", backbone="tsm")
    image = tiny_deflated(model)
    precision = {"video": "int8", "audio": "fp16"}
    export_bundle(model, out, "reduced", {}, {"r@10": 0.5}, image=image, precision=precision)
    return out, model, image


@pytest.fixture(scope="session")
def server_binary() -> Path:
    """`TRIPTYCH_BIN`, from the root of the repository as `make` gives it."""
    named = os.environ.get("TRIPTYCH_BIN")
    path = (ROOT / (named or "target/debug/triptych")).resolve()
    if not path.is_file():
        if named:
            pytest.fail(f"TRIPTYCH_BIN: there is no {path}")
        pytest.skip(f"SKIPPED LOUDLY: no server at {path}; build it, or set TRIPTYCH_BIN")
    os.environ.setdefault("TRIPTYCH_NATIVE_DIR", str(ROOT / ".triptych/native"))
    return path


@pytest.fixture(scope="session")
def serve(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Client]]:
    """Starts a server of a bundle; `root` is the folder whose files it may read."""

    def start(bundle: Path, root: Path, *options: str) -> AbstractContextManager[Client]:
        data = tmp_path_factory.mktemp("data")
        return running_server(server_binary, bundle, data, root, *options, start_secs=180)

    return start


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def shell(hub: Hub, tmp_path: Path) -> Shell:
    return Shell(hub, tmp_path)


@pytest.fixture
def published(hub: Hub, tmp_path: Path) -> Path:
    """The folder that the hub serves as PE-AV small."""
    hub.folders[PE] = publish(tmp_path / "published")
    return hub.folders[PE]
