"""A recurrent tagger: features and characters of each token → bidirectional LSTM → scores of tags → CRF.

Sources: Lample et al. 2016 (LSTM-CRF), Ma & Hovy 2016 (characters by convolution), Gal & Ghahramani 2016 (one dropout
mask for all tokens). Shape legend: B sentences, T tokens, F features of a token, L characters of a word, C width,
K tags.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.core.tags import may_follow
from tickwise.layers.crf import LinearChainCRF
from tickwise.layers.recurrent import RecurrentLayers, locked_dropout


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """``labels`` are IOBES tags with ``O`` among them; ``feature_sizes`` and ``feature_widths`` are the rows and
    columns of each feature's embedding. ``n_characters`` 0: words are not spelt out."""

    labels: tuple[str, ...]
    feature_sizes: tuple[int, ...]
    feature_widths: tuple[int, ...]
    n_characters: int = 0
    character_width: int = 30
    character_filters: int = 50
    hidden: int = 200
    """Features of each direction."""
    n_layers: int = 1
    dropout: float = 0.5
    context: int = 0
    """Neighbouring sentences were read together up to this many tokens in training, and are so in use."""

    def __post_init__(self) -> None:
        if len(self.feature_sizes) != len(self.feature_widths) or not self.feature_sizes:
            raise ConfigError("feature_sizes and feature_widths: must have one number for each feature")
        for name in ("hidden", "n_layers", "character_width", "character_filters"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be positive, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: must be in [0, 1), got {self.dropout}")
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            raise ConfigError("labels: must be distinct, and at least one")


def allowed_by_iobes(labels: tuple[str, ...]) -> list[list[bool]]:
    """(K + 1) rows of (K + 1): which label may follow which; last come the sentence's borders."""
    around = [*labels, None]
    return [[may_follow(before, after) for after in around] for before in around]



def _locked(x_BTC: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout with one mask for all tokens of a sentence."""
    return locked_dropout(x_BTC.transpose(0, 1), rate, training).transpose(0, 1)


TYPICAL_CHARACTERS = 8
"""Of the longest word in a batch."""


class CharacterCNN(nn.Module):
    """Character ids (B, T, L), 0 behind a word's end → (B, T, filters): the strongest answer of each filter of width 3
    anywhere in the word."""

    def __init__(self, n_characters: int, width: int, filters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_characters, width, padding_idx=0)
        self.convolution = nn.Conv1d(width, filters, kernel_size=3, padding=1)

    def forward(self, characters_BTL: Tensor) -> Tensor:
        words_NL = characters_BTL.flatten(0, 1)
        answers_NCL = self.convolution(self.embedding(words_NL).transpose(1, 2))
        beyond_NL = words_NL == 0
        beyond_NL[:, 0] = False  # a padded token has no character; it may not be all -inf
        strongest_NC = answers_NCL.masked_fill(beyond_NL[:, None], -torch.inf).amax(2)
        return strongest_NC.view(*characters_BTL.shape[:2], -1)


class Tagger(nn.Module):
    """Feature ids (B, T, F), character ids (B, T, L) and lengths (B) → scores of tags (B, T, K)."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        sizes = zip(config.feature_sizes, config.feature_widths, strict=True)
        self.embeddings = nn.ModuleList(nn.Embedding(n, width, padding_idx=0) for n, width in sizes)
        width = sum(config.feature_widths)
        self.characters = None
        if config.n_characters:
            self.characters = CharacterCNN(config.n_characters, config.character_width, config.character_filters)
            width += config.character_filters
        self.layers = RecurrentLayers("lstm", width, config.hidden, config.n_layers, bidirectional=True,
                                      dropout=config.dropout)
        self.head = nn.Linear(2 * config.hidden, len(config.labels))
        self.crf = LinearChainCRF(len(config.labels), allowed_by_iobes(config.labels))

    def forward(self, features_BTF: Tensor, characters_BTL: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """All sentences are T tokens long when ``lengths_B`` is left out."""
        mark(Stage.EMBED)
        parts = [table(features_BTF[..., i]) for i, table in enumerate(self.embeddings)]
        if self.characters is not None:
            parts.append(self.characters(characters_BTL))
        rate = self.config.dropout
        x_BTC = _locked(torch.cat(parts, 2), rate, self.training)
        hidden_BTC, _ = self.layers(x_BTC, lengths=lengths_B)
        mark(Stage.HEAD)
        return self.head(_locked(hidden_BTC, rate, self.training))

    mask_inputs = (2,)
    """Lengths: padding is computed like everything else."""

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor, ...]:
        """What ``forward`` takes for ``batch`` sentences of ``context`` words, of no particular words."""
        features_BTF = torch.zeros(batch, context, len(self.embeddings), dtype=torch.long)
        return features_BTF, torch.ones(batch, context, TYPICAL_CHARACTERS, dtype=torch.long)

    def loss(self, emissions_BTK: Tensor, tags_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """Mean nats per token of the given tags."""
        mark(Stage.LOSS)
        return self.crf.loss(emissions_BTK, tags_BT, lengths_B).sum() / lengths_B.sum()

    @torch.no_grad()
    def initialise(self, seed: int) -> "Tagger":
        """Fresh weights: uniform embeddings of variance 1/width, Glorot-uniform filters and head, transitions zero."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                bound = (3.0 / module.embedding_dim) ** 0.5  # Ma & Hovy 2016
                module.weight.uniform_(-bound, bound, generator=generator)
                module.weight[0].zero_()
            elif isinstance(module, nn.Conv1d) or module is self.head:
                nn.init.xavier_uniform_(module.weight, generator=generator)
                assert module.bias is not None
                module.bias.zero_()
            elif isinstance(module, RecurrentLayers):
                module.initialise(generator)
            elif isinstance(module, LinearChainCRF):
                for parameter in module.parameters():
                    parameter.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers."""
        return sum(p.numel() for p in self.parameters())
