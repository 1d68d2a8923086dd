"""MMV: three backbones and the FAC heads."""

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .audio_frontend import LogMel
from .heads import FacHeads
from .resnet import AudioResNet50
from .s3d import S3dG
from .text import TextBackbone


class Mmv(nn.Module):
    """Embeds clips, sounds and texts. Outputs are un-normalised [B, 512] fine, [B, 256] coarse."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.video_backbone = S3dG(cfg.video_width, cfg.stem)
        self.log_mel = LogMel(cfg.audio_log)
        self.audio_backbone = AudioResNet50(cfg.audio_width)
        self.text_backbone = TextBackbone(
            cfg.vocab_size, cfg.word_dim, cfg.text_hidden, freeze=cfg.freeze_words
        )
        self.heads = FacHeads(
            self.video_backbone.dim,
            self.audio_backbone.dim,
            self.text_backbone.dim,
            cfg.fine_dim,
            cfg.coarse_dim,
        )

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
