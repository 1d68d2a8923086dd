"""Runs `pull` against the hub on loopback, in a process that may reach no other host."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from hub import Hub

from triptych_trainer.pull.hub import CHUNK_BYTES

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


def publish(folder: Path) -> Path:
    """A repository whose files are what they are called, no more."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "pe_audio_video"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit('never run')")
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(WEIGHT_BYTES))
    return folder
