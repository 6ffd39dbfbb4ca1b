"""A game whose judge is a language model of its own: cooperative training (Lu et al. 2019, "CoT").

The mediator learns real and written sequences alike, by maximum likelihood, half of each, so that it stands between
the two distributions; the generator is moved, in each place that it comes to, from what it expects there towards what
the mediator expects, which is known of every word of the vocabulary: there are no rollouts. What a choice does to the
places that come after it is left out, as in the paper's estimator: that makes it no unbiased gradient of the
Jensen-Shannon divergence, though both end where generator and real sequences are alike.
Shape legend: B sequences, T tokens, V vocabulary.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tickwise.core.stages import Stage, mark
from tickwise.models.lockstep import shifted
from tickwise.models.recurrent import Recurrent
from tickwise.training.adversarial import LONG_MEMORY, AdversarialOptions, SeqGan
from tickwise.training.sentence_likelihood import sentence_loss

_LOGITS_AT_ONCE = 1 << 24


def divergence(logits_NV: Tensor, mediator_NV: Tensor) -> Tensor:
    """Sum over places of how far (nats) what the first logits expect is from what the second ones do: KL(p ‖ m)."""
    log_p_NV, log_m_NV = (torch.log_softmax(logits.float(), -1) for logits in (logits_NV, mediator_NV))
    return (log_p_NV.exp() * (log_p_NV - log_m_NV)).sum()


class MediatedGame(SeqGan):
    """``SeqGan`` with a language model for a discriminator; it and the generator read the same tokens."""

    discriminator_memory = LONG_MEMORY

    def __init__(self, generator: Recurrent, mediator: Recurrent, real: Tensor, *, first_id: int, eos_id: int | None,
                 options: AdversarialOptions) -> None:
        super().__init__(generator, mediator, real, first_id=first_id, eos_id=eos_id, options=options)
        self.mediator = mediator

    def train_discriminator(self) -> dict[str, float]:
        """One update of the mediator, on as many real as written sequences."""
        n = self.options.batch_size
        ids_BT = torch.cat((self.some_real(n), self.written(n)))
        self.mediator.train()
        loss = sentence_loss(self.mediator, ids_BT, self._inside(ids_BT), self.first_id)
        self._discriminator.update(loss)
        return {"discriminator_loss": loss.item()}

    def train_generator(self) -> dict[str, float]:
        """One update towards the mediator, in the places of a batch that the generator writes."""
        options = self.options
        ids_BT = self.written(options.batch_size)
        inside_BT = self._inside(ids_BT)
        self.mediator.eval()
        with torch.no_grad():
            mediated_NC = self._read(self.mediator, ids_BT, inside_BT)
        self.generator.eval()  # the probabilities of the policy that wrote them
        hidden_NC = self._read(self.generator, ids_BT, inside_BT)
        mark(Stage.LOSS)
        distance = loss = self._distance(hidden_NC, mediated_NC)
        if options.likelihood:
            self.generator.train()
            loss = loss + options.likelihood * self.likelihood_loss(self.some_real(options.batch_size))
        self._generator.update(loss)
        self.step += 1
        return {"distance": distance.item(), "tokens": float(inside_BT.sum())}

    def _read(self, model: Recurrent, ids_BT: Tensor, inside_BT: Tensor) -> Tensor:
        """(N, C) what the head reads in each place inside."""
        hidden_BTC, _ = model.read(shifted(ids_BT, self.first_id))
        return hidden_BTC[inside_BT]

    def _distance(self, hidden_NC: Tensor, mediated_NC: Tensor) -> Tensor:
        """Mean divergence over the places; what it takes for a few of them at once is computed again for the
        gradients."""
        n_rows = max(1, _LOGITS_AT_ONCE // self.generator.config.vocab_size)

        def part(own: Tensor, other: Tensor) -> Tensor:
            return divergence(self.generator.logits(own), self.mediator.logits(other).detach())

        parts = [checkpoint(part, own, other, use_reentrant=False) if len(hidden_NC) > n_rows else part(own, other)
                 for own, other in zip(hidden_NC.split(n_rows), mediated_NC.split(n_rows), strict=True)]
        return torch.stack(parts).sum() / len(hidden_NC)
