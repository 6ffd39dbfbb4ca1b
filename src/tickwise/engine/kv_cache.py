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
import torch.nn.functional as F
from torch import Tensor

from tickwise.layers.attention import KeyValueCache, causal_attention

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

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        """Store one layer's new tokens and attend to all: (B, H, T, D)."""
        return causal_attention(q_BHTD, *self.update(layer, k_BKTD, v_BKTD))

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
    are read as one view, like a plain cache; only rows that are scattered have to be gathered.
    """

    def __init__(
        self, n_layers: int, n_kv_heads: int, head_dim: int, n_blocks: int, block_size: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape_L1KND = (n_layers, 1, n_kv_heads, n_blocks * block_size, head_dim)
        self.block_size = block_size
        # Padding is read, with weight 0, before it is written: it must be finite.
        self._k_L1KND, self._v_L1KND = (_zeros(shape_L1KND, dtype, device) for _ in range(2))
        self.k_layers, self.v_layers = self._k_L1KND[:, 0].unbind(0), self._v_L1KND[:, 0].unbind(0)

    @property
    def bytes(self) -> int:
        """Bytes that are reserved, whether filled or not."""
        return self._k_L1KND.nbytes + self._v_L1KND.nbytes

    def copy(self, source: int, target: int) -> None:
        """Copy a block of every layer."""
        size = self.block_size
        for planes in (self._k_L1KND, self._v_L1KND):
            planes.narrow(3, target * size, size).copy_(planes.narrow(3, source * size, size))

    def tick(self, rows: Sequence["RowInput"]) -> KeyValueCache:
        """What the model needs to read these rows' new tokens, side by side in one sequence."""
        row = rows[0]
        n_new, n_all = len(row.ids), row.n_cached + len(row.ids)
        if len(rows) == 1 and _is_run(row.blocks[: -(-n_all // self.block_size)]):
            first = row.blocks[0] * self.block_size
            new = [p.narrow(3, first + row.n_cached, n_new).unbind(0) for p in (self._k_L1KND, self._v_L1KND)]
            both = [p.narrow(3, first, n_all).unbind(0) for p in (self._k_L1KND, self._v_L1KND)]
            return _OneRun(slice(row.n_cached, n_all), new, both)
        return _Ragged(self, rows)


class _OneRun:
    """A tick of one row whose blocks lie side by side: everything is a view."""

    def __init__(
        self, positions: slice, new: list[tuple[Tensor, ...]], both: list[tuple[Tensor, ...]],
    ) -> None:
        self._positions = positions
        self._new_k, self._new_v = new
        self._all_k, self._all_v = both

    def positions(self, n_new: int) -> slice:
        return self._positions

    def attend(self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor) -> Tensor:
        self._new_k[layer].copy_(k_1KTD)
        self._new_v[layer].copy_(v_1KTD)
        return causal_attention(q_1HTD, self._all_k[layer], self._all_v[layer])

    def advance(self, n_new: int) -> None:
        """The engine counts."""


class _Piece:
    """One row with several new tokens, ``start`` to ``stop`` in the tick's sequence."""

    def __init__(self, blocks: KVBlocks, row: "RowInput", start: int, device: torch.device) -> None:
        n_new, n_all, size = len(row.ids), row.n_cached + len(row.ids), blocks.block_size
        self.start, self.stop = start, start + n_new
        self._n_all, self._size = n_all, size
        table = row.blocks[: -(-n_all // size)]
        self._first = table[0] * size if _is_run(table) else None
        self._table = torch.tensor(table, device=device)
        self._mask: Tensor | None = None
        if row.n_cached > 0 and n_new > 1:
            self._mask = torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril_(row.n_cached)

    def _stored(self, plane_KND: Tensor) -> Tensor:
        """The row's tokens, (1, K, S, D)."""
        if self._first is not None:
            return plane_KND[:, self._first : self._first + self._n_all].unsqueeze(0)
        return _gather(plane_KND, self._table, self._size)[:, : self._n_all].unsqueeze(0)

    def attend(self, q_1HTD: Tensor, k_KND: Tensor, v_KND: Tensor) -> Tensor:
        q_1HTD = q_1HTD[:, :, self.start : self.stop]
        k_1KSD, v_1KSD = self._stored(k_KND), self._stored(v_KND)
        if self._mask is None:
            return causal_attention(q_1HTD, k_1KSD, v_1KSD)
        grouped = q_1HTD.shape[1] != k_1KSD.shape[1]
        return F.scaled_dot_product_attention(q_1HTD, k_1KSD, v_1KSD, attn_mask=self._mask, enable_gqa=grouped)


class _Ragged:
    """A tick of rows of different lengths, those with one new token first.

    The rows with one new token attend together, their blocks gathered and padded to the longest; the others one
    after the other.
    """

    def __init__(self, blocks: KVBlocks, rows: Sequence["RowInput"]) -> None:
        self._blocks = blocks
        size, device = blocks.block_size, blocks.k_layers[0].device
        positions: list[int] = []
        slots: list[int] = []
        for row in rows:
            end = row.n_cached + len(row.ids)
            positions += range(row.n_cached, end)
            for index in range(row.n_cached // size, -(-end // size)):
                first = row.blocks[index] * size
                slots += range(
                    first + max(0, row.n_cached - index * size), first + min(size, end - index * size)
                )
        self._positions_T = torch.tensor(positions, device=device)
        self._slots_T = torch.tensor(slots, device=device)
        singles = [row for row in rows if len(row.ids) == 1]
        assert all(len(row.ids) == 1 for row in rows[: len(singles)]), "rows with one new token come first"
        self._n_singles = len(singles)
        if singles:
            n_blocks = max(row.n_cached // size + 1 for row in singles)
            tables = [[*row.blocks[:n_blocks], *[0] * (n_blocks - len(row.blocks))] for row in singles]
            self._tables = torch.tensor(tables, device=device).flatten()
            lengths_B1 = torch.tensor([[row.n_cached + 1] for row in singles], device=device)
            self._mask_B11S = (torch.arange(n_blocks * size, device=device) < lengths_B1)[:, None, None]
        self._pieces: list[_Piece] = []
        start = len(singles)
        for row in rows[start:]:
            self._pieces.append(_Piece(blocks, row, start, device))
            start += len(row.ids)

    def positions(self, n_new: int) -> Tensor:
        return self._positions_T

    def attend(self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor) -> Tensor:
        k_KND, v_KND = self._blocks.k_layers[layer], self._blocks.v_layers[layer]
        k_KND.index_copy_(1, self._slots_T, k_1KTD[0])
        v_KND.index_copy_(1, self._slots_T, v_1KTD[0])
        out = [self._attend_singles(q_1HTD, k_KND, v_KND)] if self._n_singles else []
        out += [piece.attend(q_1HTD, k_KND, v_KND) for piece in self._pieces]
        return out[0] if len(out) == 1 else torch.cat(out, dim=2)

    def _attend_singles(self, q_1HTD: Tensor, k_KND: Tensor, v_KND: Tensor) -> Tensor:
        """(1, H, B, D). The query heads of a group are queries to the same keys."""
        B, K = self._n_singles, k_KND.shape[0]
        q_BKGD = q_1HTD[0, :, :B].transpose(0, 1).unflatten(1, (K, -1))
        size = self._blocks.block_size
        k_BKSD, v_BKSD = (
            _gather(plane, self._tables, size).unflatten(1, (B, -1)).transpose(0, 1) for plane in (k_KND, v_KND)
        )
        out_BKGD = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, attn_mask=self._mask_B11S)
        return out_BKGD.flatten(1, 2).transpose(0, 1).unsqueeze(0)

    def advance(self, n_new: int) -> None:
        """The engine counts."""


def _gather(plane_KND: Tensor, blocks: Tensor, block_size: int) -> Tensor:
    """The slots of these blocks, one block after the other: (K, len(blocks) · block_size, D)."""
    n_kv_heads, _, head_dim = plane_KND.shape
    return plane_KND.view(n_kv_heads, -1, block_size * head_dim).index_select(1, blocks).view(
        n_kv_heads, -1, head_dim
    )


def _is_run(blocks: Sequence[int]) -> bool:
    """Whether the blocks lie side by side, in order."""
    first = blocks[0]
    return blocks[-1] - first == len(blocks) - 1 and list(blocks) == list(range(first, first + len(blocks)))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU memory is taken from the operating system only where it is touched."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    n_bytes, alignment = math.prod(shape) * dtype.itemsize, 64
    raw = numpy.zeros(n_bytes + alignment, dtype=numpy.uint8)
    start = -raw.ctypes.data % alignment
    return torch.from_numpy(raw[start : start + n_bytes]).view(dtype).view(shape)
