"""Folders that cannot be imported end with a sentence that says what to do."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import hf_checkpoints as made
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triptych_trainer.cli import main
from triptych_trainer.hf.bank import given_bank, own_bank
from triptych_trainer.hf.command import import_hf
from triptych_trainer.hf.errors import Refused
from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.loading import load
from triptych_trainer.hf.pictures import image_processor
from triptych_trainer.hf.texts import load_tokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.clip(tmp_path_factory.mktemp("clip") / "clip")


def changed(folder: Path, name: str, **fields) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def weights(folder: Path, change: Callable[[dict], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def first_nan(tensors: dict) -> None:
    name = next(name for name in sorted(tensors) if tensors[name].ndim == 2)
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] = np.nan


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def half_a_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def another_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()


def small_word_table(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    changed(folder, "config.json", text_config=text | {"vocab_size": 50})
    name = "text_model.embeddings.token_embedding.weight"
    weights(folder, lambda t: t.update({name: t[name][:50].copy()}))


def missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    made.write_json(folder, "model.safetensors.index.json", index)


def shard_elsewhere(folder: Path) -> None:
    index = {"weight_map": {"a": "../clip/model.safetensors"}}
    made.write_json(folder, "model.safetensors.index.json", index)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (only_pickle, r"only as pytorch_model.bin.*can run code.*model\.safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "download the weights too"),
    "cut weights": (half_a_file, "do not fit config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json.*download the whole"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "not contain a JSON"),
    "unknown family": (lambda f: changed(f, "config.json", model_type="bert"), "that can be"),
    "remote code": (
        lambda f: changed(f, "config.json", model_type="mine", auto_map={"AutoModel": "m.M"}),
        "contains Python code.*never run",
    ),
    "no picture rule": (lambda f: (f / "preprocessor_config.json").unlink(), "how pictures are"),
    "another size": (
        lambda f: changed(f, "preprocessor_config.json", crop_size={"height": 64, "width": 64}),
        "makes pictures of 64x64, config.json takes 32x32",
    ),
    "box filter": (lambda f: changed(f, "preprocessor_config.json", resample=4), "filter 4"),
    "no resize": (
        lambda f: changed(f, "preprocessor_config.json", do_resize=False), "does not resize"
    ),
    "no tokenizer": (another_tokenizer, r"has no tokenizer\.json"),
    "small word table": (small_word_table, "gives ids up to .* has 50 rows"),
    "missing tensor": (
        lambda f: weights(f, lambda t: t.pop("visual_projection.weight")),
        "lack 1 of the tensors.*visual_projection.weight",
    ),
    "another shape": (
        lambda f: weights(f, lambda t: t.update({"logit_scale": np.ones(3, np.float32)})),
        "another shape for 1.*logit_scale",
    ),
    "NaN": (lambda f: weights(f, first_nan), "NaN or infinity"),
    "missing shard": (missing_shard, "lacks model-00001-of-00002.safetensors"),
    "shard elsewhere": (shard_elsewhere, "not a .safetensors file of this folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_instead_of_a_bundle(
    clip: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture
) -> None:
    change, said = CASES[case]
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    change(folder)
    with pytest.raises(SystemExit) as ended:
        main(["import-hf", str(folder), "--out", str(tmp_path / "out")])
    sentence = str(ended.value)
    assert re.search(said, sentence, re.DOTALL), sentence
    assert sentence.startswith("triptych-trainer import-hf: ")
    assert "Traceback" not in sentence + capsys.readouterr().err
    # Neither a bundle nor a part of one.
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_folders_and_targets_are_checked_before_anything_is_read(
    clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="is not a folder"):
        import_hf([tmp_path / "absent"], tmp_path / "out")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all my work")
    with pytest.raises(Refused, match="exists and is not a bundle"):
        import_hf([clip], mine)
    assert (mine / "thesis.txt").read_text() == "all my work"
    for options in (["--frames", "0"], ["--window", "0"]):
        with pytest.raises(SystemExit, match=options[0]):
            main(["import-hf", str(clip), "--out", str(tmp_path / "o"), *options])


def test_code_of_a_folder_is_not_run(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip, folder)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    auto = {"AutoModel": "code.Model", "AutoConfig": "code.Config", "AutoTokenizer": "code.T"}
    changed(folder, "config.json", auto_map=auto, model_type="mine")
    with pytest.raises(Refused, match="never run"):
        import_hf([folder], tmp_path / "out")
    changed(folder, "config.json", model_type="clip")
    changed(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]})
    changed(folder, "preprocessor_config.json", auto_map={"AutoImageProcessor": "code.P"})
    opened = HfFolder.open(folder)
    for read in (load_tokenizer, image_processor, lambda f: load(f, "CLIPModel")):
        with contextlib.suppress(Refused):
            read(opened)
    assert not (tmp_path / "ran").exists()


def test_banks(tmp_path: Path) -> None:
    own = own_bank()
    assert len(own["texts"]) >= 300 and own["language"] == "en"
    assert all(text == text.strip() and len(text) < 80 for text in own["texts"])
    lines = tmp_path / "bank.txt"
    lines.write_text("\n".join(f"ein Ding {i}" for i in range(30)) + "\n\nein Ding 1\n")
    given = given_bank(lines)
    assert len(given["texts"]) == 30 and given["source"] == "given with --bank bank.txt"
    as_json = tmp_path / "bank.json"
    as_json.write_text(json.dumps(given | {"language": "de"}))
    assert given_bank(as_json)["language"] == "de"
    for content, said in (("one\ntwo", "2 different texts"), ("\xff", "read as UTF-8")):
        lines.write_bytes(content.encode("latin-1"))
        with pytest.raises(Refused, match=said):
            given_bank(lines)
    as_json.write_text('{"texts": [1, 2]}')
    with pytest.raises(Refused, match="not a string"):
        given_bank(as_json)


def test_what_a_card_says(tmp_path: Path) -> None:
    folder = HfFolder(tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my-licence\nlanguage: [de, fr]\n---\n# Title\n\n"
        "A [model](https://example.org) of **two** towers that was trained on pictures.\n\n"
        "| a | b |\n|---|---|\n\n```sh\nrm\n```\n"
    )
    assert folder.license() == "my-licence"
    assert folder.languages() == ["de", "fr"]
    assert folder.card() == "A model of two towers that was trained on pictures."
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert HfFolder(tmp_path).license() is None
