"""Weights of a folder into transformers' own network, with nothing left to chance."""

import contextlib
import io

import torch
from torch import nn

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers


def load(folder: HfFolder, class_name: str, attention: str = "sdpa") -> nn.Module:
    """The network in f32 for inference; refuses a tensor that is missing, of another shape or not
    finite."""
    module = getattr(transformers(), class_name, None)
    if module is None:
        raise Refused(
            f"this installation of transformers has no {class_name}: run "
            "`pip install --upgrade transformers`"
        )
    try:
        # Its own remarks about its own code are nothing to the person who imports.
        with contextlib.redirect_stdout(io.StringIO()):
            model, info = module.from_pretrained(
                str(folder.path),
                **LOCAL,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
                # They are refused below, by name.
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        raise Refused(
            f"the weights in {folder.path} do not fit config.json: {first_line(error)}. "
            "Download config.json and the safetensors files of one revision"
        ) from error
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(item[0]) for item in info["mismatched_keys"])
    if missing or wrong:
        what = f"lack {len(missing)}" if missing else f"have another shape for {len(wrong)}"
        raise Refused(
            f"the weights in {folder.path} {what} of the tensors that config.json requires, first "
            f"{(missing or wrong)[0]}: download config.json and the safetensors files of "
            "one revision"
        )
    weights = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        # Limits of a clipped layer may be infinite, weights may not.
        bad = ~torch.isfinite(value) if name in weights else torch.isnan(value)
        if bool(bad.any()):
            raise Refused(
                f"{name} in {folder.path} contains NaN or infinity: the file is damaged or the "
                "training diverged; download it again or use another revision"
            )
    return model.eval().requires_grad_(False)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
