"""Guessing several tokens and checking all of them in one tick (Leviathan et al. 2023; Chen et al. 2023).

A proposer guesses how a row goes on; the model reads the guess behind the row's last token, so that the logits for
every guessed position are there at once. What is written is distributed as without guesses:

- A guess that names one token per position (a look-up; the most likely tokens of a draft model) is checked by choosing
  at each position as always, with the row's own random numbers, until another token comes out. A guess x is thus
  accepted with probability p(x), and what replaces it is distributed like p without x. Even the text is the same.
- A guess that was drawn from a draft model's distribution q is accepted with probability min(1, p(x) / q(x)), and
  replaced by a draw from the positive part of p - q (algorithm 1 of Leviathan et al.), which accepts more of them.

Guesses are free only where the model waits for memory. ``Speculation`` measures, per request, what the checking costs
and how many guesses hold, and stops guessing when that does not pay.
"""

import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tickwise.core.console import SayOnce, note
from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.kv_cache import KVCache
from tickwise.engine.requests import SpeculationFigures
from tickwise.engine.sampling import Choice, TokenChooser, choose, distribution, draw, report
from tickwise.models.decoder import Decoder

_TRIALS = 8
"""Guesses after which a request's balance is looked at."""
_SAMPLES = 9
_NEEDED_SAMPLES = 3


class Guess(NamedTuple):
    """How a text may go on."""

    ids: list[int]
    probabilities: list[Tensor] | None = None
    """The distribution (V,) that each of ``ids`` was drawn from; ``None`` when they were not drawn."""


class Proposer(Protocol):
    """Guesses how a text goes on."""

    def propose(self, tokens: Sequence[int], n_tokens: int, chooser: TokenChooser) -> Guess:
        """Up to ``n_tokens`` next tokens of a text whose tokens ``chooser`` chooses. Between calls the text only
        grows, by any tokens."""


class PromptLookup:
    """What followed the last time that the text's last tokens stood in it (prompt lookup, Saxena 2023).

    >>> PromptLookup().propose([1, 2, 3, 4, 9, 1, 2, 3], 2, chooser).ids                  # doctest: +SKIP
    [4, 9]
    """

    def __init__(self, longest: int = 3, shortest: int = 2) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._followed_at: dict[tuple[int, ...], int] = {}
        self._n_indexed = 0

    def propose(self, tokens: Sequence[int], n_tokens: int, chooser: TokenChooser) -> Guess:
        # The n-grams that end at the last token are what is looked for, so they are indexed next time.
        for end in range(self._n_indexed + 1, len(tokens)):
            for size in self._sizes:
                if end >= size:
                    self._followed_at[tuple(tokens[end - size : end])] = end
        self._n_indexed = max(self._n_indexed, len(tokens) - 1)
        for size in self._sizes:
            at = self._followed_at.get(tuple(tokens[-size:])) if len(tokens) >= size else None
            if at is not None:
                return Guess(list(tokens[at : at + n_tokens]))
        return Guess([])


class DraftModel:
    """Guesses of a smaller model with the same vocabulary: its most likely tokens for a greedy row, else draws from
    its distribution, shaped as the row's settings shape the model's."""

    def __init__(self, module: Decoder, say_once: SayOnce) -> None:
        config, weight = module.config, next(module.parameters())
        self._module, self._device = module, weight.device
        self._say_once = say_once
        self._cache = KVCache(
            config.n_layers, 1, config.n_kv_heads, config.head_dim, config.context_length, weight.dtype, weight.device
        )
        self._read: list[int] = []
        self._n_true = 0

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], n_tokens: int, chooser: TokenChooser) -> Guess:
        room = self._cache.capacity - len(tokens) + 1
        if room < 1:
            self._say_once(f"the text is longer than the draft model's context of {self._cache.capacity} tokens: going "
                           "on without its guesses", "draft")
            return Guess([])
        n_tokens = min(n_tokens, room)
        # What was read as a guess and did not come true is forgotten.
        same = min(self._n_true, len(tokens) - 1)
        while same < min(len(self._read), len(tokens) - 1) and self._read[same] == tokens[same]:
            same += 1
        self._cache.truncate(same)
        new = list(tokens[same:])
        ids: list[int] = []
        # Which tokens a grammar allows is known for the next position only.
        draws = chooser.settings.temperature > 0 and chooser.settings.structure is None
        probabilities: list[Tensor] = []
        while len(ids) < n_tokens:
            hidden_1TC = self._module.hidden_states(torch.tensor([new], device=self._device), cache=self._cache)
            logits_V = self._module.logits(hidden_1TC[:, -1:])[0, 0]
            if draws:
                probabilities.append(distribution(logits_V, chooser))
                ids.append(draw(probabilities[-1], chooser))
            else:
                ids.append(int(logits_V.argmax()))
            new = ids[-1:]
        self._read = [*tokens, *ids[:-1]]
        self._n_true = len(tokens)
        return Guess(ids, probabilities if draws else None)


def accept(logits_GV: Tensor, guess: Guess, chooser: TokenChooser) -> list[Choice]:
    """The tokens that a drawn guess and the logits of its positions, and of the one behind it, give: one or more.

    Every token is committed to ``chooser``.
    """
    assert guess.probabilities is not None
    choices: list[Choice] = []
    for logits_V, token_id, q_V in zip(logits_GV, guess.ids, guess.probabilities, strict=False):
        p_V = distribution(logits_V, chooser)
        chosen_id = token_id
        if chooser.uniform() * float(q_V[token_id]) >= float(p_V[token_id]):
            rest_V = (p_V - q_V).clamp_(min=0)
            rest_V[token_id] = 0
            chosen_id = draw(rest_V if bool(rest_V.any()) else p_V, chooser)
        choices += report(logits_V.unsqueeze(0), [chooser], [chosen_id])
        chooser.commit(chosen_id)
        if chosen_id != token_id or chooser.end is not None:
            return choices
    return choices + choose(logits_GV[len(guess.ids) :], [chooser])


def check_draft(module: Decoder, draft: Decoder) -> None:
    """``ConfigError`` unless the two models speak of the same tokens."""
    if module.config.vocab_size != draft.config.vocab_size:
        raise ConfigError(
            f"the draft model has {draft.config.vocab_size} tokens and the model {module.config.vocab_size}; "
            "give a draft model with the same tokenizer"
        )


class TickTimes:
    """How long decode ticks without guesses take, by number of rows."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self.known = False
        """Whether guesses can be judged; until then there are none."""

    def observe(self, n_rows: int, seconds: float) -> None:
        self._seconds.setdefault(n_rows, deque(maxlen=_SAMPLES)).append(seconds)

    def plain_s(self, n_rows: int) -> float | None:
        """Median, in seconds; ``None`` before there were enough ticks. Also decides what is ``known``."""
        seconds = self._seconds.get(n_rows, ())
        self.known = len(seconds) >= _NEEDED_SAMPLES
        return statistics.median(seconds) if self.known else None


class Speculation:
    """A row's proposer, as long as it pays."""

    def __init__(self, proposer: Proposer, n_tokens: int, times: TickTimes, request_id: str) -> None:
        self._proposer, self._n_tokens, self._times, self._request_id = proposer, n_tokens, times, request_id
        self.on = True
        self.guess = Guess([])
        """The last one."""
        self.n_guessed = self.n_accepted = self.n_ticks = 0
        self._gained_s = self._paid_s = 0.0

    @property
    def figures(self) -> SpeculationFigures:
        """What became of the guesses so far."""
        return SpeculationFigures(self.n_guessed, self.n_accepted, self.n_ticks, turned_off=not self.on)

    def propose(self, tokens: Sequence[int], limit: int, chooser: TokenChooser) -> list[int]:
        """A guess of at most ``limit`` tokens; empty when there is none."""
        self.guess = Guess([])
        if self.on and self._times.known and limit > 0:
            started = time.perf_counter()
            mark(Stage.DRAFT)
            with marking(None):  # a draft model's stages are not those of the model that is measured
                self.guess = self._proposer.propose(tokens, min(limit, self._n_tokens), chooser)
            mark(Stage.SCHEDULE)
            self._paid_s += time.perf_counter() - started
        return self.guess.ids

    def verified(self, n_guessed: int, n_accepted: int, *, plain_s: float, paid_s: float) -> None:
        """Book a tick: what an accepted token saves, and what the guess made the tick longer by, in seconds (both 0
        where the tick cannot be compared)."""
        self.n_ticks += 1
        self.n_guessed += n_guessed
        self.n_accepted += n_accepted
        self._gained_s += n_accepted * plain_s
        self._paid_s += paid_s
        if self.n_ticks >= _TRIALS and self._gained_s < self._paid_s:
            self.on = False
            note(
                f"request {self._request_id}: guessing does not pay ({self.n_accepted} of {self.n_guessed} guesses "
                f"held, saving {1000 * self._gained_s:.1f} ms for {1000 * self._paid_s:.1f} ms of checking); "
                "going on without"
            )
