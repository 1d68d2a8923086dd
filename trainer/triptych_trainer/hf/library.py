"""The only door to `transformers`: imported late, because it takes seconds, and without network."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def transformers() -> ModuleType:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers as module

    module.utils.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    return module


LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""What every `from_pretrained` gets."""


@contextmanager
def without_checks() -> Iterator[None]:
    """Networks do not check their inputs inside: a graph has no way to say it."""
    name = "torch_compilable_check"
    modules = [
        module
        for path, module in list(sys.modules.items())
        if path.startswith("transformers.models.") and name in vars(module)
    ]
    before = [vars(module)[name] for module in modules]
    try:
        for module in modules:
            setattr(module, name, lambda *_, **__: None)
        yield
    finally:
        for module, check in zip(modules, before, strict=True):
            setattr(module, name, check)
