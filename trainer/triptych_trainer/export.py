"""A trained model to a bundle: ONNX towers, tokenizer, goldens, manifest (`docs/bundle.md`)."""

import copy
import json
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import save
from torch import nn

from .config import ModelConfig, TrainConfig, from_dict
from .errors import TrainerError
from .manifest import MAX_ONE_MINUS_COSINE, make_manifest
from .models.audio_frontend import FFT
from .models.folding import fold, folded
from .models.mmv import Mmv
from .precision import Half, cosines, milliseconds, to_int8
from .tokenizer import build_tokenizer, encode
from .towers import Content, Tower, TowerModule, tower_of
from .world import captions
from .world.dataset import plain_clip
from .world.scene import scene_of

OPSET = 20
GOLDEN_CLIPS = 2
GOLDEN_SEED = 77
DESCRIPTION = (
    "MMV towers that know a small procedural world of coloured shapes that move and sound; "
    "not natural footage"
)
LICENSE = "Apache-2.0"


def golden_inputs(cfg: ModelConfig) -> tuple[dict[str, np.ndarray], list[str]]:
    """({tower: input rows}, the texts of the text rows): held-out scenes, and noise."""
    scenes = [scene_of(GOLDEN_SEED, i, held_out=True) for i in range(GOLDEN_CLIPS)]
    clips = [plain_clip(scene, cfg) for scene in scenes]
    texts = [captions.evaluation_caption(scene) for scene in scenes]
    # What a tokenizer gets wrong first: case, marks, full-width letters, unknown words, a cut.
    texts.append("LOOK: a  Tiny,SCARLET　ｓｔａｒ — zigzagging & moving in a circle's path!")
    texts.append("red " * (cfg.max_words - 1) + "zebra green blue")
    tokenizer = build_tokenizer(captions.vocabulary())
    # Noise reaches every channel; a scene leaves some at zero, where a wrong weight would not show.
    rng = np.random.default_rng(GOLDEN_SEED)
    frames = rng.integers(0, 256, clips[0].frames.shape, dtype=np.uint8)
    pcm = rng.uniform(-1.0, 1.0, clips[0].pcm.shape).astype(np.float32)
    inputs = {
        "video": np.stack([*(clip.frames for clip in clips), frames]),
        "audio": np.stack([*(clip.pcm for clip in clips), pcm]),
        "text": np.stack([encode(tokenizer, text, cfg.max_words) for text in texts]),
    }
    return inputs, texts


def export_bundle(
    model: Mmv, out: Path, name: str, training: dict, evaluation: dict, **more
) -> dict[str, float]:
    """Writes the bundle of a model of the small world; see `write_bundle`. `more`: fields of
    `Content`."""
    inputs, texts = golden_inputs(model.cfg)
    lean = copy.copy(model.eval())
    lean._modules = dict(model._modules)
    if "text" in model.modalities:
        lean.text_backbone = copy.copy(model.text_backbone)
        lean.text_backbone._modules = dict(model.text_backbone._modules)
        lean.text_backbone.words = used_words(model.text_backbone.words)
    tokenizer = build_tokenizer(captions.vocabulary())
    content = Content(name, DESCRIPTION, LICENSE, inputs, texts, tokenizer)
    content = replace(content, training=training, evaluation=evaluation, **more)
    return write_bundle(lean, out, content)


def write_bundle(model: Mmv, out: Path, content: Content) -> dict[str, float]:
    """Writes the bundle; returns the largest 1 - cosine of ONNX Runtime against PyTorch by tower
    and space. Towers that are not f32 are measured, not held to it; the manifest has cosine, size
    and speed of all."""
    cfg, inputs = model.cfg, dict(content.inputs)
    out.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    lean = folded(model)
    lean.video_backbone.form = _form(cfg, content)
    sources = {name: (model, lean) for name in ("video", "audio", "text")}
    if content.image is not None:
        # A view would be stored as the wrong bytes.
        inputs["image"] = np.ascontiguousarray(inputs["video"][:, cfg.frames // 2])
        sources["image"] = (content.image.eval(), fold(copy.deepcopy(content.image)))

    goldens, errors, towers, measured = {}, {}, [], {}
    for name, rows in inputs.items():
        if name != "image" and (name not in model.modalities or rows is None):
            continue
        tower = tower_of(name, cfg.spaces, content.precision.get(name, "f32"))
        reference, source = sources[name]
        path = out / f"{name}.onnx"
        want = run_torch(tower, reference, rows)
        write_onnx(tower, source, rows, path)
        if content.f16_weights:
            weights_to_f16(path)
        calibration = content.calibration.get(name, rows)
        measured[name] = _in_precision(tower, source, path, rows, calibration)
        got = run_onnx(path, tower, rows)
        measured[name] |= cosines(got, want)
        measured[name]["weights"] = "f16" if content.f16_weights else "f32"
        goldens[f"{name}.input"] = rows
        for space, vectors in want.items():
            goldens[f"{name}.{space}"] = vectors
            errors[f"{name}.{space}"] = one_minus_cosine(got[space], vectors)
        towers.append(tower)
    bad = {
        f"{tower.name}.{space}": errors[f"{tower.name}.{space}"]
        for tower in towers
        for space in tower.outputs
        if tower.precision == "f32"
        and not errors[f"{tower.name}.{space}"] <= MAX_ONE_MINUS_COSINE / 10
    }
    if bad:
        raise TrainerError(
            f"the outputs of ONNX Runtime and PyTorch differ, so no bundle is written: {bad}"
        )

    (out / "goldens.safetensors").write_bytes(save(goldens))
    if content.tokenizer is not None:
        content.tokenizer.save(str(out / "tokenizer.json"))
    content = replace(content, evaluation=content.evaluation | {"export": measured})
    manifest = make_manifest(model, out, content, towers, errors)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return errors


def _form(cfg: ModelConfig, content: Content) -> str:
    if content.form != "auto":
        return content.form
    return "3d" if cfg.backbone == "s3d" and content.precision.get("video") == "fp16" else "2d"


def _in_precision(
    tower: Tower, source: nn.Module, path: Path, rows: np.ndarray, calibration: np.ndarray
) -> dict:
    """Replaces an f32 file by one of the tower's precision; returns its size and speed for the
    manifest."""
    with tempfile.TemporaryDirectory() as folder:
        full, files = Path(folder) / "f32.onnx", [path]
        if tower.precision != "f32":
            shutil.copy(path, full)
            files.append(full)
        if tower.precision == "fp16":
            write_onnx(tower, Half(source), rows, path)
        elif tower.precision == "int8":
            to_int8(path, tower.input, calibration)
        times = milliseconds(files, tower.input, rows[:1])
        keys = ("", "_f32")
        record: dict = {"precision": tower.precision}
        for file, time, key in zip(files, times, keys, strict=False):
            record |= {f"bytes{key}": file.stat().st_size, f"cpu_milliseconds{key}": time}
    return record


def used_words(words: nn.Embedding) -> nn.Embedding:
    """The rows of the word table that the tokenizer can ask for."""
    rows = build_tokenizer(captions.vocabulary()).get_vocab_size()
    return nn.Embedding.from_pretrained(words.weight[:rows].clone())


def write_onnx(tower: Tower, model: Mmv, rows: np.ndarray, path: Path) -> None:
    """Exports one tower with a free batch size and everything inside one file."""
    example = torch.from_numpy(rows[:2])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = Path(folder) / "tower.onnx"
        program = torch.onnx.export(
            TowerModule(model, tower).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[tower.input],
            output_names=list(tower.outputs),
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )
        program.save(str(part), external_data=False)
        graph = onnx.load(str(part))
    strip(graph)
    if tower.name == "audio":
        compute_fourier_basis(graph, model.log_mel.basis.numpy())
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))


WORTH_A_CAST = 256
"""Numbers in a tensor; smaller ones cost more in nodes than they save."""


def weights_to_f16(path: Path) -> None:
    """Stores the tensors that f16 holds exactly as f16 with a Cast behind them. ONNX Runtime folds
    the Cast when it loads the file, and computes what it would have computed."""
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < WORTH_A_CAST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.f16"))
        casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=onnx.TensorProto.FLOAT))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Removes the exporter's notes about Python: paths and stack traces."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def compute_fourier_basis(model: onnx.ModelProto, basis: np.ndarray) -> None:
    """Replaces the 5 MB Fourier basis by its formula over a table of one cosine.

    basis[k, n] = window[n] * cos(2 pi (k n + quarter) / FFT), so one table of FFT cosines and
    integer arithmetic give it exactly. All inputs are constants: ONNX Runtime computes it once,
    when it loads the file.
    """
    graph = model.graph
    found = [t for t in graph.initializer if list(t.dims) == list(basis.shape)]
    if len(found) != 1:
        raise RuntimeError(f"expected one Fourier basis in the graph, found {len(found)}")
    n = np.arange(FFT)
    half = len(basis) // 2
    first = int(np.argmax(np.abs(np.fft.rfft(basis[0, 0]))))
    bins = np.tile(np.arange(first, first + half), 2)
    # -sin(x) = cos(x + a quarter turn)
    turn = np.repeat([0, FFT // 4], half)
    cosine = np.cos(2 * np.pi * n / FFT).astype(np.float32)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * n / FFT)).astype(np.float32)
    again = cosine[(bins[:, None] * n + turn[:, None]) % FFT] * window
    if np.abs(again - basis[:, 0]).max() > 1e-6:
        raise RuntimeError("the formula does not give the Fourier basis")

    name = found[0].name
    graph.initializer.remove(found[0])
    constants = {
        "fourier.bins": bins[:, None, None].astype(np.int64),
        "fourier.turn": turn[:, None, None].astype(np.int64),
        "fourier.n": n[None, None].astype(np.int64),
        "fourier.size": np.array(FFT, dtype=np.int64),
        "fourier.cosine": cosine,
        "fourier.window": window,
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    nodes = [
        helper.make_node("Mul", ["fourier.bins", "fourier.n"], ["fourier.kn"]),
        helper.make_node("Add", ["fourier.kn", "fourier.turn"], ["fourier.turned"]),
        helper.make_node("Mod", ["fourier.turned", "fourier.size"], ["fourier.at"]),
        helper.make_node("Gather", ["fourier.cosine", "fourier.at"], ["fourier.wave"]),
        helper.make_node("Mul", ["fourier.wave", "fourier.window"], [name]),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def run_torch(tower: Tower, model: Mmv, rows: np.ndarray) -> dict[str, np.ndarray]:
    """{space: f32 [N, dim]}, un-normalised."""
    module = TowerModule(model, tower)
    with torch.no_grad():
        # One row at a time: a clip of a large network fills a gigabyte on its way.
        each = [module(torch.from_numpy(rows[i : i + 1])) for i in range(len(rows))]
    out = [torch.cat(parts) for parts in zip(*each, strict=True)]
    return {space: v.numpy() for space, v in zip(tower.outputs, out, strict=True)}


def run_onnx(path: Path, tower: Tower, rows: np.ndarray) -> dict[str, np.ndarray]:
    """{space: f32 [N, dim]} from ONNX Runtime: all rows at once, then checked one by one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # The arena doubles what a batch of the largest network needs.
    options.enable_cpu_mem_arena = False
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Copies: what the runtime hands out keeps all of its memory alive.
    out = [v.copy() for v in session.run(list(tower.outputs), {tower.input: rows})]
    one = session.run(list(tower.outputs), {tower.input: rows[:1]})
    for whole, single in zip(out, one, strict=True):
        loose = MAX_ONE_MINUS_COSINE / 10 if tower.precision == "f32" else 1e-2
        if one_minus_cosine(whole[:1], single) > loose:
            raise TrainerError(f"{path.name}: a row's vector depends on the batch around it")
    return dict(zip(tower.outputs, out, strict=True))


def one_minus_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The largest over the rows, in f64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float((1 - cosine).max())


def training_record(cfg: TrainConfig, steps_done: int, before: dict | None = None) -> dict:
    """What the manifest says about the training, and about the run `before` it (`train.train`)."""
    kept = cfg.to_dict()
    left_out = ("model", "data", "name", "device", "threads", "workers")
    settings = {k: kept[k] for k in kept if k not in left_out}
    towers = {k: kept["model"][k] for k in ("video_width", "audio_width", "text_hidden")}
    initial = {}
    if before:
        first = from_dict(TrainConfig, before["config"])
        initial = {"initial": training_record(first, before["step"], before["before"])}
    return {
        "command": f"triptych-trainer train --config {cfg.name}"
        + " --initial CHECKPOINT" * bool(before),
        "data": "procedural world, scenes drawn from the seed; no recorded footage",
        "steps_done": steps_done,
        "clips_seen": steps_done * cfg.batch_size,
        **towers,
        **settings,
        **initial,
    }
