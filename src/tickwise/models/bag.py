"""Classifiers of bags of features: a linear part, beside it a hidden layer if asked for, and both quantised.

Sources: Joulin et al. 2017 (fastText; product quantisation: Joulin et al. 2016), Cheng et al. 2016 (wide and deep).
Shape legend: B texts, N their features in all, K known features, C classes, D embedding width, W = C + D, M bytes of a
quantised row.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Linear
from tickwise.models.classifier_config import ClassifierConfig

_CENTROIDS = 256
_SAMPLED_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class BagConfig(ClassifierConfig):
    """Shape of a classifier of bags. The dropout is of the embedding and the hidden layer."""

    n_features: int
    width: int = 0
    """Features of the embedding that the hidden layer reads; 0 leaves the linear part alone."""
    hidden: int = 0
    frozen: bool = False
    """The embedding is not trained."""
    code_bytes: int = 0
    """Bytes of a quantised row; 0 is not quantised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_features < 1:
            raise ConfigError(f"n_features: must be at least 1, got {self.n_features}")
        if self.width < 0 or self.hidden < 0 or (self.width > 0) != (self.hidden > 0):
            raise ConfigError(f"width and hidden: both 0 or both positive, got {self.width} and {self.hidden}")
        if self.code_bytes < 0 or (self.code_bytes and self.row_width % self.code_bytes):
            raise ConfigError(f"code_bytes: {self.code_bytes} does not divide the rows of {self.row_width} numbers")

    @property
    def row_width(self) -> int:
        """Numbers in a feature's row: one for each class, and its embedding."""
        return len(self.labels) + self.width


class Bag(nn.Module):
    """Bags of features → logits (B, C), not yet divided by the temperature."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config = config
        if config.code_bytes:
            self.register_buffer("codes", torch.empty(config.n_features, config.code_bytes, dtype=torch.uint8))
            self.register_buffer("codebooks", torch.empty(
                config.code_bytes, _CENTROIDS, config.row_width // config.code_bytes))
        else:
            self.features = nn.Parameter(torch.empty(config.n_features, config.row_width))
        self.bias = nn.Parameter(torch.empty(len(config.labels)))
        if config.hidden:
            self.hidden = Linear(config.width, config.hidden)
            self.out = Linear(config.hidden, len(config.labels), bias=False)

    def forward(self, rows_N: Tensor, weights_N: Tensor, offsets_B: Tensor) -> Tensor:
        """``offsets_B``: where each text's features begin (B,) among the N."""
        mark(Stage.EMBED)
        if self.config.code_bytes:
            summed_BW = self._summed_codes(rows_N, weights_N, offsets_B)
        else:
            summed_BW = F.embedding_bag(rows_N, self.features, offsets_B, mode="sum", per_sample_weights=weights_N)
        n_classes = len(self.config.labels)
        logits_BC = summed_BW[:, :n_classes] + self.bias
        if not self.config.hidden:
            return logits_BC
        mark(Stage.FFN)
        embedded_BD = summed_BW[:, n_classes:].detach() if self.config.frozen else summed_BW[:, n_classes:]
        hidden = F.relu(self.hidden(dropout(embedded_BD, self.config.dropout, self.training)))
        mark(Stage.HEAD)
        return logits_BC + self.out(dropout(hidden, self.config.dropout, self.training))

    batch_input = 2
    """The input with one entry for each text."""

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor, ...]:
        """What ``forward`` takes for ``batch`` texts of ``context`` features."""
        n = batch * context
        return torch.zeros(n, dtype=torch.long), torch.ones(n), torch.arange(0, n, context)

    def _summed_codes(self, rows_N: Tensor, weights_N: Tensor, offsets_B: Tensor) -> Tensor:
        """(B, W): each byte of a code names a row of its codebook, so there is a bag of its own per byte."""
        assert isinstance(self.codes, Tensor)
        assert isinstance(self.codebooks, Tensor)
        codes_NM = self.codes[rows_N].long()
        return torch.cat([
            F.embedding_bag(codes_NM[:, m], self.codebooks[m], offsets_B, mode="sum", per_sample_weights=weights_N)
            for m in range(self.config.code_bytes)
        ], dim=1)

    @torch.no_grad()
    def initialise(self, seed: int) -> "Bag":
        """Zero linear part; normal embeddings and hidden layer; zero output of it, so that training starts linear."""
        generator = torch.Generator().manual_seed(seed)
        n_classes = len(self.config.labels)
        self.features.zero_()
        self.bias.zero_()
        if self.config.hidden:
            self.features[:, n_classes:].normal_(0, self.config.width**-0.5, generator=generator)
            self.hidden.weight.normal_(0, self.config.width**-0.5, generator=generator)
            self.hidden.bias.zero_()
            self.out.weight.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers, codes included."""
        return sum(t.numel() for t in self.state_dict().values())

    @property
    def n_codes(self) -> int:
        """Of these, the codes of a quantised model, a byte each."""
        return self.config.n_features * self.config.code_bytes


@torch.no_grad()
def product_quantise(rows_KW: Tensor, code_bytes: int, *, seed: int = 1, rounds: int = 15) -> tuple[Tensor, Tensor]:
    """(codes (K, M) uint8, codebooks (M, 256, W / M)): each of the M parts of a row is the nearest of 256 centroids
    of that part (Jégou et al. 2011), found by Lloyd's algorithm on a sample of rows."""
    generator = torch.Generator().manual_seed(seed)
    codes, codebooks = [], []
    for part_KS in rows_KW.chunk(code_bytes, dim=1):
        sample = part_KS[torch.randperm(len(part_KS), generator=generator)[:_SAMPLED_ROWS]]
        # Different rows, as far as there are so many.
        centres = sample[torch.arange(_CENTROIDS) % len(sample)].clone()
        for _ in range(rounds):
            nearest = _nearest(sample, centres)
            sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
            counts = torch.bincount(nearest, minlength=_CENTROIDS).unsqueeze(1)
            drawn = sample[torch.randint(len(sample), (_CENTROIDS,), generator=generator)]
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), drawn)
        codes.append(_nearest(part_KS, centres).to(torch.uint8))
        codebooks.append(centres)
    return torch.stack(codes, dim=1), torch.stack(codebooks)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The number of the nearest centre of each point."""
    squares = centres.square().sum(1)
    return torch.cat([(squares - 2 * part @ centres.T).argmin(1) for part in points.split(16_384)])
