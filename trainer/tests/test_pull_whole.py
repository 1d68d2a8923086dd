"""`pull` from the hub to a bundle, with tiny models of random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hf_checkpoints import clap, clip
from hub import Hub
from pulling import CLAP, CLIP, Shell


def whole(shell: Shell, name: str) -> dict:
    """Download, import and verification, nothing left out; the manifest."""
    del shell.environment["WITHOUT_IMPORT"]
    said = shell.works(name)
    assert said.splitlines()[-1] == f"next: make demo MODEL={shell.out}"
    return json.loads((shell.out / "manifest.json").read_text())


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> Callable[[str, str], Path]:
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
    assert "exists already" in shell.works("clip-vit-base-patch16")
    assert hub.requests == []


def test_two_models_become_one_bundle(hub: Hub, shell: Shell, tiny: Callable) -> None:
    tiny(CLIP, "clip")
    tiny(CLAP, "clap")
    manifest = whole(shell, "clip-clap")
    assert [source["repository"] for source in manifest["sources"]] == [CLIP, CLAP]
    modalities = sorted(tower["modality"] for tower in manifest["towers"].values())
    assert modalities == ["audio", "image", "text", "text", "video"]
    assert sorted(shell.lock()["repositories"]) == sorted([CLIP, CLAP])
