"""The word-level tokenizer of a bundle (MMV specification, section 4)."""

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

PAD, UNKNOWN = "<pad>", "<unk>"
PAD_ID, UNKNOWN_ID = 0, 1


def build_tokenizer(words: list[str]) -> Tokenizer:
    """Lower-cases, keeps runs of letters, digits and apostrophes; stop words are simply absent
    from `words`."""
    vocab = {PAD: PAD_ID, UNKNOWN: UNKNOWN_ID} | {word: i + 2 for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"[\w']+"), behavior="removed", invert=True
    )
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, max_words: int = 16) -> np.ndarray:
    """Token ids i64 [max_words]: unknown words are dropped, then the rest is cut and padded."""
    known = [i for i in tokenizer.encode(text).ids if i != UNKNOWN_ID][:max_words]
    return np.array(known + [PAD_ID] * (max_words - len(known)), dtype=np.int64)
