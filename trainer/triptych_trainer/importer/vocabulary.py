"""Word lists of public models to `tokenizer.json` (MMV specification, section 4)."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from ..reading import of_file, read_text
from ..tokenizer import PAD, UNKNOWN
from . import restricted

ASCII_PUNCTUATION = r"[!-/:-@\[-`{-~]"
"""What `[[:punct:]]` is in RE2, spelled out because regex libraries disagree about the name."""


@dataclass
class Vocabulary:
    """Which row of the word table each word has. `rows` may be one more than the table has: the
    last one is then a row of zeros that unknown words, which are dropped, would have."""

    ids: dict[str, int]
    pad_id: int
    unknown_id: int
    rows: int
    rule: str

    def tokenizer(self) -> Tokenizer:
        """`dmvr`: ASCII punctuation deleted, lower case, split at white space. `milnce`: lower
        case, runs of letters, digits, underscores and apostrophes."""
        tokenizer = Tokenizer(models.WordLevel(self.ids, unk_token=UNKNOWN))
        if self.rule == "dmvr":
            punctuation = normalizers.Replace(Regex(ASCII_PUNCTUATION), "")
            tokenizer.normalizer = normalizers.Sequence([punctuation, normalizers.Lowercase()])
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        else:
            tokenizer.normalizer = normalizers.Lowercase()
            tokenizer.pre_tokenizer = pre_tokenizers.Split(
                Regex(r"[\w']+"), behavior="removed", invert=True
            )
        return tokenizer

    def encode(self, tokenizer: Tokenizer, text: str, max_words: int = 16) -> np.ndarray:
        """i64 [max_words]: unknown words are dropped, then the rest is cut and padded."""
        known = [i for i in tokenizer.encode(text).ids if i != self.unknown_id][:max_words]
        return np.array(known + [self.pad_id] * (max_words - len(known)), dtype=np.int64)


def _finish(ids: dict[str, int], table_rows: int, rule: str, pad_id: int) -> Vocabulary:
    ids, rows = dict(ids), table_rows
    # The server tells padding and unknown words apart by their ids.
    if ids.get(UNKNOWN, rows) == pad_id:
        del ids[UNKNOWN]
    if UNKNOWN not in ids:
        ids[UNKNOWN], rows = rows, rows + 1
    if pad_id not in ids.values():
        ids[PAD] = pad_id
    return Vocabulary(ids, pad_id, ids[UNKNOWN], rows, rule)


def from_word_file(path: str | Path, table_rows: int, offset: int | None = None) -> Vocabulary:
    """One word per row, or `id word`; without ids, row i is word i + `offset`.

    A list that does not fit the table gives wrong vectors without a word, so without `offset` it
    must have exactly as many rows.
    """
    lines = read_text(path).splitlines()
    ids: dict[str, int] = {}
    for row, line in enumerate(lines):
        parts = line.strip().split(" ")
        if len(parts) == 2 and parts[0].isdigit():
            index, word = int(parts[0]), parts[1]
        elif len(parts) == 1 and parts[0]:
            index, word = row + (offset or 0), parts[0]
        else:
            raise ValueError(f"{path}, row {row + 1}: expected one word, found {line!r}")
        if word in ids:
            raise ValueError(f"{path}, row {row + 1}: {word!r} is a duplicate")
        ids[word] = index
    last = max(ids.values(), default=-1)
    if last >= table_rows or (offset is None and len(ids) != table_rows):
        raise ValueError(
            f"{path} has {len(ids)} words up to id {last}, the word table {table_rows} rows: they "
            "must correspond row by row. If row 0 is padding and not in the list, use "
            "--vocab-offset 1; if the list starts at row 0 and is shorter, use --vocab-offset 0."
        )
    return _finish(ids, table_rows, "dmvr", ids.get(PAD, 0))


def from_saved_model(folder: str | Path, table_rows: int, offset: int | None = None) -> Vocabulary:
    """The word list among the assets of a downloaded TF-Hub SavedModel."""
    assets = Path(folder) / "assets"
    if not assets.is_dir():
        raise ValueError(f"{folder} has no folder 'assets'; is it a SavedModel?")
    found, reasons = [], []
    for path in sorted(p for p in assets.iterdir() if p.is_file()):
        try:
            found.append(from_word_file(path, table_rows, offset))
        except ValueError as error:
            reasons.append(str(error))
    if len(found) != 1:
        raise ValueError(
            f"{assets} has {len(found)} word lists that fit {table_rows} rows; name the right one "
            f"with --vocab. {' '.join(reasons)}"
        )
    return found[0]


def from_milnce_dictionary(path: str | Path, table_rows: int) -> Vocabulary:
    """s3d_dict.npy: an array of words; word i has row i + 1, row 0 is padding. The last of equal
    words counts, as in the public code."""
    raw = Path(path).read_bytes()
    with of_file(path, "an array of words in an .npy file"):
        try:
            words = np.load(io.BytesIO(raw), allow_pickle=False)
        except ValueError:
            words = _object_array(raw, path)
    if words.ndim != 1 or words.dtype.kind != "U":
        raise ValueError(f"{path} is not a list of words")
    if len(words) + 1 != table_rows:
        raise ValueError(f"{path} has {len(words)} words; the word table has {table_rows} rows")
    ids = {str(word): i + 1 for i, word in enumerate(words)}
    return _finish(ids, table_rows, "milnce", 0)


def _object_array(raw: bytes, path: str | Path) -> np.ndarray:
    """An .npy file of objects is a header and a pickle: read by the restricted reader."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"{path} is an .npy file of version {version}")
    reader(file)
    return restricted.array(restricted.load_stream(file, path))
