"""The n-gram family: interpolated, modified Kneser–Ney probabilities as sorted tables (Chen & Goodman 1998, section 3).

A context of k - 1 words is a row of order k's table. Its key is (row of its last k - 2 words) · V + its first word, so
that one walk from the newest word back finds the rows of all orders, and its n-grams have the keys (row) · V + word.
All look-ups are binary searches over whole batches; a distribution is, order by order,
``p_k = probabilities[row] + backoff[row] · p_(k-1)``.

Shape legend: B batch, T tokens, H words of history, N positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """Shape of the tables. ``training/ngram.py`` counts them."""

    vocab_size: int
    order: int
    """Words of an n-gram; the model sees ``order`` - 1 words back."""
    boundary: int | None
    """A token before which nothing is looked at: the end of a text or of a line."""
    n_contexts: tuple[int, ...]
    """Contexts of orders 2, 3 … ``order``."""
    n_ngrams: tuple[int, ...]
    """N-grams of orders 2, 3 … ``order``."""
    context_length: int = 4096
    """Tokens that are read at once."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "order", "context_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("n_contexts", "n_ngrams"):
            if len(getattr(self, name)) != self.order - 1:
                raise ConfigError(f"model.{name}: one number for each of the orders 2 to {self.order} is needed")

    @property
    def n_history(self) -> int:
        """Words before the next one that it may depend on."""
        return max(1, self.order - 1)


class OrderTable(nn.Module):
    """The n-grams of one order."""

    context_keys: Tensor
    keys: Tensor

    def __init__(self, n_contexts: int, n_ngrams: int) -> None:
        super().__init__()
        self.register_buffer("context_keys", torch.zeros(n_contexts, dtype=torch.long))
        self.register_buffer("keys", torch.zeros(n_ngrams, dtype=torch.long))
        self.probabilities = nn.Parameter(torch.zeros(n_ngrams), requires_grad=False)
        """Discounted relative frequency of each n-gram."""
        self.backoff = nn.Parameter(torch.zeros(n_contexts), requires_grad=False)
        """The discounts of each context: what the next lower order shares out."""


class Ngram(nn.Module):
    """Token ids (B, T) → log-probabilities (B, T, V) of the next token at each position."""

    def __init__(self, config: NgramConfig) -> None:
        super().__init__()
        self.config = config
        self.unigram = nn.Parameter(torch.zeros(config.vocab_size), requires_grad=False)
        self.orders = nn.ModuleList(
            OrderTable(contexts, ngrams) for contexts, ngrams in zip(config.n_contexts, config.n_ngrams, strict=True)
        )

    @property
    def tables(self) -> list[OrderTable]:
        """Of orders 2, 3 …"""
        return cast(list[OrderTable], list(self.orders))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.logits(self.hidden_states(ids_BT))

    def hidden_states(self, ids_BT: Tensor) -> Tensor:
        """(B, T, H): at each position the last ``n_history`` tokens, the newest last, -1 before the first."""
        return recent_tokens(ids_BT, self.config.n_history)

    def logits(self, recent_H: Tensor) -> Tensor:
        """Log-probabilities (…, V) of the token after (…, H) recent ones."""
        recent_NH = recent_H.reshape(-1, recent_H.shape[-1])
        probabilities_NV = self.distribution(self.contexts(recent_NH), len(recent_NH))
        return probabilities_NV.log().view(*recent_H.shape[:-1], -1)

    def contexts(self, recent_NH: Tensor) -> list[Tensor]:
        """For orders 2, 3 … the row of the context in the order's table, (N,), -1 where it was never seen."""
        n_vocab, boundary = self.config.vocab_size, self.config.boundary
        row_N = torch.zeros_like(recent_NH[:, -1])
        is_open_N = torch.ones_like(row_N, dtype=torch.bool)
        rows = []
        for order, table in enumerate(self.tables, start=2):
            mark(Stage.EMBED, order)
            word_N = recent_NH[:, 1 - order]
            found_N, index_N = _find(table.context_keys, row_N * n_vocab + word_N.clamp(min=0))
            is_open_N = is_open_N & (word_N >= 0) & found_N
            row_N = torch.where(is_open_N, index_N, 0)
            rows.append(torch.where(is_open_N, index_N, -1))
            if boundary is not None:
                is_open_N = is_open_N & (word_N != boundary)
        return rows

    def distribution(self, rows: Sequence[Tensor], n: int) -> Tensor:
        """Probabilities (N, V) of all words, given what ``contexts`` found for ``n`` positions."""
        mark(Stage.HEAD, 1)
        n_vocab = self.config.vocab_size
        p_NV = self.unigram.expand(n, n_vocab).clone()
        for order, (table, row_N) in enumerate(zip(self.tables, rows, strict=True), start=2):
            if not len(table.keys):
                continue
            mark(Stage.HEAD, order)
            is_known_N, safe_N = row_N >= 0, row_N.clamp(min=0)
            p_NV *= torch.where(is_known_N, table.backoff[safe_N], 1.0).unsqueeze(1)
            start_N = torch.searchsorted(table.keys, safe_N * n_vocab)
            stop_N = torch.searchsorted(table.keys, (safe_N + 1) * n_vocab)
            length_N = torch.where(is_known_N, stop_N - start_N, 0)
            n_entries = self._n_entries(length_N, table)
            number = torch.arange(n_entries, device=row_N.device)
            until_N = length_N.cumsum(0)
            position = torch.searchsorted(until_N, number, right=True)
            entry = number + (start_N - until_N + length_N)[position]
            flat = position * n_vocab + table.keys[entry] % n_vocab
            p_NV.view(-1).index_add_(0, flat, table.probabilities[entry])
        return p_NV

    def probability_of(self, rows: Sequence[Tensor], targets_N: Tensor) -> Tensor:
        """Probabilities (N,) of one word each: two look-ups per order instead of a distribution."""
        p_N = self.unigram[targets_N]
        for table, row_N in zip(self.tables, rows, strict=True):
            if not len(table.keys):
                continue
            safe_N = row_N.clamp(min=0)
            found_N, index_N = _find(table.keys, safe_N * self.config.vocab_size + targets_N)
            own_N = torch.where(found_N, table.probabilities[index_N], 0.0)
            p_N = torch.where(row_N >= 0, own_N + table.backoff[safe_N] * p_N, p_N)
        return p_N

    def target_log_probabilities(self, ids_T: Tensor) -> Tensor:
        """Natural log-probabilities (T - 1,) of ``ids_T[1:]``, each given all tokens before it."""
        recent_NH = self.hidden_states(ids_T[None, :-1])[0]
        return self.probability_of(self.contexts(recent_NH), ids_T[1:]).log()

    @staticmethod
    def _n_entries(length_N: Tensor, table: OrderTable) -> int:
        """N-grams that the rows have together. A tool that runs the model on tensors without data gets the mean."""
        if length_N.is_meta or type(length_N) is not Tensor:
            return len(length_N) * -(-len(table.keys) // max(1, len(table.backoff)))
        return int(length_N.sum())

    def n_parameters(self) -> int:
        """Stored probabilities and back-off weights."""
        return sum(p.numel() for p in self.parameters())


def recent_tokens(ids_BT: Tensor, n_history: int) -> Tensor:
    """(B, T, ``n_history``): the tokens up to each position, the newest last, -1 before the first."""
    mark(Stage.EMBED)
    return F.pad(ids_BT, (n_history - 1, 0), value=-1).unfold(1, n_history, 1)


def _find(keys: Tensor, wanted_N: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each wanted key is among the sorted ``keys``, and where (some index where it is not)."""
    if not len(keys):
        return torch.zeros_like(wanted_N, dtype=torch.bool), torch.zeros_like(wanted_N)
    index_N = torch.searchsorted(keys, wanted_N).clamp(max=len(keys) - 1)
    return keys[index_N] == wanted_N, index_N
