"""The hub through its official client: the contents of a repository, and its files, part by part.

The current client keeps nothing of an incomplete download, and weights are gigabytes. So files are
downloaded with the client's own `http_get` into parts that the next attempt continues.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DISK_FULL, TrainerError
from .known import size

CHUNK_BYTES = 2**20
"""What an interrupted download may lose."""
SMALL_FILES = re.compile(
    r".*\.(json|txt|model)|README\.md|LICEN[SC]E(\..*)?|NOTICE(\..*)?", re.IGNORECASE
)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PLAIN = re.compile(r"[A-Za-z0-9_][\w.-]*")
KEPT = "The part downloaded so far is kept, and the next attempt resumes there"
OTHER_WAYS = (
    "check the network, name a mirror in the environment variable HF_ENDPOINT, or pass a folder "
    "downloaded elsewhere with --folder"
)


@dataclass(frozen=True)
class Remote:
    """A file as the hub describes it; a mirror may leave everything out."""

    bytes: int | None = None
    sha256: str | None = None
    git_blob: str | None = None

    def matches(self, path: Path) -> bool:
        """Whether a local file is this one, as far as the hub says."""
        if self.bytes is not None and path.stat().st_size != self.bytes:
            return False
        if self.sha256:
            return sha256(path) == self.sha256
        if self.git_blob:
            data = path.read_bytes()
            whole = b"blob %d\0" % len(data) + data
            return hashlib.sha1(whole, usedforsecurity=False).hexdigest() == self.git_blob
        return True


@dataclass(frozen=True)
class Listing:
    """The files of one revision that an import reads."""

    repository: str
    revision: str
    license: str | None
    files: dict[str, Remote]

    def total(self) -> int | None:
        sizes = [file.bytes for file in self.files.values()]
        return None if None in sizes else sum(sizes)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def client():
    """`huggingface_hub`: no telemetry, no other transfer service than the endpoint's own."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_UPDATE_CHECK", "1")
    try:
        import huggingface_hub
    except ImportError:
        raise TrainerError(
            "the package huggingface_hub is not installed: run `make venv`, or "
            "`pip install -e trainer`"
        ) from None
    from huggingface_hub import constants, utils

    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    return huggingface_hub


def no_more_network() -> None:
    """For what runs after the download: the import reads local files alone."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def look_up(repository: str, revision: str | None) -> Listing:
    """The files that an import reads, at the newest or the given revision."""
    hub = client()
    with explained(repository, revision):
        info = hub.HfApi().model_info(
            repository, revision=revision, files_metadata=True, timeout=30, token=None
        )
        if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
            raise TrainerError(
                f"the endpoint returns no revision of {repository}, so it is not a hub: check "
                f"HF_ENDPOINT"
            )
        remote = {}
        for file in info.siblings or []:
            lfs = file.lfs
            digest = getattr(lfs, "sha256", None) if lfs is not None else None
            remote[file.rfilename] = Remote(file.size, digest, None if lfs else file.blob_id)
        card = info.card_data
    license = getattr(card, "license", None) if card is not None else None
    if license == "other":
        license = getattr(card, "license_name", None) or license
    wanted = _wanted(repository, info.sha, remote)
    return Listing(repository, info.sha, license, {name: remote[name] for name in wanted})


def _wanted(repository: str, revision: str, files: Iterable[str]) -> list[str]:
    names = read_by_import(files)
    if not any(name.endswith(".safetensors") for name in names):
        raise TrainerError(
            f"{repository} has no model.safetensors at revision {revision[:12]}; reading other "
            "formats can run code, so they are not used. Another revision of the repository may "
            "have a conversion: name it with --revision"
        )
    return names


def read_by_import(files: Iterable[str]) -> list[str]:
    """Weights as safetensors and the small files beside them, of a repository's top folder."""
    names = [name for name in files if PLAIN.fullmatch(name)]
    shards = [name for name in names if SHARD.fullmatch(name)]
    # As the importer chooses: the list of shards goes before a single file.
    weights = shards if "model.safetensors.index.json" in names else ["model.safetensors"]
    small = [name for name in names if SMALL_FILES.fullmatch(name)]
    return sorted({*small, *(name for name in weights if name in names)})


def fetch(listing: Listing, folder: Path, say: Callable[[str], None]) -> None:
    """Loads what `folder` lacks; what is there and right stays."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of another revision, or of none: the import would read them.
    for name in read_by_import(path.name for path in folder.iterdir() if path.is_file()):
        if name not in listing.files:
            (folder / name).unlink()
    missing = {}
    for name, remote in listing.files.items():
        path = folder / name
        if path.is_file() and remote.matches(path):
            continue
        path.unlink(missing_ok=True)
        missing[name] = remote
    if not missing:
        return
    _room(listing, missing, folder)
    for name, remote in sorted(missing.items(), key=lambda item: item[1].bytes or 0):
        _fetch_file(listing, name, remote, folder, say)
    shutil.rmtree(folder / PARTS, ignore_errors=True)


PARTS = ".parts"


def _part(folder: Path, listing: Listing, name: str, remote: Remote) -> Path:
    """Named by content, so that a part is never continued with another file's bytes."""
    content = remote.sha256 or remote.git_blob or listing.revision
    return folder / PARTS / f"{name}.{content[:16]}"


def _room(listing: Listing, missing: dict[str, Remote], folder: Path) -> None:
    begun = sum(
        part.stat().st_size
        for name, remote in missing.items()
        if (part := _part(folder, listing, name, remote)).is_file()
    )
    needed = sum(remote.bytes or 0 for remote in missing.values()) - begun
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TrainerError(
            f"{listing.repository} needs {size(needed)} in {folder}, but only {size(free)} are "
            "free: free some space, or name another folder with --cache"
        )


def _fetch_file(
    listing: Listing, name: str, remote: Remote, folder: Path, say: Callable[[str], None]
) -> None:
    hub = client()
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part = _part(folder, listing, name, remote)
    part.parent.mkdir(exist_ok=True)
    with explained(listing.repository, listing.revision, name), part.open("ab") as file:
        _alone(file, name)
        begun = file.tell()
        if remote.bytes is not None and begun > remote.bytes:
            file.truncate(0)
            begun = 0
        if begun:
            say(f"{name}: resuming at {size(begun)} of {size(remote.bytes)}")
        else:
            say(f"{name}: {size(remote.bytes)}")
        http_get(
            hub.hf_hub_url(listing.repository, name, revision=listing.revision),
            file,
            resume_size=begun,
            headers=build_hf_headers(),
            expected_size=remote.bytes,
            displayed_filename=name,
        )
    if not remote.matches(part):
        found = sha256(part)
        part.unlink()
        raise TrainerError(
            f"{name} of {listing.repository} arrived damaged: expected "
            f"{remote.sha256 or remote.git_blob}, got SHA-256 {found}. It was deleted; "
            "run the command again, and if this repeats, use another mirror or network"
        )
    part.replace(folder / name)


def _alone(file: BinaryIO, name: str) -> None:
    """Two that append to one part would spoil it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TrainerError(
            f"another pull is downloading {name}: wait until it has finished, then run the command "
            f"again"
        ) from None
    except OSError:
        # A file system without locks.
        return


@contextmanager
def explained(repository: str, revision: str | None, file: str | None = None) -> Iterator[None]:
    """Errors of the client, of the network and of the disk as sentences."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        raise TrainerError(_why(error, repository, revision, file)) from error


def _why(error: Exception, repository: str, revision: str | None, file: str | None) -> str:
    from huggingface_hub import errors

    what = f"{file} of {repository}" if file else repository
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{what} cannot be downloaded because HF_HUB_OFFLINE is set: unset it, or pass a "
            "folder downloaded elsewhere with --folder"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repository!r} is no name of a repository: name it as OWNER/NAME"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision}: check --revision, or leave it out"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return (
            f"{what} is gated: accept its terms on its page at the hub, create an access token "
            "there, and run the command again with the token in the environment variable HF_TOKEN"
        )
    if status == 401:
        return (
            f"the hub requires a token for {what}: the repository is private or gated, or its "
            "name is wrong. Check the name (`triptych-trainer pull --list`); if you have access, "
            "set the environment variable HF_TOKEN to your token"
        )
    if status == 404:
        return (
            f"the hub has no {what}: check the name (`triptych-trainer pull --list`); a mirror "
            "(HF_ENDPOINT) may not have every repository"
        )
    if status is not None:
        return f"the hub answered {status} for {what}: try again later. {KEPT}"
    return _why_no_answer(error, what)


def _why_no_answer(error: Exception, what: str) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{DISK_FULL}: free some space, or name another folder with --cache. {KEPT}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; name another folder with --cache"
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
        said = " ".join(str(error).split()) or type(error).__name__
        return f"cannot reach the hub for {what} ({said}): {OTHER_WAYS}. {KEPT}"
    if isinstance(error, OSError) and "onsistency check failed" in str(error):
        return f"the connection ended before {what} was complete: run the command again. {KEPT}"
    said = " ".join(str(error).split())[:200]
    return (
        f"the endpoint does not answer like a hub for {what} ({type(error).__name__}: {said}): "
        "check HF_ENDPOINT"
    )
