"""A recurrent classifier: features and characters of each word → both directions → attention → scores of classes.

Sources: Yang et al. 2016 (attention over words), Gal & Ghahramani 2016 (one dropout mask for all words), Ma & Hovy 2016
(characters by convolution). Shape legend: B texts, T words, F features of a word, L characters of a word, W width of a
word, H outputs of both directions, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.recurrent import CellKind, RecurrentLayers, locked_dropout
from tickwise.models.classifier_config import ClassifierConfig
from tickwise.models.tagger import TYPICAL_CHARACTERS, CharacterCNN


@dataclass(frozen=True, kw_only=True)
class RecurrentClassifierConfig(ClassifierConfig):
    """``feature_sizes`` and ``feature_widths`` are the rows and columns of each feature's embedding; ``n_characters``
    0: words are not spelt out. The dropout is of the words, between layers and of the pooled text."""

    feature_sizes: tuple[int, ...]
    feature_widths: tuple[int, ...]
    n_characters: int = 0
    character_width: int = 30
    character_filters: int = 50
    kind: CellKind = "lstm"
    hidden: int = 150
    """Features of each direction."""
    n_layers: int = 1
    dropout: float = 0.5
    frozen: bool = False
    """The embedding of the first feature is not trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.feature_sizes) != len(self.feature_widths) or not self.feature_sizes:
            raise ConfigError("feature_sizes and feature_widths: must have one number for each feature")
        for name in ("hidden", "n_layers", "character_width", "character_filters"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: must be positive, got {getattr(self, name)}")

    @property
    def word_width(self) -> int:
        """Numbers of an embedded word."""
        return sum(self.feature_widths) + (self.character_filters if self.n_characters else 0)


class RecurrentClassifier(nn.Module):
    """Words of texts → logits (B, C), not yet divided by the temperature."""

    def __init__(self, config: RecurrentClassifierConfig) -> None:
        super().__init__()
        self.config = config
        sizes = zip(config.feature_sizes, config.feature_widths, strict=True)
        self.embeddings = nn.ModuleList(nn.Embedding(n, width, padding_idx=0) for n, width in sizes)
        self.characters = None
        if config.n_characters:
            self.characters = CharacterCNN(config.n_characters, config.character_width, config.character_filters)
        self.layers = RecurrentLayers(config.kind, config.word_width, config.hidden, config.n_layers,
                                      bidirectional=True, dropout=config.dropout)
        self.query = nn.Linear(2 * config.hidden, 2 * config.hidden)
        self.attention = nn.Linear(2 * config.hidden, 1, bias=False)
        self.head = nn.Linear(4 * config.hidden, len(config.labels))

    mask_inputs = (2,)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor, ...]:
        """What ``forward`` takes for ``batch`` texts of ``context`` words, of no particular words."""
        features_BTF = torch.zeros(batch, context, len(self.embeddings), dtype=torch.long)
        return features_BTF, torch.ones(batch, context, TYPICAL_CHARACTERS, dtype=torch.long)

    def forward(self, features_BTF: Tensor, characters_BTL: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Zeros stand behind each text's end; every text has a word. Without ``lengths_B`` all have T."""
        return self.classify(self.embed(features_BTF, characters_BTL), lengths_B)

    def embed(self, features_BTF: Tensor, characters_BTL: Tensor) -> Tensor:
        """(B, T, W)"""
        mark(Stage.EMBED)
        parts = [table(features_BTF[..., i]) for i, table in enumerate(self.embeddings)]
        if self.config.frozen:
            parts[0] = parts[0].detach()
        if self.characters is not None:
            parts.append(self.characters(characters_BTL))
        return torch.cat(parts, 2)

    def classify(self, x_BTW: Tensor, lengths_B: Tensor | None) -> Tensor:
        """(B, C) from embedded words."""
        rate = self.config.dropout
        x_BTW = locked_dropout(x_BTW.transpose(0, 1), rate, self.training).transpose(0, 1)
        hidden_BTH, _ = self.layers(x_BTW, lengths=lengths_B)
        mark(Stage.ATTENTION)
        n_texts, n_words, _ = hidden_BTH.shape
        if lengths_B is None:
            lengths_B = torch.full((n_texts,), n_words, device=hidden_BTH.device)
        is_inside_BT = torch.arange(n_words, device=lengths_B.device) < lengths_B[:, None]
        scores_BT = self.attention(torch.tanh(self.query(hidden_BTH)))[..., 0].masked_fill(~is_inside_BT, -torch.inf)
        attended_BH = (scores_BT.softmax(1)[:, None] @ hidden_BTH)[:, 0]
        strongest_BH = hidden_BTH.masked_fill(~is_inside_BT[..., None], -torch.inf).amax(1)
        mark(Stage.HEAD)
        pooled = torch.cat((attended_BH, strongest_BH), 1)
        return self.head(nn.functional.dropout(pooled, rate, self.training))

    @torch.no_grad()
    def initialise(self, seed: int) -> "RecurrentClassifier":
        """Fresh weights: uniform embeddings of variance 1/width, Glorot-uniform filters and attention, zero head;
        recurrent layers as they are anywhere (``RecurrentLayer.initialise``)."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                bound = (3.0 / module.embedding_dim) ** 0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.weight[0].zero_()
            elif isinstance(module, nn.Conv1d) or module in (self.query, self.attention):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, RecurrentLayers):
                module.initialise(generator)
        self.head.weight.zero_()
        self.head.bias.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers."""
        return sum(p.numel() for p in self.parameters())
