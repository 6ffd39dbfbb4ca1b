"""An output head in clusters of words by frequency: most positions meet only the frequent words' rows.

Shape legend: N positions, C model width, V vocabulary, K clusters of rare words.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from tickwise.layers.loss import head_and_loss


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

    def loss(self, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        """Mean cross-entropy (nats, float32); ``weight_VC`` has a row for every word."""
        frequent, *rare = weight_VC.split(self.sizes)
        cluster_N = torch.bucketize(targets_N, torch.tensor(self.cutoffs, device=targets_N.device), right=True)
        n_frequent = self.cutoffs[0]
        first_targets = torch.where(cluster_N == 0, targets_N, n_frequent - 1 + cluster_N)
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
