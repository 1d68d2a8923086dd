"""Towers of a bundle by CPU time on one thread, as the server's workers run them. Other work on the
machine disturbs that less than the time on the clock."""

import statistics
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .reading import read_json

ENOUGH_SECS = 8.0
ROUNDS = 7
QUERY_TOKENS = 12
"""Of a text where the length is free: about a sentence."""


def cpu_secs_of_towers(bundle: Path, batches: tuple[int, ...] = (1,)) -> list[dict]:
    """[{tower, batch, CPU seconds of one input}] of every graph, on its golden inputs."""
    manifest = read_json(bundle / "manifest.json", "the manifest of a bundle")
    goldens = load_file(bundle / manifest["goldens"]["file"])
    found = []
    for name, entry in manifest["towers"].items():
        if "file" not in entry:
            continue
        session = _session(bundle / entry["file"])
        row = _row(goldens, name, entry)
        for batch in batches:
            feed = {key: np.repeat(values, batch, axis=0) for key, values in row.items()}
            found.append(
                {
                    "tower": name,
                    "precision": entry["precision"],
                    "batch": batch,
                    "cpu_secs": _cpu_secs(session, feed) / batch,
                }
            )
    return found


def _session(path: Path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _row(goldens: dict, tower: str, entry: dict) -> dict[str, np.ndarray]:
    """One row by the graph's names; the golden of a free length that is nearest to a query's, or
    the longest sound, repeated to a whole window."""
    first = next(iter(entry["inputs"]))
    ends = [""] if f"{tower}.{first}" in goldens else []
    ends = ends or [f".{k}" for k in range(len(goldens)) if f"{tower}.{first}.{k}" in goldens]
    if entry["modality"] == "text":
        end = min(ends, key=lambda e: abs(goldens[f"{tower}.{first}{e}"].shape[1] - QUERY_TOKENS))
    else:
        end = max(ends, key=lambda e: goldens[f"{tower}.{first}{e}"].size)
    row = {theirs: goldens[f"{tower}.{ours}{end}"][:1] for ours, theirs in entry["inputs"].items()}
    sound = entry["preprocessing"].get("sound")
    if sound and sound["short"] == "as_is":
        pcm = row[entry["inputs"]["pcm"]]
        row[entry["inputs"]["pcm"]] = np.resize(pcm, (1, sound["samples"]))
    return row


def _cpu_secs(session, feed: dict[str, np.ndarray]) -> float:
    """The median of one run; a large network is run twice."""
    taken, begun = [], time.process_time()
    session.run(None, feed)
    while len(taken) < ROUNDS and (not taken or time.process_time() - begun < ENOUGH_SECS):
        started = time.process_time()
        session.run(None, feed)
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def table(records: dict[str, list[dict]]) -> str:
    lines = [
        "| bundle | tower | precision | batch | CPU ms an input | inputs a second on two cores |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for bundle, rows in records.items():
        for row in rows:
            secs = row["cpu_secs"]
            lines.append(
                f"| {bundle} | {row['tower']} | {row['precision']} | {row['batch']} | "
                f"{1000 * secs:.3g} | {2 / secs:.3g} |"
            )
    return "\n".join(lines)
