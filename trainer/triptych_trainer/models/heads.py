"""FAC heads (MMV specification, section 6): fine 512-d for video, audio; coarse 256-d for all."""

from torch import Tensor, nn
from torch.nn import functional as F

from .s3d import BN_EPS, BN_MOMENTUM


def batch_norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class FacHeads(nn.Module):
    """Projection heads. Every output is un-normalised; the losses and the server normalise."""

    def __init__(
        self, video_dim: int, audio_dim: int, text_dim: int, fine_dim: int, coarse_dim: int
    ) -> None:
        super().__init__()
        self.video_fine_0 = nn.Linear(video_dim, fine_dim)
        self.video_fine_bn_0 = batch_norm(fine_dim)
        self.video_fine_1 = nn.Linear(fine_dim, fine_dim, bias=False)
        self.video_fine_bn_1 = batch_norm(fine_dim)
        self.coarse = nn.Linear(fine_dim, coarse_dim)
        self.coarse_bn = batch_norm(coarse_dim)
        self.audio_fine = nn.Linear(audio_dim, fine_dim)
        self.text_coarse = nn.Linear(text_dim, coarse_dim)

    def video(self, feature: Tensor) -> dict[str, Tensor]:
        fine = F.relu(self.video_fine_bn_0(self.video_fine_0(feature)))
        fine = self.video_fine_bn_1(self.video_fine_1(fine))
        return {"fine": fine, "coarse": self.coarse_bn(self.coarse(F.relu(fine)))}

    def audio(self, feature: Tensor) -> dict[str, Tensor]:
        fine = self.audio_fine(feature)
        if self.training:
            # The coarse head's BatchNorm must never see audio while it learns.
            return {"fine": fine}
        return {"fine": fine, "coarse": self.coarse_bn(self.coarse(F.relu(fine)))}

    def text(self, feature: Tensor) -> dict[str, Tensor]:
        return {"coarse": self.text_coarse(feature)}
