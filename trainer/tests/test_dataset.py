"""Batches come from their number alone, and hold what their description says."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from triptych_trainer.config import PRESETS, TINY
from triptych_trainer.tokenizer import build_tokenizer, encode
from triptych_trainer.world.captions import (
    STOP_WORDS,
    attribute_captions,
    candidates,
    evaluation_caption,
    vocabulary,
)
from triptych_trainer.world.dataset import (
    PAIRS,
    SIBLINGS,
    WorldBatches,
    batch_scenes,
    plain_clip,
    sibling_values,
)
from triptych_trainer.world.render import render
from triptych_trainer.world.scene import ATTRIBUTES, scene_of


def test_any_batch_from_its_number_in_any_process() -> None:
    cfg = replace(PRESETS["tiny"], seed=3, batch_size=6, steps=4)
    data = WorldBatches(cfg)
    here = data[2]
    for batch in (WorldBatches(cfg)[2], _by_worker(data, 2)):
        assert here.keys() == batch.keys()
        assert all(torch.equal(here[key], batch[key]) for key in here)
    other = WorldBatches(replace(cfg, seed=4))[2]
    assert not torch.equal(here["frames"], other["frames"])


def _by_worker(data: WorldBatches, step: int) -> dict[str, torch.Tensor]:
    return next(iter(DataLoader(data, batch_size=None, sampler=[step], num_workers=1)))


def test_shapes_types_and_ranges() -> None:
    batch = WorldBatches(replace(PRESETS["tiny"], batch_size=6))[1]
    assert batch["frames"].shape == (6, 8, 32, 32, 3) and batch["frames"].dtype == torch.uint8
    assert batch["logmel"].shape == (6, 150, 80, 1) and batch["logmel"].isfinite().all()
    assert batch["token_ids"].shape == (6, 5, 16) and batch["token_ids"].dtype == torch.int64
    assert set(batch["text_mask"].tolist()) <= {0.0, 1.0}
    for ids, mask in zip(batch["token_ids"], batch["text_mask"], strict=True):
        assert bool((ids > 0).any()) == bool(mask)


def test_siblings_differ_in_one_attribute() -> None:
    scenes = batch_scenes(np.random.default_rng(0), 32)
    assert len(scenes) == 32
    for first in range(0, 32, SIBLINGS):
        group = scenes[first : first + SIBLINGS]
        kinds = {name: len({getattr(s, name) for s in group}) for name in ATTRIBUTES}
        alone = sorted(kinds.values()) == [1, 1, 1, SIBLINGS]
        assert alone or kinds == {"shape": 2, "size": 2, "colour": 1, "motion": 1}
        texts = {evaluation_caption(s) for s in group}
        assert len(texts) == SIBLINGS


@pytest.mark.parametrize("attribute", PAIRS)
def test_siblings_come_with_what_they_are_mistaken_for(attribute: str) -> None:
    rng, values = np.random.default_rng(1), ATTRIBUTES[attribute]
    assert sorted(name for pair in PAIRS[attribute] for name in pair) == sorted(values)
    seen = set()
    for _ in range(40):
        drawn = sibling_values(rng, attribute)
        assert len(set(drawn)) == SIBLINGS
        names = {values[v] for v in drawn}
        assert all(len(names & set(pair)) in (0, 2) for pair in PAIRS[attribute])
        seen |= names
    assert seen == set(values)


def test_sound_comes_from_its_step_on() -> None:
    data = WorldBatches(replace(PRESETS["tiny"], batch_size=2, audio_from_step=3))
    assert "logmel" not in data[2] and "logmel" in data[3]


def test_held_out_scenes_are_others() -> None:
    assert scene_of(0, 0) == scene_of(0, 0)
    assert scene_of(0, 0) != scene_of(0, 0, held_out=True)


def test_every_word_is_known() -> None:
    tokenizer = build_tokenizer(vocabulary())
    rng = np.random.default_rng(1)
    for index in range(200):
        scene = scene_of(5, index)
        for text in [evaluation_caption(scene), *candidates(scene, rng)]:
            words = [w for w in re.findall(r"[\w']+", text.lower()) if w not in STOP_WORDS]
            assert (encode(tokenizer, text) > 0).sum() == len(words), text


def test_attribute_captions_differ_and_one_is_true() -> None:
    scene = scene_of(5, 0)
    for name in ("shape", "colour", "motion"):
        texts, truth = attribute_captions(scene, name)
        assert len(set(texts)) == len(texts) == len(ATTRIBUTES[name])
        assert texts[truth] == evaluation_caption(scene, size=name != "motion")


def test_the_picture_does_not_depend_on_the_resolution() -> None:
    for index in range(12):
        scene, times = scene_of(6, index), np.arange(4) / 2.5
        small = render(scene, times, 32).astype(float)
        large = render(scene, times, 128).reshape(4, 32, 4, 32, 4, 3).mean(axis=(2, 4))
        assert np.abs(small - large).mean() < 3.0
        # A wide picture holds the square one in its middle.
        wide = render(scene, times, 32, 48)
        assert np.abs(wide[:, :, 8:40].astype(int) - small).max() <= 1


def test_sound_is_audible_and_within_range() -> None:
    for index in range(40):
        pcm = plain_clip(scene_of(6, index), TINY).pcm
        assert pcm.dtype == np.float32 and np.abs(pcm).max() <= 1.0
        assert np.sqrt(np.mean(pcm**2)) > 0.02
