"""What people might say over a scene: full, partial, wrong and unrelated sentences."""

import re
from dataclasses import replace

import numpy as np

from .scene import ATTRIBUTES, MOTIONS, Scene, draw_scene

SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop", "donut"),
}
COLOUR_WORDS = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "magenta"),
}
MOTION_PHRASES = {
    "left": ("moving left", "sliding left", "going leftwards", "drifting to the left"),
    "right": ("moving right", "sliding right", "going rightwards", "drifting to the right"),
    "up": ("moving up", "rising", "going upwards", "climbing"),
    "down": ("moving down", "falling", "going downwards", "sinking"),
    "circling": ("circling", "going round", "orbiting", "moving in a circle path"),
    "shaking": ("shaking", "trembling", "wobbling side to side"),
    "growing": ("growing", "getting bigger", "expanding", "swelling"),
    "shrinking": ("shrinking", "getting smaller", "contracting", "fading away"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
CHATTER = (
    "thanks for watching everyone",
    "do not forget to subscribe",
    "let me show you something",
    "welcome back my friends",
    "today is a lovely day",
    "so what happens next",
    "wait for it",
    "I really like this part",
    "listen to that sound",
    "look at this",
)
FRAMES = ("{}", "here is {}", "you can see {}", "now {}", "look there is {}", "{} on the screen")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are to of on in for it so i do not my me you and here there this that what",
    )
)


def evaluation_caption(scene: Scene, *, size: bool = True) -> str:
    """The plain, full description; no synonyms. Things that grow or shrink have no size."""
    labels = scene.labels()
    motion = MOTION_PHRASES[labels["motion"]][0]
    sized = size and labels["motion"] not in ("growing", "shrinking")
    size_word = labels["size"] + " " if sized else ""
    return f"a {size_word}{labels['colour']} {labels['shape']} {motion}"


def attribute_captions(scene: Scene, attribute: str) -> tuple[list[str], int]:
    """The evaluation caption under every value of one attribute, and which of them is true.

    Under motions the size goes unsaid: some motions have none, and the captions must differ in
    nothing but the motion.
    """
    variants = [replace(scene, **{attribute: i}) for i in range(len(ATTRIBUTES[attribute]))]
    texts = [evaluation_caption(v, size=attribute != "motion") for v in variants]
    return texts, getattr(scene, attribute)


def describe(scene: Scene, rng: np.random.Generator, keep: float = 1.0) -> str:
    """A description with synonyms; each attribute stays with probability `keep`."""
    labels = scene.labels()
    pick = lambda words: str(rng.choice(words))  # noqa: E731
    stays = lambda: rng.uniform() < keep  # noqa: E731
    words = []
    resizes = MOTIONS[scene.motion] in ("growing", "shrinking")
    if not resizes and stays() and rng.uniform() < 0.75:
        words.append(pick(SIZE_WORDS[labels["size"]]))
    if stays():
        words.append(pick(COLOUR_WORDS[labels["colour"]]))
    words.append(pick(SHAPE_WORDS[labels["shape"]]) if stays() else pick(("thing", "object")))
    if stays():
        words.append(pick(MOTION_PHRASES[labels["motion"]]))
    return pick(FRAMES).format("a " + " ".join(words))


def candidates(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """Noisy captions as narration gives them; empty for a clip without text."""
    if rng.uniform() < 0.1:
        return []
    texts = []
    for _ in range(count):
        kind = rng.uniform()
        if kind < 0.5:
            texts.append(describe(scene, rng))
        elif kind < 0.78:
            texts.append(describe(scene, rng, keep=0.6))
        elif kind < 0.88:
            texts.append(describe(draw_scene(rng), rng))
        else:
            texts.append(str(rng.choice(CHATTER)))
    return texts


def vocabulary() -> list[str]:
    """Every word of the grammar but the stop words, sorted."""
    texts = [*CHATTER, *(f.format("") for f in FRAMES), "thing", "object"]
    for table in (SHAPE_WORDS, COLOUR_WORDS, MOTION_PHRASES, SIZE_WORDS):
        texts += [phrase for phrases in table.values() for phrase in phrases]
    words = {w for text in texts for w in re.findall(r"[\w']+", text.lower())}
    return sorted(words - STOP_WORDS)
