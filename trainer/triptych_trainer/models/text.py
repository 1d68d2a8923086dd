"""Word vectors to a text feature (MMV specification, section 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextBackbone(nn.Module):
    """Token ids i64 [N, 16] -> [N, hidden]: word table, linear, ReLU, max over all positions.

    Padding joins the max, as in MMV: there is no mask.
    """

    def __init__(self, vocab: int, word_dim: int, hidden: int, *, freeze: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab, word_dim)
        nn.init.normal_(self.words.weight, std=word_dim**-0.5)
        with torch.no_grad():
            self.words.weight[0].zero_()
        self.words.weight.requires_grad_(not freeze)
        self.linear = nn.Linear(word_dim, hidden)
        # Unit-length word rows: the default gain would leave the features almost constant.
        nn.init.normal_(self.linear.weight, std=1.0)
        self.dim = hidden

    def forward(self, token_ids: Tensor) -> Tensor:
        return F.relu(self.linear(self.words(token_ids))).amax(dim=1)
