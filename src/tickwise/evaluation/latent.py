"""How likely a text VAE finds sentences, and what its latent vector says of them.

Sources: the importance-weighted bound (Burda et al. 2016), log p(x) ≥ E log 1/K Σ p(x, z_k) / q(z_k | x), which is the
evidence lower bound for K = 1 and rises to log p(x) with K; active units (same paper).
Shape legend: B sentences, K draws of z, Z latent width.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tickwise.core.console import progress
from tickwise.core.errors import ConfigError
from tickwise.data.sentences import Sentences
from tickwise.evaluation.bootstrap import Interval, interval, resample_sums
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import results_json
from tickwise.models.vae import Vae, active_units, normal_log_density

TASK = "likelihood"
_ROWS_AT_ONCE = 100
_RESAMPLES = 1000
_FEWEST_FOR_VARIANCE = 30


@dataclass(frozen=True, kw_only=True)
class LatentFigures:
    """Nats per sentence, ends of sentences counted, unless it says otherwise."""

    n_sentences: int
    n_tokens: int
    n_draws: int
    nll: float
    """The importance-weighted bound of −log p(x)."""
    nll_interval: Interval | None
    """Of ``nll``, by resampling the sentences; None for a single one."""
    bound: float
    """The negative evidence lower bound: ``reconstruction`` + ``kl``."""
    reconstruction: float
    kl: float
    active_units: int | None
    """Latent dimensions whose posterior mean varies over the sentences by more than 0.01; None for fewer than 30, over
    which a variance says little."""
    unknown: int
    """Of the tokens, those that stand for any word that the tokenizer does not know."""
    perplexity: float
    """Per token, from ``nll``."""
    perplexity_interval: Interval | None
    """From the same resamples, which keep a sentence's nats and tokens together."""

    def to_json(self, model: str = "", seed: int = 1) -> dict[str, Any]:
        """lm-evaluation-harness's result layout, lower being better, with intervals; besides, the two parts of the
        bound and the counts, which are neither good nor bad."""
        scores = {"nll": Score(self.nll, self.nll_interval), "bound": Score(self.bound, None),
                  "perplexity": Score(self.perplexity, self.perplexity_interval)}
        return results_json({TASK: scores}, {TASK: self.n_sentences}, model=model, samples=_RESAMPLES, seed=seed,
                            output_type="loglikelihood", lower_is_better=tuple(scores)) | {
            "reconstruction": self.reconstruction, "kl": self.kl, "active_units": self.active_units,
            "n_tokens": self.n_tokens, "n_draws": self.n_draws, "unknown": self.unknown}


@torch.no_grad()
def latent_figures(module: Vae, sentences: Sentences, device: torch.device, *, n_draws: int = 100,
                   seed: int = 1, unknown_id: int | None = None) -> LatentFigures:
    """Of all ``sentences``, with ``n_draws`` of z for each. ``unknown_id`` is the token of unknown words."""
    if n_draws < 1:
        raise ConfigError(f"--draws: must be at least 1, got {n_draws}")
    module.eval()
    generator = torch.Generator().manual_seed(seed)
    order = np.argsort(sentences.lengths, kind="stable")
    at_once = max(1, _ROWS_AT_ONCE // n_draws)
    nll, bounds, divergences, means = [], [], [], []
    with progress("likelihood", len(order), "sentences") as bar:
        for indices in np.array_split(order, range(at_once, len(order), at_once)):
            ids_BT, lengths_B = (tensor.to(device) for tensor in sentences.padded(indices))
            posterior = module.encode(ids_BT, lengths_B)
            noise_KBZ = torch.randn(n_draws, *posterior.mean.shape, generator=generator).to(device)
            z_KBZ = posterior.sample(noise_KBZ)
            log_p_KB = -_nats(module, ids_BT, lengths_B, z_KBZ)
            weights_KB = log_p_KB + normal_log_density(z_KBZ) - posterior.log_density(z_KBZ)
            nll.append(math.log(n_draws) - torch.logsumexp(weights_KB.double(), 0))
            kl_B = posterior.kl().sum(-1)
            bounds.append(kl_B - log_p_KB.mean(0))
            divergences.append(kl_B)
            means.append(posterior.mean)
            bar.advance(len(indices))
    nll_B = torch.cat(nll).cpu().numpy()
    bound, kl = (torch.cat(parts).double().mean().item() for parts in (bounds, divergences))
    tokens_B = sentences.lengths[order] + 1.0
    nll_interval = perplexity_interval = None
    if len(sentences) > 1:
        sums_R2 = resample_sums(np.stack([nll_B, tokens_B], 1), _RESAMPLES, seed)
        nll_interval = interval(sums_R2[:, 0] / len(nll_B))
        perplexity_interval = interval(np.exp(sums_R2[:, 0] / sums_R2[:, 1]))
    n_unknown = 0
    if unknown_id is not None:
        n_unknown = sum(sentences.ids(number).count(unknown_id) for number in range(len(sentences)))
    n_tokens = int(sentences.lengths.sum()) + len(sentences)
    return LatentFigures(
        n_sentences=len(sentences), n_tokens=n_tokens, n_draws=n_draws, nll=float(nll_B.mean()),
        nll_interval=nll_interval, perplexity_interval=perplexity_interval, bound=bound,
        reconstruction=bound - kl, kl=kl, unknown=n_unknown,
        active_units=active_units(torch.cat(means)) if len(sentences) >= _FEWEST_FOR_VARIANCE else None,
        perplexity=math.exp(nll_B.sum() / n_tokens),
    )


def _nats(module: Vae, ids_BT: Tensor, lengths_B: Tensor, z_KBZ: Tensor) -> Tensor:
    """−log p(x | z_k) (K, B), some rows at a time."""
    n = z_KBZ.shape[1]
    at_once = max(1, _ROWS_AT_ONCE // n)
    parts = []
    for z in z_KBZ.split(at_once):
        rows = ids_BT.repeat(len(z), 1), lengths_B.repeat(len(z))
        parts.append(module.sentence_nats(*rows, z.flatten(0, 1)).view(len(z), n))
    return torch.cat(parts)
