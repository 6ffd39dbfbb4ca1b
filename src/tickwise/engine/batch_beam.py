"""Beam search over many sources at once: how a whole file is translated.

The sources are sorted by length and searched side by side; one that is done leaves, and the next takes its place. The
W beams of a source stand beside each other like W tokens of one target, so that they share its keys and values; their
own keys and values stay where they were written, whichever beam goes on from them: a mask says which of the stored
tokens a beam descends from.

A text Y scores log P(Y | X) ÷ lp(Y), where |Y| counts its tokens with the end mark:

- ``power``: lp = |Y|^α, which is Marian's ``--normalize α`` (Junczys-Dowmunt et al. 2018; ``src/translator/history.h``)
  and the ``length_penalty`` of transformers;
- ``gnmt``: lp = ((5 + |Y|) ÷ 6)^α (Wu et al. 2016, equation 14, without its coverage penalty).

When a text counts as finished, and when the search ends, is said at ``engine.beam.BeamSearch``: the rule of
transformers with ``early_stopping=False``. Marian's own decoder differs: there a finished text leaves the beam one text
narrower, until none is left.

Shapes: B sources searched side by side, W beams, V vocabulary, S source tokens, C columns (a token of every beam each),
K key/value heads, H query heads, D head dimension, k candidates.
"""

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.beam import BeamSearch, Candidate, Hypothesis, LengthNorm
from tickwise.engine.beam_costs import BeamWork, SourceWork
from tickwise.engine.beam_state import BeamState, FirstTokens, StoredSources, TreeCache
from tickwise.engine.packed_weights import packed_weights
from tickwise.engine.sampling import LogitsError
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.profiling.ledger import Ledger

_PEAKS = 64
"""Neighbouring logits of which only the largest one is looked at first."""
_MOST_LOGITS = 1 << 26
"""Of a step: 256 MB of them in float32, and two or three times that while the best are looked for."""
_MOST_STORED = 1 << 18
"""Tokens of sources and of targets as long as these, whose keys and values are stored at once."""
_LATE_SHARE = 8
"""A batch is filled up, or made smaller, when one of so many places is free: both copy state."""


@dataclass(frozen=True, kw_only=True)
class BeamOptions:
    """How to search. Every wrong value raises ``ConfigError`` in one line."""

    width: int = 4
    """Texts that are kept for each source; 1 always takes the most likely token."""
    length_penalty: float = 1.0
    """α; above 0 favours longer texts."""
    normalise: LengthNorm = "power"
    """What α is an exponent of: ``power``, the length; ``gnmt``, (5 + length) ÷ 6."""
    n_best: int = 1
    """Texts to return for each source."""
    max_ratio: float = 3.0
    max_extra: int = 10
    """A text has at most ``max_ratio`` · (source tokens without the end mark) + ``max_extra`` tokens with its end mark,
    and never more than the model's context."""
    batch: int = 128
    """Sources that are searched side by side; fewer where the vocabulary is large or sources are long."""

    def __post_init__(self) -> None:
        for name in ("width", "n_best", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.n_best > self.width:
            raise ConfigError(f"n_best: {self.n_best} texts from a beam of {self.width}; widen the beam")
        if not -10 <= self.length_penalty <= 10:
            raise ConfigError(f"length_penalty: {self.length_penalty} must be from -10 to 10")
        if self.max_ratio < 0 or self.max_extra < 0 or not self.max_ratio + self.max_extra >= 1:
            raise ConfigError("max_ratio and max_extra: they leave no room for a text; raise one")

    def longest(self, n_source: int, context_length: int) -> int:
        """Most tokens of a text, with its end mark, for a source of ``n_source`` tokens without one."""
        return max(1, min(int(self.max_ratio * n_source + self.max_extra), context_length))


@torch.inference_mode()
def beam_search(
    module: EncoderDecoder, sources: Sequence[Sequence[int]], options: BeamOptions | None = None, *,
    vocab_size: int | None = None, ledger: Ledger | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Every source's number and its best texts, best first, as soon as they are found; long sources come first.

    ``sources`` are token ids without the end mark; ``vocab_size``, where the model has more outputs than the tokenizer
    tokens, is the tokenizer's. ``ledger`` hears of every tick: reading sources that join, or one more token of every
    beam. Raises ``ConfigError`` for a source that is longer than the model reads, before anything is computed, and
    ``LogitsError`` where the model's logits are no numbers.

    >>> found = dict(beam_search(module, [[17, 4, 256], [8]], BeamOptions(width=4)))       # doctest: +SKIP
    >>> found[1][0].token_ids                                                             # doctest: +SKIP
    """
    options = BeamOptions() if options is None else options
    check_sources(module, sources)
    waiting = deque(sorted(range(len(sources)), key=lambda index: -len(sources[index])))
    batch = _Batch(packed_weights(module, len(sources) * options.width), options,
                   module.config.vocab_size if vocab_size is None else vocab_size)
    most = min(options.batch, _MOST_LOGITS // (options.width * module.config.vocab_size))
    while waiting or batch.n_running:
        longest = max(batch.longest, len(sources[waiting[0]]) + 1 if waiting else 0)
        n_places = max(1, min(most, _MOST_STORED // (longest * (1 + options.width))))
        n_free = n_places - batch.n_running
        if waiting and n_free * _LATE_SHARE >= n_places:
            joining = [waiting.popleft() for _ in range(min(n_free, len(waiting)))]
            with _tick(ledger):
                found = batch.join([(index, sources[index]) for index in joining], ledger)
            yield from found
        if batch.n_running:
            with _tick(ledger):
                found = batch.step(ledger)
            yield from found


@contextlib.contextmanager
def _tick(ledger: Ledger | None) -> Iterator[None]:
    """What happens inside the block is a tick of the ledger, if there is one."""
    if ledger is None:
        yield
        return
    ledger.begin_tick()
    with marking(ledger):
        mark(Stage.SCHEDULE)
        yield
        mark(Stage.HOST)
    ledger.end_tick(())


def check_sources(module: EncoderDecoder, sources: Sequence[Sequence[int]]) -> None:
    """``ConfigError`` for the first source that, with its end mark, is longer than the model reads."""
    longest = module.config.source_length
    for index, source in enumerate(sources):
        if len(source) + 1 > longest:
            raise ConfigError(f"source {index + 1} has {len(source)} tokens and the model reads at most {longest - 1}; "
                              "shorten or split it")


class _Place(NamedTuple):
    """A source that is searched."""

    number: int
    search: BeamSearch


class _Batch:
    """The sources that are searched side by side, each in a place of its own; some places may be empty."""

    def __init__(self, module: EncoderDecoder, options: BeamOptions, vocab_size: int) -> None:
        self._module, self._options, self._vocab_size = module, options, vocab_size
        self._device = next(module.parameters()).device
        rules = module.config.writing
        self._end_ids = (module.config.eos_id, *rules.end_ids)
        suppressed = [token_id for token_id in rules.suppressed_ids if token_id < vocab_size]
        self._suppressed = torch.tensor(suppressed, device=self._device) if suppressed else None
        self._places: list[_Place | None] = []
        self._state: BeamState | None = None

    @property
    def n_places(self) -> int:
        return len(self._places)

    @property
    def n_running(self) -> int:
        return sum(place is not None for place in self._places)

    @property
    def longest(self) -> int:
        """Tokens of the longest source whose keys and values are stored."""
        return 0 if self._state is None else self._state.sources.longest

    def join(
        self, sources: Sequence[tuple[int, Sequence[int]]], ledger: Ledger | None
    ) -> list[tuple[int, list[Hypothesis]]]:
        """Encode sources, choose their first tokens, and give each a place; the sources that are done with that."""
        config, options = self._module.config, self._options
        lengths = [len(ids) + 1 for _, ids in sources]
        if ledger is not None:
            ledger.tick_work(SourceWork(tuple(lengths)))
        ids_BS = torch.full((len(sources), max(lengths)), config.pad_id)
        for row, (_, ids) in enumerate(sources):
            ids_BS[row, : lengths[row]] = torch.tensor([*ids, config.eos_id])
        memory = self._module.encode(ids_BS.to(self._device), torch.tensor(lengths, device=self._device))
        first = FirstTokens()
        start_B1 = torch.full((len(sources), 1), config.start_id, device=self._device)
        logits_B1V = self._module.logits(self._module.hidden_states(start_B1, memory, cache=first), memory)
        mark(Stage.SAMPLE)
        scores_B1 = torch.zeros(len(sources), 1, device=self._device)
        searches = [BeamSearch(options.width, options.length_penalty, self._end_ids,
                               options.longest(len(ids), config.context_length), options.normalise, config.writing)
                    for _, ids in sources]
        for search, candidates in zip(searches, self._candidates(logits_B1V, scores_B1), strict=True):
            search.take(candidates)
        empty = [at for at, place in enumerate(self._places) if place is None]
        n_more = max(0, len(sources) - len(empty))
        at = [*empty, *range(self.n_places, self.n_places + n_more)][: len(sources)]
        self._places += [None] * n_more
        if self._state is None:
            self._state = BeamState(StoredSources(memory), TreeCache(first, options.width, config.positions == "rope"))
        else:
            rows = torch.tensor(at, device=self._device)
            self._state.sources.put(rows, memory, n_more)
            self._state.cache.put(rows, first, n_more)
        for place, (index, _), search in zip(at, sources, searches, strict=True):
            self._places[place] = _Place(index, search)
        return list(self._leave())

    def step(self, ledger: Ledger | None) -> list[tuple[int, list[Hypothesis]]]:
        """One more token for every beam of every source; the sources that are done then."""
        assert self._state is not None
        if self.n_running * _LATE_SHARE <= self.n_places * (_LATE_SHARE - 1):
            self._close_ranks()
        if ledger is not None:
            stored, cache = self._state.sources, self._state.cache
            ledger.tick_work(BeamWork(self.n_places, self._options.width, stored.longest, stored.is_even,
                                      cache.n_columns))
        width, eos_id = self._options.width, self._module.config.eos_id
        ids, scores = [], []
        for place in self._places:
            last_ids = [] if place is None else place.search.last_ids
            n_missing = width - len(last_ids)  # a small vocabulary has fewer texts; an empty place has none
            ids.append(last_ids + [eos_id] * n_missing)
            scores.append(([] if place is None else place.search.scores) + [-math.inf] * n_missing)
        hidden_BWC = self._module.hidden_states(
            torch.tensor(ids, device=self._device), self._state.sources, cache=self._state.cache)
        logits_BWV = self._module.logits(hidden_BWC, self._state.sources)
        mark(Stage.SAMPLE)
        found = self._candidates(logits_BWV, torch.tensor(scores, device=self._device))
        parents = []
        for place, candidates in zip(self._places, found, strict=True):
            steps = [] if place is None else place.search.take(candidates)
            parents.append([parent for parent, _ in steps] + [0] * (width - len(steps)))
        left = list(self._leave())  # at once: a place that is done has no next position, perhaps not even in the model
        self._state.cache.follow(torch.tensor(parents, device=self._device),
                                 torch.tensor([place is not None for place in self._places], device=self._device))
        return left

    def _close_ranks(self) -> None:
        """Drop the empty places."""
        assert self._state is not None
        kept = [at for at, place in enumerate(self._places) if place is not None]
        rows = torch.tensor(kept, device=self._device)
        self._state.sources.keep(rows)
        self._state.cache.keep(rows)
        self._places = [self._places[at] for at in kept]

    def _candidates(self, logits_BWV: Tensor, scores_BW: Tensor) -> Iterator[list[Candidate]]:
        """The most likely next tokens over all beams of each source, most likely first."""
        # Beside every text's ways to end, W others remain among so many.
        n_best = (1 + len(self._end_ids)) * self._options.width
        found = most_likely(logits_BWV[..., : self._vocab_size], scores_BW, n_best, self._suppressed)
        for totals, beams, ids in zip(*(part.tolist() for part in found), strict=True):
            yield list(zip(totals, beams, ids, strict=True))

    def _leave(self) -> Iterator[tuple[int, list[Hypothesis]]]:
        for at, place in enumerate(self._places):
            if place is not None and place.search.done:
                self._places[at] = None
                yield place.number, place.search.finished[: self._options.n_best]


def most_likely(
    logits_BWV: Tensor, scores_BW: Tensor, n_best: int, suppressed_N: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the texts that have these scores so far, the ``n_best`` continuations by one token for each source: total
    log-probabilities (B, k), float32, falling; beams (B, k); token ids (B, k). Those of ``suppressed_N`` get -inf.

    It equals ``topk`` over all of them, and looks at the largest of ``_PEAKS`` neighbours first: whatever is among the
    k largest stands in one of the k groups with the largest peaks. Raises ``LogitsError`` when logits are no numbers
    to choose by.
    """
    width, n_vocab = logits_BWV.shape[1:]
    chances_BWV = logits_BWV.float().log_softmax(-1)
    bad = chances_BWV[..., 0].isnan().any(-1).nonzero().flatten().tolist()  # one that is no number spoils its row
    if bad:
        raise LogitsError(bad)
    if suppressed_N is not None:
        chances_BWV[..., suppressed_N] = -math.inf
    n_best, n_groups = min(n_best, width * n_vocab), -(-n_vocab // _PEAKS)
    if n_groups * width <= n_best:
        top_Bk, flat_Bk = (chances_BWV + scores_BW[..., None]).flatten(1).topk(n_best)
        return top_Bk, flat_Bk // n_vocab, flat_Bk % n_vocab
    n_whole = n_vocab // _PEAKS
    peaks_BWG = chances_BWV[..., : n_whole * _PEAKS].unflatten(-1, (n_whole, _PEAKS)).amax(-1)
    if n_whole < n_groups:
        peaks_BWG = torch.cat([peaks_BWG, chances_BWV[..., n_whole * _PEAKS :].amax(-1, keepdim=True)], -1)
    _, groups_Bk = (peaks_BWG + scores_BW[..., None]).flatten(1).topk(n_best)
    beams_Bk1 = (groups_Bk // n_groups)[..., None]
    ids_BkP = (groups_Bk % n_groups * _PEAKS)[..., None] + torch.arange(_PEAKS, device=groups_Bk.device)
    is_there_BkP = ids_BkP < n_vocab
    flat_BkP = beams_Bk1 * n_vocab + ids_BkP.clamp(max=n_vocab - 1)
    taken_BN = chances_BWV.flatten(1).gather(1, flat_BkP.flatten(1))
    taken_BkP = taken_BN.view_as(flat_BkP) + scores_BW.gather(1, beams_Bk1[..., 0])[..., None]
    top_Bk, at_Bk = taken_BkP.masked_fill(~is_there_BkP, -math.inf).flatten(1).topk(n_best)
    flat_Bk = flat_BkP.flatten(1).gather(1, at_Bk)
    return top_Bk, flat_Bk // n_vocab, flat_Bk % n_vocab
