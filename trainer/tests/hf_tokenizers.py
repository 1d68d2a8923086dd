"""Tokenizers in the published layouts, trained on the spot."""

import json
from pathlib import Path

from hf_files import write_json
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "a dog barking at the door and a red car driving through rain",
    "ein Hund bellt laut vor dem Haus, der Zug fährt durch den Regen",
    "un chien aboie, une voiture rouge passe; il pleut sur la ville",
    "犬が吠える 夜の街 собака лает на улице كلب ينبح कुत्ता भौंकता है",
    "The Quick BROWN fox jumps over 13 lazy dogs! Isn't it? (yes: 3.14)",
    "task: search result | query: title: none | text: a photo of two people",
] * 4


def clip_tokenizer(folder: Path, limit: int = 77) -> int:
    """CLIP's byte-level BPE with its own specials; returns the size of the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = (
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
        r"[^\s\p{L}\p{N}]+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # As published: every byte also at the end of a word, the specials last.
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for byte in sorted(alphabet):
        vocab.setdefault(byte + "</w>", len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    state["added_tokens"] = [
        {"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": True, "special": True}
        for i, c in ((start, "<|startoftext|>"), (end, "<|endoftext|>"))
    ]  # fmt: skip
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", end), ("<|startoftext|>", start), False, False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    write_json(folder, "vocab.json", vocab)
    specials = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    write_json(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": limit, **specials},
    )
    write_json(folder, "special_tokens_map.json", specials)
    return len(vocab)


def sentencepiece_tokenizer(folder: Path, limit: int = 64) -> int:
    """A unigram model in SigLIP's manner: lower case, no punctuation, `</s>` at the end and as
    padding."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "model_max_length": limit,
            "model_input_names": ["input_ids"],
            "do_lower_case": True,
            **specials,
        },
    )
    write_json(folder, "special_tokens_map.json", specials)
    return tokenizer.get_vocab_size()


def gemma_tokenizer(folder: Path, extra: tuple[str, ...] = (), **config) -> int:
    """Gemma's BPE with byte fallback; `<bos>` in front and `<eos>` behind, as EmbeddingGemma."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *extra]
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=specials + byte_tokens, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    first, last = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")
    with_start = config.pop("add_bos", True)
    single = "<bos> $A <eos>" if with_start else "$A <eos>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=None, special_tokens=[("<bos>", first), ("<eos>", last)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {
        "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "mask_token": "<mask>",
    }  # fmt: skip
    base = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": with_start, "add_eos_token": True}
    write_json(folder, "tokenizer_config.json", base | named | config)
    write_json(folder, "special_tokens_map.json", named)
    return tokenizer.get_vocab_size()


def byte_bpe_tokenizer(folder: Path, kind: str, limit: int) -> int:
    """GPT-2's byte-level BPE with RoBERTa's (`kind` roberta) or ModernBERT's specials."""
    roberta = kind == "roberta"
    specials = (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        if roberta
        else ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    )
    start, end, pad = ("<s>", "</s>", "<pad>") if roberta else ("[CLS]", "[SEP]", "[PAD]")
    tokenizer = Tokenizer(models.BPE())
    if not roberta:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = (end, tokenizer.token_to_id(end)), (start, tokenizer.token_to_id(start))
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(*ids, trim_offsets=True,
                                                                add_prefix_space=False)  # fmt: skip
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}", pair=None, special_tokens=list(ids)
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    state = json.loads(tokenizer.to_str())["model"]
    write_json(folder, "vocab.json", state["vocab"])
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    unknown, mask = ("<unk>", "<mask>") if roberta else ("[UNK]", "[MASK]")
    named = {"pad_token": pad, "unk_token": unknown, "mask_token": mask}
    named |= (
        {"bos_token": start, "eos_token": end, "cls_token": start, "sep_token": end}
        if roberta
        else {"cls_token": start, "sep_token": end}
    )
    name = "RobertaTokenizer" if roberta else "PreTrainedTokenizerFast"
    write_json(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": name, "model_max_length": limit, **named},
    )
    write_json(folder, "special_tokens_map.json", named)
    return tokenizer.get_vocab_size()
