"""`triptych-trainer pull`: licence, download or folder, lock, import, verification."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from ..errors import TrainerError, sentence
from . import hub
from .known import Known, Repository, find, size
from .lock import Lock


@dataclass(frozen=True)
class Wishes:
    """What the person asked for beside the model's name."""

    out: Path
    accept_licence: bool = False
    folders: tuple[Path, ...] = ()
    cache: Path | None = None
    revision: str | None = None
    server: Path | None = None
    frames: int | None = None
    window_secs: float = 10.0
    precision: str = "f32"
    bank: Path | None = None
    threads: int = 2


@dataclass(frozen=True)
class Found:
    """Where the files of one repository are or will be, and under which licence."""

    repository: Repository
    folder: Path
    card: str | None
    """The licence on the model's card."""
    listing: hub.Listing | None = None

    @property
    def license(self) -> str:
        """The card's counts; the table's where the card says nothing or the same."""
        stated = self.repository.license
        if self.card and (stated is None or self.card.lower() != stated.lower()):
            return self.card
        return stated or "not stated: ask the publisher"

    def remark(self) -> str:
        stated = self.repository.license
        if stated and self.license != stated:
            return f" (as its card says; the table of known models says {stated})"
        return f" ({self.repository.license_note})" if self.repository.license_note else ""


def pull(name: str, wishes: Wishes, say: Callable[[str], None]) -> str:
    """Leaves a verified bundle in `wishes.out`; what to say last."""
    known = find(name)
    _ready(wishes)
    lock = Lock.beside(wishes.out)
    if _there(wishes.out, say):
        _serve(wishes)
        return (
            f"{wishes.out} exists already and is complete (to make it again, delete it first)\n"
            f"{_next(wishes.out)}"
        )
    found = _locate(known, wishes, lock, say)
    _accept(known, found, wishes, lock, say)
    for one in found:
        _bring(one, lock, say)
    lock.write()
    hub.no_more_network()
    _import(found, wishes, lock, say)
    _verify(wishes.out, say)
    _serve(wishes)
    return _end(known, found, wishes, lock)


def _ready(wishes: Wishes) -> None:
    """What would stop the import is better known before gigabytes are loaded."""
    lacking = [name for name in ("torch", "transformers", "timm") if not find_spec(name)]
    if lacking:
        raise TrainerError(
            f"the package {lacking[0]} is not installed: run `make venv`, or "
            "`pip install -e trainer`"
        )
    out = wishes.out
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _manifest(out).exists())):
        raise TrainerError(f"{out} exists and is not a bundle: name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise TrainerError(f"{out.parent} cannot be written: name another folder with --out")
    if wishes.bank:
        from ..hf.bank import given_bank

        given_bank(wishes.bank)
    if wishes.server and not wishes.server.is_file():
        raise TrainerError(f"--server: {wishes.server} does not exist; build it with `make build`")


def _manifest(bundle: Path) -> Path:
    return bundle / "manifest.json"


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "triptych" / "models"


def _locate(known: Known, wishes: Wishes, lock: Lock, say: Callable[[str], None]) -> list[Found]:
    if wishes.folders and len(wishes.folders) != len(known.repositories):
        order = ", then ".join(one.repository for one in known.repositories)
        raise TrainerError(
            f"{known.name} consists of {len(known.repositories)} folders, but --folder names "
            f"{len(wishes.folders)}: give the folders of {order}"
        )
    if wishes.revision and len(known.repositories) > 1:
        raise TrainerError(
            f"{known.name} consists of several repositories, so a single --revision cannot apply: "
            "pull each by itself, and join them with import-hf --add"
        )
    if wishes.folders:
        return [
            _local(one, folder)
            for one, folder in zip(known.repositories, wishes.folders, strict=True)
        ]
    cache = wishes.cache or default_cache()
    return [_remote(one, cache, wishes, lock, say) for one in known.repositories]


def _local(repository: Repository, folder: Path) -> Found:
    if not folder.is_dir():
        raise TrainerError(
            f"--folder: {folder} is not a folder; name the one with the download of "
            f"{repository.repository}"
        )
    return Found(repository, folder, _card(folder))


def _card(folder: Path) -> str | None:
    from ..hf.folder import HfFolder

    return HfFolder(folder).license()


def _remote(
    repository: Repository, cache: Path, wishes: Wishes, lock: Lock, say: Callable[[str], None]
) -> Found:
    owner, _, name = repository.repository.partition("/")
    folder = cache.expanduser() / owner / name
    expected = lock.expected(repository)
    pinned = lock.repositories.get(repository.repository)
    revision = lock.revision(repository, wishes.revision)
    if pinned and all((folder / file).is_file() for file in expected):
        damaged = lock.damaged(repository, folder)
        if not damaged:
            say(f"{repository.repository}: already downloaded, matches {lock.path.name}")
            return Found(repository, folder, _card(folder))
        say(f"{repository.repository}: {', '.join(damaged)} changed on disk; downloaded again")
    for file in lock.damaged(repository, folder):
        (folder / file).unlink()
    listing = hub.look_up(repository.repository, revision)
    if pinned:
        files = {file: one for file, one in listing.files.items() if file in expected}
        listing = replace(listing, files=files)
    return Found(repository, folder, listing.license, listing)


def _accept(
    known: Known, found: list[Found], wishes: Wishes, lock: Lock, say: Callable[[str], None]
) -> None:
    licenses = " and ".join(dict.fromkeys(one.license for one in found))
    if lock.license == licenses:
        return
    say(f"{known.name}: {known.purpose}")
    for one in found:
        said = f"  {one.repository.repository}: licence {one.license}{one.remark()}"
        if one.listing:
            said += f"; {size(one.listing.total())} to {one.folder}"
        say(said)
    if not wishes.accept_licence:
        _ask(known, licenses)
    lock.license = licenses


def _ask(known: Known, licenses: str) -> None:
    if not sys.stdin.isatty():
        raise TrainerError(
            f"{known.name} has the licence {licenses}: read it and, if you accept it, run the "
            "command again with --accept-licence (make model: ACCEPT_LICENCE=1)"
        )
    sys.stderr.write(f"Do you accept the licence {licenses}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TrainerError(
            "nothing was downloaded, because the licence was not accepted: `triptych-trainer pull "
            "--list` shows models under other licences"
        )


def _bring(one: Found, lock: Lock, say: Callable[[str], None]) -> None:
    """The files into the folder, each as expected."""
    if one.listing:
        revision = one.listing.revision
        say(f"{one.repository.repository}: revision {revision[:12]} to {one.folder}")
        hub.fetch(one.listing, one.folder, say)
        names = list(one.listing.files)
    else:
        revision = lock.revision(one.repository, None) or _revision_of(one.folder)
        names = hub.read_by_import(path.name for path in one.folder.iterdir() if path.is_file())
    _right_family(one)
    try:
        lock.check(one.repository, one.folder, names)
    finally:
        if one.listing:
            # The next attempt asks for them anew.
            for name in lock.damaged(one.repository, one.folder):
                (one.folder / name).unlink()
    lock.repositories[one.repository.repository].revision = revision


def _revision_of(folder: Path) -> str | None:
    from ..hf.folder import HfFolder

    return HfFolder(folder).revision()


def _right_family(one: Found) -> None:
    families = one.repository.families
    try:
        config = json.loads((one.folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type") if isinstance(config, dict) else None
    except ValueError:
        kind = None
    except FileNotFoundError:
        raise TrainerError(
            f"{one.folder} has no config.json, so it is not the folder of "
            f"{one.repository.repository}: download the whole folder"
        ) from None
    if families and kind not in families:
        raise TrainerError(
            f"{one.folder} holds a model of type {kind!r}, and {one.repository.repository} is of "
            f"type {' or '.join(families)}: give that model's folder, or use import-hf"
        )


def _import(found: list[Found], wishes: Wishes, lock: Lock, say: Callable[[str], None]) -> None:
    import torch

    from ..hf.command import Options, import_hf

    torch.set_num_threads(wishes.threads)
    errors = import_hf(
        [one.folder for one in found],
        wishes.out,
        bank=wishes.bank,
        options=Options(wishes.frames, wishes.window_secs, wishes.precision, say),
        known=_sources(found, lock),
    )
    for tower, error in errors.items():
        say(f"{tower}: largest 1 - cosine against PyTorch {error:.1e}")


def _sources(found: list[Found], lock: Lock) -> dict[Path, dict]:
    """Facts for the manifest that the folders do not contain."""
    return {
        one.folder.resolve(): {
            "repository": one.repository.repository,
            "revision": lock.repositories[one.repository.repository].revision,
            **({} if one.card else {"license": one.license}),
        }
        for one in found
    }


def _there(bundle: Path, say: Callable[[str], None]) -> bool:
    """Whether a complete bundle exists; a damaged one is made again."""
    if not _manifest(bundle).is_file():
        return False
    try:
        _verify(bundle, say)
    except TrainerError as error:
        say(f"{sentence(error)} It is made again.")
        return False
    return True


def _verify(bundle: Path, say: Callable[[str], None]) -> None:
    """Every file of the bundle has the hash that its manifest says."""
    say(f"{bundle}: checking every file against the manifest")
    try:
        files = json.loads(_manifest(bundle).read_text(encoding="utf-8"))["files"]
        wrong = [
            name
            for name, digest in files.items()
            if not (bundle / name).is_file() or hub.sha256(bundle / name) != digest
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        wrong = ["manifest.json"]
    if wrong:
        raise TrainerError(f"{bundle} is damaged: {', '.join(wrong)}.")


def _serve(wishes: Wishes) -> None:
    """The server's own verification, where its program is there."""
    if wishes.server is None:
        return
    command = [str(wishes.server.resolve()), "model", "verify", str(wishes.out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " ".join((done.stderr or done.stdout).split())[:400]
        raise TrainerError(
            f"{wishes.out} was made, but the server does not accept it ({told}): build the server "
            "of the same version with `make build` and try again"
        )


def _end(known: Known, found: list[Found], wishes: Wishes, lock: Lock) -> str:
    kept = [one for one in found if one.listing]
    lines = [f"{known.name} is in {wishes.out}; {lock.path} pins its sources"]
    if kept:
        folders = ", ".join(str(one.folder) for one in kept)
        lines.append(f"the download is still in {folders} (you may delete it)")
    return "\n".join([*lines, _next(wishes.out)])


def _next(out: Path) -> str:
    return f"next: make demo MODEL={out}"
