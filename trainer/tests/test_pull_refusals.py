"""What `pull` says when it cannot: refusals of the hub and the person, a full disk, wrong names."""

import errno
import os
import pty
import subprocess
from pathlib import Path

import pytest
from hub import Hub
from pulling import PE, Shell

from triptych_trainer.errors import TrainerError
from triptych_trainer.pull.hub import CHUNK_BYTES, explained


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
    assert "cannot reach the hub" in line and "HF_ENDPOINT" in line and "--folder" in line


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
    with pytest.raises(TrainerError, match=r"disk is full.*resumes"), explained(PE, None):
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


def test_folders_that_do_not_fit(shell: Shell, published: Path, tmp_path: Path) -> None:
    assert "is not a folder" in shell.fails("pe-av-small", "--folder", tmp_path / "none")
    assert "config.json" in shell.fails("pe-av-small", "--folder", tmp_path)
    assert "2 folders" in shell.fails("clip-clap", "--folder", published)
    line = shell.fails("clip-vit-base-patch16", "--folder", published)
    assert "pe_audio_video" in line and "clip" in line


def test_what_stops_an_import_is_said_before_the_download(
    hub: Hub, shell: Shell, published: Path, tmp_path: Path
) -> None:
    assert "does not exist" in shell.fails("pe-av-small", "--server", tmp_path / "none")
    assert "none.txt" in shell.fails("pe-av-small", "--bank", tmp_path / "none.txt")
    (tmp_path / "bank.json").write_text('{"texts": 3}')
    assert "bank.json" in shell.fails("pe-av-small", "--bank", tmp_path / "bank.json")
    shell.out.mkdir(parents=True)
    (shell.out / "letter.txt").write_text("mine")
    assert "is not a bundle" in shell.fails("pe-av-small")
    assert "0.5 to 600" in shell.fails("pe-av-small", "--window", 0)
    assert "1 to 1024" in shell.fails("pe-av-small", "--frames", 0)
    assert hub.requests == []


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
