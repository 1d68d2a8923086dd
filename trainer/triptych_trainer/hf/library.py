"""The only door to `transformers`: imported late, because it takes seconds, and without network."""

import os
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
