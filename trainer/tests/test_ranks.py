"""Two ranks give the loss, the gradients and the running statistics of one with both batches."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from triptych_trainer.config import TINY, ModelConfig, TrainConfig
from triptych_trainer.losses import mil_nce_loss
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.models.norm import BatchNorm, use_sync_batch_norm
from triptych_trainer.train import losses_of

RANKS, BATCH, CANDIDATES = 2, 6, 3


def config(spaces: str, form: str) -> TrainConfig:
    fields = TINY.to_dict() | {"spaces": spaces, "frames": 4, "fps": 2.5, "samples": 76_800}
    weights = {"weight_video_audio": 10.0, "weight_video_text": 1.0}
    return TrainConfig(model=ModelConfig(**fields), loss_form=form, **weights)


def batch_of() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "frames": torch.rand(BATCH, 4, 32, 32, 3, dtype=torch.float64),
        "logmel": torch.rand(BATCH, 30, 80, 1, dtype=torch.float64),
        "token_ids": torch.randint(0, 128, (BATCH, CANDIDATES, 16)),
        # Unequal shares of clips without text: a mean of means would be wrong.
        "text_mask": torch.tensor([1.0, 0, 0, 1, 1, 1], dtype=torch.float64),
    }


def one_step(cfg: TrainConfig, batch: dict, *, sync: bool) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = use_sync_batch_norm(Mmv(cfg.model).double().train(), sync)
    loss = losses_of(model, batch, cfg)["loss"]
    loss.backward()
    return model, loss.detach()


def run_rank(number: int, port: int, folder: str, spaces: str, form: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=number, world_size=RANKS)
    share = BATCH // RANKS
    mine = {k: v[number * share : (number + 1) * share] for k, v in batch_of().items()}
    model, loss = one_step(config(spaces, form), mine, sync=True)
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            # What DistributedDataParallel does.
            dist.all_reduce(parameter.grad)
            gradients[name] = parameter.grad / RANKS
    dist.all_reduce(loss)
    statistics = {k: v for k, v in model.state_dict().items() if "running" in k}
    torch.save((loss / RANKS, gradients, statistics), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(("spaces", "form"), [("fac", "asymmetric"), ("disjoint", "symmetric")])
def test_two_ranks_are_one(tmp_path: Path, spaces: str, form: str) -> None:
    args = (free_port(), str(tmp_path), spaces, form)
    mp.start_processes(run_rank, args, nprocs=RANKS, start_method="spawn")
    cfg = config(spaces, form)
    model, loss = one_step(cfg, batch_of(), sync=False)
    want = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for number in range(RANKS):
        got_loss, got, statistics = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert got_loss.item() == pytest.approx(loss.item(), rel=1e-10)
        assert got.keys() == want.keys()
        largest = max(g.abs().max() for g in want.values())
        for name, gradient in want.items():
            assert (got[name] - gradient).abs().max() <= 1e-9 * largest, name
        for name, value in statistics.items():
            assert torch.allclose(value, model.state_dict()[name], rtol=1e-10), name


def test_batch_norm_without_ranks_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm3d(5).double()
    x = torch.randn(3, 5, 2, 4, 4, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x))
    # The first batch stands alone, with its biased variance.
    assert torch.allclose(ours.running_mean, x.mean(dim=(0, 2, 3, 4)))
    assert torch.allclose(ours.running_var, x.var(dim=(0, 2, 3, 4), correction=0))
    ours.eval(), theirs.eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(x), theirs(x))


def test_moving_averages_are_debiased() -> None:
    """hidden <- 0.9 hidden + 0.1 x from 0; average = hidden / (1 - 0.9^n), as haiku keeps them."""
    torch.manual_seed(0)
    norm, hidden = BatchNorm(3).double(), torch.zeros(3, dtype=torch.float64)
    for n in range(1, 8):
        x = torch.randn(20, 3, dtype=torch.float64) + n
        norm(x)
        hidden = 0.9 * hidden + 0.1 * x.mean(0)
        assert torch.allclose(norm.running_mean, hidden / (1 - 0.9**n))


def test_loss_weights_and_forms_are_checked() -> None:
    with pytest.raises(ValueError, match="form"):
        mil_nce_loss(torch.rand(2, 4), torch.rand(2, 1, 4), form="other")
