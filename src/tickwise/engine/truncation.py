"""Which tokens may follow, and with what weight: temperature, top-k, top-p, min-p and typical sampling.

Shapes: B batch rows, V vocabulary, K candidates.
"""

import numpy
import torch
from torch import Tensor

from tickwise.engine.settings import GenerationSettings

# Sorting a large vocabulary costs more than a small model's whole tick; the nucleus seldom needs more.
_NUCLEUS_CANDIDATES = 256
_SMALLEST_TEMPERATURE, _LARGEST_TEMPERATURE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
_SMALLEST_MASS = torch.finfo(torch.float32).tiny


def candidates(logits_BV: Tensor, settings: GenerationSettings) -> tuple[Tensor, Tensor | None]:
    """Weights of the tokens that may follow, and their ids.

    Returns ``weights_BK, ids_BK``: probabilities up to a common factor per row, 0 for tokens that were
    ruled out. ``ids_BK`` is ``None`` when the candidates are the whole vocabulary in its own order.
    """
    # Shifting by the maximum first keeps a temperature near 0 from overflowing.
    logits_BV = logits_BV.float()
    temperature = min(max(settings.temperature, _SMALLEST_TEMPERATURE), _LARGEST_TEMPERATURE)
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature
    n_vocab = scaled_BV.shape[-1]
    ids_BK: Tensor | None = None
    if 0 < settings.top_k < n_vocab:
        scaled_BK, ids_BK = scaled_BV.topk(settings.top_k, dim=-1)
        weights_BK = scaled_BK.softmax(dim=-1)
        if settings.top_p < 1:
            weights_BK = _up_to(weights_BK, settings.top_p)
    else:
        weights_BK = scaled_BV.softmax(dim=-1)
        if settings.top_p < 1:
            weights_BK, ids_BK = _smallest_set(weights_BK, weights_BK, settings.top_p)
    if settings.min_p > 0:
        floor_B1 = settings.min_p * weights_BK.amax(dim=-1, keepdim=True)
        weights_BK = weights_BK.masked_fill(weights_BK < floor_B1, 0.0)
    if settings.typical_p < 1:
        weights_BK = weights_BK / weights_BK.sum(dim=-1, keepdim=True)
        entropy_B1 = torch.special.entr(weights_BK).sum(dim=-1, keepdim=True)
        typicality_BK = -(weights_BK.log() + entropy_B1).abs()
        weights_BK, order_BK = _smallest_set(weights_BK, typicality_BK, settings.typical_p)
        ids_BK = order_BK if ids_BK is None else ids_BK.gather(-1, order_BK)
    return weights_BK, ids_BK


def _smallest_set(probabilities_BK: Tensor, priority_BK: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The tokens of highest priority that together hold ``mass``: their weights (the others' are 0) and places.

    A row whose first tokens hold enough takes those; another one needs them all. Which of the two does not depend
    on the rows beside it.
    """
    first_BK = priority_BK.topk(min(_NUCLEUS_CANDIDATES, priority_BK.shape[-1]), dim=-1).indices
    held_BK = probabilities_BK.gather(-1, first_BK)
    few_B = held_BK.sum(dim=-1) >= mass
    held_BK = _up_to(held_BK, mass)
    if bool(few_B.all()):
        return held_BK, first_BK
    if priority_BK is probabilities_BK:
        weights_BK = _above_threshold(probabilities_BK, mass)
        places_BK = torch.arange(weights_BK.shape[-1], device=first_BK.device).repeat(len(weights_BK), 1)
    else:
        places_BK = priority_BK.argsort(dim=-1, descending=True)
        weights_BK = _up_to(probabilities_BK.gather(-1, places_BK), mass)
    weights_BK[few_B] = 0.0
    weights_BK[few_B, : held_BK.shape[-1]], places_BK[few_B, : first_BK.shape[-1]] = held_BK[few_B], first_BK[few_B]
    return weights_BK, places_BK


def _above_threshold(probabilities_BV: Tensor, mass: float) -> Tensor:
    """Weights (B, V) of the most likely tokens that together hold ``mass``, 0 for the others; of equally likely ones
    at the edge, those with the smallest ids. Sorts values alone, which is far cheaper than sorting ids by them."""
    if probabilities_BV.device.type == "cpu":
        falling_BV = torch.from_numpy(numpy.sort(probabilities_BV.numpy(), axis=-1)).flip(-1)
    else:
        falling_BV = probabilities_BV.sort(dim=-1, descending=True).values
    n_kept_B1 = (_up_to(falling_BV, mass) > 0).sum(dim=-1, keepdim=True).clamp(min=1)
    edge_B1 = falling_BV.gather(-1, n_kept_B1 - 1)
    above_BV, equal_BV = probabilities_BV > edge_B1, probabilities_BV == edge_B1
    n_equal_B1 = n_kept_B1 - above_BV.sum(dim=-1, keepdim=True)
    kept_BV = above_BV | (equal_BV & (equal_BV.cumsum(dim=-1) <= n_equal_B1))
    return torch.where(kept_BV, probabilities_BV, 0.0)


def _up_to(ordered_BK: Tensor, mass: float) -> Tensor:
    """Keep the first tokens of each row that together hold ``mass``; at least one."""
    before_BK = ordered_BK.cumsum(dim=-1) - ordered_BK
    return ordered_BK.masked_fill(before_BK >= max(mass, _SMALLEST_MASS), 0.0)
