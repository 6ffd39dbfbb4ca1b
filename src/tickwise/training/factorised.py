"""Build a matrix-factorised language model: count, factorise, solve what is convex, weigh against Kneser–Ney.

1. For each of the K distances, which word stands before which (``cooccurrence.pair_counts``), as shifted positive PMI.
2. Truncated factors of all of them together: side by side for context vectors, their transposes side by side for
   output vectors.
3. One matrix and a bias by maximum likelihood. With the factors fixed this is multinomial logistic regression: convex.
4. Shares of both models, per depth of the n-gram's context, by expectation maximisation on the validation part.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import ConfigError, DataError
from tickwise.models.factorised import Factorised, FactorisedConfig
from tickwise.models.ngram import Ngram
from tickwise.training.cooccurrence import SparseCounts, beside, pair_counts, positive_pmi, transposed, truncated_svd

# A frequent word says little about the topic (Arora, Liang & Ma 2017, equation 3).
_SALIENT = 1e-3
_EM_STEPS = 50
# Positions side by side in a piece of text.
_PIECE = 128
_NOISE_POWER = 0.75
_FARTHEST = 2.0  # times the typical length of a vector


@dataclass(frozen=True, kw_only=True)
class FactorisedSettings:
    """How a factorised model is built."""

    rank: int = 128
    """Length of the factors."""
    n_positions: int = 5
    """Nearest words, each with a matrix of its own."""
    decays: tuple[float, ...] = (0.9, 0.98)
    """Sums over the words before: one d back weighs decay**d."""
    window: int = 100
    """Words in those sums."""
    shift: float = 1.0
    """Shift of the positive mutual information, k in log k."""
    epochs: float = 2.0
    """Passes of the convex fit over the training text."""
    batch_size: int = 1024
    """Positions per step of the fit."""
    sampled_words: int = 1024
    """Words that a step's softmax goes over, beside its own."""
    lr: float = 3e-4
    """Learning rate of the fit (Adam), falling linearly to zero."""
    seed: int = 0
    """Of the drawn subspace and the order of the positions."""

    def __post_init__(self) -> None:
        for name in ("rank", "n_positions", "window", "batch_size", "sampled_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("shift", "epochs", "lr"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"{name}: must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """Where the convex fit stands."""

    step: int
    n_steps: int
    validation_loss: float
    """Nats per token of the factors alone."""
    seconds: float


def build_factorised(
    ngram: Ngram, train: NDArray[Any], validation: NDArray[Any], settings: FactorisedSettings,
    on_progress: Callable[[FitProgress], None] = lambda progress: None,
) -> Factorised:
    """The model of the tokens ``train`` (n,), fitted and weighed with the help of ``validation`` (m,).

    Raises ``DataError`` for texts that are too short to count pairs in or to weigh the models on.
    """
    if len(train) <= settings.n_positions + 1:
        raise DataError(f"{len(train)} tokens are too few to count words at {settings.n_positions} distances")
    if len(validation) < 2:
        raise DataError("a validation part is needed to weigh the factors against the n-grams, and there is none")
    rank = min(settings.rank, ngram.config.vocab_size)
    config = FactorisedConfig(
        rank=rank, n_positions=settings.n_positions, decays=settings.decays, window=settings.window, ngram=ngram.config
    )
    module = Factorised(config)
    module.ngram = ngram
    _factorise(module, train, replace(settings, rank=rank))
    train_T = torch.from_numpy(numpy.asarray(train, dtype=numpy.int64))
    validation_T = torch.from_numpy(numpy.asarray(validation, dtype=numpy.int64))
    _fit(module, train_T, validation_T, settings, on_progress)
    _weigh(module, validation_T)
    return module.eval()


def _factorise(module: Factorised, train: NDArray[Any], settings: FactorisedSettings) -> None:
    """Steps 1 and 2."""
    n_vocab = module.config.vocab_size
    frequency = torch.from_numpy(numpy.bincount(train, minlength=n_vocab) / len(train)).float()
    forwards: list[SparseCounts] = []
    backwards: list[SparseCounts] = []
    for distance in range(1, settings.n_positions + 1):
        pairs = pair_counts(train, n_vocab, distance)
        forwards.append(positive_pmi(pairs, shift=settings.shift))
        backwards.append(positive_pmi(transposed(pairs), shift=settings.shift))
    for name, matrices in (("context_vectors", forwards), ("output_vectors", backwards)):
        left, values, _ = truncated_svd(beside(matrices), settings.rank, settings.seed)
        vectors = torch.zeros(n_vocab, settings.rank)
        vectors[:, : left.shape[1]] = left * values.sqrt()
        getattr(module, name).data = _whitened(vectors, frequency)
    salience = _SALIENT / (_SALIENT + frequency)
    module.salience.data = salience / (frequency @ salience.square()).sqrt()
    module.bias.data = torch.log((frequency * len(train) + 1) / (len(train) + n_vocab))


def _whitened(vectors_VR: Tensor, frequency_V: Tensor) -> Tensor:
    """Directions of the vectors, turned and stretched until they vary alike and independently over the text.

    Then all directions of the convex problem are about equally steep, and few steps solve it. The square root of the
    frequencies is a compromise: with them all, rare words would lie far out; those that still do are drawn in.
    """
    unit = F.normalize(vectors_VR, dim=1)
    weight = frequency_V.sqrt() / frequency_V.sqrt().sum()
    centred = unit - weight @ unit
    covariance = (centred * weight.unsqueeze(1)).t() @ centred
    ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)))
    white = torch.linalg.solve_triangular(factor, centred.t(), upper=False).t().contiguous()
    return white * (_FARTHEST * len(covariance) ** 0.5 / white.norm(dim=1, keepdim=True)).clamp(max=1.0)


def _fit(module: Factorised, train_T: Tensor, validation_T: Tensor, settings: FactorisedSettings,
         on_progress: Callable[[FitProgress], None]) -> None:
    """Step 3: the matrix and the bias; those of the lowest validation loss are kept.

    A step reads pieces of the text side by side. Its softmax goes over the words of the step and a sample of others,
    corrected for how likely each was drawn (Bengio & Senécal 2008; Jean et al. 2015, section 3.2).
    """
    trained = [module.matrix, module.bias]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=settings.lr, betas=(0.9, 0.99))
    noise = torch.bincount(train_T, minlength=module.config.vocab_size).double().add(1).pow(_NOISE_POWER)
    log_noise, noise = (noise / noise.sum()).log().float(), noise.cumsum(0)
    generator = torch.Generator().manual_seed(settings.seed)
    n_pieces = max(1, (len(train_T) - 1) // _PIECE)
    at_once = max(1, min(n_pieces, settings.batch_size // _PIECE))
    n_steps = max(1, round(settings.epochs * n_pieces / at_once))
    every = max(1, n_pieces // at_once // 2)
    started, best, kept = time.perf_counter(), math.inf, [p.detach().clone() for p in trained]
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, n_steps + 1):
        if len(order) < at_once:
            order = torch.cat([order, torch.randperm(n_pieces, generator=generator)])
        pieces, order = order[:at_once], order[at_once:]
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - (step - 1) / n_steps)
        draws = torch.rand(settings.sampled_words, generator=generator, dtype=torch.float64) * noise[-1]
        sampled = torch.searchsorted(noise, draws).clamp(max=module.config.vocab_size - 1)
        loss = _sampled_loss(module, train_T, pieces, sampled, log_noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0 or step == n_steps:
            with torch.no_grad():
                found = -float(module.own_log_probabilities(validation_T).double().mean())
            on_progress(FitProgress(step=step, n_steps=n_steps, validation_loss=found,
                                    seconds=time.perf_counter() - started))
            if found < best:
                best, kept = found, [p.detach().clone() for p in trained]
    for parameter, value in zip(trained, kept, strict=True):
        parameter.requires_grad_(False).data = value


def _sampled_loss(module: Factorised, train_T: Tensor, pieces: Tensor, sampled: Tensor, log_noise: Tensor) -> Tensor:
    """Mean loss of pieces of the text, against each position's own word and the sampled ones."""
    n_new = min(_PIECE, len(train_T) - 1)
    # Position p of piece i predicts word i · n_new + p + 1.
    reach = torch.arange(-module.config.n_history + 1, n_new)
    places = pieces[:, None] * n_new + reach
    ids = torch.where(places >= 0, train_T[places.clamp(min=0)], -1)
    targets = train_T[(pieces[:, None] * n_new + torch.arange(1, n_new + 1)).flatten()]
    with torch.no_grad():
        features = module.text_features(ids, n_new)
    hidden = features @ module.matrix
    # Times that a word is expected in the sample.
    log_expected = log_noise + math.log(len(sampled))
    own = (hidden * module.output_vectors[targets]).sum(1) + module.bias[targets] - log_expected[targets]
    others = torch.addmm(module.bias[sampled] - log_expected[sampled], hidden, module.output_vectors[sampled].t())
    others = others.masked_fill(sampled[None] == targets[:, None], -torch.inf)
    return (torch.logaddexp(own, others.logsumexp(1)) - own).mean()


@torch.no_grad()
def _weigh(module: Factorised, validation_T: Tensor) -> None:
    """Step 4: expectation maximisation per depth (Jelinek & Mercer 1980)."""
    recent, targets = module.ngram.hidden_states(validation_T[None, :-1])[0], validation_T[1:]
    rows = module.ngram.contexts(recent)
    depth = module.depths(recent, rows)
    counted = module.ngram.probability_of(rows, targets).double()
    own = module.own_log_probabilities(validation_T).double().exp()
    n_depths = len(module.mixture)
    # One position of either kind at every depth, so that a depth without examples has a share.
    seen = torch.zeros(n_depths, dtype=torch.float64).index_add_(0, depth, torch.ones_like(own)) + 2
    share = torch.full((n_depths,), 0.5, dtype=torch.float64)
    for _ in range(_EM_STEPS):
        mine = share[depth] * own
        credit = mine / (mine + (1 - share[depth]) * counted)
        share = (torch.zeros_like(share).index_add_(0, depth, credit) + 1) / seen
    module.mixture.data = share.float()
