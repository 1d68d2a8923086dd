"""A protocol's numbers beside the paper's (MMV specification, section 9)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

# FAC on HowTo100M and AudioSet (table 2), the three video networks.
MODELS = ("S3D-G", "TSM-50", "TSM-50x2")


def _three(*numbers: float) -> dict[str, float]:
    return dict(zip(MODELS, numbers, strict=True))


PAPER: dict[str, dict[str, float]] = {
    "ucf101.linear": _three(89.6, 91.5, 91.8),
    "ucf101.finetuned": _three(92.5, 94.9, 95.2),
    "hmdb51.linear": _three(62.6, 66.7, 67.1),
    "hmdb51.finetuned": _three(69.6, 73.2, 75.0),
    "esc50.linear": _three(87.7, 86.4, 88.9),
    "audioset.map": _three(30.3, 30.6, 30.9),
    "kinetics600.linear": _three(68.0, 67.8, 70.5),
    # Table 1, S3D-G: FAC, on HowTo100M alone and with AudioSet.
    "youcook2.r@10": {"FAC, HT": 32.2, "FAC, HT+AS": 23.8},
    "msrvtt.r@10": {"FAC, HT": 28.6, "FAC, HT+AS": 23.5},
    "voc07.naive": _three(41.8, 34.4, 45.6),
    "voc07.deflated": _three(71.4, 74.8, 77.4),
    "voc07.inflated": _three(72.1, 75.7, 77.4),
    "imagenet.naive.top1": _three(20.7, 10.9, 20.3),
    "imagenet.naive.top5": _three(40.5, 24.6, 39.9),
    "imagenet.deflated.top1": _three(45.2, 50.4, 56.6),
    "imagenet.deflated.top5": _three(71.3, 76.0, 81.4),
    "imagenet.inflated.top1": _three(46.7, 51.5, 57.4),
    "imagenet.inflated.top5": _three(72.5, 77.3, 81.7),
}
"""Per cent."""


@dataclass
class Report:
    """`results`: per cent by the names of `PAPER`, and whatever else was measured."""

    protocol: str
    model: str
    results: dict[str, float]
    settings: dict = field(default_factory=dict)
    files: int = 0
    missing: int = 0
    """Files that could not be read. They are left out, so the numbers are not comparable."""

    def to_dict(self) -> dict:
        return {
            "protocol": self.protocol,
            "model": self.model,
            "results": {k: round(v, 4) for k, v in self.results.items()},
            "paper": {k: PAPER[k] for k in self.results if k in PAPER},
            "settings": self.settings,
            "files": self.files,
            "missing": self.missing,
        }

    def table(self) -> str:
        lines = [f"{self.protocol}, {self.files} files"]
        if self.missing:
            lines.append(f"{self.missing} files could not be read: not comparable with the paper")
        for name, value in self.results.items():
            paper = "  ".join(f"{k} {v:.1f}" for k, v in PAPER.get(name, {}).items())
            lines.append(f"{name:26}{value:8.2f}   paper: {paper or '-'}")
        return "\n".join(lines)

    def write(self, folder: Path, say=print) -> Path:
        say(self.table())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.protocol}.json"
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        return path
