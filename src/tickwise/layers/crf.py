"""A linear-chain conditional random field (Lafferty et al. 2001): scores whole tag sequences, not single tags.

Shape legend: B sentences, T tokens, K tags. The score of tags y for emissions e is
start[y₁] + Σ e[t, yₜ] + Σ transitions[yₜ, yₜ₊₁] + end[y_n]; what lies beyond a sentence's length counts for nothing.
"""

import torch
from torch import Tensor, nn

_FORBIDDEN = -1e4
"""Added to the score of what the tagging scheme excludes: e^-10000 is 0, and unlike -inf it has no NaN gradient."""


def token_mask(lengths_B: Tensor, n_tokens: int) -> Tensor:
    """(B, T): whether position t lies inside its sentence."""
    return torch.arange(n_tokens, device=lengths_B.device) < lengths_B[:, None]


class LinearChainCRF(nn.Module):
    """Transition, start and end scores; training loss, most likely tags, probabilities of tags and of spans.

    ``allowed`` is (K + 1, K + 1) of bool: row i, column j says whether tag j may follow tag i; the last row stands
    for the start of a sentence and the last column for its end. All is allowed when it is left out.
    """

    forbidden: Tensor

    def __init__(self, n_tags: int, allowed: Tensor | None = None) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))
        self.start = nn.Parameter(torch.zeros(n_tags))
        self.end = nn.Parameter(torch.zeros(n_tags))
        forbidden = torch.zeros(n_tags + 1, n_tags + 1)
        if allowed is not None:
            forbidden = torch.where(allowed, 0.0, _FORBIDDEN)
        self.register_buffer("forbidden", forbidden, persistent=False)

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions (K, K), start (K) and end (K) with what the scheme forbids, in float32."""
        forbidden = self.forbidden
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
    def span_log_probability(self, emissions_BTK: Tensor, tags_BT: Tensor, starts_B: Tensor, ends_B: Tensor,
                             lengths_B: Tensor) -> Tensor:
        """(B): the log-probability that tokens ``starts_B`` up to (not including) ``ends_B`` have just these tags,
        summed over all tags of the others. Exact: the log-partition with the span held fast, minus the free one."""
        positions_T = torch.arange(emissions_BTK.shape[1], device=emissions_BTK.device)
        fixed_BT = (positions_T >= starts_B[:, None]) & (positions_T < ends_B[:, None])
        tags_K = torch.arange(emissions_BTK.shape[2], device=emissions_BTK.device)
        excluded_BTK = fixed_BT[..., None] & (tags_BT[..., None] != tags_K)
        held = emissions_BTK.float().masked_fill(excluded_BTK, _FORBIDDEN)
        return self.log_partition(held, lengths_B) - self.log_partition(emissions_BTK, lengths_B)
