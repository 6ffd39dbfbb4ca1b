"""A linear-chain conditional random field (Lafferty et al. 2001): scores whole tag sequences, not single tags.

Shape legend: B sentences, T tokens, K tags. The score of tags y for emissions e is
start[y₁] + Σ e[t, yₜ] + Σ transitions[yₜ, yₜ₊₁] + end[y_n]; what lies beyond a sentence's length counts for nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_FORBIDDEN = -1e4
"""Added to the score of what the tagging scheme excludes: e^-10000 is 0, and unlike -inf it has no NaN gradient."""


def token_mask(lengths_B: Tensor, n_tokens: int) -> Tensor:
    """(B, T): whether position t lies inside its sentence."""
    return torch.arange(n_tokens, device=lengths_B.device) < lengths_B[:, None]


class LinearChainCRF(nn.Module):
    """Transition, start and end scores; training loss, most likely tags, probabilities of tags and of spans.

    ``allowed`` has K + 1 rows of K + 1: row i, column j says whether tag j may follow tag i; the last row stands for
    the start of a sentence and the last column for its end. All is allowed when it is left out.
    """

    def __init__(self, n_tags: int, allowed: Sequence[Sequence[bool]] | None = None) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))
        self.start = nn.Parameter(torch.zeros(n_tags))
        self.end = nn.Parameter(torch.zeros(n_tags))
        # Plain numbers and no buffer: a checkpoint has none, and a module that is made without data keeps them.
        self.forbidden = [[0.0 if may else _FORBIDDEN for may in row]
                          for row in allowed or [[True] * (n_tags + 1)] * (n_tags + 1)]

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions (K, K), start (K) and end (K) with what the scheme forbids, in float32."""
        forbidden = torch.tensor(self.forbidden, device=self.transitions.device)
        return (self.transitions.float() + forbidden[:-1, :-1], self.start.float() + forbidden[-1, :-1],
                self.end.float() + forbidden[:-1, -1])

    def sequence_score(self, emissions_BTK: Tensor, tags_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """(B): the score of the given tags."""
        transitions_KK, start_K, end_K = self.scores()
        mask_BT = token_mask(lengths_B, tags_BT.shape[1])
        emitted_BT = emissions_BTK.float().gather(2, tags_BT[..., None]).squeeze(2) * mask_BT
        moved_BT = transitions_KK[tags_BT[:, :-1], tags_BT[:, 1:]] * mask_BT[:, 1:]
        last_B = tags_BT.gather(1, lengths_B[:, None] - 1).squeeze(1)
        return start_K[tags_BT[:, 0]] + emitted_BT.sum(1) + moved_BT.sum(1) + end_K[last_B]

    def log_partition(self, emissions_BTK: Tensor, lengths_B: Tensor) -> Tensor:
        """(B): the logarithm of the sum of e^score over all tag sequences (forward algorithm)."""
        transitions_KK, start_K, end_K = self.scores()
        steps = emissions_BTK.float().unbind(1)
        inside = token_mask(lengths_B, len(steps))[..., None].unbind(1)
        alpha_BK = start_K + steps[0]
        for t in range(1, len(steps)):
            reached_BK = torch.logsumexp(alpha_BK[:, :, None] + transitions_KK, 1) + steps[t]
            alpha_BK = torch.where(inside[t], reached_BK, alpha_BK)
        return torch.logsumexp(alpha_BK + end_K, 1)

    def loss(self, emissions_BTK: Tensor, tags_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """(B): nats, the negative log-probability of the given tags."""
        return self.log_partition(emissions_BTK, lengths_B) - self.sequence_score(emissions_BTK, tags_BT, lengths_B)

    @torch.no_grad()
    def decode(self, emissions_BTK: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, T): the most likely tags (Viterbi 1967); 0 beyond a sentence's length."""
        transitions_KK, start_K, end_K = self.scores()
        steps = emissions_BTK.float().unbind(1)
        mask_BT = token_mask(lengths_B, len(steps))
        inside = mask_BT[..., None].unbind(1)
        stay_K = torch.arange(transitions_KK.shape[0], device=emissions_BTK.device)
        best_BK = start_K + steps[0]
        came_from: list[Tensor] = []
        for t in range(1, len(steps)):
            reached_BK, previous_BK = (best_BK[:, :, None] + transitions_KK).max(1)
            best_BK = torch.where(inside[t], reached_BK + steps[t], best_BK)
            came_from.append(torch.where(inside[t], previous_BK, stay_K))
        tag_B1 = (best_BK + end_K).argmax(1, keepdim=True)
        backwards = [tag_B1]
        for previous_BK in reversed(came_from):
            tag_B1 = previous_BK.gather(1, tag_B1)
            backwards.append(tag_B1)
        return torch.cat(backwards[::-1], 1) * mask_BT

    def marginals(self, emissions_BTK: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, T, K): the probability of each tag at each token; zeros beyond a sentence's length.

        They are the gradient of the log-partition with respect to the emissions.
        """
        with torch.inference_mode(False), torch.enable_grad():
            emissions = emissions_BTK.detach().float().clone().requires_grad_()
            total = self.log_partition(emissions, lengths_B.clone()).sum()
            return torch.autograd.grad(total, emissions)[0]

    @torch.no_grad()
    def span_log_probability(self, emissions_TK: Tensor, tags_T: Tensor, spans_N2: Tensor) -> Tensor:
        """(N): for each (start, end) of one sentence, the log-probability that its tokens, the end left out, have just
        the given tags, summed over all tags of the others (Culotta & McCallum 2004, by forward and backward sums).

        In float64: over a long sentence the sums grow large and cancel.
        """
        transitions_KK, start_K, end_K = (x.double() for x in self.scores())
        emissions_TK = emissions_TK.double()
        steps = emissions_TK.unbind()
        forward, backward = [start_K + steps[0]], [end_K]
        for step in steps[1:]:
            forward.append(torch.logsumexp(forward[-1][:, None] + transitions_KK, 0) + step)
        for step in reversed(steps[1:]):
            backward.append(torch.logsumexp(transitions_KK + step + backward[-1], 1))
        forward_TK, backward_TK = torch.stack(forward), torch.stack(backward[::-1])
        along_T = emissions_TK.gather(1, tags_T[:, None]).squeeze(1)
        along_T[1:] += transitions_KK[tags_T[:-1], tags_T[1:]]
        along_T = along_T.cumsum(0)
        first_N, last_N = spans_N2[:, 0], spans_N2[:, 1] - 1
        score_N = (forward_TK[first_N, tags_T[first_N]] + along_T[last_N] - along_T[first_N]
                   + backward_TK[last_N, tags_T[last_N]])
        return score_N - torch.logsumexp(forward_TK[-1] + end_K, 0)
