"""`triptych-trainer`: train, evaluate, export, samples, serve-eval."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro


def train(
    config: Literal["small-world", "tiny"] = "small-world",
    out: Path = Path("runs/small-world"),
    seed: int | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    lr: float | None = None,
    threads: int | None = None,
    workers: int | None = None,
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Trains a model; leaves checkpoint.pt and log.jsonl in OUT.

    Args:
        config: the preset to start from; the other options change single values of it.
        resume: go on from OUT's checkpoint, if there is one.
        tensorboard: write TensorBoard events to OUT too.
    """
    from .config import PRESETS
    from .train import train as run

    changes = {
        "seed": seed,
        "batch_size": batch_size,
        "steps": steps,
        "lr": lr,
        "threads": threads,
        "workers": workers,
    }
    cfg = replace(PRESETS[config], **{k: v for k, v in changes.items() if v is not None})
    run(cfg, out, resume=resume, tensorboard=tensorboard)


def export(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("../models/small-world"),
    evaluation: Path | None = None,
) -> None:
    """Writes the bundle's ONNX towers, tokenizer, goldens and manifest, proved against PyTorch.

    Args:
        evaluation: what `evaluate` wrote; it goes into the manifest.
    """
    from .export import export_bundle, training_record
    from .train import load_checkpoint

    cfg, model, state = load_checkpoint(checkpoint)
    measured = json.loads(evaluation.read_text()) if evaluation else {}
    training = training_record(cfg, state["step"])
    errors = export_bundle(model, out, cfg.name, training, measured)
    for key, error in errors.items():
        print(f"{key}: largest 1 - cosine against PyTorch {error:.1e}")


def samples(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("../models/small-world/samples"),
) -> None:
    """Writes the bundle's sample clips and what PyTorch gives for every clip of them.

    Args:
        out: emptied first.
    """
    from .samples import write_samples
    from .train import load_checkpoint

    _, model, _ = load_checkpoint(checkpoint)
    write_samples(model, out)


def evaluate(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("runs/small-world/evaluation.json"),
    sets: int = 4,
    clips: int = 500,
    through_files: bool = False,
    controls: bool = True,
    threads: int = 2,
) -> None:
    """Measures retrieval and attribute recognition on held-out worlds in PyTorch.

    Args:
        through_files: write every clip as an MP4 and decode it again.
        controls: measure an untrained model and shuffled pairs too.
    """
    import torch

    from .evaluate import evaluate as run
    from .train import load_checkpoint

    torch.set_num_threads(threads)
    cfg, model, state = load_checkpoint(checkpoint)
    record = run(cfg, model, sets, clips, through_files=through_files, controls=controls)
    record["steps_done"] = state["step"]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")


COMMANDS = {"train": train, "evaluate": evaluate, "export": export, "samples": samples}


def main() -> None:
    tyro.extras.subcommand_cli_from_dict(COMMANDS)


if __name__ == "__main__":
    main()
