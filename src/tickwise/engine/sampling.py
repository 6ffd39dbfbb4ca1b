"""From logits to the next token: penalties, truncation, and one uniform number per row and token.

Shapes: B batch rows, V vocabulary, K candidates (the most likely tokens, in falling order).
"""

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from tickwise.core.errors import NumericsError
from tickwise.engine.settings import GenerationSettings

# Sorting a large vocabulary costs more than a small model's whole tick; the nucleus seldom needs more.
_NUCLEUS_CANDIDATES = 256
# Keeps u * total strictly below total in float32, so that the inverse of the distribution stays in range.
_BELOW_ONE = 1.0 - 2.0**-22


def row_generators(seed: int, n: int) -> list[numpy.random.Generator]:
    """One generator per sample; the i-th depends on ``seed`` and i only."""
    return [numpy.random.default_rng(numpy.random.SeedSequence([seed, index])) for index in range(n)]


def fresh_seed() -> int:
    """A seed from the operating system's randomness, short enough to type again."""
    return int(numpy.random.SeedSequence().generate_state(1)[0])


def greedy(logits_BV: Tensor) -> Tensor:
    """The most likely token of each row, ids_B; ``NumericsError`` when a row has no largest logit."""
    top_B, ids_B = logits_BV.max(dim=-1)
    if not all(value == value and value != float("inf") for value in top_B.tolist()):
        raise _not_finite()
    return ids_B


def penalise_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Make tokens that occurred before (``seen_BV`` is true) less likely (Keskar et al. 2019, section 4.1).

    Positive logits are divided by ``penalty``, negative ones multiplied, so that both move down.
    """
    penalised_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def candidates(logits_BV: Tensor, settings: GenerationSettings) -> tuple[Tensor, Tensor | None]:
    """Weights of the tokens that may follow, and their ids.

    Returns ``weights_BK, ids_BK``: probabilities up to a common factor per row, 0 for tokens that were
    ruled out. ``ids_BK`` is ``None`` when the candidates are the whole vocabulary in its own order.
    """
    # Shifting by the maximum first keeps a temperature near 0 from overflowing.
    logits_BV = logits_BV.float()
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / settings.temperature
    n_vocab = scaled_BV.shape[-1]
    ids_BK: Tensor | None = None
    if 0 < settings.top_k < n_vocab:
        scaled_BK, ids_BK = scaled_BV.topk(settings.top_k, dim=-1)
        weights_BK = scaled_BK.softmax(dim=-1)
    else:
        weights_BK = scaled_BV.softmax(dim=-1)
        if settings.top_p < 1:
            weights_BK, ids_BK = _most_likely(weights_BK, settings.top_p)
    if settings.top_p < 1:
        before_BK = weights_BK.cumsum(dim=-1) - weights_BK
        weights_BK = weights_BK.masked_fill(before_BK >= settings.top_p, 0.0)
    if settings.min_p > 0:
        floor_B1 = settings.min_p * weights_BK.amax(dim=-1, keepdim=True)
        weights_BK = weights_BK.masked_fill(weights_BK < floor_B1, 0.0)
    return weights_BK, ids_BK


def _most_likely(probabilities_BV: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Enough tokens, most likely first, to hold ``top_p`` of the probability in every row."""
    n_vocab = probabilities_BV.shape[-1]
    if n_vocab > 4 * _NUCLEUS_CANDIDATES:
        top_BK, ids_BK = probabilities_BV.topk(_NUCLEUS_CANDIDATES, dim=-1)
        if bool((top_BK.sum(dim=-1) >= top_p).all()):
            return top_BK, ids_BK
    top_BK, ids_BK = probabilities_BV.sort(dim=-1, descending=True)
    return top_BK, ids_BK


def sample(
    logits_BV: Tensor, settings: GenerationSettings, generators: Sequence[numpy.random.Generator]
) -> Tensor:
    """Draw ids_B, row b with one uniform number from ``generators[b]`` through the inverse distribution.

    Raises ``NumericsError`` when the logits hold NaN or +inf.
    """
    if settings.temperature == 0:
        return greedy(logits_BV)
    weights_BK, ids_BK = candidates(logits_BV, settings)
    cumulative_BK = weights_BK.cumsum(dim=-1)
    total_B1 = cumulative_BK[:, -1:]
    uniform = [[generator.random() * _BELOW_ONE] for generator in generators]
    uniform_B1 = torch.tensor(uniform, dtype=torch.float32, device=logits_BV.device)
    # right=True skips tokens of weight 0: their cumulative weight equals that of the token before.
    index_B1 = torch.searchsorted(cumulative_BK, uniform_B1 * total_B1, right=True)
    if not all(value > 0 for value in total_B1.squeeze(-1).tolist()):
        raise _not_finite()
    return (index_B1 if ids_BK is None else ids_BK.gather(-1, index_B1)).squeeze(-1)


def _not_finite() -> NumericsError:
    return NumericsError(
        "the model's logits are not finite numbers; its weights may be damaged, or try --dtype fp32"
    )
