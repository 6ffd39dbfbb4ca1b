"""Span corruption, as T5 is pre-trained (Raffel et al. 2020, section 3.1.4): spans of a text are hidden, and named.

``Thank you for inviting me to your party last week .`` becomes the source ``Thank you <X> me to your party <Y> week
.`` and the target ``<X> for inviting <Y> last <Z>``. The marks are the tokenizer's sentinels, each used once in a text.
How many tokens and spans are hidden, and which, is drawn as in the published code
(google-research/text-to-text-transfer-transformer, ``t5/data/preprocessors.py``).

Shape legend: T tokens of a text.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import tokenizers
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.tokenizers.tokenizer import Tokenizer

N_SENTINELS = 100
_NAME = "<extra_id_{}>"  # as T5's tokenizer calls them


def with_sentinels(tokenizer: Tokenizer, n: int = N_SENTINELS) -> Tokenizer:
    """A tokenizer of the same ids that has ``n`` sentinels besides; the first has the largest id, as in T5. One that
    has them stays as it is."""
    if tokenizer.backend.token_to_id(_NAME.format(0)) is not None:
        return tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([_NAME.format(number) for number in reversed(range(n))])
    return Tokenizer(backend, tokenizer.kind, tokenizer.config)


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """The sentinels' ids, first to last; ``CheckpointError`` for a tokenizer without any."""
    ids: list[int] = []
    while (found := tokenizer.backend.token_to_id(_NAME.format(len(ids)))) is not None:
        ids.append(found)
    if not ids:
        raise CheckpointError(f"the tokenizer has no {_NAME.format(0)} token, which span corruption needs")
    return ids


def n_noise(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """How many of a text's tokens are hidden, in how many spans; a text has at least two tokens."""
    if length < 2:
        raise ConfigError(f"span corruption needs texts of at least 2 tokens, got {length}")
    tokens = min(max(round(length * density), 1), length - 1)
    return tokens, min(max(round(tokens / mean_span), 1), length - tokens)


def noise_mask(length: int, density: float, mean_span: float, draws: np.random.Generator) -> NDArray[np.bool_]:
    """(T,) which tokens are hidden: spans that alternate with what stays, which comes first."""
    tokens, spans = n_noise(length, density, mean_span)
    hidden, kept = _segments(tokens, spans, draws), _segments(length - tokens, spans, draws)
    lengths = np.stack([kept, hidden], axis=1).flatten()
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _segments(n: int, parts: int, draws: np.random.Generator) -> NDArray[np.int64]:
    """Lengths of ``parts`` parts of ``n`` things, none of them empty, every partition as likely as any other."""
    begins = np.arange(n - 1) < parts - 1
    draws.shuffle(begins)
    found: NDArray[np.int64] = np.bincount(np.concatenate([[0], begins.cumsum()]).astype(np.int64), minlength=parts)
    return found


def corrupt(ids: NDArray[np.int64], hidden: NDArray[np.bool_],
            sentinels: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source and target without end marks: each hidden span is a sentinel in the source, each span that stays one in
    the target. ``ConfigError`` when there are fewer sentinels than spans."""
    return _marked(ids, hidden, sentinels), _marked(ids, ~hidden, sentinels)


def _marked(ids: NDArray[np.int64], dropped: NDArray[np.bool_], sentinels: Sequence[int]) -> NDArray[np.int64]:
    begins = dropped & ~np.concatenate([[False], dropped[:-1]])
    n_spans = int(begins.sum())
    if n_spans > len(sentinels):
        raise ConfigError(f"a text of {len(ids):,} tokens has {n_spans:,} spans, and the tokenizer {len(sentinels):,} "
                          "sentinels; use a smaller --context, fewer hidden tokens or longer spans")
    marked = ids.copy()
    marked[begins] = sentinels[:n_spans]
    return marked[begins | ~dropped]


def corrupted_lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Tokens of the source and of the target of a text of ``length`` tokens, their end marks counted."""
    tokens, spans = n_noise(length, density, mean_span)
    return length - tokens + spans + 1, tokens + spans + 1


def text_length(source_length: int, density: float, mean_span: float) -> int:
    """The longest text whose source, its end mark counted, has at most ``source_length`` tokens.

    >>> text_length(512, 0.15, 3.0), corrupted_lengths(568, 0.15, 3.0)
    (568, (512, 114))
    """
    length = max(2, source_length)
    while corrupted_lengths(length + 1, density, mean_span)[0] <= source_length:
        length += 1
    return length
