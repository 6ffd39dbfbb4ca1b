"""What is stored while beams are searched: the sources' keys and values, and a tree of the tokens that beams read.

Shapes: B sources searched side by side, W beams, S source tokens, C columns (a token of every beam each), K key/value
heads, H query heads, D head dimension, N stored tokens (C · W).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.layers.attention import PositionBias, full_attention, padding_bias
from tickwise.layers.source_memory import Memory

_FIRST_COLUMNS = 32


class StoredSources:
    """Keys and values of the sources, a place for each: the ``SourceMemory`` of all of their beams."""

    def __init__(self, memory: Memory) -> None:
        self.keys = list(memory.keys)
        self._values = list(memory.values)
        self._lengths_B = memory.lengths_B
        self.tokens_BS = memory.tokens_BS
        self._trim()

    def put(self, rows: Tensor, memory: Memory, n_more: int) -> None:
        """Other sources into these places, of which the last ``n_more`` are new. None is longer than those before."""
        if n_more:
            self.keep(_with_more(self._lengths_B, n_more))
        for stored_BKSD, new_BKSD in zip((*self.keys, *self._values), (*memory.keys, *memory.values), strict=True):
            stored_BKSD[rows, :, : memory.longest] = new_BKSD
        self._lengths_B[rows] = memory.lengths_B
        if self.tokens_BS is not None and memory.tokens_BS is not None:
            self.tokens_BS[rows, : memory.longest] = memory.tokens_BS
        self._trim()

    def keep(self, rows: Tensor) -> None:
        """Only these places, in this order."""
        self.keys = [k.index_select(0, rows) for k in self.keys]
        self._values = [v.index_select(0, rows) for v in self._values]
        self._lengths_B = self._lengths_B.index_select(0, rows)
        if self.tokens_BS is not None:
            self.tokens_BS = self.tokens_BS.index_select(0, rows)
        self._trim()

    def _trim(self) -> None:
        """As far as the longest source goes."""
        lengths = self._lengths_B.tolist()
        self.longest = max(lengths)
        self.is_even = min(lengths) == self.longest
        self.keys = [k[:, :, : self.longest] for k in self.keys]
        self._values = [v[:, :, : self.longest] for v in self._values]
        if self.tokens_BS is not None:
            self.tokens_BS = self.tokens_BS[:, : self.longest]
        self.padding_B11S = None if self.is_even else padding_bias(self._lengths_B, self.longest, self.keys[0].dtype)

    def attend(self, layer: int, q_BHWD: Tensor) -> Tensor:
        return full_attention(q_BHWD, self.keys[layer], self._values[layer], bias=self.padding_B11S)


class FirstTokens:
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


class TreeCache:
    """Keys and values of every token that a beam ever read, and who descends from whom.

    Column number t holds the W tokens that the beams of a source read at position t; column 0 holds the start mark, in
    its first place. ``_bias_BWCW`` is 0 where a beam descends from a token or just reads it, and -inf elsewhere.
    """

    def __init__(self, first: FirstTokens, width: int, rotary: bool) -> None:
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

    def put(self, rows: Tensor, first: FirstTokens, n_more: int) -> None:
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
        self.n_columns = int(self._column_B.max()) + 1
        batch, n_kv_heads, n_stored = self._keys[0].shape[:3]
        if self.n_columns > n_stored:
            self._keys = [F.pad(k, (0, 0, 0, 0, 0, n_stored)) for k in self._keys]
            self._values = [F.pad(v, (0, 0, 0, 0, 0, n_stored)) for v in self._values]
            self._bias_BWCW = F.pad(self._bias_BWCW, (0, 0, 0, n_stored), value=-math.inf)
            n_stored *= 2
        device = self._column_B.device
        self._bias_BWCW[torch.arange(batch, device=device), :, self._column_B] = self._itself_WW
        planes_BK = torch.arange(batch * n_kv_heads, device=device).view(batch, n_kv_heads)
        self._slots = (planes_BK * n_stored + self._column_B[:, None]).flatten()
        self._mask_B1WN = self._bias_BWCW[:, :, : self.n_columns].flatten(2).unsqueeze(1)
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
            read.append(stored_BKCWD[:, :, : self.n_columns].flatten(2, 3))
        mask = self._mask_B1WN
        if bias is not None:
            if self._distances_BH1N is None:
                bias_HBC = bias(self._column_B, self.n_columns)
                self._distances_BH1N = bias_HBC.transpose(0, 1).unsqueeze(2).repeat_interleave(self._width, 3)
            mask = mask + self._distances_BH1N
        return F.scaled_dot_product_attention(
            q_BHWD, read[0], read[1], attn_mask=mask, enable_gqa=q_BHWD.shape[1] != k_BKWD.shape[1])

    def advance(self, n_new: int) -> None:
        """``follow`` counts, once it is known how the beams go on."""


class BeamState(NamedTuple):
    """What is stored of the sources in a batch, and of their targets."""

    sources: StoredSources
    cache: TreeCache


def _with_more(like_B: Tensor, n_more: int) -> Tensor:
    """Numbers of all places, and ``n_more`` times the first one, whose content is to be replaced."""
    return F.pad(torch.arange(len(like_B), device=like_B.device), (0, n_more))
