"""An output head in clusters of words by frequency: most positions meet only the frequent words' rows.

Shape legend: N positions, C model width, V vocabulary, K clusters of rare words.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.layers.loss import head_and_loss


def check_cutoffs(cutoffs: tuple[int, ...], vocab_size: int) -> None:
    """``ConfigError`` for clusters that do not begin one behind the other inside the vocabulary."""
    if any(a >= b for a, b in pairwise((0, *cutoffs, vocab_size))):
        raise ConfigError(f"model.cutoffs: {list(cutoffs)} must rise, between 0 and the vocabulary's {vocab_size}")


class ClusteredHead(nn.Module):
    """``p(word) = p(word)`` for the frequent ones, ``p(cluster) · p(word | cluster)`` for the others.

    The adaptive softmax of Grave et al. 2017 with full-width clusters, so that the head's matrix can be the embedding.
    Ids are sorted by frequency, as word tokenizers have them: ``cutoffs`` (1000, 4000) makes 1000 frequent words, a
    cluster of the next 3000 and one of the rest. An exact distribution, in training as in use.
    """

    def __init__(self, width: int, vocab_size: int, cutoffs: tuple[int, ...]) -> None:
        super().__init__()
        bounds = (0, *cutoffs, vocab_size)
        self.sizes = tuple(b - a for a, b in pairwise(bounds))
        self.cutoffs = cutoffs
        self.clusters = nn.Parameter(torch.zeros(len(cutoffs), width))

    def nats(self, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        """−log p (N,) of each target, float32; rare words' clusters are visited for their own words only."""
        frequent, *rare = weight_VC.split(self.sizes)
        cluster_N, first_targets = self._first_targets(targets_N)
        logits_NV = hidden_NC @ torch.cat((frequent, self.clusters)).t()
        nats_N = F.cross_entropy(logits_NV.float(), first_targets, reduction="none")
        for index, (rows, lowest) in enumerate(zip(rare, self.cutoffs, strict=True), 1):
            places = (cluster_N == index).nonzero().squeeze(1)
            inside = F.cross_entropy((hidden_NC[places] @ rows.t()).float(), targets_N[places] - lowest,
                                     reduction="none")
            nats_N = nats_N.index_add(0, places, inside)
        return nats_N

    def _first_targets(self, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        """The cluster of each target, and what the first softmax has to say: a frequent word, or a cluster."""
        cluster_N = torch.bucketize(targets_N, torch.tensor(self.cutoffs, device=targets_N.device), right=True)
        return cluster_N, torch.where(cluster_N == 0, targets_N, self.cutoffs[0] - 1 + cluster_N)

    def loss(self, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        """Mean cross-entropy (nats, float32); ``weight_VC`` has a row for every word."""
        frequent, *rare = weight_VC.split(self.sizes)
        cluster_N, first_targets = self._first_targets(targets_N)
        total = head_and_loss(hidden_NC, torch.cat((frequent, self.clusters)), first_targets)
        for index, (rows, lowest) in enumerate(zip(rare, self.cutoffs, strict=True), 1):
            inside = (cluster_N == index).nonzero().squeeze(1)
            if len(inside):
                loss = head_and_loss(hidden_NC.index_select(0, inside), rows, targets_N[inside] - lowest)
                total = total + loss * (len(inside) / len(targets_N))
        return total

    def logits(self, hidden_NC: Tensor, weight_VC: Tensor) -> Tensor:
        """Natural log-probabilities (…, V), which are logits of the same distribution."""
        frequent, *rare = weight_VC.split(self.sizes)
        first = torch.log_softmax(hidden_NC @ torch.cat((frequent, self.clusters)).t(), -1, dtype=torch.float32)
        parts = [first[..., : self.cutoffs[0]]]
        for index, rows in enumerate(rare, self.cutoffs[0]):
            inside = torch.log_softmax(hidden_NC @ rows.t(), -1, dtype=torch.float32)
            parts.append(inside + first[..., index : index + 1])
        return torch.cat(parts, -1)
