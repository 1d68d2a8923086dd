"""The command that imports Hugging Face folders. Libraries are imported when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import TrainerError


def import_hf(
    folder: tyro.conf.Positional[Path],
    out: Path,
    add: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")] = (),
    name: str | None = None,
    frames: int | None = None,
    window: float = 10.0,
    precision: Literal["f32", "f16", "bf16", "int8"] = "f32",
    bank: Path | None = None,
    license: str | None = None,
    threads: int = 2,
) -> None:
    """Makes a bundle of a downloaded Hugging Face folder: CLIP, SigLIP, SigLIP 2, CLAP, PE-AV,
    EmbeddingGemma 2. It uses no network and runs no code from the folder.

    Args:
        folder: the folder with config.json, model.safetensors and the tokenizer.
        out: the bundle's folder, for example models/clip.
        add: a further folder whose towers go into the same bundle; may be given several times.
            Also a bundle of this trainer's own (MMV): its towers for what the others do not take.
        name: the bundle's name; default: the last part of OUT.
        frames: frames of a window of video; default: what the folder says, else 8.
        window: seconds of a window of video, and of sound where the model sets none.
        precision: what the weights are stored in. f16 and bf16 halve the files and are computed in
            f32; int8 computes products in int8. The loss is measured and written down.
        bank: texts for confidence, one a line or as bank.json; default: a list of everyday things.
        license: what the manifest says of the weights, where the folder states nothing.
    """
    import torch

    from ..hf.command import Options, describe
    from ..hf.command import import_hf as run
    from ..progress import progress

    if frames is not None and not 1 <= frames <= 1024:
        raise TrainerError(f"--frames must be from 1 to 1024, got {frames}")
    if not 0.5 <= window <= 600:
        raise TrainerError(f"--window must be from 0.5 to 600 seconds, got {window}")
    torch.set_num_threads(threads)
    options = Options(frames, window, precision, progress())
    folders = [folder, *add]
    errors = run(folders, out, name=name, bank=bank, options=options, license=license)
    for tower, error in errors.items():
        print(f"{tower}: largest 1 - cosine against PyTorch {error:.1e}")
    print(describe(out))


def reduce(
    bundle: tyro.conf.Positional[Path],
    out: Path,
    precision: Literal["f16", "bf16", "int8"],
    tower: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME")
    ] = (),
    name: str | None = None,
    threads: int = 2,
) -> None:
    """Makes a bundle with smaller weights from an imported f32 bundle, and measures the loss.

    Args:
        bundle: what import-hf or pull made.
        out: the new bundle's folder.
        precision: as import-hf has it.
        tower: reduce this one; may be given several times; default: all.
        name: the bundle's name; default: the last part of OUT.
    """
    import torch

    from ..hf.reduced import reduce_bundle
    from ..progress import progress

    torch.set_num_threads(threads)
    errors = reduce_bundle(bundle, out, precision, tower, name, progress())
    for each, error in errors.items():
        print(f"{each}: largest 1 - cosine against PyTorch {error:.1e}")


def bench_family(
    bundles: tyro.conf.Positional[tuple[Path, ...]],
    film: Path | None = None,
    bin: Path = Path("target/release/triptych"),
    out: Path | None = None,
    secs: float = 8.0,
    towers: bool = False,
    batches: tuple[int, ...] = (1,),
) -> None:
    """Measures served bundles on this machine's CPU: texts, pictures and sounds through the API,
    indexing of a film, and memory. Nothing else should run.

    Args:
        bundles: one or several, each behind a server of its own, one after the other.
        film: a video file to index.
        bin: the server's program.
        out: a file for the records, a line of JSON each.
        secs: how long pictures and sounds are sent.
        towers: without a server, the towers alone by CPU time on one thread.
        batches: with --towers, inputs at a time.
    """
    import json

    if towers:
        from ..bench_cpu import cpu_secs_of_towers
        from ..bench_cpu import table as towers_table

        found = {bundle.name: cpu_secs_of_towers(bundle, batches) for bundle in bundles}
        if out:
            out.write_text(json.dumps(found, indent=1) + "\n")
        print(towers_table(found))
        return

    from ..bench_family import bench, table

    records = []
    for bundle in bundles:
        records.append(bench(bin.resolve(), bundle.resolve(), film, secs))
        print(json.dumps(records[-1]), flush=True)
    if out:
        out.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"\n{table(records)}")


COMMANDS = {"import-hf": import_hf, "reduce": reduce, "bench-family": bench_family}
