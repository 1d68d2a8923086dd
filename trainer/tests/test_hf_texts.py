"""Tokens as transformers makes them, for 5,000 strings of many scripts and every kind of
tokenizer."""

import random
from collections.abc import Callable
from pathlib import Path

import hf_checkpoints as made
import pytest

from triptych_trainer.hf.errors import Refused
from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.texts import load_tokenizer, read_text

STRINGS = 5000
WORDS = {
    "en": "the dog barks loudly at a red car don't", "de": "der Hund bellt laut größer Straße",
    "fr": "l'été où naïve ça garçon œuvre", "es": "¿dónde está el niño? mañana",
    "ru": "собака лает на улице",
    "ar": "الكلب ينبح في الشارع", "he": "הכלב נובח ברחוב", "hi": "कुत्ता सड़क पर भौंकता है",
    "th": "สุนัขเห่าบนถนน", "zh": "狗在街上叫", "ja": "犬が通りで吠えている カタカナ",
    "ko": "개가 거리에서 짖는다",
}  # fmt: skip
ODD = [
    "🙂", "👩‍👩‍👧", "🏳️‍🌈", "\u0000", "\u001f", "\t", "\r\n", "\u00a0", "\u200b", "\ufeff",
    "ﬁ", "½", "ＡＢ", "e\u0301", "İ", "ß", "[MASK]", "<pad>", "</s>", "<|endoftext|>",
    "<bos>", "3.14", "…", "--", "((", "'s", "\U0010ffff", "\ud7ff", "x" * 90,
]  # fmt: skip
KINDS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "clip": (made.clip_tokenizer, 77, "none"),
    "siglip": (made.sentencepiece_tokenizer, 64, "max"),
    "gemma": (lambda folder: made.gemma_tokenizer(folder, model_max_length=128), 128, "none"),
    "siglip2": (
        lambda folder: made.gemma_tokenizer(
            folder, add_bos=False, tokenizer_class="Siglip2Tokenizer", padding_side="left"
        ),
        64,
        "max",
    ),
    "roberta": (lambda folder: made.byte_bpe_tokenizer(folder, "roberta", 100), 100, "none"),
    "modernbert": (lambda folder: made.byte_bpe_tokenizer(folder, "modernbert", 100), 100, "none"),
}


def strings(seed: int = 11) -> list[str]:
    rng = random.Random(seed)
    words = [word for line in WORDS.values() for word in line.split()]
    found = ["", " ", "\n"]
    while len(found) < STRINGS:
        pieces = rng.choices([*words, *ODD], k=rng.choice((1, 2, 3, 5, 8, 20, 150)))
        found.append(rng.choice((" ", " ", " ", "", "  ")).join(pieces))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    make, limit, padding = KINDS[kind]
    make(tmp_path)
    made.write_json(tmp_path, "config.json", {"model_type": kind if "siglip" in kind else "clip"})
    folder = HfFolder(tmp_path)
    text = read_text(folder, "t", limit, padding, with_mask=True, words=10**6)
    theirs = load_tokenizer(folder)
    options = {"truncation": True, "max_length": limit}
    if padding == "max":
        options["padding"] = "max_length"
    cut = 0
    for said in strings():
        want = theirs(said, **options)
        ids, mask = text.ids(said)
        assert ids == want["input_ids"], said
        if "attention_mask" in want:
            assert mask == want["attention_mask"], said
        cut += len(ids) == limit
    assert cut > 100


def test_limits_and_prompts(tmp_path: Path) -> None:
    made.gemma_tokenizer(tmp_path)
    prompts = {"query": "task: {text} end", "document": "title: ", "Clustering": "x"}
    made.write_json(tmp_path, "config_sentence_transformers.json", {"prompts": prompts})
    made.write_json(tmp_path, "config.json", {"model_type": "clip"})
    text = read_text(HfFolder(tmp_path), "t", 40, "none", with_mask=True, words=10**6)
    assert (text.max_tokens, text.with_mask) == (40, False)
    assert text.prompts == {"query": "task: {text} end", "document": "title: {text}"}
    plain = text.ids("task: a dog end")[0]
    assert text.feed(["a dog"])["token_ids"][0].tolist() == plain
    with pytest.raises(Refused, match="word table has 20 rows"):
        read_text(HfFolder(tmp_path), "t", 40, "none", with_mask=False, words=20)
