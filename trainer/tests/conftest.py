"""Where the official golden vectors are; tests that need them say so when they are absent."""

import os
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
    torch.set_num_threads(2)
