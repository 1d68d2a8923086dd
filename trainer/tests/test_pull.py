"""`pull` against a hub on loopback: whole, cut, changed, moved."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from hub import Hub, running_hub
from pulling import PE, WEIGHT_BYTES, Shell

from triptych_trainer.pull import command, known
from triptych_trainer.pull.hub import CHUNK_BYTES, Listing, Remote, read_by_import


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
    assert "resumes" in line
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


def test_a_mirror_that_tells_names_alone(hub: Hub, shell: Shell, published: Path) -> None:
    hub.bare = True
    hub.cut_after = 2 * CHUNK_BYTES
    assert "503" in shell.fails("pe-av-small")
    hub.busy = False
    shell.works("pe-av-small")
    assert hub.asked("model.safetensors")[-1][2] is not None
    assert _loaded(shell) == (published / "model.safetensors").read_bytes()


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


INTERRUPTED = """
import os, signal
from triptych_trainer import cli

def pull() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        raise RuntimeError("the connection cannot be closed") from None

cli.COMMANDS["pull"] = pull
cli.main(["pull"])
"""


def test_an_interrupt_that_a_library_makes_an_error_of() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (130, "triptych-trainer pull: stopped\n")


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
    assert "video.onnx" in said[-1] and "made again" in said[-1]
    for broken in ("{}", "[]", '{"files": 3}', "{"):
        (tmp_path / "manifest.json").write_text(broken)
        assert not command._there(tmp_path, said.append)
