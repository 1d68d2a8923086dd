"""The training commands: `train`, and those that prepare and measure real data."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..config import TrainConfig, load_config


def train_command(base: TrainConfig) -> Callable:
    """`train` with the settings of `base` as the defaults of its options."""

    def train(
        config: str = "small-world",
        out: Path = Path("runs") / base.name,
        resume: bool = False,
        tensorboard: bool = False,
        initial: Path | None = None,
        settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = base,
    ) -> None:
        """Trains a model and writes checkpoint.pt and log.jsonl to OUT. Under torchrun, on all
        GPUs.

        Args:
            config: small-world, small-world-pictures, small-world-joint, tiny, mmv-s3d, mmv-tsm50,
                mmv-tsm50x2, ablation-shared, ablation-disjoint, ablation-fac, ablation-va,
                ablation-vt, ablation-vat, or a TOML file; every other option changes one value.
            resume: go on from OUT's checkpoint, if there is one.
            tensorboard: write TensorBoard events to OUT too.
            initial: a checkpoint of the same towers whose weights to start from.
        """
        from ..train import train as run

        run(settings, out, resume=resume, tensorboard=tensorboard, initial=initial)

    return train


def named_config(arguments: Sequence[str]) -> TrainConfig:
    """The configuration that `--config` names: it has to be known before the options are."""
    name = "small-world"
    for n, argument in enumerate(arguments):
        if argument == "--config" and n + 1 < len(arguments):
            name = arguments[n + 1]
        elif argument.startswith("--config="):
            name = argument.partition("=")[2]
    return load_config(name)


def vocabulary(
    config: str,
    out: Path = Path("words.txt"),
    limit: int = 65_534,
    least: int = 5,
    word2vec: Path | None = None,
) -> None:
    """Makes the word list of a configuration's captions, without stop words.

    Args:
        config: the TOML file whose data.sources have the captions.
        limit: the most words; the word table has two more rows.
        least: leave out words that stand there less often.
        word2vec: vectors (.bin, or text with a word and its numbers a line). Words without one are
            left out, and the table goes to OUT with the suffix .npy.
    """
    from ..data.vocabulary import make_vocabulary

    make_vocabulary(load_config(config), out, limit, least, word2vec)


def bench_data(
    config: str, batches: int = 4, batch_size: int | None = None, workers: int | None = None
) -> None:
    """Measures only the loading of real files: clips per second and CPU seconds per clip.

    Args:
        config: the TOML file.
        batches: how many to make.
        batch_size: in place of the configuration's.
        workers: in place of the configuration's.
    """
    from ..data.bench import data_cost

    cfg = load_config(config)
    given = {"batch_size": batch_size, "workers": workers}
    cfg = replace(cfg, **{name: value for name, value in given.items() if value is not None})
    print(json.dumps(data_cost(cfg, batches).to_dict()))


def bench_train(
    config: str = "small-world", batch_size: int | None = None, steps: int = 20
) -> None:
    """Measures training steps on noise, independent of data loading: clips per second, memory, and
    the share of the device's bf16 rate.

    Args:
        config: a preset or a TOML file.
        batch_size: in place of the configuration's.
        steps: how many to time, three more going before.
    """
    from ..bench_train import training_cost

    cfg = load_config(config)
    cfg = cfg if batch_size is None else replace(cfg, batch_size=batch_size)
    print(json.dumps(training_cost(cfg, steps).to_dict()))


def bench_towers(
    folder: Path = Path("runs/towers"),
    towers: tuple[str, ...] = ("s3d", "tsm50", "audio"),
    engines: tuple[str, ...] = ("onnxruntime", "eager", "eager-channels-last", "compile"),
    batches: tuple[int, ...] = (1, 8, 32),
    device: Literal["cuda", "cpu"] = "cuda",
    prepare_only: bool = False,
) -> None:
    """Measures the paper's towers, random weights, in ONNX Runtime beside PyTorch: clips per second
    in f32 and fp16, 2D and 3D form. CUDA needs the package onnxruntime-gpu instead of onnxruntime.

    Args:
        folder: where the networks, their graphs and the records (towers.jsonl) are kept.
        engines: also `onnxruntime-nhwc`, which asks the CUDA provider for channels-last kernels.
        prepare_only: write the graphs and stop.
    """
    from ..bench_towers import cases, measure, prepare, table

    prepare(folder, towers)
    if prepare_only:
        return
    records = []
    with (folder / "towers.jsonl").open("w") as file:
        for record in measure(folder, cases(towers, engines), batches, device):
            records.append(record)
            print(json.dumps(record), flush=True)
            file.write(json.dumps(record) + "\n")
            file.flush()
    print(f"\n{table(records)}")


def ablation(
    out: Path = Path("runs/ablation"),
    seeds: tuple[int, ...] = (1, 2, 3),
    steps: int | None = None,
    clips: int = 500,
    learn_clips: int = 1500,
) -> None:
    """Trains two and three modalities and the three head graphs alike on the small world, and
    measures them as in the paper's table 1. Resumes where it stopped.

    Args:
        seeds: one training of every variant each.
        steps: in place of the presets'.
        clips: held-out clips in each of the two test sets.
        learn_clips: clips that the linear classifiers learn from.
    """
    from ..world.ablation import run, table

    record = run(out, seeds, steps, clips, learn_clips)
    print(f"\n{table(record)}")


COMMANDS = {
    "train": train_command(TrainConfig()),
    "ablation": ablation,
    "vocabulary": vocabulary,
    "bench-data": bench_data,
    "bench-towers": bench_towers,
    "bench-train": bench_train,
}
