"""A game whose judge is a language model of its own: cooperative training (Lu et al. 2019, "CoT").

The mediator learns real and written sequences alike, by maximum likelihood, half of each, so that it stands between
the two distributions; the generator is moved, in each place that it comes to, from what it expects there towards what
the mediator expects. At the optimum of both that lowers the Jensen-Shannon divergence from the real sequences, like
SeqGAN's game, but every word of the vocabulary is judged in every place: there are no rollouts, and of the policy
gradient's noise only that of the places is left.
Shape legend: B sequences, T tokens, V vocabulary.
"""

import torch
from torch import Tensor

from tickwise.core.stages import Stage, mark
from tickwise.models.lockstep import shifted
from tickwise.models.recurrent import Recurrent
from tickwise.training.adversarial import AdversarialOptions, SeqGan
from tickwise.training.sentence_likelihood import sentence_loss


def mediated_loss(log_p_BTV: Tensor, log_m_BTV: Tensor, inside_BT: Tensor) -> Tensor:
    """Mean nats over the places inside of how far the expectation ``log_p_BTV`` is from ``log_m_BTV``: KL(p ‖ m)."""
    each_BT = (log_p_BTV.exp() * (log_p_BTV - log_m_BTV)).sum(-1)
    return (each_BT * inside_BT).sum() / inside_BT.sum()


class MediatedGame(SeqGan):
    """``SeqGan`` with a language model for a discriminator; it and the generator read the same tokens."""

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
            log_m_BTV = self._expected(self.mediator, ids_BT)
        self.generator.eval()  # the probabilities of the policy that wrote them
        log_p_BTV = self._expected(self.generator, ids_BT)
        mark(Stage.LOSS)
        distance = loss = mediated_loss(log_p_BTV, log_m_BTV, inside_BT)
        if options.likelihood:
            self.generator.train()
            loss = loss + options.likelihood * self.likelihood_loss(self.some_real(options.batch_size))
        self._generator.update(loss)
        self.step += 1
        return {"distance": distance.item(), "tokens": float(inside_BT.sum())}

    def _expected(self, model: Recurrent, ids_BT: Tensor) -> Tensor:
        """(B, T, V) log-probabilities of every word in each place."""
        hidden_BTC, _ = model.read(shifted(ids_BT, self.first_id))
        return torch.log_softmax(model.logits(hidden_BTC).float(), -1)
