"""Writing many sequences at once with a model that reads with a state: one token each per step, states in lockstep.

Shape legend: B sequences, T tokens, R rollouts, C hidden width, V vocabulary.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.core.stages import Stage, mark

State = tuple[Tensor, ...]
"""Every part has a row for each sequence."""

_ROWS_AT_ONCE = 128  # their logits stay in the cache
_BLOCK = 64


class Writer(Protocol):
    """Reads tokens, with a state, and says what could come next."""

    def read(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T, C) for ``logits``, and the state after the last token; without a state the sequences begin here."""

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """(B, T, V) of the next token."""


def shifted(ids_BT: Tensor, first_id: int) -> Tensor:
    """What is read to write ``ids_BT``: the same moved on by one, behind ``first_id``."""
    return F.pad(ids_BT[:, :-1], (1, 0), value=first_id)


def draw(logits_BV: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """A token for each row (B,), from the softmax of ``logits / temperature``; the likeliest at temperature 0.

    By the inverse of the cumulative distribution, one random number for a row: first among blocks of tokens, then
    inside one, because running sums over a whole vocabulary are slow.
    """
    mark(Stage.SAMPLE)
    if temperature == 0.0:
        return logits_BV.argmax(-1)
    n_words = logits_BV.shape[1]
    logits_BV = logits_BV.float()
    weights_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)).div_(temperature).exp_()
    weights_BKN = F.pad(weights_BV, (0, -n_words % _BLOCK)).unflatten(1, (-1, _BLOCK))
    blocks_BK = weights_BKN.sum(-1).cumsum(-1)
    place_B1 = torch.rand(len(logits_BV), 1, generator=generator, device=logits_BV.device) * blocks_BK[:, -1:]
    block_B1 = torch.searchsorted(blocks_BK, place_B1, right=True).clamp_(max=blocks_BK.shape[1] - 1)
    inside_BN = weights_BKN.gather(1, block_B1.unsqueeze(2).expand(-1, 1, _BLOCK)).squeeze(1).cumsum(-1)
    before_B1 = F.pad(blocks_BK, (1, 0)).gather(1, block_B1)
    # Rounding may leave the place behind the block's last weight: then it is the last token that has one.
    place_B1 = torch.minimum(place_B1 - before_B1, inside_BN[:, -1:] * (1 - 1e-6))
    within_B1 = torch.searchsorted(inside_BN, place_B1, right=True).clamp_(max=_BLOCK - 1)
    return (block_B1 * _BLOCK + within_B1).squeeze(1).clamp_(max=n_words - 1)


def _draw_next(writer: Writer, hidden_BC: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """As ``draw``, some rows at a time, so that the logits of all never exist."""
    parts = [draw(writer.logits(hidden.unsqueeze(1))[:, 0], temperature, generator)
             for hidden in hidden_BC.split(_ROWS_AT_ONCE)]
    return torch.cat(parts)


@torch.no_grad()
def write(writer: Writer, first_B: Tensor, n_tokens: int, *, state: State | None = None, eos_id: int | None = None,
          temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """(B, T ≤ ``n_tokens``): what comes after ``first_B``. Behind an ``eos_id`` there is only ``eos_id``; it ends when
    every sequence has one."""
    tokens_B, written = first_B, []
    ended_B = torch.zeros_like(first_B, dtype=torch.bool)
    for _ in range(n_tokens):
        hidden_B1C, state = writer.read(tokens_B.unsqueeze(1), state)
        tokens_B = _draw_next(writer, hidden_B1C[:, 0], temperature, generator)
        if eos_id is not None:
            tokens_B = tokens_B.masked_fill(ended_B, eos_id)
            ended_B |= tokens_B == eos_id
        written.append(tokens_B)
        if eos_id is not None and bool(ended_B.all()):
            break
    return torch.stack(written, 1)


@torch.no_grad()
def roll_out(writer: Writer, first_B: Tensor, ids_BT: Tensor, n: int, *, eos_id: int | None = None,
             generator: torch.Generator | None = None) -> Tensor:
    """(T − 1, R, B, T): for every prefix of ``ids_BT`` (1 to T − 1 tokens), ``n`` ways in which the model ends it.

    All prefixes go on side by side: the step for position t has the rows of all shorter prefixes.
    """
    batch, length = ids_BT.shape
    ends = ids_BT.expand(length - 1, n, batch, length).clone()
    hidden_B1C, main = writer.read(first_B.unsqueeze(1))
    state: State = ()
    tokens = ids_BT.new_empty(0)
    for t in range(1, length):
        hidden_B1C, main = writer.read(ids_BT[:, t - 1 : t], main)
        joining, hidden = tuple(part.repeat(n, 1) for part in main), hidden_B1C[:, 0].repeat(n, 1)
        if t > 1:
            going_on, state = writer.read(tokens.unsqueeze(1), state)
            hidden = torch.cat((going_on[:, 0], hidden))
            state = tuple(torch.cat(parts) for parts in zip(state, joining, strict=True))
        else:
            state = joining
        tokens = _draw_next(writer, hidden, 1.0, generator)
        if eos_id is not None:
            before = ends[:t, :, :, t - 1].flatten()
            tokens = tokens.masked_fill(before == eos_id, eos_id)
        ends[:t, :, :, t] = tokens.view(t, n, batch)
    return ends


def ended_lengths(ids_BT: Tensor, eos_id: int) -> Tensor:
    """(B,): tokens up to the first ``eos_id`` and with it, or all T."""
    is_end = ids_BT == eos_id
    first = is_end.int().argmax(1)
    return torch.where(is_end.any(1), first + 1, ids_BT.shape[1])
