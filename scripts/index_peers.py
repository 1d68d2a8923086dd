#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "hnswlib==0.8.0", "usearch==2.26.6", "faiss-cpu==1.15.1"]
# ///
"""Our graph beside hnswlib, usearch and faiss: build CPU, memory, recall@10 and queries per
CPU-second.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install numpy==2.4.6 hnswlib==0.8.0 usearch==2.26.6 faiss-cpu==1.15.1
    /tmp/peers/bin/python scripts/index_peers.py [--rows 100000] [--dims 256 512] [--rounds 5]

`cargo bench --bench index -- peers` writes the vectors and answers from a process of its own; all
engines take turns, block by block, on one thread, so that they see the same machine.
INDEX_KERNELS=avx2 measures ours without newer instructions; hnswlib is built for this processor by
pip, and the wheels of the others choose at run time. Speeds at equal recall are read from the
straight lines between the measured breadths. `--peers hnswlib` leaves the others out.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from itertools import pairwise

import faiss
import hnswlib
import numpy as np
from usearch.index import Index

M, BUILD, K = 16, 200, 10
EFS = [16, 24, 32, 48, 64, 96, 128, 192]
KINDS = ["near", "shifted"]
ATS = [0.985, 0.9995]


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Hnswlib:
    name = "hnswlib"

    def __init__(self, stored):
        self.index = hnswlib.Index(space="ip", dim=stored.shape[1])
        self.index.init_index(len(stored), M=M, ef_construction=BUILD, random_seed=1)
        self.index.set_num_threads(1)
        self.index.add_items(stored, num_threads=1)

    def search(self, queries, ef):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k=K, num_threads=1)[0]


class Faiss:
    name = "faiss"

    def __init__(self, stored):
        self.index = faiss.IndexHNSWFlat(stored.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = BUILD
        self.index.add(stored)

    def search(self, queries, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, K)[1]


class Usearch:
    """int8 codes; the best of them scored again in f32, as ours are."""

    name = "usearch i8"

    def __init__(self, stored):
        self.stored = stored
        self.index = Index(
            ndim=stored.shape[1], metric="cos", dtype="i8", connectivity=M, expansion_add=BUILD
        )
        self.index.add(np.arange(len(stored)), stored, threads=1)

    def search(self, queries, ef):
        self.index.expansion_search = ef
        found = self.index.search(queries, min(30, ef), threads=1).keys
        if len(found.shape) == 1:
            found = found[None]
        rows = self.stored[found.astype(np.int64)]
        order = np.argsort(-np.einsum("qkd,qd->qk", rows, queries), axis=1)[:, :K]
        return np.take_along_axis(found, order, axis=1)


class Ours:
    def __init__(self, bench, folder, rows, dim):
        command = [*bench, "peers", folder, str(rows), f"dim={dim}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = self.read()
        self.name = f"ours ({self.built['kernels']})"

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("the bench ended early")

    def round(self, ef, kind):
        self.process.stdin.write(f"{ef} {kind}\n")
        self.process.stdin.flush()
        said = self.read()
        return said["queries_per_cpu_sec"], said["recall"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def block(engine, queries, truth, ef):
    begun = time.thread_time()
    found = engine.search(queries, ef)
    secs = time.thread_time() - begun
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth, strict=True))
    return len(queries) / secs, hits / truth.size


def at_recall(curve, recall):
    """Queries per CPU-second at a recall, read between the measured points; None if not reached."""
    # Of breadths with the same recall, the fastest.
    points = sorted(
        {recall: max(speed for at, speed in curve if at >= recall) for recall, _ in curve}.items()
    )
    for (low, slow), (high, fast) in pairwise(points):
        if low <= recall <= high:
            return slow if high == low else slow + (fast - slow) * (recall - low) / (high - low)
    return points[0][1] if points and points[0][0] >= recall else None


def run(bench, rows, dim, rounds, kinds):
    folder = tempfile.mkdtemp()
    ours = Ours(bench, folder, rows, dim)
    stored = np.load(f"{folder}/stored.npy")
    queries = [np.load(f"{folder}/{kind}.npy") for kind in KINDS]
    truths = [np.array(truth) for truth in ours.built["truths"]]
    built = [
        (ours.name, ours.built["build_cpu_secs"], ours.built["mb_besides_f32"], "besides f32 rows")
    ]
    faiss.omp_set_num_threads(1)
    peers = []
    for kind in kinds:
        memory, begun = resident_bytes(), time.process_time()
        peers.append(kind(stored))
        built.append(
            (kind.name, time.process_time() - begun, (resident_bytes() - memory) / 1e6, "in all")
        )
    print(
        f"\n## {rows:,} x {dim}\n\n| engine | build, CPU s | of hnswlib's | MB | of hnswlib's |\n"
        "|---|---|---|---|---|"
    )
    hnsw_secs, hnsw_mb = built[1][1:3]
    for name, secs, mb, what in built:
        print(
            f"| {name} | {secs:.1f} | {secs / hnsw_secs:.2f} "
            f"| {mb:.0f} {what} | {mb / hnsw_mb:.2f} |"
        )
    curves = {}
    for kind, name in enumerate(KINDS):
        for ef in EFS:
            speeds, recalls = {}, {}
            for _ in range(rounds):
                for engine in [ours, *peers]:
                    measured = (
                        ours.round(ef, kind)
                        if engine is ours
                        else block(engine, queries[kind], truths[kind], ef)
                    )
                    speeds.setdefault(engine.name, []).append(measured[0])
                    recalls[engine.name] = measured[1]
            for engine in speeds:
                speed = float(np.median(speeds[engine]))
                curves.setdefault((name, engine), []).append((recalls[engine], speed, ef))
    engines = [ours.name] + [peer.name for peer in peers]
    for name in KINDS:
        print(
            f"\n{name} queries: recall@10 @ queries per CPU-second\n\n| ef | "
            + " | ".join(engines)
            + " |"
        )
        print("|---" * (len(engines) + 1) + "|")
        for at, ef in enumerate(EFS):
            cells = [curves[(name, engine)][at] for engine in engines]
            print(
                f"| {ef} | "
                + " | ".join(f"{recall:.4f} @ {speed:,.0f}" for recall, speed, _ in cells)
                + " |"
            )
        for recall in ATS:
            speeds = [
                at_recall([point[:2] for point in curves[(name, engine)]], recall)
                for engine in engines
            ]
            told = [f"{speed:,.0f}" if speed else "not reached" for speed in speeds]
            if speeds[0]:
                ratios = [f"{speeds[0] / speed:.2f}" if speed else "-" for speed in speeds]
                both = zip(told, ratios, strict=True)
                told = [f"{speed} (ours x {ratio})" for speed, ratio in both]
            print(f"| **at {recall}** | " + " | ".join(told) + " |")
    ours.end()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--bench", default="cargo bench --bench index --", help="command that starts the bench"
    )
    known = {"hnswlib": Hnswlib, "usearch": Usearch, "faiss": Faiss}
    parser.add_argument("--peers", nargs="+", default=list(known), choices=list(known))
    args = parser.parse_args()
    # hnswlib comes first: the others are compared with it.
    kinds = [known[name] for name in known if name in args.peers or name == "hnswlib"]
    for dim in args.dims:
        run(args.bench.split(), args.rows, dim, args.rounds, kinds)


if __name__ == "__main__":
    main()
