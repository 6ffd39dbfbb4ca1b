"""Log-probabilities of short texts, many at a time.

Shapes: B texts of a batch, T tokens of the longest one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from tickwise.core.errors import DataError
from tickwise.engine.language_model import LanguageModel
from tickwise.evaluation.perplexity import refuse_sources
from tickwise.evaluation.windows import KnowsTargets
from tickwise.tokenizers.tokenizer import Tokenizer

# Logits computed at once: 64 MB in float32.
_LOGITS_AT_ONCE = 16_000_000
_TOKENS_AT_ONCE = 4096


class TokenRow(NamedTuple):
    """Tokens of which those from number ``first`` on are scored, each given all before it."""

    ids: Sequence[int]
    first: int


class RowScore(NamedTuple):
    """Natural log-probability of the scored tokens, and whether each of them was the likeliest."""

    log_probability: float
    greedy: bool


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """What stands for the beginning of a text: the token for it, else the end of a text before, else a line feed."""
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if first is not None:
        return [first]
    try:
        return tokenizer.encode("\n")[:1]
    except DataError:
        return []


def text_row(model: LanguageModel, text: str) -> TokenRow:
    """``text`` as a document of its own: every token is scored, or all but the first where nothing stands for the
    beginning. ``DataError`` for a text without a token to score."""
    ids = model.tokenizer.encode(text)
    start = start_ids(model.tokenizer)
    if not ids or len(start) + len(ids) < 2:
        raise DataError(f"no token to score in {text!r}")
    return TokenRow([*start, *ids], len(start) or 1)


@torch.inference_mode()
def score_rows(model: LanguageModel, rows: Sequence[TokenRow], *, greedy: bool = False,
               on_scored: Callable[[int], None] = lambda n: None) -> list[RowScore]:
    """The score of each row, in order. Rows longer than the context lose their beginning, as much as is too long.

    ``greedy`` asks whether the scored tokens are the likeliest ones, which costs the whole distribution in models that
    otherwise look up what they need; without it ``RowScore.greedy`` is False. ``on_scored`` is told of rows done.
    """
    refuse_sources(model)
    longest = model.config.context_length + 1
    cut = [TokenRow(row.ids[-longest:], max(1, row.first - max(0, len(row.ids) - longest))) for row in rows]
    scores: list[RowScore | None] = [None] * len(rows)
    order = sorted(range(len(cut)), key=lambda i: len(cut[i].ids))
    start = 0
    while start < len(order):
        batch = _next_batch(cut, order, start, model.config.vocab_size)
        for i, score in zip(batch, _batch_scores(model, [cut[i] for i in batch], greedy), strict=True):
            scores[i] = score
        on_scored(len(batch))
        start += len(batch)
    return [score for score in scores if score is not None]


def _next_batch(rows: Sequence[TokenRow], order: Sequence[int], start: int, vocab_size: int) -> Sequence[int]:
    """As many rows, sorted by length, as fit in a batch that is padded to the longest."""
    tokens = max(1, min(_TOKENS_AT_ONCE, _LOGITS_AT_ONCE // vocab_size))
    end = start + 1
    while end < len(order) and (end + 1 - start) * len(rows[order[end]].ids) <= tokens:
        end += 1
    return order[start:end]


def _batch_scores(model: LanguageModel, rows: Sequence[TokenRow], greedy: bool) -> list[RowScore]:
    if isinstance(model.module, KnowsTargets) and not greedy:
        return [RowScore(float(model.module.target_log_probabilities(_tensor(model, row.ids))[row.first - 1 :].sum(
            dtype=torch.float64)), False) for row in rows]
    n_tokens = max(len(row.ids) for row in rows)
    # Nothing looks ahead, so what stands after a row's end does not matter.
    ids_BT = _tensor(model, [[*row.ids, *[0] * (n_tokens - len(row.ids))] for row in rows])
    logits_BTV = model.module.logits(model.module.hidden_states(ids_BT[:, :-1])).float()
    losses_BT = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none").view(len(rows), -1)
    right_BT = logits_BTV.argmax(-1) == ids_BT[:, 1:] if greedy else None
    found = []
    for row, losses_T in enumerate(losses_BT):
        scored = slice(rows[row].first - 1, len(rows[row].ids) - 1)
        found.append(RowScore(-float(losses_T[scored].sum(dtype=torch.float64)),
                              right_BT is not None and bool(right_BT[row, scored].all())))
    return found


def _tensor(model: LanguageModel, ids: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long, device=model.device)
