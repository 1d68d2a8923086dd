#!/usr/bin/env python3
"""Fetches the pinned native parts (ONNX Runtime, ffmpeg) as wheels through pip and unpacks them.

pip honours the user's own index settings; the SHA-256 of every wheel is checked. The wheels'
Python is not used: one fixed build is taken whatever the local Python is. A folder that is
whole already is left alone, so later runs need no network; so is ONNX Runtime with CUDA, once it
was asked for, until `--cpu` asks for the other build.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = {
    "onnxruntime": {
        "version": "1.32.0",
        "project": "onnxruntime",
        "sha256": {
            "x86_64": "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
            "aarch64": "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        },
        "members": ("onnxruntime/capi/libonnxruntime", "onnxruntime/LICENSE", "onnxruntime/Third"),
    },
    "onnxruntime-gpu": {
        "version": "1.31.1",
        "project": "onnxruntime-gpu",
        "sha256": {"x86_64": "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7"},
        "members": ("onnxruntime/capi/libonnxruntime", "onnxruntime/LICENSE", "onnxruntime/Third"),
    },
    "ffmpeg": {
        "version": "0.8.1",
        "project": "imageio-ffmpeg",
        "sha256": {
            "x86_64": "050d6850601c3b3890bd2b28306f3b842b3daea390a561101174375a1c460bda",
            "aarch64": "fad3176f859b25869e60a8ed79957d4e3ed74a97a95e5f0cdcb91455f6c6d00e",
        },
        "members": ("imageio_ffmpeg/binaries/ffmpeg-linux",),
    },
}

# The unpacked files. The server holds them to the same pins before it loads them.
PINS = json.loads(Path(__file__).with_name("native_pins.json").read_text())


def download(part: dict, machine: str, into: Path) -> Path:
    """One wheel, checked against its pinned SHA-256."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += ["--disable-pip-version-check", "--python-version", "3.12", "--implementation", "cp"]
    for glibc in ("manylinux_2_28", "manylinux_2_27", "manylinux2014"):
        command += ["--platform", f"{glibc}_{machine}"]
    command += ["--dest", str(into), f"{part['project']}=={part['version']}"]
    subprocess.run(command, check=True)
    (wheel,) = into.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != part["sha256"][machine]:
        raise SystemExit(
            f"{wheel.name}: SHA-256 {digest} is not the pinned one; nothing was installed"
        )
    return wheel


def unpack(wheel: Path, part: dict, folder: Path) -> None:
    """The wanted members, flat, in a folder that appears whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(part["members"]) and not member.endswith("/"):
                    name = Path(member).name
                    name = "ffmpeg" if name.startswith("ffmpeg-linux") else name
                    target = staging / name
                    with archive.open(member) as source, target.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    target.chmod(0o755)
        (staging / "VERSION").write_text(f"{part['project']} {part['version']}\n")
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def is_stamped(key: str, folder: Path) -> bool:
    """Whether the folder says that it holds this part in its pinned version."""
    stamp, part = folder / "VERSION", PARTS[key]
    return stamp.is_file() and stamp.read_text() == f"{part['project']} {part['version']}\n"


def is_whole(key: str, folder: Path, machine: str) -> bool:
    """Whether the folder holds this part's files, byte for byte."""
    part = PARTS[key]
    for name, pin in PINS[f"{part['project']} {part['version']}"][machine].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != pin["bytes"]:
            return False
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != pin["sha256"]:
                return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=os.environ.get("TRIPTYCH_NATIVE_DIR", ".triptych/native")
    )
    build = parser.add_mutually_exclusive_group()
    build.add_argument("--cuda", action="store_true", help="take ONNX Runtime with CUDA")
    build.add_argument("--cpu", action="store_true", help="take ONNX Runtime for CPUs again")
    options = parser.parse_args()
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        raise SystemExit(f"no native parts for {sys.platform} {machine}; see `triptych doctor`")
    into = Path(options.into).resolve()
    into.mkdir(parents=True, exist_ok=True)
    cuda = options.cuda or (not options.cpu and is_stamped("onnxruntime-gpu", into / "onnxruntime"))
    wanted = {"onnxruntime": "onnxruntime-gpu" if cuda else "onnxruntime", "ffmpeg": "ffmpeg"}
    for name, key in wanted.items():
        part, folder = PARTS[key], into / name
        if machine not in part["sha256"]:
            raise SystemExit(f"{key} has no build for {machine}")
        if is_stamped(key, folder):
            if is_whole(key, folder, machine):
                continue
            print(f"{folder} is damaged", flush=True)
        print(f"fetching {part['project']} {part['version']} into {folder}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            unpack(download(part, machine, Path(scratch)), part, folder)
        if not is_whole(key, folder, machine):
            raise SystemExit(f"{folder}: the unpacked files are not the pinned ones")


if __name__ == "__main__":
    main()
