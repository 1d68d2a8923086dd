"""Every command with files that are not there, wrong or damaged, and with losses that are no
numbers: one sentence that names the file, never a traceback."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny, tiny_deflated

from triptych_trainer import cli
from triptych_trainer.config import PRESETS
from triptych_trainer.errors import TrainerError, sentence
from triptych_trainer.train import build_model, save_checkpoint

FAULT = "a fault of this program"


def said(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What the command ends with."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    message = ended.value.code
    assert isinstance(message, str), f"{arguments} ended with {message}"
    assert message.startswith(f"triptych-trainer {arguments[0]}: "), message
    assert "\n" not in message and "Traceback" not in message
    assert "Traceback" not in capsys.readouterr().err
    assert FAULT not in message, message
    return message


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One right file of each kind."""
    root = tmp_path_factory.mktemp("good")
    cfg = PRESETS["tiny"]
    model = build_model(cfg)
    save_checkpoint(
        root / "checkpoint.pt", cfg, model, torch.optim.Adam(model.parameters()), 1, ["a", "b"]
    )
    torch.save(tiny_deflated(tiny()).learnt(), root / "deflated.pt")
    (root / "words.txt").write_text("a\nb\n")
    (root / "report.json").write_text("{}")
    np.save(root / "dict.npy", np.array(["a", "b"]))
    (root / "list.csv").write_text("video_id,sentence,task,start,end,text\nv,a b,1,0,1,a\n")
    with (root / "mmv.pkl").open("wb") as file:
        pickle.dump({"params": {}, "state": {}}, file)
    names = {path.stem: path for path in root.iterdir()}
    return names | {"root": root}


def missing(path: Path, _: dict) -> None:
    """Nothing is there."""


def folder(path: Path, _: dict) -> None:
    path.mkdir()


def empty(path: Path, _: dict) -> None:
    path.write_bytes(b"")


def noise(path: Path, _: dict) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(4000))


def text(path: Path, _: dict) -> None:
    path.write_text("<html>404 not found</html>\n" * 5)


def half(path: Path, good: dict) -> None:
    data = good["checkpoint"].read_bytes()
    path.write_bytes(data[: len(data) // 2])


def other_tensors(path: Path, _: dict) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def other_json(path: Path, _: dict) -> None:
    path.write_text("[1, 2, 3]")


def code(path: Path, _: dict) -> None:
    with path.open("wb") as file:
        pickle.dump(print, file)


def arrays(path: Path, _: dict) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


WRONG = [missing, folder, empty, noise, text, half, other_tensors, other_json, code, arrays]

COMMON = ["--device", "cpu", "--out", "{out}"]
CASES = {
    "train": ["--config", "tiny", "--out", "{out}", "--device", "cpu", "--initial", "{bad}"],
    "train config": ["--config", "{bad}.toml", "--out", "{out}"],
    "vocabulary": ["--config", "{bad}.toml"],
    "bench-data": ["--config", "{bad}.toml"],
    "bench-train": ["--config", "{bad}.toml"],
    "evaluate": ["--checkpoint", "{bad}", "--out", "{out}/e.json"],
    "evaluate deflated": [
        *("--checkpoint", "{checkpoint}", "--out", "{out}/e.json", "--deflated", "{bad}"),
        *("--sets", "1", "--clips", "2", "--no-controls"),
    ],
    "export": ["--checkpoint", "{bad}", "--out", "{out}"],
    "export evaluation": [
        "--checkpoint",
        "{checkpoint}",
        "--out",
        "{out}",
        "--evaluation",
        "{bad}",
    ],
    "export deflation": ["--checkpoint", "{checkpoint}", "--out", "{out}", "--deflation", "{bad}"],
    "export deflated": ["--checkpoint", "{checkpoint}", "--out", "{out}", "--deflated", "{bad}"],
    "samples": ["--checkpoint", "{bad}", "--out", "{out}"],
    "bars": ["{bad}", "keep"],
    "harden": ["{bad}", "--steps", "1"],
    "reduce": ["{bad}", "--out", "{out}/r", "--precision", "f16"],
    "bench-family": ["{bad}", "--towers"],
    "serve-eval": ["--bin", "{bad}", "--sets", "1", "--clips", "1", "--out", "{out}/s.json"],
    "deflate": ["--checkpoint", "{bad}", "--out", "{out}/d.pt"],
    "deflate images": ["--checkpoint", "{checkpoint}", "--out", "{out}/d.pt", "--images", "{bad}"],
    "evaluate-deflation": ["--checkpoint", "{bad}", "--out", "{out}/d.json"],
    "evaluate-deflation deflated": ["--checkpoint", "{checkpoint}", "--deflated", "{bad}"],
    "import-deepmind": ["{bad}", "--out", "{out}"],
    "import-milnce": ["{bad}", "--dictionary", "{dict}", "--out", "{out}"],
    "import-hf": ["{bad}", "--out", "{out}"],
    "pull": ["pe-av-small", "--folder", "{bad}", "--out", "{out}/m", "--accept-licence"],
    "eval-msrvtt": ["--csv", "{list}", "--videos", "{root}", "--model", "{bad}", *COMMON],
    "eval-msrvtt csv": ["--csv", "{bad}", "--videos", "{root}", "--model", "{checkpoint}", *COMMON],
    "eval-msrvtt deflated": [
        *(
            "--csv",
            "{list}",
            "--videos",
            "{root}",
            "--model",
            "{checkpoint}",
            "--deflated",
            "{bad}",
        ),
        *COMMON,
    ],
    "eval-youcook2": ["--csv", "{bad}", "--videos", "{root}", "--model", "{checkpoint}", *COMMON],
    "eval-ucf101": ["--videos", "{root}", "--lists", "{bad}", "--model", "{checkpoint}", *COMMON],
    "eval-hmdb51": ["--videos", "{root}", "--lists", "{bad}", "--model", "{checkpoint}", *COMMON],
    "eval-kinetics600": [
        *("--videos", "{root}", "--train", "{bad}", "--test", "{bad}", "--model", "{checkpoint}"),
        *COMMON,
    ],
    "eval-esc50": ["--root", "{bad}", "--model", "{checkpoint}", *COMMON],
    "eval-audioset": [
        *("--train", "{list}", "--train-files", "{root}", "--test", "{list}"),
        *("--test-files", "{root}", "--classes", "{bad}", "--model", "{checkpoint}", *COMMON),
    ],
    "eval-voc07": ["--root", "{bad}", "--model", "{checkpoint}", *COMMON],
    "eval-imagenet": ["--root", "{bad}", "--model", "{checkpoint}", *COMMON],
    "finetune-ucf101": [
        "--videos",
        "{root}",
        "--lists",
        "{bad}",
        "--model",
        "{checkpoint}",
        *COMMON,
    ],
    "finetune-hmdb51": [
        "--videos",
        "{root}",
        "--lists",
        "{bad}",
        "--model",
        "{checkpoint}",
        *COMMON,
    ],
    "export-features": ["--to", "{out}", "--model", "{bad}", *COMMON],
    "export-features published": ["--to", "{out}", "--model", "{bad}.pkl", *COMMON],
}
# An empty list of settings is the defaults, and any object is an evaluation.
RIGHT = {case for case in CASES if "{bad}.toml" in CASES[case]}


def tried() -> list[tuple[str, Callable]]:
    """Files of one kind are read by one function: not every command needs every damage."""
    found = []
    for number, case in enumerate(CASES):
        kinds = [missing, folder, *(WRONG[2 + (number + n) % (len(WRONG) - 2)] for n in range(3))]
        kinds += [half, other_tensors] if "checkpoint" in str(CASES[case]) else [noise, text]
        found += [(case, kind) for kind in dict.fromkeys(kinds)]
    return [(case, kind) for case, kind in found if case not in RIGHT or kind is not empty]


@pytest.mark.parametrize(
    ("case", "wrong"), tried(), ids=lambda of: of if isinstance(of, str) else of.__name__
)
def test_a_wrong_file_is_a_sentence(
    case: str,
    wrong: Callable,
    good: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    bad, out = tmp_path / "the-wrong-one", tmp_path / "out"
    out.mkdir()
    suffix = next((a[len("{bad}") :] for a in CASES[case] if a.startswith("{bad}.")), "")
    wrong(bad.with_name(bad.name + suffix), good)
    values = {name: str(path) for name, path in good.items()} | {"bad": bad, "out": out}
    message = said(
        capsys, case.split()[0], *(argument.format(**values) for argument in CASES[case])
    )
    # The person has to see which file it is about.
    assert "the-wrong-one" in message, message


def test_every_command_is_tried() -> None:
    without_files = {"ablation", "bench-towers"}
    assert {case.split()[0] for case in CASES} | without_files == set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("steps = 'many'", "steps"),
        ("stepz = 3", "stepz"),
        ("preset = 'huge'", "huge"),
        ("[model]\nframes = 2.5", "frames"),
        ("[model]\nframes = true", "frames"),
        ("[model]\nbackbone = 'vgg'", "vgg"),
        ("model = 3", "model"),
        ("steps = ", "TOML"),
        ("[[data.sources]]\nname = 'x'\nkind = 'films'\nindex = 'i'", "films"),
        ("[[data.sources]]\nname = 'x'", "index"),
    ],
)
def test_a_wrong_setting_is_named(
    toml: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml + "\n")
    for command in ("train", "vocabulary", "bench-train"):
        message = said(capsys, command, "--config", path)
        assert words in message and "mine.toml" in message


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_no_number(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych_trainer import train as loop

    whole = loop.losses_of

    def broken(*arguments: object) -> dict[str, torch.Tensor]:
        found = whole(*arguments)
        if what == "loss":
            return {name: value * float("nan") for name, value in found.items()}
        # Of a square root at 0 the value is a number, the gradient none.
        return {name: value + (value - value).abs().sqrt() for name, value in found.items()}

    monkeypatch.setattr(loop, "losses_of", broken)
    message = said(capsys, "train", "--config", "tiny", "--out", tmp_path, "--device", "cpu")
    assert "step 0" in message and "--lr" in message


def test_weights_that_are_no_numbers(
    good: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A checkpoint of a training that diverged."""
    state = torch.load(good["checkpoint"], weights_only=True)
    for value in state["model"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    options = ["--checkpoint", tmp_path / "nan.pt", "--out", tmp_path / "out"]
    for command in ("export", "deflate", "samples", "evaluate"):
        message = said(capsys, command, *options)
        assert "nan.pt" in message and "infinity" in message


def test_debug_shows_where(good: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainerError):
        cli.main(["bars", "/none", "keep", "--debug"])
    monkeypatch.setenv("TRIPTYCH_DEBUG", "1")
    with pytest.raises(TrainerError):
        cli.main(["bars", "/none", "keep"])


def test_what_was_typed_wrong_ends_with_2(capsys: pytest.CaptureFixture) -> None:
    for arguments in (
        ["nothing"],
        ["bars"],
        ["train", "--steps", "many"],
        ["pull", "--frames", "x"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m triptych_trainer.cli pull --list | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file", "x.pt"), "x.pt does not exist"),
        (PermissionError(13, "Permission denied", "x.pt"), "x.pt: permission denied"),
        (OSError(28, "No space left on device", "x.pt"), "disk is full"),
        (OSError(5, "Input/output error", "x.pt"), "x.pt: Input/output error"),
        (MemoryError(), "memory"),
        (KeyError("the file has 'a', which is too much"), "which is too much"),
        (KeyError("weights"), FAULT),
        (TypeError("'int' object is not iterable"), FAULT),
        (FloatingPointError("step 3: the loss is nan"), "step 3"),
        (
            subprocess.CalledProcessError(1, ["/a/ffmpeg", "-i"], stderr=b"one\nbad data\n"),
            "bad data",
        ),
    ],
)
def test_sentences(error: BaseException, words: str) -> None:
    assert words in sentence(error)
    assert "\n" not in sentence(error)


def test_a_traceback_of_a_worker_is_left_out() -> None:
    told = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call"
    told += ' last):\n  File "x.py", line 3, in f\nValueError: mine.csv: no column path\n'
    assert sentence(ValueError(told)) == "mine.csv: no column path"
    assert not re.search(r"line \d", sentence(RuntimeError(told)))


def test_a_manifest_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": 2, "towers": {}}))
    assert "no tower for pictures" in said(capsys, "bars", tmp_path, "keep")
