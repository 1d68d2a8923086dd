"""A model of real data to a bundle."""

from pathlib import Path

from ..config import TrainConfig
from ..export import write_bundle
from ..importer.content import golden_inputs
from ..models.mmv import Mmv
from ..towers import Content
from .words import Words


def export_trained(
    model: Mmv,
    out: Path,
    cfg: TrainConfig,
    words: list[str],
    training: dict,
    evaluation: dict,
    **more,
) -> dict[str, float]:
    """Writes the bundle; see `write_bundle`. `more`: fields of `Content`."""
    vocabulary = Words(words) if words else None
    inputs, texts = golden_inputs(model.cfg, vocabulary)
    sources = [f"{s.name} ({s.kind})" for s in cfg.data.sources]
    content = Content(
        cfg.name,
        f"MMV towers trained on {', '.join(sources)}",
        "not stated: what the footage's licences allow",
        inputs,
        texts,
        vocabulary.tokenizer() if vocabulary else None,
        training=training | {"data": ", ".join(sources)},
        evaluation=evaluation,
        **more,
    )
    return write_bundle(model, out, content)
