"""The word list of a model trained on real data, and the table that goes with it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ..config import TrainConfig
from ..importer.vocabulary import Vocabulary
from ..models.mmv import Mmv
from ..reading import of_file, read_text
from ..tokenizer import PAD, PAD_ID, UNKNOWN, UNKNOWN_ID, build_tokenizer, encode

FIRST_ID = 2


class Words(Vocabulary):
    """Padding, unknown, then the words of the list in order."""

    def __init__(self, words: Sequence[str]) -> None:
        ids = {PAD: PAD_ID, UNKNOWN: UNKNOWN_ID}
        for row, word in enumerate(words):
            if not word or word in ids:
                raise ValueError(f"word list, row {row + 1}: {word!r} is empty or a duplicate")
            ids[word] = row + FIRST_ID
        super().__init__(ids, PAD_ID, UNKNOWN_ID, len(ids), "trainer")
        self.words = list(words)

    @classmethod
    def read(cls, path: str | Path) -> "Words":
        return cls(read_text(path).split("\n")[:-1])

    def tokenizer(self) -> Tokenizer:
        return build_tokenizer(self.words)

    def encode(self, tokenizer: Tokenizer, text: str, max_words: int = 16) -> np.ndarray:
        return encode(tokenizer, text, max_words)


def words_of(cfg: TrainConfig) -> Words | None:
    """None for the small world and for a model without text."""
    if not cfg.data.sources or cfg.model.spaces == "va":
        return None
    if not cfg.data.words:
        raise ValueError("data.words: texts need a word list; `vocabulary` makes one")
    words = Words.read(cfg.data.words)
    if words.rows > cfg.model.vocab_size:
        raise ValueError(
            f"{cfg.data.words}: {len(words.words)} words and two more rows do not fit a word table "
            f"of {cfg.model.vocab_size}"
        )
    return words


@torch.no_grad()
def load_word_vectors(model: Mmv, cfg: TrainConfig) -> None:
    """Puts `data.word_vectors` into the word table; padding stays zero."""
    if not cfg.data.word_vectors or "text" not in model.modalities:
        return
    with of_file(cfg.data.word_vectors, "a table of vectors in an .npy file"):
        vectors = np.load(cfg.data.word_vectors, allow_pickle=False)
    words, table = Words.read(cfg.data.words), model.text_backbone.words.weight
    if vectors.shape != (len(words.words), cfg.model.word_dim):
        raise ValueError(
            f"{cfg.data.word_vectors} is {list(vectors.shape)}, not "
            f"[{len(words.words)}, {cfg.model.word_dim}]"
        )
    table[FIRST_ID : FIRST_ID + len(vectors)] = torch.from_numpy(vectors.astype(np.float32))


def count_words(texts: Iterable[str]) -> Counter:
    """Number of occurrences of each word in the texts, without stop words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: Counter = Counter()
    for text in texts:
        counts.update(re.findall(r"[\w']+", text.lower()))
    for word in ENGLISH_STOP_WORDS:
        counts.pop(word, None)
    return counts


def most_common(counts: Counter, limit: int, least: int) -> list[str]:
    """Ties in alphabetical order, so that the list is the same every time."""
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return [word for word in ordered if counts[word] >= least][:limit]


def read_word2vec(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """The vectors of `wanted` in word2vec's formats: binary (`.bin`), or text, with or without the
    line of sizes. Where only the capitalised form is there (names), it counts for the word."""
    lines = _binary_rows(path) if path.suffix == ".bin" else _text_rows(path)
    exact: dict[str, np.ndarray] = {}
    lowered: dict[str, np.ndarray] = {}
    with of_file(path, "a file of word2vec vectors"):
        for word, vector in lines:
            if word in wanted:
                exact[word] = vector
            elif word.lower() in wanted:
                lowered.setdefault(word.lower(), vector)
    return lowered | exact


def _binary_rows(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    with path.open("rb") as file:
        rows, dim = (int(part) for part in file.readline().split())
        for _ in range(rows):
            word = bytearray()
            while (byte := file.read(1)) != b" ":
                if not byte:
                    raise ValueError(f"{path} ends within a word")
                # Some writers end each row with a line feed.
                word += byte.lstrip(b"\n")
            raw = file.read(4 * dim)
            if len(raw) < 4 * dim:
                raise ValueError(f"{path} ends within a vector")
            yield word.decode("utf-8", "replace"), np.frombuffer(raw, "<f4")


def _text_rows(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, *numbers = line.rstrip().split(" ")
            if len(numbers) > 1:
                yield word, np.array(numbers, np.float32)
