"""Where the official golden vectors are; tests that need them say so when they are absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
