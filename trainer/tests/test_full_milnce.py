"""The public MIL-NCE network at its full width behind a real server (`make test-full`)."""

from pathlib import Path

import numpy as np
import public_s3d
import pytest
import torch
from serving import check_served, refused, write_clip

from triptych_trainer.importer.commands import import_milnce, sizes

pytestmark = pytest.mark.full
WORDS = ["dog", "guitar", "river", "it's"]
WINDOW = sizes(frames=8, fps=2.5, resize=74, crop=74)


def test_milnce_over_http(serve, tmp_path: Path) -> None:
    """74 pixels: the pools' fixed padding differs from TensorFlow's there."""
    weights = public_s3d.random_weights(len(WORDS) + 1)
    torch.save(weights, tmp_path / "s3d.pth")
    np.save(tmp_path / "dict.npy", np.array(WORDS))
    bundle = tmp_path / "milnce"
    import_milnce(tmp_path / "s3d.pth", tmp_path / "dict.npy", bundle, WINDOW, say=lambda _: None)
    frames = np.random.default_rng(2).integers(0, 256, (8, 74, 74, 3), np.uint8)
    clip = write_clip(tmp_path / "clip.mkv", frames, WINDOW.fps)
    ids = torch.tensor([[1, 4, 2] + [0] * 13, [3] + [0] * 15])
    with torch.no_grad():
        video = torch.from_numpy(frames)[None].float().permute(0, 4, 1, 2, 3) / 255
        want, texts = public_s3d.video(weights, video), public_s3d.text(weights, ids)
    with serve(bundle, tmp_path) as client:
        check_served(client.embed_file("video", clip, "video_text"), want, "video")
        body = {"modality": "text", "input": ["Dog, it's (guitar)", "RIVER"]}
        rows = client.call("POST", "/v1/embeddings", body)["data"]
        check_served(np.array([row["embedding"] for row in rows]), texts, "text")
        asked = {"query": {"text": "dog"}, "targets": ["audio"]}
        assert refused(client, "/v1/search", asked)[1]["code"] == "not_comparable"
