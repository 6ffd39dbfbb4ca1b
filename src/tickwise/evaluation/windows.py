"""The loss of every token of a long text, read in windows of the model's context.

Shapes: B windows, T tokens of a window, N scored tokens, C model width, V vocabulary.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import ConfigError, NumericsError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.work import RowWork, TickListener, TickWork
from tickwise.models.decoder import Decoder

# Logits computed at once: 16 MB in float32, which keeps a chunk of a 50,000-word vocabulary near the cache.
_LOGITS_AT_ONCE = 4_000_000
# Tokens per forward pass: more do not make a matrix product faster on a CPU, and cost memory.
_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class Window:
    """Inputs ``tokens[start:stop]``; the targets ``tokens[first_target:stop + 1]`` are scored."""

    start: int
    stop: int
    first_target: int

    @property
    def shape(self) -> tuple[int, int]:
        """Windows of equal shape can share a batch."""
        return self.stop - self.start, self.first_target - self.start


def windows(n_tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Cover the targets ``tokens[1:]``, each exactly once.

    With ``stride == context`` the windows do not overlap. With a smaller stride, each window after the
    first starts ``stride`` tokens later and scores only its new targets, so that these see at least
    ``context - stride`` tokens before them.
    """
    start, first_target = 0, 1
    while first_target < n_tokens:
        stop = min(n_tokens - 1, start + context)
        yield Window(start, stop, first_target)
        start, first_target = start + stride, stop + 1


def default_batch_size(context: int) -> int:
    """Windows per forward pass."""
    return max(1, _TOKENS_AT_ONCE // max(1, context))


@torch.inference_mode()
def token_losses(
    module: Decoder,
    tokens: NDArray[numpy.integer],
    *,
    context: int,
    stride: int,
    batch_size: int,
    on_scored: Callable[[int], None] = lambda n: None,
    ledger: TickListener | None = None,
) -> NDArray[numpy.float32]:
    """Negative log-likelihood in nats of ``tokens[1:]``, one value per target, in order.

    Logits become float32 before the softmax, whatever the model's number format. ``on_scored`` is told the
    number of new losses after every batch, ``ledger`` of every batch as a tick. Raises ``NumericsError`` when a loss
    is not finite.
    """
    assert 1 <= stride <= context
    losses = numpy.empty(max(0, len(tokens) - 1), dtype=numpy.float32)
    for _, same_shape in itertools.groupby(windows(len(tokens), context, stride), lambda w: w.shape):
        for batch in _batched(same_shape, batch_size):
            if ledger is not None:
                ledger.begin_tick()
                ledger.tick_work(_work(batch))
            with marking(ledger):
                scored = _window_losses(module, tokens, batch)
                mark(Stage.HOST)
            for window, values in zip(batch, scored, strict=True):
                losses[window.first_target - 1 : window.stop] = values
            on_scored(scored.size)
            if ledger is not None:
                ledger.end_tick(())
    if not numpy.isfinite(losses).all():
        where = int(numpy.flatnonzero(~numpy.isfinite(losses))[0]) + 1
        raise NumericsError(f"the loss of token {where} is not finite; try --dtype fp32")
    return losses


def _batched(items: Iterator[Window], size: int) -> Iterator[list[Window]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _window_losses(
    module: Decoder, tokens: NDArray[numpy.integer], batch: Sequence[Window]
) -> NDArray[numpy.float32]:
    """Losses (B, scored targets) of windows of one shape."""
    mark(Stage.DATA)
    rows = [numpy.asarray(tokens[w.start : w.stop + 1], dtype=numpy.int64) for w in batch]
    device = next(module.parameters()).device
    ids_BT = torch.from_numpy(numpy.stack(rows)).to(device)
    n_vocab = module.config.vocab_size
    if int(ids_BT.max()) >= n_vocab:
        raise ConfigError(f"token {int(ids_BT.max())} is outside the model's vocabulary of {n_vocab}")
    return losses_of(module, ids_BT, batch[0].first_target - batch[0].start - 1).cpu().numpy()


@runtime_checkable
class KnowsTargets(Protocol):
    """A model that looks up what it gives to the tokens of a text, without a distribution over the vocabulary."""

    def target_log_probabilities(self, ids_T: Tensor) -> Tensor:
        """Natural log-probabilities (T - 1,) of ``ids_T[1:]``, each given all tokens before it in ``ids_T``."""


def losses_of(module: Decoder, ids_BT: Tensor, skip: int) -> Tensor:
    """Losses (B, T - 1 - skip) of ``ids_BT[:, 1 + skip:]``, each given all tokens before it in its row."""
    if isinstance(module, KnowsTargets):
        return torch.stack([-module.target_log_probabilities(ids_T)[skip:] for ids_T in ids_BT])
    hidden_BTC = module.hidden_states(ids_BT[:, :-1])[:, skip:]
    targets_N = ids_BT[:, 1 + skip :].flatten()
    hidden_NC = hidden_BTC.flatten(0, 1)
    at_once = max(1, _LOGITS_AT_ONCE // module.config.vocab_size)
    losses = []
    for hidden, targets in zip(torch.split(hidden_NC, at_once), torch.split(targets_N, at_once), strict=True):
        logits = module.logits(hidden)
        mark(Stage.LOSS)
        losses.append(F.cross_entropy(logits.float(), targets, reduction="none"))
    return torch.cat(losses).view(len(ids_BT), -1)


def _work(batch: Sequence[Window]) -> TickWork:
    """Windows are read like prompts, and asked for the token after each scored position."""
    return TickWork(tuple(
        RowWork(f"window-{w.start}", w.stop - w.start, 0, "prefill", w.stop + 1 - w.first_target) for w in batch
    ))  # fmt: skip
