"""The encoder family: Transformers that read a whole text at once, from BERT to rotary pre-norm ones.

Sources: Devlin et al. 2019 (BERT), Su et al. 2021 (rotary positions), Clark et al. 2020 (ELECTRA).
Shape legend: B batch, T tokens, C model width, D head width, V vocabulary, N chosen positions.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.attention import KeyValueCache, SelfAttention, WholeText, padding_bias
from tickwise.layers.attention_weights import WatchedText
from tickwise.layers.dropout import dropout
from tickwise.layers.encoder_layer import EncoderLayer, NormPlace
from tickwise.layers.feed_forward import Activation, FeedForward
from tickwise.layers.linear import Embedding, Linear
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.layers.norm import NormKind, make_norm
from tickwise.layers.rope import rope_tables

EMBEDDING_DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape and options of an encoder. Defaults give a rotary pre-norm one; BERT has learned positions, post-norm
    layer norms, biases and two segments."""

    vocab_size: int
    context_length: int
    width: int
    """Features of the residual stream."""
    n_layers: int
    n_heads: int
    head_dim: int
    hidden: int
    """Features inside the feed-forward block."""
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    norm: NormKind = "rmsnorm"
    norm_place: NormPlace = "pre"
    """Norms before the sublayers and one at the end; or after each addition and one after the embedding."""
    norm_epsilon: float = 1e-5
    activation: Activation = "swiglu"
    bias: bool = False
    """Bias in linear layers, layer norms and the head."""
    n_segments: int = 0
    """Kinds of tokens with an embedding of their own (BERT: first and second text)."""
    masked_head: bool = True
    """Has the head that names the word at a masked place; its matrix is the embedding."""
    dropout: float = 0.0
    """On the embedding and both block outputs, while training."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "width", "n_layers", "n_heads", "head_dim", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ConfigError(f"model.head_dim: {self.head_dim} is odd; rotary positions rotate pairs")
        if self.n_segments < 0:
            raise ConfigError(f"model.n_segments: must not be negative, got {self.n_segments}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout: must be in [0, 1), got {self.dropout}")


def _layer(config: EncoderConfig, layer: int) -> EncoderLayer:
    attention = SelfAttention(config.width, config.n_heads, config.n_heads, config.head_dim, bias=config.bias,
                              layer=layer)
    mlp = FeedForward(config.width, config.hidden, config.activation, config.bias)
    norms = [make_norm(config.norm, config.width, config.norm_epsilon, config.bias) for _ in range(2)]
    return EncoderLayer(attention, mlp, (norms[0], norms[1]), config.norm_place, config.dropout)


class MaskedHead(nn.Module):
    """What BERT puts before the embedding's matrix: a layer, GELU and a norm; with ``bias`` one for each word too."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width, bias=config.bias)
        self.norm = make_norm(config.norm, config.width, config.norm_epsilon, config.bias)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.bias else None

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(states)))


class Encoder(nn.Module):
    """Token ids (B, T) → a state for each token (B, T, C)."""

    mask_inputs = (1,)
    """Lengths: padding is computed like everything else."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        if config.positions == "learned":
            self.embed_positions = Embedding(config.context_length, config.width)
        if config.n_segments:
            self.embed_segments = Embedding(config.n_segments, config.width)
        self.layers = nn.ModuleList(_layer(config, i) for i in range(config.n_layers))
        # After the embedding or at the end: a post-norm layer ends with a norm of its own.
        self.norm = make_norm(config.norm, config.width, config.norm_epsilon, config.bias)
        self.masked_head = MaskedHead(config) if config.masked_head else None
        self._rope_cache: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None, segments_BT: Tensor | None = None) -> Tensor:
        """States (B, T, C). Without ``lengths_B`` all texts have T tokens; what stands behind a text's end changes no
        token of it. Without ``segments_BT`` all tokens are of segment 0. More than ``config.context_length`` tokens
        raise ``ConfigError``."""
        return self.states(self.embed(ids_BT, segments_BT), lengths_B)

    def embed(self, ids_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """(B, T, C): what the first layer reads."""
        config, length = self.config, ids_BT.shape[1]
        if length > config.context_length:
            raise ConfigError(f"position {length} is past the model's context of {config.context_length} tokens")
        mark(Stage.EMBED)
        x_BTC = self.embed_tokens(ids_BT)
        if config.positions == "learned":
            x_BTC = x_BTC + self.embed_positions.weight[:length]
        if config.n_segments:
            x_BTC = x_BTC + (self.embed_segments.weight[0] if segments_BT is None else self.embed_segments(segments_BT))
        return x_BTC

    def states(
        self, x_BTC: Tensor, lengths_B: Tensor | None = None, watched: WatchedText | None = None
    ) -> Tensor:
        """(B, T, C) from embedded tokens. ``watched`` keeps the attention's weights."""
        config = self.config
        if config.norm_place == "post":
            mark(Stage.NORM)
            x_BTC = self.norm(x_BTC)
        x_BTC = dropout(x_BTC, config.dropout, self.training)
        rope = self._rope(x_BTC.shape[1], x_BTC.device, x_BTC.dtype) if config.positions == "rope" else None
        padding_B11T = None if lengths_B is None else padding_bias(lengths_B, x_BTC.shape[1], x_BTC.dtype)
        view: KeyValueCache = WholeText(padding_B11T)
        if watched is not None:
            watched.bias, view = padding_B11T, watched
        for layer in self.layers:
            x_BTC = layer(x_BTC, rope, view)
        if config.norm_place == "post":
            return x_BTC
        mark(Stage.NORM)
        return self.norm(x_BTC)

    def mlm_logits(self, states: Tensor) -> Tensor:
        """(…, V): which word stands at the place that has this state."""
        assert self.masked_head is not None, "this encoder has no head for masked words"
        mark(Stage.HEAD)
        return F.linear(self.masked_head(states), self.embed_tokens.weight, self.masked_head.bias)

    def mlm_loss(self, states_NC: Tensor, words_N: Tensor) -> Tensor:
        """Mean nats of the words at the places with these states; a large vocabulary's logits never all exist."""
        assert self.masked_head is not None, "this encoder has no head for masked words"
        if self.masked_head.bias is None and self.config.vocab_size >= LARGE_VOCABULARY:
            mark(Stage.HEAD)
            return head_and_loss(self.masked_head(states_NC), self.embed_tokens.weight, words_N)
        logits_NV = self.mlm_logits(states_NC).float()
        mark(Stage.LOSS)
        return F.cross_entropy(logits_NV, words_N)

    def token_answers(self, states_BTC: Tensor) -> Tensor:
        """What the head says of every token, where there is one: (B, T, V); else the states."""
        return states_BTC if self.masked_head is None else self.mlm_logits(states_BTC)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor, ...]:
        """What ``forward`` takes for ``batch`` texts of ``context`` tokens, of no particular words."""
        return (torch.zeros(batch, min(context, self.config.context_length), dtype=torch.long),)

    def _rope(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key = (device, dtype)
        if key not in self._rope_cache:
            with torch.inference_mode(False):
                positions_T = torch.arange(self.config.context_length, device=device)
                cos, sin = rope_tables(positions_T, self.config.head_dim, self.config.rope_theta)
                tables = (cos.to(dtype), sin.to(dtype))
            if type(tables[0]) is not Tensor:  # a tool runs the model without data, on tensors of its own kind
                return tables[0][:length], tables[1][:length]
            self._rope_cache[key] = tables
        cos, sin = self._rope_cache[key]
        return cos[:length], sin[:length]

    @torch.no_grad()
    def initialise(self, seed: int) -> "Encoder":
        """Fresh weights: normal with deviation 1/√fan-in, embeddings 0.02 (segments 0), zero for the matrices that
        write into the residual stream where norms come before them, and for heads named in ``zero_heads``."""
        generator = torch.Generator().manual_seed(seed)
        before = self.config.norm_place == "pre"
        for name, module in self.named_modules():
            leaf = name.rpartition(".")[2]
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, EMBEDDING_DEVIATION, generator=generator)
                if leaf == "embed_segments":
                    module.weight.zero_()
            elif isinstance(module, nn.Linear):
                if leaf in self.zero_heads or (before and leaf in ("o_proj", "down_proj")):
                    module.weight.zero_()
                else:
                    module.weight.normal_(0, module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        return self

    zero_heads: tuple[str, ...] = ()
    """Names of the linear layers that start at 0, so that the first update is not undone by chance."""

    def n_parameters(self) -> int:
        """Stored numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(EncoderConfig):
    """An encoder with the generator that it is trained against; the two share the tokens' embedding."""

    masked_head: bool = False
    generator_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generator_layers < 1:
            raise ConfigError(f"model.generator_layers: must be at least 1, got {self.generator_layers}")
        if self.masked_head:
            raise ConfigError("model.masked_head: of an ELECTRA only the generator has it")


class Electra(Encoder):
    """An encoder that tells replaced tokens from the text's own, and the small masked-language model that replaces them
    (Clark et al. 2020). ``forward`` gives the encoder's states."""

    zero_heads = ("replaced",)

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        shape = {f.name: getattr(config, f.name) for f in dataclasses.fields(EncoderConfig)}
        self.generator = Encoder(EncoderConfig(**shape | {"n_layers": config.generator_layers, "masked_head": True}))
        self.generator.embed_tokens.weight = self.embed_tokens.weight
        self.replaced = Linear(config.width, 1)

    def replaced_logits(self, states_BTC: Tensor) -> Tensor:
        """(B, T): above 0 where the token is likelier replaced than the text's own."""
        mark(Stage.HEAD)
        return self.replaced(states_BTC)[..., 0]

    def token_answers(self, states_BTC: Tensor) -> Tensor:
        """What the head says of every token: (B, T)."""
        return self.replaced_logits(states_BTC)
