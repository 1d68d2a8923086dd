"""Every protocol through its command, on a few files in the real layout."""

import json
from dataclasses import replace
from pathlib import Path

import benchmarks
import layouts
import numpy as np
import pytest
import torch
from support import random_statistics

from triptych_trainer import cli
from triptych_trainer.config import TrainConfig
from triptych_trainer.data.config import Augment, DataConfig, Source
from triptych_trainer.deflate import Deflated
from triptych_trainer.protocols import classify, report
from triptych_trainer.protocols.actions import hmdb51_c
from triptych_trainer.protocols.features import Extractor
from triptych_trainer.protocols.finetune import FinetuneRecipe, finetune
from triptych_trainer.protocols.retrieval import Pair, youcook2_pairs, zero_shot
from triptych_trainer.protocols.splits import hmdb51, ucf101
from triptych_trainer.protocols.towers import OnnxTowers, TextRule, open_towers
from triptych_trainer.protocols.windows import Media, VideoRule, random_windows, spread_windows
from triptych_trainer.tokenizer import build_tokenizer
from triptych_trainer.train import build_model, save_checkpoint

NETWORKS = (
    {"video_width": 1.0},
    {"backbone": "tsm", "video_width": 1.0},
    {"backbone": "tsm", "video_width": 2.0},
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def made(root: Path) -> list[list[Path]]:
    return benchmarks.videos(root / "made")


@pytest.fixture(scope="module")
def jpegs(root: Path) -> list[list[Path]]:
    return benchmarks.jpegs(root / "jpegs")


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return untrained(root / "checkpoint.pt")


def untrained(path: Path, *, statistics: bool = True, **model: object) -> Path:
    """An untrained model; `statistics`: with BatchNorms that do something."""
    data = DataConfig((Source("x", "manifest", "x.jsonl"),), layouts.words(path.parent))
    sizes = replace(benchmarks.tiny_model(), **model)
    cfg = TrainConfig(model=sizes, data=data, name="untrained", device="cpu")
    network = build_model(cfg)
    if statistics:
        random_statistics(network)
    optimizer = torch.optim.Adam(network.parameters())
    save_checkpoint(path, cfg, network, optimizer, 0, [*layouts.WORDS, "blue", "thing"])
    return path


def run(command: str, out: Path, model: Path, *options: object) -> dict:
    """The JSON a command writes."""
    common = ["--model", model, "--out", out, "--device", "cpu"]
    cli.main([command, *(str(option) for option in (*common, *options))])
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def test_ucf101(root: Path, made, checkpoint: Path, tmp_path: Path, capsys) -> None:
    videos, lists = benchmarks.ucf101(root / "ucf", made)
    options = ("--videos", videos, "--lists", lists, "--epochs", 3, "--windows", 3, "--c", 1)
    found = run("eval-ucf101", tmp_path, checkpoint, *options)
    assert found["results"].keys() == {"ucf101.linear", "ucf101.split1", "ucf101.split2"}
    assert found["results"]["ucf101.linear"] == 100.0 and found["missing"] == 0
    assert found["paper"]["ucf101.linear"]["TSM-50"] == 91.5
    assert found["settings"]["rule"] | {"frames": 4} == {
        "fps": 25.0,
        "stride": 2,
        "frames": 4,
        "resize": 36,
        "crop": 32,
        "bars": "crop",
        "max_secs": 20.0,
    }
    assert "91.5" in capsys.readouterr().out
    # The second time the features are there already.
    data = ucf101(videos, lists)
    assert data.classes == list(benchmarks.CLASSES) and len(data.splits[0][0]) == 6
    kept = sorted((tmp_path / "features").iterdir())
    before = [path.stat().st_mtime_ns for path in kept]
    again = run("eval-ucf101", tmp_path, checkpoint, *options)
    assert again == found and len(kept) == 2
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_hmdb51_with_a_file_that_is_gone(
    root: Path, made, checkpoint: Path, tmp_path: Path
) -> None:
    videos, lists = benchmarks.hmdb51(root / "hmdb", made)
    data = hmdb51(videos, lists)
    assert [len(part) for part in data.splits[0]] == [4, 2] and len(data.files) == 6
    (videos / "red_thing" / "a_red_thing_#0_f.avi").write_bytes(b"gone")
    options = ("--videos", videos, "--lists", lists, "--epochs", 3, "--windows", 2, "--c", 1)
    found = run("eval-hmdb51", tmp_path, checkpoint, *options)
    assert found["results"]["hmdb51.linear"] == 100.0 and found["missing"] == 1
    by_network = [hmdb51_c(replace(benchmarks.tiny_model(), **net)) for net in NETWORKS]
    assert by_network == [3e-4, 1e-4, 3e-4]


def test_finetuning_learns(root: Path, made, tmp_path: Path) -> None:
    start = untrained(tmp_path / "checkpoint.pt", statistics=False)
    videos, lists = benchmarks.hmdb51(root / "hmdb-ft", made)
    # A turn of the hue would take away what the classes differ in.
    still = Augment(scale_jitter_chance=0, random_crop=False, flip_chance=0, colour_chance=0)
    how = FinetuneRecipe(epochs=30, batch_size=4, lr=0.01, dropout=0.0, augment=still)
    towers, data = open_towers(start, device="cpu"), hmdb51(videos, lists)
    before = {k: v.clone() for k, v in towers.model.state_dict().items()}
    found = finetune(towers, "hmdb51", data, how, windows=2, workers=0, say=lambda _: None)
    assert found.results["hmdb51.finetuned"] == 100.0
    # Every split starts from the checkpoint's network.
    assert all(torch.equal(v, before[k]) for k, v in towers.model.state_dict().items())

    options = ("--videos", videos, "--lists", lists, "--epochs", 1, "--clips", 4)
    found = run("finetune-hmdb51", tmp_path, start, *options, "--workers", 0)
    assert found["paper"]["hmdb51.finetuned"]["S3D-G"] == 69.6


def test_finetuning_ucf101(root: Path, made, checkpoint: Path, tmp_path: Path) -> None:
    videos, lists = benchmarks.ucf101(root / "ucf-ft", made)
    options = ("--videos", videos, "--lists", lists, "--epochs", 1, "--clips", 4, "--splits", 2)
    found = run("finetune-ucf101", tmp_path, checkpoint, *options, "--workers", 0)
    assert found["results"].keys() == {"ucf101.finetuned", "ucf101.split2"}


def test_kinetics600(root: Path, made, checkpoint: Path, tmp_path: Path) -> None:
    videos, train, test = benchmarks.kinetics(root / "k600", made)
    options = ("--videos", videos, "--train", train, "--test", test, "--lr", 0.02)
    found = run("eval-kinetics600", tmp_path, checkpoint, *options, "--windows", 2)
    assert found["results"]["kinetics600.linear"] == 100.0 and found["files"] == 8


def test_esc50_through_pytorch_and_onnx(root: Path, tmp_path: Path) -> None:
    # TSM exports in half of S3D's time.
    checkpoint = untrained(tmp_path / "checkpoint.pt", backbone="tsm")
    folder = benchmarks.esc50(root / "esc")
    options = ("--root", folder, "--windows", 2, "--c", 0.1)
    found = run("eval-esc50", tmp_path / "torch", checkpoint, *options)
    assert found["results"]["esc50.linear"] >= 90.0 and len(found["results"]) == 6

    exported = tmp_path / "exported"
    wanted = ("--towers", "video", "audio", "text")
    cli.main(["export-features", *map(str, ("--to", exported, "--model", checkpoint, *wanted))])
    onnx = run("eval-esc50", tmp_path / "onnx", exported, *options)
    assert onnx["model"] == "onnx" and onnx["results"] == found["results"]

    torch_towers, onnx_towers = open_towers(checkpoint, device="cpu"), OnnxTowers(exported)
    rng, cfg = np.random.default_rng(0), benchmarks.tiny_model()
    shape = (3, cfg.frames, cfg.crop, cfg.crop, 3)
    frames = rng.integers(0, 256, shape, dtype=np.uint8)
    texts = ["a red thing", "BLUE unknown"]
    rows = {
        "video": frames,
        "audio": rng.uniform(-1, 1, (3, cfg.samples)).astype(np.float32),
        "text": torch_towers.text.ids(texts, cfg.max_words),
    }
    assert np.array_equal(rows["text"], onnx_towers.text.ids(texts, cfg.max_words))
    for tower, inputs in rows.items():
        a, b = torch_towers.run(tower, inputs), onnx_towers.run(tower, inputs)
        assert a.keys() == b.keys() >= {"feature"}
        for name in a:
            assert np.abs(a[name] - b[name]).max() <= 2e-4 * np.abs(a[name]).max(), (tower, name)
    with pytest.raises(ValueError, match="--crop"):
        onnx_towers.run("video", frames[:, :2])
    with pytest.raises(ValueError, match="deflated"):
        onnx_towers.run("image", frames[:, 0])


def test_audioset(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = benchmarks.audioset(root / "audioset")
    options = ("--train", files["balanced_train"], "--train-files", files["balanced_train_files"])
    options += ("--test", files["eval"], "--test-files", files["eval_files"])
    options += ("--classes", files["classes"], "--windows", 2, "--hidden", 16, "--lr", 0.02)
    found = run("eval-audioset", tmp_path, checkpoint, *options)
    assert found["missing"] == 1 and found["settings"]["classes_in_test"] == 3
    assert 60 < found["results"]["audioset.map"] <= 100


def test_msrvtt_and_youcook2(root: Path, made, checkpoint: Path, tmp_path: Path) -> None:
    table, videos = benchmarks.msrvtt(root / "msrvtt", made)
    options = ("--csv", table, "--videos", videos, "--windows", 2)
    found = run("eval-msrvtt", tmp_path / "m", checkpoint, *options)
    names = {f"msrvtt.{k}" for k in ("r@1", "r@5", "r@10", "median_rank")}
    assert found["results"].keys() == names and found["files"] == 8
    assert found["results"]["msrvtt.r@10"] == 100.0
    assert found["paper"]["msrvtt.r@10"] == {"FAC, HT": 28.6, "FAC, HT+AS": 23.5}

    table, videos = benchmarks.youcook2(root / "youcook", made)
    pairs = youcook2_pairs(table, videos)
    assert pairs[1].media.span == (1.0, 2.0) and pairs[1].media.path.name == "-yc0.mp4"
    options = ("--csv", table, "--videos", videos, "--windows", 2, "--score", "dot")
    found = run("eval-youcook2", tmp_path / "y", checkpoint, *options)
    assert found["results"]["youcook2.r@5"] == 100.0 and found["files"] == 4


class Oracle:
    """Knows which colour a video has and which one a text names."""

    source, digest = "oracle", "oracle"

    def __init__(self) -> None:
        self.cfg = benchmarks.tiny_model()
        self.text = TextRule(build_tokenizer(["red", "blue"]), 1, 0)

    def run(self, tower: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        if tower == "text":
            vectors = np.stack([(rows == 2).any(1), (rows == 3).any(1)], axis=1)
        else:
            pixels = rows.reshape(len(rows), -1, 3).astype(float)
            away = pixels - pixels.mean(axis=2, keepdims=True)
            vectors = np.maximum(away, 0).sum(axis=1)[:, [0, 2]]
        return {"coarse": vectors.astype(np.float32)}


def test_retrieval_finds_what_an_oracle_knows(root: Path, made) -> None:
    pairs = [Pair("a red thing", Media(made[1][0])), Pair("one blue thing", Media(made[0][0]))]
    quiet = Extractor(Oracle(), say=lambda _: None)
    assert zero_shot(quiet, "msrvtt", pairs, windows=2).results["msrvtt.r@1"] == 100.0
    crossed = [Pair(a.text, b.media) for a, b in zip(pairs, pairs[::-1], strict=True)]
    measured = zero_shot(quiet, "msrvtt", crossed, windows=2).results
    assert measured["msrvtt.r@1"] == 0.0 and measured["msrvtt.median_rank"] == 2.0
    gone = [*pairs, Pair("x", Media(root / "gone.mp4"))]
    assert zero_shot(quiet, "msrvtt", gone, windows=2).missing == 1
    with pytest.raises(ValueError, match="share"):
        towers = Oracle()
        towers.cfg = replace(towers.cfg, spaces="va")
        zero_shot(Extractor(towers), "msrvtt", pairs)


def test_voc07_and_imagenet(root: Path, jpegs, checkpoint: Path, tmp_path: Path) -> None:
    folder = benchmarks.voc07(root / "voc", jpegs)
    model = open_towers(checkpoint, device="cpu").model
    learnt = tmp_path / "deflated.pt"
    torch.save(Deflated(model).learnt(), learnt)
    options = ("--deflated", learnt)
    found = run("eval-voc07", tmp_path / "v", checkpoint, "--root", folder, *options)
    assert found["results"].keys() == {"voc07.naive", "voc07.deflated", "voc07.inflated"}
    assert found["results"]["voc07.inflated"] == 100.0
    assert found["paper"]["voc07.deflated"]["S3D-G"] == 71.4
    # Without re-learning, the deflated network is the naive one.
    assert found["results"]["voc07.naive"] == found["results"]["voc07.deflated"]

    folder = benchmarks.imagenet(root / "imagenet", jpegs)
    options = ("--root", folder, "--ways", "naive", "inflated", "--lr", 0.02)
    found = run("eval-imagenet", tmp_path / "i", checkpoint, *options)
    assert found["results"]["imagenet.inflated.top1"] == 100.0
    assert found["results"]["imagenet.naive.top5"] == 100.0 and found["files"] == 8
    with pytest.raises(SystemExit, match="--deflated"):
        run("eval-imagenet", tmp_path / "j", checkpoint, "--root", folder)


def test_windows(made) -> None:
    rule = VideoRule(10.0, 2, 4, 36, 32)
    spread = spread_windows(Media(made[0][0]), rule, 3)
    assert spread.shape == (3, 4, 32, 32, 3) and not np.array_equal(spread[0], spread[2])
    a, b = (random_windows(Media(made[0][0]), rule, 2, np.random.default_rng(n)) for n in (1, 1))
    assert np.array_equal(a, b) and not np.array_equal(a[0], a[1])
    first = spread_windows(Media(made[0][0], (0.0, 1.0)), replace(rule, stride=1), 1)
    cut = spread_windows(Media(made[0][0]), replace(rule, stride=1, max_secs=1.0), 1)
    assert np.array_equal(first, cut)


def test_svm_averages_decisions_over_windows_and_keeps_class_numbers() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2, 3], 10)
    centres = rng.normal(size=(4, 6)) * 4
    x = centres[labels][:, None] + rng.normal(size=(30, 3, 6))
    test = centres[[0, 2, 3]][:, None] + rng.normal(size=(3, 2, 6))
    scores = classify.svm_scores(x, labels, test, 1.0)
    assert scores.shape == (3, 4) and (scores.argmax(1) == [0, 2, 3]).all()
    assert np.isneginf(scores[:, 1]).all()
    two = classify.svm_scores(x[:20], np.repeat([0, 1], 10), test, 1.0)
    assert two.shape == (3, 2) and np.allclose(two[:, 0], -two[:, 1])
    assert classify.top(np.array([[0.1, np.nan], [0.2, 0.1]]), np.array([0, 0])) == 0.5
    assert classify.top(np.zeros((4, 3)), np.zeros(4, int)) == 0.0
    with pytest.raises(ValueError, match="two classes"):
        classify.svm_scores(x, labels * 0, test, 1.0)


def test_average_precisions_by_hand() -> None:
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])
    # Precision 1 up to a recall of 0.5, 2/3 up to 1.
    assert classify.eleven_point_precision(scores, truth) == pytest.approx((6 + 5 * 2 / 3) / 11)
    value, present = classify.mean_average_precision(scores[:, None], truth[:, None])
    assert present == 1 and value == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(FloatingPointError):
        classify.mean_average_precision(scores[:, None] * np.nan, truth[:, None])


def test_heads_learn_single_and_multiple_labels() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 2, 5)).astype(np.float32)
    x[:, 1] = x[:, 0]
    labels = (x[:, 0, 0] > 0).astype(np.int64)
    how, quiet = classify.HeadRecipe(epochs=40, lr=0.02, batch_size=32), lambda _: None
    scores = classify.head_scores(x[:80], labels[:80], x[80:], 2, how, quiet)
    assert classify.top(scores, labels[80:]) >= 0.95
    many = np.stack([x[:, 0, 0] > 0, x[:, 0, 1] > 0], axis=1).astype(np.float32)
    how = replace(how, hidden=16)
    scores = classify.head_scores(x[:80], many[:80], x[80:], 2, how, quiet)
    assert classify.mean_average_precision(scores, many[80:])[0] >= 0.95


def test_the_papers_numbers_are_the_specifications() -> None:
    assert report.PAPER["ucf101.linear"] == {"S3D-G": 89.6, "TSM-50": 91.5, "TSM-50x2": 91.8}
    assert report.PAPER["imagenet.deflated.top1"]["TSM-50x2"] == 56.6
