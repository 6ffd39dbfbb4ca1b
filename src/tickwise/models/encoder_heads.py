"""What is put on an encoder: classes of texts, spans of answers, places of sentences in a vector space, tags of tokens.

Each is the encoder with one more layer, so that its tensors keep their names when weights go from one to the other.
Shape legend: B batch, T tokens, C model width, K classes or tags.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.crf import LinearChainCRF
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Linear
from tickwise.models.classifier_config import ClassifierConfig
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.models.tagger import allowed_by_iobes

_ASKED = 0
"""A span reader's segment of the question. All others are of the passage (``data/span_windows.py``)."""


def inside(length: int, lengths_B: Tensor | None, like_BTC: Tensor) -> Tensor:
    """(B, T) true for the texts' own tokens."""
    if lengths_B is None:
        return torch.ones(like_BTC.shape[:2], dtype=torch.bool, device=like_BTC.device)
    return torch.arange(length, device=like_BTC.device) < lengths_B[:, None]


def mean_state(states_BTC: Tensor, lengths_B: Tensor | None) -> Tensor:
    """(B, C): the mean of each text's states."""
    if lengths_B is None:
        return states_BTC.mean(1)
    weights_BT = inside(states_BTC.shape[1], lengths_B, states_BTC).to(states_BTC.dtype)
    return (weights_BT[:, None] @ states_BTC)[:, 0] / lengths_B[:, None].to(states_BTC.dtype)


@dataclass(frozen=True, kw_only=True)
class EncoderClassifierConfig(EncoderConfig, ClassifierConfig):
    """An encoder's shape, and a classifier's classes and calibration."""

    masked_head: bool = False

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        ClassifierConfig.__post_init__(self)


class EncoderClassifier(Encoder):
    """Token ids (B, T) → logits (B, K), not yet divided by the temperature: a linear layer on the mean state."""

    config: EncoderClassifierConfig
    zero_heads = ("classes",)

    def __init__(self, config: EncoderClassifierConfig) -> None:
        super().__init__(config)
        self.classes = Linear(config.width, len(config.labels))

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None, segments_BT: Tensor | None = None) -> Tensor:
        return self.classify(self.embed(ids_BT, segments_BT), lengths_B)

    def classify(self, x_BTC: Tensor, lengths_B: Tensor | None) -> Tensor:
        """(B, K) from embedded tokens."""
        pooled_BC = mean_state(self.states(x_BTC, lengths_B), lengths_B)
        mark(Stage.HEAD)
        return self.classes(dropout(pooled_BC, self.config.dropout, self.training))


@dataclass(frozen=True, kw_only=True)
class EncoderTaggerConfig(EncoderConfig):
    """An encoder's shape, and IOBES tags with ``O`` among them."""

    masked_head: bool = False
    labels: tuple[str, ...]
    characters: bool = False
    """What is tagged are single characters, as in Chinese, and not words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            raise ConfigError("labels: must be distinct, and at least one")


class EncoderTagger(Encoder):
    """Token ids (B, T) → scores of each word's tags (B, W, K), of which a CRF makes the likeliest sequence: a linear
    layer on the state of each word's first token (Devlin et al. 2019)."""

    config: EncoderTaggerConfig
    zero_heads = ("tags",)

    def __init__(self, config: EncoderTaggerConfig) -> None:
        super().__init__(config)
        self.tags = Linear(config.width, len(config.labels))
        self.crf = LinearChainCRF(len(config.labels), allowed_by_iobes(config.labels))

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None, firsts_BW: Tensor | None = None) -> Tensor:
        """``firsts_BW`` are the places of the words' first tokens; left out, every token is a word."""
        states_BTC = super().forward(ids_BT, lengths_B)
        mark(Stage.HEAD)
        if firsts_BW is not None:
            states_BTC = states_BTC.gather(1, firsts_BW[..., None].expand(-1, -1, states_BTC.shape[-1]))
        return self.tags(states_BTC)

    def loss(self, emissions_BWK: Tensor, tags_BW: Tensor, n_words_B: Tensor) -> Tensor:
        """Nats per word."""
        mark(Stage.LOSS)
        return self.crf.loss(emissions_BWK, tags_BW, n_words_B).sum() / n_words_B.sum()


@dataclass(frozen=True, kw_only=True)
class SpanReaderConfig(EncoderConfig):
    """An encoder's shape, and how the reader chooses spans."""

    masked_head: bool = False
    n_segments: int = 4
    longest_answer: int = 64
    """Tokens."""
    stride: int = 128
    """Tokens from the beginning of one window of a long passage to that of the next."""
    null_margin: float | None = None
    """A question has no answer where the logarithm of how much likelier "none" is than the best span is above this;
    ``None``: every question is answered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest_answer < 1 or self.stride < 1:
            raise ConfigError("longest_answer and stride: must be at least 1")
        if self.n_segments < 2:
            raise ConfigError(f"n_segments: a span reader needs at least 2, got {self.n_segments}")


class SpanReader(Encoder):
    """Question and passage as one sequence → where the answer begins and ends.

    The scores at the first position tell whether there is no answer here (``training/span_reading.py``). Passage tokens
    whose word is in the question have a segment of their own: the exact-match feature of Chen et al. 2017 (DrQA).
    """

    config: SpanReaderConfig
    zero_heads = ("span",)

    def __init__(self, config: SpanReaderConfig) -> None:
        super().__init__(config)
        self.span = Linear(config.width, 2)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None, segments_BT: Tensor | None = None) -> Tensor:
        """(B, 2, T): scores of every token as the answer's first and as its last; -inf at the question and at the
        padding."""
        states_BTC = super().forward(ids_BT, lengths_B, segments_BT)
        mark(Stage.HEAD)
        scores_B2T = self.span(states_BTC).float().transpose(1, 2)
        if segments_BT is None:
            return scores_B2T
        eligible_BT = (segments_BT != _ASKED) & inside(ids_BT.shape[1], lengths_B, states_BTC)
        first_BT = torch.zeros_like(eligible_BT)
        first_BT[:, 0] = True
        return scores_B2T.masked_fill(~(eligible_BT | first_BT)[:, None], -torch.inf)


@dataclass(frozen=True, kw_only=True)
class SentenceEmbedderConfig(EncoderConfig):
    """An encoder's shape, and the softmax temperature with which its vectors were compared in training."""

    masked_head: bool = False
    temperature: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"temperature: must be positive, got {self.temperature}")


class SentenceEmbedder(Encoder):
    """Token ids (B, T) → vectors (B, C) of length 1 whose products tell how alike texts are: the mean state
    (Reimers & Gurevych 2019)."""

    config: SentenceEmbedderConfig

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None, segments_BT: Tensor | None = None) -> Tensor:
        states_BTC = super().forward(ids_BT, lengths_B, segments_BT)
        mark(Stage.HEAD)
        return F.normalize(mean_state(states_BTC, lengths_B).float(), dim=-1)


def partner_scores(left_BC: Tensor, right_BC: Tensor, temperature: float, texts_B2: Tensor) -> Tensor:
    """(B, B): how alike each left text is to each right one. ``texts_B2`` numbers the texts of each pair: pairs that
    have one in common say the same, so that neither's partner is a wrong answer for the other (-inf)."""
    scores_BB = left_BC @ right_BC.t() / temperature
    left_B, right_B = texts_B2.unbind(1)
    shared_BB = left_B[:, None] == left_B
    for one_B, other_B in ((left_B, right_B), (right_B, left_B), (right_B, right_B)):
        shared_BB |= one_B[:, None] == other_B
    return scores_BB.masked_fill(shared_BB.fill_diagonal_(False), -torch.inf)


def contrastive_loss(scores_BB: Tensor) -> Tensor:
    """Mean nats of finding each text's partner among all of the batch, both ways (van den Oord et al. 2018; the other
    partners are the wrong answers, as in SimCSE, Gao et al. 2021)."""
    partners_B = torch.arange(len(scores_BB), device=scores_BB.device)
    return (F.cross_entropy(scores_BB, partners_B) + F.cross_entropy(scores_BB.t(), partners_B)) / 2
