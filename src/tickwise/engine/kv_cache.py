"""Keys and values of the tokens that a decoder has already seen, so that a tick computes only the new ones.

``KVCache`` is the plain one: all rows are equally long and each has its own storage. ``KVBlocks`` stores many rows of
different lengths in blocks that they may share; ``KVBlocks.tick`` gives what a model needs for one forward pass.

Shapes: L layers, B batch rows, K key/value heads, H query heads, T new tokens, S tokens stored so far plus the new
ones, C capacity in tokens, N token slots of all blocks, D head dimension.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack

from tickwise.engine.blocks import is_run
from tickwise.layers.attention import BiasedCache, PositionBias, causal_attention, chunk_mask, full_attention

if TYPE_CHECKING:
    from tickwise.engine.runner import RowInput


class KVCache:
    """Preallocated storage for ``capacity`` tokens; every row holds the same number of tokens.

    A tick calls ``attend`` once per layer and ``advance`` once after the last layer. Both storages have
    the shape L·B·K·C·D, so that appending is one copy into a slice and reading is a view.

    >>> cache = KVCache(n_layers=2, batch=1, n_kv_heads=4, head_dim=8, capacity=16)
    >>> keys, values = cache.update(0, torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 3, 8))
    >>> keys.shape, cache.length
    (torch.Size([1, 4, 3, 8]), 0)
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape_LBHCD = (n_layers, batch, n_kv_heads, capacity, head_dim)
        if min(shape_LBHCD) < 1:
            raise ValueError(f"KV cache: every dimension must be at least 1, got {shape_LBHCD}")
        # Never read before it is written: every view that leaves this class ends at the last stored token.
        self._k_LBHCD = torch.empty(shape_LBHCD, dtype=dtype, device=device)
        self._v_LBHCD = torch.empty(shape_LBHCD, dtype=dtype, device=device)
        self._length = 0
        self._tick: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Tokens stored so far, the same for every row."""
        return self._length

    @property
    def capacity(self) -> int:
        """The most tokens that a row can hold."""
        return self._k_LBHCD.shape[3]

    @property
    def bytes(self) -> int:
        """Bytes that are reserved, whether filled or not."""
        return self._k_LBHCD.nbytes + self._v_LBHCD.nbytes

    def positions(self, n_new: int) -> slice:
        """Positions of the next tokens."""
        return slice(self._length, self._length + n_new)

    def _begin_tick(self, n_new: int) -> None:
        """Slice all layers at once: per layer and tick, slicing would cost more than the copy itself."""
        stored, end = self._length, self._length + n_new
        if end > self.capacity:
            raise ValueError(
                f"KV cache is full: {stored} tokens stored, {n_new} new ones, capacity {self.capacity}"
            )
        self._tick = (stored, n_new)
        _, batch, n_kv_heads, _, head_dim = self._k_LBHCD.shape
        self._new_shape = (batch, n_kv_heads, n_new, head_dim)
        self._new_k = self._k_LBHCD.narrow(3, stored, n_new).unbind(0)
        self._new_v = self._v_LBHCD.narrow(3, stored, n_new).unbind(0)
        self._all_k = self._k_LBHCD.narrow(3, 0, end).unbind(0)
        self._all_v = self._v_LBHCD.narrow(3, 0, end).unbind(0)

    def update(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens of one layer; returns views ``k_BKSD, v_BKSD`` of all its tokens.

        Raises ``ValueError`` past the capacity or for tensors of another batch, head count or head size.
        """
        n_new = k_BKTD.shape[2]
        if self._tick != (self._length, n_new):
            self._begin_tick(n_new)
        if k_BKTD.shape != self._new_shape or v_BKTD.shape != self._new_shape:
            raise ValueError(
                f"KV cache: expected keys and values of shape {self._new_shape}, "
                f"got {tuple(k_BKTD.shape)} and {tuple(v_BKTD.shape)}"
            )
        self._new_k[layer].copy_(k_BKTD)
        self._new_v[layer].copy_(v_BKTD)
        return self._all_k[layer], self._all_v[layer]

    def attend(
        self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        """Store one layer's new tokens and attend to all: (B, H, T, D)."""
        keys, values = self.update(layer, k_BKTD, v_BKTD)
        if bias is None:
            return causal_attention(q_BHTD, keys, values)
        end = keys.shape[2]
        return full_attention(q_BHTD, keys, values, bias=bias(slice(self._length, end), end)[None])

    def advance(self, n_new: int) -> None:
        """Count ``n_new`` tokens as stored; the model calls this once, after its last layer."""
        if self._length + n_new > self.capacity:
            raise ValueError(
                f"KV cache is full: {self._length} tokens stored, {n_new} new ones, capacity {self.capacity}"
            )
        self._length += n_new

    def truncate(self, length: int) -> None:
        """Forget the tokens from number ``length`` on; the storage stays."""
        assert 0 <= length <= self._length
        self._length = length
        self._tick = None

    def expand(self, batch: int) -> None:
        """Copy a single row ``batch`` times, so that a prompt is read once however many samples follow."""
        if self._k_LBHCD.shape[1] != 1:
            raise ValueError("KV cache: only a cache of one row can be expanded")
        self._k_LBHCD = self._k_LBHCD.expand(-1, batch, -1, -1, -1).contiguous()
        self._v_LBHCD = self._v_LBHCD.expand(-1, batch, -1, -1, -1).contiguous()
        self._tick = None


class KVBlocks:
    """Keys and values in ``n_blocks`` blocks of ``block_size`` tokens.

    Each layer and head has one plane of N = n_blocks · block_size token slots, so that blocks that lie side by side
    are read as one view, like a plain cache; only rows that are scattered have to be gathered. Rows that begin in
    neighbouring lanes of ``lane`` blocks each are read as one batch.
    """

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, n_blocks: int, block_size: int, dtype: torch.dtype,
        device: torch.device, lane: int | None = None,
    ) -> None:
        self.block_size, self.n_layers = block_size, n_layers
        self.lane = lane
        self.n_lanes = n_blocks // lane if lane else 0
        # Keys of all layers, then values of all layers: one slice of everything costs less than one of each.
        # Padding is read, with weight 0, before it is written: it must be finite.
        self._kv = _zeros((2 * n_layers, 1, n_kv_heads, n_blocks * block_size, head_dim), dtype, device)
        planes = self._kv[:, 0].unbind(0)
        self.k_layers, self.v_layers = planes[:n_layers], planes[n_layers:]
        self._scratch: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Bytes that are reserved, whether filled or not."""
        return self._kv.nbytes

    def copy(self, source: int, target: int, n_blocks: int = 1) -> None:
        """Copy blocks that lie side by side, of every layer, to others that do."""
        size = self.block_size
        self._kv.narrow(3, target * size, n_blocks * size).copy_(self._kv.narrow(3, source * size, n_blocks * size))

    def clear(self, block: int) -> None:
        """Overwrite a block of every layer, whose numbers may not be finite."""
        self._kv.narrow(3, block * self.block_size, self.block_size).zero_()

    def tick(self, rows: Sequence["RowInput"]) -> BiasedCache:
        """What the model needs to read these rows' new tokens, side by side in one sequence."""
        if len(rows) == 1 and is_run(self.table(rows[0])):
            return _OneRun(self, rows[0])
        return _Rows(self, rows)

    def table(self, row: "RowInput") -> Sequence[int]:
        """The row's blocks up to its last new token."""
        return row.blocks[: -(-(row.n_cached + len(row.ids)) // self.block_size)]

    def slots(self, blocks: Sequence[int], start: int, end: int) -> list[int]:
        """Numbers of the slots of tokens from number ``start`` to before ``end`` of a text with these blocks."""
        size = self.block_size
        return [blocks[i // size] * size + i % size for i in range(start, end)]

    def views(self, first_slot: int, n_tokens: int) -> tuple[Tensor, ...]:
        """Keys, then values, in a run of slots: a view (1, K, n_tokens, D) for each layer."""
        return self._kv.narrow(3, first_slot, n_tokens).unbind(0)

    def lanes(self, first_lane: int, n_lanes: int, n_tokens: int) -> tuple[Tensor, ...]:
        """Keys, then values, at the beginning of neighbouring lanes: a view (B, K, n_tokens, D) for each layer."""
        assert self.lane is not None
        n_slots = self.lane * self.block_size
        kv = self._kv[:, 0].narrow(2, first_lane * n_slots, n_lanes * n_slots).unflatten(2, (n_lanes, n_slots))
        return kv.narrow(3, 0, n_tokens).transpose(1, 2).unbind(0)

    def gather(self, layer: int, table: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]:
        """The first tokens of scattered blocks, (1, K, n_tokens, D), valid until the next call."""
        n_blocks, width = len(table), self.block_size * self._kv.shape[-1]
        if self._scratch is None or self._scratch.shape[-2] < n_blocks:
            n_kv_heads = self._kv.shape[2]
            self._scratch = self._kv.new_empty(2, n_kv_heads * n_blocks, width).unflatten(1, (n_kv_heads, -1))
        found = []
        for plane, scratch_KNW in zip((self.k_layers[layer], self.v_layers[layer]), self._scratch, strict=True):
            plane_KNW = plane.unflatten(1, (-1, self.block_size)).flatten(2)
            out_KNW = scratch_KNW.flatten()[: plane_KNW.shape[0] * n_blocks * width].view(-1, n_blocks, width)
            torch.index_select(plane_KNW, 1, table, out=out_KNW)
            found.append(out_KNW.unflatten(2, (self.block_size, -1)).flatten(1, 2)[:, :n_tokens].unsqueeze(0))
        return found[0], found[1]


class _OneRun:
    """A tick of one row whose blocks lie side by side: everything is a view."""

    def __init__(self, blocks: KVBlocks, row: "RowInput") -> None:
        n_new, n_all = len(row.ids), row.n_cached + len(row.ids)
        first = row.blocks[0] * blocks.block_size
        self._n_layers = blocks.n_layers
        self._positions = slice(row.n_cached, n_all)
        self._new = blocks.views(first + row.n_cached, n_new)
        self._all = blocks.views(first, n_all)
        self._mask = _chunk_bias(n_new, n_all, self._new[0])

    def positions(self, n_new: int) -> slice:
        return self._positions

    def attend(
        self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        values = layer + self._n_layers
        self._new[layer].copy_(k_1KTD)
        self._new[values].copy_(v_1KTD)
        if bias is not None:
            scores_bias = bias(self._positions, self._positions.stop)[None]
            return full_attention(q_1HTD, self._all[layer], self._all[values], bias=scores_bias)
        return causal_attention(q_1HTD, self._all[layer], self._all[values], self._mask)

    def advance(self, n_new: int) -> None:
        """The engine counts."""


class _Rows:
    """A tick of several rows, each of which attends to its own tokens."""

    def __init__(self, blocks: KVBlocks, rows: Sequence["RowInput"]) -> None:
        self._blocks = blocks
        size, device = blocks.block_size, blocks.k_layers[0].device
        positions: list[int] = []
        slots: list[int] = []
        for row in rows:
            n_all, table = row.n_cached + len(row.ids), blocks.table(row)
            positions += range(row.n_cached, n_all)
            for index in range(row.n_cached // size, len(table)):
                start = index * size
                slots += range(
                    table[index] * size + max(0, row.n_cached - start), table[index] * size + min(size, n_all - start)
                )
        self._parts = [_Lanes(blocks, part) if len(part) > 1 else _Part(blocks, part[0])
                       for part in _parts(blocks, rows)]
        self._sizes = [part.n_new for part in self._parts]
        self._positions_T = torch.tensor(positions, device=device)
        self._slots_T = torch.tensor(slots, device=device)

    def positions(self, n_new: int) -> Tensor:
        return self._positions_T

    def attend(
        self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        self._blocks.k_layers[layer].index_copy_(1, self._slots_T, k_1KTD[0])
        self._blocks.v_layers[layer].index_copy_(1, self._slots_T, v_1KTD[0])
        if len(self._parts) == 1:
            return self._parts[0].attend(layer, q_1HTD, bias)
        queries = q_1HTD.split(self._sizes, dim=2)
        return torch.cat([part.attend(layer, q, bias) for part, q in zip(self._parts, queries, strict=True)], dim=2)

    def advance(self, n_new: int) -> None:
        """The engine counts."""


class _Part:
    """One row: a view of blocks that lie side by side, a copy of scattered ones."""

    def __init__(self, blocks: KVBlocks, row: "RowInput") -> None:
        self.n_new, self._n_all, table = len(row.ids), row.n_cached + len(row.ids), blocks.table(row)
        self._blocks = blocks
        self._mask = _chunk_bias(self.n_new, self._n_all, blocks.k_layers[0])
        self._views: tuple[Tensor, ...] | None = None
        if is_run(table):
            self._views = blocks.views(table[0] * blocks.block_size, self._n_all)
        else:
            row.gathered = True
            self._table = torch.tensor(list(table), device=blocks.k_layers[0].device)

    def attend(self, layer: int, q_1HTD: Tensor, bias: PositionBias | None) -> Tensor:
        if self._views is not None:
            k, v = self._views[layer], self._views[layer + self._blocks.n_layers]
        else:
            k, v = self._blocks.gather(layer, self._table, self._n_all)
        if bias is not None:
            scores_bias = bias(slice(self._n_all - self.n_new, self._n_all), self._n_all)[None]
            return full_attention(q_1HTD, k, v, bias=scores_bias)
        return causal_attention(q_1HTD, k, v, self._mask)


class _Lanes:
    """Rows with one new token each, in neighbouring lanes: one batch, in which shorter texts are padded."""

    def __init__(self, blocks: KVBlocks, rows: Sequence["RowInput"]) -> None:
        self.n_new, self._n_layers = len(rows), blocks.n_layers
        lengths = [row.n_cached + 1 for row in rows]
        longest = max(lengths)
        for row in rows:
            row.together = len(rows)
        assert blocks.lane is not None
        self._views = blocks.lanes(rows[0].blocks[0] // blocks.lane, len(rows), longest)
        self._lengths = lengths
        self._positions_B: Tensor | None = None
        self._mask: Tensor | None = None
        if min(lengths) < longest:
            first = self._views[0]
            lengths_B111 = torch.tensor(lengths, device=first.device)[:, None, None, None]
            padding = torch.arange(longest, device=first.device) >= lengths_B111
            self._mask = torch.zeros(padding.shape, dtype=first.dtype, device=first.device)
            self._mask.masked_fill_(padding, -math.inf)

    def attend(self, layer: int, q_1HBD: Tensor, bias: PositionBias | None) -> Tensor:
        q_BH1D = q_1HBD.transpose(0, 2)
        k, v = self._views[layer], self._views[layer + self._n_layers]
        if bias is not None:  # a text's padding is later than its new token
            if self._positions_B is None:
                self._positions_B = torch.tensor(self._lengths, device=k.device) - 1
            scores_BH1S = bias(self._positions_B, k.shape[2]).transpose(0, 1).unsqueeze(2)
            return full_attention(q_BH1D, k, v, bias=scores_BH1S).transpose(0, 2)
        return causal_attention(q_BH1D, k, v, self._mask).transpose(0, 2)


def _chunk_bias(n_new: int, n_all: int, like: Tensor) -> Tensor | None:
    """``chunk_mask`` as what is added to scores, (T, S): made once, where attention would convert it in every layer."""
    mask_TS = chunk_mask(n_new, n_all, like.device)
    return None if mask_TS is None else torch.where(mask_TS, 0.0, -math.inf).to(like.dtype)


# A call costs about as much as reading so many tokens.
_CHEAP_PADDING = 64


def _parts(blocks: KVBlocks, rows: Sequence["RowInput"]) -> list[list["RowInput"]]:
    """The rows in order, those together that are read as one batch: neighbouring lanes, not too different lengths."""
    if not blocks.lane:
        return [[row] for row in rows]
    parts: list[list[RowInput]] = []
    expected, shortest, longest = -1, 0, 0
    for row in rows:
        table = blocks.table(row)
        lane, offset = divmod(table[0], blocks.lane)
        alone = offset != 0 or lane >= blocks.n_lanes or len(row.ids) > 1 or not is_run(table)
        shorter, longer = min(shortest, row.n_cached), max(longest, row.n_cached)
        if not alone and lane == expected and longer - shorter <= _CHEAP_PADDING:
            parts[-1].append(row)
            shortest, longest = shorter, longer
        else:
            parts.append([row])
            shortest = longest = row.n_cached
        expected = -1 if alone else lane + 1
    return parts


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU memory is taken from the operating system only where it is touched."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    n_bytes, alignment = math.prod(shape) * dtype.itemsize, 64
    try:
        raw = numpy.zeros(n_bytes + alignment, dtype=numpy.uint8)
    except MemoryError:
        if not _len_torch_dispatch_stack():
            raise
        return torch.empty(shape, dtype=dtype, device=device)  # for a listing or a dry run, which only need its shape
    start = -raw.ctypes.data % alignment
    return torch.from_numpy(raw[start : start + n_bytes]).view(dtype).view(shape)
