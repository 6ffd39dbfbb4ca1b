"""The encoder–decoder family: Transformers that read a source and write a target, from Vaswani et al. 2017 to T5, BART
and Marian, by explicit config fields.

Shape legend: B batch, S source tokens, T target tokens, P tokens without padding, C model width, K key-value heads,
H heads, D head width, V vocabulary.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.attention import (
    BiasedCache,
    CrossAttention,
    KeyValueCache,
    SelfAttention,
    SourceMemory,
    WholeText,
    padding_bias,
)
from tickwise.layers.attention_weights import WatchedText
from tickwise.layers.copying import CopyAttention, head_and_mixed_loss, mixed_log_probabilities, mixed_loss
from tickwise.layers.dropout import dropout
from tickwise.layers.encoder_layer import EncoderLayer, NormPlace, ResidualLayer
from tickwise.layers.feed_forward import Activation, FeedForward
from tickwise.layers.linear import Embedding, Linear
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.layers.norm import NormKind, make_norm
from tickwise.layers.packed import PackedTokens
from tickwise.layers.positions import PositionTables, RelativeBias, sinusoidal_table
from tickwise.layers.rope import rope_tables
from tickwise.layers.source_memory import CopiedMemory, EarlierTokens, Memory, RememberedBias
from tickwise.models.writing_rules import NO_RULES, WritingRules


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """Shape and options of an encoder–decoder. The dropouts act while training only."""

    vocab_size: int
    """Of source and target, which share their tokens."""
    source_length: int
    """The longest source, its end counted."""
    context_length: int
    """The longest target, its beginning counted."""
    width: int
    """Features of the residual stream."""
    n_encoder_layers: int
    n_decoder_layers: int
    n_heads: int
    n_kv_heads: int
    """Key-value heads; fewer than ``n_heads`` means grouped queries."""
    head_dim: int
    hidden: int
    """Features inside the feed-forward block."""
    pad_id: int
    """What stands behind the end of shorter texts."""
    start_id: int
    """What a target begins with; often ``pad_id``."""
    eos_id: int
    """What sources and targets end with."""
    positions: Literal["rope", "sinusoidal", "learned", "relative"] = "rope"
    """Relative: a learned number for each head and distance (T5)."""
    rope_theta: float = 10_000.0
    relative_buckets: int = 32
    """Distances that relative positions tell apart."""
    relative_distance: int = 128
    """From here on relative positions are all the same."""
    norm: NormKind = "rmsnorm"
    norm_epsilon: float = 1e-5
    norm_place: NormPlace = "pre"
    """Before each sublayer, or after each addition."""
    final_norm: bool = True
    """One more norm behind the last layer of the encoder and of the decoder."""
    embedding_norm: bool = False
    """One more norm behind the embeddings (BART)."""
    activation: Activation = "swiglu"
    bias: bool = False
    """Bias in linear layers and layer norms."""
    tie_embeddings: bool = True
    """One matrix for the input embeddings and the output head."""
    scale_embedding: bool = True
    """Embeddings are multiplied by √width (Vaswani et al. 2017)."""
    scale_logits: bool = False
    """What the head reads is divided by √width (T5)."""
    scale_scores: bool = True
    """Attention's scores are divided by √head_dim (all but T5)."""
    logit_bias: bool = False
    """A number for each token on the output."""
    copies: bool = False
    """The next token is written or copied from the source (a pointer-generator, See et al. 2017)."""
    dropout: float = 0.0
    """On the embeddings and on what each sublayer adds."""
    attention_dropout: float = 0.0
    """On attention's weights."""
    activation_dropout: float = 0.0
    """Inside the feed-forward block."""
    # What its texts have to be like, whatever the weights say.
    writing: WritingRules = NO_RULES

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "source_length", "context_length", "width", "n_encoder_layers", "n_decoder_layers",
                 "n_heads", "n_kv_heads", "head_dim", "hidden")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"model.n_kv_heads: {self.n_kv_heads} does not divide the {self.n_heads} heads")
        if self.positions == "rope" and self.head_dim % 2:
            raise ConfigError(f"model.head_dim: {self.head_dim} is odd; rotary positions rotate pairs")
        if self.positions == "sinusoidal" and self.width % 2:
            raise ConfigError(f"model.width: {self.width} is odd; sinusoidal positions are sines and cosines")
        if self.relative_buckets < 4 or self.relative_buckets % 4:
            raise ConfigError(f"model.relative_buckets: must be a multiple of 4, got {self.relative_buckets}")
        if self.relative_distance <= self.relative_buckets // 2:
            raise ConfigError(f"model.relative_distance: must be more than half of the {self.relative_buckets} "
                              f"buckets, got {self.relative_distance}")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name}: must be in [0, 1), got {getattr(self, name)}")
        for name in ("pad_id", "start_id", "eos_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ConfigError(f"model.{name}: {getattr(self, name)} is outside the vocabulary of {self.vocab_size}")
        for token_id in self.writing.token_ids:
            if not 0 <= token_id < self.vocab_size:
                raise ConfigError(f"model.writing: token {token_id} is outside the vocabulary of {self.vocab_size}")


class CrossDecoderLayer(ResidualLayer):
    """Self-attention, attention to the source, feed-forward block: (B, T, C) → (B, T, C)."""

    used_outside = ("cross_attn.kv_proj", "copy_attn")
    """Parts that are called without the layer: as a source is read, and as logits are made."""

    def __init__(self, config: EncoderDecoderConfig, layer: int) -> None:
        super().__init__(config.norm_place, config.dropout, config.n_encoder_layers + layer)
        self.attention_norm, self.cross_norm, self.mlp_norm = (_norm(config) for _ in range(3))
        self.self_attn = _self_attention(config, layer, self.stage_layer)
        self.cross_attn = CrossAttention(
            config.width, config.n_heads, config.n_kv_heads, config.head_dim, bias=config.bias,
            scale_scores=config.scale_scores, layer=layer, stage_layer=self.stage_layer)
        self.mlp = _feed_forward(config)
        if config.copies and layer == config.n_decoder_layers - 1:
            self.copy_attn = CopyAttention(config.width, config.n_heads, config.head_dim)

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor] | None, cache: KeyValueCache, memory: SourceMemory,
        packed: PackedTokens | None,
    ) -> Tensor:
        """With ``packed``, ``x_BTC`` and the output are rows (P, C)."""
        attended_BTC, _ = self.self_attn(self.before(self.attention_norm, x_BTC), rope, None, cache, packed)
        x_BTC = self.after(self.attention_norm, x_BTC, attended_BTC)
        x_BTC = self.after(self.cross_norm, x_BTC, self.cross_attn(self.before(self.cross_norm, x_BTC), memory, packed))
        read_BTC = self.before(self.mlp_norm, x_BTC)
        mark(Stage.FFN, self.stage_layer)
        return self.after(self.mlp_norm, x_BTC, self.mlp(read_BTC))


class _Stack(nn.Module):
    """What encoder and decoder have in common: positions, layers, norms before and after them."""

    def __init__(self, config: EncoderDecoderConfig, layers: Sequence[nn.Module], length: int, both_ways: bool) -> None:
        super().__init__()
        if config.positions == "learned":
            self.embed_positions = Embedding(length, config.width)
        if config.positions == "relative":
            self.relative = RelativeBias(config.relative_buckets, config.n_heads, config.relative_distance, both_ways)
        if config.embedding_norm:
            self.embedding_norm = _norm(config)
        self.layers = nn.ModuleList(layers)
        if config.final_norm:
            self.norm = _norm(config)


class EncoderDecoder(nn.Module):
    """Token ids of sources (B, S) and targets (B, T) → logits (B, T, V) of the next target token at each position.

    Sources end with ``eos_id``; targets begin with ``start_id``. Stages of the decoder's layers are numbered on from
    the encoder's.
    """

    mask_inputs = (1,)
    """Lengths: padding is counted like everything else."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        encoder_layers = [
            EncoderLayer(_self_attention(config, i, i), _feed_forward(config), (_norm(config), _norm(config)),
                         config.norm_place, config.dropout)
            for i in range(config.n_encoder_layers)
        ]
        self.encoder = _Stack(config, encoder_layers, config.source_length, both_ways=True)
        decoder_layers = [CrossDecoderLayer(config, i) for i in range(config.n_decoder_layers)]
        self.decoder = _Stack(config, decoder_layers, config.context_length, both_ways=False)
        self.lm_head = Linear(config.width, config.vocab_size, bias=config.logit_bias)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        if config.copies:
            self.copy_gate = Linear(config.width, 1, bias=True)
        self._rope = PositionTables(functools.partial(_rope_tables, config))
        self._sinusoids = PositionTables(functools.partial(_sinusoids, config))

    def forward(self, source_BS: Tensor, lengths_B: Tensor | None, target_BT: Tensor) -> Tensor:
        """``lengths_B`` of the sources; ``None``: all have S tokens. What stands behind a text's end changes nothing
        before it."""
        memory = self.encode(source_BS, lengths_B)
        return self.logits(self.hidden_states(target_BT, memory), memory)

    def target_states(
        self, source_BS: Tensor, lengths_B: Tensor, target_BT: Tensor, target_lengths_B: Tensor
    ) -> Tensor:
        """(P, C): ``hidden_states`` of the targets' tokens, text by text, without their padding. For training: nothing
        is computed for padding but attention.

        ``PackedTokens(target_lengths_B, T).pack`` puts what else belongs to the tokens in the same order.
        """
        memory = self.encode(source_BS, lengths_B)
        packed = PackedTokens(target_lengths_B, target_BT.shape[1])
        return self._decode(target_BT, memory, EarlierTokens(None, self._attention_dropout), packed)

    def encode(
        self, source_BS: Tensor, lengths_B: Tensor | None = None, watched: WatchedText | None = None
    ) -> Memory:
        """Read the sources. Without ``lengths_B`` all have S tokens; else each has at least one. ``watched`` keeps the
        attention's weights.

        At most ``config.source_length`` tokens; more raise ``ConfigError``.
        """
        length = source_BS.shape[1]
        if length > self.config.source_length:
            raise ConfigError(f"a source of {length} tokens is longer than the {self.config.source_length} that the "
                              "model reads")
        packed = padding_B11S = None
        if lengths_B is None:
            lengths_B = torch.full((len(source_BS),), length, device=source_BS.device)
        else:
            packed = _packed(lengths_B, length)
            if packed is not None or torch.compiler.is_compiling():
                padding_B11S = padding_bias(lengths_B, length, self.embed_tokens.weight.dtype)
        x_BSC, rope = self._embed(self.encoder, source_BS, slice(0, length), packed)
        bias = padding_B11S
        if self.config.positions == "relative":
            relative_1HSS = self.encoder.relative(slice(0, length), length)[None]
            bias = relative_1HSS if bias is None else relative_1HSS + bias
        view: KeyValueCache = WholeText(bias, self._attention_dropout)
        if watched is not None:
            watched.bias, view = bias, watched
        for layer in self.encoder.layers:
            x_BSC = layer(x_BSC, rope, view, packed)
        x_BSC = self._final(self.encoder, x_BSC)
        read = [layer.cross_attn.read(x_BSC, packed) for layer in self._decoder_layers]
        keys, values = zip(*read, strict=True)
        return Memory(keys, values, lengths_B, padding_B11S, self._attention_dropout,
                      source_BS if self.config.copies else None)

    def hidden_states(
        self, target_BT: Tensor, memory: SourceMemory, *, cache: KeyValueCache | None = None
    ) -> Tensor:
        """(B, T, C) for ``logits``. With a cache, ``target_BT`` are the new tokens only, at ``cache.positions``.

        A model with relative positions needs a ``BiasedCache``. At most ``config.context_length`` positions exist;
        asking for more raises ``ConfigError``.
        """
        if cache is None:
            cache = EarlierTokens(None, self._attention_dropout)
        return self._decode(target_BT, memory, cache, None)

    def logits(self, hidden_BTC: Tensor, memory: CopiedMemory | None = None) -> Tensor:
        """(B, T, V), from the output of ``hidden_states``; a model that copies needs to know from what."""
        mark(Stage.HEAD)
        logits_BTV: Tensor = self.lm_head(self._head_input(hidden_BTC))
        if not self.config.copies:
            return logits_BTV
        assert memory is not None
        assert memory.tokens_BS is not None
        return mixed_log_probabilities(
            logits_BTV, self.copy_gate(hidden_BTC), self._pointed(hidden_BTC, memory), memory.tokens_BS)

    def pointer(self, hidden_BTC: Tensor, memory: CopiedMemory) -> tuple[Tensor, Tensor]:
        """Of a model that copies, from the output of ``hidden_states``: (B, T, S), from which place of the source the
        next token is copied, where it is copied, and (B, T), the probability that it is; both float32."""
        return self._pointed(hidden_BTC, memory), torch.sigmoid(-self.copy_gate(hidden_BTC).float().squeeze(2))

    def _pointed(self, hidden_BTC: Tensor, memory: CopiedMemory) -> Tensor:
        """(B, T, S): where the next token could be copied from."""
        weights_BTS: Tensor = self._decoder_layers[-1].copy_attn(hidden_BTC, memory.keys[-1], memory.padding_B11S)
        return weights_BTS

    def loss(self, hidden_NC: Tensor, targets_N: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy (nats, float32) of the next tokens. A large vocabulary's logits never all exist."""
        mark(Stage.HEAD)
        hidden_NC = self._head_input(hidden_NC)
        if self.lm_head.bias is None and self.config.vocab_size >= LARGE_VOCABULARY:
            return head_and_loss(hidden_NC, self.lm_head.weight, targets_N, label_smoothing)
        logits_NV = self.lm_head(hidden_NC).float()
        mark(Stage.LOSS)
        return F.cross_entropy(logits_NV, targets_N, label_smoothing=label_smoothing)

    def copying_loss(
        self, source_BS: Tensor, lengths_B: Tensor, target_BT: Tensor, target_lengths_B: Tensor, labels_P: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """``loss`` of the targets' tokens, in the order of ``target_states``, of a model that copies."""
        memory = self.encode(source_BS, lengths_B)
        packed = PackedTokens(target_lengths_B, target_BT.shape[1])
        hidden_PC = self._decode(target_BT, memory, EarlierTokens(None, self._attention_dropout), packed)
        copied_BT = self.copied(packed.pad(hidden_PC), memory, packed.spread(labels_P).view(target_BT.shape))
        return self.mixed_loss(hidden_PC, packed.rows(copied_BT.flatten()), labels_P, label_smoothing)

    def copied(self, hidden_BTC: Tensor, memory: CopiedMemory, labels_BT: Tensor) -> Tensor:
        """(B, T): the weight of the places of the sources that have the labels."""
        mark(Stage.HEAD)
        assert memory.tokens_BS is not None
        is_label_BTS = memory.tokens_BS[:, None] == labels_BT[..., None]
        return (self._pointed(hidden_BTC, memory) * is_label_BTS).sum(2)

    def mixed_loss(
        self, hidden_PC: Tensor, copied_P: Tensor, labels_P: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """``loss`` of labels that are written or copied; ``copied_P`` as from ``copied``."""
        mark(Stage.HEAD)
        read_PC, gate_P1 = self._head_input(hidden_PC), self.copy_gate(hidden_PC)
        if self.lm_head.bias is None and self.config.vocab_size >= LARGE_VOCABULARY:
            return head_and_mixed_loss(read_PC, self.lm_head.weight, gate_P1, copied_P, labels_P, label_smoothing)
        logits_PV = self.lm_head(read_PC)
        mark(Stage.LOSS)
        return mixed_loss(logits_PV, gate_P1, copied_P, labels_P, label_smoothing)

    def _decode(
        self, target_BT: Tensor, memory: SourceMemory, cache: KeyValueCache, packed: PackedTokens | None
    ) -> Tensor:
        n_new = target_BT.shape[1]
        positions, longest = cache.positions(n_new), self.config.context_length
        if isinstance(positions, slice) and positions.stop > longest:
            raise ConfigError(f"position {positions.stop} is past the model's targets of {longest} tokens")
        x_BTC, rope = self._embed(self.decoder, target_BT, positions, packed)
        view = self._with_distances(cache, n_new)
        for layer in self._decoder_layers:
            x_BTC = layer(x_BTC, rope, view, memory, packed)
        cache.advance(n_new)
        return self._final(self.decoder, x_BTC)

    def _with_distances(self, cache: KeyValueCache, n_new: int) -> KeyValueCache:
        if self.config.positions != "relative":
            return cache
        if isinstance(cache, EarlierTokens):
            return WholeText(self.decoder.relative(slice(0, n_new), n_new)[None], self._attention_dropout)
        return RememberedBias(cast(BiasedCache, cache), self.decoder.relative)

    def _embed(
        self, stack: _Stack, ids_BT: Tensor, positions: slice | Tensor, packed: PackedTokens | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the first layer reads, (B, T, C) or rows (P, C), and the tables of rotary positions."""
        config = self.config
        mark(Stage.EMBED)
        x_BTC = self.embed_tokens(ids_BT if packed is None else packed.rows(ids_BT.flatten()))
        if config.scale_embedding:
            x_BTC = x_BTC * config.width**0.5
        at = positions if packed is None else packed.positions_P
        rope = None
        if config.positions == "learned":
            table = stack.embed_positions
            x_BTC = x_BTC + (table.weight[at] if isinstance(at, slice) else table(at))
        elif config.positions == "sinusoidal":
            x_BTC = x_BTC + self._sinusoids(at, x_BTC)[0]
        elif config.positions == "rope":
            cos_TD, sin_TD = self._rope(positions, x_BTC)
            rope = cos_TD, sin_TD
        if config.embedding_norm:
            mark(Stage.NORM)
            x_BTC = stack.embedding_norm(x_BTC)
        return dropout(x_BTC, config.dropout, self.training), rope

    def _final(self, stack: _Stack, x_BTC: Tensor) -> Tensor:
        if not self.config.final_norm:
            return x_BTC
        mark(Stage.NORM)
        normed_BTC: Tensor = stack.norm(x_BTC)
        return normed_BTC

    def _head_input(self, hidden_BTC: Tensor) -> Tensor:
        return hidden_BTC * self.config.width**-0.5 if self.config.scale_logits else hidden_BTC

    @property
    def _decoder_layers(self) -> list[CrossDecoderLayer]:
        return list(self.decoder.layers)  # type: ignore[arg-type]

    @property
    def _attention_dropout(self) -> float:
        return self.config.attention_dropout if self.training else 0.0

    @torch.no_grad()
    def initialise(self, seed: int) -> "EncoderDecoder":
        """Fresh weights: normal with deviation 1/√fan-in; embeddings 1 behind their scale, or 0.02 where they are not
        scaled and shared with the head; zero for distances and, with norms before the sublayers, for the matrices that
        write into the residual stream, so that every layer starts as the identity."""
        config, generator = self.config, torch.Generator().manual_seed(seed)
        tokens = config.width**-0.5 if config.scale_embedding else 0.02 if config.tie_embeddings else 1.0
        for name, module in self.named_modules():
            leaf = name.rpartition(".")[2]
            if isinstance(module, nn.Embedding):
                if leaf == "table":
                    module.weight.zero_()
                else:
                    deviation = tokens if leaf == "embed_tokens" else 0.02
                    module.weight.normal_(0, deviation, generator=generator)
            elif isinstance(module, nn.Linear):
                if config.norm_place == "pre" and leaf in ("o_proj", "down_proj"):
                    module.weight.zero_()
                elif not (leaf == "lm_head" and config.tie_embeddings):
                    module.weight.normal_(0, module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        if not config.tie_embeddings:
            self.lm_head.weight.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


def _norm(config: EncoderDecoderConfig) -> nn.Module:
    return make_norm(config.norm, config.width, config.norm_epsilon, config.bias)


def _self_attention(config: EncoderDecoderConfig, layer: int, stage_layer: int) -> SelfAttention:
    return SelfAttention(
        config.width, config.n_heads, config.n_kv_heads, config.head_dim, bias=config.bias,
        scale_scores=config.scale_scores, layer=layer, stage_layer=stage_layer)


def _feed_forward(config: EncoderDecoderConfig) -> FeedForward:
    return FeedForward(config.width, config.hidden, config.activation, config.bias, config.activation_dropout)


def _rope_tables(config: EncoderDecoderConfig, device: torch.device) -> tuple[Tensor, ...]:
    positions_N = torch.arange(max(config.source_length, config.context_length), device=device)
    return rope_tables(positions_N, config.head_dim, config.rope_theta)


def _sinusoids(config: EncoderDecoderConfig, device: torch.device) -> tuple[Tensor, ...]:
    return (sinusoidal_table(max(config.source_length, config.context_length), config.width, device),)


def _packed(lengths_B: Tensor, length: int) -> PackedTokens | None:
    """``None`` without padding, and where shapes must not depend on values."""
    if torch.compiler.is_compiling():
        return None
    packed = PackedTokens(lengths_B, length)
    return packed if packed.has_padding else None
