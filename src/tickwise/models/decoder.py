"""The decoder family: causal Transformers from GPT-2 to Llama and Qwen 3, by explicit config fields.

Shape legend: B batch, T new tokens, C model width, V vocabulary, D head width.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.attention import KeyValueCache, SelfAttention
from tickwise.layers.dropout import dropout
from tickwise.layers.feed_forward import Activation, FeedForward
from tickwise.layers.linear import Embedding, Linear
from tickwise.layers.norm import NormKind, make_norm
from tickwise.layers.positions import PositionTables
from tickwise.layers.rope import rope_tables

# A product of few rows with a matrix that no cache holds waits for memory. With the matrix in front, the CPU's library
# reads it once; as a linear layer, it copies it into another order first.
_FEW_ROWS, _WIDE_HEAD = 8, 4096


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape and options of a decoder. Defaults give a Llama; ``docs/vocabulary.md`` explains the options."""

    vocab_size: int
    context_length: int
    width: int
    """Features of the residual stream."""
    n_layers: int
    n_heads: int
    n_kv_heads: int
    """Key-value heads; fewer than ``n_heads`` means grouped queries."""
    head_dim: int
    hidden: int
    """Features inside the feed-forward block."""
    positions: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10_000.0
    norm: NormKind = "rmsnorm"
    norm_epsilon: float = 1e-5
    activation: Activation = "swiglu"
    bias: bool = False
    """Bias in linear layers and layer norms."""
    tie_embeddings: bool = False
    """One matrix for the input embedding and the output head."""
    qk_norm: bool = False
    """RMS norm of queries and keys per head."""
    value_residual: bool = False
    """Mix every layer's values with the first layer's."""
    logit_soft_cap: float | None = None
    """``cap · tanh(logits / cap)`` on the output."""
    dropout: float = 0.0
    """On the embedding and both block outputs, while training."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "width", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"model.n_kv_heads: {self.n_kv_heads} does not divide the {self.n_heads} heads")
        if self.positions == "rope" and self.head_dim % 2:
            raise ConfigError(f"model.head_dim: {self.head_dim} is odd; rotary positions rotate pairs")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout: must be in [0, 1), got {self.dropout}")
        if self.logit_soft_cap is not None and not self.logit_soft_cap > 0:
            raise ConfigError(f"model.logit_soft_cap: must be positive, got {self.logit_soft_cap}")


class DecoderLayer(nn.Module):
    """One block with its norms before the sublayers: ``x + attention(norm(x))``, ``x + mlp(norm(x))``."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config.norm, config.width, config.norm_epsilon, config.bias)
        self.self_attn = SelfAttention(
            config.width, config.n_heads, config.n_kv_heads, config.head_dim, bias=config.bias,
            qk_norm=config.qk_norm, mixes_first_values=config.value_residual and layer > 0,
            norm_epsilon=config.norm_epsilon, layer=layer,
        )
        self.post_attention_layernorm = make_norm(config.norm, config.width, config.norm_epsilon, config.bias)
        self.mlp = FeedForward(config.width, config.hidden, config.activation, config.bias)
        self.dropout = config.dropout
        self.layer = layer

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor] | None, first_values: Tensor | None,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Tensor]:
        mark(Stage.NORM, self.layer)
        attended, values = self.self_attn(self.input_layernorm(x_BTC), rope, first_values, cache)
        x_BTC = x_BTC + dropout(attended, self.dropout, self.training)
        mark(Stage.NORM, self.layer)
        normed_BTC = self.post_attention_layernorm(x_BTC)
        mark(Stage.FFN, self.layer)
        x_BTC = x_BTC + dropout(self.mlp(normed_BTC), self.dropout, self.training)
        return x_BTC, values


class Decoder(nn.Module):
    """Token ids (B, T) → logits (B, T, V) of the next token at each position."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        if config.positions == "learned":
            self.embed_positions = Embedding(config.context_length, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.n_layers))
        self.norm = make_norm(config.norm, config.width, config.norm_epsilon, config.bias)
        self.lm_head = Linear(config.width, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self._rope = PositionTables(functools.partial(_rope_tables, config))

    def forward(self, ids_BT: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """With a cache, ``ids_BT`` are the new tokens only, at ``cache.positions``.

        At most ``config.context_length`` positions exist; asking for more raises ``ConfigError``.
        """
        return self.logits(self.hidden_states(ids_BT, cache=cache))

    def hidden_states(self, ids_BT: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """(B, T, C): the residual stream after the last norm, before the head."""
        n_new = ids_BT.shape[1]
        positions = slice(0, n_new) if cache is None else cache.positions(n_new)
        context = self.config.context_length
        if isinstance(positions, slice) and positions.stop > context:
            raise ConfigError(f"position {positions.stop} is past the model's context of {context} tokens")
        mark(Stage.EMBED)
        x_BTC = self.embed_tokens(ids_BT)
        rope = None
        if self.config.positions == "learned":
            x_BTC = x_BTC + self.embed_positions.weight[positions]
        else:
            cos_TD, sin_TD = self._rope(positions, x_BTC)
            rope = cos_TD, sin_TD
        x_BTC = dropout(x_BTC, self.config.dropout, self.training)
        first_values: Tensor | None = None
        for layer in self.layers:
            x_BTC, values = layer(x_BTC, rope, first_values, cache)
            if self.config.value_residual and first_values is None:
                first_values = values
        if cache is not None:
            cache.advance(n_new)
        mark(Stage.NORM)
        return self.norm(x_BTC)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """(B, T, V) from the output of ``hidden_states``."""
        mark(Stage.HEAD)
        rows, weight_VC = hidden_BTC.shape[0] * hidden_BTC.shape[1], self.lm_head.weight
        few = 1 < rows <= _FEW_ROWS and weight_VC.device.type == "cpu" and not torch.is_grad_enabled()
        if few and weight_VC.shape[0] >= _WIDE_HEAD:
            logits_BTV = torch.mm(weight_VC, hidden_BTC.flatten(0, 1).t()).t().contiguous().view(
                *hidden_BTC.shape[:2], -1
            )
        else:
            logits_BTV = self.lm_head(hidden_BTC)
        cap = self.config.logit_soft_cap
        return logits_BTV if cap is None else cap * torch.tanh(logits_BTV / cap)

    @torch.no_grad()
    def initialise(self, seed: int) -> "Decoder":
        """Fresh weights: normal with deviation 1/√fan-in (embeddings 0.02 when tied, else 1), zero for the
        matrices that write into the residual stream, so that every block starts as the identity."""
        generator = torch.Generator().manual_seed(seed)
        for name, part in self.named_children():
            _initialise(self.config, name, part, generator)
        return self

    def n_parameters(self) -> int:
        """Stored numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


@torch.no_grad()
def _initialise(config: DecoderConfig, name: str, part: nn.Module, generator: torch.Generator) -> None:
    for inner, module in part.named_modules(prefix=name):
        if isinstance(module, nn.Embedding):
            tied = config.tie_embeddings or "positions" in inner
            module.weight.normal_(0, 0.02 if tied else 1.0, generator=generator)
        elif isinstance(module, nn.Linear):
            if inner.endswith(("o_proj", "down_proj")):
                module.weight.zero_()
            elif inner != "lm_head":
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
            elif not config.tie_embeddings:
                module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()


def fresh_parts(config: DecoderConfig, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """What ``Decoder(config).initialise(seed)`` consists of, one part after the other with its name (``layers.3``), so
    that nobody need hold all of it at once."""
    generator = torch.Generator().manual_seed(seed)
    for name, part in Decoder(replace(config, n_layers=1)).named_children():
        inside = ((f"layers.{i}", DecoderLayer(config, i)) for i in range(config.n_layers))
        for full_name, one in inside if name == "layers" else [(name, part)]:
            _initialise(config, full_name, one, generator)
            yield full_name, one


def _rope_tables(config: DecoderConfig, device: torch.device) -> tuple[Tensor, ...]:
    return rope_tables(torch.arange(config.context_length, device=device), config.head_dim, config.rope_theta)
