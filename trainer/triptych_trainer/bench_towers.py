"""The exported towers in ONNX Runtime beside PyTorch, at the paper's sizes: clips per second from
host memory to host memory, and how near the vectors are to PyTorch's f32."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from .config import PRESETS, ModelConfig
from .export import one_minus_cosine, write_onnx
from .models.folding import folded
from .models.mmv import Mmv
from .precision import Half
from .reading import read_torch
from .towers import TowerModule, input_shape, tower_of

WORDS = 1000
"""In place of the published table, which no tower measured here reads."""
ROUNDS = 15
ENOUGH_SECS = 2.0
SETTLING_BATCHES = 3


@dataclass(frozen=True)
class Case:
    """One tower computed one way."""

    tower: str
    """`s3d`, `tsm50` or `audio`."""
    engine: str
    """`onnxruntime`, `onnxruntime-nhwc`, `eager`, `eager-channels-last`, `compile`."""
    precision: str
    form: str

    @property
    def graph(self) -> str:
        return f"{self.tower}-{self.precision}-{self.form}.onnx"

    @property
    def modality(self) -> str:
        return "audio" if self.tower == "audio" else "video"


ENGINES = ("onnxruntime", "onnxruntime-nhwc", "eager", "eager-channels-last", "compile")


def cases(towers: tuple[str, ...], engines: tuple[str, ...]) -> list[Case]:
    return [
        Case(tower, engine, precision, form)
        for engine in engines
        for tower in towers
        for precision in ("f32", "fp16")
        for form in (("2d", "3d") if tower == "s3d" else ("2d",))
    ]


KEPT = "a network that `bench-towers` wrote"


def model_of(tower: str, model: ModelConfig | None = None) -> Mmv:
    """A network with random weights and the statistics that those give on noise: with untouched
    ones a deep network's activations leave the range of fp16."""
    cfg = model or PRESETS["mmv-tsm50" if tower == "tsm50" else "mmv-s3d"].model
    cfg = replace(cfg, vocab_size=min(cfg.vocab_size, WORDS))
    modality = "audio" if tower == "audio" else "video"
    torch.manual_seed(1)
    made = Mmv(cfg).train()
    for backbone in (made.video_backbone, made.audio_backbone):
        for module in backbone.modules():
            if hasattr(module, "momentum"):
                module.momentum = 1.0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made.to(device)
    with torch.no_grad():
        rows = torch.from_numpy(noise(modality, cfg, 4)).to(device)
        getattr(made, f"embed_{modality}")(rows)
    return made.eval().cpu()


def noise(modality: str, cfg: ModelConfig, count: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    shape = (count, *input_shape(tower_of(modality, cfg.spaces), cfg))
    if modality == "audio":
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    # Coarse noise: of independent pixels a network sees little but grey.
    coarse = rng.integers(0, 256, (*shape[:2], 5, 5, 3), np.uint8)
    side = -(-shape[2] // 5)
    return coarse.repeat(side, axis=2).repeat(side, axis=3)[:, :, : shape[2], : shape[3]].copy()


def prepare(folder: Path, towers: tuple[str, ...], model: ModelConfig | None = None) -> None:
    """Writes the networks and their graphs, those that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    for tower in towers:
        weights = folder / f"{tower}.pt"
        if not weights.exists():
            torch.save(model_of(tower, model), weights)
        made = read_torch(weights, KEPT, weights_only=False)
        for case in cases((tower,), ("onnxruntime",)):
            path = folder / case.graph
            if path.exists():
                continue
            lean = folded(made)
            lean.video_backbone.form = case.form
            source = Half(lean) if case.precision == "fp16" else lean
            rows = noise(case.modality, made.cfg, 2)
            write_onnx(tower_of(case.modality, made.cfg.spaces), source, rows, path)


def runner(case: Case, folder: Path, made: Mmv, device: str) -> Callable[[np.ndarray], list]:
    """Rows in host memory to vectors in host memory."""
    spec = tower_of(case.modality, made.cfg.spaces)
    if case.engine.startswith("onnxruntime"):
        session = ort.InferenceSession(str(folder / case.graph), providers=providers(case, device))
        return lambda rows: session.run(list(spec.outputs), {spec.input: rows})
    lean = folded(made)
    lean.video_backbone.form = case.form
    network = TowerModule(Half(lean) if case.precision == "fp16" else lean, spec)
    network = network.eval().to(device)
    if case.engine != "eager":
        channels_last(network)
    if case.engine == "compile":
        network = torch.compile(network, dynamic=False)

    @torch.no_grad()
    def run(rows: np.ndarray) -> list:
        return [out.cpu().numpy() for out in network(torch.from_numpy(rows).to(device))]

    return run


def providers(case: Case, device: str) -> list:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    # What the server asks for.
    options = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if case.engine.endswith("nhwc"):
        options["prefer_nhwc"] = "1"
    return [("CUDAExecutionProvider", options)]


def channels_last(network: nn.Module) -> None:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in network.parameters():
        if layout := layouts.get(weight.dim()):
            weight.data = weight.data.contiguous(memory_format=layout)


def seconds(run: Callable[[np.ndarray], list], rows: np.ndarray) -> float:
    for _ in range(SETTLING_BATCHES):
        run(rows)
    times, begun = [], time.perf_counter()
    while len(times) < ROUNDS and (len(times) < 3 or time.perf_counter() - begun < ENOUGH_SECS):
        started = time.perf_counter()
        run(rows)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(folder: Path, of: list[Case], batches: tuple[int, ...], device: str) -> Iterator[dict]:
    """A record for each case and batch size, as they are measured; a failure is recorded with its
    reason."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    networks: dict[str, tuple[Mmv, np.ndarray, list]] = {}
    for case in of:
        if case.tower not in networks:
            made = read_torch(folder / f"{case.tower}.pt", KEPT, weights_only=False).eval()
            rows = noise(case.modality, made.cfg, max(batches))
            plain = replace(case, engine="eager", precision="f32", form="3d")
            networks[case.tower] = made, rows, runner(plain, folder, made, device)(rows[:1])
        made, rows, want = networks[case.tower]
        record = {"tower": case.tower, "engine": case.engine, "precision": case.precision}
        record |= {"form": case.form, "window_secs": made.cfg.window_secs}
        try:
            run = runner(case, folder, made, device)
            got = run(rows[:1])
            off = max(one_minus_cosine(a, b) for a, b in zip(got, want, strict=True))
            for batch in batches:
                taken = seconds(run, rows[:batch])
                measured = {"batch": batch, "clips_per_sec": batch / taken, "one_minus_cosine": off}
                yield (
                    record
                    | measured
                    | {"video_hours_per_hour": batch / taken * made.cfg.window_secs}
                )
        except Exception as error:
            yield record | {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        run = None
        if device == "cuda":
            torch.cuda.empty_cache()


def table(records: list[dict]) -> str:
    """Clips per second by batch size, as Markdown."""
    batches = sorted({r["batch"] for r in records if "batch" in r})
    rows: dict[tuple, dict] = {}
    for record in records:
        key = tuple(record[k] for k in ("tower", "precision", "form", "engine"))
        row = rows.setdefault(key, {})
        if "error" in record:
            row["error"] = record["error"]
        else:
            row |= {record["batch"]: record["clips_per_sec"], "off": record["one_minus_cosine"]}
            row["window"] = record["window_secs"]
    heads = [f"batch {b}" for b in batches]
    columns = ["tower", "precision", "form", "engine", *heads, "hours per hour", "1 - cosine"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for key, row in sorted(rows.items()):
        if "off" not in row:
            lines.append("| " + " | ".join([*key, row["error"]]) + " |")
            continue
        cells = [f"{row[b]:.0f}" if b in row else "-" for b in batches]
        best = max(row[b] for b in batches if b in row) * row["window"]
        lines.append("| " + " | ".join([*key, *cells, f"{best:.0f}", f"{row['off']:.1e}"]) + " |")
    return "\n".join(lines)
