"""Real files to batches: layouts, draws, augmentation, broken files, determinism."""

import colorsys
import shutil
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from triptych_trainer.config import PRESETS, TrainConfig, from_dict, load_config
from triptych_trainer.data.augment import augment, turned
from triptych_trainer.data.batches import RealBatches
from triptych_trainer.data.config import Augment, DataConfig, Source
from triptych_trainer.data.items import Caption, Item, captions_of, span_of
from triptych_trainer.data.listings import open_source
from triptych_trainer.data.sampling import draw, nearest, widened
from triptych_trainer.data.vocabulary import make_vocabulary
from triptych_trainer.data.words import Words, read_word2vec
from triptych_trainer.frames import preprocess
from triptych_trainer.media import decode


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    made = {}
    for make in (layouts.howto100m, layouts.audioset, layouts.manifest, layouts.shards):
        made[make.__name__] = make(tmp_path_factory.mktemp(make.__name__))
    return made


def test_every_layout_is_read(sets: dict[str, Source], tmp_path: Path) -> None:
    ht, audioset, listed, tars = (open_source(source) for source in sets.values())
    assert [len(c) for c in (ht, audioset, listed, tars)] == [5, 4, 4, 4]
    for n in range(5):
        assert ht.item(n).captions[2] == Caption(1.2, 1.7, layouts.caption(n + 2))
    assert audioset.item(1).name == "-id1_30.000_40.000.mp4" and not audioset.item(1).captions
    assert listed.item(0).span == (1.5, 5.0) and listed.item(0).texts == ("red circle",)
    assert [c.text for c in listed.item(1).captions] == ["square", "star left"]
    assert listed.item(3).texts == listed.item(3).captions == ()
    csv = open_source(layouts.manifest(tmp_path, ".csv"))
    assert csv.item(0).span == (1.5, float("inf")) and csv.item(0).texts == ("red circle, big",)
    assert csv.item(1).span is None and csv.item(2).span == (0.0, 2.0)
    assert tars.item(3).texts == (layouts.caption(1),)


def test_a_video_inside_a_tar_is_the_video(sets: dict[str, Source]) -> None:
    item = open_source(sets["shards"]).item(3)
    file = Path(sets["shards"].index).parent / "s11.mp4"
    inside, outside = decode(item.url, 2.5), decode(file, 2.5)
    assert np.array_equal(inside.frames, outside.frames)
    assert np.array_equal(inside.pcm, outside.pcm)


def test_a_part_of_a_file_is_what_the_whole_has_there(tmp_path: Path) -> None:
    """The server's rule: frames on the grid of whole steps."""
    path = layouts.video(tmp_path / "a.mp4", 1, 6.0)
    whole, part = decode(path, 2.5), decode(path, 2.5, span=(1.6, 1.6))
    assert len(part.frames) == 4 and np.array_equal(part.frames, whole.frames[4:8])
    at = round(1.6 * 48_000)
    want = whole.pcm[at : at + len(part.pcm)]
    assert abs(len(part.pcm) - 76_800) <= 2048
    assert np.corrcoef(part.pcm, want)[0, 1] > 0.99


@pytest.mark.parametrize("bad", [[[1, 2]], [{"start": 1}], "text", [["a", "b", "c"]]])
def test_captions_that_are_none(bad: object) -> None:
    with pytest.raises((ValueError, KeyError)):
        captions_of(bad)
    with pytest.raises(ValueError, match="span"):
        span_of("3", "2")


def test_candidates_are_the_nearest_in_time() -> None:
    starts = [0, 10, 11, 12, 40, 41, 90]
    captions = [Caption(s, s + 1, str(s)) for s in starts]
    assert [c.text for c in nearest(captions, 2, 3)] == ["10", "11", "12"]
    assert [c.text for c in nearest(captions, 4, 2)] == ["40", "41"]
    assert [c.text for c in nearest(captions, 0, 3)] == ["0", "10", "11"]
    assert [c.text for c in nearest(captions, 6, 2)] == ["41", "90"]
    assert len(nearest(captions, 3, 20)) == 7
    assert widened(Caption(10, 11, ""), 4.0) == (8.5, 12.5)
    assert widened(Caption(0, 1, ""), 4.0) == (0.0, 4.0)
    assert widened(Caption(3, 9, ""), 4.0) == (3, 9)


def test_clips_lie_in_their_caption_and_in_the_file() -> None:
    captions = tuple(Caption(s, s + 1.0, str(s)) for s in (0.0, 5.0, 9.5))
    item, seen = Item("", "", captions=captions), set()
    for seed in range(300):
        start, texts = draw(item, 10.0, 1.6, 4.0, 2, np.random.default_rng(seed))
        assert 0.0 <= start <= 10.0 - 1.6 + 1e-9 and len(texts) == 2
        near = min(abs(start + 0.8 - (c.start_secs + 0.5)) for c in captions)
        # Within four seconds around a caption, or from 0 on for the one at the start.
        assert near <= 2.8
        seen.add(round(start))
    assert {0, 1, 2, 4, 5, 6, 8} <= seen
    bound = Item("", "", span=(2.0, 5.0), texts=("a", "b", "c"))
    for seed in range(50):
        start, texts = draw(bound, None, 1.6, 4.0, 2, np.random.default_rng(seed))
        assert 2.0 <= start <= 3.4 and len(set(texts)) == 2
    assert draw(Item("", ""), 1.0, 1.6, 4.0, 2, np.random.default_rng(0)) == (0.0, [])


def test_hue_and_saturation_are_those_of_the_standard_library() -> None:
    rng = np.random.default_rng(0)
    colours = rng.uniform(size=(200, 3)).astype(np.float32)
    colours[:2] = (0, 0, 0), (0.5, 0.5, 0.5)
    for turn, factor in ((0.0, 1.0), (0.15, 1.0), (-0.2, 1.0), (0.0, 0.6), (0.1, 1.4)):
        for got, rgb in zip(turned(colours.T, turn, factor).T, colours, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*map(float, rgb))
            want = colorsys.hsv_to_rgb((hue + turn) % 1, min(1, saturation * factor), value)
            assert np.abs(got - want).max() < 1e-5


def test_augmentation_changes_what_it_says_and_nothing_else() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    off = Augment(scale_jitter_chance=0, random_crop=False, flip_chance=0, colour_chance=0)
    rng = np.random.default_rng
    plain = preprocess(frames, 36, 32)
    assert np.array_equal(augment(frames, 36, 32, off, rng(0)), plain)
    flipped = augment(frames, 36, 32, replace(off, flip_chance=1), rng(0))
    assert np.array_equal(flipped, plain[:, :, ::-1])
    # Neither the place nor the colour may change within a clip.
    still = np.repeat(frames[:1], 4, axis=0)
    every = [augment(still, 36, 32, Augment(), rng(seed)) for seed in range(6)]
    assert all((clip == clip[0]).all() and clip.shape == (4, 32, 32, 3) for clip in every)
    assert len({clip.tobytes() for clip in every}) == 6
    assert np.array_equal(every[3], augment(still, 36, 32, Augment(), rng(3)))


def test_a_batch_comes_from_its_number_alone(sets: dict[str, Source], tmp_path: Path) -> None:
    cfg = layouts.tiny_config(tmp_path, sets["howto100m"])
    data = RealBatches(cfg)
    first, again = data[2], RealBatches(cfg)[2]
    by_worker = next(iter(DataLoader(data, batch_size=None, sampler=[2], num_workers=1)))
    assert layouts.same(first, again) and layouts.same(first, by_worker)
    assert not layouts.same(first, RealBatches(replace(cfg, seed=2))[2])
    assert first["frames"].shape == (4, 4, 32, 32, 3) and first["logmel"].shape == (4, 75, 80, 1)
    assert first["token_ids"].shape == (4, 5, 16) and first["skipped"] == 0
    # Five videos, one of them mute, once each: in five places in a row.
    places = [data[step]["audio_mask"] for step in range(5)]
    assert torch.cat(places).sum() == 16
    known = first["token_ids"].flatten(0, 1)
    assert ((known > 0).sum(1) == 2).all() and (known < 2 + len(layouts.WORDS)).all()


def test_broken_files_are_skipped_and_counted(tmp_path: Path, caplog) -> None:
    source = layouts.howto100m(tmp_path, 4)
    cfg = layouts.tiny_config(tmp_path, source)
    whole = RealBatches(cfg)[0]
    (tmp_path / "videos" / "vid1.mp4").write_bytes(b"not a film")
    (tmp_path / "captions" / "vid0.csv").unlink()
    data = RealBatches(cfg)
    batches = [data[step] for step in range(2)]
    assert all(batch["frames"].shape == whole["frames"].shape for batch in batches)
    assert all(batch["skipped"] >= 2 for batch in batches)
    assert "vid1.mp4: no video stream" in caplog.text
    assert layouts.same(batches[1], RealBatches(cfg)[1])
    shutil.rmtree(tmp_path / "videos")
    with pytest.raises(ValueError, match="files in a row"):
        RealBatches(cfg)[0]


def test_two_datasets_keep_their_shares_and_rows(sets: dict[str, Source], tmp_path: Path) -> None:
    ht, audioset = sets["howto100m"], replace(sets["audioset"], share=0.5)
    cfg = layouts.tiny_config(tmp_path, ht, audioset, batch_size=6)
    batch = RealBatches(cfg)[0]
    assert batch["text_mask"].tolist() == [1, 1, 1, 1, 0, 0]
    # The first dataset's clips do not depend on whether there is a second one.
    alone = RealBatches(layouts.tiny_config(tmp_path, ht))[0]
    assert torch.equal(batch["frames"][:4], alone["frames"])
    with pytest.raises(ValueError, match="evenly"):
        cfg.data.counts(6, ranks=4)
    with pytest.raises(ValueError, match="word list"):
        RealBatches(replace(cfg, data=replace(cfg.data, words="")))


def test_vocabulary_and_word_vectors(sets: dict[str, Source], tmp_path: Path) -> None:
    cfg = layouts.tiny_config(tmp_path, sets["howto100m"], sets["manifest"])
    words = make_vocabulary(cfg, tmp_path / "w.txt", 6, 2, None, say=lambda _: None)
    assert (
        len(words) == 6
        and "the" not in words
        and set(words) - {"zzz3"} <= set(layouts.WORDS) | {f"zzz{n}" for n in range(12)}
    )
    rows = {
        word: np.arange(3, dtype=np.float32) + n for n, word in enumerate(("Red", "star", "new"))
    }
    binary = b"3 3\n" + b"".join(w.encode() + b" " + v.tobytes() + b"\n" for w, v in rows.items())
    (tmp_path / "v.bin").write_bytes(binary)
    text = "3 3\n" + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in rows.items())
    (tmp_path / "v.txt").write_text(text)
    for name in ("v.bin", "v.txt"):
        found = read_word2vec(tmp_path / name, {"red", "star"})
        assert {w: v.tolist() for w, v in found.items()} == {"red": [0, 1, 2], "star": [1, 2, 3]}
    make_vocabulary(cfg, tmp_path / "w.txt", 99, 1, tmp_path / "v.bin", say=lambda _: None)
    assert sorted(Words.read(tmp_path / "w.txt").words) == ["red", "star"]
    assert np.load(tmp_path / "w.npy").shape == (2, 3)
    with pytest.raises(ValueError, match="duplicate"):
        Words(["a", "a"])


def test_configurations_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'preset = "mmv-tsm50"\nbatch_size = 64\n[model]\nframes = 16\nsamples = 76800\n'
        '[data]\nwords = "w.txt"\n[data.augment]\nflip_chance = 0.0\n'
        '[[data.sources]]\nname = "a"\nkind = "shards"\nindex = "*.tar"\n'
        '[[data.sources]]\nname = "b"\nkind = "audioset"\nindex = "a.csv"\n'
        "weight_video_text = 0.0\n"
    )
    cfg = load_config(str(path))
    assert cfg.name == "mine" and cfg.batch_size == 64 and cfg.warmup_steps == 5000
    assert cfg.model.backbone == "tsm" and cfg.model.frames == 16 and cfg.model.crop == 200
    assert [s.name for s in cfg.data.sources] == ["a", "b"] and cfg.data.augment.hue == 0.2
    assert from_dict(TrainConfig, cfg.to_dict()) == cfg
    for wrong, message in (
        ("stepz = 1", "stepz"),
        ("[data]\nword = ''", "DataConfig"),
        ("preset = 'x'", "x"),
    ):
        path.write_text(wrong)
        with pytest.raises((ValueError, KeyError), match=message):
            load_config(str(path))
    for name, spaces in (("shared", "shared"), ("va", "va"), ("vt", "vt"), ("vat", "fac")):
        ablation = PRESETS[f"ablation-{name}"]
        assert ablation.model.spaces == spaces and ablation.data == DataConfig()
    assert PRESETS["mmv-tsm50x2"].model.video_width == 2.0
