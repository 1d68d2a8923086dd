"""A folder's tokenizer as a file of the `tokenizers` library and fields of the manifest, and the
same rule in Python."""

import json
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers
from .loading import first_line
from .parts import Feed

ENDLESS = 1_000_000
"""transformers writes 1e30 for a tokenizer without a limit."""

VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",),
                ("tokenizer.model",))  # fmt: skip

GOLDEN_TEXTS = (
    "a dog barking at the door",
    "A RED car — driving, quickly; through rain!",
    "ein Hund bellt laut · 犬が吠える · собака лает · كلب ينبح",
    "café naïve\u00a0\u200d👩‍👩‍👧 ½ ﬁ  two\tspaces\n",
    "rain " * 100,
)
PROBES = (
    *GOLDEN_TEXTS,
    "",
    " ",
    "\u0000\u0007\u200b\ufeff",
    "x" * 3000,
    "don't won't I'm they've 3.14 10:30 e-mail@example.org https://example.org/?q=1&r=2",
    "ＦＵＬＬ　ｗｉｄｔｈ ﷺ Å Å ℌ",
    "हिन्दी में एक वाक्य ภาษาไทย 한국어 文字 Ελληνικά עברית",
    "🙂🏽‍🚀 #hashtag @name ...!!! ((())) [MASK] <pad> </s> <|endoftext|> <eos>",
    "MiXeD CaSe ẞ İ ı Σς",
    "The quick brown fox jumps over the lazy dog. " * 20,
)


@dataclass
class Text:
    """A text tower's preprocessing."""

    tokenizer: Tokenizer
    file: str
    max_tokens: int
    padding: str
    pad_id: int
    side: str
    truncate: str
    with_mask: bool
    prompts: dict[str, str] = field(default_factory=dict)
    languages: list[str] = field(default_factory=list)

    def manifest(self) -> dict:
        more: dict = {"prompts": self.prompts} if self.prompts else {}
        if self.languages:
            more["languages"] = self.languages
        return {
            "kind": "tokens",
            "tokenizer": self.file,
            "max_tokens": self.max_tokens,
            "special_tokens": True,
            "padding": self.padding,
            "pad_id": self.pad_id,
            "side": self.side,
            "truncate": self.truncate,
            "lowercase": False,
            **more,
        }

    def ids(self, text: str) -> tuple[list[int], list[int]]:
        """(ids, mask) as they are, without a prompt."""
        self.tokenizer.enable_truncation(self.max_tokens, direction=self.truncate)
        self.tokenizer.no_padding()
        ids = self.tokenizer.encode(text, add_special_tokens=True).ids
        mask = [1] * len(ids)
        missing = self.max_tokens - len(ids) if self.padding == "max" else 0
        pad, off = [self.pad_id] * missing, [0] * missing
        return (pad + ids, off + mask) if self.side == "left" else (ids + pad, mask + off)

    def feed(self, texts: list[str], role: str = "query") -> Feed:
        """Rows of equal length."""
        prompt = self.prompts.get(role, "{text}")
        rows = [self.ids(prompt.replace("{text}", text)) for text in texts]
        found = {"token_ids": np.array([ids for ids, _ in rows], np.int64)}
        if self.with_mask:
            found["attention_mask"] = np.array([mask for _, mask in rows], np.int64)
        return found

    def golden_feeds(self) -> list[Feed]:
        """One set of rows, or one set a text where lengths differ."""
        if self.padding == "max":
            return [self.feed(list(GOLDEN_TEXTS))]
        return [self.feed([text]) for text in GOLDEN_TEXTS]

    def dynamic(self) -> dict[str, dict[int, str]]:
        if self.padding == "max":
            return {}
        return {"token_ids": {1: "tokens"}}

    def data(self) -> bytes:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        return self.tokenizer.to_str().encode()


def load_tokenizer(folder: HfFolder):
    """transformers' own tokenizer, if it stands on the `tokenizers` library."""
    # Without any of its files transformers makes an empty one.
    if not any(all(folder.has(name) for name in names) for names in VOCABULARIES):
        raise Refused(_no_tokenizer(folder, "nor another vocabulary"))
    try:
        tokenizer = transformers().AutoTokenizer.from_pretrained(str(folder.path), **LOCAL)
        backend = getattr(tokenizer, "backend_tokenizer", None)
    except Exception as error:
        tokenizer, backend = None, None
        if not folder.has("tokenizer.json"):
            raise Refused(_no_tokenizer(folder, first_line(error))) from error
    if backend is None and folder.has("tokenizer.json"):
        try:
            tokenizer = transformers().PreTrainedTokenizerFast.from_pretrained(
                str(folder.path), **LOCAL
            )
            backend = tokenizer.backend_tokenizer
        except Exception as error:
            raise Refused(
                f"tokenizer.json in {folder.path} cannot be read: {first_line(error)}. "
                "Download it again"
            ) from error
    if backend is None:
        raise Refused(_no_tokenizer(folder, "it has only a SentencePiece model or a word list"))
    return tokenizer


def _no_tokenizer(folder: HfFolder, why: str) -> str:
    return (
        f"{folder.path} has no tokenizer.json ({why}): download tokenizer.json too, or make it "
        "once with transformers (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
    )


def read_text(
    folder: HfFolder,
    file: str,
    positions: int,
    padding: str,
    *,
    with_mask: bool,
    words: int,
) -> Text:
    """The tokenizer of a folder. `positions`: how many tokens the network can take; `words`: rows
    of its word table."""
    theirs = load_tokenizer(folder)
    highest = max(theirs.get_vocab().values(), default=0)
    if highest >= words:
        raise Refused(
            f"the tokenizer of {folder.path} gives ids up to {highest}, the network's word table "
            f"has {words} rows: download tokenizer.json and config.json of one revision"
        )
    limit = int(min(theirs.model_max_length, ENDLESS))
    if limit >= ENDLESS or limit > positions:
        limit = positions
    ours = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    if theirs.pad_token_id is None:
        raise Refused(f"the tokenizer of {folder.path} names no pad token (tokenizer_config.json)")
    if padding == "none" and with_mask:
        # Without padding every token counts.
        with_mask = False
    text = Text(
        ours,
        file,
        limit,
        padding,
        int(theirs.pad_token_id),
        theirs.padding_side,
        theirs.truncation_side,
        with_mask,
        prompts=_prompts(folder),
        languages=folder.languages(),
    )
    _compare(folder, theirs, text)
    return text


def _prompts(folder: HfFolder) -> dict[str, str]:
    """Prompts by role, where the folder is one of sentence-transformers."""
    named = folder.json("config_sentence_transformers.json").get("prompts")
    if not isinstance(named, dict):
        return {}
    found = {}
    for role in ("query", "document"):
        prompt = named.get(role)
        if isinstance(prompt, str) and prompt:
            found[role] = prompt if "{text}" in prompt else prompt + "{text}"
    return found


def _compare(folder: HfFolder, theirs, text: Text) -> None:
    """Refuses a tokenizer if its file alone gives other tokens than transformers."""
    options = {"truncation": True, "max_length": text.max_tokens}
    if text.padding == "max":
        options["padding"] = "max_length"
    for probe in PROBES:
        want = theirs(probe, **options)["input_ids"]
        got = text.ids(probe)[0]
        if list(want) != got:
            raise Refused(
                f"the tokenizer of {folder.path} does more than its tokenizer.json says: "
                f"{json.dumps(probe[:40])} gives {list(want)[:8]} in transformers and {got[:8]} "
                "from the file; a bundle cannot represent that"
            )
