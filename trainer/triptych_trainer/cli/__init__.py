"""`triptych-trainer`: train, evaluate, export, deflate, and import public checkpoints."""

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import tyro

from ..config import TrainConfig
from ..errors import TrainerError, sentence
from ..reading import read_json
from . import hf, protocols, pull, train

if TYPE_CHECKING:
    from ..deflate import Deflated
    from ..models.mmv import Mmv

Precision = Literal["f32", "fp16", "int8"]


def export(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("../models/small-world"),
    evaluation: Path | None = None,
    deflated: Path | None = None,
    deflation: Path | None = None,
    video_precision: Precision = "f32",
    audio_precision: Precision = "f32",
    f16_weights: bool = False,
) -> None:
    """Writes the bundle's ONNX towers, tokenizer, goldens and manifest, verified against PyTorch.

    Args:
        evaluation: what `evaluate` wrote; it goes into the manifest.
        deflated: what `deflate` wrote: pictures get a tower of their own, image.onnx.
        deflation: what `evaluate-deflation` wrote; it goes into the manifest.
        f16_weights: round the weights to f16 and keep them so in the files, in half the bytes;
            everything is still computed in f32.
    """
    from ..data.export import export_trained
    from ..export import export_bundle, training_record
    from ..models.folding import in_f16_values
    from ..train import load_checkpoint

    cfg, model, state = load_checkpoint(checkpoint)
    measured = read_json(evaluation, "what `evaluate` wrote") if evaluation else {}
    if deflation:
        measured["deflation"] = read_json(deflation, "what `evaluate-deflation` wrote")
    training = training_record(cfg, state["step"], state.get("before"))
    precision = {"video": video_precision, "image": video_precision, "audio": audio_precision}
    image = _load_deflated(model, deflated) if deflated else None
    if f16_weights:
        model, image = in_f16_values(model), image and in_f16_values(image)
    more = {"image": image, "precision": precision, "f16_weights": f16_weights}
    if cfg.data.sources:
        errors = export_trained(model, out, cfg, state["words"], training, measured, **more)
    else:
        errors = export_bundle(model, out, cfg.name, training, measured, **more)
    _report(errors)


def deflate(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("runs/small-world/deflated.pt"),
    images: tuple[Path, ...] = (),
    steps: int = 600,
    batch_size: int = 32,
    lr: float = 2e-3,
    threads: int = 2,
) -> None:
    """Trains the scales and offsets of the image network so that its output for a picture matches
    that of the video network for the repeated picture.

    Args:
        images: pictures or videos to learn from; without any, frames of the small world.
    """
    import torch

    from ..deflate import Deflated, Relearning, relearn
    from ..deflate_data import file_images, world_images
    from ..train import load_checkpoint

    torch.set_num_threads(threads)
    cfg, model, _ = load_checkpoint(checkpoint)
    if not images:
        _small_world(cfg, "name pictures or videos with --images")
    network = Deflated(model)
    batches = (
        file_images(list(images), model.cfg, batch_size)
        if images
        else world_images(model.cfg, batch_size)
    )
    relearn(model, network, batches, Relearning(steps, batch_size, lr))
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.learnt(), out)


def evaluate_deflation(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    deflated: Path = Path("runs/small-world/deflated.pt"),
    out: Path = Path("runs/small-world/deflation.json"),
    clips: int = 500,
    threads: int = 2,
) -> None:
    """Compares naive, deflated and inflated networks on held-out worlds, as in the paper's table
    3."""
    import torch

    from ..deflate_data import evaluate_deflation as run
    from ..deflate_data import table
    from ..train import load_checkpoint

    torch.set_num_threads(threads)
    cfg, model, _ = load_checkpoint(checkpoint)
    _small_world(cfg, "measure it with eval-voc07 or eval-imagenet")
    report = run(model, _load_deflated(model, deflated), clips)
    print(table(report))
    out.write_text(json.dumps(report, indent=2) + "\n")


def _load_deflated(model: "Mmv", path: Path) -> "Deflated":
    from ..deflate import Deflated

    return Deflated(model).load_file(path)


def samples(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("../models/small-world/samples"),
    f16_weights: bool = False,
) -> None:
    """Writes the bundle's sample clips, with PyTorch's output for each of their clips.

    Args:
        out: emptied first.
        f16_weights: vectors of the weights that `export` rounds to f16.
    """
    from ..models.folding import in_f16_values
    from ..train import load_checkpoint
    from ..world.samples import write_samples

    cfg, model, _ = load_checkpoint(checkpoint)
    _small_world(cfg, "its bundle has no samples")
    write_samples(in_f16_values(model) if f16_weights else model, out)


def _small_world(cfg: TrainConfig, instead: str) -> None:
    """Stops where a model that knows other data would be asked about the small world."""
    if cfg.data.sources:
        raise TrainerError(
            f"this command is for models of the small world, not for {cfg.name}: {instead}"
        )


def evaluate(
    checkpoint: Path = Path("runs/small-world/checkpoint.pt"),
    out: Path = Path("runs/small-world/evaluation.json"),
    sets: int = 4,
    clips: int = 500,
    through_files: bool = False,
    controls: bool = True,
    deflated: Path | None = None,
    bundle: Path | None = None,
    threads: int = 2,
) -> None:
    """Measures retrieval and attribute recognition on held-out worlds in PyTorch, or a bundle's own
    graphs.

    Args:
        bundle: measure this bundle of the small world in the checkpoint's place; the record goes
            into its manifest too.
        through_files: write every clip as an MP4 and decode it again.
        controls: measure an untrained model and shuffled pairs too.
        deflated: what `deflate` wrote; naive, deflated and inflated pictures side by side.
    """
    import torch

    from ..train import load_checkpoint
    from ..world.evaluate import evaluate as run

    torch.set_num_threads(threads)
    if bundle:
        from ..config import SMALL
        from ..from_bundle import Served, replace_evaluation

        options = {"through_files": through_files, "controls": controls}
        record = run(SMALL, Served(bundle), sets, clips, **options)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=2) + "\n")
        replace_evaluation(bundle, record)
        return
    cfg, model, state = load_checkpoint(checkpoint)
    _small_world(cfg, "measure it with the eval- commands")
    # Before the work of minutes: the file may be a wrong one.
    image = _load_deflated(model, deflated) if deflated else None
    record = run(cfg, model, sets, clips, through_files=through_files, controls=controls)
    record["steps_done"] = state["step"]
    if image:
        from ..deflate_data import evaluate_deflation as run_deflation

        record["deflation"] = run_deflation(model, image, clips)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")


def harden(
    bundle: tyro.conf.Positional[Path],
    steps: int = 450,
    batch_size: int = 32,
    lr: float = 1e-3,
    threads: int = 1,
    workers: int = 1,
) -> None:
    """Trains a bundle of the small world, in place, to recognise a sound at any level and in noise.
    Pictures and texts keep their vectors. Its ModelId changes, so libraries must be indexed again.

    Args:
        workers: processes that make sounds beside the one that learns.
    """
    import torch

    from ..from_bundle import replace_sound, small_world_network
    from ..harden import Hardening, record
    from ..harden import harden as run

    torch.set_num_threads(threads)
    model, how = small_world_network(bundle), Hardening(steps, batch_size, lr)
    losses = run(model, how, workers)
    replace_sound(bundle, model, record(how) | {"one_minus_cosine": sum(losses[-50:]) / 50})


def bars(
    bundle: tyro.conf.Positional[Path], choice: tyro.conf.Positional[Literal["crop", "keep"]]
) -> None:
    """Sets whether a bundle crops black bars around pictures or keeps them. Its ModelId changes,
    so libraries must be indexed again."""
    from ..manifest import choose_bars

    choose_bars(bundle, choice)


def serve_eval(
    bin: Path = Path("../target/release/triptych"),
    model: Path = Path("../models/small-world"),
    out: Path = Path("runs/served.json"),
    sets: int = 4,
    clips: int = 500,
    first_set: int = 0,
    bars: Literal["none", "letterbox", "pillarbox", "windowbox"] = "none",
) -> None:
    """Measures the same through a real server that indexes MP4 files and answers searches.

    Args:
        bin: the server's program.
        first_set: number of the first held-out set.
        bars: black bars around the picture of every clip.
    """
    from ..world.serve_eval import serve_eval as run

    record = run(bin.resolve(), model.resolve(), sets, clips, first_set, bars)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")


def import_deepmind(
    checkpoint: tyro.conf.Positional[Path],
    out: Path,
    name: str | None = None,
    vocab: Path | None = None,
    savedmodel: Path | None = None,
    vocab_offset: int | None = None,
    audio_log: Literal["auto", "log1p10000", "eps1e-6"] = "auto",
    probe_audio: tuple[Path, ...] = (),
    frames: int = 32,
    fps: float = 10.0,
    resize: int = 224,
    crop: int = 200,
    video_precision: Precision = "f32",
    audio_precision: Precision = "f32",
    images: tuple[Path, ...] = (),
    image_steps: int = 600,
    form: Literal["auto", "2d", "3d"] = "auto",
    threads: int = 2,
) -> None:
    """Makes a bundle of a published MMV checkpoint (mmv_s3d.pkl, mmv_tsm_resnet_x1.pkl or _x2.pkl).

    The file is read without executing it.

    Args:
        name: the bundle's name; default: the last part of OUT.
        vocab: the word list, one word per row of the word table.
        savedmodel: folder of a downloaded TF-Hub model, whose assets have the word list.
        vocab_offset: row of the list's first word, where the list has fewer words than the table.
        audio_log: the logarithm of the audio front end; `auto` compares both with the statistics
            in the checkpoint.
        probe_audio: recordings for that comparison; without any, generated sound.
        images: pictures or videos to learn an image network from (image.onnx); without any, a
            picture is repeated and goes through the video tower.
        form: how the graph of an S3D is written; `auto` is 3d in fp16, 2d otherwise.
    """
    import torch

    from ..importer.commands import import_deepmind as run
    from ..importer.commands import sizes

    torch.set_num_threads(threads)
    errors = run(
        checkpoint,
        out,
        sizes(frames, fps, resize, crop),
        name=name,
        vocab=vocab,
        saved_model=savedmodel,
        vocab_offset=vocab_offset,
        audio_log=audio_log,
        probe_audio=list(probe_audio),
        precision={
            "video": video_precision,
            "image": video_precision,
            "audio": audio_precision,
        },
        form=form,
        images=list(images),
        image_steps=image_steps,
    )
    _report(errors)


def import_milnce(
    weights: tyro.conf.Positional[Path],
    dictionary: Path,
    out: Path,
    name: str | None = None,
    license: str | None = None,
    frames: int = 32,
    fps: float = 10.0,
    resize: int = 224,
    crop: int = 224,
    video_precision: Precision = "f32",
    images: tuple[Path, ...] = (),
    image_steps: int = 600,
    threads: int = 2,
) -> None:
    """Makes a text-video bundle of the public PyTorch S3D trained on HowTo100M with MIL-NCE.

    Args:
        weights: s3d_howto100m.pth; only tensors are read from it.
        dictionary: s3d_dict.npy.
        license: what the manifest says of the weights; their file does not state one.
        images: pictures or videos to learn an image network from.
    """
    import torch

    from ..importer.commands import import_milnce as run
    from ..importer.commands import sizes

    torch.set_num_threads(threads)
    errors = run(
        weights,
        dictionary,
        out,
        sizes(frames, fps, resize, crop),
        name=name,
        license=license,
        precision={"video": video_precision, "image": video_precision},
        images=list(images),
        image_steps=image_steps,
    )
    _report(errors)


def _report(errors: dict[str, float]) -> None:
    for key, error in errors.items():
        print(f"{key}: largest 1 - cosine against PyTorch {error:.1e}")


COMMANDS = {
    **train.COMMANDS,
    "evaluate": evaluate,
    "export": export,
    "samples": samples,
    "bars": bars,
    "harden": harden,
    "serve-eval": serve_eval,
    "deflate": deflate,
    "evaluate-deflation": evaluate_deflation,
    "import-deepmind": import_deepmind,
    "import-milnce": import_milnce,
    **pull.COMMANDS,
    **hf.COMMANDS,
    **protocols.COMMANDS,
}


DEBUG = "--debug"
ABOUT = f"{__doc__} `{DEBUG}`, anywhere in the command, shows the traceback of an error."


def _noted_interrupts() -> list[int]:
    """Fills with the interrupts that come from now on; they are raised as ever."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return seen


def _stopped(name: str) -> NoReturn:
    print(f"triptych-trainer {name}: stopped", file=sys.stderr)
    sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command. A failure is one line on stderr, with status 2 for wrong arguments, 130 after
    Ctrl-C, and 1 otherwise."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in arguments or os.environ.get("TRIPTYCH_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != DEBUG]
    name = next((argument for argument in arguments if argument in COMMANDS), "")
    interrupted = _noted_interrupts()
    try:
        commands = dict(COMMANDS)
        if arguments[:1] == ["train"]:
            commands["train"] = train.train_command(train.named_config(arguments[1:]))
        tyro.extras.subcommand_cli_from_dict(commands, args=arguments, description=ABOUT)
    except KeyboardInterrupt:
        if debug:
            raise
        _stopped(name)
    except BrokenPipeError:
        # Whoever read the output has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        if interrupted:
            # A library that was closing a connection made another error of it.
            _stopped(name)
        sys.exit(f"triptych-trainer {name}: {sentence(error)}".replace(" :", ":"))
