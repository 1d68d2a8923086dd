"""The public MIL-NCE weights' import against a restatement of the public model."""

import re
from pathlib import Path

import numpy as np
import public_s3d
import pytest
import torch
from support import check

from triptych_trainer.errors import TrainerError
from triptych_trainer.importer import milnce, vocabulary
from triptych_trainer.importer.commands import import_milnce, sizes
from triptych_trainer.importer.restricted import RefusedError

WORDS = ["dog", "it's", "guitar", "naïve", "a_b", "dog", "7"]
ROWS = len(WORDS) + 1


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return public_s3d.random_weights(ROWS)


@pytest.mark.parametrize("size", [(4, 200, 200), (8, 58, 74), (8, 64, 64)])
def test_vectors_are_the_public_models(weights: dict, size: tuple[int, int, int]) -> None:
    model = milnce.build_model(weights, milnce.config_of(weights))
    torch.manual_seed(1)
    clip, ids = torch.rand(1, *size, 3), torch.randint(0, ROWS, (5, 16))
    with torch.no_grad():
        want = public_s3d.video(weights, clip.permute(0, 4, 1, 2, 3))
        check(model.embed_video(clip)["video_text"], want, "video")
        check(model.embed_text(ids)["video_text"], public_s3d.text(weights, ids), "text")


def test_whole_import(weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triptych_trainer.importer import commands

    seen = {}
    monkeypatch.setattr(
        commands, "write_bundle", lambda model, out, content: seen.update(m=model, c=content) or {}
    )
    torch.save({f"module.{k}": v for k, v in weights.items()}, tmp_path / "s3d.pth")
    np.save(tmp_path / "dict.npy", np.array(WORDS))
    base = sizes(8, 2.5, 64, 64)
    import_milnce(tmp_path / "s3d.pth", tmp_path / "dict.npy", tmp_path / "out", base)
    content, model = seen["c"], seen["m"]
    assert model.space_dims() == {"video_text": 512} and model.modalities == {"video", "text"}
    assert (content.pad_id, content.unknown_id) == (0, ROWS)
    # Unknown words have a row, of zeros, so that no id of the tokenizer is outside the table.
    assert model.text_backbone.words.weight.shape[0] == ROWS + 1
    assert content.inputs["text"].shape[1] == 16 and len(content.texts) >= 2


@pytest.mark.parametrize("kind", ["strings", "objects"])
def test_dictionary(tmp_path: Path, kind: str) -> None:
    array = np.array(WORDS, dtype=object if kind == "objects" else None)
    np.save(tmp_path / "dict.npy", array)
    words = vocabulary.from_milnce_dictionary(tmp_path / "dict.npy", ROWS)
    tokenizer = words.tokenizer()
    ids = {word: i + 1 for i, word in enumerate(WORDS)}
    for text in ["A DOG, it's (guitar)!", "Naïve a_b 7 zebra", "dog " * 20]:
        found = [ids[w] for w in re.findall(r"[\w']+", text.lower()) if w in ids][:16]
        want = found + [0] * (16 - len(found))
        assert words.encode(tokenizer, text).tolist() == want
    with pytest.raises(ValueError, match="rows"):
        vocabulary.from_milnce_dictionary(tmp_path / "dict.npy", ROWS + 1)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_hostile_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "dict.npy", np.array([Evil(), "b"], dtype=object), allow_pickle=True)
    with pytest.raises(RefusedError):
        vocabulary.from_milnce_dictionary(tmp_path / "dict.npy", 3)
    torch.save({"a": Evil()}, tmp_path / "s3d.pth")
    with pytest.raises(TrainerError, match="weights"):
        milnce.read_weights(tmp_path / "s3d.pth")
    torch.save({"a": [1, 2]}, tmp_path / "s3d.pth")
    with pytest.raises(ValueError, match="tensors"):
        milnce.read_weights(tmp_path / "s3d.pth")
    assert "executed" not in capsys.readouterr().out


def test_unknown_forms_are_refused(weights: dict) -> None:
    other = weights | {"conv1.conv1.weight": torch.zeros(64, 3, 3, 7, 7)}
    with pytest.raises(ValueError, match="space-to-depth"):
        milnce.config_of(other)
    with pytest.raises(KeyError, match="extra"):
        milnce.build_model(weights | {"extra.weight": torch.zeros(1)}, milnce.config_of(weights))


def test_weights_that_are_no_numbers_are_refused(weights: dict, tmp_path: Path) -> None:
    broken = {name: value.clone() for name, value in weights.items()}
    broken["fc.weight"][0, 0] = float("nan")
    torch.save(broken, tmp_path / "s3d.pth")
    np.save(tmp_path / "dict.npy", np.array(WORDS))
    with pytest.raises(TrainerError, match=r"s3d\.pth has .* with nan or infinity"):
        import_milnce(
            tmp_path / "s3d.pth", tmp_path / "dict.npy", tmp_path / "out", sizes(8, 2.5, 64, 64)
        )
    assert not (tmp_path / "out").exists()
