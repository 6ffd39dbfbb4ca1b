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

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.core.errors import ConfigError
from tickwise.engine.beam import BeamSearch, Candidate, Hypothesis, LengthNorm
from tickwise.engine.packed_weights import packed_weights
from tickwise.engine.sampling import LogitsError
from tickwise.layers.attention import PositionBias, full_attention, padding_bias
from tickwise.models.encoder_decoder import EncoderDecoder, Memory

_FIRST_COLUMNS = 32
_PEAKS = 64
"""Neighbouring logits of which only the largest one is looked at first."""
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
    batch: int = 64
    """Sources that are searched side by side."""

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
    vocab_size: int | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Every source's number and its best texts, best first, as soon as they are found; long sources come first.

    ``sources`` are token ids without the end mark; ``vocab_size``, where the model has more outputs than the tokenizer
    tokens, is the tokenizer's. Raises ``ConfigError`` for a source that is longer than the model
    reads, before anything is computed, and ``LogitsError`` where the model's logits are no numbers.

    >>> found = dict(beam_search(module, [[17, 4, 256], [8]], BeamOptions(width=4)))       # doctest: +SKIP
    >>> found[1][0].token_ids                                                             # doctest: +SKIP
    """
    options = BeamOptions() if options is None else options
    check_sources(module, sources)
    waiting = deque(sorted(range(len(sources)), key=lambda index: -len(sources[index])))
    batch = _Batch(module, options, module.config.vocab_size if vocab_size is None else vocab_size)
    with packed_weights(module, len(sources) * options.width):
        while waiting or batch.n_running:
            n_free = options.batch - batch.n_running
            if waiting and n_free * _LATE_SHARE >= options.batch:
                joining = [waiting.popleft() for _ in range(min(n_free, len(waiting)))]
                yield from batch.join([(index, sources[index]) for index in joining])
            elif batch.n_running * _LATE_SHARE <= batch.n_places * (_LATE_SHARE - 1):
                batch.close_ranks()
            yield from batch.step()


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
        self._places: list[_Place | None] = []
        self._state: _State | None = None

    @property
    def n_places(self) -> int:
        return len(self._places)

    @property
    def n_running(self) -> int:
        return sum(place is not None for place in self._places)

    def join(self, sources: Sequence[tuple[int, Sequence[int]]]) -> Iterator[tuple[int, list[Hypothesis]]]:
        """Encode sources, choose their first tokens, and give each a place."""
        config, options = self._module.config, self._options
        lengths = [len(ids) + 1 for _, ids in sources]
        ids_BS = torch.full((len(sources), max(lengths)), config.pad_id)
        for row, (_, ids) in enumerate(sources):
            ids_BS[row, : lengths[row]] = torch.tensor([*ids, config.eos_id])
        memory = self._module.encode(ids_BS.to(self._device), torch.tensor(lengths, device=self._device))
        first = _FirstTokens()
        start_B1 = torch.full((len(sources), 1), config.start_id, device=self._device)
        logits_B1V = self._module.logits(self._module.hidden_states(start_B1, memory, cache=first))
        scores_B1 = torch.zeros(len(sources), 1, device=self._device)
        searches = [BeamSearch(options.width, options.length_penalty, config.eos_id,
                               options.longest(len(ids), config.context_length), options.normalise)
                    for _, ids in sources]
        for search, candidates in zip(searches, self._candidates(logits_B1V, scores_B1), strict=True):
            search.take(candidates)
        empty = [at for at, place in enumerate(self._places) if place is None]
        n_more = max(0, len(sources) - len(empty))
        at = [*empty, *range(self.n_places, self.n_places + n_more)][: len(sources)]
        self._places += [None] * n_more
        if self._state is None:
            self._state = _State(_Sources(memory), _TreeCache(first, options.width, config.positions == "rope"))
        else:
            rows = torch.tensor(at, device=self._device)
            self._state.sources.put(rows, memory, n_more)
            self._state.cache.put(rows, first, n_more)
        for place, (index, _), search in zip(at, sources, searches, strict=True):
            self._places[place] = _Place(index, search)
        yield from self._leave()

    def step(self) -> Iterator[tuple[int, list[Hypothesis]]]:
        """One more token for every beam of every source; yields the sources that are done."""
        if not self.n_running:
            return
        assert self._state is not None
        width, eos_id = self._options.width, self._module.config.eos_id
        ids, scores = [], []
        for place in self._places:
            texts = [] if place is None else place.search.texts
            n_missing = width - len(texts)  # a small vocabulary has fewer texts; an empty place has none
            ids.append([text[-1] for text in texts] + [eos_id] * n_missing)
            scores.append(([] if place is None else place.search.scores) + [-math.inf] * n_missing)
        hidden_BWC = self._module.hidden_states(
            torch.tensor(ids, device=self._device), self._state.sources, cache=self._state.cache)
        logits_BWV = self._module.logits(hidden_BWC)
        found = self._candidates(logits_BWV, torch.tensor(scores, device=self._device))
        parents = []
        for place, candidates in zip(self._places, found, strict=True):
            steps = [] if place is None else place.search.take(candidates)
            parents.append([parent for parent, _ in steps] + [0] * (width - len(steps)))
        left = list(self._leave())  # at once: a place that is done has no next position, perhaps not even in the model
        self._state.cache.follow(torch.tensor(parents, device=self._device),
                                 torch.tensor([place is not None for place in self._places], device=self._device))
        yield from left

    def close_ranks(self) -> None:
        """Drop the empty places."""
        assert self._state is not None
        kept = [at for at, place in enumerate(self._places) if place is not None]
        rows = torch.tensor(kept, device=self._device)
        self._state.sources.keep(rows)
        self._state.cache.keep(rows)
        self._places = [self._places[at] for at in kept]

    def _candidates(self, logits_BWV: Tensor, scores_BW: Tensor) -> Iterator[list[Candidate]]:
        """The most likely next tokens over all beams of each source, most likely first."""
        # Every text has one way to end, so that W others remain among twice as many.
        found = most_likely(logits_BWV[..., : self._vocab_size], scores_BW, 2 * self._options.width)
        for totals, beams, ids in zip(*(part.tolist() for part in found), strict=True):
            yield [Candidate(*candidate) for candidate in zip(totals, beams, ids, strict=True)]

    def _leave(self) -> Iterator[tuple[int, list[Hypothesis]]]:
        for at, place in enumerate(self._places):
            if place is not None and place.search.done:
                self._places[at] = None
                yield place.number, place.search.finished[: self._options.n_best]


class _Sources:
    """Keys and values of the sources, a place for each: the ``SourceMemory`` of all of their beams."""

    def __init__(self, memory: Memory) -> None:
        self._keys = list(memory.keys)
        self._values = list(memory.values)
        self._lengths_B = memory.lengths_B
        self._trim()

    def put(self, rows: Tensor, memory: Memory, n_more: int) -> None:
        """Other sources into these places, of which the last ``n_more`` are new. None is longer than those before."""
        if n_more:
            self.keep(_with_more(self._lengths_B, n_more))
        for stored_BKSD, new_BKSD in zip((*self._keys, *self._values), (*memory.keys, *memory.values), strict=True):
            stored_BKSD[rows, :, : memory.longest] = new_BKSD
        self._lengths_B[rows] = memory.lengths_B
        self._trim()

    def keep(self, rows: Tensor) -> None:
        """Only these places, in this order."""
        self._keys = [k.index_select(0, rows) for k in self._keys]
        self._values = [v.index_select(0, rows) for v in self._values]
        self._lengths_B = self._lengths_B.index_select(0, rows)
        self._trim()

    def _trim(self) -> None:
        """As far as the longest source goes."""
        lengths = self._lengths_B.tolist()
        longest = max(lengths)
        self._keys = [k[:, :, :longest] for k in self._keys]
        self._values = [v[:, :, :longest] for v in self._values]
        even = min(lengths) == longest
        self._padding_B11S = None if even else padding_bias(self._lengths_B, longest, self._keys[0].dtype)

    def attend(self, layer: int, q_BHWD: Tensor) -> Tensor:
        return full_attention(q_BHWD, self._keys[layer], self._values[layer], bias=self._padding_B11S)


class _FirstTokens:
    """The cache in which targets read their start mark: there is nothing else to attend to."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def positions(self, n_new: int) -> slice:
        return slice(0, n_new)

    def attend(
        self, layer: int, q_BH1D: Tensor, k_BK1D: Tensor, v_BK1D: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        self.keys.append(k_BK1D)
        self.values.append(v_BK1D)
        return v_BK1D.repeat_interleave(q_BH1D.shape[1] // v_BK1D.shape[1], dim=1)

    def advance(self, n_new: int) -> None:
        """There is one token."""


class _TreeCache:
    """Keys and values of every token that a beam ever read, and who descends from whom.

    Column number t holds the W tokens that the beams of a source read at position t; column 0 holds the start mark, in
    its first place. ``_bias_BWCW`` is 0 where a beam descends from a token or just reads it, and -inf elsewhere.
    """

    def __init__(self, first: _FirstTokens, width: int, rotary: bool) -> None:
        self._width, self._rotary = width, rotary
        batch, n_kv_heads, _, head_dim = first.keys[0].shape
        shape_BKCWD = (batch, n_kv_heads, _FIRST_COLUMNS, width, head_dim)
        # What nobody descends from is read with weight 0: it must be finite.
        self._keys = [k.new_zeros(shape_BKCWD) for k in first.keys]
        self._values = [v.new_zeros(shape_BKCWD) for v in first.values]
        like = first.keys[0]
        self._bias_BWCW = like.new_full((batch, width, _FIRST_COLUMNS, width), -math.inf)
        self._itself_WW = like.new_full((width, width), -math.inf).fill_diagonal_(0.0)
        self._column_B = torch.ones(batch, dtype=torch.long, device=like.device)
        """Of the tokens that are read next."""
        self.put(torch.arange(batch, device=like.device), first, 0)

    def put(self, rows: Tensor, first: _FirstTokens, n_more: int) -> None:
        """New sources in these places, of which the last ``n_more`` are new: all descends from the start mark."""
        if n_more:
            self.keep(_with_more(self._column_B, n_more))
        for stored_BKCWD, new_BK1D in zip((*self._keys, *self._values), (*first.keys, *first.values), strict=True):
            stored_BKCWD[rows, :, 0, 0] = new_BK1D[:, :, 0]
        self._bias_BWCW[rows] = -math.inf
        self._bias_BWCW[rows, :, 0, 0] = 0.0
        self._column_B[rows] = 1
        self._prepare()

    def keep(self, rows: Tensor) -> None:
        """Only these places, in this order."""
        self._keys = [k.index_select(0, rows) for k in self._keys]
        self._values = [v.index_select(0, rows) for v in self._values]
        self._bias_BWCW, self._column_B = self._bias_BWCW.index_select(0, rows), self._column_B.index_select(0, rows)
        self._prepare()

    def follow(self, parents_BW: Tensor, running_B: Tensor) -> None:
        """The beams go on from these beams; places that are not running stay where they are."""
        index = parents_BW[:, :, None, None].expand(-1, -1, *self._bias_BWCW.shape[2:])
        self._bias_BWCW = self._bias_BWCW.gather(1, index)
        self._column_B += running_B
        self._prepare()

    def _prepare(self) -> None:
        """What all layers share in the next step: where its tokens go, and what each beam attends to."""
        self._n_columns = int(self._column_B.max()) + 1
        batch, n_kv_heads, n_stored = self._keys[0].shape[:3]
        if self._n_columns > n_stored:
            self._keys = [F.pad(k, (0, 0, 0, 0, 0, n_stored)) for k in self._keys]
            self._values = [F.pad(v, (0, 0, 0, 0, 0, n_stored)) for v in self._values]
            self._bias_BWCW = F.pad(self._bias_BWCW, (0, 0, 0, n_stored), value=-math.inf)
            n_stored *= 2
        device = self._column_B.device
        self._bias_BWCW[torch.arange(batch, device=device), :, self._column_B] = self._itself_WW
        planes_BK = torch.arange(batch * n_kv_heads, device=device).view(batch, n_kv_heads)
        self._slots = (planes_BK * n_stored + self._column_B[:, None]).flatten()
        self._mask_B1WN = self._bias_BWCW[:, :, : self._n_columns].flatten(2).unsqueeze(1)
        self._distances_BH1N: Tensor | None = None

    def positions(self, n_new: int) -> Tensor:
        """All beams of a source stand at the same position: (B, W), or (B, 1, W) for tables that lie beside heads."""
        assert n_new == self._width
        positions_BW = self._column_B[:, None].expand(-1, n_new)
        return positions_BW[:, None] if self._rotary else positions_BW

    def attend(
        self, layer: int, q_BHWD: Tensor, k_BKWD: Tensor, v_BKWD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        read = []
        for stored_BKCWD, new_BKWD in ((self._keys[layer], k_BKWD), (self._values[layer], v_BKWD)):
            columns = stored_BKCWD.flatten(0, 2).flatten(1)
            columns.index_copy_(0, self._slots, new_BKWD.flatten(0, 1).flatten(1))
            read.append(stored_BKCWD[:, :, : self._n_columns].flatten(2, 3))
        mask = self._mask_B1WN
        if bias is not None:
            if self._distances_BH1N is None:
                bias_HBC = bias(self._column_B, self._n_columns)
                self._distances_BH1N = bias_HBC.transpose(0, 1).unsqueeze(2).repeat_interleave(self._width, 3)
            mask = mask + self._distances_BH1N
        return F.scaled_dot_product_attention(
            q_BHWD, read[0], read[1], attn_mask=mask, enable_gqa=q_BHWD.shape[1] != k_BKWD.shape[1])

    def advance(self, n_new: int) -> None:
        """``follow`` counts, once it is known how the beams go on."""


class _State(NamedTuple):
    """What is stored of the sources in a batch, and of their targets."""

    sources: _Sources
    cache: _TreeCache


def _with_more(like_B: Tensor, n_more: int) -> Tensor:
    """Numbers of all places, and ``n_more`` times the first one, whose content is to be replaced."""
    return F.pad(torch.arange(len(like_B), device=like_B.device), (0, n_more))


def most_likely(logits_BWV: Tensor, scores_BW: Tensor, n_best: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the texts that have these scores so far, the ``n_best`` continuations by one token for each source: total
    log-probabilities (B, k), float32, falling; beams (B, k); token ids (B, k).

    It equals ``topk`` over all of them, and looks at the largest of ``_PEAKS`` neighbours first: whatever is among the
    k largest stands in one of the k groups with the largest peaks. Raises ``LogitsError`` when logits are no numbers
    to choose by.
    """
    width, n_vocab = logits_BWV.shape[1:]
    chances_BWV = logits_BWV.float().log_softmax(-1)
    bad = chances_BWV[..., 0].isnan().any(-1).nonzero().flatten().tolist()  # one that is no number spoils its row
    if bad:
        raise LogitsError(bad)
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
