"""The command that gets known models. Libraries are imported when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import TrainerError


def pull(
    name: tyro.conf.Positional[str | None] = None,
    list: bool = False,
    accept_licence: Annotated[bool, tyro.conf.arg(aliases=["--accept-license"])] = False,
    out: Path | None = None,
    folder: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")
    ] = (),
    cache: Path | None = None,
    revision: str | None = None,
    frames: int | None = None,
    window: float = 10.0,
    precision: Literal["f32", "f16", "bf16", "int8"] = "f32",
    bank: Path | None = None,
    threads: int = 2,
    server: Path | None = None,
) -> None:
    """Downloads a known model from the hub and makes a bundle of it. A second run resumes where the
    first one stopped, and checks the files against the hashes of the first.

    Args:
        name: a known model, as pe-av-small, or any OWNER/NAME of the hub.
        list: show the known models and stop.
        accept_licence: accept the model's licence without being asked.
        out: the bundle's folder; default: models/NAME.
        folder: the folder that the model was downloaded to by other means; nothing is fetched. For
            a model that joins two, once for each in the order that --list shows.
        cache: where downloads are kept; default: ~/.cache/triptych/models.
        revision: a commit, branch or tag of the repository; default: the newest, then the same.
        frames: frames of a window of video; default: what the model says, else 8.
        window: seconds of a window of video, and of sound where the model sets none.
        precision: what the weights are stored in, as import-hf has it.
        bank: texts for confidence, one a line or as bank.json; default: a list of everyday things.
        server: the server's program, which then verifies the bundle too.
    """
    from ..progress import progress
    from ..pull.command import Wishes
    from ..pull.command import pull as run
    from ..pull.known import listing

    if list:
        print(listing())
        return
    if not name:
        raise TrainerError(
            "name a model, for example `pull pe-av-small`; `pull --list` shows all models"
        )
    if frames is not None and not 1 <= frames <= 1024:
        raise TrainerError(f"--frames must be from 1 to 1024, got {frames}")
    if not 0.5 <= window <= 600:
        raise TrainerError(f"--window must be from 0.5 to 600 seconds, got {window}")
    wishes = Wishes(
        out or Path("models") / name.rpartition("/")[2],
        accept_licence=accept_licence,
        folders=folder,
        cache=cache,
        revision=revision,
        server=server,
        frames=frames,
        window_secs=window,
        precision=precision,
        bank=bank,
        threads=threads,
    )
    print(run(name, wishes, progress()))


COMMANDS = {"pull": pull}
