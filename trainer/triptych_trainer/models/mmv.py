"""MMV: backbones and heads of one configuration."""

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .audio_frontend import LogMel
from .heads import GRAPHS, FacHeads, PairHeads, modalities
from .resnet import AudioResNet50, TsmResNet50
from .s3d import S3dG
from .text import TextBackbone


class Mmv(nn.Module):
    """Embeds clips, sounds and texts: un-normalised [B, dim] per space of the head graph."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.modalities = modalities(cfg.spaces)
        dims = {}
        if cfg.backbone == "s3d":
            self.video_backbone = S3dG(cfg.video_width, cfg.stem, pool_padding=cfg.pool_padding)
        else:
            self.video_backbone = TsmResNet50(cfg.video_width)
        dims["video"] = self.video_backbone.dim
        if "audio" in self.modalities:
            self.log_mel = LogMel(cfg.audio_log)
            self.audio_backbone = AudioResNet50(cfg.audio_width)
            dims["audio"] = self.audio_backbone.dim
        if "text" in self.modalities:
            self.text_backbone = TextBackbone(
                cfg.vocab_size, cfg.word_dim, cfg.text_hidden, freeze=cfg.freeze_words
            )
            dims["text"] = self.text_backbone.dim
        if cfg.spaces == "fac":
            self.heads = FacHeads(
                dims["video"], dims["audio"], dims["text"], cfg.fine_dim, cfg.coarse_dim
            )
        else:
            sizes = {"fine": cfg.fine_dim, "coarse": cfg.coarse_dim}
            linear = cfg.video_head == "linear"
            self.heads = PairHeads(cfg.spaces, dims, sizes, linear_video=linear)

    def modules_of(self, modality: str) -> list[nn.Module]:
        """What learns for one modality: its backbone and its heads."""
        backbones = {
            "video": lambda: [self.video_backbone],
            "audio": lambda: [self.log_mel, self.audio_backbone],
            "text": lambda: [self.text_backbone],
        }
        return backbones[modality]() + self.heads.of(modality)

    def space_dims(self) -> dict[str, int]:
        """Dimensions of every space, from the finest to the coarsest."""
        sizes = {"fine": self.cfg.fine_dim, "coarse": self.cfg.coarse_dim}
        return {space.name: sizes[space.dim] for space in GRAPHS[self.cfg.spaces]}

    def embed_video(self, frames_bthwc: Tensor) -> dict[str, Tensor]:
        """Frames [B, T, H, W, 3], u8 or f32 in [0, 1]."""
        x = frames_bthwc
        if x.dtype == torch.uint8:
            x = x.to(torch.float32) / 255.0
        return self.heads.video(self.video_backbone(x.permute(0, 4, 1, 2, 3)))

    def embed_audio(self, pcm: Tensor) -> dict[str, Tensor]:
        """PCM f32 [B, samples] in [-1, 1]."""
        return self.embed_audio_logmel(self.log_mel(pcm))

    def embed_audio_logmel(self, logmel_btf1: Tensor) -> dict[str, Tensor]:
        """Log-mel f32 [B, T', 80, 1]."""
        return self.heads.audio(self.audio_backbone(logmel_btf1))

    def embed_text(self, token_ids: Tensor) -> dict[str, Tensor]:
        """Token ids i64 [N, 16]."""
        return self.heads.text(self.text_backbone(token_ids))
