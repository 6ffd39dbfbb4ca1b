"""The text VAE: an encoder tells a sentence's place in a latent space, a decoder writes sentences from places.

Sources: Kingma & Welling 2014; for text Bowman et al. 2016; the latent vector beside every input word and in the first
state as in He et al. 2019 ("Lagging inference networks").
Shape legend: B sentences, T tokens, C embedding width, H features of a layer, Z latent width, V vocabulary, N
positions.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.attention import causal_attention
from tickwise.layers.clustered_head import ClusteredHead, check_cutoffs
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Embedding, Linear
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.layers.norm import make_norm
from tickwise.layers.recurrent import RecurrentLayers, State, locked_dropout
from tickwise.layers.rope import rope_tables
from tickwise.models.decoder import DecoderConfig, DecoderLayer
from tickwise.models.lockstep import shifted

Network = Literal["lstm", "transformer"]
_TOKENS_AT_ONCE = 512
_ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class VaeOptions:
    """The encoder and the decoder."""

    encoder: Network = "lstm"
    decoder: Network = "lstm"
    latent: int = 32
    """Features of the latent vector."""
    width: int = 256
    """Features of a token's embedding, and of Transformer layers."""
    hidden: int = 512
    """Features of an LSTM decoder's layers."""
    encoder_hidden: int = 256
    """Features of an LSTM encoder's layer."""
    cutoffs: tuple[int, ...] = ()
    """Ids at which clusters of rare words begin, visited only when needed; needs a word tokenizer."""
    input_dropout: float = 0.0
    """On the decoder's input."""
    dropout: float = 0.0
    """Between layers."""
    output_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class VaeConfig(VaeOptions):
    """Shape and options of a text VAE. The dropouts act while training only; on the decoder's input and output with one
    mask for all steps."""

    vocab_size: int
    eos_id: int
    """The token that begins and ends every sentence."""
    n_layers: int = 1
    """Layers of the decoder; a Transformer encoder has as many."""
    context_length: int = 128
    """The longest sentence, its end counted."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "latent", "width", "hidden", "encoder_hidden", "n_layers", "context_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("input_dropout", "dropout", "output_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name}: must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.eos_id < self.vocab_size:
            raise ConfigError(f"model.eos_id: {self.eos_id} is outside the vocabulary of {self.vocab_size}")
        check_cutoffs(self.cutoffs, self.vocab_size)
        if "transformer" in (self.encoder, self.decoder) and self.width % (2 * self.n_heads):
            raise ConfigError(f"model.width: {self.width} is not {self.n_heads} heads of an even width")

    @property
    def n_heads(self) -> int:
        """Of Transformer layers."""
        return max(1, self.width // 64)


class Posterior(NamedTuple):
    """A diagonal normal distribution over z for each sentence, q(z | x): (B, Z) both."""

    mean: Tensor
    log_var: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z for standard normal ``noise`` (…, B, Z): the reparameterisation trick."""
        return self.mean + noise * (0.5 * self.log_var).exp()

    def kl(self) -> Tensor:
        """(B, Z): nats from the prior N(0, 1), for each dimension."""
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1.0 - self.log_var)

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z | x) (…, B) of z (…, B, Z)."""
        return normal_log_density((z - self.mean) * (-0.5 * self.log_var).exp()) - 0.5 * self.log_var.sum(-1)


def normal_log_density(z: Tensor) -> Tensor:
    """log of the standard normal density (…,) of z (…, Z)."""
    return -0.5 * (z.square() + torch.log(torch.tensor(2 * torch.pi, dtype=z.dtype, device=z.device))).sum(-1)


class _AllInside:
    """Attention from every token to all tokens of its sentence."""

    def __init__(self, mask_B11S: Tensor | None) -> None:
        self._mask_B11S = mask_B11S

    def positions(self, n_new: int) -> slice:
        return slice(0, n_new)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q_BHTD, k_BKTD, v_BKTD, attn_mask=self._mask_B11S)

    def advance(self, n_new: int) -> None:
        """Nothing is stored."""


class _Continued:
    """Causal attention with the keys and values of earlier calls in a state: two tensors (B, K, S, D) for each layer.
    """

    def __init__(self, state: State) -> None:
        self._before, self.after = state, list[Tensor]()

    def positions(self, n_new: int) -> slice:
        start = self._before[0].shape[2] if self._before else 0
        return slice(start, start + n_new)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        if self._before:
            k_BKTD = torch.cat((self._before[2 * layer], k_BKTD), 2)
            v_BKTD = torch.cat((self._before[2 * layer + 1], v_BKTD), 2)
        self.after += [k_BKTD, v_BKTD]
        return causal_attention(q_BHTD, k_BKTD, v_BKTD)

    def advance(self, n_new: int) -> None:
        """``attend`` has stored it."""


class _Transformer(nn.Module):
    """Blocks as the decoder family has them, over vectors (B, T, C)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.context_length, self.head_dim = config.context_length, config.width // config.n_heads
        shape = DecoderConfig(
            vocab_size=1, context_length=config.context_length, width=config.width, n_layers=config.n_layers,
            n_heads=config.n_heads, n_kv_heads=config.n_heads, head_dim=self.head_dim,
            hidden=-(-8 * config.width // 96) * 32, qk_norm=True, dropout=config.dropout,
        )  # fmt: skip
        self.theta = shape.rope_theta
        self.layers = nn.ModuleList(DecoderLayer(shape, i) for i in range(config.n_layers))
        self.norm = make_norm("rmsnorm", config.width, shape.norm_epsilon, False)

    def forward(self, x_BTC: Tensor, cache: _AllInside | _Continued) -> Tensor:
        positions = cache.positions(x_BTC.shape[1])
        if positions.stop > self.context_length:
            raise ConfigError(f"position {positions.stop} is past the model's longest sentence of "
                              f"{self.context_length} tokens")
        places = torch.arange(positions.start, positions.stop, device=x_BTC.device)
        cos, sin = rope_tables(places, self.head_dim, self.theta)
        rope = (cos.to(x_BTC.dtype), sin.to(x_BTC.dtype))
        for layer in self.layers:
            x_BTC, _ = layer(x_BTC, rope, None, cache)
        mark(Stage.NORM)
        normed: Tensor = self.norm(x_BTC)
        return normed

    def initialise(self, generator: torch.Generator) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.endswith(("o_proj", "down_proj")):
                    module.weight.zero_()
                else:
                    module.weight.normal_(0, module.in_features**-0.5, generator=generator)


class Vae(nn.Module):
    """Sentences (B, T), each with its end token, and their lengths → logits (B, T, V) of the same tokens, from the mean
    of the latent distribution and, at every position, the tokens before it."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        self.encoder: RecurrentLayers | _Transformer
        self.decoder: RecurrentLayers | _Transformer
        if config.encoder == "lstm":
            self.encoder, encoded = RecurrentLayers("lstm", config.width, config.encoder_hidden), config.encoder_hidden
        else:
            self.encoder, encoded = _Transformer(config), config.width
        self.to_latent = Linear(encoded, 2 * config.latent)
        self.projection: Linear | None = None
        if config.decoder == "lstm":
            self.decoder = RecurrentLayers("lstm", config.width + config.latent, config.hidden, config.n_layers,
                                           dropout=config.dropout)
            self.from_latent = Linear(config.latent, config.n_layers * config.hidden)
            if config.hidden != config.width:
                self.projection = Linear(config.hidden, config.width, bias=False)
        else:
            self.decoder = _Transformer(config)
            self.from_latent = Linear(config.latent, config.width)
        self.lm_head = Linear(config.width, config.vocab_size, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.clusters = ClusteredHead(config.width, config.vocab_size, config.cutoffs) if config.cutoffs else None

    mask_inputs = (1,)

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        hidden_BTC, _ = self.read(self.decoder_inputs(ids_BT), self.encode(ids_BT, lengths_B).mean)
        return self.logits(hidden_BTC)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor]:
        """Inputs for a listing: sentences of ``context`` tokens."""
        return (torch.zeros(batch, context, dtype=torch.long),)

    def encode(self, ids_BT: Tensor, lengths_B: Tensor | None = None) -> Posterior:
        """Where the sentences are in the latent space; ``lengths_B`` count the end token, without them all have T."""
        x_BTC = self._embed(ids_BT, self.config.encoder)
        if isinstance(self.encoder, _Transformer):
            if lengths_B is None:
                summary_BH = self.encoder(x_BTC, _AllInside(None)).mean(1)
            else:
                inside_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
                out_BTC = self.encoder(x_BTC, _AllInside(inside_BT[:, None, None]))
                summary_BH = (out_BTC * inside_BT[..., None]).sum(1) / lengths_B[:, None]
        else:
            summary_BH = self.encoder(x_BTC, None, lengths_B)[1][0]
        mark(Stage.HEAD)
        mean, log_var = self.to_latent(summary_BH).float().chunk(2, -1)
        return Posterior(mean, log_var)

    def _embed(self, ids_BT: Tensor, network: Network) -> Tensor:
        """(B, T, C); for a Transformer as large as what the latent vector adds (Vaswani et al. 2017, section 3.4)."""
        mark(Stage.EMBED)
        x_BTC: Tensor = self.embed_tokens(ids_BT)
        return x_BTC * self.config.width**0.5 if network == "transformer" else x_BTC

    def decoder_inputs(self, ids_BT: Tensor) -> Tensor:
        """What the decoder reads to write ``ids_BT``."""
        return shifted(ids_BT, self.config.eos_id)

    def read(self, ids_BT: Tensor, z_BZ: Tensor, state: State | None = None, kept_BT: Tensor | None = None,
             ) -> tuple[Tensor, State]:
        """(B, T, C) for ``logits``, and the state after the last token; without a state the sentences begin here.

        ``kept_BT`` (B, T), 1 or 0, blanks input words: word dropout (Bowman et al. 2016).
        """
        x_BTC = self._embed(ids_BT, self.config.decoder)
        if kept_BT is not None:
            x_BTC = x_BTC * kept_BT[..., None].to(x_BTC.dtype)
        x_TBC = locked_dropout(x_BTC.transpose(0, 1), self.config.input_dropout, self.training)
        z_BZ = z_BZ.to(x_BTC.dtype)
        if isinstance(self.decoder, _Transformer):
            cache = _Continued(() if state is None else state)
            out_BTH = self.decoder(x_TBC.transpose(0, 1) + self.from_latent(z_BZ)[:, None], cache)
            state = tuple(cache.after)
        else:
            inputs_TBC = torch.cat((x_TBC, z_BZ.expand(len(x_TBC), *z_BZ.shape)), -1)
            out_BTH, state = self.decoder(inputs_TBC.transpose(0, 1), self._first_state(z_BZ) if state is None
                                          else state)
        mark(Stage.HEAD)
        out_TBH = locked_dropout(out_BTH.transpose(0, 1), self.config.output_dropout, self.training)
        return (out_TBH if self.projection is None else self.projection(out_TBH)).transpose(0, 1), state

    def _first_state(self, z_BZ: Tensor) -> State:
        state: list[Tensor] = []
        for cell_BH in self.from_latent(z_BZ).chunk(self.config.n_layers, -1):
            state += [torch.tanh(cell_BH), cell_BH.float()]
        return tuple(state)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """(B, T, V) from the output of ``read``."""
        mark(Stage.HEAD)
        if self.clusters is not None:
            return self.clusters.logits(hidden_BTC, self.lm_head.weight)
        logits_BTV: Tensor = self.lm_head(hidden_BTC)
        return logits_BTV

    def loss(self, hidden_NC: Tensor, targets_N: Tensor) -> Tensor:
        """Mean cross-entropy (nats, float32) of the tokens at ``hidden_NC``."""
        mark(Stage.HEAD)
        if self.clusters is not None:
            return self.clusters.loss(hidden_NC, self.lm_head.weight, targets_N)
        if self.config.vocab_size >= LARGE_VOCABULARY:
            return head_and_loss(hidden_NC, self.lm_head.weight, targets_N)
        logits_NV = self.logits(hidden_NC).float()
        mark(Stage.LOSS)
        return F.cross_entropy(logits_NV, targets_N)

    def sentence_nats(self, ids_BT: Tensor, lengths_B: Tensor, z_BZ: Tensor) -> Tensor:
        """−log p(x | z) (B,), the end token's counted."""
        hidden_BTC, _ = self.read(self.decoder_inputs(ids_BT), z_BZ)
        inside_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
        parts = zip(hidden_BTC[inside_BT].split(_TOKENS_AT_ONCE), ids_BT[inside_BT].split(_TOKENS_AT_ONCE),
                    strict=True)
        nats_N = torch.cat([self._token_nats(hidden_NC, targets_N) for hidden_NC, targets_N in parts])
        return nats_N.new_zeros(ids_BT.shape).masked_scatter(inside_BT, nats_N).sum(1)

    def _token_nats(self, hidden_NC: Tensor, targets_N: Tensor) -> Tensor:
        """(N,): of each token."""
        if self.clusters is None:
            return F.cross_entropy(self.logits(hidden_NC).float(), targets_N, reduction="none")
        mark(Stage.HEAD)
        return self.clusters.nats(hidden_NC, self.lm_head.weight, targets_N)

    @torch.no_grad()
    def initialise(self, seed: int) -> "Vae":
        """Fresh weights: normal with deviation 1/√fan-in, where the embedding's fan-in as a head is C."""
        generator = torch.Generator().manual_seed(seed)
        config = self.config
        self.embed_tokens.weight.normal_(0, config.width**-0.5, generator=generator)
        self.encoder.initialise(generator)
        self.decoder.initialise(generator)
        for linear in (self.to_latent, self.from_latent, self.projection):
            if linear is not None:
                linear.weight.normal_(0, linear.in_features**-0.5, generator=generator)
                if linear.bias is not None:
                    linear.bias.zero_()
        return self

    def n_parameters(self) -> int:
        """Stored numbers; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())


def active_units(means_BZ: Tensor) -> int:
    """Latent dimensions whose posterior mean varies over the sentences by more than 0.01 (Burda et al. 2016)."""
    return int((means_BZ.var(0, correction=0) > _ACTIVE_VARIANCE).sum()) if len(means_BZ) > 1 else 0


class GivenLatent:
    """A VAE's decoder at chosen places, as ``models/lockstep.py`` writes with it: a row of z for each sequence."""

    def __init__(self, vae: Vae, z_BZ: Tensor) -> None:
        self._vae, self._z_BZ = vae, z_BZ

    def read(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return self._vae.read(ids_BT, self._z_BZ, state)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        return self._vae.logits(hidden_BTC)


def word_dropout_mask(ids_BT: Tensor, rate: float, training: bool) -> Tensor | None:
    """(B, T) of 1 and 0 for ``Vae.read``; ``None`` where nothing is dropped."""
    if not training or rate == 0.0:
        return None
    return (dropout(torch.ones(ids_BT.shape, device=ids_BT.device), rate, True) > 0).float()
