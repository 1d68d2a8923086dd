"""Writes the tokenizers and expected token ids of `tests/tokens.rs`.

Each tokenizer is of a published kind, with a small vocabulary trained on `pieces.json`. The
reference is transformers: its own tokenizer class encodes 5,000 texts, and the SHA-256 of the ids
of every 100 texts is stored. The texts come from `pieces.json` by a rule
that the test implements too (`texts`).

    python tests/tokens/make.py     # needs transformers 5
"""

import hashlib
import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import CLIPTokenizer, GemmaTokenizer, PreTrainedTokenizerFast, RobertaTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

HERE = Path(__file__).parent
COUNT, BLOCK = 5000, 100
PIECES = json.loads((HERE / "pieces.json").read_text(encoding="utf-8"))


class Draw:
    """A linear congruential generator (Knuth's MMIX)."""

    def __init__(self, seed: int):
        self.state = seed

    def below(self, n: int) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def texts(specials: list[str]) -> list[str]:
    """5,000 texts: words of one language or several, emoji, control characters, special tokens,
    very long ones."""
    draw = Draw(15)
    languages, marks, odd = PIECES["languages"], PIECES["marks"], PIECES["odd"]
    found = []
    for n in range(COUNT):
        words = languages[n % len(languages)]
        length = 1 + draw.below(12)
        if n % 50 == 49:
            length = 60 + draw.below(400)
        text = ""
        for _ in range(length):
            kind = draw.below(20)
            if kind < 15:
                word = words[draw.below(len(words))]
            elif kind == 15:
                other = languages[draw.below(len(languages))]
                word = other[draw.below(len(other))]
            elif kind == 16:
                word = odd[draw.below(len(odd))]
            elif kind == 17:
                word = str(draw.below(1_000_000))
            elif kind == 18 and n % 7 == 0 and specials:
                word = specials[draw.below(len(specials))]
            else:
                word = words[draw.below(len(words))].upper()
            text += word + marks[draw.below(len(marks))]
        found.append(text)
    return found


def corpus() -> list[str]:
    return [" ".join(words) for words in PIECES["languages"]] * 3


def trained(model, trainer, pre, normalizer=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def merges_of(model: dict) -> list[tuple[str, str]]:
    return [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in model["merges"]
    ]


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def clip():
    ends = {"bos": "<|startoftext|>", "eos": "<|endoftext|>"}
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"),
                "removed",
                invert=True,
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1400, end_of_word_suffix="</w>", initial_alphabet=BYTES
    )
    model = trained(models.BPE(end_of_word_suffix="</w>"), trainer, split, normalizers.Lowercase())
    vocab = dict(model["vocab"])
    for unit in [*BYTES, *(byte + "</w>" for byte in BYTES)]:
        vocab.setdefault(unit, len(vocab))
    for token in ends.values():
        vocab[token] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges_of(model)), list(ends.values())


def roberta():
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=BYTES)
    model = trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {token: at for at, token in enumerate(special[:4])}
    for token in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(token, len(vocab))
    vocab["<mask>"] = len(vocab)
    return RobertaTokenizer(vocab=vocab, merges=merges_of(model)), special


def pieces_with_bytes(size: int):
    """A BPE over whole sentences, with a token for every byte, as Gemma's is."""
    trainer = trainers.BpeTrainer(vocab_size=size)
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    model = trained(models.BPE(), trainer, split, normalizers.Replace(" ", "▁"))
    vocab = {token: at for at, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for token in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(token, len(vocab))
    return vocab, merges_of(model)


def gemma():
    vocab, merges = pieces_with_bytes(1300)
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges)
    single = "<bos> $A <eos>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=single + " $B <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer, ["<bos>", "<eos>", "<pad>", "<mask>"]


def siglip2():
    vocab, merges = pieces_with_bytes(1300)
    tokenizer = Siglip2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A $B <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer, ["<eos>", "<pad>"]


def unigram():
    """SentencePiece's kind, as SigLIP and T5 have it; unknown characters become one token."""
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=1200, special_tokens=special, unk_token="<unk>")
    normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token=AddedToken("</s>", special=True),
        unk_token="<unk>",
    )
    return fast, ["</s>", "<pad>"]


# The tokenizer, what the manifest says of it, and what transformers is told to do the same.
CASES = {
    "clip": (clip, {"max_tokens": 77, "padding": "max"}, {}),
    "roberta": (roberta, {"max_tokens": 77, "padding": "none"}, {}),
    "unigram": (unigram, {"max_tokens": 64, "padding": "max"}, {}),
    "gemma": (
        gemma,
        {
            "max_tokens": 48,
            "padding": "none",
            "prompts": {"query": "task: search result | query: {text}"},
        },
        {},
    ),
    "siglip2": (
        siglip2,
        {"max_tokens": 64, "padding": "max", "lowercase": True, "side": "left", "truncate": "left"},
        {"padding_side": "left", "truncation_side": "left"},
    ),
}


def main() -> None:
    cases = {}
    for name, (make, manifest, settings) in CASES.items():
        tokenizer, specials = make()
        for key, value in settings.items():
            setattr(tokenizer, key, value)
        stored = json.loads(tokenizer.backend_tokenizer.to_str())
        stored["truncation"] = stored["padding"] = None
        if manifest.get("lowercase"):
            # The manifest says so instead of the tokenizer.
            normalizer = stored["normalizer"]["normalizers"]
            assert normalizer[0] == {"type": "Lowercase"}
            stored["normalizer"] = normalizer[1]
        (HERE / f"{name}.json").write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
        prompt = manifest.get("prompts", {}).get("query", "{text}")
        asked = [prompt.replace("{text}", text) for text in texts(specials)]
        padding = "max_length" if manifest["padding"] == "max" else False
        encoded = tokenizer(
            asked, padding=padding, truncation=True, max_length=manifest["max_tokens"]
        )
        rows = list(zip(encoded["input_ids"], encoded["attention_mask"], strict=True))
        assert max(len(ids) for ids, _ in rows) == manifest["max_tokens"]
        blocks = []
        for start in range(0, COUNT, BLOCK):
            lines = [
                " ".join(map(str, ids)) + "|" + " ".join(map(str, mask))
                for ids, mask in rows[start : start + BLOCK]
            ]
            blocks.append(hashlib.sha256("\n".join(lines).encode()).hexdigest())
        spec = {"kind": "tokens", "tokenizer": f"{name}.json", "special_tokens": True, **manifest}
        if manifest["padding"] == "max":
            spec["pad_id"] = tokenizer.pad_token_id
        cases[name] = {"spec": spec, "specials": specials, "first": rows[:3], "blocks": blocks}
        print(
            name, len(stored["model"]["vocab"]), "tokens;", sum(len(ids) for ids, _ in rows), "ids"
        )
    (HERE / "cases.json").write_text(
        json.dumps(cases, indent=1, ensure_ascii=False), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
