"""The bank: short texts about common things; a query's confidence is measured against their scores.

`bank_words.json` is our own list of everyday nouns, actions, scenes and sounds; the texts are
made of it by fixed patterns, so every bundle has the same ones.
"""

import itertools
import json
from pathlib import Path

from .errors import Refused

WORDS = Path(__file__).parent / "bank_words.json"
SOURCE = (
    "made by triptych-trainer from hf/bank_words.json: everyday things, actions, places and sounds"
)
MOST_TEXTS = 5000


def own_bank() -> dict:
    words = json.loads(WORDS.read_text(encoding="utf-8"))
    things, actors = words["things"], words["actors"]
    texts = [_article(thing) for thing in things]
    texts += [f"{_article(actor)} {deed}" for actor, deeds in actors.items() for deed in deeds]
    places = itertools.cycle(words["places"])
    texts += [f"{_article(thing)} {next(places)}" for thing in things[::3]]
    texts += words["scenes"]
    texts += words["sounds"]
    return {"texts": list(dict.fromkeys(texts)), "source": SOURCE, "language": "en"}


def _article(noun: str) -> str:
    if noun.split()[0] in ("some", "two", "people", "water"):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def given_bank(path: Path) -> dict:
    """A bank of the user's own: a JSON file as in a bundle, or a text a line."""
    try:
        raw = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the bank {path} cannot be read as UTF-8 text: {error}") from None
    more: dict = {}
    if path.suffix == ".json":
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise Refused(f"the bank {path} is not JSON: {error}") from None
        value = {"texts": value} if isinstance(value, list) else value
        if not isinstance(value, dict) or not isinstance(value.get("texts"), list):
            raise Refused(f'the bank {path} needs {{"texts": ["...", ...]}} or a list of strings')
        lines = value["texts"]
        facts = {key: value.get(key) for key in ("source", "language")}
        more = {key: fact for key, fact in facts.items() if isinstance(fact, str)}
    else:
        lines = raw.splitlines()
    if not all(isinstance(line, str) for line in lines):
        raise Refused(f"the bank {path} contains a value that is not a string")
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not 20 <= len(texts) <= MOST_TEXTS:
        raise Refused(
            f"the bank {path} has {len(texts)} different texts; expected 20 to {MOST_TEXTS}"
        )
    return {"texts": texts, "source": f"given with --bank {path.name}", "language": "und"} | more
