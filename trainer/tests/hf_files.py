"""The files of a folder in a published layout: its card, its JSON, its random weights."""

import json
from pathlib import Path

import torch

README = """---
license: {license}
language:
- en
pipeline_tag: feature-extraction
---

# A model

This card says in one paragraph what the model is and what it was trained on, as cards do.

```python
print("code is no prose")
```
"""


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


def card(folder: Path, license: str = "apache-2.0") -> None:
    (folder / "README.md").write_text(README.format(license=license))


def shaken(model: torch.nn.Module, scale: float = 1.0) -> torch.nn.Module:
    """Weights large enough that every layer matters, biases and norms that do something."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.is_floating_point():
                continue
            if value.ndim < 2:
                value.add_(0.1 * torch.randn_like(value))
            else:
                fan = value[0].numel()
                value.add_(scale * 0.5 * torch.randn_like(value) / fan**0.5)
            del name
    return model.eval()


def save(model: torch.nn.Module, folder: Path, **options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **options)
    card(folder)


def write_json(folder: Path, name: str, value: dict) -> None:
    (folder / name).write_text(json.dumps(value, indent=1))
