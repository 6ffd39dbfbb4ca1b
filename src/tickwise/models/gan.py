"""Adversaries: a discriminator that tells real sentences from written ones; a generator and a critic of latent vectors.

Sources: the convolutional discriminator of SeqGAN (Yu et al. 2017, after Kim 2014); in the latent space of a text VAE,
Wasserstein GANs with a gradient penalty (Gulrajani et al. 2017; Arjovsky et al. 2017). The generator of sentences
itself is a recurrent language model (``models/recurrent.py``).
Shape legend: B sequences, T tokens, C embedding width, F features of a filter width, Z latent width, N noise width.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Embedding, Linear


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Shape of a discriminator of sentences."""

    vocab_size: int
    width: int = 64
    """Features of a token's embedding."""
    filters: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Tokens that a filter sees."""
    features: int = 64
    """Filters of each of these widths."""
    dropout: float = 0.25
    """Of the features, while training."""

    def __post_init__(self) -> None:
        if not self.filters or min(self.filters) < 1:
            raise ConfigError(f"discriminator.filters: widths of at least 1, got {list(self.filters)}")
        for name in ("vocab_size", "width", "features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"discriminator.{name}: must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"discriminator.dropout: must be in [0, 1), got {self.dropout}")


class Discriminator(nn.Module):
    """Token ids (B, T) → logits (B,): above 0 for sequences that look real."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Linear(n * config.width, config.features) for n in config.filters)
        n_features = len(config.filters) * config.features
        self.highway = Linear(n_features, 2 * n_features)
        self.out = Linear(n_features, 1)

    def forward(self, ids_BT: Tensor) -> Tensor:
        mark(Stage.EMBED)
        x_BTC = self.embed_tokens(ids_BT)
        x_BTC = F.pad(x_BTC, (0, 0, 0, max(0, max(self.config.filters) - ids_BT.shape[1])))
        found = []
        for index, (n_tokens, linear) in enumerate(zip(self.config.filters, self.layers, strict=True)):
            mark(Stage.FFN, index)
            windows_BTX = x_BTC.unfold(1, n_tokens, 1).flatten(2)
            found.append(F.relu(linear(windows_BTX).amax(1)))
        x_BF = torch.cat(found, -1)
        mark(Stage.HEAD)
        gate_BF, change_BF = self.highway(x_BF).chunk(2, -1)  # Srivastava et al. 2015
        x_BF = x_BF + torch.sigmoid(gate_BF) * (F.relu(change_BF) - x_BF)
        logits_B1: Tensor = self.out(dropout(x_BF, self.config.dropout, self.training))
        return logits_B1.squeeze(-1)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor]:
        """Inputs for a listing: sequences of ``context`` tokens."""
        return (torch.zeros(batch, context, dtype=torch.long),)

    @torch.no_grad()
    def initialise(self, seed: int) -> "Discriminator":
        """Fresh weights: normal with deviation 1/√fan-in; the highway begins mostly closed, the output with 0."""
        generator = torch.Generator().manual_seed(seed)
        # Small, so that training soon outweighs what was drawn: held-out accuracy rises several times as fast.
        self.embed_tokens.weight.normal_(0, 0.05, generator=generator)
        for linear in (*self.layers, self.highway):
            assert isinstance(linear, Linear)
            linear.weight.normal_(0, linear.in_features**-0.5, generator=generator)
            linear.bias.zero_()
        self.highway.bias[: self.out.in_features] = -1.0
        self.out.weight.zero_()
        self.out.bias.zero_()
        return self

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True, kw_only=True)
class LatentGanConfig:
    """Shape of a generator and a critic of latent vectors."""

    latent: int
    """Features of the latent vector."""
    noise: int = 64
    """Features of the noise that the generator starts from."""
    hidden: int = 256
    n_layers: int = 3
    """Hidden layers of either."""

    def __post_init__(self) -> None:
        for name in ("latent", "noise", "hidden", "n_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"latent_gan.{name}: must be at least 1, got {getattr(self, name)}")


def _perceptron(n_in: int, hidden: int, n_layers: int, n_out: int) -> nn.Sequential:
    widths = [n_in, *[hidden] * n_layers]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, Linear(hidden, n_out))


class LatentGan(nn.Module):
    """Noise (B, N) → latent vectors (B, Z); ``critic`` scores latent vectors, higher for those of real sentences.

    ``mean`` and ``deviation`` (Z,) of real latent vectors are kept, so that both networks meet numbers of unit scale.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: LatentGanConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = _perceptron(config.noise, config.hidden, config.n_layers, config.latent)
        self.judge = _perceptron(config.latent, config.hidden, config.n_layers, 1)
        self.register_buffer("mean", torch.zeros(config.latent))
        self.register_buffer("deviation", torch.ones(config.latent))

    def forward(self, noise_BN: Tensor) -> Tensor:
        return self.generate(noise_BN) * self.deviation + self.mean

    def generate(self, noise_BN: Tensor) -> Tensor:
        """Latent vectors of unit scale (B, Z)."""
        mark(Stage.FFN)
        z_BZ: Tensor = self.generator(noise_BN)
        return z_BZ

    def critic(self, z_BZ: Tensor) -> Tensor:
        """Scores (B,) of latent vectors of unit scale."""
        mark(Stage.HEAD)
        scores_B1: Tensor = self.judge(z_BZ)
        return scores_B1.squeeze(-1)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor]:
        """Inputs for a listing; ``context`` has no meaning here."""
        return (torch.zeros(batch, self.config.noise),)

    @torch.no_grad()
    def initialise(self, seed: int) -> "LatentGan":
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, (2 / module.in_features) ** 0.5, generator=generator)
                module.bias.zero_()
        return self

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def gradient_penalty(gan: LatentGan, real_BZ: Tensor, written_BZ: Tensor, shares_B1: Tensor) -> Tensor:
    """Mean of (‖∇ critic‖ − 1)² between real and written latent vectors (Gulrajani et al. 2017, equation 3)."""
    between_BZ = torch.lerp(real_BZ, written_BZ, shares_B1).detach().requires_grad_()
    gradients_BZ, = torch.autograd.grad(gan.critic(between_BZ).sum(), between_BZ, create_graph=True)
    return (gradients_BZ.norm(dim=1) - 1).square().mean()
