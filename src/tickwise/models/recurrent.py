"""The recurrent family: word embedding, RNN, LSTM or GRU layers, a head that shares the embedding's matrix.

Shape legend: B sequences, T tokens, C embedding width, H features of a layer, V vocabulary, N positions.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.clustered_head import ClusteredHead, check_cutoffs
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Embedding, Linear
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.layers.recurrent import CellKind, RecurrentLayers, State, locked_dropout

_TOKENS_AT_ONCE = 2048
_WARM_UP = 64


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Shape and options of a recurrent language model. The dropouts act while training only."""

    vocab_size: int
    cell: CellKind = "lstm"
    width: int
    """Features of a token's embedding."""
    hidden: int
    """Features of every layer's output. Where it is not ``width``, a projection brings the last one to ``width``."""
    n_layers: int
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head (Press & Wolf 2017)."""
    cutoffs: tuple[int, ...] = ()
    """Ids at which clusters of rare words begin (``layers/clustered_head.py``); none: every position meets all words.
    The tokenizer's ids must be sorted by frequency, as those of word tokenizers are."""
    word_dropout: float = 0.0
    """Share of the words whose embedding is zero wherever they occur in a batch (Gal & Ghahramani 2016)."""
    input_dropout: float = 0.0
    """On the embedding, with one mask for all steps, as for the next two."""
    dropout: float = 0.0
    """Between layers."""
    output_dropout: float = 0.0
    """On the last layer."""
    weight_drop: float = 0.0
    """On the matrices from state to state (Merity et al. 2018)."""

    context_length: ClassVar[int] = 2**18
    """The longest text that is read in one call. The model has no limit; what reads texts in windows needs one."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "hidden", "n_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        check_cutoffs(self.cutoffs, self.vocab_size)
        for name in ("word_dropout", "input_dropout", "dropout", "output_dropout", "weight_drop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name}: must be in [0, 1), got {getattr(self, name)}")


class Recurrent(nn.Module):
    """Token ids (B, T) and a state → logits (B, T, V) of the next token at each position, and the next state."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        self.layers = RecurrentLayers(config.cell, config.width, config.hidden, config.n_layers,
                                      dropout=config.dropout, weight_drop=config.weight_drop)
        self.projection = None if config.hidden == config.width else Linear(config.hidden, config.width, bias=False)
        self.lm_head = Linear(config.width, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.clusters = ClusteredHead(config.width, config.vocab_size, config.cutoffs) if config.cutoffs else None

    def forward(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden_BTC, state = self.read(ids_BT, state)
        return self.logits(hidden_BTC), state

    def hidden_states(self, ids_BT: Tensor) -> Tensor:
        """(B, T, C) for ``logits``, of texts that begin here."""
        if torch.is_grad_enabled():
            return self.read(ids_BT)[0]
        parts, state = [], None
        for ids in ids_BT.split(max(1, _TOKENS_AT_ONCE // len(ids_BT)), 1):
            hidden_BTC, state = self.read(ids, state)
            parts.append(hidden_BTC)
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def read(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T, C) for ``logits``, and the state after the last token. Without a state the texts begin here."""
        outputs_BTH, state = self.layer_outputs(ids_BT, state)
        return self.head_input(self.dropped(outputs_BTH)), state

    def layer_outputs(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T, H) of the last layer before any dropout, and the state after the last token."""
        config = self.config
        mark(Stage.EMBED)
        ids_TB = ids_BT.t()
        x_TBC = self.embed_tokens(ids_TB)
        if self.training and config.word_dropout:
            kept_V = dropout(x_TBC.new_ones(config.vocab_size), config.word_dropout, True)
            x_TBC = x_TBC * kept_V[ids_TB].unsqueeze(-1)
        x_TBC = locked_dropout(x_TBC, config.input_dropout, self.training)
        outputs_BTH, state = self.layers(x_TBC.transpose(0, 1), state)
        return outputs_BTH, state

    def dropped(self, outputs_BTH: Tensor) -> Tensor:
        """(B, T, H): the last layer's outputs as the output dropout leaves them."""
        mark(Stage.HEAD)
        return locked_dropout(outputs_BTH.transpose(0, 1), self.config.output_dropout, self.training).transpose(0, 1)

    def head_input(self, dropped_BTH: Tensor) -> Tensor:
        """(B, T, C) from what ``dropped`` gives."""
        mark(Stage.HEAD)
        if self.projection is None:
            return dropped_BTH
        hidden_TBC: Tensor = self.projection(dropped_BTH.transpose(0, 1))
        return hidden_TBC.transpose(0, 1)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """(B, T, V) from the output of ``read`` or ``hidden_states``."""
        mark(Stage.HEAD)
        if self.clusters is not None:
            return self.clusters.logits(hidden_BTC, self.lm_head.weight)
        logits_BTV: Tensor = self.lm_head(hidden_BTC)
        return logits_BTV

    def loss(self, hidden_NC: Tensor, targets_N: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy (nats, float32) of the words after ``hidden_NC``."""
        mark(Stage.HEAD)
        weight_VC = self.lm_head.weight
        if self.clusters is not None:
            if label_smoothing:
                raise ConfigError("--label-smoothing: not with model.cutoffs, whose head never sees all words at once")
            return self.clusters.loss(hidden_NC, weight_VC, targets_N)
        if self.config.vocab_size >= LARGE_VOCABULARY:
            return head_and_loss(hidden_NC, weight_VC, targets_N, label_smoothing)
        logits_NV = self.logits(hidden_NC).float()
        mark(Stage.LOSS)
        return F.cross_entropy(logits_NV, targets_N, label_smoothing=label_smoothing)

    @torch.no_grad()
    def initialise(self, seed: int) -> "Recurrent":
        """Fresh weights: normal with deviation 1/√fan-in, where the embedding's fan-in as a head is C."""
        generator = torch.Generator().manual_seed(seed)
        self.embed_tokens.weight.normal_(0, self.config.width**-0.5, generator=generator)
        self.layers.initialise(generator)
        if self.projection is not None:
            self.projection.weight.normal_(0, self.config.hidden**-0.5, generator=generator)
        if not self.config.tie_embeddings:
            self.lm_head.weight.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


@torch.no_grad()
def stream_losses(module: Recurrent, tokens: NDArray[Any], n_streams: int = 1, most: int | None = None) -> Tensor:
    """Nats of ``tokens[1:]``, one after the other, each given everything before it.

    With several streams the text is cut into as many parts that are read side by side, which is faster; each part but
    the first then knows only a little of the text before it. With ``most``, of about so many tokens: as many from the
    beginning of every part.
    """
    device = next(module.parameters()).device
    n_targets = len(tokens) - 1
    apart = -(-n_targets // n_streams)
    length = apart if most is None else max(1, min(apart, -(-most // n_streams)))
    starts_B1 = (numpy.arange(n_streams) * apart)[:, None]
    places_BT = starts_B1 + numpy.arange(length)
    inside_BT = torch.from_numpy(places_BT < n_targets)
    state: State | None = None
    if n_streams > 1:
        before_BT = starts_B1 + numpy.arange(-min(_WARM_UP, apart), 0)
        _, state = module.read(_ids(tokens, before_BT, device))
        for part in state:
            part[0] = 0.0  # the first part is a beginning
    parts: list[Tensor] = []
    step = max(1, _TOKENS_AT_ONCE // n_streams)
    for start in range(0, length, step):
        now_BT = places_BT[:, start : start + step]
        hidden_BTC, state = module.read(_ids(tokens, now_BT, device), state)
        logits_NV = module.logits(hidden_BTC).flatten(0, 1).float()
        targets_BT = _ids(tokens, now_BT + 1, device)
        mark(Stage.LOSS)
        parts.append(F.cross_entropy(logits_NV, targets_BT.flatten(), reduction="none").view(n_streams, -1).cpu())
    return torch.cat(parts, 1)[inside_BT]


def _ids(tokens: NDArray[Any], places_BT: NDArray[Any], device: torch.device) -> Tensor:
    """The tokens at those places; outside the text, whichever is nearest."""
    found = numpy.asarray(tokens)[places_BT.clip(0, len(tokens) - 1)].astype(numpy.int64)
    return torch.from_numpy(found).to(device)
