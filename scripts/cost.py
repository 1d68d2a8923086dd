#!/usr/bin/env python3
"""What media queries and indexing cost: time of a server binary, or of two in turn.

    scripts/cost.py query  FILE... --binary target/release/triptych
    scripts/cost.py ingest FILE... --binary old/triptych --binary target/release/triptych

With two binaries, each run of one is followed by a run of the other, and the ratio of their
medians is printed.
"""

import argparse
import base64
import json
import mimetypes
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

KINDS = {"audio": "audio", "video": "video", "image": "image"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["query", "ingest"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--binary", action="append", required=True, type=Path)
    parser.add_argument(
        "--model", action="append", type=Path, help="one for all, or one per binary"
    )
    parser.add_argument("--runs", type=int, default=5, help="per binary; queries: requests")
    args = parser.parse_args()
    models = args.model or [Path("models/small-world")]
    models = models * len(args.binary) if len(models) == 1 else models
    if len(models) != len(args.binary):
        sys.exit("expected one --model, or one per --binary")
    sides = list(zip(args.binary, models, strict=True))
    if args.what == "query":
        for file in args.files:
            for binary, model in sides:
                print(f"{binary}: {file.name}: {query(binary, model, file, args.runs)}")
        return
    seconds = [[] for _ in sides]
    for run in range(args.runs):
        order = list(enumerate(sides))
        for at, (binary, model) in order if run % 2 == 0 else reversed(order):
            seconds[at].append(ingest(binary, model, args.files))
    for (binary, _), taken in zip(sides, seconds, strict=True):
        print(f"{binary}: CPU seconds {' '.join(f'{one:.2f}' for one in taken)}")
    if len(sides) == 2:
        old, new = (statistics.median(taken) for taken in seconds)
        print(f"ratio of the medians, second to first: {new / old:.4f}")


def ingest(binary: Path, model: Path, files: list[Path]) -> float:
    """CPU seconds of `triptych index`, its decoders included."""
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder, "media")
        media.mkdir()
        for file in files:
            shutil.copy(file, media)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            binary,
            "index",
            media,
            "--data",
            Path(folder, "data"),
            "--model",
            model,
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{binary} failed: {done.stderr[-500:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def query(binary: Path, model: Path, file: Path, runs: int) -> str:
    """One embedding of a file after the other, on a server of its own."""
    media_type = mimetypes.guess_type(file.name)[0] or ""
    kind = KINDS.get(media_type.split("/")[0])
    if kind is None:
        sys.exit(f"{file}: expected a sound, video or picture by its name")
    encoded = base64.b64encode(file.read_bytes()).decode()
    body = json.dumps({"modality": kind, "input": f"data:{media_type};base64,{encoded}"}).encode()
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "serve", "--model", model, "--data", folder, "--listen", "127.0.0.1:0"]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            address = next(
                found
                for line in server.stdout
                if (found := re.search(r"http://127.0.0.1:\d+", line))
            ).group()
            request = urllib.request.Request(
                f"{address}/v1/embeddings", body, {"content-type": "application/json"}
            )
            secs = []
            for number in range(runs + 3):
                # The first ones warm up.
                if number == 3:
                    before = cpu_secs(server.pid)
                began = time.perf_counter()
                urllib.request.urlopen(request).read()
                secs.append(time.perf_counter() - began)
            own, children = (
                (b - a) / runs * 1e3 for a, b in zip(before, cpu_secs(server.pid), strict=True)
            )
        finally:
            server.terminate()
            server.wait()
    wall = statistics.median(secs[3:]) * 1e3
    return f"median {wall:.1f} ms; CPU: server {own:.1f} ms, decoders {children:.1f} ms"


def cpu_secs(pid: int) -> tuple[float, float]:
    """Of a process, and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    user, system, child_user, child_system = (int(field) for field in fields[11:15])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + system) / tick, (child_user + child_system) / tick


if __name__ == "__main__":
    main()
