"""The text VAE's loss: what the decoder could not tell, and what the latent vector says beyond its prior.

Sources: evidence lower bound (Kingma & Welling 2014); annealing and word dropout (Bowman et al. 2016); cycles (Fu et
al. 2019); free bits (Kingma et al. 2016); beginning as an autoencoder, with free bits (Li et al. 2019).
Shape legend: B sentences, T tokens of the longest, Z latent width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.data.sentences import Sentences
from tickwise.models.vae import Posterior, Vae, active_units, word_dropout_mask
from tickwise.training.objective import Batch
from tickwise.training.sentence_objective import SentenceObjective, spread_batches


@dataclass(frozen=True, kw_only=True)
class KlSchedule:
    """How much the KL term weighs as training goes on; lengths in epochs."""

    autoencoder_epochs: float = 0.0
    """First the weight is 0 and z is the mean: an autoencoder."""
    warmup_epochs: float = 10.0
    """Then it rises in a straight line; 0 begins at the full weight."""
    cycles: int = 1
    """Times that the rise is repeated; in each, as long again at the full weight."""
    weight: float = 1.0
    """At the end of every rise; other than 1 is a β-VAE (Higgins et al. 2017)."""
    free_nats: float = 0.2
    """Nats of each latent dimension, averaged over a batch, that cost nothing: without any, a decoder that predicts
    well by itself soon learns to ignore what is latent."""

    def __post_init__(self) -> None:
        for name in ("autoencoder_epochs", "warmup_epochs", "weight", "free_nats"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"--kl.{name.replace('_', '-')}: must not be negative, got {getattr(self, name)}")
        if self.cycles < 1:
            raise ConfigError(f"--kl.cycles: must be at least 1, got {self.cycles}")

    def at(self, epoch: float) -> float:
        """The weight after so many epochs."""
        since = epoch - self.autoencoder_epochs
        if since < 0:
            return 0.0
        if self.warmup_epochs == 0:
            return self.weight
        cycle = int(since // (2 * self.warmup_epochs))
        if cycle < self.cycles:
            since -= cycle * 2 * self.warmup_epochs
            return self.weight * min(1.0, since / self.warmup_epochs)
        return self.weight


def kl_with_free_nats(kl_BZ: Tensor, free_nats: float) -> Tensor:
    """Nats per sentence: each dimension's mean over the batch, or ``free_nats`` if that is more, summed."""
    return kl_BZ.mean(0).clamp(min=free_nats).sum()


class VaeObjective(SentenceObjective):
    """The negative evidence lower bound, in nats per sentence, with the KL term weighted as the schedule says.

    A batch brings its ids, lengths, KL weight and whether z is drawn (1) or the mean (0); z's noise and the dropped
    words come from torch's generator.
    """

    def __init__(self, sentences: Sentences, validation: Sentences | None, *, batch_size: int, seed: int,
                 schedule: KlSchedule, word_dropout: float = 0.0) -> None:
        super().__init__(sentences, validation, batch_size=batch_size, seed=seed)
        self._schedule, self._word_dropout, self._seed = schedule, word_dropout, seed

    def next_batch(self) -> Batch:
        epoch = self.batches.epochs_done
        return self._batch(self.batches.next_batch(), epoch)

    def example(self) -> Batch:
        return self._batch(np.arange(self.batches.batch_size), 0.0)

    def _batch(self, indices: np.ndarray, epoch: float) -> Batch:
        ids_BT, lengths_B = self.batches.sentences.padded(indices)
        weight = torch.tensor(self._schedule.at(epoch))
        is_drawn = torch.tensor(float(epoch >= self._schedule.autoencoder_epochs))
        return Batch((ids_BT, lengths_B, weight, is_drawn), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Free nats then hold for the mean of each part."""
        ids_BT, lengths_B, weight, is_drawn = batch.inputs
        return [Batch((ids, lengths, weight, is_drawn), int(lengths.sum()), weight=len(ids))
                for ids, lengths in zip(ids_BT.chunk(n), lengths_B.chunk(n), strict=True)]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, Vae)
        ids_BT, lengths_B, weight, is_drawn = inputs
        posterior = module.encode(ids_BT, lengths_B)
        z_BZ = posterior.sample(torch.randn_like(posterior.mean) * is_drawn)
        inputs_BT = module.decoder_inputs(ids_BT)
        kept_BT = word_dropout_mask(inputs_BT, self._word_dropout, module.training)
        hidden_BTC, _ = module.read(inputs_BT, z_BZ, kept_BT=kept_BT)
        # Time first, as the layers left it.
        inside_TB = torch.arange(ids_BT.shape[1], device=ids_BT.device)[:, None] < lengths_B
        hidden_NC, targets_N = hidden_BTC.transpose(0, 1)[inside_TB], ids_BT.t()[inside_TB]
        reconstruction = module.loss(hidden_NC, targets_N) * (len(targets_N) / len(ids_BT))
        mark(Stage.LOSS)
        return reconstruction + weight * kl_with_free_nats(posterior.kl(), self._schedule.free_nats), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """``loss``: the negative bound with the KL term as it is; its parts; active latent dimensions. z is drawn with
        the same noise every time."""
        assert isinstance(module, Vae)
        assert self._validation is not None
        was_training = module.training
        module.eval()
        figures = bound_figures(module, self._validation, device, max_tokens=max_tokens, seed=self._seed)
        module.train(was_training)
        return figures


@torch.no_grad()
def bound_figures(module: Vae, sentences: Sentences, device: torch.device, *, max_tokens: int | None = None,
                  seed: int = 1) -> dict[str, float]:
    """Per sentence, in nats: ``loss`` (the negative bound, one draw of z each), ``reconstruction``, ``kl``; and
    ``active_units``. With ``max_tokens``, of sentences spread over all of them."""
    generator = torch.Generator().manual_seed(seed)
    reconstruction = kl = 0.0
    means = []
    batches = spread_batches(sentences, max_tokens)
    for indices in batches:
        ids_BT, lengths_B = (tensor.to(device) for tensor in sentences.padded(indices))
        posterior = module.encode(ids_BT, lengths_B)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        reconstruction += module.sentence_nats(ids_BT, lengths_B, posterior.sample(noise)).sum().item()
        kl += posterior.kl().sum().item()
        means.append(posterior.mean.cpu())
    n = sum(map(len, batches))
    return {"loss": (reconstruction + kl) / n, "reconstruction": reconstruction / n, "kl": kl / n,
            "active_units": float(active_units(torch.cat(means)))}


def posterior_of(module: Vae, sentences: Sentences, indices: np.ndarray, device: torch.device) -> Posterior:
    """Of the sentences with those numbers."""
    ids_BT, lengths_B = (tensor.to(device) for tensor in sentences.padded(indices))
    return module.encode(ids_BT, lengths_B)
