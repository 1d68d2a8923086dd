"""A small client of the server's REST API, and how to start the server; standard library only."""

import base64
import io
import json
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


class ServerError(RuntimeError):
    """The server refused, failed or went away."""


class Client:
    """Calls of one server; `pid` is its process, where it was started here."""

    def __init__(self, address: str, timeout_secs: float = 300.0, pid: int = 0) -> None:
        self.address, self.timeout_secs, self.pid = address.rstrip("/"), timeout_secs, pid

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(self.address + path, method=method)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=self.timeout_secs) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            told = error.read(2000).decode(errors="replace")
            raise ServerError(f"{method} {path}: {error.code}: {told}") from error

    def index_folder(self, folder: Path, poll_secs: float = 0.5) -> dict:
        """Indexes a folder and returns the finished job; files that failed are an error."""
        job = self.call("POST", "/v1/jobs", {"type": "index", "path": str(folder)})
        while job["state"] not in ("done", "failed", "cancelled"):
            time.sleep(poll_secs)
            job = self.call("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "done" or job["items_failed"]:
            raise ServerError(f"indexing {folder}: {json.dumps(job)}")
        return job

    def search(self, query: dict, target: str, limit: int) -> list[tuple[str, float]]:
        """[(asset name, score)], best first, one row per asset."""
        body = {"query": query, "targets": [target], "limit": limit, "group_by": "asset"}
        hits = self.call("POST", "/v1/search", body)["data"]
        return [(hit["asset_name"], hit["score"]) for hit in hits]

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Unit vectors f32 [N, coarse]."""
        body = {"modality": "text", "input": texts, "space": "coarse"}
        return _vectors(self.call("POST", "/v1/embeddings", body))

    def embed_file(self, modality: str, path: Path, space: str) -> np.ndarray:
        """Unit vectors f32 [clips, dim] of a file beneath an allowed root."""
        body = {"modality": modality, "input": str(path), "space": space}
        return _vectors(self.call("POST", "/v1/embeddings", body))


def _vectors(response: dict) -> np.ndarray:
    rows = sorted(response["data"], key=lambda row: row["index"])
    return np.array([row["embedding"] for row in rows], dtype=np.float32)


def wav_uri(pcm: np.ndarray, rate: int = 48_000) -> str:
    """PCM f32 [samples] as a data: URI of a 16-bit mono WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def running_server(
    binary: Path, model: Path, data: Path, root: Path, *options: str, start_secs: float = 60.0
) -> Iterator[Client]:
    """Starts `triptych serve` on a free port, with more `options`, and stops it at the end."""
    command = [str(binary), "serve", "--model", str(model), "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--allow-root", str(root), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str | None] = queue.Queue()
    # A thread reads on for as long as the server runs, so that its pipe never fills.
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    try:
        yield Client(_address(lines, start_secs), pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def _read_lines(process: subprocess.Popen, lines: queue.Queue) -> None:
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _address(lines: queue.Queue, start_secs: float) -> str:
    """The address out of the line `listening on http://...`."""
    deadline = time.monotonic() + start_secs
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ServerError(f"the server did not listen within {start_secs:.0f} s") from None
        if line is None:
            raise ServerError("the server ended before it listened")
        if "listening on " in line:
            return line.split("listening on ", 1)[1].split()[0]
