"""SigLIP, and the checkpoints of SigLIP 2 with one resolution: texts are padded to their full
length, and the network sees the padding."""

from torch import Tensor

from .clip import check_size, text_tower
from .folder import HfFolder
from .loading import load
from .parts import Family, Options, Space
from .pictures import read_picture
from .source import family_of
from .still import DEFAULT_FRAMES, picture_towers
from .texts import Text, load_tokenizer, read_text


def padded_text(folder: HfFolder, config) -> Text:
    """Padded to the limit; the mask goes in only where the folder's own tokenizer hands one out,
    as `model(**inputs)` would have it."""
    masked = "attention_mask" in load_tokenizer(folder).model_input_names
    positions, words = config.max_position_embeddings, config.vocab_size
    return read_text(folder, "tokenizer.json", positions, "max", with_mask=masked, words=words)


def build(folder: HfFolder, options: Options, family: str = "siglip") -> Family:
    picture = read_picture(folder)
    model = load(folder, "SiglipModel")
    check_size(folder, picture, model.config.vision_config)
    text = padded_text(folder, model.config.text_config)

    def embed(pixels: Tensor) -> Tensor:
        return model.get_image_features(pixel_values=pixels).pooler_output

    frames = options.frames or DEFAULT_FRAMES
    towers = picture_towers(picture, family, embed, model, frames, options.window_secs)
    towers.append(text_tower(model, text, family))
    dim = model.config.vision_config.hidden_size
    space = Space(family, dim, ["text", "video", "image"])
    what = f"SigLIP {folder.path.name}: pictures, videos as {frames} frames, and texts in one space"
    files = {text.file: text.data()}
    return family_of(folder, "siglip", family, [space], towers, what, files, options)
