"""Exported graphs in ONNX Runtime."""

from pathlib import Path

import numpy as np
import torch


def run_onnx(path: Path, outputs: list[str], feed: dict[str, np.ndarray], session=None) -> dict:
    session = session or open_session(path)
    return dict(zip(outputs, session.run(outputs, feed), strict=True))


def open_session(path: Path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False
    # Packed copies of all weights are worth it for a server, not for a handful of rows.
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
