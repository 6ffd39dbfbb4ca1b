"""From logits to the next token: what is ruled out, how the rest is weighed, and one uniform number per token.

A row of the batch has a ``TokenChooser``: it remembers what the row wrote and has random numbers of its own, so that
a row's text depends on its settings, its seed and its logits, never on the rows beside it. ``choose`` takes one token
per row; rows with equal settings share every operation.

Shapes: B batch rows, V vocabulary, K candidates, N single logits of any rows.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import ConfigError, DataError, NumericsError
from tickwise.engine.penalties import occurrences_for, penalise
from tickwise.engine.settings import BAN, GenerationSettings
from tickwise.engine.structured import Constraint, compile_constraint
from tickwise.engine.truncation import candidates

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

EndReason = Literal["eos", "stop_token", "grammar"]

# Keeps u * total strictly below total in float32, so that the inverse of the distribution stays in range.
_BELOW_ONE = 1.0 - 2.0**-22


class LogitsError(NumericsError):
    """Rows whose logits hold NaN or +inf, or nothing but -inf. No row of the batch has chosen."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(
            "the model's logits are not finite numbers; its weights may be damaged, or try --dtype fp32"
        )
        self.rows = tuple(rows)
        """Places in the batch."""


class Choice(NamedTuple):
    """A token that was chosen, and how likely the model itself found it."""

    token_id: int
    logprob: float | None = None
    """Natural logarithm of its probability in the model's own distribution; ``None`` when not asked for."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens of that distribution with their log-probabilities, most likely first."""


class TokenChooser:
    """How one row chooses its tokens: its settings, what it wrote so far, its random numbers and its grammar."""

    def __init__(
        self,
        settings: GenerationSettings,
        prompt_ids: Sequence[int],
        tokenizer: "Tokenizer",
        sample_index: int = 0,
        constraint: Constraint | None = None,
        suppressed_ids: Sequence[int] = (),
    ) -> None:
        """A row before its first token.

        prompt_ids: the tokens before the text; the repetition penalty counts them.
        sample_index: which of the request's ``n`` samples this is; part of the seed.
        constraint: what ``compile_constraint`` made of ``settings``, to share it between rows; made here if left out.
        suppressed_ids: tokens that the model is not to write, whatever ``settings`` say.

        Raises ``ConfigError`` for settings that this tokenizer cannot fulfil.
        """
        if constraint is None:
            constraint = compile_constraint(settings, tokenizer)
        self.settings = settings
        self.sample_index = sample_index
        self.seed = fresh_seed() if settings.seed is None else settings.seed
        self.n_vocab = tokenizer.vocab_size
        if settings.logprobs is not None and settings.logprobs > self.n_vocab:
            raise ConfigError(f"logprobs: at most {self.n_vocab}, the model's vocabulary, not {settings.logprobs}")
        self.n_chosen = 0
        self.end: EndReason | None = None
        """Why the text ends with the token chosen last, as far as tokens can tell. ``grammar``: that token completes
        the text. ``eos``, ``stop_token``: that token is not part of the text."""
        self._generator: numpy.random.Generator | None = None
        self._eos_ids = frozenset() if settings.ignore_eos else tokenizer.endings
        self._ending = self._eos_ids | _stop_ids(settings, tokenizer)
        self.occurrences = occurrences_for(settings, prompt_ids)
        """The tokens that penalties apply to; ``None`` without penalties."""
        self._grammar = None if constraint is None else constraint.start()
        self._allowed_V: NDArray[numpy.bool_] | None = None
        bias = _resolved_bias(settings, tokenizer)
        bias.update((token_id, -numpy.inf) for token_id in suppressed_ids if token_id < self.n_vocab)
        self._bias = _Bias(bias)
        # Before min_tokens, what would end the text is ruled out.
        self._early_bias = _Bias({**bias, **dict.fromkeys(self._ending, -numpy.inf)})
        if len(self.bias.banned) >= self.n_vocab:
            raise ConfigError("logit_bias: every token is ruled out (or ends the text before min_tokens)")

    @property
    def bias(self) -> "_Bias":
        """What is added to the logits of the next token."""
        return self._early_bias if self.n_chosen < self.settings.min_tokens else self._bias

    @property
    def takes_the_largest_logit(self) -> bool:
        """Whether the next token is the model's most likely one, and nothing else is asked for."""
        return (
            self.settings.temperature == 0
            and self.settings.logprobs is None
            and self.occurrences is None
            and self._grammar is None
            and not len(self.bias.ids)
        )

    @property
    def allowed(self) -> NDArray[numpy.bool_] | None:
        """Which tokens the grammar allows next, (V,); ``None`` without a grammar."""
        self.prepare()
        return self._allowed_V

    def prepare(self) -> None:
        """Do what can be done before the logits are there: ask the grammar which tokens may come next.

        Raises ``ConfigError`` when none may. It concerns this row alone, so call it before ``choose`` and end the
        row that fails.
        """
        if self._grammar is None or self._allowed_V is not None:
            return
        allowed_V = self._grammar.mask()
        allowed_V[self.bias.banned] = False
        if not allowed_V.any():
            raise ConfigError("logit_bias: it rules out every token that may come next in the structured text")
        self._allowed_V = allowed_V

    def uniform(self) -> float:
        """The row's next random number, at least 0 and below 1."""
        if self._generator is None:
            self._generator = _generator(self.seed, self.sample_index)
        return self._generator.random() * _BELOW_ONE

    def commit(self, token_id: int) -> None:
        """Take ``token_id`` as the row's next token. ``choose`` does so itself."""
        self.n_chosen += 1
        if self.occurrences is not None:
            self.occurrences.add(token_id)
        if self._grammar is not None:
            self._allowed_V = None
            self._grammar.advance(token_id)
        if token_id in self._ending:
            self.end = "eos" if token_id in self._eos_ids else "stop_token"
        elif self._grammar is not None and self._grammar.complete:
            self.end = "grammar"

    def fork(self, sample_index: int) -> "TokenChooser":
        """An independent copy that goes on from here with the random numbers of another sample."""
        twin = copy.copy(self)
        twin.sample_index = sample_index
        twin._generator = None
        twin.occurrences = None if self.occurrences is None else self.occurrences.copy()
        twin._grammar = None if self._grammar is None else self._grammar.fork()
        return twin


class _Bias:
    """What is added to single logits: ids (N,) and values (N,), and those of them that rule a token out."""

    def __init__(self, bias: dict[int, float]) -> None:
        self.ids = numpy.array(list(bias), dtype=numpy.int64)
        self.values = numpy.array(list(bias.values()), dtype=numpy.float32)
        self.banned = self.ids[numpy.isneginf(self.values)]


def choose(logits_BV: Tensor, choosers: Sequence[TokenChooser]) -> list[Choice]:
    """The next token of every row, which each chooser takes note of.

    Raises ``LogitsError`` when a row's logits are no numbers to choose by. Call ``prepare`` of each chooser first, to
    learn which row a dead end of its grammar concerns.
    """
    if all(chooser.takes_the_largest_logit for chooser in choosers):
        choices = [Choice(token_id) for token_id in _greedy(logits_BV[:, : choosers[0].n_vocab])]
    else:
        ids = _pick(shaped_logits(logits_BV, choosers), choosers)
        choices = report(logits_BV, choosers, ids)
    for chooser, choice in zip(choosers, choices, strict=True):
        chooser.commit(choice.token_id)
    return choices


def distribution(logits_V: Tensor, chooser: TokenChooser) -> Tensor:
    """Probabilities (V,) in float32 that ``choose`` would draw the row's next token from; one-hot when greedy.

    Raises ``LogitsError`` when the logits are no numbers to choose by.
    """
    shaped_1V = shaped_logits(logits_V.unsqueeze(0), [chooser])
    probabilities_V = torch.zeros(logits_V.shape, dtype=torch.float32, device=logits_V.device)
    if chooser.settings.temperature == 0:
        probabilities_V[_greedy(shaped_1V)] = 1.0
        return probabilities_V
    weights_1K, ids_1K = candidates(shaped_1V, chooser.settings)
    total = weights_1K.sum()
    if not total > 0:
        raise LogitsError([0])
    if ids_1K is None:
        probabilities_V[: weights_1K.shape[1]] = weights_1K[0] / total
    else:
        probabilities_V.index_add_(0, ids_1K[0], weights_1K[0] / total)
    return probabilities_V


def draw(weights_V: Tensor, chooser: TokenChooser) -> int:
    """A token id drawn with the row's next random number in proportion to ``weights_V``; commits nothing."""
    return int(_draw(weights_V.unsqueeze(0).cumsum(dim=-1), None, [chooser.uniform()]))


def report(logits_BV: Tensor, choosers: Sequence[TokenChooser], token_ids: Sequence[int]) -> list[Choice]:
    """``token_ids`` with the log-probabilities that their rows ask for, in the model's distribution over the
    tokens that there are."""
    choices = [Choice(token_id) for token_id in token_ids]
    rows = [row for row, chooser in enumerate(choosers) if chooser.settings.logprobs is not None]
    if not rows:
        return choices
    n_vocab = choosers[0].n_vocab
    logprobs_BV = logits_BV[rows, :n_vocab].float().log_softmax(dim=-1)
    chosen_B1 = torch.tensor([[token_ids[row]] for row in rows], device=logits_BV.device)
    logprobs_B = logprobs_BV.gather(-1, chosen_B1).squeeze(-1).tolist()
    most = max(choosers[row].settings.logprobs or 0 for row in rows)
    top_BK, ids_BK = logprobs_BV.topk(most, dim=-1)
    for row, logprob, ids, values in zip(rows, logprobs_B, ids_BK.tolist(), top_BK.tolist(), strict=True):
        wanted = choosers[row].settings.logprobs
        choices[row] = Choice(token_ids[row], logprob, tuple(zip(ids, values, strict=True))[:wanted])
    return choices


def shaped_logits(logits_BV: Tensor, choosers: Sequence[TokenChooser]) -> Tensor:
    """Logits (B, V) in float32 after penalties, bias, minimum length and grammar; what is ruled out is -inf.

    V is the vocabulary of the tokenizer: a model may have more outputs, which stand for no token.
    """
    n_vocab = choosers[0].n_vocab
    assert logits_BV.shape[1] >= n_vocab, "the model has an output for every token"
    shaped_BV = logits_BV[:, :n_vocab].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    penalised = [(row, c.settings, c.occurrences) for row, c in enumerate(choosers) if c.occurrences is not None]
    if penalised:
        penalise(shaped_BV, penalised)
    biased = [(row, chooser.bias) for row, chooser in enumerate(choosers) if len(chooser.bias.ids)]
    if biased:
        index_N = numpy.concatenate([bias.ids + row * n_vocab for row, bias in biased])
        values_N = numpy.concatenate([bias.values for _, bias in biased])
        shaped_BV.view(-1).index_add_(0, _moved(index_N, shaped_BV), _moved(values_N, shaped_BV))
    masks = [chooser.allowed for chooser in choosers]
    if any(allowed_V is not None for allowed_V in masks):
        everything = numpy.ones(n_vocab, dtype=numpy.bool_)
        allowed_BV = numpy.stack([everything if allowed_V is None else allowed_V for allowed_V in masks])
        shaped_BV = torch.where(_moved(allowed_BV, shaped_BV), shaped_BV, -torch.inf)
    return shaped_BV


def _moved(values: NDArray[numpy.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)


def _pick(shaped_BV: Tensor, choosers: Sequence[TokenChooser]) -> list[int]:
    """One token id per row; rows that shape the distribution alike are taken together."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for row, chooser in enumerate(choosers):
        s = chooser.settings
        key = (s.temperature, s.top_k, s.top_p, s.min_p, s.typical_p) if s.temperature else (0.0,)
        groups.setdefault(key, []).append(row)
    ids, bad = [0] * len(choosers), list[int]()
    drawn: list[tuple[list[int], Tensor, Tensor | None]] = []
    for rows in groups.values():
        logits_BV = shaped_BV if len(rows) == len(choosers) else shaped_BV[rows]
        settings = choosers[rows[0]].settings
        try:
            if settings.temperature == 0:
                for row, token_id in zip(rows, _greedy(logits_BV), strict=True):
                    ids[row] = token_id
            else:
                weights_BK, ids_BK = candidates(logits_BV, settings)
                drawn.append((rows, _cumulative(weights_BK), ids_BK))
        except LogitsError as problem:
            bad += [rows[place] for place in problem.rows]
    if bad:
        raise LogitsError(bad)
    # Random numbers are used up only when every row can choose.
    for rows, cumulative_BK, ids_BK in drawn:
        picked_B = _draw(cumulative_BK, ids_BK, [choosers[row].uniform() for row in rows])
        for row, token_id in zip(rows, picked_B.tolist(), strict=True):
            ids[row] = token_id
    return ids


def _greedy(logits_BV: Tensor) -> list[int]:
    """The most likely token of each row; ``LogitsError`` for rows without a largest logit."""
    top_B, ids_B = logits_BV.max(dim=-1)
    bad = [row for row, value in enumerate(top_B.tolist()) if not -numpy.inf < value < numpy.inf]
    if bad:
        raise LogitsError(bad)
    ids: list[int] = ids_B.tolist()
    return ids


def _cumulative(weights_BK: Tensor) -> Tensor:
    """Sums of each row's weights up to each candidate; ``LogitsError`` for rows whose weights are not numbers."""
    cumulative_BK = weights_BK.cumsum(dim=-1)
    bad = [row for row, total in enumerate(cumulative_BK[:, -1].tolist()) if not total > 0]
    if bad:
        raise LogitsError(bad)
    return cumulative_BK


def _draw(cumulative_BK: Tensor, ids_BK: Tensor | None, uniforms: Sequence[float]) -> Tensor:
    """ids_B, each drawn by one uniform number through the inverse of its row's distribution."""
    uniform_B1 = torch.tensor(uniforms, dtype=torch.float32, device=cumulative_BK.device).unsqueeze(1)
    # right=True skips tokens of weight 0: their cumulative weight equals that of the token before.
    index_B1 = torch.searchsorted(cumulative_BK, uniform_B1 * cumulative_BK[:, -1:], right=True)
    return (index_B1 if ids_BK is None else ids_BK.gather(-1, index_B1)).squeeze(-1)


def fresh_seed() -> int:
    """A seed from the operating system's randomness, short enough to type again."""
    return int(numpy.random.SeedSequence().generate_state(1)[0])


def _generator(seed: int, sample_index: int) -> numpy.random.Generator:
    return numpy.random.default_rng(numpy.random.SeedSequence([seed, sample_index]))


def _stop_ids(settings: GenerationSettings, tokenizer: "Tokenizer") -> frozenset[int]:
    for token_id in settings.stop_token_ids:
        _check_id("stop_token_ids", token_id, tokenizer)
    return frozenset(settings.stop_token_ids)


def _resolved_bias(settings: GenerationSettings, tokenizer: "Tokenizer") -> dict[int, float]:
    """Token ids and what is added to their logits; -inf for those that are ruled out."""
    assert isinstance(settings.logit_bias, tuple), "the settings make it one"
    resolved: dict[int, float] = {}
    for token, value in settings.logit_bias:
        token_id = token if isinstance(token, int) else _single_token(token, tokenizer)
        _check_id("logit_bias", token_id, tokenizer)
        if token_id in resolved:
            raise ConfigError(f"logit_bias: token {token_id} is given twice ({token!r}); leave one out")
        resolved[token_id] = -numpy.inf if value <= BAN else value
    return resolved


def _single_token(text: str, tokenizer: "Tokenizer") -> int:
    """The token that is written as ``text``; ``ConfigError`` when there is none."""
    named = tokenizer.backend.token_to_id(text)
    try:
        ids = tokenizer.encode(text)
    except DataError:
        ids = []
    if len(ids) == 1 and (ids[0] != tokenizer.unk_id or ids[0] == named):
        return ids[0]
    if named is not None:
        return named
    how_many = f"it takes {len(ids)} tokens" if len(ids) > 1 else "no token writes it"
    raise ConfigError(f"logit_bias: {text!r} is not one token of this vocabulary ({how_many}); give token ids")


def _check_id(name: str, token_id: int, tokenizer: "Tokenizer") -> None:
    if not 0 <= token_id < tokenizer.vocab_size:
        raise ConfigError(f"{name}: no token {token_id}; the vocabulary has 0 to {tokenizer.vocab_size - 1}")
