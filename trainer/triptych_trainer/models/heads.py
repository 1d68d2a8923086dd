"""Projection heads: which spaces there are and which modality gets into which
(MMV specification, section 6, and the paper's shared and disjoint graphs).

| graph      | spaces                                                              |
|------------|---------------------------------------------------------------------|
| `fac`      | `fine` video, audio; `coarse` video, audio, text, made from the fine |
| `shared`   | `shared`: all three                                                 |
| `disjoint` | `video_audio` and `video_text`: audio and text share no space       |
| `vt`       | `video_text`                                                        |
| `va`       | `video_audio`                                                       |
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .norm import BatchNorm


@dataclass(frozen=True)
class Space:
    """`dim` is `fine` or `coarse`: which of the configured sizes the space has."""

    name: str
    dim: str
    members: tuple[str, ...]


GRAPHS = {
    "fac": (
        Space("fine", "fine", ("video", "audio")),
        Space("coarse", "coarse", ("text", "video", "audio")),
    ),
    "shared": (Space("shared", "fine", ("text", "video", "audio")),),
    "disjoint": (
        Space("video_audio", "fine", ("video", "audio")),
        Space("video_text", "coarse", ("text", "video")),
    ),
    "vt": (Space("video_text", "fine", ("text", "video")),),
    "va": (Space("video_audio", "fine", ("video", "audio")),),
}
"""From the finest to the coarsest, as the bundle lists them."""


def modalities(graph: str) -> set[str]:
    return {member for space in GRAPHS[graph] for member in space.members}


def shared_space(graph: str, a: str, b: str) -> str | None:
    """The space two modalities are compared in: the first both are members of."""
    for space in GRAPHS[graph]:
        if a in space.members and b in space.members:
            return space.name
    return None


class FacHeads(nn.Module):
    """Fine and coarse. Every output is un-normalised; the losses and the server normalise."""

    def __init__(
        self, video_dim: int, audio_dim: int, text_dim: int, fine_dim: int, coarse_dim: int
    ) -> None:
        super().__init__()
        self.video_fine_0 = nn.Linear(video_dim, fine_dim)
        self.video_fine_bn_0 = BatchNorm(fine_dim)
        self.video_fine_1 = nn.Linear(fine_dim, fine_dim, bias=False)
        self.video_fine_bn_1 = BatchNorm(fine_dim)
        self.coarse = nn.Linear(fine_dim, coarse_dim)
        self.coarse_bn = BatchNorm(coarse_dim)
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

    def text_head(self, space: str) -> nn.Linear:
        return {"coarse": self.text_coarse}[space]

    def of(self, modality: str) -> list[nn.Module]:
        """The heads that learn for a modality. The coarse one learns from video; audio uses it."""
        fine = [self.video_fine_0, self.video_fine_bn_0, self.video_fine_1, self.video_fine_bn_1]
        return {
            "video": [*fine, self.coarse, self.coarse_bn],
            "audio": [self.audio_fine],
            "text": [self.text_coarse],
        }[modality]


class Mlp(nn.Module):
    """Linear -> BN -> ReLU -> Linear without bias -> BN: the paper's head of video."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear_0, self.bn_0 = nn.Linear(inputs, hidden), BatchNorm(hidden)
        self.linear_1, self.bn_1 = nn.Linear(hidden, outputs, bias=False), BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_1(self.linear_1(F.relu(self.bn_0(self.linear_0(x)))))


class PairHeads(nn.Module):
    """One head per modality and space, straight from the backbone: the MLP for video, a linear
    map for audio and text. `linear_video` makes video's linear too (public MIL-NCE weights)."""

    def __init__(
        self, graph: str, dims: dict[str, int], sizes: dict[str, int], *, linear_video: bool = False
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        for space in GRAPHS[graph]:
            size = sizes[space.dim]
            for member in space.members:
                if member == "video" and not linear_video:
                    head = Mlp(dims[member], sizes["fine"], size)
                else:
                    head = nn.Linear(dims[member], size)
                self.heads[f"{member}__{space.name}"] = head

    def _project(self, modality: str, feature: Tensor) -> dict[str, Tensor]:
        names = [key.split("__") for key in self.heads]
        return {
            space: self.heads[f"{modality}__{space}"](feature)
            for member, space in names
            if member == modality
        }

    def video(self, feature: Tensor) -> dict[str, Tensor]:
        return self._project("video", feature)

    def audio(self, feature: Tensor) -> dict[str, Tensor]:
        return self._project("audio", feature)

    def text(self, feature: Tensor) -> dict[str, Tensor]:
        return self._project("text", feature)

    def text_head(self, space: str) -> nn.Linear:
        return self.heads[f"text__{space}"]

    def of(self, modality: str) -> list[nn.Module]:
        """The heads that learn for a modality."""
        return [head for key, head in self.heads.items() if key.split("__")[0] == modality]
