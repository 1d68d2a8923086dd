"""Speed and memory of served bundles on this machine's CPU: texts, pictures and sounds that go
through the API, and a film that is indexed."""

import base64
import io
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .media import probe
from .reading import read_json
from .server import Client, running_server, wav_uri

TEXTS = 40
WARM_UP = 4
CLIENTS = 2
SAID = """
a dog barking at the door while rain falls on an old red car near the station people dancing in a
kitchen with blue light before sunset someone opens the gate and waves to children on the hill
"""
SOUND_SECS = 10
PICTURE_SIZE = (720, 1280)


def cpu_name() -> str:
    """The processor as the system calls it, and how many of its threads there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {len(names)} threads"


def texts(count: int) -> list[str]:
    """Queries of 3 to 12 words, no two alike."""
    rng, words = np.random.default_rng(0), SAID.split()
    lengths = rng.integers(3, 13, count)
    return [f"{' '.join(rng.choice(words, n))} {k}" for k, n in enumerate(lengths)]


def picture_uri(rng: np.random.Generator) -> str:
    """A PNG of film size, as a data: URI."""
    from PIL import Image

    height, width = PICTURE_SIZE
    coarse = rng.integers(0, 256, (height // 80, width // 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(coarse, np.ones((80, 80, 1), np.uint8))).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sound_uri(rng: np.random.Generator) -> str:
    return wav_uri(rng.normal(0, 0.1, SOUND_SECS * 48_000).astype(np.float32))


def milliseconds_of(work: Callable[[str], None], items: list[str]) -> tuple[float, float]:
    """(median, 95th percentile) of one call at a time, after a warm-up."""
    taken = []
    for item in items:
        begun = time.perf_counter()
        work(item)
        taken.append((time.perf_counter() - begun) * 1e3)
    taken = sorted(taken[WARM_UP:])
    return statistics.median(taken), taken[int(len(taken) * 0.95)]


def rate_of(work: Callable[[str], None], items: list[str], most_secs: float) -> float:
    """Calls per second from as many clients as there are cores, until the time is over."""
    work(items[0])
    done = [0] * CLIENTS
    ends: list[float] = []
    begun = time.perf_counter()

    def run(client: int) -> None:
        number = client
        while time.perf_counter() - begun < most_secs:
            work(items[number % len(items)])
            done[client] += 1
            number += CLIENTS
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=run, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (max(ends) - begun)


def memory_mib(pid: int) -> tuple[float, float]:
    """(now, at most) of a process, resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


def spaces_by_modality(manifest: dict) -> dict[str, str]:
    """A space for each modality that the bundle has a tower for."""
    return {member: space["name"] for space in manifest["spaces"] for member in space["members"]}


def measured(client: Client, spaces: dict[str, str], media: Path, each_secs: float) -> dict:
    """The record of a server that runs, with what is in `media` as its film."""
    rng = np.random.default_rng(1)
    record: dict = {"memory_at_start_mib": round(memory_mib(client.pid)[0])}

    def embed(modality: str) -> Callable[[str], None]:
        def work(item: str) -> None:
            body = {"modality": modality, "space": spaces[modality]}
            client.call("POST", "/v1/embeddings", body | {"input": item})

        return work

    if "text" in spaces:
        p50, p95 = milliseconds_of(embed("text"), texts(TEXTS))
        record |= {"text_p50_ms": round(p50, 1), "text_p95_ms": round(p95, 1)}
    if "image" in spaces:
        items = [picture_uri(rng) for _ in range(8)]
        record["pictures_per_sec"] = round(rate_of(embed("image"), items, each_secs), 2)
    if "audio" in spaces:
        items = [sound_uri(rng) for _ in range(4)]
        record["sounds_per_sec"] = round(rate_of(embed("audio"), items, each_secs), 3)
    for film in media.iterdir():
        begun = time.perf_counter()
        job = client.index_folder(media, poll_secs=0.1)
        secs = time.perf_counter() - begun
        length = probe(film)[1] or 0.0
        record |= {
            "film_secs": length,
            "index_secs": round(secs, 1),
            "clips": job["clips"],
            "hours_per_hour": round(length / secs, 2),
        }
        target = "video" if "video" in spaces else "audio"
        if "text" in spaces:
            again = [f"{text} again" for text in texts(TEXTS)]
            searched = milliseconds_of(
                lambda text, at=target: client.search({"text": text}, at, 10), again
            )
            record["search_p50_ms"] = round(searched[0], 1)
    record["memory_peak_mib"] = round(memory_mib(client.pid)[1])
    return record


def described(bundle: Path) -> dict:
    """What is known before a server runs."""
    manifest = read_json(bundle / "manifest.json", "the manifest of a bundle")
    towers = {name: tower for name, tower in manifest["towers"].items() if "file" in tower}
    return {
        "bundle": bundle.name,
        "precision": {name: tower["precision"] for name, tower in towers.items()},
        "disk_mib": round(sum(f.stat().st_size for f in bundle.iterdir() if f.is_file()) / 2**20),
        "one_minus_cosine": {
            name: found["largest_one_minus_cosine"]
            for name, found in manifest["evaluation"].get("export", {}).items()
            if "largest_one_minus_cosine" in found
        },
    }


def bench(binary: Path, bundle: Path, film: Path | None, each_secs: float) -> dict:
    """One bundle behind a server of its own."""
    record = {"cpu": cpu_name(), **described(bundle)}
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        if film is not None:
            shutil.copy(film, media)
        begun = time.perf_counter()
        with running_server(binary, bundle, Path(folder) / "data", media, start_secs=600) as client:
            record["start_secs"] = round(time.perf_counter() - begun, 1)
            spaces = spaces_by_modality(read_json(bundle / "manifest.json", "a manifest"))
            record |= measured(client, spaces, media, each_secs)
    return record


COLUMNS = {
    "text_p50_ms": "text, ms",
    "search_p50_ms": "search, ms",
    "pictures_per_sec": "pictures/s",
    "sounds_per_sec": f"{SOUND_SECS} s of sound/s",
    "hours_per_hour": "hours of film an hour",
    "memory_peak_mib": "memory, MiB",
    "disk_mib": "disk, MiB",
}


def table(records: list[dict]) -> str:
    lines = ["| bundle | " + " | ".join(COLUMNS.values()) + " | largest 1 - cosine |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    for record in records:
        cells = [str(record.get(key, "")) for key in COLUMNS]
        worst = max(record["one_minus_cosine"].values(), default=0.0)
        lines.append(f"| {record['bundle']} | {' | '.join(cells)} | {worst:.1e} |")
    return "\n".join(lines)
