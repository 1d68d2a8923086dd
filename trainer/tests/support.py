"""What several tests share: the tolerance of the golden vectors, and models that carry them."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from triptych_trainer.config import TINY, ModelConfig
from triptych_trainer.deflate import Deflated
from triptych_trainer.importer.commands import sizes
from triptych_trainer.models.haiku_names import state_dict_from_haiku
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.train import Log

RELATIVE = 2e-4
ONE_MINUS_COSINE = 1e-8
CASES = [("s3d", "small"), ("s3d", "odd"), ("tsm-resnet50", "small")]
WIDTHS = {"s3d": 1.0, "tsm-resnet50": 1.0, "tsm-resnet50x2": 2.0}

SMALL = sizes(frames=8, fps=2.5, resize=64, crop=64)
"""The window of the small golden clips."""
WORDS = ["<pad>", "<unk>", "a", "dog", "guitar", "river", "dont"]
WORDS += [f"word{i}" for i in range(len(WORDS), 512)]


def check(got, want, name: str, *, cosine: bool = True) -> None:
    got64 = np.asarray(got.detach() if isinstance(got, torch.Tensor) else got, np.float64)
    want64 = np.asarray(want, np.float64)
    assert got64.shape == want64.shape, name
    relative = np.abs(got64 - want64).max() / np.abs(want64).max()
    assert relative <= RELATIVE, f"{name}: relative {relative:.2e}"
    if cosine:
        dots = (got64 * want64).sum(-1)
        dots /= np.linalg.norm(got64, axis=-1) * np.linalg.norm(want64, axis=-1)
        assert (1 - dots).max() <= ONE_MINUS_COSINE, f"{name}: 1-cos {(1 - dots).max():.2e}"


def golden_lib(goldens: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("goldens_lib", goldens.parent / "goldens_lib.py")
    lib = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lib)
    return lib


def kind_config(kind: str, **more) -> ModelConfig:
    backbone = "s3d" if kind == "s3d" else "tsm"
    return ModelConfig(backbone=backbone, video_width=WIDTHS[kind], **more)


def golden_params(goldens: Path, kind: str, *, rgb_stem: bool = False) -> dict:
    lib = golden_lib(goldens)
    listing = lib.read_list(goldens.parent / f"params_{kind}.txt")
    return lib.make_params("mmv-golden-v1", listing, vocab=512, rgb_stem=rgb_stem)


def golden_model(goldens: Path, kind: str) -> Mmv:
    stored = np.load(goldens / kind / "bn_state.npz")
    average = {key.rsplit("|", 1)[0]: stored[key] for key in stored.files}
    model = Mmv(kind_config(kind, vocab_size=512))
    model.load_state_dict(state_dict_from_haiku(model, golden_params(goldens, kind), average))
    return model.eval()


def random_statistics(model: torch.nn.Module, seed: int = 0) -> None:
    """BatchNorms that do something, so that a wrong order of operations shows."""
    from triptych_trainer.models.norm import BatchNorm

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(0.0, 0.2, generator=generator)
                module.running_var.uniform_(0.7, 1.4, generator=generator)
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0.0, 0.2, generator=generator)


def tiny(seed: int = 0, **more) -> Mmv:
    torch.manual_seed(seed)
    model = Mmv(ModelConfig(**(TINY.to_dict() | more)))
    random_statistics(model)
    return model.eval()


def tiny_deflated(model: Mmv) -> Deflated:
    """As if it had learnt: neither the naive nor the inflated network."""
    deflated = Deflated(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in deflated.learnt().values():
            value.mul_(1 + 0.2 * torch.randn(value.shape, generator=generator))
    return deflated


@contextmanager
def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training inside ends at this step as Ctrl-C would end it."""
    whole = Log.step

    def stops(self: Log, number: int, *rest: object) -> None:
        if number == step:
            raise KeyboardInterrupt
        whole(self, number, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "step", stops)
        yield
