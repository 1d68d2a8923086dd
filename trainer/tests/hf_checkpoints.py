"""Folders in the published layouts with random weights and tokenizers trained on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from hf_files import card, save, seeded, shaken, write_json
from hf_tokenizers import (
    byte_bpe_tokenizer,
    clip_tokenizer,
    gemma_tokenizer,
    sentencepiece_tokenizer,
)

SMALL_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def clip(
    folder: Path,
    size: int = 32,
    resize: dict | None = None,
    text: dict = SMALL_TEXT,
    vision: dict = SMALL_TEXT | {"patch_size": 8},
    dim: int = 24,
    eos: int | None = None,
) -> Path:
    """openai/clip-vit-*: shorter side, centre crop, bicubic. `eos` 2 is what old ones say."""
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    vocab = clip_tokenizer(folder)
    seeded()
    read = {"vocab_size": vocab} | text | {
        "bos_token_id": vocab - 2, "eos_token_id": eos or vocab - 1, "pad_token_id": 1,
        "max_position_embeddings": 77,
    }  # fmt: skip
    seen = vision | {"image_size": size}
    config = CLIPConfig(text_config=read, vision_config=seen, projection_dim=dim)
    save(shaken(CLIPModel(config)), folder)
    write_json(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "feature_extractor_type": "CLIPFeatureExtractor",
            "do_resize": True, "size": resize or {"shortest_edge": size}, "resample": 3,
            "do_center_crop": True, "crop_size": {"height": size, "width": size},
            "do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )  # fmt: skip
    card(folder, "mit")
    return folder


def siglip(
    folder: Path,
    size: int = 32,
    gemma: bool = False,
    text: dict = SMALL_TEXT,
    vision: dict = SMALL_TEXT | {"patch_size": 8},
) -> Path:
    """google/siglip-* and, with Gemma's tokenizer, the fixed resolutions of google/siglip2-*."""
    from transformers import SiglipConfig, SiglipModel

    folder.mkdir(parents=True, exist_ok=True)
    if gemma:
        vocab = gemma_tokenizer(
            folder, model_max_length=64, model_input_names=["input_ids"], padding_side="right"
        )
    else:
        vocab = sentencepiece_tokenizer(folder)
    seeded()
    read = {"vocab_size": vocab} | text | {"max_position_embeddings": 64}
    read |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    seen = vision | {"image_size": size}
    save(shaken(SiglipModel(SiglipConfig(text_config=read, vision_config=seen))), folder)
    write_json(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True, "size": {"height": size, "width": size},
            "resample": 2 if gemma else 3,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        },
    )  # fmt: skip
    return folder


def siglip2(
    folder: Path,
    patches: int = 16,
    text: dict = SMALL_TEXT,
    vision: dict = SMALL_TEXT | {"num_patches": 16, "patch_size": 8},
) -> Path:
    """google/siglip2-*-naflex."""
    from transformers import Siglip2Config, Siglip2Model

    folder.mkdir(parents=True, exist_ok=True)
    vocab = gemma_tokenizer(
        folder, add_bos=False, tokenizer_class="Siglip2Tokenizer", padding_side="right",
        model_input_names=["input_ids"],
    )  # fmt: skip
    seeded()
    read = {"vocab_size": vocab} | text | {"max_position_embeddings": 64}
    read |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    save(shaken(Siglip2Model(Siglip2Config(text_config=read, vision_config=vision))), folder)
    write_json(
        folder,
        "preprocessor_config.json",
        {
            "image_processor_type": "Siglip2ImageProcessor",
            "do_resize": True, "resample": 2, "patch_size": vision.get("patch_size", 16),
            "max_num_patches": patches,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        },
    )  # fmt: skip
    return folder


SMALL_CLAP = {
    "spec_size": 128, "num_mel_bins": 32, "window_size": 4, "hidden_size": 64,
    "patch_embeds_hidden_size": 8, "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 4],
}  # fmt: skip


def clap(
    folder: Path,
    fused: bool = False,
    secs: int = 2,
    text: dict = SMALL_TEXT | {"max_position_embeddings": 130},
    audio: dict = SMALL_CLAP,
    dim: int = 24,
    padding: str = "repeatpad",
) -> Path:
    """laion/clap-htsat-unfused and -fused."""
    from transformers import ClapConfig, ClapModel

    folder.mkdir(parents=True, exist_ok=True)
    vocab = byte_bpe_tokenizer(folder, "roberta", 512)
    seeded()
    read = {"vocab_size": vocab} | text | {"pad_token_id": 1}
    heard = audio | {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}
    config = ClapConfig(text_config=read, audio_config=heard, projection_dim=dim)
    model = ClapModel(config)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.7, 1.4)
    first = model.audio_model.audio_encoder.batch_norm
    first.running_mean.fill_(-40.0)
    first.running_var.fill_(400.0)
    save(shaken(model), folder)
    write_json(
        folder,
        "preprocessor_config.json",
        {
            "feature_extractor_type": "ClapFeatureExtractor", "processor_class": "ClapProcessor",
            "feature_size": audio.get("num_mel_bins", 64), "sampling_rate": 48000,
            "hop_length": 480, "fft_window_size": 1024,
            "max_length_s": secs, "nb_max_samples": 48000 * secs, "padding_value": 0.0,
            "frequency_min": 50, "frequency_max": 14000, "padding_side": "right", "top_db": None,
            "return_attention_mask": False, "chunk_length_s": secs,
            "truncation": "fusion" if fused else "rand_trunc", "padding": padding,
        },
    )  # fmt: skip
    return folder


SMALL_PE = {
    "temporal": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "head_dim": 16,
    },
    "vision": {
        "architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 24,
        "model_args": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "dac": {"encoder_hidden_size": 4, "codebook_dim": 8, "hidden_size": 64},
    "text": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "local_attention": 16,
    },
}  # fmt: skip


def pe_audio_video(
    folder: Path, frames: int | None = 16, size: int = 32, sizes: dict = SMALL_PE
) -> Path:
    """facebook/pe-av-*: `frames` 16 or, for the checkpoints of all frames, None."""
    from transformers import PeAudioVideoConfig, PeAudioVideoModel

    folder.mkdir(parents=True, exist_ok=True)
    vocab = byte_bpe_tokenizer(folder, "modernbert", 8192)
    seeded()
    temporal = sizes["temporal"]
    vision = {"do_pooling": True, "global_pool": "map"} | sizes["vision"]
    config = PeAudioVideoConfig(
        text_config={
            "model_type": "modernbert", "vocab_size": vocab, **sizes["text"],
            "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
            "sep_token_id": 2,
        },
        audio_video_config={
            **temporal,
            "audio_config": {**temporal, "dac_config": sizes["dac"]},
            "video_config": {**temporal, "vision_config": vision},
        },
    )  # fmt: skip
    save(shaken(PeAudioVideoModel(config), 0.5), folder)
    write_json(
        folder,
        "processor_config.json",
        {
            "processor_class": "PeAudioVideoProcessor",
            "feature_extractor": {
                "feature_extractor_type": "PeAudioFeatureExtractor", "feature_size": 1,
                "hop_length": 1920, "padding_side": "right", "padding_value": 0.0,
                "return_attention_mask": True, "sampling_rate": 48000,
            },
            "video_processor": {
                "video_processor_type": "PeVideoVideoProcessor", "do_resize": True,
                "size": {"height": size, "width": size}, "resample": 2, "do_rescale": True,
                "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
                "do_sample_frames": frames is not None, "num_frames": frames,
                "return_metadata": False,
            },
        },
    )  # fmt: skip
    return folder


GEMMA_TOKENS = {
    "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
    "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>",
}  # fmt: skip


SMALL_GEMMA = {
    "text": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "global_head_dim": 32, "num_global_key_value_heads": 1, "sliding_window": 12,
        "sliding_window_pattern": 2, "hidden_size_per_layer_input": 16, "embedding_dim": 512,
    },
    "vision": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "position_embedding_size": 1024, "patch_size": 4, "standardize": True,
    },
    "audio": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "subsampling_conv_channels": [128, 8], "output_proj_dims": 24,
    },
    "soft_tokens": 70,
}  # fmt: skip


def embedding_gemma2(folder: Path, sizes: dict = SMALL_GEMMA) -> Path:
    """google/embeddinggemma-2, in bf16 as published."""
    from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

    folder.mkdir(parents=True, exist_ok=True)
    extra = (*GEMMA_TOKENS.values(), "<|video|>")
    vocab = gemma_tokenizer(
        folder, extra, model_max_length=2048, padding_side="right",
        extra_special_tokens=GEMMA_TOKENS,
    )  # fmt: skip
    made = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    seeded()
    config = EmbeddingGemma2Config(
        text_config={"vocab_size": vocab, **sizes["text"]},
        vision_config=sizes["vision"],
        audio_config=sizes["audio"],
        boi_token_id=made["<|image>"], eoi_token_id=made["<image|>"],
        image_token_id=made["<|image|>"], video_token_id=made["<|video|>"],
        boa_token_id=made["<|audio>"], eoa_token_index=made["<audio|>"],
        audio_token_id=made["<|audio|>"],
    )  # fmt: skip
    model = shaken(EmbeddingGemma2Model(config), 0.5)
    if model.vision_tower.config.standardize:
        model.vision_tower.std_bias.normal_(0, 0.1)
        model.vision_tower.std_scale.uniform_(0.5, 1.5)
    save(model.to(torch.bfloat16), folder)
    numbers = {
        "do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3,
        "do_convert_rgb": True, "patch_size": sizes["vision"].get("patch_size", 16),
        "pooling_kernel_size": 3,
    }  # fmt: skip
    write_json(
        folder,
        "processor_config.json",
        {
            "processor_class": "EmbeddingGemma2Processor",
            "image_seq_length": 70, "audio_seq_length": 750, "audio_ms_per_token": 40,
            "image_processor": {
                "image_processor_type": "Gemma4ImageProcessor", **numbers,
                "max_soft_tokens": sizes["soft_tokens"],
            },
            "video_processor": {
                "video_processor_type": "EmbeddingGemma2VideoProcessor", **numbers,
                "max_soft_tokens": 70,
                "do_sample_frames": True, "fps": 1, "max_frames": 32,
                "overflow_strategy": "uniform", "add_timestamps": False,
            },
            "feature_extractor": {
                "feature_extractor_type": "Gemma4AudioFeatureExtractor", "feature_size": 128,
                "sampling_rate": 16000, "padding_value": 0.0, "return_attention_mask": True,
                "frame_length_ms": 20.0, "hop_length_ms": 10.0, "min_frequency": 0.0,
                "max_frequency": 8000.0, "preemphasis": 0.0, "mel_floor": 0.001,
                "fft_overdrive": False, "dither": 0.0, "input_scale_factor": 1.0,
            },
        },
    )  # fmt: skip
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    write_json(folder, "config_sentence_transformers.json", {"prompts": prompts})
    return folder


MAKERS: dict[str, Callable[..., Path]] = {
    "clip": clip, "siglip": siglip, "siglip2": siglip2, "clap": clap,
    "pe_audio_video": pe_audio_video, "embedding_gemma2": embedding_gemma2,
}  # fmt: skip

PUBLISHED: dict[str, Callable[[Path], Path]] = {
    "clip-vit-base-patch32": lambda folder: clip(
        folder, 224, text={"vocab_size": 49408}, vision={}, dim=512
    ),
    "siglip-base-patch16-256": lambda folder: siglip(
        folder, 256, text={"vocab_size": 32000}, vision={}
    ),
    "siglip2-base-patch16-naflex": lambda folder: siglip2(
        folder, 256, text={"vocab_size": 256000}, vision={}
    ),
    "clap-htsat-fused": lambda folder: clap(
        folder, True, 10, text={"vocab_size": 50265}, audio={}, dim=512
    ),
    "pe-av-16-frame": lambda folder: pe_audio_video(
        folder,
        16,
        384,
        {
            "temporal": {
                "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4,
                "num_attention_heads": 6, "head_dim": 128,
            },
            "vision": {"architecture": "vit_pe_core_small_patch16_384", "num_classes": 512},
            "dac": {},
            "text": {"vocab_size": 50368, "num_hidden_layers": 22},
        },
    ),
    "embeddinggemma-2": lambda folder: embedding_gemma2(
        folder, {"text": {"vocab_size": 262144}, "vision": {}, "audio": {}, "soft_tokens": 280}
    ),
}  # fmt: skip
"""Sizes of the configuration classes; PE-AV's smaller ones are known by their parts only."""
