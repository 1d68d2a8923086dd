"""CLIP: pictures and texts, a byte-level BPE, the text's end token as its vector."""

import numpy as np
import torch
from torch import Tensor, nn

from .errors import Refused
from .folder import HfFolder
from .loading import load
from .parts import Family, Feed, Options, Space, Tower
from .pictures import Picture, read_picture
from .source import family_of
from .still import DEFAULT_FRAMES, picture_towers
from .texts import Text, read_text


class TextFeatures(nn.Module):
    """Token ids (and a mask where the tokenizer gives one) to the projected text vector."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.model.get_text_features(
            input_ids=token_ids, attention_mask=attention_mask
        ).pooler_output


def text_tower(model: nn.Module, text: Text, space: str) -> Tower:
    @torch.no_grad()
    def reference(feed: Feed) -> dict[str, np.ndarray]:
        ids = torch.from_numpy(feed["token_ids"])
        mask = torch.from_numpy(feed["attention_mask"]) if "attention_mask" in feed else None
        found = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return {space: found.numpy()}

    return Tower(
        "text",
        "text",
        TextFeatures(model),
        {space: space},
        {"text": text.manifest()},
        text.golden_feeds(),
        reference,
        text.dynamic(),
    )


def check_size(folder: HfFolder, picture: Picture, vision) -> None:
    size = vision.image_size
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    if picture.size != wanted:
        raise Refused(
            f"preprocessor_config.json in {folder.path} makes pictures of "
            f"{picture.size[0]}x{picture.size[1]}, config.json takes {wanted[0]}x{wanted[1]}: "
            "download both files from one revision"
        )


def build(folder: HfFolder, options: Options, family: str = "clip") -> Family:
    picture = read_picture(folder)
    model = load(folder, "CLIPModel")
    check_size(folder, picture, model.config.vision_config)
    positions = model.config.text_config.max_position_embeddings
    text = read_text(folder, "tokenizer.json", positions, "none", with_mask=False,
                     words=model.config.text_config.vocab_size)  # fmt: skip

    def embed(pixels: Tensor) -> Tensor:
        return model.get_image_features(pixel_values=pixels).pooler_output

    frames = options.frames or DEFAULT_FRAMES
    towers = picture_towers(picture, family, embed, model, frames, options.window_secs)
    towers.append(text_tower(model, text, family))
    space = Space(family, model.config.projection_dim, ["text", "video", "image"])
    what = f"CLIP {folder.path.name}: pictures, videos as {frames} frames, and texts in one space"
    files = {text.file: text.data()}
    return family_of(folder, "clip", family, [space], towers, what, files, options)
