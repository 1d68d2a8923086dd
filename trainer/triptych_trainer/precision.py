"""Exported towers in fp16 and int8, and the measurements of every export."""

import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

REPEATS = 5
ENOUGH_SECS = 5.0
"""A large network is timed once, a small one `REPEATS` times."""


class Half(nn.Module):
    """A model's backbones and heads in fp16, for export: the log-mel front end, whose range needs
    it, and the results stay f32. Takes the place of the model in a tower."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()
        if hasattr(model, "log_mel"):
            self.log_mel = model.log_mel

    def embed_video(self, frames: Tensor) -> dict[str, Tensor]:
        x = (frames.to(torch.float32) / 255.0).half()
        return _full(self.model.embed_video(x))

    def embed_image(self, image: Tensor) -> dict[str, Tensor]:
        x = (image.to(torch.float32) / 255.0).half()
        return _full(self.model.embed_image(x))

    def embed_audio(self, pcm: Tensor) -> dict[str, Tensor]:
        return _full(self.model.embed_audio_logmel(self.log_mel(pcm).half()))

    def embed_text(self, token_ids: Tensor) -> dict[str, Tensor]:
        return _full(self.model.embed_text(token_ids))


def _full(out: dict[str, Tensor]) -> dict[str, Tensor]:
    return {space: vectors.to(torch.float32) for space, vectors in out.items()}


def _front_end(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes up to the logarithm of the log-mel; none in a graph without one."""
    nodes = list(graph.node)
    last = max((i for i, node in enumerate(nodes) if node.op_type == "Log"), default=-1)
    return [node.name for node in nodes[: last + 1] if node.name]


class _Rows(CalibrationDataReader):
    def __init__(self, name: str, rows: np.ndarray) -> None:
        self.feeds = iter([{name: rows[i : i + 1]} for i in range(len(rows))])

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


def to_int8(path: Path, input_name: str, calibration: np.ndarray) -> None:
    """Rewrites an f32 tower in place: convolutions and matrix products between QDQ pairs, weights
    by channel, ranges from `calibration` rows. The front end of sound stays f32."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        # Joins BatchNorms with the convolutions before them.
        quant_pre_process(str(path), str(source), skip_symbolic_shape=True)
        front_end = _front_end(onnx.load(str(source)).graph)
        quantize_static(
            str(source),
            str(target),
            _Rows(input_name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=front_end,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        path.write_bytes(target.read_bytes())


def cosines(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, dict]:
    """Mean and min over the rows, by space."""
    out = {}
    for space, reference in want.items():
        a, b = got[space].astype(np.float64), reference.astype(np.float64)
        cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        out[space] = {"cosine_mean": float(cosine.mean()), "cosine_min": float(cosine.min())}
    return out


def milliseconds(files: list[Path], input_name: str, row: np.ndarray) -> list[float]:
    """Median time of one row on one CPU thread; the files take turns, so that a busy moment
    falls on all of them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        ort.InferenceSession(str(f), options, providers=["CPUExecutionProvider"]) for f in files
    ]
    times: list[list[float]] = [[] for _ in files]
    begun = time.perf_counter()
    for turn in range(REPEATS + 1):
        if turn > 1 and time.perf_counter() - begun > ENOUGH_SECS:
            break
        for session, taken in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session.run(None, {input_name: row})
            if turn:
                taken.append(1000 * (time.perf_counter() - started))
    return [round(statistics.median(taken), 3) for taken in times]
