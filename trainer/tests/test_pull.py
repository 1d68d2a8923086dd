"""`pull` against a hub on loopback: whole, cut, changed, refused, absent."""

import errno
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub import Hub, running_hub

from triptych_trainer.pull import command, known
from triptych_trainer.pull.hub import CHUNK_BYTES, Listing, Remote, explained, read_by_import

CLIP, CLAP = "openai/clip-vit-base-patch16", "laion/clap-htsat-unfused"
PE = "facebook/pe-av-small"
WEIGHT_BYTES = 3 * CHUNK_BYTES + 1234

PROGRAM = """
import os, socket, sys

def only_loopback(event, details):
    if event == "socket.connect":
        host = details[1][0]
    elif event == "socket.getaddrinfo":
        host = details[0]
    else:
        return
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"ANOTHER HOST: {host}", file=sys.stderr)
        raise OSError(f"another host: {host}")

sys.addaudithook(only_loopback)
from triptych_trainer.pull import command
if os.environ.get("FREE_BYTES"):
    import shutil
    usage = type("Usage", (), {"free": int(os.environ["FREE_BYTES"])})
    command.hub.shutil.disk_usage = lambda _: usage
if os.environ.get("WITHOUT_IMPORT"):
    command._import = lambda found, *_: print("imports", [str(one.folder) for one in found])
    command._verify = lambda *_: None
from triptych_trainer.cli import main
main(sys.argv[1:])
"""


class Shell:
    """Runs `triptych-trainer pull` in a folder of its own."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.cache, self.out = folder / "cache", folder / "models" / "m"
        self.environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(folder / "home"),
            "WITHOUT_IMPORT": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        }
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "TRIPTYCH_DEBUG"):
            self.environment.pop(name, None)

    def command(self, *options: object) -> list[str]:
        own = ["--out", self.out, "--cache", self.cache]
        return [sys.executable, "-c", PROGRAM, "pull", *map(str, (*options, *own))]

    def run(self, *options: object, accept: bool = True) -> subprocess.CompletedProcess:
        more = ["--accept-licence"] * accept
        done = subprocess.run(
            self.command(*options, *more),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "ANOTHER HOST" not in done.stderr, done.stderr
        return done

    def works(self, *options: object) -> str:
        done = self.run(*options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *options: object, accept: bool = True) -> str:
        """The sentence, the last line."""
        done = self.run(*options, accept=accept)
        assert done.returncode == 1, done.stdout + done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("triptych-trainer pull: "), done.stderr
        return line

    def lock(self) -> dict:
        return json.loads(self.out.with_name("m.lock.json").read_text())


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def shell(hub: Hub, tmp_path: Path) -> Shell:
    return Shell(hub, tmp_path)


@pytest.fixture
def published(hub: Hub, tmp_path: Path) -> Path:
    """A repository whose files are what they are called, no more."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "pe_audio_video"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit('never run')")
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(WEIGHT_BYTES))
    hub.folders[PE] = folder
    return folder


def test_first_download_pins_and_the_next_needs_no_hub(
    hub: Hub, shell: Shell, published: Path
) -> None:
    said = shell.works("pe-av-small")
    assert said.splitlines()[-1] == f"next: make demo MODEL={shell.out}"
    folder = shell.cache / PE
    loaded = sorted(path.name for path in folder.iterdir())
    assert loaded == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    for name in loaded:
        assert (folder / name).read_bytes() == (published / name).read_bytes()
    pinned = shell.lock()["repositories"][PE]
    assert pinned["revision"] == hub.revision(PE)
    assert sorted(pinned["files"]) == loaded
    paths = {path.partition("?")[0] for _, path, _ in hub.requests}
    assert all(path.startswith((f"/api/models/{PE}", f"/{PE}/resolve/")) for path in paths), paths
    hub.requests.clear()
    shell.works("pe-av-small")
    assert hub.requests == []


def test_a_name_of_the_hub_is_enough(hub: Hub, shell: Shell, published: Path) -> None:
    hub.folders = {"someone/else.net_1": published}
    hub.licenses["someone/else.net_1"] = "cc-by-nc-4.0"
    assert "cc-by-nc-4.0" in shell.fails("someone/else.net_1", accept=False)
    assert not shell.cache.exists()
    shell.works("someone/else.net_1")
    assert shell.lock()["license"] == "cc-by-nc-4.0"


def test_a_cut_download_goes_on_by_itself(hub: Hub, shell: Shell, published: Path) -> None:
    hub.cut_after = 2 * CHUNK_BYTES + 777
    threading.Thread(target=_serve_again, args=(hub,), daemon=True).start()
    done = shell.run("pe-av-small")
    if done.returncode:
        assert "503" in done.stderr
        shell.works("pe-av-small")
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


def _serve_again(hub: Hub) -> None:
    while not hub.busy:
        time.sleep(0.01)
    hub.busy = False


def _loaded(shell: Shell) -> bytes:
    return (shell.cache / PE / "model.safetensors").read_bytes()


def test_the_next_attempt_goes_on_where_the_first_broke(
    hub: Hub, shell: Shell, published: Path
) -> None:
    hub.cut_after = 2 * CHUNK_BYTES + 777
    assert "503" in (line := shell.fails("pe-av-small")), line
    assert "goes on" in line
    hub.requests.clear()
    hub.busy = False
    shell.works("pe-av-small")
    (asked,) = [part for method, path, part in hub.asked("model.safetensors") if method == "GET"]
    assert asked is not None and int(asked[len("bytes=") : -1]) >= 2 * CHUNK_BYTES
    assert not hub.asked("tokenizer.json")
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


def test_weights_that_lie_elsewhere(hub: Hub, shell: Shell, published: Path) -> None:
    """Public files are redirected to a storage, which gets no token and honours ranges."""
    shell.environment["HF_TOKEN"] = "hf_secret"
    with running_hub() as storage:
        storage.folders, hub.storage = hub.folders, storage.endpoint
        storage.cut_after = 2 * CHUNK_BYTES
        assert "503" in shell.fails("pe-av-small")
        storage.busy = False
        shell.works("pe-av-small")
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert set(storage.tokens) == {None}
    assert storage.requests[-1][2] is not None


def test_two_at_once(hub: Hub, shell: Shell, published: Path) -> None:
    hub.cut_after, hub.stall = CHUNK_BYTES, threading.Event()
    first = subprocess.Popen(
        shell.command("pe-av-small", "--accept-licence"),
        env=shell.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not hub.busy:
        assert first.poll() is None
        time.sleep(0.05)
    assert "another pull" in shell.fails("pe-av-small")
    hub.busy = False
    hub.stall.set()
    assert first.wait(60) == 0
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


def test_ctrl_c_keeps_what_was_loaded(hub: Hub, shell: Shell, published: Path) -> None:
    hub.cut_after, hub.stall = 2 * CHUNK_BYTES + 777, threading.Event()
    running = subprocess.Popen(
        shell.command("pe-av-small", "--accept-licence"),
        env=shell.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = shell.cache / PE / ".parts"
    deadline = time.monotonic() + 60
    while not any(f.stat().st_size >= CHUNK_BYTES for f in part.glob("model.safetensors.*")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    hub.stall.set()
    assert running.returncode == 130
    assert "Traceback" not in said and "stopped" in said
    hub.busy = False
    hub.requests.clear()
    shell.works("pe-av-small")
    assert [part for _, _, part in hub.asked("model.safetensors")] != [None]
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


def test_bytes_that_are_not_what_the_hub_says(hub: Hub, shell: Shell, published: Path) -> None:
    wrong = bytearray((published / "model.safetensors").read_bytes())
    wrong[-1] ^= 1
    hub.replaced["model.safetensors"] = bytes(wrong)
    line = shell.fails("pe-av-small")
    assert "model.safetensors" in line and "damaged" in line
    assert not shell.out.with_name("m.lock.json").exists()
    hub.replaced.clear()
    shell.works("pe-av-small")


def test_a_file_that_changed_since_the_first_download(
    hub: Hub, shell: Shell, published: Path
) -> None:
    shell.works("pe-av-small")
    before = shell.lock()["repositories"][PE]
    hub.revisions[PE] = before["revision"]
    (published / "config.json").write_text('{"model_type": "pe_audio_video", "more": 1}')
    shutil.rmtree(shell.cache)
    line = shell.fails("pe-av-small")
    new = known_hash(published / "config.json")
    for part in ("config.json", before["files"]["config.json"], new, "m.lock.json"):
        assert part in line
    # It is not there for the import, nor for the next attempt.
    assert not (shell.cache / PE / "config.json").exists()
    assert shell.lock()["repositories"][PE] == before
    shell.out.with_name("m.lock.json").unlink()
    shell.works("pe-av-small")


def known_hash(path: Path) -> str:
    from triptych_trainer.pull.hub import sha256

    return sha256(path)


def test_a_file_damaged_on_the_disk_is_loaded_again(
    hub: Hub, shell: Shell, published: Path
) -> None:
    shell.works("pe-av-small")
    (shell.cache / PE / "model.safetensors").write_bytes(b"x" * WEIGHT_BYTES)
    shell.works("pe-av-small")
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


def test_a_revision_that_moved_on_stays_pinned(hub: Hub, shell: Shell, published: Path) -> None:
    shell.works("pe-av-small")
    (published / "config.json").write_text('{"model_type": "pe_audio_video", "new": true}')
    shell.works("pe-av-small")
    shutil.rmtree(shell.cache)
    # This hub has only the newest.
    assert "has no revision" in shell.fails("pe-av-small")
    assert "m.lock.json" in shell.fails("pe-av-small", "--revision", "main")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "RepoNotFound", "HF_TOKEN"),
        (401, "GatedRepo", "accept its terms"),
        (403, "GatedRepo", "accept its terms"),
        (403, "", "accept its terms"),
        (404, "RepoNotFound", "the hub has no"),
        (404, "RevisionNotFound", "no revision"),
        (429, "", "429"),
        (500, "", "500"),
        (503, "", "503"),
    ],
)
def test_refusals_of_the_hub(
    hub: Hub, shell: Shell, published: Path, status: int, code: str, words: str
) -> None:
    hub.status[PE] = (status, code)
    line = shell.fails("pe-av-small")
    assert words in line and PE in line


def test_no_hub(shell: Shell) -> None:
    shell.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    line = shell.fails("pe-av-small")
    assert "could not be reached" in line and "HF_ENDPOINT" in line and "--folder" in line


def test_an_endpoint_that_is_no_hub(shell: Shell, published: Path, hub: Hub) -> None:
    hub.status[PE] = (200, "")
    assert "check HF_ENDPOINT" in shell.fails("pe-av-small")


def test_offline_by_wish(shell: Shell) -> None:
    shell.environment["HF_HUB_OFFLINE"] = "1"
    assert "HF_HUB_OFFLINE" in shell.fails("pe-av-small")


def test_no_room(shell: Shell, published: Path) -> None:
    shell.environment["FREE_BYTES"] = str(CHUNK_BYTES)
    line = shell.fails("pe-av-small")
    assert "3.1 MB" in line and "1.0 MB" in line and "--cache" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(number: int) -> None:
    from triptych_trainer.errors import TrainerError

    with pytest.raises(TrainerError, match=r"disk is full.*goes on"), explained(PE, None):
        raise OSError(number, os.strerror(number))


def test_licence_has_to_be_accepted(hub: Hub, shell: Shell, published: Path) -> None:
    line = shell.fails("pe-av-small", accept=False)
    assert "Apache-2.0" in line and "--accept-licence" in line
    assert not shell.cache.exists() and not hub.asked("resolve")


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_licence_is_asked_for_on_a_terminal(
    hub: Hub, shell: Shell, published: Path, answer: str, status: int
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = subprocess.run(
        shell.command("pe-av-small"),
        env=shell.environment,
        stdin=theirs,
        capture_output=True,
        text=True,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status, done.stderr
    assert "Do you accept the licence Apache-2.0?" in done.stderr
    assert bool(hub.asked("resolve")) == (status == 0)


def test_a_card_that_says_another_licence(hub: Hub, shell: Shell, published: Path) -> None:
    hub.licenses[PE] = "cc-by-nc-4.0"
    assert "cc-by-nc-4.0" in shell.fails("pe-av-small", accept=False)


def test_a_licence_that_changed_is_asked_again(hub: Hub, shell: Shell, published: Path) -> None:
    shell.works("pe-av-small")
    (shell.cache / PE / "README.md").unlink()
    assert shell.run("pe-av-small", accept=False).returncode == 0
    hub.licenses[PE] = "cc-by-nc-4.0"
    (shell.cache / PE / "README.md").unlink()
    assert "cc-by-nc-4.0" in shell.fails("pe-av-small", accept=False)


def test_folder_in_place_of_the_hub(hub: Hub, shell: Shell, published: Path) -> None:
    said = shell.works("pe-av-small", "--folder", published)
    assert str(published) in said and hub.requests == []
    (published / "tokenizer.json").write_text('{"other": 1}')
    line = shell.fails("pe-av-small", "--folder", published)
    assert "tokenizer.json" in line and "expected" in line
    (published / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in shell.fails("pe-av-small", "--folder", published)


def test_folder_and_hub_are_held_to_the_same_lock(hub: Hub, shell: Shell, published: Path) -> None:
    shell.works("pe-av-small", "--folder", published)
    shell.works("pe-av-small")
    assert shell.lock()["repositories"][PE]["revision"] == hub.revision(PE)
    shell.works("pe-av-small", "--folder", published)
    (published / "added_tokens.json").write_text("{}")
    assert "added_tokens.json" in shell.fails("pe-av-small", "--folder", published)


def test_folders_that_do_not_fit(shell: Shell, published: Path, tmp_path: Path) -> None:
    assert "is no folder" in shell.fails("pe-av-small", "--folder", tmp_path / "none")
    assert "config.json" in shell.fails("pe-av-small", "--folder", tmp_path)
    assert "2 folders" in shell.fails("clip-clap", "--folder", published)
    line = shell.fails("clip-vit-base-patch16", "--folder", published)
    assert "pe_audio_video" in line and "clip" in line


def test_weights_in_other_formats_only(shell: Shell, published: Path) -> None:
    (published / "model.safetensors").unlink()
    line = shell.fails("pe-av-small")
    assert "no model.safetensors" in line and "--revision" in line


def test_names(shell: Shell) -> None:
    assert "did you mean pe-av-small" in shell.fails("pe-av-smal")
    assert "--list" in shell.fails("nothing like it")
    assert "--list" in shell.fails("../../etc/passwd")
    assert "--list" in shell.fails()


def test_a_damaged_lock_file(shell: Shell, published: Path) -> None:
    shell.out.parent.mkdir()
    shell.out.with_name("m.lock.json").write_text('{"repositories": {"a/b": 3}}')
    assert "m.lock.json is damaged" in shell.fails("pe-av-small")


def test_shards_are_weights_and_paths_are_not() -> None:
    names = ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]
    more = ["../evil.json", "onnx/model.json", ".hidden.json", "a/model.safetensors", "x.py"]
    assert read_by_import([*names, *more]) == sorted(names)
    # As the importer chooses.
    assert read_by_import([*names, "model.safetensors"]) == sorted(names)


def test_the_size_of_a_listing() -> None:
    listing = Listing("a/b", "0" * 40, None, {"x": Remote(3), "y": Remote(4)})
    assert listing.total() == 7


def test_the_table() -> None:
    models = known.table()
    assert "pe-av-small" in models and len(models["siglip2-clap"].repositories) == 2
    for name, model in models.items():
        assert "/" not in name and model.purpose and model.languages
        for one in model.repositories:
            assert known.REPOSITORY.fullmatch(one.repository)
            assert one.license and one.families
            assert one.revision is None or len(one.revision) == 40
        assert known.find(name) == model


def test_a_bundle_that_is_there_is_checked(tmp_path: Path) -> None:
    said: list[str] = []
    assert not command._there(tmp_path, said.append)
    (tmp_path / "video.onnx").write_bytes(b"a graph")
    files = {"video.onnx": known_hash(tmp_path / "video.onnx")}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert command._there(tmp_path, said.append)
    (tmp_path / "video.onnx").write_bytes(b"a grapf")
    assert not command._there(tmp_path, said.append)
    assert "video.onnx" in said[-1] and "made anew" in said[-1]
    for broken in ("{}", "[]", '{"files": 3}', "{"):
        (tmp_path / "manifest.json").write_text(broken)
        assert not command._there(tmp_path, said.append)


def whole(shell: Shell, name: str) -> dict:
    """Download, import and verification, nothing left out; the manifest."""
    del shell.environment["WITHOUT_IMPORT"]
    said = shell.works(name)
    assert said.splitlines()[-1] == f"next: make demo MODEL={shell.out}"
    return json.loads((shell.out / "manifest.json").read_text())


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> Callable[[str, str], Path]:
    from hf_checkpoints import clap, clip

    def make(repository: str, kind: str) -> Path:
        folder = tmp_path / "hub" / kind
        {"clip": clip, "clap": clap}[kind](folder)
        hub.folders[repository] = folder
        return folder

    return make


def test_the_whole_way(hub: Hub, shell: Shell, tiny: Callable, tmp_path: Path) -> None:
    hub.licenses[CLIP] = "mit"
    tiny(CLIP, "clip")
    server = tmp_path / "triptych"
    server.write_text('#!/bin/sh\necho "$@" >> "$0.said"\nexit 0\n')
    server.chmod(0o755)
    del shell.environment["WITHOUT_IMPORT"]
    done = shell.run("clip-vit-base-patch16", "--frames", 3, "--server", server)
    assert done.returncode == 0, done.stderr
    assert "1 - cosine" in done.stderr
    manifest = json.loads((shell.out / "manifest.json").read_text())
    (source,) = manifest["sources"]
    assert (source["repository"], source["revision"]) == (CLIP, hub.revision(CLIP))
    assert source["license"] == "MIT" == shell.lock()["license"]
    assert manifest["towers"]["video"]["preprocessing"]["sampling"]["frames"] == 3
    assert source["files"] == shell.lock()["repositories"][CLIP]["files"]
    assert (tmp_path / "triptych.said").read_text().split() == ["model", "verify", str(shell.out)]
    # The second time nothing is left to do, and a server that refuses is told of.
    hub.requests.clear()
    server.write_text("#!/bin/sh\necho no such format >&2\nexit 1\n")
    assert "no such format" in shell.fails("clip-vit-base-patch16", "--server", server)
    assert "there already" in shell.works("clip-vit-base-patch16")
    assert hub.requests == []


def test_two_models_become_one_bundle(hub: Hub, shell: Shell, tiny: Callable) -> None:
    tiny(CLIP, "clip")
    tiny(CLAP, "clap")
    manifest = whole(shell, "clip-clap")
    assert [source["repository"] for source in manifest["sources"]] == [CLIP, CLAP]
    modalities = sorted(tower["modality"] for tower in manifest["towers"].values())
    assert modalities == ["audio", "image", "text", "text", "video"]
    assert sorted(shell.lock()["repositories"]) == sorted([CLIP, CLAP])
